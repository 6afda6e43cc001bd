"""The command as a whole."""

import importlib.metadata

from typer.testing import CliRunner

from pipelines.cli import app


def test_version_is_that_of_the_installed_package():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"marco {importlib.metadata.version('marco-pipeline')}\n")
