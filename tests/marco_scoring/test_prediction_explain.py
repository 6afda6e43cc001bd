import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from marco_model.errors import InputError
from marco_scoring.prediction import explain, output_names

QUICK = {"samples": 2, "noise": 0.1, "batch_size": 2}


@pytest.fixture(scope="module")
def classifier(short_network, tmp_path_factory):
    from marco_model.classifier import export
    from marco_model.inception_v3 import inception_v3
    from marco_model.load import open_classifier

    directory = tmp_path_factory.mktemp("model") / "m"
    network = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, num_classes=3)
    export(network, directory, classes=("Clear", "Needles", "Mess"), input_size=151, metadata={"name": "tried"})
    return open_classifier(directory)


@pytest.fixture
def plate(real_images, tmp_path):
    for folder, name in (("a", "crystals_10.jpeg"), ("a", "clear_220.jpeg"), ("b", "crystals_10.jpeg")):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(real_images[name], tmp_path / folder / "drop.jpeg" if folder == "b" else tmp_path / folder / name)
    shutil.copy(real_images["other_1254.jpeg"], tmp_path / "a" / "drop.jpeg")
    (tmp_path / "a" / "half.jpg").write_bytes(real_images["clear_220.jpeg"].read_bytes()[:30_000])
    return [*sorted((tmp_path / "a").iterdir()), tmp_path / "b" / "drop.jpeg"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_each_image_has_its_own_overlay_and_row_and_what_failed_is_listed(classifier, plate, tmp_path):
    from PIL import Image

    out = tmp_path / "out"
    assert explain(classifier, plate, out, **QUICK) == 1
    table = rows(out / "explained.csv")
    assert [Path(row["path"]).name for row in table] == [
        "clear_220.jpeg",
        "crystals_10.jpeg",
        "drop.jpeg",
        "drop.jpeg",
    ]
    assert [row["output"] for row in table] == ["clear_220.png", "crystals_10.png", "drop.png", "drop-2.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(row["output"] for row in table), "explained.csv", "explained.errors.csv"]
    )
    (error,) = rows(out / "explained.errors.csv")
    assert error["reason"].startswith("does not decode")
    readable = [path for path in plate if path.name != "half.jpg"]
    scores = classifier.score([path.read_bytes() for path in readable])
    for row, score in zip(table, scores, strict=True):
        assert row["class"] == classifier.classes[int(score.argmax())]
        assert float(row["score"]) == pytest.approx(float(score.max()), abs=1e-5)
        with Image.open(out / row["output"]) as picture:
            assert picture.size == (151, 151)


@pytest.mark.slow
def test_a_class_can_be_chosen_and_the_raw_attribution_kept(classifier, plate, tmp_path):
    files = plate[:1]
    explain(classifier, files, tmp_path / "one", **QUICK, class_name="mess", raw=True)
    explain(classifier, files, tmp_path / "two", samples=2, noise=0.1, batch_size=1, class_name="Mess", raw=True)
    (row,) = rows(tmp_path / "one" / "explained.csv")
    assert row["class"] == "Mess"
    assert not (tmp_path / "one" / "explained.errors.csv").exists()
    first, second = (np.load(tmp_path / name / "clear_220.npy") for name in ("one", "two"))
    assert first.dtype == np.float32 and first.shape == (151, 151) and (first >= 0).all() and first.any()
    np.testing.assert_allclose(first, second, atol=1e-3 * first.max())


@pytest.mark.slow
def test_an_unknown_class_is_refused_with_the_known_ones(classifier, plate, tmp_path):
    with pytest.raises(InputError, match=r"no class 'Crystals'; give one of Clear, Needles, Mess"):
        explain(classifier, plate, tmp_path / "out", **QUICK, class_name="Crystals")
    assert not (tmp_path / "out").exists()


def test_images_in_the_output_folder_are_not_written_over(tmp_path):
    with pytest.raises(InputError, match="give another folder"):
        output_names([tmp_path / "plate" / "drop.png"], tmp_path / "plate")
    (tmp_path / "link.png").symlink_to(tmp_path / "plate" / "link.png")
    with pytest.raises(InputError, match="give another folder"):
        output_names([tmp_path / "link.png"], tmp_path / "plate")


def test_an_overlay_is_not_written_through_a_link_to_its_image(tmp_path):
    image = tmp_path / "drop.png"
    image.write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "drop.png").symlink_to(image)
    with pytest.raises(InputError, match=r"the overlay .*drop.png is an input"):
        explain(None, [image], tmp_path / "out", **QUICK)
    assert image.read_text() == "kept"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["a", "A", "a-2", "a-3", "b.c"])), max_size=12))
def test_names_never_collide(drops):
    files = [Path(folder) / f"{stem}.jpg" for folder, stem in drops]
    names = output_names(files, Path("out"))
    assert len({name.casefold() for name in names}) == len(files)
    assert all(name.startswith(path.stem) for name, path in zip(names, files, strict=True))
