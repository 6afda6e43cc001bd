"""Publishing to `gs://` on fake-gcs-server, with faults on the way and pushers that are killed."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components import published_models
from marco_model import store
from marco_model.errors import ClusterError, InputError
from marco_model.model_directory import PUSH_RECORD, model_fingerprint
from tests import processes

DESTINATION = "gs://models/marco"
STEPS = {
    "upload": r"POST .*/upload/",
    "claim": r"POST .*ifGenerationMatch=0.*\.claims/",
    "copy": r"POST .*rewriteTo.*variables\.data",
    "last": r"POST .*rewriteTo.*saved_model\.pb",
}
COPY = STEPS["copy"]


def make_model(folder, weights):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables/variables.data").write_bytes(weights)
    (folder / "variables/variables.index").write_bytes(b"index")
    return folder


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def version(gcs, number):
    found = gcs.objects(f"{DESTINATION}/{number}/")
    found.pop(PUSH_RECORD)
    return found


def newest_served(gcs, destination):
    """Returns the files of the version that TensorFlow Serving would load, which is the one with the largest number.

    Serving does not check the files of that folder (AspireLatestVersions in file_system_storage_path_source.cc).
    """
    found = gcs.objects(f"{destination}/")
    newest = max(int(place) for place, slash, _ in (name.partition("/") for name in found) if slash and place.isdigit())
    return {name.partition("/")[2]: content for name, content in found.items() if name.partition("/")[0] == str(newest)}


def complete(gcs):
    return sorted(name for name in gcs.objects(f"{DESTINATION}/") if name.endswith("saved_model.pb") and name[0] != ".")


@pytest.fixture
def models(gcs):
    """The emulator with an empty bucket."""
    gcs.bucket("models")
    return gcs


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model", b"first" * 100_000)


def test_versions_count_up_contain_the_model_and_nothing_else_is_left(models, model, tmp_path):
    first = published_models.publish(model, DESTINATION + "/", {"mlflow_run_id": "r1"})
    assert first == (1, f"{DESTINATION}/1", False)
    assert version(models, 1) == content(model)
    note = json.loads(models.objects(f"{DESTINATION}/1/")[PUSH_RECORD])
    assert note["mlflow_run_id"] == "r1"
    assert note["fingerprint"] == model_fingerprint(model)
    assert published_models.publish(model, DESTINATION, {}) == (1, f"{DESTINATION}/1", True)
    other = make_model(tmp_path / "other", b"second")
    assert published_models.publish(other, DESTINATION, {})[::2] == (2, False)
    assert published_models.publish(model, DESTINATION, {})[::2] == (3, False)
    assert version(models, 2) == content(other)
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {"1", "2", "3"}


@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_a_version_that_lost_or_changed_a_file_is_not_the_same_model(models, model, damage):
    published_models.publish(model, DESTINATION, {})
    damaged = f"{DESTINATION}/1/variables/variables.data"
    if damage == "lost":
        store.delete_objects([damaged])
    else:
        store.write_bytes(damaged, b"secone")
    assert published_models.publish(model, DESTINATION, {})[::2] == (2, False)
    assert version(models, 2) == content(model)
    assert published_models.publish(model, DESTINATION, {})[::2] == (2, True)


def test_versions_are_numbers_not_names(models, model):
    for number in (9, 10):
        models.client().bucket("models").blob(f"marco/{number}/saved_model.pb").upload_from_string(b"graph")
    models.client().bucket("models").blob("marco/notes/readme.txt").upload_from_string(b"11")
    assert published_models.publish(model, DESTINATION, {}).number == 11


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *((kind, "upload") for kind in ("503", "slow", "lost", "cut upload")),
        ("lost", "claim"),
        *((kind, "copy") for kind in ("503", "slow", "reset")),
        ("lost", "last"),
    ],
)
def test_a_fault_on_the_way_costs_a_moment(models, model, monkeypatch, kind, step):
    if kind == "slow":
        monkeypatch.setattr(store, "READ_SECONDS", 1.0)
    fault = models.inject(kind, STEPS[step], seconds=1.3)
    assert published_models.publish(model, DESTINATION, {}) == (1, f"{DESTINATION}/1", False)
    assert fault.hits == 1
    assert version(models, 1) == content(model)
    # An upload that its client gave up may still end, after all has been tidied up; the next push removes it.
    models.settle()
    assert published_models.publish(model, DESTINATION, {}) == (1, f"{DESTINATION}/1", True)
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {"1"}


@pytest.mark.parametrize("step", ["upload", "claim", "last"])
def test_a_step_that_is_refused_leaves_nothing(models, model, step):
    models.inject("403", STEPS[step], times=10**9)
    with pytest.raises(InputError, match=r"^gs://models/marco.* is refused .*403") as raised:
        published_models.publish(model, DESTINATION, {})
    assert "\n" not in str(raised.value)
    assert models.objects(f"{DESTINATION}/") == {}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["upload", "claim", "last"])
def test_a_step_that_keeps_failing_ends_in_time_and_leaves_no_files(models, model, monkeypatch, step):
    monkeypatch.setattr(store, "RETRY_SECONDS", 3.0)
    models.inject("503", STEPS[step], times=10**9)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=r"^gs://models/marco.*503") as raised:
        published_models.publish(model, DESTINATION, {})
    assert time.monotonic() - begun < 60  # Well above the 3 s, for a busy machine, and well below for ever.
    assert "\n" not in str(raised.value)
    assert models.objects(f"{DESTINATION}/") == {}


@pytest.mark.long
@pytest.mark.slow
def test_after_an_interrupted_push_a_server_finds_a_whole_version_and_the_next_push_completes_it(models, model):
    """Its first, second, … request is done and the answer to it lost; nothing that follows works.

    Only between the first copy to the number and that of saved_model.pb a server finds too little.
    """
    whole = content(model)
    broken, too_early = 0, []
    while True:
        destination, begun = f"{DESTINATION}-{broken}", len(models.requests)
        models.client().bucket("models").blob(f"marco-{broken}/1/saved_model.pb").upload_from_string(b"older")
        cut = models.inject("lost", "", skip=broken)
        dead = models.inject("403", "", times=10**9, skip=broken)
        with contextlib.suppress(InputError, ClusterError):
            published_models.publish(model, destination, {})
        models.faults.clear()
        served = newest_served(models, destination)
        if served.get("saved_model.pb") != b"older" and not served.items() >= whole.items():
            too_early.append(models.requests[begun + broken])
            assert "saved_model.pb" not in served
        assert published_models.publish(model, destination, {}).number == 2
        found = models.objects(f"{destination}/")
        assert found.pop(f"2/{PUSH_RECORD}")
        assert found == {"1/saved_model.pb": b"older"} | {f"2/{name}": content for name, content in whole.items()}
        if not cut.hits and not dead.hits:
            break
        broken += 1
    assert broken > 12
    assert len(too_early) == len(whole)  # The project's note, and every file except saved_model.pb.
    assert all("rewriteTo" in request for request in too_early)


def _push_and_wait(model, at):
    """Pushes a model, and waits at `_check` or before the last call of `_copy`."""
    original = getattr(published_models._Push, at)

    def wait(push, *arguments):
        if at == "_check" or arguments == ("saved_model.pb",):
            print("waiting", flush=True)
            time.sleep(600)
        original(push, *arguments)

    setattr(published_models._Push, at, wait)
    published_models.publish(model, DESTINATION, {})


@pytest.mark.slow
@pytest.mark.parametrize("at", ["_check", "_copy"])
def test_leftovers_of_a_killed_push_are_removed_by_the_next_push_of_that_model_or_later_by_any_push(
    models, model, tmp_path, monkeypatch, at
):
    """A real process, killed with SIGKILL once its files lie aside, or once it has shown all but the last."""

    def killed():
        with processes.start(_push_and_wait, model, at) as process:
            process.wait_for_output("waiting\n")
        left = models.objects(f"{DESTINATION}/")
        assert len(left) == (4 if at == "_check" else 8)
        assert complete(models) == []

    killed()
    assert published_models.publish(model, DESTINATION, {}).number == 1
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {"1"}
    models.client().bucket("models").delete_blobs(list(models.client().list_blobs("models")))
    killed()
    other = make_model(tmp_path / "other", b"second")
    number = published_models.publish(other, DESTINATION, {}).number
    assert complete(models) == [f"{number}/saved_model.pb"]
    monkeypatch.setattr(published_models, "_ABANDONED_SECONDS", -1.0)
    assert published_models.publish(make_model(tmp_path / "third", b"third"), DESTINATION, {}).number == number + 1
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {str(number), str(number + 1)}


def test_a_number_that_another_push_has_published_is_left_alone(models, model, monkeypatch):
    """Another push listed, published and released its claim after this one had listed."""
    models.client().bucket("models").blob("marco/1/saved_model.pb").upload_from_string(b"another")
    monkeypatch.setattr(published_models, "next_number", lambda folders: 1)
    assert published_models.publish(model, DESTINATION, {}).number == 2
    assert models.objects(f"{DESTINATION}/1/") == {"saved_model.pb": b"another"}
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {"1", "2"}


def test_a_number_with_a_note_and_no_model_is_cleared_without_a_claim(models, model):
    """A copy that arrived after its push was presumed dead and cleared."""
    note = json.dumps({"fingerprint": model_fingerprint(model)})
    models.client().bucket("models").blob(f"marco/1/{PUSH_RECORD}").upload_from_string(note)
    assert published_models.publish(model, DESTINATION, {}).number == 1
    assert version(models, 1) == content(model)


def test_a_push_that_was_presumed_dead_begins_again(models, model, monkeypatch):
    """Another push removes its files before the last copy; no partial version is ever visible."""
    seen = []

    def clear(push, name):
        if name == "saved_model.pb" and not seen:
            seen.append(name)
            objects = published_models.by_folder(DESTINATION)
            published_models.remove_abandoned(DESTINATION, objects, model_fingerprint(model))
            assert models.objects(f"{DESTINATION}/") == {}
        return copy(push, name)

    copy = published_models._Push._copy
    monkeypatch.setattr(published_models._Push, "_copy", clear)
    assert published_models.publish(model, DESTINATION, {}).number == 1
    assert seen
    assert version(models, 1) == content(model)
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {"1"}


def test_concurrent_pushes_get_a_version_each(models, tmp_path):
    folders = [make_model(tmp_path / f"model{index}", bytes([index]) * 20_000) for index in range(5)]
    with ThreadPoolExecutor(5) as pool:
        published = list(pool.map(lambda folder: published_models.publish(folder, DESTINATION, {}), folders))
    assert sorted(push.number for push in published) == list(range(1, 6))
    for folder, push in zip(folders, published, strict=True):
        assert version(models, push.number) == content(folder)
    assert len(complete(models)) == 5


def test_concurrent_pushes_of_one_model_end_with_it(models, model):
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda _: published_models.publish(model, DESTINATION, {}), range(4)))
    for push in published:
        assert version(models, push.number) == content(model)
    assert {name.partition("/")[0] for name in models.objects(f"{DESTINATION}/")} == {
        name.partition("/")[0] for name in complete(models)
    }


def test_a_file_that_arrives_damaged_is_noticed_before_anything_shows(models, model, monkeypatch):
    upload = store.upload

    def damaged(path, uri):
        upload(path, uri)
        if uri.endswith("variables.data"):
            store.blob_at(uri).upload_from_string(b"other bytes")

    monkeypatch.setattr(store, "upload", damaged)
    with pytest.raises(ClusterError, match=r"variables\.data arrived damaged"):
        published_models.publish(model, DESTINATION, {})
    assert models.objects(f"{DESTINATION}/") == {}


def test_files_of_others_are_kept(models, model, monkeypatch):
    monkeypatch.setattr(published_models, "_ABANDONED_SECONDS", -1.0)
    for name in ("2024/party.jpg", ".push-notes/readme.txt", ".claims/readme.txt", "7/"):
        models.client().bucket("models").blob(f"marco/{name}").upload_from_string(b"mine")
    before = models.objects(f"{DESTINATION}/")
    assert published_models.publish(model, DESTINATION, {}).number == 2025
    assert models.objects(f"{DESTINATION}/").items() >= before.items()


def test_a_push_that_cannot_clean_up_is_a_push(models, model):
    models.inject("403", "^DELETE", times=10**9)
    assert published_models.publish(model, DESTINATION, {})[::2] == (1, False)
    assert version(models, 1) == content(model)


def test_a_missing_bucket_is_named(models, model):
    with pytest.raises(InputError, match=r"gs://none/marco.*does not exist"):
        published_models.publish(model, "gs://none/marco", {})
    with pytest.raises(InputError, match="no bucket"):
        published_models.publish(model, "gs://", {})


def test_the_newest_version_is_downloaded_completely(models, model, tmp_path):
    other = make_model(tmp_path / "other", b"second")
    for candidate in (model, other):
        published_models.publish(candidate, DESTINATION, {})
    fault = models.inject("cut", r"GET .*variables\.data.*alt=media")
    found = published_models.download(DESTINATION, tmp_path / "here")
    assert found == tmp_path / "here" / "2"
    assert fault.hits == 1
    assert model_fingerprint(found) == model_fingerprint(other)
    assert model_fingerprint(published_models.download(f"{DESTINATION}/1/", tmp_path / "there")) == model_fingerprint(
        model
    )
