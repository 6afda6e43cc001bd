import numpy as np

from marco_model.attribution import overlay


def test_no_heat_is_grey_and_full_heat_is_the_colour_maps_end():
    image = np.zeros((10, 10, 3), np.float32)
    image[..., 0] = 0.6
    attribution = np.zeros((10, 10), np.float32)
    attribution[2, 3:7] = 5
    drawn = overlay(image, attribution)
    assert drawn.dtype == np.uint8
    assert drawn[9, 9].tolist() == [153, 153, 153]  # (0.2 + 1) / 2 of 255
    assert drawn[2, 3].tolist() == [252, 255, 164]  # inferno's last colour, as matplotlib documents it: #fcffa4


def test_one_outlier_does_not_hide_the_rest():
    attribution = np.ones((30, 30), np.float32)
    attribution[0, 0] = 1e6
    drawn = overlay(np.zeros((30, 30, 3), np.float32), attribution)
    assert (drawn == drawn[0, 0]).all()


def test_no_attribution_at_all_leaves_the_grey_image():
    drawn = overlay(np.full((5, 5, 3), -1, np.float32), np.zeros((5, 5), np.float32))
    assert not drawn.any()
