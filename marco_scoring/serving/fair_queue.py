"""A queue in which senders take turns: one that sends thousands of images does not hold up one that sends a few."""

import asyncio
import collections
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

RESERVED_SECONDS = 5.0
"""How long after a sender has asked a slot is kept free of the others, so that its next item runs at once."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Busy(Exception):
    """Too many items wait already; the request was refused as a whole."""


@dataclasses.dataclass
class _Request:
    sender: str
    failed: bool = False


@dataclasses.dataclass
class _Entry(Generic[Item]):
    item: Item
    request: _Request
    answer: asyncio.Future[Any]


class FairQueue(Generic[Item, Result]):
    """Runs `work` on the items of requests, on some at a time; the others wait.

    The next item is of the sender of which the fewest are running, and senders of whom as many are take turns. A sender
    that is alone has all slots; one slot stays free of it once another sender has asked, for `RESERVED_SECONDS`. Items
    whose requests have gone are dropped. Use it within one event loop.
    """

    def __init__(self, work: Callable[[Item], Awaitable[Result]], *, slots: int, max_waiting: int) -> None:
        """Takes what runs an item, and the limits.

        Args:
            work: returns the result of an item; what it raises is raised to the item's request.
            slots: items that run at a time.
            max_waiting: a request that would make more items wait is refused, unless nothing waits, or unless its
                sender has less than an equal share of them.
        """
        self._work, self._free, self._max_waiting = work, slots, max_waiting
        self._most_of_one = max(1, slots - 1)
        self._asked: dict[str, float] = {}
        self._waiting: dict[str, collections.deque[_Entry[Item]]] = {}
        self._running: collections.Counter[str] = collections.Counter()
        self._last_turns: dict[str, int] = {}
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return sum(map(len, self._waiting.values()))

    async def submit(self, items: Sequence[Item], sender: str = "") -> list[Result]:
        """Returns the results of one request's items, in order, once all are ready.

        Raises `Busy` if too many items wait already, and what `work` raised first; the request's other items are then
        dropped.
        """
        own, share = len(self._waiting.get(sender, ())), self._max_waiting // len({*self._waiting, sender})
        if self.waiting and self.waiting + len(items) > self._max_waiting and own + len(items) > share:
            raise Busy(f"{self.waiting} images are waiting already; try again later")
        loop, request = asyncio.get_running_loop(), _Request(sender)
        self._asked = {name: at for name, at in self._asked.items() if at > loop.time() - RESERVED_SECONDS}
        self._asked[sender] = loop.time()
        entries = [_Entry(item, request, loop.create_future()) for item in items]
        if entries:
            self._waiting.setdefault(sender, collections.deque()).extend(entries)
            self._fill_slots()
        try:
            return list(await asyncio.gather(*(entry.answer for entry in entries)))
        finally:
            for entry in entries:
                entry.answer.cancel()

    def _fill_slots(self) -> None:
        while self._free and (entry := self._next()):
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(entry))
            self._tasks.add(task)  # The loop itself keeps no task alive.
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _Entry[Item] | None:
        while senders := [name for name in self._waiting if self._may_run(name)]:
            sender = min(senders, key=lambda name: (self._running[name], self._last_turns.get(name, 0)))
            entry = self._waiting[sender].popleft()
            if not self._waiting[sender]:
                del self._waiting[sender]
            if not (entry.request.failed or entry.answer.done()):
                self._turn += 1
                self._last_turns[sender] = self._turn
                self._running[sender] += 1
                return entry
            self._forget(sender)
        return None

    def _may_run(self, sender: str) -> bool:
        """Whether another item of a sender may run. If not, one of its items runs, and it is asked again after that."""
        since = asyncio.get_running_loop().time() - RESERVED_SECONDS
        others = any(at > since for name, at in self._asked.items() if name != sender)
        return self._running[sender] < self._most_of_one or not others

    async def _run(self, entry: _Entry[Item]) -> None:
        try:
            result = await self._work(entry.item)
        except Exception as error:
            entry.request.failed = True
            if not entry.answer.done():
                entry.answer.set_exception(error)
        else:
            if not entry.answer.done():
                entry.answer.set_result(result)
        finally:
            self._end(entry.request.sender)

    def _end(self, sender: str) -> None:
        self._free += 1
        self._running[sender] -= 1
        if not self._running[sender]:
            del self._running[sender]
        self._forget(sender)
        self._fill_slots()

    def _forget(self, sender: str) -> None:
        """Forgets the turn of a sender of whom nothing runs or waits."""
        if sender not in self._running and sender not in self._waiting:
            self._last_turns.pop(sender, None)
