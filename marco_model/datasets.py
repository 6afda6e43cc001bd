"""Datasets that end when their last element was read."""

from __future__ import annotations

import os

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `dataset` without tf.data's autotuning; put it last.

    About every second time, giving up an iterator of an autotuned dataset waits, idle, for the next turn of the tuning
    thread: up to as long as the iterator has lived, at most a minute (TensorFlow 2.16 and 2.21; `python -m
    benchmarks.dataset_end`). Without it `tf.data.AUTOTUNE` means as many calls at once as there are cores, at most 16:
    give `cores()` where more are of use.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))
