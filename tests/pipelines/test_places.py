import pathlib

import pytest

from marco_model.errors import InputError
from pipelines import configuration, places


def test_everything_of_a_local_run_lies_below_its_output(tmp_path):
    where = places.local(configuration.load("local"), tmp_path)
    for path in (where.root, where.checkpoints, where.destination, where.tracking.removeprefix("sqlite:///")):
        assert pathlib.Path(path).parent == tmp_path


def test_an_object_store_cannot_hold_the_tracking_data_base():
    with pytest.raises(InputError, match=r"tracking\.uri"):
        places.remote(configuration.load("paper"), "gs://bucket")
    tracked = configuration.load("paper", ["tracking.uri=http://mlflow", "destination=gs://models"])
    assert places.remote(tracked, "gs://bucket/").root == "gs://bucket/pipeline"
    assert places.remote(tracked, "gs://bucket/").destination == "gs://models"
