"""A record's class in a label scheme, written in the place of the one it came with, which is kept beside it."""

from __future__ import annotations

from marco_data import contract

_GIVEN = ((contract.LABEL, contract.GIVEN_LABEL), (contract.LABEL_TEXT, contract.GIVEN_TEXT))


def relabelled(data: bytes, label: int, text: str) -> bytes:
    """Returns a serialized record with class `label`, named `text`; the ones it had become `image/given/…`."""
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[given].CopyFrom(feature[name])
    feature[contract.LABEL].int64_list.value[:] = [label]
    feature[contract.LABEL_TEXT].bytes_list.value[:] = [text.encode()]
    return bytes(example.SerializeToString(deterministic=True))


def as_given(data: bytes) -> bytes:
    """Returns what `relabelled` was given: the same features, though perhaps in another order."""
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[name].CopyFrom(feature[given])
        del feature[given]
    return bytes(example.SerializeToString(deterministic=True))
