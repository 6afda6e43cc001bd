"""The gate's executor on real artifacts and models whose predictions are chosen image by image."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest

from components import champion, prediction_table
from components.gate import read_decision
from components.settings import Rules
from marco_model.labels import CLASSES
from marco_model.model_directory import model_fingerprint

pytestmark = pytest.mark.slow

COUNT = 400
LABELS = np.arange(COUNT) % 4
PLACES = [("CSIRO", "Minstrel"), ("CSIRO", "Rock"), ("Merck", "Rock")]


def predicting(wrong):
    """Returns the class predicted of each image, int [COUNT]: the label but on the images `wrong`."""
    guesses = LABELS.copy()
    guesses[list(wrong)] = (LABELS[list(wrong)] + 1) % 4
    return guesses


def save_model(folder, guesses, classes=CLASSES, signature="serving_examples"):
    """Writes a model artifact whose scores follow from the image's id; those of a guess of 4 are no numbers."""
    import tensorflow as tf

    class Chosen(tf.Module):
        def __init__(self):
            super().__init__()
            order = np.array([classes.index(name) if name in classes else 0 for name in CLASSES])
            scores = np.concatenate([np.eye(4, dtype=np.float32)[order], np.full([1, 4], np.nan, np.float32)])
            self.scores = tf.Variable(scores[guesses])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def examples(self, examples):
            parsed = tf.io.parse_example(examples, {"image/id": tf.io.FixedLenFeature([], tf.int64)})
            return {"scores": tf.gather(self.scores, parsed["image/id"])}

    model, where = Chosen(), pathlib.Path(folder) / "Format-Serving"
    tf.saved_model.save(model, str(where), signatures={signature: model.examples})
    (where / "assets.extra").mkdir()
    (where / "assets.extra/marco.json").write_text(json.dumps({"classes": list(classes)}))
    return where


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models: the `candidate`, wrong on every tenth image; one `worse`, wrong on every fourth; …"""
    root = tmp_path_factory.mktemp("models")
    tenth, fourth = range(0, COUNT, 10), range(0, COUNT, 4)
    made = {
        "candidate": (predicting(tenth), CLASSES, "serving_examples"),
        "worse": (predicting({*tenth, *fourth}), CLASSES, "serving_examples"),
        "worse_in_another_order": (predicting({*tenth, *fourth}), CLASSES[::-1], "serving_examples"),
        "best": (predicting([]), CLASSES, "serving_examples"),
        "others": (predicting([]), ("a", "b", "c", "d"), "serving_examples"),
        "closed": (predicting([]), CLASSES, "serving_default"),
        "diverged": (np.where(np.arange(COUNT) == 7, 4, predicting([])), CLASSES, "serving_examples"),
    }
    for name, (guesses, classes, signature) in made.items():
        save_model(root / name, guesses, classes, signature)
    return root


@pytest.fixture
def examples(tmp_path, write_examples, record):
    made = []
    for index in range(COUNT):
        institution, imager = PLACES[index % 3]
        made.append(record(index, int(LABELS[index]), institution=institution, imager=imager))
    return write_examples(tmp_path / "examples", {"train": made[:1], "eval": made}, shards=2)


def evaluation_of(folder, guesses, failures=()):
    """Writes what the Evaluator leaves: the candidate's predictions, in the two shards of `examples`."""
    index = np.arange(COUNT)
    frame = pd.DataFrame(
        {
            "shard": [f"data_tfrecord-{one % 2:05d}-of-00002.gz" for one in index],
            "index": (index // 2).astype(np.int32),
            "image_id": index,
            "filename": [f"{one}.jpg" for one in index],
            "label": LABELS.astype(np.int16),
            "institution": [PLACES[one % 3][0] for one in index],
            "imager": [PLACES[one % 3][1] for one in index],
            "scores": list(np.eye(4, dtype=np.float32)[guesses]),
        }
    )
    prediction_table.write(frame, folder / prediction_table.PREDICTIONS_FILE)
    (folder / "metrics.json").write_text(json.dumps({"failures": list(failures)}))


def gate(folder, examples, models, to_beat, blessed=True, failures=(), rules=None, registered_model=""):
    """Runs the gate of the model `candidate` and returns its decision, which the blessing must say too."""

    from tfx.types import standard_artifacts

    from components.artifacts import Decision
    from components.steps.champion_gate import ChampionGate

    def made(kind, name):
        artifact = kind()
        artifact.uri = str(folder / name)
        pathlib.Path(artifact.uri).mkdir(parents=True, exist_ok=True)
        return artifact

    evaluation = made(standard_artifacts.ModelEvaluation, "evaluation")
    evaluation_of(pathlib.Path(evaluation.uri), predicting(range(0, COUNT, 10)), failures)
    word = made(standard_artifacts.ModelBlessing, "word")
    word.set_int_custom_property("blessed", int(blessed))
    blessing, decided = made(standard_artifacts.ModelBlessing, "blessing"), made(Decision, "decision")
    candidate = standard_artifacts.Model()
    candidate.uri = str(models / "candidate" if isinstance(models, pathlib.Path) else models)
    executor = ChampionGate.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do(
        {"examples": [examples], "model": [candidate], "evaluation": [evaluation], "model_blessing": [word]},
        {"blessing": [blessing], "decision": [decided]},
        {
            "champion": to_beat,
            "registered_model": registered_model,
            "rules": (rules or Rules()).model_dump_json(),
            "classes": json.dumps(CLASSES),
            "split": "eval",
            "batch_size": 64,
        },
    )
    told = read_decision(decided.uri)
    assert blessing.get_int_custom_property("blessed") == int(told["blessed"])
    name = "BLESSED" if told["blessed"] else "NOT_BLESSED"
    assert [path.name for path in pathlib.Path(blessing.uri).iterdir()] == [name]
    return told


def of(models, name, version="7"):
    return champion.write_champion(str(models / name / "Format-Serving"), version)


@pytest.mark.parametrize("name", ["worse", "worse_in_another_order"])
def test_a_better_candidate_is_blessed_and_every_check_is_told(tmp_path, examples, models, name):
    told = gate(tmp_path, examples, models, of(models, name), rules=Rules(cross=True))
    assert told["blessed"], told["reasons"]
    assert told["champion"] == {"model": str(models / name / "Format-Serving"), "version": "7"}
    checks = {(check["kind"], check["name"]): check for check in told["checks"]}
    overall = checks["better", "accuracy"]
    wrong = {*range(0, COUNT, 10), *range(0, COUNT, 4)}
    assert overall["count"] == COUNT
    assert overall["candidate"] == pytest.approx(0.9)
    assert overall["champion"] == pytest.approx(1 - len(wrong) / COUNT)
    assert checks["better", "recall/Crystals"]["count"] == COUNT / 4
    expected = {f"institution/{name}" for name in ("CSIRO", "Merck")} | {"imager/Minstrel", "imager/Rock"}
    crossed = {f"institution × imager/{one} × {other}" for one, other in PLACES}
    assert {name for kind, name in checks if kind == "slice"} == expected | crossed
    rock = [index for index in range(COUNT) if PLACES[index % 3][1] == "Rock"]
    found = checks["slice", "imager/Rock"]
    assert found["count"] == len(rock)
    assert found["champion"] == pytest.approx(1 - len(wrong & set(rock)) / len(rock))


def test_a_worse_candidate_is_refused_with_the_reasons(tmp_path, examples, models):
    told = gate(tmp_path, examples, models, of(models, "best"))
    assert not told["blessed"]
    assert told["reasons"][0].startswith("no evidence that it is better than the champion: accuracy 100.00% → 90.00%")
    assert any(reason.startswith("accuracy fell by 10.00%") for reason in told["reasons"])


def test_without_a_champion_the_evaluators_word_stands(tmp_path, examples, models):
    told = gate(tmp_path, examples, models, "")
    assert told == {
        "blessed": True,
        "champion": None,
        "reasons": ["there is no champion to beat: the thresholds alone decide"],
        "checks": [],
    }


def test_what_the_evaluator_refuses_is_not_compared(tmp_path, examples, models):
    missed = ["accuracy is 0.5000, and at least 0.9 is wanted"]
    told = gate(tmp_path, examples, models, of(models, "worse"), blessed=False, failures=missed)
    assert (told["blessed"], told["reasons"], told["checks"]) == (False, missed, [])
    assert told["champion"]["version"] == "7"


def test_the_champion_itself_is_blessed_as_what_serves(tmp_path, examples, models):
    (tmp_path / "models").mkdir()
    shutil.copytree(models / "candidate/Format-Serving", tmp_path / "models/4")
    (tmp_path / "models/4/assets.extra/push.json").write_text("{}")
    told = gate(tmp_path, examples, models, champion.write_champion(str(tmp_path / "models")))
    assert told["blessed"]
    assert told["reasons"] == ["it is the champion itself, which is serving already"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("others", "its classes are a, b, c, d, and the candidate's are Clear, Crystals, Other, Precipitate"),
        ("closed", "it has no signature serving_examples"),
        ("gone", "no model in "),
        ("damaged", "it cannot be loaded ("),
        ("diverged", "record 3 of data_tfrecord-00001-of-00002.gz scores that are not finite"),
    ],
)
def test_a_champion_that_cannot_be_compared_with_refuses_and_says_why_and_the_mend(
    tmp_path, examples, models, name, reason
):
    if name == "damaged":
        shutil.copytree(models / "best", tmp_path / "damaged")
        (tmp_path / "damaged/Format-Serving/saved_model.pb").write_bytes(b"\x80half of it")
    to_beat = of(tmp_path if name == "damaged" else models, name)
    told = gate(tmp_path, examples, models, to_beat)
    assert not told["blessed"]
    (sentence,) = told["reasons"]
    assert sentence.startswith("it could not be compared with the champion, version 7 at ")
    assert reason in sentence
    assert "gate.champion" in sentence and "model_name" in sentence


