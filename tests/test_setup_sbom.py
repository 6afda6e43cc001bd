"""The bills of materials: of the lock, and of what is installed in the image."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "image_sbom.py"
UV = str(Path(sys.executable).with_name("uv"))
TOOL = re.search(r"cyclonedx-bom==[\d.]+", (ROOT / "Makefile").read_text())[0]


def listed():
    done = subprocess.run([sys.executable, SCRIPT, "--list"], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_what_is_installed_is_listed_with_nothing_but_python():
    packages = listed()
    assert ["numpy", numpy.__version__, ""] in packages["python"]
    if shutil.which("dpkg-query"):
        names = {name: version for name, version, architecture in packages["debian"] if architecture}
        shown = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "bash"], capture_output=True, check=True)
        assert names["bash"] == shown.stdout.decode() and "dpkg" in names


def test_both_bills_are_made_by_the_same_version_of_the_tool():
    assert TOOL in (ROOT / "scripts" / "image_sbom.sh").read_text()


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    """Skips where the tool, which is no part of the lock, cannot be fetched."""
    command = [UV, "--quiet", "run", "--no-project", "--with", TOOL]
    done = subprocess.run([*command, "python", "-c", "import cyclonedx"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{TOOL} cannot be fetched: {done.stderr.strip()[-200:]}")
    return command


@pytest.mark.long
def test_the_bill_of_the_lock_has_every_package_and_is_valid(tool, tmp_path):
    recipe = (ROOT / "Makefile").read_text().split("\nsbom:")[1].split("\n\n")[0].replace("\\\n", " ")
    line = next(line for line in recipe.splitlines() if "cyclonedx-py" in line)
    words = shlex.split(line.replace(".venv/bin/uv", UV).replace("build/sbom.cdx.json", str(tmp_path / "sbom.json")))
    assert "--validate" in words
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    document = json.loads((tmp_path / "sbom.json").read_text())
    known = {(item["name"].lower(), item["version"]) for item in document["components"]}
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert len(pins) > 400 and {(name.lower(), version) for name, version in pins} == known
    assert document["metadata"]["component"]["name"] == "marco-pipeline"


@pytest.mark.long
def test_the_bill_of_the_image_is_valid_and_has_both_kinds(tool, tmp_path):
    packages = listed()
    packages["debian"].append(["base-files", "13.8+deb13u1", "amd64"])
    for name in ("first", "second"):
        (tmp_path / "packages.json").write_text(json.dumps(packages))
        arguments = [SCRIPT, tmp_path / "packages.json", tmp_path / f"{name}.json", "sha256:0a1b"]
        done = subprocess.run([*tool, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith(f"{len(packages['python'])} of Python")
    document = json.loads((tmp_path / "first.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    urls = {item["purl"] for item in document["components"]}
    assert f"pkg:pypi/numpy@{numpy.__version__}" in urls
    assert f"pkg:deb/debian/base-files@13.8%2Bdeb13u1?arch=amd64&distro={packages['system']}" in urls
    assert len(urls) == len(packages["debian"]) + len(packages["python"])
    assert (tmp_path / "first.json").read_text() == (tmp_path / "second.json").read_text()
    packages["python"].append(["numpy", 7, ""])
    (tmp_path / "packages.json").write_text(json.dumps(packages))
    assert subprocess.run([*tool, *arguments], capture_output=True, check=False).returncode
