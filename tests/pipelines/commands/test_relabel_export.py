import pytest
from typer.testing import CliRunner

from marco_model.errors import InputError
from pipelines.cli import app


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", "2"], "--share is 2.0; give a share above 0"),
        (["--folds", "1"], "--folds is 1; give 2 or more"),
        (["--output", "."], "'.' is not empty; give a new folder"),
        (["--raters", "a/b"], "rater 'a/b' cannot name a file"),
    ],
)
def test_wrong_options_are_refused_before_shards_or_a_model_are_read(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    command = ["relabel", "export", "--data", "nowhere", "--model", "nowhere", "--output", "look", *options]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError) and message in str(done.exception)
