import cv2
import numpy as np
import pytest

from marco_data.synthetic import KINDS, Settings, draw, plan
from marco_data.synthetic.render import one_crystal

SMALL = Settings(seed=3, shorter_side=96)


def test_an_image_depends_on_seed_and_index_alone():
    first = {index: draw(index, SMALL) for index in range(12)}
    for index in reversed(range(12)):
        again = draw(index, SMALL)
        assert np.array_equal(again.image, first[index].image)
        assert again.jpeg() == first[index].jpeg()
    assert not np.array_equal(draw(0, Settings(seed=4, shorter_side=96)).image[:90, :90], first[0].image[:90, :90])
    assert len({drop.image.tobytes() for drop in first.values()}) == 12


@pytest.mark.parametrize("index", range(6))
def test_full_size_is_the_imagers(index):
    drop = draw(index)
    assert drop.image.shape == (drop.plan.imager.height, drop.plan.imager.width, 3)
    assert drop.image.dtype == np.uint8
    decoded = cv2.imdecode(np.frombuffer(drop.jpeg(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert decoded.shape == drop.image.shape
    assert np.abs(decoded.astype(int) - drop.image).mean() < 5


@pytest.mark.parametrize("side", [32, 200, 700])
def test_the_shorter_side_is_as_asked_and_the_shape_is_kept(side):
    settings = Settings(shorter_side=side)
    for index in range(4):
        drop = draw(index, settings)
        full = (drop.plan.imager.height, drop.plan.imager.width)
        assert drop.image.shape[0] == min(side, full[0])
        assert drop.image.shape[1] / drop.image.shape[0] == pytest.approx(full[1] / full[0], rel=0.02)


def test_a_small_image_shows_the_same_scene_kind_as_the_large_one():
    full = Settings(seed=3)
    assert [plan(SMALL, index).kind for index in range(20)] == [plan(full, index).kind for index in range(20)]


def test_grey_cameras_give_three_equal_channels_and_colour_cameras_do_not():
    grey = [np.ptp(draw(index, SMALL).image.astype(int), axis=2).max() == 0 for index in range(40)]
    assert 4 <= sum(grey) <= 25


def test_dark_and_overexposed_drops_are_what_they_are_called():
    settings = Settings(shorter_side=64, classes={"Other": 1.0})
    light = {"dark": [], "overexposed": []}
    for index in range(120):
        name = KINDS[plan(settings, index).kind].name
        if name in light:
            image = draw(index, settings).image
            light[name].append(np.percentile(image, 90))
    assert light["dark"] and max(light["dark"]) < 80
    assert light["overexposed"] and min(light["overexposed"]) > 240


@pytest.mark.parametrize("seed", range(4))
def test_the_crystal_is_at_its_recorded_place(seed):
    image, covered = one_crystal(seed)
    assert (image.shape, image.dtype) == ((960, 1280, 3), np.uint8)
    assert (covered.shape, covered.dtype) == ((960, 1280), bool)
    y, x = np.nonzero(covered)
    assert 30 < np.ptp(x) < 110 and 30 < np.ptp(y) < 110
    # The crystal has the steepest edges nearby: the gradient inside is well above that of a wide frame around it.
    grey = image.mean(-1)
    steep = np.hypot(*np.gradient(grey))
    near = np.zeros_like(covered)
    near[max(y.min() - 40, 0) : y.max() + 40, max(x.min() - 40, 0) : x.max() + 40] = True
    near[max(y.min() - 3, 0) : y.max() + 3, max(x.min() - 3, 0) : x.max() + 3] = False
    assert steep[covered].mean() > 2 * np.median(steep[near])


def test_a_seed_is_a_drop_and_the_size_is_the_crystals():
    assert np.array_equal(one_crystal(3)[0], one_crystal(3)[0])
    assert not np.array_equal(one_crystal(3)[0], one_crystal(4)[0])
    assert 2.5 < one_crystal(3, 100)[1].sum() / one_crystal(3, 50)[1].sum() < 6
