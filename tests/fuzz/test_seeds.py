"""Every seed, those of findings among them, keeps the contract of its target; `make fuzz` goes on from there."""

import random
import subprocess
import sys

import pytest

from marco_model import errors
from tests.fuzz import contract, headers, images, seeds, targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_keep_the_contract(name):
    broken = {seed: kind for seed, data in seeds.of_target(name).items()
              if (kind := contract.violation(targets.TARGETS[name], data)[0])}  # fmt: skip
    assert not broken


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (lambda _: [][1], "IndexError-elsewhere"),
        (lambda _: errors.one_line(None, "x"), "TypeError-errors-one_line"),
        (lambda _: exec("raise SystemExit"), "SystemExit-elsewhere"),
    ],
)
def test_other_exceptions_are_findings_named_after_their_place(run, kind):
    assert contract.violation(contract.Target(run, ()), b"")[0] == kind


def test_time_and_memory_are_findings(monkeypatch):
    target = contract.Target(lambda _: None, ())
    monkeypatch.setattr(contract, "_first_peak", {target.run: -contract.MOST_GROWTH})
    assert contract.violation(target, b"")[0].startswith("growth-")
    monkeypatch.setattr(contract, "MOST_SECONDS", -1.0)
    assert contract.violation(target, b"")[0].startswith("slow-")


def test_a_message_is_one_line_and_not_endless():
    message = str(errors.InputError("first\nsecond" + "x" * 5000 + "fix it"))
    assert message.startswith("first second") and message.endswith("fix it") and len(message) <= errors.MAX_CHARACTERS


@pytest.mark.parametrize("tensorflow", [False, pytest.param(True, marks=pytest.mark.long)])
def test_mutated_headers_are_read_as_they_are_decoded_or_refused(tensorflow):
    outcomes = headers.count_outcomes(2000, 0, tensorflow)
    assert not [outcome for outcome in outcomes if outcome[1].startswith("WRONG")]
    for kind in ("JPEG", "PNG", "TIFF", "BMP"):
        assert outcomes[kind, headers.AGREE] and sum(outcomes[kind, name] for name in headers.REFUSED)


def test_mutations_of_each_format_reach_decoders():
    """Most changes keep what the first bytes say, so that they are not refused for these alone."""
    for kind in ("jpeg", "png", "tiff", "bmp"):
        picture = seeds.pictures()[kind]
        changed = [images.mutated(picture, random.Random(seed)) for seed in range(60)]
        assert sum(headers.kind_of(image).lower() == kind for image in changed) > 50 and len(set(changed)) > 40


@pytest.mark.long
@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path):
    pytest.importorskip("atheris", reason="its wheels are for Linux on x86-64 alone")
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--inputs", "400", "--folder", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    table = result.stdout.split("\ntarget ")[1].splitlines()
    assert {line.split()[0] for line in table if " done " in line} == set(targets.TARGETS)
    assert "tfrecord" in result.stdout and "0 findings" in result.stdout
