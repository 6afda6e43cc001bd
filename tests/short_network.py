"""Inception-v3 cut short, for tests of what is around a network: 19 convolutions instead of 94, under the same names.

Most of the time of a training of a few steps goes into building and tracing layers. Every block is there with its first
branch alone, so that everything that goes by the names of layers and blocks works as with the whole network. Tests of
the network itself and tests/pipelines/test_bucket_run.py, from data to a served model, use the whole network.
"""

from __future__ import annotations

from unittest import mock


def cut():
    """Returns a context in which this process builds the short network."""
    from marco_model import inception_v3

    blocks = {name: branches[:1] for name, branches in inception_v3.BLOCKS.items()}
    return mock.patch.object(inception_v3, "BLOCKS", blocks)


def use():
    """Makes this process build the short network until it ends: the `before` of `tests.processes.start`."""
    cut().start()
