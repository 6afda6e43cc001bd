"""The decision by construction: two models whose true accuracies are known, judged on simulated images."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from components.evaluations import SliceKey
from components.gate import BETTER, CONSTANT, MORE_IMAGES, NOT_WORSE, SLICE, decide, decide_alone
from components.settings import Rules, parse, percent
from marco_model.errors import InputError
from marco_model.labels import CLASSES

IMAGES, SEEDS = 8_000, 100
IMAGERS = {"Rock Imager": 0.5, "Minstrel": 0.25, "home system": 0.15, "Rock Imager 2": 0.1}
INSTITUTIONS = {"CSIRO": 0.4, "HWMRI": 0.2, "Merck": 0.2, "BMS": 0.1, "GSK": 0.1}
CRYSTALS, CHAMPION = 0.125, 0.9


class Truth(NamedTuple):
    """How much more often the candidate is right than the champion: in general, on one imager, on crystals."""

    difference: float
    imager: float | None = None
    crystals: float | None = None
    churn: float = 0.06
    on: str = "Rock Imager 2"


def images(rng, count=IMAGES):
    slices = {
        "institution": rng.choice(list(INSTITUTIONS), count, p=list(INSTITUTIONS.values())),
        "imager": rng.choice(list(IMAGERS), count, p=list(IMAGERS.values())),
    }
    return slices, rng.random(count) < CRYSTALS


def masks(columns):
    """Returns the slices of columns, kind → value of each image, as `slice_masks` yields those of a table."""
    return [(SliceKey(kind, value), column == value) for kind, column in columns.items() for value in np.unique(column)]


def simulate(rng, truth, slices, positive):
    """Returns which images the candidate and the champion label correctly.

    The two disagree on a share `churn` of the images, and the champion is right on 90 % of all.
    """
    difference = np.full(len(positive), truth.difference)
    if truth.imager is not None:
        difference[slices["imager"] == truth.on] = truth.imager
    if truth.crystals is not None:
        difference[positive] = truth.crystals
    gained, lost = (truth.churn + difference) / 2, (truth.churn - difference) / 2
    drawn = rng.random(len(positive))
    champion = drawn < CHAMPION
    candidate = (champion & (drawn >= lost)) | (~champion & (drawn < CHAMPION + gained))
    return candidate, champion


def count_promoted(truth, seeds=SEEDS, count=IMAGES, rules=None):
    """Returns how many of the simulated candidates replace the champion."""
    total = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        slices, positive = images(rng, count)
        candidate, champion = simulate(rng, truth, slices, positive)
        total += decide(candidate, champion, positive=positive, slices=masks(slices), rules=rules or Rules()).blessed
    return total


EQUAL, BETTER_EVERYWHERE = Truth(0.0), Truth(0.02)
FALSE = {
    "equal": EQUAL,
    "one noise apart, no better": Truth(0.0, churn=0.005),
    "better, but 5 points worse on the smallest imager": Truth(0.03, imager=-0.05, churn=0.09),
    "better, but 5 points worse on the largest imager": Truth(0.05, imager=-0.05, churn=0.09, on="Rock Imager"),
    "better, but 5 points fewer crystals": Truth(0.03, crystals=-0.05, churn=0.09),
    "better, but 3 points fewer crystals": Truth(0.03, crystals=-0.03, churn=0.09),
    "worse": Truth(-0.01),
}


@pytest.mark.parametrize("truth", FALSE.values(), ids=FALSE)
def test_at_most_five_of_a_hundred_candidates_are_promoted_wrongly(truth):
    assert count_promoted(truth) <= 5


def test_a_better_model_is_promoted():
    assert count_promoted(BETTER_EVERYWHERE) >= 97


def test_a_better_model_that_finds_just_as_many_crystals_is_promoted():
    assert count_promoted(Truth(0.03, crystals=0.0, churn=0.09)) >= 80


def test_an_identical_model_is_never_promoted():
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        slices, positive = images(rng)
        right = rng.random(IMAGES) < CHAMPION
        decision = decide(right, right, positive=positive, slices=masks(slices), rules=Rules())
        assert not decision.blessed
        (reason,) = decision.reasons
        assert reason.startswith("no evidence that it is better than the champion: accuracy")


def count_promoted_best(evaluations, *, same_images):
    """Returns how many of 100 candidates are promoted, each the best on validation of equals of the champion.

    `same_images`: whether it is chosen by the very images that judge it.
    """
    total = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        (slices, positive), (other_slices, other_positive) = images(rng), images(rng)
        trials = []
        for _ in range(evaluations):
            judged = simulate(np.random.default_rng(rng.integers(2**32)), EQUAL, slices, positive)
            candidate, champion = simulate(rng, EQUAL, other_slices, other_positive)
            chosen_by = judged if same_images else (candidate, champion)
            trials.append((np.mean(chosen_by[0]) - np.mean(chosen_by[1]), judged))
        candidate, champion = max(trials, key=lambda trial: trial[0])[1]
        total += decide(candidate, champion, positive=positive, slices=masks(slices), rules=Rules()).blessed
    return total


def test_the_best_of_twenty_evaluations_is_promoted_by_chance_only_where_the_same_images_chose_it():
    assert count_promoted_best(20, same_images=False) <= 5
    assert count_promoted_best(20, same_images=True) >= 15


def test_a_few_hundred_images_do_not_promote_an_equal_model():
    assert count_promoted(EQUAL, count=300) <= 5


@pytest.mark.parametrize("size", [96, 384])
@pytest.mark.parametrize("spread", [0.02, 0.04])
def test_plates_that_differ_by_chance_do_not_promote_an_equal_model(size, spread):
    promoted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        plates = np.repeat(np.arange(20), size)
        effects = rng.normal(0, spread, 20).clip(-0.08, 0.08)[plates]
        draws = rng.random(len(plates))
        gained, lost = draws < (0.08 + effects) / 2, draws > 1 - (0.08 - effects) / 2
        positive = rng.random(len(plates)) < 0.13
        slices = masks({"imager": np.full(len(plates), "Rock Imager")})
        promoted += decide(~lost, ~gained, positive=positive, slices=slices, rules=Rules(), plates=plates).blessed
    assert promoted <= 5


def decide_on(gained, lost, count, rules=None, slices=None, positive=None):
    """Decides where the first images are gains, the next are losses, and both are right on the rest."""
    candidate, champion = np.ones(count, bool), np.ones(count, bool)
    champion[:gained] = False
    candidate[gained : gained + lost] = False
    columns = slices or {"imager": np.full(count, "Rock Imager")}
    return decide(candidate, champion, positive=positive, slices=masks(columns), rules=rules or Rules())


def test_every_check_says_what_it_compared():
    positive = np.arange(1000) < 200
    decision = decide_on(60, 10, 1000, positive=positive)
    assert decision.blessed
    assert [(check.kind, check.name) for check in decision.checks] == [
        (BETTER, "accuracy"),
        (BETTER, "recall/Crystals"),
        (NOT_WORSE, "accuracy"),
        (NOT_WORSE, "recall/Crystals"),
        (SLICE, "imager/Rock Imager"),
    ]
    for check in decision.checks:
        assert check.count == (200 if check.name.startswith("recall") else 1000)
        assert check.difference == pytest.approx(check.candidate - check.champion)
        assert check.low < check.difference < check.high
        assert check.passed == (check.difference >= check.limit)
    assert decision.checks[0].difference == pytest.approx(0.05)
    assert decision.reasons[0].startswith("better than the champion: accuracy 94.00% → 99.00% of 1,000 images")


def test_a_fall_is_reported_with_its_slice_its_size_and_its_interval():
    count = 2000
    imager = np.where(np.arange(count) < 1500, "Rock Imager", "Minstrel")
    candidate, champion = np.ones(count, bool), np.ones(count, bool)
    champion[:300] = False
    candidate[1500:1560] = False
    decision = decide(candidate, champion, positive=None, slices=masks({"imager": imager}), rules=Rules())
    assert not decision.blessed
    (reason,) = decision.reasons
    assert reason.startswith(
        "accuracy on imager Minstrel fell by 12.00% (100.00% → 88.00% of 500 images; 95% interval -1"
    )
    assert reason.endswith("beyond chance, and not shown to be less than 3.0%")


def test_a_small_fall_beyond_chance_is_allowed_if_it_is_shown_to_be_within_the_margin():
    slices = {"imager": np.where(np.arange(80_000) < 40_000, "a", "b")}
    candidate, champion = np.ones(80_000, bool), np.ones(80_000, bool)
    champion[:3000] = False
    candidate[40_000:40_400] = False
    decision = decide(candidate, champion, positive=None, slices=masks(slices), rules=Rules())
    fallen = decision.checks[-1]
    assert (fallen.name, fallen.high < 0, fallen.passed) == ("imager/b", True, True)
    assert decision.blessed
    strict = decide(candidate, champion, positive=None, slices=masks(slices), rules=Rules(slice_margin=0.005))
    assert not strict.blessed


def test_a_slice_of_few_images_is_shown_and_not_judged():
    slices = {"imager": np.where(np.arange(1000) < 990, "many", "few")}
    candidate, champion = np.ones(1000, bool), np.ones(1000, bool)
    champion[:100], candidate[990:] = False, False
    decision = decide(candidate, champion, positive=None, slices=masks(slices), rules=Rules())
    few = next(check for check in decision.checks if check.name == "imager/few")
    assert (few.count, few.limit, few.passed) == (10, None, True)
    assert decision.blessed
    assert not decide(candidate, champion, positive=None, slices=masks(slices), rules=Rules(smallest_slice=10)).blessed


def test_the_champion_stays_if_no_image_of_the_class_can_check_its_recall():
    decision = decide_on(60, 10, 1000, positive=np.zeros(1000, bool))
    assert [check.name for check in decision.checks if check.kind == BETTER] == ["accuracy"]
    (recall,) = [check for check in decision.checks if check.name == "recall/Crystals"]
    assert (recall.kind, recall.count, recall.limit, recall.passed) == (NOT_WORSE, 0, None, False)
    assert (decision.blessed, len(decision.reasons)) == (False, 1)
    assert decision.reasons[0].startswith("recall/Crystals could not be checked: no image of that class")
    assert decide_on(60, 10, 1000, positive=None).blessed


BALANCED, LOPSIDED = (0.25, 0.25, 0.25, 0.25), (0.95, 0.02, 0.02, 0.01)


def table(labels, answers, plate=""):
    """Returns a table of predictions; `plate`: of all images, or of each."""
    columns = {"label": labels, "scores": list(np.eye(4)[answers]), "institution": "CSIRO", "plate": plate}
    return pd.DataFrame({**columns, "filename": [f"{index}.jpg" for index in range(len(labels))]})


def labels_of(shares, count, seed=0):
    return np.random.default_rng(seed).choice(4, count, p=shares)


@pytest.mark.parametrize("shares", [BALANCED, LOPSIDED])
@pytest.mark.parametrize("answer", range(4))
@pytest.mark.parametrize("count", [6, 320, 8_000])
def test_one_answer_for_every_image_is_refused_without_a_champion(shares, answer, count):
    labels = labels_of(shares, count, seed=1)
    verdict = decide_alone(table(labels, np.full(count, answer)), CLASSES, Rules())
    assert not verdict.blessed
    assert verdict.reasons[0].startswith(("no evidence that it is better than always answering ", "all 6 evaluation"))


@pytest.mark.parametrize("shares", [BALANCED, LOPSIDED, (0.6, 0.1, 0.2, 0.1)])
@pytest.mark.parametrize("plates", [1, 8])
@pytest.mark.parametrize("count", [40, 320])
def test_at_most_five_of_a_hundred_models_that_guess_pass_without_a_champion(shares, plates, count):
    passed = 0
    for seed in range(SEEDS):
        labels, guesses = labels_of(shares, count, seed), labels_of(shares, count, 1_000 + seed)
        plate = [str(index // plates) for index in range(count)]
        passed += decide_alone(table(labels, guesses, plate), CLASSES, Rules()).blessed
    assert passed <= 5


def test_a_model_that_is_right_more_often_than_one_answer_passes_and_says_so():
    labels = np.repeat([0, 1, 2, 3], [84, 80, 78, 78])
    answers = np.where(np.arange(320) % 2, labels, 0)
    verdict = decide_alone(table(labels, answers), CLASSES, Rules())
    (check,) = verdict.checks
    assert (verdict.blessed, check.kind, check.name, check.passed) == (True, CONSTANT, "accuracy", True)
    assert (check.count, check.candidate, check.champion) == (320, 202 / 320, 84 / 320)
    (reason,) = verdict.reasons
    assert reason.startswith(
        "there is no champion to beat, and it is better than always answering Clear: accuracy 26.25% → 63.12% of 320 "
    )


def test_a_model_that_is_no_better_than_one_answer_is_told_both_shares():
    labels = np.repeat([0, 1, 2, 3], [84, 80, 78, 78])
    verdict = decide_alone(table(labels, np.full(320, 1)), CLASSES, Rules())
    assert verdict.reasons == [
        "no evidence that it is better than always answering Clear: accuracy 25.00% against 26.25% of 320 images, "
        "p = 0.65; p of at most 0.025 is wanted"
    ]
    few = decide_alone(table(labels[::64], labels[::64]), CLASSES, Rules())
    assert (few.blessed, few.reasons[1:]) == (False, [MORE_IMAGES])


def test_a_plate_is_one_piece_of_evidence_without_a_champion_too():
    labels = np.repeat([0, 1, 2], [40, 30, 30])
    assert decide_alone(table(labels, labels), CLASSES, Rules()).blessed
    assert not decide_alone(table(labels, labels, [str(label) for label in labels]), CLASSES, Rules()).blessed


def test_images_of_one_class_cannot_show_that_a_model_is_better():
    verdict = decide_alone(table(np.zeros(50, int), np.zeros(50, int)), CLASSES, Rules())
    (reason,) = verdict.reasons
    assert not verdict.blessed
    assert reason.startswith("all 50 evaluation images are Clear: no model can be shown to be better")


@pytest.mark.parametrize(("confidence", "shown"), [(0.95, "95%"), (0.996, "99.6%"), (0.99999, "99.999%")])
def test_a_confidence_is_shown_with_all_its_digits(confidence, shown):
    assert percent(confidence) == shown
    decision = decide_on(0, 100, 1000, rules=Rules(confidence=confidence))
    assert f"{shown} interval" in decision.reasons[1]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"confidence": 1.0}, "gate.confidence is 1.0"),
        ({"caution": 0.0}, "gate.caution is 0.0"),
        ({"slice_margin": -0.1}, "gate.slice_margin is -0.1"),
        ({"smallest_slice": 0}, "gate.smallest_slice is 0"),
    ],
)
def test_rules_out_of_range_are_refused_by_name(values, named):
    with pytest.raises(InputError, match=named):
        parse(Rules, values, "here", "gate")


def test_the_class_of_the_recall_is_crystals_if_the_scheme_has_it():
    assert Rules().recall_index(CLASSES) == CLASSES.index("Crystals")
    assert Rules().recall_index(("hit", "miss")) is None
    assert Rules(recall_class="hit").recall_index(("hit", "miss")) == 0
    with pytest.raises(InputError, match="'Crystals' is not a class; choose from hit, miss"):
        Rules(recall_class="Crystals").recall_index(("hit", "miss"))
