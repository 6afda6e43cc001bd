import argparse
import io

import pytest
from PIL import Image

from benchmarks import finetune
from components.settings import Transform
from marco_data.synthetic import Settings, plan
from marco_model import training_input


def test_drops_of_one_institution_are_written_as_training_reads_them(tmp_path):
    drops = finetune.drops(3, 5, {"HWMRI": 1.0}, Transform())
    settings = Settings(seed=5, institutions={"HWMRI": 1.0})
    assert [shown for _, shown in drops] == [plan(settings, index).shown for index in range(3)]
    files = finetune.write(tmp_path / "train", drops[1:])
    assert list(training_input.encoded_images(files).as_numpy_iterator()) == drops[1:]


def test_drops_are_shrunk_as_the_transform_step_does():
    ((small, _),) = finetune.drops(1, 0, {"HWMRI": 1.0}, Transform(shorter_side=60, quality=90))
    with Image.open(io.BytesIO(small)) as image:
        assert min(image.size) == 60


@pytest.mark.slow
def test_the_head_is_fine_tuned_from_the_published_weights_and_judged():
    pytest.importorskip("dls_marco_score_ispyb")
    changes = ["recipe.steps=2", "recipe.batch_size=4", "recipe.evaluate_every=1"]
    arguments = argparse.Namespace(institution="HWMRI", images=10, unseen=4, seed=0, trainable=["head"], set=changes)
    published, tuned = finetune.measure(arguments)
    assert (published.part, tuned.part, published.best_step) == ("as published", "head", 0)
    assert tuned.best_step in (1, 2)
    for outcome in (published, tuned):
        assert {outcome.held_out * 2 % 1, outcome.unseen * 4 % 1, outcome.elsewhere * 4 % 1} == {0.0}
        assert 0.25 <= outcome.unseen <= 1
