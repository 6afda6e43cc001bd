import json

import numpy as np
import pytest

from benchmarks import input


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [[], ["--peer", "decoding"], ["--peer", "decoding", "--window-share", "0.7", "1"], ["--processes", "2"]],
)
def test_it_measures_both_sides_and_reports_their_ratio(options, capsys):
    input.main(["--count", "64", "--rounds", "1", *options])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] > 0
    assert answer["peer"] > 0
    assert answer["ratio"] == pytest.approx(answer["ours"] / answer["peer"], rel=1e-3)


@pytest.mark.slow
def test_both_sides_make_what_training_needs(real_images, tmp_path):
    encoded = [path.read_bytes() for path in real_images.values()]
    records = input.write_images(encoded, 32, tmp_path)
    windows, labels = next(iter(input.training_windows(records, 32)))
    assert (windows.shape, windows.dtype) == ((32, 599, 599, 3), "uint8")
    distorted, _ = next(iter(input.reference_windows(records)))
    assert (distorted.shape, distorted.dtype) == (windows.shape, "float32")
    assert labels.shape == (32,)
    bare = next(iter(input.bare_windows(list(input.repeated(encoded, 32)))))
    # The same images, cropped elsewhere.
    assert np.mean(bare) == pytest.approx(np.mean(windows), rel=0.1)


@pytest.mark.slow
def test_both_sides_read_every_element_of_a_pass(capsys):
    input.main(["--end", "--passes", "2", "--seconds", "0.1"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] >= 0.1
    assert answer["peer"] >= 0.1
    assert answer["unit"] == "seconds a pass of 0.1 seconds"
