"""Kills, full disks and two writers at once, at random moments of every command that writes.

    python -m tests.pipelines.kills --kills 200 --disks 50 --folder /tmp/kills

Each output must be old or whole afterwards, its counts must add up, and the next command must go on. The last lines are
a table of what happened. Disks are tmpfs mounts of a random size, which need root; others leave them out.
"""

import argparse
import collections
import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from components import published_models
from marco_data import tfrecord
from marco_model import model_directory, store
from tests import processes, short_network

SETTINGS = {
    "data.synthetic.images": 96,
    "data.validation_share": 0.25,
    "recipe.steps": 12,
    "recipe.batch_size": 8,
    "recipe.evaluate_every": 4,
    "recipe.checkpoint_every": 4,
    "transform.shorter_side": 152,
    "network.input_size": 151,
    "network.depth_multiplier": 0.1,
    "network.auxiliary": "false",
    "thresholds.accuracy": 0.05,
    "thresholds.recall/Crystals": 0.0,
    "gate.evidence": "false",  # So few images and steps show none.
}
IMAGES = 24
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STORAGE, REFUSED = 74, 2
RUN = ("run", "--output", "run", *(f"--set={name}={value}" for name, value in SETTINGS.items()))


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that writes to `out` of its working directory.

    `check` raises AssertionError unless what is there is whole, and returns how it is called: `none`, `old` or `new`.
    `ready`: returns the arguments after what an interrupted one left; `weight`: its share of all kills.
    """

    name: str
    arguments: tuple[str, ...]
    check: Callable[[Path], str]
    old: bool = False
    weight: int = 2
    done: tuple[int, ...] = (0,)
    again: Callable[[Path], tuple[str, ...]] = lambda out: ()


def prepare(base: Path) -> None:
    """Runs the pipeline and makes images, sheets and a reference of its data, once."""
    base.mkdir(parents=True, exist_ok=True)
    if (base / "reference").exists():
        return
    if not (base / "model").exists():
        process = marco(base, *RUN)
        assert process.wait(900) == 0, process.stderr
        shutil.copytree(base / "run" / "models" / "1", base / "model")
    shutil.copytree(base / "model", base / "other")
    (base / "other" / "assets.extra" / "note").write_text("another model")
    data = ("data", "synthesize", "--images", str(IMAGES), "--size", "200", "--output", "data")
    images = ("data", "export", "data", "--output", "images")
    look = ("relabel", "export", "--data", "data", "--output", "look", "--model", "model", "--raters", "a")
    reference = ("monitor", "reference", "data", "--output", "reference", "--model", "model")
    for arguments in (data, images, (*look, "--share", "0.5"), reference):
        process = marco(base, *arguments)
        assert process.wait(600) == 0, process.stderr
    with (base / "look/raters/sheet-a.csv").open(encoding="utf-8-sig", newline="") as sheet:
        header, *rows = csv.reader(sheet)
    for name, label in (("first", "Clear"), ("second", "Other")):
        with (base / f"{name}.csv").open("w", newline="") as filled:
            csv.writer(filled).writerows([header, *([*row[:2], label, *row[3:]] for row in rows)])


def marco(folder: Path, *arguments: str) -> processes.Process:
    """Starts a command in `folder`, in a process that has the short network."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    options = {"modules": processes.PIPELINE, "cwd": folder, "before": short_network.use, "environment": variables}
    return processes.marco(*arguments, **options)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def records(paths: list[Path]) -> int:
    count = 0
    for path in paths:
        with store.open_raw(str(path)) as file:
            found = list(tfrecord.read_records(file))
        assert all(isinstance(record, tfrecord.Record) and record.intact for record in found), path
        count += len(found)
    return count


def check_scores(out: Path) -> str:
    table = out / "scores.csv"
    if not table.exists():
        return "none"
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) in (3, IMAGES + 1), len(rows)
    return "old" if len(rows) == 3 else "new"


