import json

from PIL import Image

import benchmarks
from benchmarks.predict import write_distinct, write_variants


def test_the_sides_take_turns_and_the_first_rounds_do_not_count(capsys):
    calls = []
    figures = {"ours": iter([9, 1, 5, 3]), "peer": iter([9, 2, 6, 7])}

    def measure(side):
        calls.append(side)
        return next(figures[side])

    assert benchmarks.medians("ours", "peer", 3, warm_up=1, figure=measure) == (3, 6)
    assert calls == ["ours", "peer", "peer", "ours"] * 2
    assert capsys.readouterr().err.splitlines()[-1] == "round 3: ours 3, peer 7"


def test_the_report_is_one_line_with_the_ratio_of_ours_to_the_peer(capsys):
    benchmarks.report(3, 4, "seconds")
    assert json.loads(capsys.readouterr().out) == {"ours": 3, "peer": 4, "ratio": 0.75, "unit": "seconds"}


def test_the_command_line_names_a_benchmark_and_its_options_follow(monkeypatch):
    calls = []
    monkeypatch.setattr("sys.argv", ["drops", "second", "--rounds", "3"])
    benchmarks.choose(first=lambda options: calls.append(("first", options)), second=calls.append)
    assert calls == [["--rounds", "3"]]


def test_variants_are_different_files_of_full_size_and_the_same_each_time(real_images, tmp_path):
    sources = list(real_images.values())[:2]
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append([path.read_bytes() for path in write_variants(sources, tmp_path / name, 5)])
    assert made[0] == made[1]
    assert len(set(made[0])) == 5
    with Image.open(tmp_path / "first" / "drop_0004.jpg") as image:
        assert image.size == (1280, 960)


def test_memory_is_measured_on_pictures_that_differ(real_images, tmp_path):
    files = write_distinct(list(real_images.values())[:2], tmp_path, 7)
    assert len({path.read_bytes() for path in files}) == 7
    with Image.open(files[6]) as image:
        assert image.size == (320, 240)
