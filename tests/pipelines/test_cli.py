"""The command as a whole."""

import importlib.metadata

from typer.testing import CliRunner

from pipelines.cli import app


def test_version_is_that_of_the_installed_package():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"marco {importlib.metadata.version('marco-pipeline')}\n")


def test_an_option_that_takes_no_value_is_shown_without_one():
    for command in ("predict", "data import", "run"):
        shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
        assert "--help" in shown and "bool" not in shown.casefold()
