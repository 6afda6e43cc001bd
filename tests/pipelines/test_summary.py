import io
import pathlib

from rich.console import Console

from pipelines import local_runner

SUMMARY = {
    "blessed": True,
    "failures": [],
    "decision": {"blessed": True, "reasons": ["better than the champion: accuracy"], "champion": {"version": "2"}},
    "accuracy": 0.75,
    "examples": {"train": 10, "validation": 2, "eval": 4},
    "quarantined": 2,
    "left_out": 3,
    "left_out_labels": {"raw label 8 (out of focus)": 3},
    "classes": {
        "Hit": {"precision": 1.0, "recall": 0.3, "count": 3},
        ":x: Miss": {"precision": None, "recall": None, "count": 0},
    },
    "slices": {
        "institution": {"[x] CSIRO [/x]": {"accuracy": 0.5, "count": 2}, "HWMRI": {"accuracy": 1.0, "count": 2}}
    },
    "model_path": "runs/x/models/3",
    "report_path": "runs/x/report.html",
    "tracking_uri": "sqlite:///runs/x/mlflow.db",
    "reused": ["Transform"],
    "start_accuracy": None,
}


def render(table):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_table_has_one_row_per_slice():
    text = render(local_runner.summary_table(SUMMARY))
    for expected in ("overall", "75.0%", "Hit", "30.0%", ":x: Miss", "–", "[x] CSIRO [/x]", "50.0%", "HWMRI", "100.0%"):
        assert expected in text


def test_the_lines_name_the_published_model_and_the_next_command():
    text = "\n".join(local_runner.closing_lines(SUMMARY, pathlib.Path("runs/x")))
    assert "16 images used, 2 quarantined" in text
    assert "3 left out: raw label 8 (out of focus) 3" in text
    assert "marco predict --model runs/x/models/3" in text
    assert "unchanged and reused: Transform" in text
    assert "the report:    runs/x/report.html" in text
    assert "the gate: better than the champion: accuracy" in text


def test_the_lines_compare_the_model_with_that_of_the_beginning():
    assert "began" not in "".join(local_runner.closing_lines(SUMMARY, pathlib.Path("runs/x")))
    text = "\n".join(local_runner.closing_lines({**SUMMARY, "start_accuracy": 0.9123}, pathlib.Path("runs/x")))
    assert "training began with a model of 91.2% accuracy on these images, and ended with 75.0%" in text


def test_a_failed_model_is_shown_with_the_reason():
    failed = {**SUMMARY, "blessed": False, "failures": ["accuracy is 0.5, and at least 0.9 is wanted"]}
    text = "\n".join(local_runner.closing_lines(failed, pathlib.Path("runs/x")))
    assert "not blessed, nothing published: accuracy is 0.5" in text
    assert "marco predict" not in text
