"""Runs compared: paired if both judged the same images, with Newcombe's interval if not; a real MLflow store."""

import csv
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from components import evaluations, significance
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from pipelines import run_comparison
from tests import stores

COUNT = 600
LABELS = np.arange(COUNT) % 4
INSTITUTIONS = np.where(np.arange(COUNT) % 5 < 3, "CSIRO", "Merck")
IMAGERS = np.where(np.arange(COUNT) % 2, "Rock", "Minstrel")


def evaluation(folder, seed, wrong=0.2, first=0, with_predictions=True, model="one"):
    """Writes the output of the Evaluator for a model that is wrong on some images; returns its folder and the hits.

    `first`: the id of the first image; runs with another one have judged other images.
    """
    rng = np.random.default_rng(seed)
    guesses = np.where(rng.random(COUNT) < wrong, (LABELS + 1) % 4, LABELS)
    index = np.arange(COUNT)
    frame = pd.DataFrame(
        {
            "shard": [f"data-{number % 2}.tfrecord" for number in index],
            "index": (index // 2).astype(np.int32),
            "image_id": index + first,
            "filename": [f"{number}.jpg" for number in index],
            "label": LABELS.astype(np.int16),
            "institution": INSTITUTIONS,
            "imager": IMAGERS,
            "scores": list(np.eye(4, dtype=np.float32)[guesses]),
            "plate": "",
        }
    )
    folder.mkdir(parents=True)
    if with_predictions:
        evaluations.write_predictions(frame, folder / evaluations.PREDICTIONS_FILE)

    def counts(chosen):
        matrix = np.zeros([4, 4], int)
        np.add.at(matrix, (LABELS[chosen], guesses[chosen]), 1)
        return {"count": int(chosen.sum()), "confusion_matrix": matrix.tolist()}

    slices = {
        "overall": {"all": counts(np.ones(COUNT, bool))},
        "institution": {name: counts(name == INSTITUTIONS) for name in ("CSIRO", "Merck")},
        "imager": {name: counts(name == IMAGERS) for name in ("Minstrel", "Rock")},
    }
    metrics = {"classes": list(CLASSES), "slices": slices, "model": model}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder, guesses == LABELS


def run_folder(folder, seed, tracking="sqlite:////nowhere.db", **options):
    _, right = evaluation(folder / "evaluation", seed, **options)
    summary = {"evaluation": "evaluation", "tracking_uri": tracking, "mlflow_run_id": "0" * 32}
    summary["model_fingerprint"] = options.get("model", "one")
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder), right


def rows_of(*runs, **options):
    judged = [run_comparison.find_judged(run, "nowhere", "marco") for run in runs]
    rows = run_comparison.compare(judged, "Crystals", **options)
    return judged, {(row.metric, row.slice, row.value): row for row in rows}


def test_runs_over_the_same_images_are_paired_slice_by_slice(tmp_path):
    first, right = run_folder(tmp_path / "one", 0)
    other, better = run_folder(tmp_path / "other", 1, wrong=0.1)
    judged, rows = rows_of(first, other, confidence=0.9)
    chosen = {
        ("accuracy", "overall", "all"): np.ones(COUNT, bool),
        ("accuracy", "imager", "Rock"): IMAGERS == "Rock",
        ("accuracy", "institution", "CSIRO"): INSTITUTIONS == "CSIRO",
        ("recall/Crystals", "overall", "all"): LABELS == 1,
        ("recall/Crystals", "institution", "Merck"): (LABELS == 1) & (INSTITUTIONS == "Merck"),
    }
    assert set(chosen) < set(rows)
    for key, on in chosen.items():
        base, cell = rows[key].cells
        assert (base.share, base.images) == (pytest.approx(right[on].mean()), on.sum())
        assert cell.difference == pytest.approx(better[on].mean() - right[on].mean())
        pairs = significance.pairs(better[on], right[on])
        assert (cell.how, cell.p) == ("paired", pytest.approx(significance.p_different(pairs)))
        assert (cell.low, cell.high) == pytest.approx(significance.paired_interval(pairs, 0.9)[:2])
    assert next(iter(rows)) == ("accuracy", "overall", "all")
    assert "paired: both judged the same images" in run_comparison.describe(judged, list(rows.values()), 0.9)[1]


