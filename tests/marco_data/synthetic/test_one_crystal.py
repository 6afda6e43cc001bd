import numpy as np
import pytest

from marco_data.synthetic.render import one_crystal


@pytest.mark.parametrize("seed", range(4))
def test_the_crystal_is_where_it_is_said_to_be(seed):
    image, covered = one_crystal(seed)
    assert (image.shape, image.dtype) == ((960, 1280, 3), np.uint8)
    assert (covered.shape, covered.dtype) == ((960, 1280), bool)
    y, x = np.nonzero(covered)
    assert 30 < np.ptp(x) < 110 and 30 < np.ptp(y) < 110
    # Its edges are the steepest there is near it: the gradient inside is well above that of a wide frame around.
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
