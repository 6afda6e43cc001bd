"""Which model a run must beat, from a real MLflow registry."""

import json

import pytest

from components import mlflow_runs
from components.champion import (
    Lookup,
    champion_columns,
    current_champion,
    saved_model,
    signature,
    starting_champion,
)
from components.mlflow_registry import crown
from components.settings import digest
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from tests import stores

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path):
    return stores.local_store(tmp_path / "mlflow")


def version_at(store, place, *, model="marco", **tags):
    """Registers a version, makes it champion at the new folder `place`, and returns its number."""
    client = mlflow_runs.connect(store)
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
    mlflow_runs.connect(store)
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
    crown(mlflow_runs.connect(store), "marco", version, str(tmp_path / "models/3"), back=True)
    assert to_beat(store) == before
    (tmp_path / "models/1/saved_model.pb").unlink()
    assert to_beat(store) == {"model": str(tmp_path / "models/3"), "version": version}


def test_a_champion_that_was_never_published_is_an_error_and_not_a_missing_champion(tmp_path, store):
    version_at(store, tmp_path / "models/1")
    client = mlflow_runs.connect(store)
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
    lookup = Lookup("registry", "http://mlflow:5000", "marco", "0" * 64)
    assert Lookup.read(lookup.written()) == lookup


def test_different_trainings_have_different_signatures():
    settings = digest({"recipe": {"steps": 4, "seed": 0}})
    assert digest({"recipe": {"seed": 0, "steps": 4}}) == settings
    training = {"settings_digest": settings, "fingerprint": "f", "initial": "random", "steps": ""}
    original = signature(**training)
    assert signature(**training) == original
    assert len({original, *(signature(**training | {name: "other"}) for name in training)}) == 5


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
