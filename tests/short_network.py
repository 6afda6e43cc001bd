"""Networks cut short, for tests of what is around a network.

Most of the time of a training of a few steps goes into building and tracing layers. Inception-v3 keeps every block with
its first branch alone: 19 convolutions instead of 94, under the same names, so that everything that goes by the names
of layers and blocks works as with the whole network. Tests of the network itself and test_bucket_run.py, from data to
a served model, use the whole network.

Keras's applications keep one or two whole blocks of each group of equal ones. Tests of their size use all blocks.
"""

from __future__ import annotations

import contextlib
import sys
from unittest import mock


def cut():
    """Returns a context in which this process builds the short network."""
    from marco_model import inception_table

    blocks = {name: branches[:1] for name, branches in inception_table.BLOCKS.items()}
    return mock.patch.object(inception_table, "BLOCKS", blocks)


def use():
    """Makes this process build the short network until it ends: the `before` of `tests.processes.start`."""
    cut().start()


@contextlib.contextmanager
def cut_applications():
    """Keras builds Inception-ResNet-v2 and NASNet-Mobile with the last blocks of each group of equal ones.

    Inception-ResNet-v2 keeps two, since a block to train from needs the one before it, and NASNet-Mobile one.
    """
    import keras

    resnet, nasnet = (
        sys.modules[getattr(keras.applications, name).__module__] for name in ("InceptionResNetV2", "NASNetMobile")
    )
    whole_block, whole_cell = resnet.inception_resnet_block, nasnet._normal_a_cell

    def block(x, scale, block_type, block_idx, **options):
        last = {"block35": 10, "block17": 20, "block8": 10}[block_type]
        return whole_block(x, scale, block_type, block_idx, **options) if block_idx >= last - 1 else x

    def cell(ip, p, filters, block_id=None):
        return whole_cell(ip, p, filters, block_id) if block_id in ("3", "8", "12") else (ip, p)

    with (
        mock.patch.object(resnet, "inception_resnet_block", block),
        mock.patch.object(nasnet, "_normal_a_cell", cell),
    ):
        yield
