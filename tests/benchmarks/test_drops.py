import argparse
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks import drops
from components import significance
from components.settings import Transform
from marco_data.synthetic import Settings, plan
from marco_model import example_files, training_input
from marco_model.labels import CLASSES


def test_drops_of_one_institution_are_written_as_training_reads_them(tmp_path):
    drawn = drops.draw(3, 5, {"HWMRI": 1.0}, Transform())
    settings = Settings(seed=5, institutions={"HWMRI": 1.0})
    assert [shown for _, shown in drawn] == [plan(settings, index).shown for index in range(3)]
    files = drops.write(tmp_path / "train", drawn[1:])
    examples = training_input.examples(example_files.read_index(files))
    assert list(examples.as_numpy_iterator()) == drawn[1:]


def test_drops_are_shrunk_as_the_transform_step_does():
    ((small, _),) = drops.draw(1, 0, {"HWMRI": 1.0}, Transform(shorter_side=60, quality=90))
    with Image.open(io.BytesIO(small)) as image:
        assert min(image.size) == 60


@pytest.mark.long
@pytest.mark.slow
def test_the_head_is_fine_tuned_from_the_published_weights_and_judged():
    pytest.importorskip("dls_marco_score_ispyb")
    changes = ["recipe.steps=2", "recipe.batch_size=4", "recipe.evaluate_every=1"]
    arguments = argparse.Namespace(institution="HWMRI", images=10, unseen=4, seed=0, trainable=["head"], set=changes)
    published, tuned = drops.measure_fine_tuning(arguments)
    assert (published.part, tuned.part, published.best_step) == ("as published", "head", 0)
    assert tuned.best_step in (1, 2)
    for outcome in (published, tuned):
        assert {outcome.held_out * 2 % 1, outcome.unseen * 4 % 1, outcome.elsewhere * 4 % 1} == {0.0}
        assert 0.25 <= outcome.unseen <= 1


def test_a_difference_has_its_interval_in_points():
    ours, peer = np.repeat([True, False], [90, 10]), np.repeat([True, False], [80, 20])
    text = drops.difference(significance.pairs(ours, peer))
    difference, low, high = (float(part.strip("()")) for part in text.replace("to ", "").split())
    error = 1.96 * np.sqrt((10 - 10**2 / 100) / 100**2) * 100  # Of 10 gains and no loss, by the normal distribution.
    assert (difference, low, high) == pytest.approx((10, 10 - error, 10 + error), abs=0.5)


def test_colour_that_gives_the_class_away_is_reported():
    rng = np.random.default_rng(0)
    shown = np.repeat(np.arange(4), 25)
    assert drops.accuracy_from_colour(rng.normal(size=(100, 6)), shown) < 0.45
    assert drops.accuracy_from_colour(rng.normal(size=(100, 6)) + 20 * np.eye(4, 6)[shown], shown) > 0.95


def test_colour_statistics_are_those_of_the_pixels():
    import cv2

    image = np.zeros((32, 32, 3), np.uint8)
    image[:16] = (10, 100, 200)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    assert drops.colour_statistics(encoded) == pytest.approx([5, 50, 100, 5, 50, 100])


@pytest.mark.long
def test_the_published_classifier_sees_what_was_drawn():
    pytest.importorskip("dls_marco_score_ispyb")
    table, from_colour = drops.measure_realism(40, Settings(seed=0))
    assert len(table) == 40
    assert table["agreed"].mean() >= 0.65, drops.describe(table)
    by_class = table.groupby("shown")["agreed"].mean()
    assert set(by_class.index) == set(CLASSES)
    assert by_class.min() >= 0.3, drops.describe(table)
    assert from_colour <= 0.6


@pytest.mark.slow
def test_the_mean_over_views_is_compared_with_one_view(capsys):
    drops.averaging(["--images", "6", "--views", "2"])
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert {figures["ours"] * 6 % 1, figures["peer"] * 6 % 1} == {0.0}
    gained, lost = map(int, re.search(r"(\d+) gained, (\d+) lost", printed.err).groups())
    assert gained - lost == round(6 * (figures["ours"] - figures["peer"]))
