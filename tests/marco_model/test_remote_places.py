from marco_model.store import absolute


def test_a_path_is_told_from_the_root_on_and_a_uri_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("models") == f"{tmp_path}/models"
    assert absolute(f"{tmp_path}/models") == f"{tmp_path}/models"
    assert absolute("gs://served/drops") == "gs://served/drops"
