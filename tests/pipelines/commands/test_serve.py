import importlib.util
import os
import socket
import subprocess
import sys

import pytest

HAS_KSERVE = importlib.util.find_spec("kserve") is not None


def marco(*arguments, **environment):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.skipif(HAS_KSERVE, reason="kserve is installed")
def test_where_kserve_cannot_be_one_line_says_what_to_do():
    tried = marco("serve")
    assert tried.returncode == 2
    assert len(tried.stderr.splitlines()) == 1
    assert tried.stderr.startswith("error: marco serve needs")
    if sys.version_info < (3, 11):
        assert "Python 3.11" in tried.stderr
        assert "TensorFlow Serving" in tried.stderr


@pytest.mark.skipif(not HAS_KSERVE, reason="kserve is not installed: no version fits TFX 1.16's protobuf 3")
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
def test_what_cannot_be_done_is_one_line_and_exit_status_2(arguments, environment, reason):
    if "nowhere" in arguments:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            arguments = [*arguments, "--port", str(probe.getsockname()[1])]
    tried = marco("serve", *arguments, **environment)
    assert tried.returncode == 2, tried.stderr
    assert tried.stderr.startswith("error: ")
    assert len(tried.stderr.splitlines()) == 1
    assert reason in tried.stderr


def test_help_is_there_without_kserve_or_tensorflow():
    helped = marco("serve", "--help")
    assert helped.returncode == 0
    assert "--max-batch" in helped.stdout
    code = (
        "import sys; import pipelines.cli; "
        "assert not {'kserve', 'fastapi', 'tensorflow', 'tfx'} & set(sys.modules), 'imported'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
