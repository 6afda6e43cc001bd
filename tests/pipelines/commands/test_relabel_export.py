import pytest
from typer.testing import CliRunner

from marco_model.errors import InputError
from pipelines.cli import app


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--share", "2"], "--share is 2.0; give a share above 0"),
        (["--folds", "1"], "--folds is 1; give 2 or more"),
        (["--output", "."], "'.' is not empty; give a new folder"),
        (["--raters", "a/b"], "rater 'a/b' cannot name a file"),
    ],
)
def test_what_cannot_be_meant_is_told_before_a_shard_or_a_model_is_looked_for(tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    asked = ["relabel", "export", "--data", "nowhere", "--model", "nowhere", "--output", "look", *options]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, InputError) and told in str(done.exception)
