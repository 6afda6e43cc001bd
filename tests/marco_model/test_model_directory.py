import importlib.metadata

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
