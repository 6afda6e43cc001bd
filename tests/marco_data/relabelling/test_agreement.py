import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from marco_data.relabelling.merging import fleiss_kappa, group_agreement, pair_agreement
from marco_model.labels import CLASSES

# The worked example of the English Wikipedia's article "Fleiss' kappa": 14 raters, 10 subjects, 5 categories.
WORKED = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_fleiss_kappa_is_that_of_the_published_example():
    assert fleiss_kappa(np.array(WORKED)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_raters_who_all_agree_is_one_and_of_one_category_undefined():
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == pytest.approx(1)
    assert math.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))


@pytest.mark.parametrize("counts", [[[2, 0], [1, 0]], [[1, 0]], np.zeros([0, 2])])
def test_fleiss_kappa_wants_as_many_raters_for_each_subject(counts):
    with pytest.raises(ValueError, match="same number of raters"):
        fleiss_kappa(np.array(counts))


labels = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=2, max_size=40)


@given(labels)
def test_a_pair_agrees_as_scikit_learn_says(answers):
    first, second = ({number: one[side] for number, one in enumerate(answers)} for side in (0, 1))
    told = pair_agreement(first, {**second, -1: "Clear"}, CLASSES)
    assert told["images"] == len(answers)
    assert told["agree"] == pytest.approx(sum(a == b for a, b in answers) / len(answers))
    if len({one for both in answers for one in both}) == 1:
        assert told["kappa"] is None
    else:
        assert told["kappa"] == pytest.approx(cohen_kappa_score(*zip(*answers, strict=True)))


def test_of_several_raters_only_images_that_all_labelled_count():
    told = group_agreement(
        {"a": {1: "Clear", 2: "Other", 3: "Clear"}, "b": {1: "Clear", 2: "Clear"}, "c": {1: "Clear", 2: "Other"}},
        CLASSES,
    )
    assert told["images"] == 2 and told["disagree"] == 0.5
    assert group_agreement({"a": {1: "Clear"}}, CLASSES) == {"images": 0, "disagree": None, "kappa": None}


def test_nothing_in_common_leaves_everything_undefined():
    assert pair_agreement({1: "Clear"}, {2: "Clear"}, CLASSES) == {"images": 0, "agree": None, "kappa": None}
