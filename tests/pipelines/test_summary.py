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
    "lost": 0,
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


def comparison(count, difference):
    shares = {name: {"found": 1, "count": count, "share": share} for name, share in (("home", 0.8), ("away", 0.7))}
    limits = {"low": -0.2, "high": 0.05} if difference is not None else {"low": None, "high": None}
    return {**shares, "difference": difference, **limits}


def test_the_table_of_home_and_away_fits_a_terminal_and_takes_names_as_text():
    accuracy, few = comparison(1200, -0.1), comparison(3, None)
    mean = {"values": 1, "home": 0.8, "away": 0.7, "difference": -0.1, "low": -0.2, "high": 0.05}
    content = {
        "attribute": "institution",
        "target": "Crystals",
        "rows": [{"value": "[red]Bristol[/] :cat:", "accuracy": accuracy, "target": few}],
        "mean": {"accuracy": mean, "target": None},
    }
    console = Console(file=io.StringIO(), width=90)
    console.print(local_runner.leave_out_table(content))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    assert [row for row in rows if row] == [
        ["accuracy", "[red]Bristol[/] :cat:", "1,200", "80.0%", "70.0%", "-10.0", "-20.0 to +5.0"],
        ["accuracy", "mean", "", "80.0%", "70.0%", "-10.0", "-20.0 to +5.0"],
        ["Crystals", "[red]Bristol[/] :cat:", "3", "80.0%", "70.0%", "–", "too few images"],
    ]
    content["target"] = None
    assert len(local_runner.leave_out_table(content).rows) == 2