def check_import(out: Path) -> str:
    if not (out / "set").exists():
        return "none"
    assert records([path for path in (out / "set").iterdir() if "-of-" in path.name]) == IMAGES
    return "new"


def check_ingest(out: Path) -> str:
    if not (out / "set" / "summary.json").exists():
        return "none"
    summary = json.loads((out / "set" / "summary.json").read_text())
    written = records(list((out / "set" / "examples").glob("Split-*/data_tfrecord-*")))
    assert summary["read"] == IMAGES == written + summary["quarantined"] + summary["left_out"]
    assert summary["written"] == written == sum(summary["splits"].values())
    return "new"


def check_export(out: Path) -> str:
    if not (out / "look").exists():
        return "none"
    about = json.loads((out / "look" / "export.json").read_text())
    with (out / "look" / "key.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = list((out / "look" / "raters" / "images").iterdir())
    assert sum(split["exported"] for split in about["splits"].values()) == len(rows) == len(images)
    return "new"


def check_merge(out: Path) -> str:
    if not (out / "overlay.csv").exists():
        return "none"
    with (out / "overlay.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (label,) = {row["label"] for row in rows}
    for ending in (".report.json", ".report.html"):
        if (report := out / f"overlay{ending}").exists():
            assert report.stat().st_size > 500
    json.loads((out / "overlay.report.json").read_text()) if (out / "overlay.report.json").exists() else None
    return "new" if label == "Other" else "old"


def check_reference(out: Path) -> str:
    from components.monitoring import drift

    drift.read_reference(str(out / "reference"))
    return "old" if (out / "reference" / "old").exists() else "new"


def check_drift(out: Path) -> str:
    if not (out / "drift" / "drift.json").exists():
        return "none"
    report = json.loads((out / "drift" / "drift.json").read_text())
    assert report["imagers"] and "</html>" in (out / "drift" / "drift.html").read_text()
    return "new"


def check_models(out: Path) -> str:
    numbers = published_models.folder_versions(out / "models")
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    for number in numbers:
        version = out / "models" / str(number)
        assert published_models.read_note(version)["fingerprint"] == model_directory.model_fingerprint(version)
    return f"new {len(numbers)}" if numbers else "none"


def check_run(out: Path) -> str:
    published = check_models(out / "run") if (out / "run").exists() else "none"
    if not (out / "run" / "summary.json").exists():
        return "none"
    summary = json.loads((out / "run" / "summary.json").read_text())
    images = SETTINGS["data.synthetic.images"]
    assert sum(summary["examples"].values()) + summary["quarantined"] + summary["left_out"] == images
    assert "</html>" in (out / "run" / "report.html").read_text() and published
    return "new"


def resumed(out: Path) -> tuple[str, ...]:
    return ("--resume",) if (out / "scores.partial.csv").exists() else ()


CASES = (
    Case(
        "predict",
        ("predict", "../images", "--output", "scores.csv", "--model", "../model"),
        check_scores,
        True,
        4,
        again=resumed,
    ),
    Case(
        "import",
        ("data", "import", "../images", "--csv", "../images/labels.csv", "--output", "set"),
        check_import,
        weight=3,
    ),
    Case("ingest", ("data", "ingest", "../data", "--output", "set"), check_ingest, weight=4),
    Case(
        "relabel export",
        ("relabel", "export", "--data", "../data", "--output", "look", "--model", "../model"),
        check_export,
    ),
    Case(
        "relabel merge",
        ("relabel", "merge", "../second.csv", "--key", "../look/key.csv", "--output", "overlay.csv"),
        check_merge,
        True,
        3,
    ),
    Case(
        "monitor reference",
        ("monitor", "reference", "../data", "--output", "reference", "--model", "../model", "--seed", "1"),
        check_reference,
        True,
    ),
    Case(
        "monitor check",
        ("monitor", "check", "../data", "--reference", "../reference", "--output", "drift", "--model", "../model"),
        check_drift,
        done=(0, 4),
    ),
    Case("push", (), check_models, weight=3),
    Case("run", RUN, check_run, weight=3, done=(0, 3)),
)


def push(model: str, destination: str) -> None:
    """Publishes as the Pusher does, under the command's exit statuses."""
    from marco_model import errors
    from pipelines.commands import options

    with errors.exit_status(), options.stopped_by_signals():
        published_models.publish(Path(model), destination, {})


def begin(case: Case, out: Path, *more: str) -> processes.Process:
    if case.name != "push":
        return marco(out, *case.arguments, *more)
    newest = published_models.folder_versions(out / "models")
    model = out.parent / ("other" if len(newest) % 2 else "model")
    return processes.start(push, str(model), str(out / "models"), modules=["pipelines.cli"])


def fresh(case: Case, out: Path, base: Path) -> None:
    """Empties `out`, and writes the old output of a command that replaces one."""
    for child in out.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    if not case.old:
        return
    if case.name == "predict":
        if not (base / "old.csv").exists():
            two = [f"../{path.relative_to(base)}" for path in sorted((base / "images").rglob("*.jp*g"))[:2]]
            assert marco(out, "predict", *two, *case.arguments[2:]).wait(600) == 0
            (out / "scores.csv").rename(base / "old.csv")
        shutil.copyfile(base / "old.csv", out / "scores.csv")
    elif case.name == "monitor reference":
        shutil.copytree(base / "reference", out / "reference")
        (out / "reference" / "old").touch()
    else:
        assert marco(out, "relabel", "merge", "../first.csv", *case.arguments[3:]).wait(120) == 0


def unmount(folder: Path) -> None:
    """Unmounts a disk, on which a process may still be ending."""
    for _ in range(20):
        if not subprocess.run(["umount", folder], check=False).returncode:
            return
        time.sleep(1)
    raise AssertionError(f"{folder} stays busy")


class Campaign:
    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.random = base, random.Random(seed)
        self.counts: dict[str, collections.Counter[str]] = {case.name: collections.Counter() for case in CASES}
        self.seconds: dict[str, float] = {}

    def whole(self, case: Case, out: Path) -> None:
        """Runs the next command, which must end well and leave nothing of earlier ones."""
        begun = time.monotonic()
        process = begin(case, out, *case.again(out))
        status = process.wait(900)
        assert status in case.done, (case.name, status, process.stderr[-3000:])
        state = case.check(out)
        assert state.startswith("new"), (case.name, state)
        self.seconds[case.name] = min(time.monotonic() - begun, self.seconds.get(case.name, 1e9))
        left = [path for path in out.rglob("*") if path.name.endswith(".partial") or path.name == store.LOCK_FILE]
        assert not left, (case.name, left)
        self.counts[case.name]["next went on"] += 1

    def kill(self, case: Case, count: int) -> None:
        """Interrupts a command `count` times; the next one takes up what each left."""
        out = self.base / f"out {case.name}"
        out.mkdir(exist_ok=True)
        fresh(case, out, self.base)
        self.whole(case, out)
        if case.name != "push":
            fresh(case, out, self.base)
        for number in range(count):
            process = begin(case, out, *case.again(out))
            time.sleep(self.random.uniform(0, self.seconds[case.name]))
            sent = SIGNALS[number % 3]
            process.send_signal(sent)
            begun = time.monotonic()
            status = process.wait(120)
            took = time.monotonic() - begun
            allowed = {*case.done, -sent, 128 + sent}
            assert status in allowed, (case.name, sent, status, process.stderr[-3000:])
            if status == 128 + sent:
                assert len(process.stderr.splitlines()[-1:]) <= 1 and "Traceback" not in process.stderr, process.stderr
            kind = "ended before" if status in case.done else "killed"
            state = case.check(out).split()[0]
            self.counts[case.name].update([kind, state, f"slow to end ({sent.name})"] if took > 10 else [kind, state])
            if state == "new" and case.name != "push" and not (case.name == "run" and kind == "killed"):
                fresh(case, out, self.base)
            elif number % 4 == 3:
                self.whole(case, out)
                if case.name != "push":
                    fresh(case, out, self.base)
        self.whole(case, out)

    def fill_disk(self, case: Case, count: int) -> None:
        """Runs a command on disks of random size, up to what it needs."""
        out = self.base / f"disk {case.name}"
        out.mkdir(exist_ok=True)
        needed = sum(path.stat().st_size for path in (self.base / f"out {case.name}").rglob("*") if path.is_file())
        for _ in range(count):
            mount = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", out]
            subprocess.run(mount, check=True)
            try:
                fresh(case, out, self.base)
                before = case.check(out)
                disk = os.statvfs(out)
                # Whole blocks, rounded down: a mount rounds up, and then a small output always has room.
                # At least one block: to tmpfs, a size of 0 means no limit.
                blocks = disk.f_blocks - disk.f_bfree + int(self.random.uniform(0, 0.9) * needed) // disk.f_frsize
                size = max(1, blocks) * disk.f_frsize
                subprocess.run([*mount[:4], f"remount,size={size}", *mount[5:]], check=True)
                process = begin(case, out)
                status = process.wait(900)
                lines = process.stderr.strip().splitlines()
                assert status in (*case.done, STORAGE), (case.name, size, status, process.stderr[-3000:])
                assert "Traceback" not in process.stderr, process.stderr[-3000:]
                state = case.check(out)
                if status == STORAGE:
                    assert lines[-1].startswith("error: "), lines[-3:]
                    assert state == before or state.startswith("new"), (before, state)
                self.counts[case.name].update(["full" if status == STORAGE else "roomy", "disks"])
                subprocess.run([*mount[:4], "remount,size=2g", *mount[5:]], check=True)
                if state.startswith("new") and case.name not in ("push", "run"):
                    fresh(case, out, self.base)
                self.whole(case, out)
            finally:
                unmount(out)

    def both(self, case: Case) -> None:
        """Runs two of a command at once into one place."""
        out = self.base / f"out {case.name}"
        fresh(case, out, self.base)
        pair = [begin(case, out) for _ in range(2)]
        statuses = sorted(process.wait(900) for process in pair)
        text = "\n".join(process.stderr[-2000:] for process in pair)
        assert statuses[0] in case.done and statuses[1] in (*case.done, REFUSED), (case.name, statuses, text)
        assert case.check(out).startswith("new"), case.name
        left = [path for path in out.rglob("*") if path.name.endswith(".partial")]
        assert not left, left
        refused = statuses[1] == REFUSED and REFUSED not in case.done
        self.counts[case.name]["second refused" if refused else "both ended, one result"] += 1

    def table(self) -> str:
        return "\n".join(
            f"| {name} | {', '.join(f'{what} {count}' for what, count in sorted(counts.items()))} |"
            for name, counts in self.counts.items()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    options = parser.parse_args()
    prepare(options.folder)
    marco(options.folder, "--help").wait(600)  # The server imports what all commands need.
    campaign = Campaign(options.folder.resolve(), options.seed)
    weights = sum(case.weight for case in CASES)
    for case in CASES:
        if case.name in options.only:
            for part in (
                lambda case=case: campaign.kill(case, -(-options.kills * case.weight // weights)),
                lambda case=case: campaign.both(case),
                lambda case=case: campaign.fill_disk(case, -(-options.disks * case.weight // weights)),
            ):
                try:
                    part()
                except AssertionError as error:
                    print(f"FAILED {case.name}: {error}", flush=True)
                    campaign.counts[case.name]["FAILED"] += 1
                print(case.name, dict(campaign.counts[case.name]), flush=True)
    print(campaign.table())


if __name__ == "__main__":
    from tests.pipelines import kills  # As a module, whose functions a forked process finds.

    kills.main()