def test_a_champion_in_a_bucket_is_compared_with(tmp_path, examples, models, gcs):
    served = gcs.bucket("served")
    folder = models / "worse/Format-Serving"
    for path in folder.rglob("*"):
        if path.is_file():
            served.blob(f"drops/3/{path.relative_to(folder).as_posix()}").upload_from_filename(str(path))
    told = gate(tmp_path, examples, models, champion.write_champion("gs://served/drops/3", "3"))
    assert told["blessed"], told["reasons"]
    assert len(told["checks"]) == 8


@pytest.fixture
def tracked(tmp_path, models):
    """The model `candidate` as a training with MLflow leaves it: its folder, and its run."""
    from components import mlflow_runs

    store = mlflow_runs.local_store(tmp_path / "mlflow")
    run = mlflow_runs.open_run(store, "marco", "gated", "gated")
    shutil.copytree(models / "candidate", tmp_path / "trained")
    content = {"mlflow_run_id": run.run_id, "tracking_uri": store}
    (tmp_path / "trained" / mlflow_runs.TRAINING_FILE).write_text(json.dumps(content))
    return str(tmp_path / "trained"), run


def test_the_mlflow_run_learns_the_decision(tmp_path, examples, models, tracked):
    trained, run = tracked
    gate(tmp_path, examples, trained, of(models, "best"))
    tags = run.tags()
    assert tags["blessed"] == "false"
    assert tags["failures"].startswith("no evidence that it is better")
    assert tags["gate.champion"].startswith("version 7 at ")
    assert tags["evaluation"] == str(tmp_path / "evaluation")
    assert tags["model.fingerprint"] == model_fingerprint(models / "candidate/Format-Serving")


