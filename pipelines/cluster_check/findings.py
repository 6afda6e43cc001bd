"""What a check says, one line each, and how the checks of a place are run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

FINE, WRONG, UNSEEN = "fine", "wrong", "not visible"
Object = dict[str, Any]
Lines = Iterator[tuple[str, str]]
"""A state and a text each."""


class Finding(NamedTuple):
    """A line of the report: `state` is `FINE`, `WRONG` or `UNSEEN`; `text` has what is there and, if wrong, the fix."""

    subject: str
    state: str
    text: str


class HiddenError(Exception):
    """The user may not read this."""


def collect(checks: Mapping[str, Callable[[Any, Any], Lines]], place: Any, needs: Any) -> list[Finding]:
    """Returns the findings of all checks, in order; raises `ClusterError` if the service fails.

    `checks` take the API of a place and what a package needs of it.
    """
    findings = []
    for subject, check in checks.items():
        try:
            for state, text in check(place, needs):  # One by one: what comes before something hidden is kept.
                findings.append(Finding(subject, state, text))
        except HiddenError as error:
            findings.append(Finding(subject, UNSEEN, f"you may not read this ({error}); ask who runs it"))
    return findings
