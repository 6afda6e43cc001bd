"""What makes a run another one in the eyes of the gate."""

import pathlib

from pipelines import configuration, places
from pipelines.judging import lookup


def settings(*changes, output="runs/one", image=""):
    loaded = configuration.load("local", ["tracking.uri=http://mlflow:5000", *changes])
    return lookup(loaded, places.local(loaded, pathlib.Path(output)), image).settings


def test_what_is_trained_and_where_it_is_kept_makes_another_run():
    base = settings()
    assert settings() == base
    others = [settings(change) for change in ("recipe.steps=9", "network.depth_multiplier=0.5", "data.split_by=hash")]
    others += [settings(output="runs/two"), settings(image="marco@sha256:00")]
    assert len({base, *others}) == 6


def test_how_it_is_judged_and_published_does_not():
    changes = ["thresholds.accuracy=0.1", "gate.slice_margin=0.1", "destination=/models", "cluster.retries=0"]
    assert settings(*changes) == settings()


def test_the_look_up_is_the_configurations():
    loaded = configuration.load("local", ["tracking.uri=http://mlflow:5000", "gate.champion=none", "model_name=drops"])
    told = lookup(loaded, places.local(loaded, pathlib.Path("runs/one")))
    assert (told.champion, told.tracking, told.model_name) == ("none", "http://mlflow:5000", "drops")
