import numpy as np
import pytest

from marco_data.synthetic.canvas import Scene
from marco_data.synthetic.contents import draw_solid, prism, random_rotation


@pytest.mark.parametrize(("sides", "cap"), [(3, 0.0), (4, 0.0), (6, 0.5), (8, 1.0)])
def test_a_prism_is_closed_and_its_faces_are_flat(sides, cap):
    solid = prism(sides, 0.5, 0.4, cap, 1.3)
    edges = [frozenset(pair) for face in solid.faces for pair in zip(face, [*face[1:], face[0]], strict=True)]
    assert all(edges.count(edge) == 2 for edge in set(edges))
    assert len(solid.vertices) - len(set(edges)) + len(solid.faces) == 2  # Euler
    for face in solid.faces:
        assert np.linalg.matrix_rank(np.diff(solid.vertices[face], axis=0), tol=1e-9) == 2


def test_rotations_are_orthogonal():
    rng = np.random.default_rng(0)
    for _ in range(5):
        turn = random_rotation(rng)
        assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)


def test_a_solid_covers_its_size_and_its_edges_are_dark_away_from_the_lamp():
    blank = np.zeros((200, 200), np.float32)
    scene = Scene(np.random.default_rng(0), blank.shape, 1.0, blank, blank, blank, lamp=(1.0, 0.0))
    ink = scene.blank_ink()
    cube = prism(4, 0.5, 0.35, 0.0, 1.0)
    draw_solid(scene, ink, cube, np.eye(3), np.array([100.0, 100.0]), 100.0, 1.0)
    rows, columns = np.nonzero(ink != 128)
    assert np.ptp(columns) == pytest.approx(100 / np.sqrt(2), abs=8)
    assert np.ptp(rows) == pytest.approx(100 / np.sqrt(2), abs=8)
    left, right = ink[100, columns.min() : 75].min(), ink[100, 125 : columns.max() + 1].min()
    assert left < right < 128
