"""Requests to Vertex AI: Google's own clients over REST, with retries, and its errors as this project's.

Requests that only read are repeated until they are answered. A request that changes something is sent once (`act`): if
the answer is lost, the change may or may not have happened, so `ensure` looks before each try and waits for operations
that are still running. Every change is therefore idempotent: the same command, or the next one, may ask for it again.
"""

import contextlib
import dataclasses
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from components.vertex.options import Vertex
from marco_model import errors

_Answer = TypeVar("_Answer")
_ADDRESSED = re.compile(r"^[A-Z]+ https?://\S+: ")
"""What Google's library puts in front of the service's own message."""
TRANSIENT = (408, 429, 500, 502, 503, 504)
CHANGED = (409, 412)
"""Another client, or an earlier try of ours, made the change first: look again."""
_FIXES = {
    401: "log in by gcloud auth application-default login, or run as a service account",
    403: "enable the Vertex AI API there and give your account the roles of docs/vertex.md",
    404: "check project, region and name",
}
ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
"""States of a job that has ended."""


def state_of(job: Any) -> str:
    """Returns a job's state, such as `RUNNING`."""
    return str(job.state.name.removeprefix("JOB_STATE_"))


class Unsure(errors.ClusterError):
    """A request for a change got no answer, or a retryable one; the change may have happened."""


class Refused(errors.InputError):
    """The service refuses the request; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Failed(errors.ClusterError):
    """A long-running operation ended with an error."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long to wait for the service; all fields but `tries` in seconds."""

    # That one request may take.
    request: float = 60.0
    # How often it is asked, with waits that double from the first to the longest: about three minutes.
    tries: int = 8
    first: float = 1.0
    longest: float = 60.0
    # Between two looks at an operation, between two lines about it, and for how long it may run.
    look: float = 10.0
    report: float = 60.0
    operation: float = 3 * 3600.0

    def wait(self, attempt: int) -> None:
        """Sleeps after try number `attempt`, counted from 0."""
        time.sleep(min(self.longest, self.first * 2**attempt))


PACE = Pace()


def show(line: str) -> None:
    """Prints a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def messages() -> Any:
    """Returns Google's library of messages and clients, whose import takes a second."""
    from google.cloud import aiplatform_v1

    return aiplatform_v1


