import dataclasses

import numpy as np
import pytest

from benchmarks import heads
from benchmarks.batch_size import DRAWN_SIDE
from benchmarks.drops import INSTITUTIONS
from marco_data.synthetic import Settings, plan


def test_only_the_institution_away_looks_otherwise():
    plain, shifted = (heads.draw(12, 0, away) for away in ("", "CSIRO"))
    settings = Settings(shorter_side=DRAWN_SIDE)
    assert [picture.institution for picture in plain] == [plan(settings, n).imager.institution for n in range(12)]
    changed = [left.institution for left, right in zip(plain, shifted, strict=True) if left.jpeg != right.jpeg]
    assert changed == [picture.institution for picture in plain if picture.institution == "CSIRO"] != []


@pytest.mark.long
def test_every_method_trains_and_is_judged(capsys, monkeypatch):
    short = dataclasses.replace(heads.RECIPE, steps=2, batch_size=8, evaluate_every=2)
    monkeypatch.setattr(heads, "RECIPE", short)
    monkeypatch.setattr(heads, "_UNSEEN", 30)
    # Two steps may leave all of a few pictures wrong, and a ratio needs one that is right.
    judge = heads.right
    monkeypatch.setattr(
        heads, "right", lambda model, pictures: judge(model, pictures) | (np.arange(len(pictures)) == 0)
    )
    heads.shift(["--images", "60", "--seeds", "0", "--methods", *heads.METHODS])
    output = capsys.readouterr()
    assert '"unit": "accuracy"' in output.out
    assert [line.split("  ")[-1] for line in output.err.splitlines() if line.startswith("seed")] == list(heads.METHODS)
    heads.raw(["--images", "60", "--seeds", "0"])
    assert "raw head" in capsys.readouterr().err


@pytest.mark.slow
def test_each_institution_is_left_out_in_turn_and_the_last_table_is_of_all(capsys, monkeypatch):
    """The judge names rightly what is of an institution that the training saw, and the first picture of all."""
    monkeypatch.setattr(heads, "_UNSEEN", 40)
    monkeypatch.setattr(heads, "train", lambda pictures, recipe: {picture.institution for picture in pictures})
    monkeypatch.setattr(
        heads,
        "right",
        lambda seen, pictures: np.array([not n or p.institution in seen for n, p in enumerate(pictures)]),
    )
    heads.institutions(["--images", "60", "--seeds", "0", "1", "--methods", "left out", "adversarial"])
    output = capsys.readouterr()
    notes = output.err.splitlines()
    assert [line for line in notes if line.startswith("without")] == [f"without {name}:" for name in INSTITUTIONS]
    table = notes[notes.index("all:") + 1 :]
    # Forty pictures away, of which five are the first of their institution, each for two seeds.
    assert "home 100.0 %  away 12.5 %" in table[0]
    assert "home 100.0 %  away 100.0 %  {'home': '+0.0" in table[1] and "'away': '+87.5 (" in table[1]
