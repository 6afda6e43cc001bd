"""The first process of a step's container on a cluster: runs the step as a child, and again where that is worth it.

    python -m components.steps.attempts MODULE ARGUMENTS…

Kubeflow Pipelines 2.17 and later start a new pod only for a pod that is lost, not for one that fails, and versions
before it do the opposite (docs/kubeflow.md). So a step that fails is repeated in its own pod, `RETRIES` times, and
training goes on from its last checkpoint. A pod that Argo starts again has as many attempts less, since versions that
repeat failures would otherwise multiply the two.

Nothing heavy is imported here: this process waits beside the one that works.
"""

import os
import re
import signal
import subprocess
import sys
import time
from types import FrameType

RETRIES, NODE = "MARCO_RETRIES", "MARCO_ARGO_NODE"
"""Environment variables: how often a step may be repeated, and the name of the pod's node in Argo's workflow, which
ends with the number of earlier pods, such as `marco-x7k2p.root.Trainer.executor(1)`."""

WAIT_SECONDS = 30.0
INPUT_ERROR = 2
UMASK = 0o002


def retries_left() -> int:
    """Returns how often this container may repeat its step."""
    earlier = re.search(r"\((\d+)\)$", os.environ.get(NODE, ""))
    return max(0, int(os.environ.get(RETRIES, "0")) - int(earlier[1] if earlier else 0))


def run(command: list[str], retries: int) -> int:
    """Runs `command`, and again up to `retries` times, with a pause that doubles; returns the last exit status.

    It is not repeated after success, after an `InputError` (exit status 2), which the same input would bring again, or
    once this process has received SIGTERM or SIGINT, which it passes on. A process that a signal ended counts as a
    shell counts it, 128 + the signal's number.
    """
    received: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if child:
            child.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for attempt in range(1, retries + 2):
            child = subprocess.Popen(command)
            if received:  # Between the pause and the start.
                child.send_signal(received[0])
            status = child.wait()
            status = 128 - status if status < 0 else status
            if not status or received:
                return status
            seconds = WAIT_SECONDS * 2 ** (attempt - 1)
            final = status == INPUT_ERROR or attempt > retries
            following = "the step fails" if final else f"again in {seconds:.0f} s"
            ended = f"attempt {attempt} of {retries + 1} ended with exit status {status}"
            print(f"marco: {ended}; {following}", file=sys.stderr, flush=True)
            if final:
                return status
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if received:
                    return 128 + received[0]
                time.sleep(min(0.5, seconds))
        raise AssertionError("the last attempt returns")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """Runs a module, whose files only this user and its group may change, and returns its exit status."""
    # Argo starts a step with umask 0, so that anybody could change models and checkpoints on a shared volume.
    os.umask(UMASK)
    return run([sys.executable, "-m", *arguments], retries_left())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
