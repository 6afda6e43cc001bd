import json

import pytest

from benchmarks import dataset_end

pytestmark = pytest.mark.slow


def test_both_sides_read_every_element(capsys):
    dataset_end.main(["--passes", "2", "--seconds", "0.1"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] >= 0.1
    assert answer["peer"] >= 0.1
    assert answer["unit"] == "seconds a pass of 0.1 seconds"
