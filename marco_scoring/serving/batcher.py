"""Gathers the items of concurrent requests into batches, of which one runs at a time.

KServe's own batching is a sidecar that holds back every request, even a lone one, until a batch is full or times out.
"""

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Busy(Exception):
    """Too many items wait already; the request was refused as a whole."""


@dataclasses.dataclass
class _Waiting(Generic[Item]):
    item: Item
    weight: int
    request: object
    answer: asyncio.Future[Any]


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of items, never two at once.

    A request that finds no batch running starts at once. While a batch runs, items gather. The next batch starts as
    soon as it is full. Until then it waits for more, but only if several requests were running or waiting when the last
    batch ended, and at most until `wait_seconds` after that end. So a single client that sends one request after the
    other never waits. Senders take turns, item by item, so that one that sends many does not hold up the others.

    Use it within one event loop.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int,
        max_weight: int,
        wait_seconds: float,
        max_waiting: int,
    ) -> None:
        """Takes the limits of a batch and of the queue.

        Args:
            work: returns one result per item, in order; what it raises is raised to all requests of the batch.
            max_items: items in a batch.
            max_weight: sum of a batch's weights, unless it is a single item.
            wait_seconds: how long a batch waits to become full.
            max_waiting: a request that would make more items wait is refused, unless nothing waits, or unless its
                sender has less than an equal share of them.
        """
        self._work = work
        self._max_items, self._max_weight = max_items, max_weight
        self._wait_seconds, self._max_waiting = wait_seconds, max_waiting
        self._waiting: collections.OrderedDict[str, collections.deque[_Waiting[Item]]] = collections.OrderedDict()
        self._arrived = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._wait_until = 0.0

    async def submit(self, items: Sequence[Item], weights: Sequence[int], sender: str = "") -> list[Result]:
        """Returns the results of one request's items, in order, once all are ready.

        Raises `Busy` if too many items wait already, and what `work` raised.
        """
        waiting, own = sum(1 for _ in self._entries()), len(self._waiting.get(sender, ()))
        share = self._max_waiting // len({*self._waiting, sender})
        if waiting and waiting + len(items) > self._max_waiting and own + len(items) > share:
            raise Busy(f"{waiting} images are waiting already; try again later")
        loop, request = asyncio.get_running_loop(), object()
        entered = [
            _Waiting(item, weight, request, loop.create_future()) for item, weight in zip(items, weights, strict=True)
        ]
        if entered:
            self._waiting.setdefault(sender, collections.deque()).extend(entered)
        self._arrived.set()
        if self._runner is None or self._runner.done():
            self._runner = loop.create_task(self._run())
        return list(await asyncio.gather(*(entry.answer for entry in entered)))

    async def _run(self) -> None:
        while self._waiting:
            await self._fill()
            batch = self._take()
            if not batch:
                continue
            try:
                results = await self._work([entry.item for entry in batch])
                answers = list(zip(batch, results, strict=True))
            except Exception as error:
                for entry in batch:
                    if not entry.answer.done():
                        entry.answer.set_exception(error)
            else:
                for entry, result in answers:
                    if not entry.answer.done():
                        entry.answer.set_result(result)
            concurrent = len({id(entry.request) for entry in (*batch, *self._entries())}) > 1
            self._wait_until = asyncio.get_running_loop().time() + self._wait_seconds if concurrent else 0.0

    def _entries(self) -> Iterator[_Waiting[Item]]:
        return itertools.chain.from_iterable(self._waiting.values())

    async def _fill(self) -> None:
        """Waits until a batch is full or the time is over."""
        loop = asyncio.get_running_loop()
        while (
            sum(1 for _ in self._entries()) < self._max_items
            and sum(entry.weight for entry in self._entries()) < self._max_weight
            and (left := self._wait_until - loop.time()) > 0
        ):
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                return

    def _take(self) -> list[_Waiting[Item]]:
        """Takes the next batch, an item of each sender in turn, and drops the items whose requests have gone."""
        batch: list[_Waiting[Item]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_items:
            sender, queue = next(iter(self._waiting.items()))
            entry = queue[0]
            if not entry.answer.done():
                if batch and weight + entry.weight > self._max_weight:
                    break
                weight += entry.weight
                batch.append(entry)
            queue.popleft()
            del self._waiting[sender]
            if queue:
                self._waiting[sender] = queue  # Behind the others.
        return batch
