"""Which model a run must beat, from a real MLflow registry."""

import json
import pathlib

import pytest

from components import mlflow_store
from components.champion import (
    Lookup,
    champion_columns,
    check_classes,
    current_champion,
    saved_model,
    signature,
    starting_champion,
    write_champion,
)
from components.mlflow_registry import crown
from components.settings import digest
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.model_directory import METADATA
from tests import stores

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path):
    return stores.local_store(tmp_path / "mlflow")


def version_at(store, place, *, model="marco", **tags):
    """Registers a version, makes it champion at the new folder `place`, and returns its number."""
    client = mlflow_store.connect(store)
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    tags = {name.replace("__", "."): value for name, value in tags.items()}
    version = client.create_model_version(model, str(place), tags=tags)
    place.mkdir(parents=True)
    (place / "saved_model.pb").write_bytes(b"")
    crown(client, model, str(version.version), str(place))
    return str(version.version)


def to_beat(store, own="mine", **changes):
    options = {"champion": "registry", "tracking": store, "model_name": "marco", "settings": "s", **changes}
    champion = Lookup(**options).to_beat(own)
    return json.loads(champion) if champion else None


def test_the_champion_of_the_registry_is_the_one_to_beat(tmp_path, store):
    assert to_beat(f"sqlite:///{tmp_path}/none.db") is None
    assert not (tmp_path / "none.db").exists()
    mlflow_store.connect(store)
    assert to_beat(store) is None
    version_at(store, tmp_path / "models/1")
    assert to_beat(store) == {"model": str(tmp_path / "models/1"), "version": "1"}
    version_at(store, tmp_path / "models/2")
    assert to_beat(store) == {"model": str(tmp_path / "models/2"), "version": "2"}
    assert to_beat(store, model_name="others") is None
    assert to_beat(store, champion="none") is None
    assert to_beat(store, champion="gs://models/marco/7") == {"model": "gs://models/marco/7", "version": ""}


def test_the_run_that_made_the_champion_is_judged_against_the_champion_before_it(tmp_path, store):
    first = to_beat(store, "one")
    assert first is None
    version_at(store, tmp_path / "models/1", marco__signature="one", judged_against="")
    assert to_beat(store, "one") is first
    second = to_beat(store, "two")
    assert second == {"model": str(tmp_path / "models/1"), "version": "1"}
    version_at(store, tmp_path / "models/2", marco__signature="two", judged_against=json.dumps(second))
    assert to_beat(store, "two") == second
    assert to_beat(store, "one") == {"model": str(tmp_path / "models/2"), "version": "2"}


def test_a_champion_that_is_published_again_is_read_from_its_first_place_while_that_lasts(tmp_path, store):
    version = version_at(store, tmp_path / "models/1")
    before = to_beat(store)
    crown(mlflow_store.connect(store), "marco", version, str(tmp_path / "models/3"), back=True)
    assert to_beat(store) == before
    (tmp_path / "models/1/saved_model.pb").unlink()
    (tmp_path / "models/3").mkdir()
    (tmp_path / "models/3/saved_model.pb").write_bytes(b"")
    assert to_beat(store) == {"model": str(tmp_path / "models/3"), "version": version}


def test_a_champion_whose_published_folders_are_deleted_is_mlflows_own_copy(tmp_path, store):
    version = version_at(store, tmp_path / "kept/1")
    crown(mlflow_store.connect(store), "marco", version, str(tmp_path / "gone/1"))
    client = mlflow_store.connect(store)
    client.set_model_version_tag("marco", version, "published_at", str(tmp_path / "gone too/1"))
    assert to_beat(store) == {"model": "models:/marco/1", "version": "1"}
    with saved_model(to_beat(store), str(tmp_path / "scratch"), store) as folder:
        assert sorted(path.name for path in pathlib.Path(folder).iterdir()) == ["saved_model.pb"]
    assert not pathlib.Path(folder).exists()
    with (
        pytest.raises(InputError, match=r"MLflow at .* refuses: .*7"),
        saved_model({"model": "models:/marco/7"}, "", store),
    ):
        pass


