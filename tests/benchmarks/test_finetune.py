import argparse

import numpy as np
import pytest

from benchmarks import finetune
from marco_data.synthetic import plan
from marco_data.synthetic.plan import Settings
from marco_model import training_input


def test_drops_of_one_institution_are_written_as_training_reads_them(tmp_path):
    drops = finetune.drops(3, 5, {"HWMRI": 1.0}, processes=1)
    settings = Settings(seed=5, institutions={"HWMRI": 1.0})
    assert drops.labels.tolist() == [plan(settings, index).shown for index in range(3)]
    files = finetune.write(tmp_path / "train", drops.part(1))
    read = list(training_input.encoded_images(files).as_numpy_iterator())
    assert [encoded for encoded, _ in read] == drops.encoded[1:]
    assert [label for _, label in read] == drops.labels[1:].tolist()


def test_drops_are_shrunk_as_the_transform_step_does():
    drops = finetune.drops(1, 0, {"HWMRI": 1.0}, processes=1)
    import cv2

    (small,) = finetune.shrunk(drops, {"shorter_side": 60, "quality": 90}).encoded
    assert min(cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape[:2]) == 60
    assert finetune.shrunk(drops, {"shorter_side": 0, "quality": 90}) is drops


@pytest.mark.slow
def test_the_head_is_fine_tuned_from_the_published_weights_and_judged():
    pytest.importorskip("dls_marco_score_ispyb")
    changes = ["recipe.steps=2", "recipe.batch_size=4", "recipe.evaluate_every=1"]
    arguments = argparse.Namespace(institution="HWMRI", images=10, unseen=4, seed=0, trainable=["head"], set=changes)
    published, tuned = finetune.measure(arguments)
    assert (published.part, tuned.part, published.best_step) == ("as published", "head", 0)
    assert tuned.best_step in (1, 2)
    for outcome in (published, tuned):
        assert {outcome.held_out * 2 % 1, outcome.here * 4 % 1, outcome.elsewhere * 4 % 1} == {0.0}
        assert 0.25 <= outcome.here <= 1
