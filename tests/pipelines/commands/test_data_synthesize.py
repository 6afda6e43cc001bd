from typer.testing import CliRunner

from marco_model.errors import InputError
from pipelines.cli import app

RUN = CliRunner()


def test_a_set_is_written_and_counted(tmp_path):
    arguments = ["data", "synthesize", "--output", str(tmp_path / "drops"), "--images", "8", "--size", "48"]
    result = RUN.invoke(app, [*arguments, "--processes", "1", "--eval-share", "0"])
    assert result.exit_code == 0, result.output
    assert "8 images in" in result.stdout
    assert sorted(path.name for path in (tmp_path / "drops").iterdir()) == [
        "labels-norm.csv",
        "labels-raw.csv",
        "sources.csv",
        "synthetic.json",
        "train-00001-of-00001",
    ]


def test_a_bad_size_is_one_clear_error(tmp_path):
    result = RUN.invoke(app, ["data", "synthesize", "--output", str(tmp_path / "x"), "--images", "1", "--size", "big"])
    assert isinstance(result.exception, InputError)
    assert "'big'" in str(result.exception)
    assert not (tmp_path / "x").exists()
