import json

import pytest

from benchmarks import pipeline

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_network")]


@pytest.mark.long
def test_it_measures_both_sides_and_reports_their_ratio(capsys):
    pipeline.evaluate(["--count", "24", "--rounds", "1"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] > 0
    assert answer["peer"] > 0
    assert answer["ratio"] == pytest.approx(answer["ours"] / answer["peer"], rel=1e-3)
    assert answer["unit"] == "seconds for 24 examples"


def test_both_sides_score_every_example(tmp_path):
    from components import evaluations

    files = pipeline.write_examples(tmp_path / "examples", 20, shorter_side=160)
    pipeline.write_model(tmp_path / "model", "local")
    assert pipeline.plain_prediction(tmp_path / "model", files, 8) == 20
    pipeline.run_evaluator(tmp_path, tmp_path / "examples", tmp_path / "model", 8)
    assert len(evaluations.read_predictions(str(tmp_path / "evaluation"))) == 20
    assert evaluations.slice_metrics(str(tmp_path / "evaluation"))["slices"]["overall"]["all"]["count"] == 20
