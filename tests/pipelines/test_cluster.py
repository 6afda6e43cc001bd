import pytest

from components.machines import Resources
from marco_model.errors import InputError
from pipelines import configuration, pipeline, places

VOLUME = "cluster.volumes=[{claim: marco-shared, path: /shared}]"


READ_ONLY = "cluster.volumes=[{claim: images, path: /data, read_only: true}, {claim: marco-shared, path: /data/mine/}]"


REPLICAS = "cluster.replicas={workers: 3, worker: {accelerators: 1}}"


def load(*changes):
    return configuration.load("local", list(changes)).cluster


def test_a_step_has_its_own_resources_or_the_default():
    cluster = load("cluster.default={cpu: 3}", "cluster.steps.Trainer={cpu: 8, accelerators: 2}")
    assert cluster.resources("Trainer") == Resources(cpu=8, accelerators=2)
    assert cluster.resources("Pusher") == Resources(cpu=3)
    assert cluster.resources("Trainer-1-CSIRO") == cluster.resources("Trainer-2") == cluster.resources("Trainer")


def test_settings_that_containers_share_are_passed_to_the_training():
    changes = [VOLUME, "cluster.shared=/shared/marco", "engine.kind=multi_worker", REPLICAS]
    loaded = configuration.load("local", changes)
    layout = places.remote(loaded, "minio://runs")
    placement = layout.placement
    assert (placement.image, placement.shared) == (loaded.cluster.image, "/shared/marco")
    assert placement.replicas.worker.accelerators == 1
    assert "steps" not in pipeline.training_job(loaded, (), layout).model_dump()["placement"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["cluster.steps.Trianer={cpu: 8}"], "names Trianer; the steps are Data, MarcoExampleGen"),
        (["cluster.shared=/shared"], "cluster.shared /shared lies in none of cluster.volumes"),
        ([VOLUME, "cluster.shared=/sharedelse"], "lies in none of cluster.volumes"),
        (
            [READ_ONLY, "cluster.shared=/data/marco"],
            "cluster.shared /data/marco lies in the claim images, which is read_only",
        ),
        ([VOLUME, "cluster.replicas={}"], "cluster.replicas need cluster.shared"),
        ([VOLUME, "cluster.shared=/shared", REPLICAS], "engine.kind is one_device and cluster.replicas has workers 3"),
        (["cluster.environment={AWS_SECRET_ACCESS_KEY: abc}"], "has AWS_SECRET_ACCESS_KEY, whose value anybody could"),
        (["cluster.environment={MLFLOW_TRACKING_PASSWORD: abc}"], "use cluster.secrets"),
        (["cluster.retries=-1"], "cluster.retries is -1"),
        (["cluster.default={cpu: 0}"], "cluster.default.cpu is 0"),
        (["cluster.default={memory: much}"], "'much' is not a quantity"),
        (["cluster.gpus=8"], "unknown key 'cluster.gpus'"),
    ],
)
def test_impossible_resources_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        load(*changes)


def test_the_shared_folder_may_lie_on_a_volume_within_a_read_only_one():
    assert load(READ_ONLY, "cluster.shared=/data/mine/marco").shared == "/data/mine/marco"


def test_an_environment_variable_may_name_the_file_of_a_secret():
    variables = "{GOOGLE_APPLICATION_CREDENTIALS: /etc/gcs/key.json, AWS_ACCESS_KEY_ID: me}"
    assert load(f"cluster.environment={variables}").environment["GOOGLE_APPLICATION_CREDENTIALS"] == "/etc/gcs/key.json"
