"""The audit of the locks, and what keeps dependencies fresh."""

import http.server
import json
import runpy
import threading
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def osv():
    """A stand-in for OSV's querybatch (google.github.io/osv.dev/post-v1-querybatch), and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.extend((query["package"]["name"], query["version"]) for query in queries)
            vulnerable = {"vulns": [{"id": "PYSEC-2"}, {"id": "GHSA-1"}]}
            results = [vulnerable if query["package"]["name"] == "urllib3" else {} for query in queries]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_the_audit_asks_for_every_version_of_both_runtimes(osv, capsys):
    url, asked = osv
    audit = runpy.run_path(str(ROOT / "scripts/audit.py"))
    assert audit["main"](url) == 1
    text = (ROOT / "requirements.lock").read_text()
    assert len(asked) > 400 and len({name for name, _ in asked}) < len(asked)
    assert all(f"{name}==" in text + (ROOT / "requirements-gpu.lock").read_text() for name, _ in asked)
    assert "urllib3 1.26.20: GHSA-1, PYSEC-2" in capsys.readouterr().out


def test_an_audit_without_data_is_neither_good_nor_bad(capsys):
    audit = runpy.run_path(str(ROOT / "scripts/audit.py"))
    assert audit["main"]("http://127.0.0.1:9") == 3
    output = capsys.readouterr().out
    assert output.startswith("error: http://127.0.0.1:9 cannot be asked") and len(output.splitlines()) == 1


def test_dependency_updates_are_configured():
    content = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    assert content["version"] == 2
    assert {update["package-ecosystem"] for update in content["updates"]} == {"pip", "docker"}
    assert all(update["schedule"]["interval"] for update in content["updates"])
