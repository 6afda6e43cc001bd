"""Models and figures on `gs://`, on fake-gcs-server, with faults on the way."""

import pytest

from components import mlflow_runs, mlflow_store
from components.mlflow_runs import confusion_matrix_figure
from marco_model import store as object_store
from marco_model.errors import ClusterError, InputError
from tests import stores

pytestmark = pytest.mark.slow

ARTIFACTS = "gs://artifacts/mlflow"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stores.local_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def bucket(gcs, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    gcs.bucket("artifacts")
    return gcs


def figure():
    return confusion_matrix_figure([[3, 1], [0, 4]], ["drop", "crystal"], "tried")


@pytest.mark.parametrize("kind", ["503", "slow", "cut upload", "lost"])
def test_a_figure_is_stored_in_the_bucket_and_read_back(bucket, store, tmp_path, monkeypatch, kind):
    if kind == "slow":
        monkeypatch.setattr(object_store, "READ_SECONDS", 1.0)
    run = mlflow_runs.open_run(store, "bucket", kind, kind, ARTIFACTS)
    faults = [bucket.inject(kind, r"POST .*/upload/", seconds=1.3)]
    run.log_figure(figure(), "figures/matrix.png")
    bucket.settle()  # A late upload replaces the object, which ends a reading that has begun.
    (written,) = [content for name, content in bucket.objects(f"{ARTIFACTS}/").items() if run.run_id in name]
    assert written.startswith(b"\x89PNG")
    faults.append(bucket.inject("cut", r"GET .*matrix\.png.*alt=media"))
    path = mlflow_store.connect(store).download_artifacts(run.run_id, "figures", str(tmp_path))
    assert (tmp_path / "figures/matrix.png").read_bytes() == written
    assert path.endswith("figures")
    assert [fault.hits for fault in faults] == [1, 1]


def test_a_lasting_failure_is_one_line_that_names_the_bucket(bucket, store, monkeypatch):
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 3.0)
    run = mlflow_runs.open_run(store, "bucket", "for ever", "for ever", ARTIFACTS)
    for kind, error in (("503", ClusterError), ("403", InputError)):
        bucket.inject(kind, r"POST .*/upload/", times=10**9)
        with pytest.raises(error, match=rf"^{ARTIFACTS}/{run.run_id}/artifacts/matrix\.png ") as raised:
            run.log_figure(figure(), "matrix.png")
        assert "\n" not in str(raised.value)
        bucket.faults.clear()


def test_a_wrong_bucket_is_reported_before_the_training(bucket, store):
    with pytest.raises(InputError, match=r"^gs://nowhere/mlflow/.* does not exist"):
        mlflow_runs.open_run(store, "wrong", "key", "name", "gs://nowhere/mlflow")
    with pytest.raises(InputError, match=r"needs the package \w+ for its artifacts; install it .*boto3"):
        mlflow_runs.open_run(store, "s3", "key", "name", "s3://bucket/mlflow")


def test_an_experiment_keeps_its_place(bucket, store):
    run = mlflow_runs.open_run(store, "kept", "key", "name")
    assert mlflow_runs.open_run(store, "kept", "key", "name") == run
    with pytest.raises(InputError, match=r"'kept' keeps its artifacts at file:.*tracking\.artifacts is gs://artifacts"):
        mlflow_runs.open_run(store, "kept", "key", "name", ARTIFACTS)
    mlflow_runs.open_run(store, "bucket", "key", "name", ARTIFACTS + "/")
