"""The batcher in virtual time: a loop whose clock stops while something runs and jumps while everything waits."""

import asyncio
import dataclasses
import selectors

import hypothesis
import hypothesis.strategies as st
import pytest

from marco_scoring.serving.batcher import Batcher, Busy

WORK_SECONDS, WAIT_SECONDS = 1.0, 0.05


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.now = 0.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                assert timeout is not None, "all wait for ever"
                loop.now += max(timeout, 0)
                return super().select(0)

        super().__init__(Selector())

    def time(self):
        return self.now


def virtually(coroutine):
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


@dataclasses.dataclass
class Bench:
    """A batcher whose work takes a second and triples numbers, and what it did: (begin, items)."""

    batches: list
    batcher: Batcher
    at_once: int = 0

    @classmethod
    def make(cls, max_items=8, max_weight=1000, wait_seconds=WAIT_SECONDS, max_waiting=100):
        bench = cls([], None)
        bench.batcher = Batcher(
            bench.work, max_items=max_items, max_weight=max_weight, wait_seconds=wait_seconds, max_waiting=max_waiting
        )
        return bench

    async def work(self, items):
        self.batches.append((asyncio.get_running_loop().time(), items))
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(WORK_SECONDS)
        self.at_once -= 1
        if "bad" in items:
            raise RuntimeError("bad batch")
        return [item * 3 for item in items]

    async def ask(self, *items, at=0.0, weights=None, sender=""):
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        return await self.batcher.submit(items, weights or [1] * len(items), sender)

    @property
    def sizes(self):
        return [len(items) for _, items in self.batches]


def test_one_client_alone_never_waits():
    async def scenario():
        bench, loop = Bench.make(), asyncio.get_running_loop()
        for number in range(5):
            begun = loop.time()
            assert await bench.ask(number) == [number * 3]
            assert loop.time() - begun == WORK_SECONDS
        assert await bench.ask(*range(20)) == [3 * number for number in range(20)]
        assert loop.time() == (5 + 3) * WORK_SECONDS
        return bench.sizes

    assert virtually(scenario()) == [1] * 5 + [8, 8, 4]


def test_requests_that_arrive_during_work_form_the_next_batch():
    async def scenario():
        bench = Bench.make(wait_seconds=0)
        answers = await asyncio.gather(bench.ask(0), *(bench.ask(n, 10 * n, at=0.1 * n) for n in range(1, 4)))
        assert answers == [[0], [3, 30], [6, 60], [9, 90]]
        return bench.batches

    assert virtually(scenario()) == [(0.0, [0]), (WORK_SECONDS, [1, 10, 2, 20, 3, 30])]


def test_a_full_batch_does_not_wait():
    async def scenario():
        bench = Bench.make(max_items=2)
        await asyncio.gather(*(bench.ask(n, at=0.01 * n) for n in range(5)))
        return bench.batches

    begins = [(begin, len(items)) for begin, items in virtually(scenario())]
    assert begins == [(0, 1), (1, 2), (2, 2)]


def test_clients_that_ask_again_at_once_soon_share_every_batch():
    async def client(bench, number):
        for _ in range(6):
            await bench.batcher.submit([number], [1])
            await asyncio.sleep(0.01 + 0.005 * number)

    async def scenario(wait_seconds):
        bench = Bench.make(wait_seconds=wait_seconds)
        await asyncio.gather(*(client(bench, number) for number in range(4)))
        return bench.sizes, asyncio.get_running_loop().time()

    sizes, seconds = virtually(scenario(WAIT_SECONDS))
    assert sizes[1:-1] == [4] * (len(sizes) - 2)
    without, without_seconds = virtually(scenario(0))
    assert without.count(4) < len(without) / 2
    assert seconds < without_seconds


def test_it_waits_neither_longer_than_allowed_nor_longer_than_useful():
    async def scenario():
        bench = Bench.make()
        await asyncio.gather(bench.ask(0), bench.ask(1, at=0.5), bench.ask(2, at=1.02), bench.ask(3, at=1.2))
        await bench.ask(4, at=10)
        return bench.batches

    batches = virtually(scenario())
    assert batches[1] == (pytest.approx(1.05), [1, 2])
    assert batches[2][1] == [3]
    assert batches[3] == (10, [4])


