"""Looks up the known advisories of every version in the locks, for both runtimes, in OSV (`make audit`).

Exit status: 0 without advisories, 1 with some, which are listed, 3 where OSV cannot be reached: nothing is known then.
"""

import json
import re
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVICE = "https://api.osv.dev"
LOCKS = ("requirements.lock", "requirements-gpu.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)
_MOST = 1000  # Queries that OSV takes at once.


def pins() -> list[tuple[str, str]]:
    """Returns name and version of every package in the locks, whatever Python it is for."""
    return sorted({pin for lock in LOCKS for pin in _PIN.findall((ROOT / lock).read_text())})


def advisories(service: str, packages: list[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Returns the ids of the advisories of those packages that have some; raises `OSError` without an answer."""
    found = {}
    for start in range(0, len(packages), _MOST):
        part = packages[start : start + _MOST]
        queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in part]
        content = json.dumps({"queries": queries}).encode()
        request = urllib.request.Request(f"{service}/v1/querybatch", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            results = json.load(answer)["results"]
        for package, result in zip(part, results, strict=True):
            if vulnerabilities := result.get("vulns"):
                found[package] = sorted(entry["id"] for entry in vulnerabilities)
    return found


def main(service: str = SERVICE) -> int:
    """Prints what is known and returns the exit status."""
    packages = pins()
    try:
        known = advisories(service, packages)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {service} cannot be asked ({error}); nothing is known of the {len(packages)} packages")
        return 3
    for (name, version), ids in known.items():
        print(f"{name} {version}: {', '.join(ids)}")
    print(f"{len(known)} of {len(packages)} packages have advisories; SECURITY.md says which reach this project")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