@pytest.mark.parametrize("options", [{"first": 1000}, {"with_predictions": False}])
def test_runs_over_other_images_or_without_predictions_are_not_paired(tmp_path, options):
    first, right = run_folder(tmp_path / "one", 0)
    other, better = run_folder(tmp_path / "other", 1, **options)
    judged, rows = rows_of(first, other)
    on = INSTITUTIONS == "Merck"
    cell = rows["accuracy", "institution", "Merck"].cells[1]
    hits = int(better[on].sum()), int(on.sum()), int(right[on].sum()), int(on.sum())
    assert (cell.how, cell.p) == ("unpaired", None)
    assert (cell.low, cell.high) == pytest.approx(significance.unpaired_interval(*hits, 0.95))
    assert "unpaired" in run_comparison.describe(judged, list(rows.values()), 0.95)[1]


def test_other_classes_are_refused(tmp_path):
    first, _ = run_folder(tmp_path / "one", 0)
    other, _ = run_folder(tmp_path / "other", 1)
    rename_classes(tmp_path / "other", "a", "b", "c", "d")
    with pytest.raises(InputError, match=r"other has the classes a, b, c, d, and .*one Clear, Crystals"):
        rows_of(first, other)


def test_names_with_markup_are_shown_unchanged(tmp_path):
    from rich.console import Console

    cell = run_comparison.Cell("runs/[b]", 0.5, 10)
    rows = [run_comparison.Row("recall/[/x]", "imager", "[x] Rigaku :x:", (cell,))]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run_comparison.table(rows, "recall/[/x]"))
    text = console.export_text()
    for name in ("runs/[b]", "recall/[/x]", "[x] Rigaku :x:"):
        assert name in text


def rename_classes(folder, *classes):
    path = folder / "evaluation/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": classes}))


def test_an_unknown_recall_class_is_refused_if_it_was_requested_and_reported_if_it_is_the_default(tmp_path):
    runs = [run_folder(tmp_path / name, seed)[0] for seed, name in enumerate(("one", "other"))]
    judged = [run_comparison.find_judged(run, "nowhere", "marco") for run in runs]
    with pytest.raises(InputError, match=r"recall class 'Crystal' is not a class .*choose from Clear, Crystals, Other"):
        run_comparison.compare(judged, "Crystal")
    for name in ("one", "other"):
        rename_classes(tmp_path / name, "a", "b", "c", "d")
    judged = [run_comparison.find_judged(run, "nowhere", "marco") for run in runs]
    rows = run_comparison.compare(judged)
    assert {row.metric for row in rows} == {"accuracy"}
    lines = run_comparison.describe(judged, rows, 0.998)
    assert lines[0].endswith("with 99.8% intervals:")
    assert lines[-1] == "accuracy alone: no class is called Crystals; --recall-class takes one of a, b, c, d"
    assert {row.metric for row in run_comparison.compare(judged, "b")} == {"accuracy", "recall/b"}


def test_a_folder_that_was_moved_keeps_its_own_numbers_when_another_run_takes_its_place(tmp_path):
    _, old = run_folder(tmp_path / "local", 0, model="old")
    (tmp_path / "local").rename(tmp_path / "yesterday")
    _, new = run_folder(tmp_path / "local", 1, model="new")
    _, rows = rows_of(str(tmp_path / "yesterday"), str(tmp_path / "local"))
    shares = [cell.share for cell in rows["accuracy", "overall", "all"].cells]
    assert shares == pytest.approx([old.mean(), new.mean()])


