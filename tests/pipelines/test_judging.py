"""What makes the gate treat a run as another one."""

import pathlib

import pytest

from marco_model.errors import InputError
from marco_model.labels import FOUR
from pipelines import configuration, places
from pipelines.pipeline import lookup


def settings(*changes, output="runs/one", image="", classes=FOUR.classes):
    loaded = configuration.load("local", ["tracking.uri=http://mlflow:5000", *changes])
    return lookup(loaded, classes, places.local(loaded, pathlib.Path(output)), image).settings


def test_another_training_or_place_of_the_models_makes_another_run():
    base = settings()
    assert settings() == base
    others = [settings(change) for change in ("recipe.steps=9", "network.depth_multiplier=0.5", "data.split_by=hash")]
    others += [settings(output="runs/two"), settings(image="marco@sha256:00"), settings(classes=("Clear",))]
    assert len({base, *others}) == 7


# For each section of the configuration: a change, and whether it makes another run.
SECTIONS = {
    "name": ("name=other", True),
    "data": ("data.max_pixels=99", True),
    "labels": ("labels={scheme: hwmri10}", True),
    "transform": ("transform.quality=90", True),
    "network": ("network.depth_multiplier=0.5", True),
    "recipe": ("recipe.seed=9", True),
    "engine": ("engine.precision=bfloat16", True),
    "tuning": ("tuning={space: {recipe.momentum: {choices: [0.8, 0.9]}}}", True),
    "leave_out": ("leave_out={attribute: imager}", False),
    "thresholds": ("thresholds.accuracy=0.1", False),
    "gate": ("gate.slice_margin=0.1", False),
    "report": ("report.errors=2", False),
    "export": ("export.tflite=false", True),
    "tracking": ("tracking.experiment=other", False),
    "model_name": ("model_name=drops", False),
    "destination": ("destination=/models", False),
    "cluster": ("cluster.retries=0", False),
    "vertex": ("vertex={project: crystals, location: europe-west4}", False),
    "machines": (["engine.kind=multi_worker", "machines={workers: 2}"], None),
    "endpoint": (["vertex={project: crystals, location: europe-west4}", "endpoint={name: marco}"], False),
    "beam": ("beam=[]", False),
}


def test_every_section_makes_another_run_or_does_not():
    assert set(SECTIONS) == set(configuration.Configuration.model_fields)
    base = settings()
    several_workers = settings("engine.kind=multi_worker")
    for section, (change, other) in SECTIONS.items():
        changes = [change] if isinstance(change, str) else change
        if other is None:
            assert settings(*changes) == several_workers, section
        else:
            assert (settings(*changes) != base) is other, section


def test_rules_of_judging_and_publishing_make_no_other_run():
    changes = ["thresholds.accuracy=0.1", "gate.slice_margin=0.1", "destination=/models", "cluster.retries=0"]
    assert settings(*changes) == settings()


def test_the_look_up_is_the_configurations():
    loaded = configuration.load("local", ["tracking.uri=http://mlflow:5000", "gate.champion=none", "model_name=drops"])
    look_up = lookup(loaded, FOUR.classes, places.local(loaded, pathlib.Path("runs/one")))
    assert (look_up.champion, look_up.tracking, look_up.model_name) == ("none", "http://mlflow:5000", "drops")


@pytest.mark.parametrize(
    ("named", "meant"),
    [("models/1", "{}/models/1"), *((name, name) for name in ("gs://m/1", "none", "registry", "released"))],
)
def test_a_champion_is_the_same_from_every_working_directory(tmp_path, monkeypatch, named, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/1").mkdir(parents=True)
    (tmp_path / "models/1/saved_model.pb").write_bytes(b"")
    loaded = places.absolute(configuration.load("local", [f"gate.champion={named}"]))
    assert loaded.gate.champion == meant.format(tmp_path)


@pytest.mark.parametrize("named", ["nothing", "models", "s3://models/1"])
def test_a_champion_that_does_not_exist_is_refused_before_anything_runs(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/1").mkdir(parents=True)
    place = named if named.startswith("s3") else str(tmp_path / named)
    reason = rf"^gate\.champion is {place}: no model in .*; give registry, none, released, a model's folder, or gs://"
    with pytest.raises(InputError, match=reason):
        places.absolute(configuration.load("local", [f"gate.champion={named}"]))


@pytest.mark.slow
@pytest.mark.parametrize(("champion", "asked"), [("registry", "drops"), ("none", ""), ("gs://models/marco", "")])
def test_the_gate_asks_the_registry_only_if_the_champion_comes_from_it(tmp_path, champion, asked):
    from components.trainer.job import TrainingParameters
    from pipelines.pipeline import create_pipeline

    loaded = configuration.load("local", [f"gate.champion={champion}", "model_name=drops"])
    pipeline = create_pipeline(loaded, places.local(loaded, tmp_path), FOUR, TrainingParameters("shards", "f00d"))
    (gate,) = [component for component in pipeline.components if component.id == "ChampionGate"]
    assert gate.exec_properties["registered_model"] == asked