def crowned(store, place, fingerprint):
    """Registers a champion of `marco` that is published at `place`."""
    from components import mlflow_runs
    from components.mlflow_registry import crown

    client = mlflow_runs.connect(store)
    client.create_registered_model("marco")
    made = client.create_model_version("marco", str(place), tags={"model.fingerprint": fingerprint})
    crown(client, "marco", str(made.version), str(place))


@pytest.mark.parametrize("told", ["", "worse"])
def test_another_model_must_beat_the_champion_of_now_whatever_the_run_was_told(
    tmp_path, examples, models, tracked, told
):
    """As after a change of code, which a run's signature does not tell."""
    trained, run = tracked
    best = models / "best/Format-Serving"
    crowned(run.tracking_uri, best, "another")
    to_beat = of(models, told) if told else ""
    found = gate(tmp_path, examples, trained, to_beat, registered_model="marco")
    assert found["champion"] == {"model": str(best), "version": "1"}
    assert not found["blessed"]
    assert found["reasons"][0].startswith("no evidence that it is better than the champion: accuracy 100.00% → 90.00%")


def test_the_champion_judged_again_is_judged_against_what_it_was_then(tmp_path, examples, models, tracked):
    trained, run = tracked
    crowned(run.tracking_uri, models / "best/Format-Serving", model_fingerprint(models / "candidate/Format-Serving"))
    found = gate(tmp_path, examples, trained, "", registered_model="marco")
    assert (found["blessed"], found["champion"]) == (True, None)


def test_the_registry_does_not_count_where_it_is_not_asked(tmp_path, examples, models, tracked):
    trained, run = tracked
    crowned(run.tracking_uri, models / "best/Format-Serving", "another")
    found = gate(tmp_path, examples, trained, of(models, "worse"))
    assert (found["blessed"], found["champion"]["version"]) == (True, "7")
