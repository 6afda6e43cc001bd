import pathlib

import pytest

from components.machines import Machines
from components.trainer.job import CustomJob
from components.vertex.options import Vertex
from marco_model.errors import InputError
from pipelines import configuration, pipeline, places


def test_everything_of_a_local_run_but_mlflows_store_lies_below_its_output(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    layout = places.local(configuration.load("local"), tmp_path / "run")
    for path in (layout.root, layout.checkpoints, layout.destination):
        assert pathlib.Path(path).parent == tmp_path / "run"
    assert layout.tracking == f"sqlite:///{tmp_path}/mlflow.db"
    named = configuration.load("local", ["tracking.uri=sqlite:///one.db"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert places.local(named, tmp_path / "run").tracking == f"sqlite:///{tmp_path}/one.db"
    assert places.local(configuration.load("local"), tmp_path / "run").tracking == "http://mlflow:5000"


def test_a_destination_is_the_same_from_every_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        places.local(configuration.load("local", ["destination=models"]), tmp_path).destination == f"{tmp_path}/models"
    )
    bucket = configuration.load("local", ["destination=gs://served/drops"])
    assert places.local(bucket, tmp_path).destination == "gs://served/drops"


def test_a_destination_within_a_container_is_refused():
    loaded = configuration.load("local", ["tracking.uri=http://mlflow", "destination=models"])
    with pytest.raises(InputError, match="destination models is not a place on a cluster; give gs://BUCKET/PREFIX"):
        places.remote(loaded, "gs://bucket")


def test_an_object_store_cannot_hold_the_tracking_data_base():
    with pytest.raises(InputError, match=r"tracking\.uri"):
        places.remote(configuration.load("paper"), "gs://bucket")
    tracked = configuration.load("paper", ["tracking.uri=http://mlflow", "destination=gs://models"])
    assert places.remote(tracked, "gs://bucket/").root == "gs://bucket/pipeline"
    assert places.remote(tracked, "gs://bucket/").destination == "gs://models"


VOLUME = ["cluster.volumes=[{claim: marco-shared, path: /shared}]", "cluster.shared=/shared/marco"]


def test_checkpoints_want_a_volume_where_the_root_is_a_store_that_tensorflow_cannot_open():
    with pytest.raises(InputError, match=r"root minio://runs cannot hold checkpoints; set cluster\.volumes"):
        places.remote(configuration.load("paper", ["tracking.uri=http://mlflow"]), "minio://runs")
    shared = configuration.load("paper", VOLUME)
    layout = places.remote(shared, "minio://runs")
    assert layout.root == "minio://runs/pipeline"
    assert (layout.checkpoints, layout.destination) == ("/shared/marco/checkpoints", "/shared/marco/models")
    assert layout.tracking == "sqlite:////shared/marco/mlflow.db"
    assert places.data(shared, "minio://runs") == "/shared/marco/data"


def test_only_a_training_on_several_nodes_gets_the_cluster():
    assert places.remote(configuration.load("paper", VOLUME), "minio://runs").placement is None
    several_nodes = configuration.load("paper", [*VOLUME, "cluster.replicas={workers: 2}", "engine.kind=multi_worker"])
    assert places.remote(several_nodes, "minio://runs").placement.shared == "/shared/marco"


TRACKED = ["tracking.uri=http://mlflow", "destination=gs://models"]
NODES = ["cluster.replicas={workers: 2, worker: {accelerators: 4}}", "engine.kind=multi_worker"]


@pytest.mark.parametrize(
    ("changes", "machines", "gpus"),
    [
        (["cluster.steps.Trainer.accelerators=4"], None, 4),
        (["cluster.steps.Trainer.accelerators=0"], None, 0),
        ([*VOLUME, *NODES], None, 4),
        ([], {"accelerator": "NVIDIA_TESLA_A100", "accelerators": 8}, 8),
    ],
    ids=["one pod, and a step on Vertex AI", "no GPUs", "JobSet", "CustomJob"],
)
def test_every_process_that_trains_learns_how_many_gpus_were_asked_for(changes, machines, gpus):
    loaded = configuration.load("paper", [*TRACKED, *changes])
    place = Vertex(project="crystals-123", location="europe-west4")
    custom_job = CustomJob(place=place, image="i", machines=Machines(**machines)) if machines else None
    where = places.remote(loaded, "gs://bucket", custom_job)
    assert where.gpus == gpus
    assert pipeline.training_job(loaded, ["Clear", "Crystals"], where).gpus == gpus


def test_names_of_a_preset_are_read_early_and_part_of_what_ingest_depends_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = places.absolute(configuration.load("local", ["data.names=(?P<plate>[^-]+)-"]))
    assert named.data.names == "(?P<plate>[^-]+)-"
    with pytest.raises(InputError, match="has neither plate nor well"):
        places.absolute(configuration.load("local", ["data.names='[a-z]+'"]))
    with pytest.raises(InputError, match=r"none.csv. cannot be read"):
        places.absolute(configuration.load("local", ["data.names=none.csv"]))
    (tmp_path / "places.csv").write_text("path,plate\na.jpg,p\n")
    table = places.absolute(configuration.load("local", ["data.names=places.csv"]))
    assert table.data.names == str(tmp_path / "places.csv")
