from collections import Counter

import pytest

from marco_data.name_tables import INSTITUTIONS, imager_of
from marco_data.places import place_of
from marco_data.synthetic import KINDS, Settings, plan
from marco_model.errors import InputError
from marco_model.labels import CLASSES


def _plans(count, **settings):
    chosen = Settings(**settings)
    return [plan(chosen, index) for index in range(count)]


def test_a_small_set_has_every_class_at_every_imager():
    cells = Counter((what.imager, what.shown) for what in _plans(240))
    assert len(cells) == 6 * 4
    assert min(cells.values()) >= 5


def test_classes_are_balanced_and_the_splits_as_asked():
    plans = _plans(2000, eval_share=0.3)
    assert Counter(what.shown for what in plans) == pytest.approx(dict.fromkeys(range(4), 500), abs=15)
    assert sum(what.split == "test" for what in plans) == pytest.approx(600, abs=15)
    for split in ("train", "test"):
        assert {what.imager.institution for what in plans if what.split == split} == set(INSTITUTIONS)


def test_shares_are_followed():
    plans = _plans(1000, institutions={"Merck": 3, "HWMRI": 1}, classes={"Crystals": 1, "Other": 4})
    assert Counter(what.imager.institution for what in plans) == pytest.approx({"Merck": 750, "HWMRI": 250}, abs=10)
    shown = Counter(CLASSES[what.shown] for what in plans)
    assert shown == pytest.approx({"Crystals": 200, "Other": 800}, abs=10)


def test_every_kind_is_drawn_in_proportion_to_its_weight():
    found = Counter(what.kind for what in _plans(8000))
    for number, kind in enumerate(KINDS):
        whole = sum(other.weight for other in KINDS if other.label == kind.label)
        assert found[number] / 2000 == pytest.approx(kind.weight / whole, abs=0.04)


def test_without_noise_labels_are_right():
    assert not any(what.noisy for what in _plans(500))
    assert all(KINDS[what.kind].label == CLASSES[what.label] for what in _plans(500))


def test_label_noise_is_the_share_asked_for_and_spreads_over_the_wrong_classes():
    plans = _plans(4000, label_noise=0.25)
    noisy = [what for what in plans if what.noisy]
    assert len(noisy) / 4000 == pytest.approx(0.25, abs=0.025)
    assert all(KINDS[what.kind].label == CLASSES[what.shown] for what in plans)
    pairs = Counter((what.shown, what.label) for what in noisy)
    assert len(pairs) == 12
    assert max(pairs.values()) < 2 * min(pairs.values())


def test_the_set_does_not_depend_on_how_many_images_it_has_and_does_on_the_seed():
    assert _plans(50) == _plans(80)[:50]
    assert _plans(50) != _plans(50, seed=1)


def test_file_names_identify_the_imager_and_are_unique():
    plans = _plans(3000)
    assert len({what.filename for what in plans}) == 3000
    for what in plans:
        assert imager_of(what.imager.institution, what.filename) == what.imager.name


def test_file_names_contain_plate_and_well_if_the_convention_is_known():
    plans = _plans(600)
    known = {what.imager: place_of(what.filename) for what in plans}
    for imager, place in known.items():
        assert bool(place.plate and place.well) == (imager.name != "Rigaku Minstrel")
    merck = {place_of(what.filename).plate for what in plans if what.imager.institution == "Merck"}
    glaxo = {place_of(what.filename).plate for what in plans if what.imager.institution == "GlaxoSmithKline"}
    assert not merck & glaxo


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"eval_share": 1.5}, r"eval_share is 1\.5"),
        ({"label_noise": -0.1}, r"label_noise is -0\.1"),
        ({"shorter_side": 8}, "8 pixels"),
        ({"institutions": {"Nowhere": 1}}, "unknown institution 'Nowhere'"),
        ({"classes": {"Clear": -1}}, "'Clear' is -1"),
        ({"classes": {"Clear": 0}}, "add up to nothing"),
    ],
)
def test_bad_settings_are_reported_in_one_error(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)