def test_the_champion_before_counts_where_the_champions_version_is_deleted(tmp_path, store, caplog):
    for number in "123":
        version_at(store, tmp_path / "models" / number)
    client = mlflow_store.connect(store)
    client.delete_model_version("marco", "3")
    assert to_beat(store) == {"model": str(tmp_path / "models/2"), "version": "2"}
    assert json.loads(current_champion(store, "marco", "another"))["version"] == "2"
    assert "version 2 was it last and counts" in caplog.text
    client.delete_model_version("marco", "1")
    assert to_beat(store)["version"] == "2"
    client.delete_model_version("marco", "2")
    with pytest.raises(InputError, match=r"1, 2, 3 of marco was champion and is deleted.*promote.*gate\.champion=none"):
        to_beat(store)
    assert to_beat(store, champion="none") is None
    version_at(store, tmp_path / "models/4")
    assert to_beat(store)["version"] == "4"


def test_a_champion_without_its_alias_still_counts(tmp_path, store):
    version_at(store, tmp_path / "models/1")
    mlflow_store.connect(store).delete_registered_model_alias("marco", "champion")
    assert to_beat(store)["version"] == "1"


def test_a_champion_of_other_classes_is_refused_before_the_training(tmp_path):
    (tmp_path / "model" / METADATA).parent.mkdir(parents=True)
    (tmp_path / "model/saved_model.pb").write_bytes(b"")
    (tmp_path / "model" / METADATA).write_text(json.dumps({"classes": ["Hit", "Miss"]}))
    champion = write_champion(str(tmp_path / "model"), "1")
    check_classes(champion, ("Miss", "Hit"))
    check_classes(write_champion("models:/marco/1"), CLASSES)
    check_classes("", CLASSES)
    with pytest.raises(InputError, match=r"version 1 at .* has the classes Hit, Miss, and this run.*model_name"):
        check_classes(champion, CLASSES)


def test_a_champion_that_was_never_published_is_an_error_and_not_a_missing_champion(tmp_path, store):
    version_at(store, tmp_path / "models/1")
    client = mlflow_store.connect(store)
    client.create_model_version("marco", str(tmp_path))
    client.set_registered_model_alias("marco", "champion", "2")
    with pytest.raises(InputError, match=r"version 2 of marco is champion .* never published.*marco models promote 2"):
        to_beat(store)


def test_the_current_champion_counts_unless_it_is_the_model_itself(tmp_path, store):
    assert current_champion(store, "marco", "f1") == ""
    version_at(store, tmp_path / "models/1", model__fingerprint="f1", marco__signature="mine", judged_against="")
    assert current_champion(store, "marco", "f1") == ""
    assert json.loads(current_champion(store, "marco", "f2")) == {"model": str(tmp_path / "models/1"), "version": "1"}


def test_a_server_that_does_not_answer_is_an_error_and_not_a_missing_champion(store):
    with pytest.raises(InputError, match="MLflow at http"):
        to_beat("http://127.0.0.1:1")
    assert to_beat("http://127.0.0.1:1", champion="none") is None


def test_a_lookup_survives_a_round_trip_through_an_argument():
    lookup = Lookup(champion="registry", tracking="http://mlflow:5000", model_name="marco", settings="0" * 64)
    assert Lookup.model_validate_json(lookup.model_dump_json()) == lookup


def test_different_trainings_have_different_signatures():
    settings = digest({"recipe": {"steps": 4, "seed": 0}})
    assert digest({"recipe": {"seed": 0, "steps": 4}}) == settings
    training = {"settings_digest": settings, "fingerprint": "f", "initial": "random", "steps": ""}
    original = signature(**training)
    assert signature(**training) == original
    assert len({original, *(signature(**training | {name: "other"}) for name in training)}) == 5


@pytest.mark.long
def test_the_published_classifier_is_a_champion_that_is_made_where_it_is_needed(tmp_path):
    champion = starting_champion("released", CLASSES[::-1])
    assert champion == {"model": "released", "version": "start"}
    assert starting_champion("released", ("Hit", "Miss")) is None
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "left by a killed attempt").write_text("")
    with saved_model(champion, str(tmp_path / "scratch")) as place:
        assert champion_columns(tmp_path / "scratch", CLASSES[::-1]) == [3, 2, 1, 0]
        assert place == str(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
