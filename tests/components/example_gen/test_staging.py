import itertools
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.example_gen import staging
from components.example_gen.staging import Place, StagedRecord, duplicate_keys, find_duplicates, merge_reasons
from marco_data import contract, tfrecord

NAMES = ("train-1", "train-2", "test-1", "validation-1")


def stage(image_id, digest, shard, record=0):
    split = {"test": "eval"}.get(stem := NAMES[shard].partition("-")[0], stem)
    return StagedRecord(image_id, digest, Place(shard, record, 0, shard, split, 0, record, 9, False))


def outcome(*records):
    """Returns the lost records over all keys, as a distributed runner would find them."""
    groups = {}
    for record in records:
        for key, _ in duplicate_keys(record):
            groups.setdefault(key, []).append(record)
    found = [loser for key, alike in groups.items() for loser in find_duplicates(key, alike, NAMES)]
    return [(loser.place.shard, loser.place.record, loser.reason) for loser in merge_reasons(found)]


CASES = [
    ([stage(1, b"a", 0), stage(1, b"b", 1)], [(1, 0, contract.ID_OF_OTHER_IMAGE)]),
    ([stage(1, b"a", 0), stage(2, b"a", 1)], [(1, 0, contract.DUPLICATE_CONTENT)]),
    ([stage(1, b"a", 0), stage(1, b"a", 1)], [(1, 0, contract.DUPLICATE_ID)]),
    ([stage(1, b"a", 0), stage(1, b"a", 2)], [(0, 0, contract.TRAIN_AND_EVAL)]),
    ([stage(1, b"a", 0), stage(2, b"a", 2)], [(0, 0, contract.TRAIN_AND_EVAL)]),
    ([stage(1, b"a", 0), stage(1, b"b", 2)], [(0, 0, contract.ID_OF_OTHER_IMAGE)]),
    (
        [stage(1, b"a", 0, 0), stage(2, b"a", 0, 1), stage(3, b"a", 1), stage(4, b"a", 2)],
        [(0, 0, contract.TRAIN_AND_EVAL), (0, 1, contract.TRAIN_AND_EVAL), (1, 0, contract.TRAIN_AND_EVAL)],
    ),
    ([stage(1, b"a", 0), stage(2, b"b", 1), stage(3, b"c", 2)], []),
    ([stage(1, b"a", 0), stage(2, b"a", 3)], [(0, 0, contract.DUPLICATE_CONTENT)]),
    ([stage(1, b"a", 0), stage(1, b"b", 3)], [(0, 0, contract.ID_OF_OTHER_IMAGE)]),
    ([stage(1, b"a", 2), stage(2, b"a", 3)], [(3, 0, contract.TRAIN_AND_EVAL)]),
]


@pytest.mark.parametrize(("records", "lost"), CASES)
def test_one_of_each_is_kept_whatever_the_order(records, lost):
    for order in itertools.permutations(records):
        assert outcome(*order) == lost


@pytest.mark.parametrize(("size", "most"), [(1, 4 * 2 + 1), (30, 4), (1000, 1)])
def test_few_bytes_are_read_ahead_however_long_records_are(monkeypatch, size, most):
    monkeypatch.setattr(staging, "_AHEAD_BYTES", 100)
    ahead = seen = 0

    def records():
        nonlocal ahead, seen
        for number in range(40):
            ahead += 1
            seen = max(seen, ahead)
            yield tfrecord.Record(number, number * size, bytes(size), intact=False)

    with ThreadPoolExecutor(2) as pool:
        checked = staging._check_all(records(), None, types.SimpleNamespace(threads=2), pool)
        for number, (record, verdict) in enumerate(checked):
            assert record.index == number and verdict.reason == contract.BAD_CHECKSUM
            ahead -= 1
    assert (seen, ahead) == (most, 0)
