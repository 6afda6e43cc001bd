"""A short form of the campaign in `kills.py`: every command that writes is killed, doubled and given a full disk."""

import os
import subprocess

import pytest

from tests.pipelines import kills

pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    base = tmp_path_factory.mktemp("kills")
    kills.prepare(base)
    return kills.Campaign(base, seed=1)


def may_mount(folder):
    """Returns whether a tmpfs can be mounted, which containers without rights refuse to root too."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        return False
    subprocess.run(["umount", folder], check=True)
    return True


@pytest.mark.parametrize("case", kills.CASES, ids=lambda case: case.name)
def test_each_output_is_old_or_whole_and_the_next_command_goes_on(campaign, tmp_path, case):
    campaign.kill(case, 3)
    campaign.both(case)
    if may_mount(tmp_path):
        campaign.fill_disk(case, 1)
