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


def test_the_first_of_many_repeated_answers_is_shown_and_the_rest_are_counted(tmp_path):
    (tmp_path / "key.csv").write_text("image_id,split,old_label,predicted\n11,train,Clear,Crystals\n")
    (tmp_path / "anna.csv").write_text("image_id,file,label,rater,date,note\n" + "11,,Crystals,anna,2026-01-02,\n" * 4)
    command = ["relabel", "merge", "anna.csv", "--key", "key.csv", "--output", "overlay.csv"]
    done = CliRunner().invoke(app, [name if "." not in name else str(tmp_path / name) for name in command])
    assert done.exit_code == 0, done.output
    assert "anna.csv, line 3 repeats anna.csv, line 2; 2 more repeat an answer\n" in done.stderr
    assert "line 4" not in done.output
