import os

import pytest

from marco_scoring.serving.classify import cores

BOUND = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", BOUND),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("110000 100000", min(2, BOUND)),
        ("99900000 100000", BOUND),
        ("", BOUND),
        ("7 0", BOUND),
    ],
)
def test_cores_are_limited_to_those_of_the_container(tmp_path, cpu_max, expected):
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert cores(tmp_path / "cpu.max") == expected


def test_without_a_container_the_cores_it_is_bound_to(tmp_path):
    assert cores(tmp_path / "none") == BOUND