@pytest.mark.parametrize("replaced", [True, False])
def test_an_evaluation_that_is_gone_or_of_another_model_is_not_used(tmp_path, replaced):
    folder, _ = run_folder(tmp_path / "local", 0, tracking=None, model="old")
    shutil.rmtree(tmp_path / "local/evaluation")
    if replaced:
        evaluation(tmp_path / "local/evaluation", 1, model="new")
    with pytest.raises(InputError, match="is missing or of another model, and no MLflow store is named"):
        run_comparison.find_judged(folder, "nowhere", "marco")


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        run_comparison.find_judged(str(tmp_path), "nowhere", "marco")
    with pytest.raises(InputError, match="no MLflow store"):
        run_comparison.find_judged("champion", str(tmp_path), "marco")


@pytest.mark.slow
def test_a_version_is_judged_by_the_evaluation_of_its_own_model_alone(tmp_path, monkeypatch):
    from components import mlflow_runs, mlflow_store

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    store = stores.local_store(tmp_path)
    client = mlflow_store.connect(store)
    folder, _ = evaluation(tmp_path / "kept", 0, model="new")
    run = mlflow_runs.open_run(store, "marco", "key", "trained twice")
    run.log_slices({"eval/accuracy": 0.75, "eval/count": 40.0})
    client.create_registered_model("drops")
    for model in ("old", "new"):
        tags = {"evaluation": str(folder), "model.fingerprint": model}
        client.create_model_version("drops", str(tmp_path), run_id=run.run_id, tags=tags)
    run.set_tags({"evaluation": str(folder), "model.fingerprint": "new"})
    for named in ("2", run.run_id):
        assert run_comparison.find_judged(named, str(tmp_path), "drops").predictions is not None
    with pytest.raises(InputError, match=r"the evaluation of version 1 .* has been retrained since"):
        run_comparison.find_judged("1", str(tmp_path), "drops")
    run.set_tags({"model.fingerprint": "old"})
    judged = run_comparison.find_judged("1", str(tmp_path), "drops")
    assert [share.share for share in judged.shares.values()] == [0.75]
    mlflow_store.connect.cache_clear()


@pytest.mark.slow
def test_the_command_compares_a_folder_a_run_and_a_version(tmp_path, monkeypatch):
    from components import mlflow_runs, mlflow_store
    from components.mlflow_registry import crown
    from pipelines.cli import app

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    store = stores.local_store(tmp_path / "store")
    client = mlflow_store.connect(store)
    folder, right = run_folder(tmp_path / "one", 0)
    evaluated, better = evaluation(tmp_path / "kept", 1)
    kept = mlflow_runs.open_run(store, "marco", "kept", "kept")
    kept.set_tags({"evaluation": str(evaluated), "model.fingerprint": "one"})
    gone = mlflow_runs.open_run(store, "marco", "gone", "gone")
    gone.log_slices(
        {"eval/accuracy": 0.75, "eval/count": 40.0, "eval/recall/Crystals": 0.5, "train/loss": 1.0, "epoch": 2.0}
    )
    gone.log_slices({"eval/institution/CSIRO/accuracy": 0.7, "eval/institution/CSIRO/count": 10.0})
    client.create_registered_model("drops")
    version = client.create_model_version("drops", str(tmp_path), run_id=gone.run_id)
    crown(client, "drops", str(version.version), str(tmp_path / "models/1"))
    arguments = ["compare", folder, kept.run_id, "champion", "--tracking", str(tmp_path / "store"), "--name", "drops"]
    outputs = ["--csv", str(tmp_path / "out.csv"), "--json", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, [*arguments, *outputs], catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "unpaired: other images" in done.output and "paired: both judged" in done.output
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    overall = [row for row in rows if (row["metric"], row["slice"]) == ("accuracy", "overall")]
    assert [row["how"] for row in overall] == ["", "paired", "unpaired"]
    assert float(overall[1]["difference"]) == pytest.approx(better.mean() - right.mean())
    assert (overall[2]["share"], overall[2]["images"]) == ("0.75", "40")
    crystals = [row for row in rows if (row["metric"], row["slice"]) == ("recall/Crystals", "overall")]
    assert (crystals[2]["share"], crystals[2]["low"], crystals[2]["how"]) == ("0.5", "", "")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["rows"][0]["cells"][1]["p"] == pytest.approx(float(overall[1]["p"]))
    mlflow_store.connect.cache_clear()
