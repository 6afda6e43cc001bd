import numpy as np
import pytest

from components import sources
from marco_model.errors import InputError

FOUND = {"train": ["Merck", "CSIRO", "Merck", "Zürich"], "validation": ["CSIRO", "Merck"]}


def test_the_records_of_a_source_are_told_apart_in_their_order(tmp_path):
    path = str(tmp_path / "artifact" / sources.FILE)
    sources.write(path, FOUND)
    assert sources.seen(path, "train", "Merck").tolist() == [False, True, False, True]
    assert sources.seen(path, "train", "Zürich").tolist() == [True, True, True, False]
    assert sources.seen(path, "validation", "Merck").tolist() == [True, False]
    assert sources.seen(path, "validation", "another").all()
    assert sources.seen(path, "train", "CSIRO").dtype == np.bool_


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sources\.npz is missing; run the step Sources again"):
        sources.seen(str(tmp_path / "sources.npz"), "train", "Merck")


@pytest.mark.parametrize(
    ("found", "value", "message"),
    [
        (FOUND, "Merk", "no training image has the institution 'Merk'; leave_out.values may be CSIRO, Merck, Zürich"),
        ({**FOUND, "train": ["Merck"]}, "Merck", "without the institution 'Merck' no train image is left"),
        ({**FOUND, "validation": ["Merck"] * 3}, "Merck", "'Merck' no validation image is left; leave it out of"),
    ],
)
def test_what_cannot_be_left_out_is_refused(found, value, message):
    with pytest.raises(InputError, match=message):
        sources.check(found, "institution", ["CSIRO", value] if "CSIRO" in found["train"] else [value])


def test_a_source_that_can_be_left_out_is_accepted():
    sources.check(FOUND, "institution", ["Merck", "CSIRO", "Zürich"])
