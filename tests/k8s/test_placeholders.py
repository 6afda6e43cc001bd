"""An image that a site must name stops the rendering of what needs it, with the fix, and of nothing else."""

from __future__ import annotations

import pytest
import yaml

from tests.k8s import conftest, rendering


@pytest.fixture
def copied(tmp_path):
    rendering.copy_manifests(tmp_path)
    return tmp_path / "k8s"


@pytest.mark.parametrize("folder", ["overlays/gpu", "overlays/small", conftest.SERVED, conftest.MONITORED])
def test_nothing_renders_with_a_placeholder_and_the_message_names_the_file(copied, folder):
    needed = rendering.IMAGES if folder == conftest.MONITORED else {"serving/image.yaml": rendering.DIGEST}
    for name, image in needed.items():
        with pytest.raises(RuntimeError, match=rf"placeholder: put .* k8s/{name}"):
            rendering.build(copied / folder)
        rendering.fill(copied / name, image)
    text = yaml.safe_dump(rendering.build(copied / folder))
    assert rendering.DIGEST in text and "placeholder" not in text and "image.yaml" not in text


@pytest.mark.parametrize("folder", ["gpu", "small"])
def test_without_the_model_server_an_overlay_needs_no_digest_and_keeps_the_rest(copied, folder):
    file = copied / "overlays" / folder / "kustomization.yaml"
    content = yaml.safe_load(file.read_text())
    assert content.pop("components") == ["../../serving"]
    file.write_text(yaml.safe_dump(content))
    titles = {rendering.title(item) for item in rendering.build(file.parent)}
    whole = {rendering.title(item) for item in rendering.render(f"overlays/{folder}")}
    gone = {"ServingRuntime/marco-tensorflow", "InferenceService/marco", "PodDisruptionBudget/marco-serving"}
    assert whole - titles == gone and not titles - whole


def test_the_images_are_those_that_were_put_in(copied):
    for name, image in rendering.IMAGES.items():
        rendering.fill(copied / name, image)
    images = {
        container["image"]
        for title, pod in rendering.pods(rendering.build(copied / conftest.MONITORED))
        if title in ("InferenceService/marco", "CronJob/marco-monitoring")
        for container in pod["spec"]["containers"]
    }
    served = f"docker.io/tensorflow/serving@{rendering.DIGEST}"
    assert images == {served, rendering.IMAGES["monitoring/image.yaml"]}
