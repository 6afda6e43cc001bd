import os

import pytest

pytestmark = pytest.mark.slow


def test_elements_stay_as_they_are_and_nothing_tunes():
    import tensorflow as tf

    from marco_model.preprocessing import untuned

    dataset = tf.data.Dataset.range(9).map(lambda x: x * x, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    assert list(untuned(dataset).as_numpy_iterator()) == [x * x for x in range(9)]
    assert untuned(dataset).options().autotune.enabled is False


def test_cores_are_those_this_process_may_use():
    from marco_model.preprocessing import cores

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)


def test_passes_of_training_and_evaluation_end_at_once(tmp_path):
    import tensorflow as tf

    from marco_model import training_input

    file = str(tmp_path / "data.gz")
    with tf.io.TFRecordWriter(file, "GZIP"):
        pass
    options = {"epoch": 0, "skip": 0, "batches": 1, "size": 8, "batch_size": 2, "shuffle": 2, "seed": 0}
    training = training_input.epoch_batches(training_input.encoded_images([file]), **options)
    evaluation = training_input.evaluation_batches([file], images=2, size=8, batch_size=2)
    assert training.options().autotune.enabled is False
    assert evaluation.options().autotune.enabled is False
