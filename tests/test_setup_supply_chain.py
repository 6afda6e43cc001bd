"""The audit of the locks, and what keeps dependencies fresh."""

import datetime
import http.server
import json
import runpy
import sys
import threading
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


def test_scanners_accept_no_advisory_without_a_reason_and_an_end():
    osv = tomllib.loads((ROOT / "osv-scanner.toml").read_text())
    trivy = yaml.safe_load((ROOT / "trivy.yaml").read_text())
    ignored = yaml.safe_load((ROOT / trivy["ignorefile"]).read_text())["vulnerabilities"]
    accepted = [(entry["id"], entry["reason"], entry["ignoreUntil"]) for entry in osv["IgnoredVulns"]]
    accepted += [(entry["name"], entry["reason"], entry["effectiveUntil"]) for entry in osv["PackageOverrides"]]
    accepted += [(entry["id"], entry["statement"], entry["expired_at"]) for entry in ignored]
    assert all(len(reason) > 20 and isinstance(end, datetime.date) for _, reason, end in accepted)
    assert {entry["id"] for entry in ignored} <= {entry["id"] for entry in osv["IgnoredVulns"]}
    table = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    for name, _, _ in accepted:
        (row,) = [line for line in table if name.replace("-", "_") in line.replace("-", "_")]
        assert row.split(" | ")[2].startswith("no: "), row
    # An exception that is for nothing any more goes.
    lock = (ROOT / "requirements.lock").read_text()
    assert all(f"\n{entry['name']}==" in lock for entry in osv["PackageOverrides"])
    for entry in ignored:
        assert all(f"\n{url.removeprefix('pkg:pypi/').replace('@', '==')} " in lock for url in entry["purls"])
