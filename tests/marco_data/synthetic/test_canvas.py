import numpy as np
import pytest

from marco_data.synthetic import canvas


def test_distance_to_a_circle_is_the_distance_to_a_circle():
    distance = canvas.distance_to_outline((200, 300), (140.0, 90.0), 70.0)
    y, x = np.mgrid[:200, :300]
    exact = 70.0 - np.hypot(x - 140.0, y - 90.0)
    near = np.abs(exact) < 40
    border = canvas.STEP
    near[:border] = near[-border:] = near[:, :border] = near[:, -border:] = False
    assert np.abs(distance - exact)[near].max() < 0.3


def test_distance_is_first_order_right_where_the_outline_bulges():
    harmonics = [(3, 0.1, 0.5)]
    distance = canvas.distance_to_outline((400, 400), (200.0, 200.0), 120.0, harmonics)
    theta = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 120.0 * (1 + 0.1 * np.cos(3 * theta + 0.5))
    rows, columns = (np.round(200 + radius * wave(theta)).astype(int) for wave in (np.sin, np.cos))
    assert np.abs(distance[rows, columns]).max() < 1.5


def test_fractal_noise_is_normalized_and_finer_where_asked():
    rng = np.random.default_rng(0)
    coarse, fine = (canvas.fractal(rng, (240, 320), 64, cell) for cell in (32, 2))
    for field in (coarse, fine):
        assert field.shape == (240, 320) and field.dtype == np.float32
        assert field.mean() == pytest.approx(0, abs=1e-3) and field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(fine, axis=1)).mean() > 2 * np.abs(np.diff(coarse, axis=1)).mean()


def test_a_bump_is_nearly_gaussian():
    distance = np.linspace(-10, 10, 401, dtype=np.float32)[None]
    assert np.abs(canvas.bump(distance, 2.0, 1.5) - np.exp(-0.5 * ((distance - 2) / 1.5) ** 2)).max() < 0.06


def test_white_noise_is_white():
    noise = canvas.white(np.random.default_rng(1), (300, 400))
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.02
