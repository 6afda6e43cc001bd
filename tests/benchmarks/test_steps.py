import json

import pytest

from benchmarks import augmentation, train_step


@pytest.mark.slow
@pytest.mark.usefixtures("short_network")
@pytest.mark.parametrize(
    ("benchmark", "sizes"), [(train_step, ["--sizes", "151", "75"]), (augmentation, ["--size", "151"])]
)
def test_it_times_both_sides_and_reports_their_ratio(benchmark, sizes, capsys):
    benchmark.main(["--batch-size", "2", "--rounds", "1", *sizes])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] > 0
    assert answer["peer"] > 0
    assert answer["ratio"] == pytest.approx(answer["ours"] / answer["peer"], rel=1e-2)
    assert answer["unit"] == "seconds for a step of 2 images"