def test_a_batch_weighs_at_most_what_is_allowed_and_a_heavier_request_runs_alone():
    async def scenario():
        bench = Bench.make(max_weight=10)
        await bench.ask(*range(6), weights=[4, 6, 5, 30, 1, 1])
        return [items for _, items in bench.batches]

    assert virtually(scenario()) == [[0, 1], [2], [3], [4, 5]]


def test_too_many_waiting_are_refused_and_those_before_are_answered():
    async def scenario():
        bench = Bench.make(max_items=1, max_waiting=3)
        before = [asyncio.ensure_future(bench.ask(n, n, at=0.1 * n)) for n in range(2)]
        await asyncio.sleep(0.5)
        with pytest.raises(Busy, match="3 images are waiting"):
            await bench.ask(9)
        return await asyncio.gather(*before)

    assert virtually(scenario()) == [[0, 0], [3, 3]]


def test_senders_take_turns_and_one_alone_cannot_fill_the_queue():
    """On 363bfd5 the guest waited until all of the flood was scored, and was refused while the queue was full."""

    async def scenario():
        bench = Bench.make(max_items=2, max_waiting=6)
        flood = [asyncio.ensure_future(bench.ask(n, at=0.01 * n, sender="flood")) for n in range(7)]
        await asyncio.sleep(0.5)
        with pytest.raises(Busy):
            await bench.ask(9, sender="flood")
        guest = await bench.ask(10, 11, sender="guest")
        seconds = asyncio.get_running_loop().time()
        await asyncio.gather(*flood)
        return guest, seconds, [items for _, items in bench.batches]

    guest, seconds, batches = virtually(scenario())
    assert (guest, seconds) == ([30, 33], pytest.approx(3 * WORK_SECONDS))
    assert batches == [[0], [1, 10], [2, 11], [3, 4], [5, 6]]


def test_a_large_request_is_accepted_if_nobody_waits():
    async def scenario():
        return await Bench.make(max_waiting=3).ask(*range(9))

    assert len(virtually(scenario())) == 9


def test_an_error_reaches_the_whole_batch_and_work_continues():
    async def scenario():
        bench = Bench.make()
        return await asyncio.gather(
            bench.ask(0),
            bench.ask("bad", at=0.1),
            bench.ask(2, 3, at=0.2),
            bench.ask(4, at=1.5),
            return_exceptions=True,
        )

    first, *failed, last = virtually(scenario())
    assert (first, last) == ([0], [12])
    assert [str(error) for error in failed] == ["bad batch"] * 2


def test_too_few_results_are_an_error_not_a_wait_for_ever():
    async def scenario():
        async def work(items):
            return []

        batcher = Batcher(work, max_items=8, max_weight=9, wait_seconds=0, max_waiting=9)
        with pytest.raises(ValueError, match="shorter"):
            await batcher.submit([1], [1])

    virtually(scenario())


def test_a_client_that_has_stopped_waiting_is_left_out():
    async def scenario():
        bench = Bench.make()
        asks = [asyncio.ensure_future(bench.ask(n, at=0.1 * n)) for n in range(3)]
        await asyncio.sleep(0.5)
        asks[1].cancel()
        asks[0].cancel()
        assert await asks[2] == [6]
        return [items for _, items in bench.batches]

    assert virtually(scenario()) == [[0], [2]]


REQUESTS = st.lists(
    st.tuples(st.floats(0, 10), st.lists(st.integers(1, 12), min_size=1, max_size=12)), min_size=1, max_size=25
)


@hypothesis.given(REQUESTS)
@hypothesis.settings(deadline=None)
def test_everyone_gets_the_own_answers_within_bounds(requests):
    async def scenario():
        bench = Bench.make(max_items=4, max_weight=10, max_waiting=10_000)
        items = [[(index, part) for part in range(len(weights))] for index, (_, weights) in enumerate(requests)]
        bench_asks = [
            bench.ask(*mine, at=at, weights=weights) for mine, (at, weights) in zip(items, requests, strict=True)
        ]
        answers = await asyncio.gather(*bench_asks)
        assert answers == [[item * 3 for item in request] for request in items]
        return bench.batches

    batches = virtually(scenario())
    ended = 0.0
    for begin, batch in batches:
        weight = sum(requests[index][1][part] for index, part in batch)
        assert len(batch) <= 4
        assert weight <= 10 or len(batch) == 1
        first = min(requests[index][0] for index, _ in batch)
        assert begin <= max(first, ended + WAIT_SECONDS) + 1e-6
        ended = begin + WORK_SECONDS
