import os
import socket
import subprocess
import sys

import pytest


def marco(*arguments, **environment):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--model", "nowhere"], {}, "no model in nowhere"),
        (["--host", "203.0.113.1"], {}, "cannot listen at 203.0.113.1:8080"),
        (["--name", "a/b"], {}, "--name is 'a/b'"),
        (["--max-body-mb", "300"], {}, "--max-inflight-mb is 256, under --max-body-mb 300"),
        ([], {"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT is 'http'"),
    ],
)
def test_an_option_that_cannot_work_ends_with_one_line_and_status_2(arguments, environment, reason):
    if "nowhere" in arguments:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            arguments = [*arguments, "--port", str(probe.getsockname()[1])]
    result = marco("serve", *arguments, **environment)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert reason in result.stderr


def test_help_needs_neither_the_server_nor_tensorflow():
    result = marco("serve", "--help")
    assert result.returncode == 0
    assert "--max-waiting" in result.stdout
    code = (
        "import sys; import pipelines.cli; "
        "assert not {'uvicorn', 'fastapi', 'tensorflow', 'tfx'} & set(sys.modules), 'imported'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
