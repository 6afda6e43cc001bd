import numpy as np
import pytest

from benchmarks import heads
from marco_data.synthetic import Settings, plan
from pipelines import configuration

TINY = ["recipe.steps=4", "recipe.batch_size=4", "recipe.evaluate_every=4", "network.depth_multiplier=0.1"]


def test_only_the_institution_away_looks_otherwise():
    loaded = configuration.load("local")
    plain, shifted = (heads.draw(12, 3, away, loaded) for away in ("", "CSIRO"))
    assert [picture.institution for picture in plain] == [
        plan(Settings(seed=3), number).imager.institution for number in range(12)
    ]
    changed = [left.institution for left, right in zip(plain, shifted, strict=True) if left.jpeg != right.jpeg]
    assert changed == [picture.institution for picture in plain if picture.institution == "CSIRO"] != []


def test_a_difference_has_its_interval_in_points():
    ours, peer = np.repeat([True, False], [90, 10]), np.repeat([True, False], [80, 20])
    difference, low, high = (
        float(part.strip("()")) for part in heads.difference(ours, peer).replace("to ", "").split()
    )
    error = 1.96 * np.sqrt((10 - 10**2 / 100) / 100**2) * 100  # Of 10 gains and no loss, by the normal distribution.
    assert (difference, low, high) == pytest.approx((10, 10 - error, 10 + error), abs=0.5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("short_network")
def test_every_method_trains_and_is_judged(capsys, monkeypatch):
    monkeypatch.setattr(heads, "_UNSEEN", 30)
    changes = [word for change in TINY for word in ("--set", change)]
    heads.shift(["--images", "40", "--seeds", "1", "--methods", *heads.METHODS, *changes])
    output = capsys.readouterr()
    assert '"unit": "accuracy"' in output.out
    for name in heads.METHODS:
        assert f"seed 0, {name}" in output.err
    heads.raw(["--images", "40", "--seeds", "1", *changes])
    assert "raw head" in capsys.readouterr().err
