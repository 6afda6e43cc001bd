"""scripts/test_debian13.sh up to the creation of the root: its mirror, and its message on an unsuitable machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "test_debian13.sh"
MIRROR = "http://mirror.example/debian"
THIRD_PARTY = "http://packages.example/node/"
CLASSIC = f"""\
deb {THIRD_PARTY} nodistro main
deb {MIRROR}/ CODENAME-updates main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MIRROR}/ CODENAME main contrib
"""
DEB822 = f"""\
Types: deb
URIs: {THIRD_PARTY}
Suites: nodistro
Components: main

Types: deb deb-src
URIs: {MIRROR}
Suites: CODENAME CODENAME-updates
Components: main
"""


def codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION_CODENAME", "trixie")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt reads its own configuration here, and there is no apt")
@pytest.mark.parametrize(("name", "text"), [("sources.list", CLASSIC), ("parts/debian.sources", DEB822)])
def test_mirror_is_the_hosts_own_in_either_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / name).write_text(text.replace("CODENAME", codename()))
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "{tmp_path}/parts";\n')
    environment = {key: value for key, value in os.environ.items() if key != "DEBIAN_MIRROR"}
    environment["APT_CONFIG"] = str(config)
    result = subprocess.run(
        [SCRIPT, "--mirror"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == MIRROR


@pytest.mark.parametrize(
    ("user", "debootstrap", "unshare", "message"),
    [
        ("1000", True, "exit 0", "needs root"),
        ("0", False, "exit 0", "apt-get install debootstrap"),
        ("0", True, "exit 1", "mounting is not allowed"),
    ],
)
def test_an_unsuitable_machine_is_refused_with_the_reason(
    tmp_path: Path, user: str, debootstrap: bool, unshare: str, message: str
) -> None:
    lines = {"id": f"echo {user}", "unshare": unshare} | ({"debootstrap": "exit 0"} if debootstrap else {})
    for name, line in lines.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "dirname", "env"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    result = subprocess.run(
        [SCRIPT, "--check"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
