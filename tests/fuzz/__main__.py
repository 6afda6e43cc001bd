"""Fuzzes all targets, several at a time: `make fuzz MINUTES=60`, or `python -m tests.fuzz --minutes 60`.

The minutes are shared among the targets. What was learned (`corpus`) and what was found (`findings`) stays in the
folder .fuzz, which git ignores, and the next run begins with it. `--inputs` bounds a run by their number in place of
the time, so that it does the same on every machine. `--replay FILE…` runs inputs again, each through the target that
its folder is named after. Ends with status 1 if anything was found.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marco_model import pixels
from tests.fuzz import contract, seeds, targets

PATIENCE = 120
"""Seconds after which libFuzzer ends a process in the middle of an input: it hangs, or the machine is far too busy."""
MOST_MEMORY = 3000
"""MiB of a process, at which libFuzzer ends it in the middle of an input."""

_STATUS = re.compile(r"#(\d+)\t\w+ +cov: (\d+) ft: \d+ corp: (\d+)")
_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclasses.dataclass
class Progress:
    """Of a target: inputs run, edges covered, inputs kept, seconds of its process, and how it stands."""

    name: str
    state: str = "waits"
    inputs: int = 0
    edges: int = 0
    kept: int = 0
    seconds: float = 0.0
    lines: str = ""

    def row(self, folder: Path) -> str:
        """Returns a line of the table."""
        rate, count = self.inputs / self.seconds if self.seconds else 0, len(findings(folder, self.name))
        numbers = f"{self.inputs:12,}{rate:9,.0f}{self.edges:8,}{self.kept:7,}{count:9}"
        return f"{self.name:13}{self.state:9}{numbers}  {self.lines}"


HEAD = f"{'target':13}{'state':9}{'inputs':>12}{'per s':>9}{'edges':>8}{'kept':>7}{'findings':>9}"


def findings(folder: Path, name: str) -> list[Path]:
    """Returns the inputs that break the contract of a target."""
    return sorted(path for path in (folder / "findings" / name).glob("*") if path.suffix != ".txt")


def fuzz(progress: Progress, folder: Path, seconds: float, seed: int, inputs: int = -1) -> None:
    """Fuzzes one target; a process that an input ends is started again, which begins with what the last one learned."""
    deadline = time.monotonic() + seconds
    command = _command(progress.name, folder)
    progress.state, before = "runs", -1
    while (remaining := deadline - time.monotonic()) > 1 or before < 0:
        before, seed = max(0, progress.inputs), seed + 1000
        limits = [f"-max_total_time={max(1, int(remaining))}", f"-seed={seed}", f"-runs={inputs}"]
        status = _run([*command, *limits], progress, folder)
        if status and progress.inputs == before:
            progress.state = "failed"
            return
        if inputs >= 0 and not status:
            break
    progress.state = "done"


def _command(name: str, folder: Path) -> list[str]:
    """Returns the command that fuzzes a target, without its time and seed; writes seeds and dictionary."""
    target = targets.TARGETS[name]
    corpus, made, found = folder / "corpus" / name, folder / "seeds" / name, folder / "findings" / name
    for place in (corpus, made, found):
        place.mkdir(parents=True, exist_ok=True)
    for seed_name, content in seeds.of_target(name).items():
        (made / seed_name).write_bytes(content)
    words = folder / f"{name}.dict"
    hexadecimal = ("".join(f"\\x{byte:02x}" for byte in token.encode()) for token in target.tokens)
    words.write_text("".join(f'"{token}"\n' for token in hexadecimal))
    command = [sys.executable, "-m", "tests.fuzz.process", name, str(folder), str(corpus), str(made)]
    command += ["-print_final_stats=1", "-close_fd_mask=3", "-reload=0", f"-artifact_prefix={found}/"]
    command += [f"-max_len={target.most_bytes}", f"-timeout={PATIENCE}", f"-report_slow_units={PATIENCE}"]
    return [*command, f"-rss_limit_mb={MOST_MEMORY}", *([f"-dict={words}"] if target.tokens else [])]


def _run(command: Sequence[str], progress: Progress, folder: Path) -> int:
    """Runs a process of libFuzzer to its end, notes what it says, and returns its status."""
    before, earlier, started = progress.inputs, progress.seconds, time.monotonic()
    with (folder / f"{progress.name}.log").open("a") as log, tempfile.TemporaryDirectory(dir=_memory()) as scratch:
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
            env={**os.environ, "TMPDIR": scratch, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        for line in process.stderr or ():
            log.write(line)
            if match := _STATUS.match(line):
                inputs, progress.edges, progress.kept = map(int, match.groups())
                progress.inputs = before + inputs
            elif match := _UNITS.match(line):
                progress.inputs = before + int(match[1])
            progress.seconds = earlier + time.monotonic() - started
        return process.wait()


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def cover(progress: Progress, folder: Path) -> None:
    """Runs all that a target kept through it again and notes the lines of its modules that were reached."""
    modules = [module.replace(".", "/") + ".py" for module in targets.TARGETS[progress.name].modules]
    data = folder / f"{progress.name}.coverage"
    measure = [sys.executable, "-m", "coverage"]
    with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
        subprocess.run(
            [*measure, "run", f"--data-file={data}", f"--include={','.join(modules)}", "--rcfile=", "-m", "tests.fuzz",
             "--folder", str(folder), "--run-kept", progress.name],
            capture_output=True, env={**os.environ, "TMPDIR": scratch},
        )  # fmt: skip
    report = subprocess.run(
        [*measure, "json", f"--data-file={data}", "--rcfile=", "-q", "-o", "-"], capture_output=True, text=True
    )
    if report.returncode == 0:
        files = json.loads(report.stdout)["files"]
        progress.lines = ", ".join(
            f"{Path(file).stem} {measured['summary']['percent_covered']:.0f} %" for file, measured in files.items()
        )


def replay(files: Sequence[Path]) -> int:
    """Runs inputs again; prints what is wrong with each, and returns how many break the contract."""
    broken = 0
    for path in files:
        kind, text = contract.violation(targets.TARGETS[path.resolve().parent.name], path.read_bytes())
        broken += bool(kind)
        print(f"{path}: {kind or 'keeps the contract'}\n{text}".rstrip())
    return broken


def campaign(options: argparse.Namespace) -> bool:
    """Fuzzes targets, prints how they stand each half minute and a table at the end; returns whether all is well."""
    names, folder = options.targets, options.folder
    running = [Progress(name) for name in names]
    seconds = 60 * options.minutes * options.workers / len(names)
    with ThreadPoolExecutor(options.workers) as pool:
        futures = [pool.submit(fuzz, progress, folder, seconds, options.seed, options.inputs) for progress in running]
        shown = time.monotonic()
        while not all(future.done() for future in futures):
            time.sleep(0.5)
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                for progress in running:
                    if progress.state == "runs":
                        print(progress.row(folder), flush=True)
        list(pool.map(lambda progress: cover(progress, folder), running))
    for future in futures:
        future.result()
    print(f"\n{HEAD}  lines of each module that the inputs kept reach")
    for progress in running:
        print(progress.row(folder))
    broken = [path for name in names for path in findings(folder, name)]
    for path in broken:
        print(f"\n{path}, to run it again: .venv/bin/python -m tests.fuzz --replay {path}")
        if (text := path.with_suffix(".txt")).exists():
            print("    " + text.read_text().strip().replace("\n", "\n    "))
    print(f"\n{sum(progress.inputs for progress in running):,} inputs, {len(broken)} findings")
    return not broken and all(progress.state == "done" for progress in running)


def main() -> None:
    """Fuzzes, or runs inputs again."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=-1)
    parser.add_argument("--workers", type=int, default=pixels.cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"))
    parser.add_argument("--targets", nargs="*", choices=targets.TARGETS, default=list(targets.TARGETS))
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--run-kept", choices=targets.TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_kept:
        for path in (options.folder / "corpus" / options.run_kept).iterdir():
            contract.violation(targets.TARGETS[options.run_kept], path.read_bytes())
    elif options.replay:
        sys.exit(replay(options.replay) > 0)
    elif importlib.util.find_spec("atheris") is None:
        sys.exit("error: Atheris is not installed; its wheels are for Linux on x86-64 alone")
    else:
        sys.exit(not campaign(options))


if __name__ == "__main__":
    main()
