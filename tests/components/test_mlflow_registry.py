"""List, promote and roll back on a real MLflow store, with models that are published for real."""

import functools
import json
import shutil

import pytest

from components import mlflow_registry, mlflow_runs, mlflow_store
from marco_model.errors import InputError
from tests import stores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store in a folder with three versions of `drops`: 1 and 2 published, 3 not; their places; the models' names."""
    from components import mlflow_registry, published_models
    from marco_model.model_directory import model_fingerprint

    root = tmp_path_factory.mktemp("run")
    store = stores.local_store(root)
    for number, blessed in ((1, True), (2, True), (3, False)):
        model = root / f"trained/{number}"
        (model / "variables").mkdir(parents=True)
        (model / "saved_model.pb").write_bytes(f"graph {number}".encode())
        (model / "variables/variables.index").write_bytes(bytes([number]))
        run = mlflow_runs.open_run(store, "marco", f"key{number}", f"run{number}")
        run.log_slices({"eval/accuracy": 0.8 + number / 100, "eval/recall/Crystals": 0.7 + number / 100})
        run.set_tags({"data.fingerprint": "feed" * 8})
        place = published_models.publish(model, str(root / "models"), {}).path if blessed else None
        mlflow_registry.register(
            run,
            "drops",
            model,
            classes=("a", "b"),
            fingerprint=model_fingerprint(model),
            published_at=place,
            tags={"marco.signature": f"s{number}", "judged_against": ""},
        )
    return root


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the store that a test may change; its versions point to the copied models."""
    shutil.copytree(trained, tmp_path / "run")
    store = f"sqlite:///{tmp_path}/run/mlflow.db"
    client = mlflow_store.connect(store)
    for version in ("1", "2"):
        for tag in ("published_at", "served_at"):
            client.set_model_version_tag("drops", version, tag, str(tmp_path / "run/models" / version))
    yield tmp_path / "run"
    mlflow_store.connect.cache_clear()


@pytest.fixture(autouse=True)
def _small_models(monkeypatch):
    """MLflow runs a model on its input example, and these models are not real."""
    monkeypatch.setenv("MLFLOW_INPUT_EXAMPLE_INFERENCE_TIMEOUT", "1")


def served(run):
    """Returns which trained model each published number has."""
    places = sorted((run / "models").iterdir(), key=lambda place: int(place.name))
    return [place.joinpath("saved_model.pb").read_bytes().decode() for place in places]


def aliases(run):
    store = mlflow_store.find_store(str(run))
    return {alias: item.version for item in mlflow_registry.list_versions(store, "drops") for alias in item.aliases}


def test_versions_are_listed_newest_first_with_what_they_reached_and_where_they_serve(run):
    versions = mlflow_registry.list_versions(mlflow_store.find_store(str(run)), "drops")
    assert [version.version for version in versions] == ["3", "2", "1"]
    assert [version.aliases for version in versions] == [("challenger",), ("champion",), ()]
    assert [version.accuracy for version in versions] == pytest.approx([0.83, 0.82, 0.81])
    assert [version.recall for version in versions] == pytest.approx([0.73, 0.72, 0.71])
    assert [version.place for version in versions] == ["", str(run / "models/2"), str(run / "models/1")]
    assert {version.data for version in versions} == {"feed" * 8}
    assert all(len(version.commit) == 40 for version in versions)


def test_a_challenger_is_promoted_and_rolled_back_twice(run):
    store = mlflow_store.find_store(str(run))
    done = mlflow_registry.promote(store, "drops", "3")
    assert done == mlflow_registry.Promotion("3", "2", str(run / "models/3"), False)
    assert aliases(run) == {"champion": "3"}
    again = mlflow_registry.promote(store, "drops", "3")
    assert again == mlflow_registry.Promotion("3", "3", str(run / "models/3"), True)

    back = mlflow_registry.rollback(store, "drops")
    assert back == mlflow_registry.Promotion("2", "3", str(run / "models/4"), False)
    assert mlflow_registry.rollback(store, "drops") == mlflow_registry.Promotion("1", "2", str(run / "models/5"), False)
    assert served(run) == ["graph 1", "graph 2", "graph 3", "graph 2", "graph 1"]
    assert aliases(run) == {"champion": "1"}
    with pytest.raises(InputError, match="version 1 of drops has no champion before it"):
        mlflow_registry.rollback(store, "drops")
    assert served(run)[-1] == "graph 1"


def test_going_back_leads_through_all_that_were_champion_however_often(run):
    store = mlflow_store.find_store(str(run))
    for version in ("3", "2"):
        mlflow_registry.promote(store, "drops", version)
    assert [mlflow_registry.rollback(store, "drops").version for _ in range(3)] == ["3", "2", "1"]
    with pytest.raises(InputError, match="version 1 of drops has no champion before it"):
        mlflow_registry.rollback(store, "drops")
    mlflow_registry.promote(store, "drops", "3")
    assert mlflow_store.connect(store).get_model_version("drops", "3").tags["previous_champion"] == "1"
    assert mlflow_registry.rollback(store, "drops").version == "1"


@pytest.mark.parametrize("lost", ["set_registered_model_alias", "set_registered_model_tag"])
@pytest.mark.parametrize("back", [False, True])
def test_a_crash_while_the_champion_changes_loses_none_before_it(run, monkeypatch, lost, back):
    store = mlflow_store.find_store(str(run))
    client = mlflow_store.connect(store)
    mlflow_registry.promote(store, "drops", "1")
    change = mlflow_registry.rollback if back else functools.partial(mlflow_registry.promote, version="2")

    def fails(*arguments):
        raise InputError("MLflow is gone")

    with monkeypatch.context() as patch:
        patch.setattr(client, lost, fails)
        with pytest.raises(InputError, match="gone"):
            change(store, "drops")
    if aliases(run)["champion"] == "1":
        change(store, "drops")
    assert mlflow_registry.succession(client, "drops") == (["1", "2"] if back else ["1", "2", "1", "2"])


@pytest.mark.parametrize("deleted", ["1", "2", "3"])
def test_going_back_passes_over_a_version_that_is_deleted(run, deleted):
    store = mlflow_store.find_store(str(run))
    mlflow_registry.promote(store, "drops", "3")
    client = mlflow_store.connect(store)
    client.delete_model_version("drops", deleted)
    done = mlflow_registry.rollback(store, "drops")
    assert (done.before, done.version) == ("3", "1" if deleted == "2" else "2")
    assert aliases(run) == {"champion": done.version}
    assert served(run)[-1] == f"graph {done.version}"
    before = ["1"] if deleted == "3" else []
    assert mlflow_registry.succession(client, "drops")[:-1] == before
    if not before:
        with pytest.raises(InputError, match=f"version {done.version} of drops has no champion before it"):
            mlflow_registry.rollback(store, "drops")


def test_a_model_without_a_champion_cannot_go_back(run):
    store = mlflow_store.find_store(str(run))
    mlflow_store.connect(store).delete_registered_model_alias("drops", "champion")
    with pytest.raises(InputError, match="drops has no champion to go back from; marco models promote"):
        mlflow_registry.rollback(store, "drops")


def test_the_only_registered_model_needs_no_name(run):
    store = mlflow_store.find_store(str(run))
    assert mlflow_registry.choose_model(store, None) == "drops"
    mlflow_store.connect(store).create_registered_model("others")
    assert mlflow_registry.choose_model(store, None) == "marco"
    assert mlflow_registry.choose_model(store, "others") == "others"


def test_an_alias_that_was_set_in_mlflow_can_be_rolled_back_and_published(run):
    store = mlflow_store.find_store(str(run))
    mlflow_store.connect(store).set_registered_model_alias("drops", "champion", "3")
    assert mlflow_registry.promote(store, "drops", "3") == mlflow_registry.Promotion(
        "3", "3", str(run / "models/3"), False
    )
    assert mlflow_registry.rollback(store, "drops").version == "2"
    mlflow_store.connect(store).set_registered_model_alias("drops", "champion", "1")
    with pytest.raises(InputError, match="version 1 of drops has no champion before it"):
        mlflow_registry.rollback(store, "drops")


def test_a_version_keeps_its_first_place_and_what_it_was_judged_against(run):
    store = mlflow_store.find_store(str(run))
    mlflow_registry.rollback(store, "drops")
    tags = mlflow_store.connect(store).get_model_version("drops", "1").tags
    assert (tags["published_at"], tags["served_at"]) == (str(run / "models/1"), str(run / "models/3"))
    assert (tags["marco.signature"], tags["judged_against"]) == ("s1", "")


def test_a_rollback_that_failed_half_way_is_repeated(run, monkeypatch):
    store = mlflow_store.find_store(str(run))

    def lost(*arguments, **options):
        raise InputError("MLflow is gone")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_registry, "crown", lost)
        with pytest.raises(InputError, match="gone"):
            mlflow_registry.rollback(store, "drops")
    assert aliases(run)["champion"] == "2"
    assert mlflow_registry.rollback(store, "drops") == mlflow_registry.Promotion("1", "2", str(run / "models/3"), True)
    assert served(run) == ["graph 1", "graph 2", "graph 1"]


def test_a_version_is_promoted_and_rolled_back_in_a_bucket(run, gcs):
    gcs.bucket("served")
    store = mlflow_store.find_store(str(run))
    assert mlflow_registry.promote(store, "drops", "3", "gs://served/drops").place == "gs://served/drops/1"
    assert mlflow_registry.rollback(store, "drops").place == "gs://served/drops/2"
    assert gcs.objects("gs://served/drops/2/")["saved_model.pb"] == b"graph 2"


def test_a_version_is_found_from_another_working_directory(run, monkeypatch):
    monkeypatch.chdir(run)
    assert mlflow_registry.promote(mlflow_store.find_store("."), "drops", "3", "served").place == str(run / "served/1")


def test_a_request_that_cannot_be_met_is_refused_in_one_line(run, tmp_path):
    store = mlflow_store.find_store(str(run))
    with pytest.raises(InputError, match="drops has no version 9; it has 1, 2, 3"):
        mlflow_registry.promote(store, "drops", "9")
    with pytest.raises(InputError, match=r"no registered model 'marco' in .*; it has drops"):
        mlflow_registry.list_versions(store, "marco")
    with pytest.raises(InputError, match="no MLflow store at sqlite"):
        mlflow_store.find_store(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_damaged_files_are_not_published(run):
    store = mlflow_store.find_store(str(run))
    client = mlflow_store.connect(store)
    client.set_model_version_tag("drops", "3", "model.fingerprint", json.dumps("other"))
    with pytest.raises(InputError, match="not those that were registered"):
        mlflow_registry.promote(store, "drops", "3")
    assert served(run) == ["graph 1", "graph 2"]
