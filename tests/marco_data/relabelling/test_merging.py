import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_data.overlay import Answer
from marco_data.relabelling.merging import RULES, merge
from marco_model.errors import InputError
from marco_model.labels import CLASSES


def given_by(rater, date="2026-01-01", **labels):
    return {int(number[1:]): Answer(label, rater, date, f"{rater}:{number}") for number, label in labels.items()}


THREE = {
    "anna": given_by("anna", "2026-01-01", _1="Clear", _2="Clear", _3="Clear", _4="Other"),
    "ben": given_by("ben", "2026-01-03", _1="Clear", _2="Other", _3="Other"),
    "carl": given_by("carl", "2026-01-02", _1="Clear", _2="Other", _3="Crystals", _5="Other"),
}


@pytest.mark.parametrize(
    ("rule", "labels", "undecided"),
    [
        ("majority", {1: "Clear", 2: "Other", 4: "Other", 5: "Other"}, {3}),
        ("unanimous", {1: "Clear", 4: "Other", 5: "Other"}, {2, 3}),
        ("first", {1: "Clear", 2: "Clear", 3: "Clear", 4: "Other", 5: "Other"}, set()),
    ],
)
def test_a_rule_settles_what_it_says(rule, labels, undecided):
    merged = merge(THREE, rule)
    assert {number: one.label for number, one in merged.decided.items()} == labels
    assert set(merged.undecided) == undecided


def test_a_decision_tells_who_made_it_and_when_the_last_of_them_did():
    decided = merge(THREE).decided
    assert decided[1][:3] == ("Clear", "anna+ben+carl", "2026-01-03")
    assert decided[2][:3] == ("Other", "ben+carl", "2026-01-03")
    assert merge(THREE, "first").decided[2][:3] == ("Clear", "anna", "2026-01-01")


def test_a_tie_keeps_all_answers():
    assert [one.where for one in merge(THREE).undecided[3]] == ["anna:_3", "ben:_3", "carl:_3"]


def test_an_unknown_rule_is_told_the_known_ones():
    with pytest.raises(InputError, match="'most'; give one of majority, unanimous, first"):
        merge(THREE, "most")


answers = st.dictionaries(st.integers(0, 9), st.sampled_from(CLASSES))


@given(st.lists(answers, min_size=1, max_size=4), st.sampled_from(sorted(RULES)))
def test_no_answer_is_lost_and_the_order_of_raters_matters_to_first_alone(sheets, rule):
    raters = {
        name: {number: Answer(label, name, "2026-01-01") for number, label in sheet.items()}
        for name, sheet in zip("abcd", sheets, strict=False)
    }
    merged = merge(raters, rule)
    assert merged.decided.keys() | merged.undecided.keys() == set(itertools.chain(*sheets))
    assert not merged.decided.keys() & merged.undecided.keys()
    if rule != "first":
        turned = merge(dict(reversed(raters.items())), rule)
        assert {n: one.label for n, one in turned.decided.items()} == {
            n: one.label for n, one in merged.decided.items()
        }
