"""A record's class by a label scheme or an overlay, written in the place of the one it came with, which is kept."""

from __future__ import annotations

from marco_data import contract
from marco_data.relabelling.overlay import Answer

_GIVEN = ((contract.LABEL, contract.GIVEN_LABEL), (contract.LABEL_TEXT, contract.GIVEN_TEXT))
_OVERLAY = (contract.OVERLAY_LABEL, contract.OVERLAY_RATER, contract.OVERLAY_DATE)


def relabelled(data: bytes, label: int, text: str, answer: Answer | None = None) -> bytes:
    """Returns a serialized record with class `label`, named `text`; the ones it had become `image/given/…`.

    `answer` is what an overlay says of it, kept as `image/overlay/…`.
    """
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[given].CopyFrom(feature[name])
    feature[contract.LABEL].int64_list.value[:] = [label]
    feature[contract.LABEL_TEXT].bytes_list.value[:] = [text.encode()]
    if answer:
        for name, value in zip(_OVERLAY, (answer.label, answer.rater, answer.date), strict=True):
            feature[name].bytes_list.value[:] = [value.encode()]
    return bytes(example.SerializeToString(deterministic=True))


def as_given(data: bytes) -> bytes:
    """Returns what `relabelled` was given: the same features, though perhaps in another order."""
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[name].CopyFrom(feature[given])
        del feature[given]
    for name in _OVERLAY:
        if name in feature:
            del feature[name]
    return bytes(example.SerializeToString(deterministic=True))