class Api:
    """Vertex AI in one project and region. Clients are created on first use."""

    def __init__(self, place: Vertex, pace: Pace = PACE, show: Callable[[str], None] = show) -> None:
        self.place, self.pace, self.show = place, pace, show
        self._clients: dict[str, Any] = {}

    def read(self, service: str, method: str, request: Any) -> Any:
        """Returns the answer to a question to `Model`, `Endpoint`, `Prediction`, `Pipeline`, `Schedule` or `Job`.

        Raises `Refused` where the service refuses, `ClusterError` where it does not answer for all of the tries.
        """
        return self._patiently(lambda: self.act(service, method, request))

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        for attempt in range(self.pace.tries):
            if attempt:
                self.pace.wait(attempt - 1)
            try:
                return ask()
            except Unsure as error:
                last = error
        raise errors.ClusterError(f"{last}; run again when the service has recovered") from last

    def list_all(self, service: str, method: str, request: dict[str, Any], field: str) -> list[Any]:
        """Returns all items of a list request, fetching page after page."""
        items: list[Any] = []
        token: str | None = None
        while token != "":
            page = self.read(service, method, {**request, "page_token": token, "page_size": 100})
            # Google's pagers would fetch the next page by themselves, without our patience.
            page = getattr(page, "_response", page)
            items.extend(getattr(page, field))
            token = page.next_page_token
        return items

    def act(self, service: str, method: str, request: Any) -> Any:
        """Asks once and returns the answer; raises `Unsure` where it may or may not have been done, else `Refused`."""
        with self._asking(method.replace("_", " ")):
            return getattr(self._client(service), method)(request=request, timeout=self.pace.request, retry=None)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Raises `Unsure` or `Refused` for the errors of Google's libraries."""
        import google.auth.exceptions
        import requests
        from google.api_core import exceptions

        asked = f"Vertex AI in {self.place.project}, {self.place.location}, to {what}"
        try:
            yield
        except exceptions.GoogleAPICallError as error:
            text = _one_line(_ADDRESSED.sub("", error.message))
            if error.code in (*TRANSIENT, *CHANGED):
                raise Unsure(f"{asked}: {error.code} {text}") from error
            fix = _FIXES.get(error.code or 0, "fix what the message names")
            raise Refused(f"{asked}: {error.code} {text}; {fix}", error.code or 0) from error
        except (requests.RequestException, google.auth.exceptions.TransportError, ConnectionError) as error:
            raise Unsure(f"{asked}: no answer ({_one_line(error)})") from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise Refused(f"{asked}: {_one_line(error)}; {_FIXES[401]}", 401) from error

    def ensure(
        self,
        look: Callable[[], _Answer | None],
        act: Callable[[], Any],
        settle: Callable[[], str] | None = None,
    ) -> _Answer:
        """Returns what `look` finds; calls `act` to create it if it is missing.

        If `act` returns an operation, waits for it. `settle` names the resource whose running operations have to end
        before `act` is called: they may belong to an earlier try.

        Raises what `act` raises, and `ClusterError` if `look` still finds nothing after all tries.
        """
        last = errors.ClusterError("Vertex AI reports success, but the change is not visible; run again")
        for attempt in range(self.pace.tries):
            if (result := look()) is not None:
                return result
            if settle:
                # Look again: an operation may have ended between the look and the list of running operations.
                self.settle(settle())
                if (result := look()) is not None:
                    return result
            try:
                asked = act()
                # Google's future wraps the message of a long-running operation.
                if operation := getattr(asked, "operation", None):
                    self.wait(operation.name)
            except Unsure as error:
                last = error
                self.pace.wait(attempt)
        if (result := look()) is not None:
            return result
        raise errors.ClusterError(f"{last}; run again when the service has recovered") from last

    def settle(self, resource: str) -> None:
        """Waits until no operation on a resource is running. Their errors are shown, not raised."""
        try:
            operations = self._operations(resource)
        except Refused as error:
            if error.status == 404:
                return
            raise
        running = [operation["name"] for operation in operations if not operation.get("done")]
        for name in running:
            self.show(f"An operation of an earlier try still runs: {name.rsplit('/', 1)[1]}")
            try:
                self.wait(name)
            except Failed as error:
                self.show(str(error))

    def _operations(self, resource: str) -> list[dict[str, Any]]:
        """Returns the operations on a resource, those that have ended too, fetching page after page."""
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            page = self._patiently(functools.partial(self._get, f"{resource}/operations", query))
            found.extend(page.get("operations", []))
            if not page.get("nextPageToken"):
                return found
            query = {"pageToken": page["nextPageToken"]}

    def wait(self, operation: str) -> None:
        """Waits for a long-running operation, by its name.

        Raises `Failed` if it ends with an error, `ClusterError` if it does not end in time or gets no answer.
        """
        begun = reported = time.monotonic()
        while not (seen := self._patiently(lambda: self._get(operation))).get("done"):
            now = time.monotonic()
            if now - begun > self.pace.operation:
                raise errors.ClusterError(
                    f"{operation} has not ended after {now - begun:.0f} s; it goes on, run again to wait for it"
                )
            if now - reported >= self.pace.report:
                reported = now
                self.show(f"Still waiting, {now - begun:.0f} s")
            time.sleep(self.pace.look)
        if error := seen.get("error"):
            raise Failed(f"Vertex AI could not do it ({_one_line(error.get('message') or error)}): {operation}")

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Returns the JSON at a path. Google's clients look for operations below `/ui/`, which is undocumented."""
        with self._asking("look at an operation"):
            answer = self._session.get(f"{self.address}/v1/{path}", params=query, timeout=self.pace.request)
            if not answer.ok:
                from google.api_core import exceptions

                raise exceptions.from_http_response(answer)
            return dict(answer.json())

    @property
    def address(self) -> str:
        """The service's URL, without a path."""
        return (self.place.api or f"https://{self.place.location}-aiplatform.googleapis.com").rstrip("/")

    @functools.cached_property
    def _session(self) -> Any:
        import google.auth.transport.requests

        return google.auth.transport.requests.AuthorizedSession(self._credentials)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            kind = getattr(messages(), f"{service}ServiceClient")
            scheme, _, host = self.address.partition("://")
            transport = kind.get_transport_class("rest")
            self._clients[service] = kind(
                transport=transport(host=host, url_scheme=scheme, credentials=self._credentials)
            )
        return self._clients[service]

    @functools.cached_property
    def _credentials(self) -> Any:
        import google.auth.credentials

        if self.address.startswith("http://"):
            return google.auth.credentials.AnonymousCredentials()
        return google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])[0]


def _one_line(what: object) -> str:
    return errors.one_line(str(what), 300).rstrip(". ") or type(what).__name__
