"""The queue in virtual time: a loop whose clock stops while something runs and jumps while everything waits."""

import asyncio
import dataclasses
import selectors

import hypothesis
import hypothesis.strategies as st
import pytest

from marco_scoring.serving.fair_queue import Busy, FairQueue

WORK_SECONDS = 1.0


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
    """A queue whose work takes a second and triples numbers, and what it did: (begin, item)."""

    runs: list
    slots: int
    queue: FairQueue
    at_once: int = 0

    @classmethod
    def make(cls, slots=1, max_waiting=100):
        bench = cls([], slots, None)
        bench.queue = FairQueue(bench.work, slots=slots, max_waiting=max_waiting)
        return bench

    async def work(self, item):
        self.runs.append((asyncio.get_running_loop().time(), item))
        self.at_once += 1
        assert self.at_once <= self.slots
        await asyncio.sleep(WORK_SECONDS)
        self.at_once -= 1
        if item == "bad":
            raise RuntimeError("bad item")
        return item * 3

    async def ask(self, *items, at=0.0, sender=""):
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        return await self.queue.submit(items, sender)

    @property
    def order(self):
        return [item for _, item in self.runs]


def test_answers_are_in_the_order_of_the_request_and_all_slots_are_used():
    async def scenario():
        bench = Bench.make(slots=4)
        assert await bench.ask(*range(8)) == [3 * number for number in range(8)]
        assert await bench.ask() == []
        return asyncio.get_running_loop().time()

    assert virtually(scenario()) == 2 * WORK_SECONDS


def test_too_many_waiting_are_refused_and_those_before_are_answered():
    async def scenario():
        bench = Bench.make(max_waiting=3)
        before = [asyncio.ensure_future(bench.ask(n, n, at=0.1 * n)) for n in range(2)]
        await asyncio.sleep(0.5)
        with pytest.raises(Busy, match="3 images are waiting"):
            await bench.ask(9)
        return await asyncio.gather(*before)

    assert virtually(scenario()) == [[0, 0], [3, 3]]


def test_a_sender_who_runs_nothing_is_next_and_one_alone_cannot_fill_the_queue():
    """On 363bfd5 the guest waited until all of the flood was scored, and was refused while the queue was full."""

    async def scenario():
        bench = Bench.make(slots=2, max_waiting=6)
        flood = [asyncio.ensure_future(bench.ask(n, at=0.01 * n, sender="flood")) for n in range(8)]
        await asyncio.sleep(0.5)
        with pytest.raises(Busy):
            await bench.ask(9, sender="flood")
        guest = await bench.ask(10, 11, sender="guest")
        seconds = asyncio.get_running_loop().time()
        await asyncio.gather(*flood)
        return guest, seconds, bench.order

    guest, seconds, order = virtually(scenario())
    assert (guest, seconds) == ([30, 33], pytest.approx(3 * WORK_SECONDS))
    assert order == [0, 1, 10, 2, 11, 3, 4, 5, 6, 7]


def test_a_slot_stays_free_for_a_sender_that_asked_a_moment_ago():
    async def scenario():
        bench = Bench.make(slots=2)
        flood = asyncio.ensure_future(bench.ask(*range(20), at=0.5, sender="flood"))
        waits = []
        for at in (0, 2.3, 4.6):
            await bench.ask("guest", at=at, sender="guest")
            waits.append(asyncio.get_running_loop().time() - at)
        await flood
        return waits, asyncio.get_running_loop().time()

    waits, seconds = virtually(scenario())
    assert waits == pytest.approx([WORK_SECONDS] * 3)
    # Nine of the flood's one by one, until five seconds after the guest, and eleven two at a time.
    assert seconds == pytest.approx(0.5 + 10 * WORK_SECONDS + 5 * WORK_SECONDS)


def test_senders_of_whom_as_many_run_take_turns():
    async def scenario():
        bench = Bench.make()
        await asyncio.gather(*(bench.ask(name + "1", name + "2", name + "3", sender=name) for name in "abc"))
        return bench.order

    assert virtually(scenario()) == ["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"]


def test_a_large_request_is_accepted_if_nobody_waits():
    async def scenario():
        return await Bench.make(max_waiting=3).ask(*range(9))

    assert len(virtually(scenario())) == 9


def test_an_error_reaches_its_request_whose_other_items_are_dropped():
    async def scenario():
        bench = Bench.make()
        answers = await asyncio.gather(bench.ask("bad", 1, 2), bench.ask(3, at=0.1), return_exceptions=True)
        return answers, bench.order

    (failed, answered), order = virtually(scenario())
    assert (str(failed), answered) == ("bad item", [9])
    assert order == ["bad", 3]


def test_a_client_that_has_stopped_waiting_is_left_out():
    async def scenario():
        bench = Bench.make()
        asks = [asyncio.ensure_future(bench.ask(n, at=0.1 * n)) for n in range(3)]
        await asyncio.sleep(0.5)
        asks[1].cancel()
        asks[0].cancel()
        assert await asks[2] == [6]
        assert not bench.queue.waiting
        return bench.order

    assert virtually(scenario()) == [0, 2]


def test_nothing_is_kept_of_senders_that_have_gone():
    async def scenario():
        bench = Bench.make()
        asks = [asyncio.ensure_future(bench.ask(n, n, sender=f"10.0.0.{n}")) for n in range(9)]
        await asyncio.sleep(0.5)
        for ask in asks:
            ask.cancel()
        await asyncio.sleep(5)
        assert not bench.queue.waiting
        return bench.queue._last_turns

    assert virtually(scenario()) == {}


REQUESTS = st.lists(st.tuples(st.floats(0, 10), st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=25)
OF_ONE_SENDER = st.lists(st.tuples(st.floats(0, 10), st.just("a"), st.integers(0, 12)), min_size=1, max_size=25)


def answer_all(requests, slots):
    """Returns the runs of a queue that gets requests: (time, sender, count of items); checks the answers."""

    async def scenario():
        bench = Bench.make(slots, max_waiting=10_000)
        asks = [
            bench.ask(*((index, part) for part in range(count)), at=at, sender=sender)
            for index, (at, sender, count) in enumerate(requests)
        ]
        answers = await asyncio.gather(*asks)
        assert answers == [[(index, part) * 3 for part in range(count)] for index, (*_, count) in enumerate(requests)]
        return bench.runs

    return virtually(scenario())


@hypothesis.given(REQUESTS, st.integers(1, 4))
@hypothesis.settings(deadline=None)
def test_everyone_gets_the_own_answers(requests, slots):
    assert len(answer_all(requests, slots)) == sum(count for *_, count in requests)


@hypothesis.given(OF_ONE_SENDER, st.integers(1, 4))
@hypothesis.settings(deadline=None)
def test_no_slot_is_free_while_items_of_one_sender_wait(requests, slots):
    runs = answer_all(requests, slots)
    ends = [0.0] * slots
    arrivals = sorted(at for at, _, count in requests for _ in range(count))
    for (begin, _), arrival in zip(runs, arrivals, strict=True):
        # As a queue with so many slots begins, whoever is next.
        earliest = min(range(slots), key=ends.__getitem__)
        assert begin == pytest.approx(max(arrival, ends[earliest]))
        ends[earliest] = begin + WORK_SECONDS
