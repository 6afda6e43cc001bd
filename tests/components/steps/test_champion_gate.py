"""The gate's executor on real artifacts and models whose predictions are chosen image by image."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest

from components import champion, evaluations
from components.gate import read_decision
from components.settings import Rules
from marco_model.labels import CLASSES
from marco_model.model_directory import model_fingerprint
from tests import stores

pytestmark = pytest.mark.slow

COUNT = 400
LABELS = np.arange(COUNT) % 4
PLACES = [("CSIRO", "Minstrel"), ("CSIRO", "Rock"), ("Merck", "Rock")]


def predict(wrong):
    """Returns the predicted class of each image, int [COUNT]: its label, except for the images `wrong`."""
    guesses = LABELS.copy()
    guesses[list(wrong)] = (LABELS[list(wrong)] + 1) % 4
    return guesses


def save_model(folder, guesses, classes=CLASSES, signature="serving_examples"):
    """Writes a model artifact whose scores follow from the image's id; a guess of 4 gives NaN."""
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

    model, path = Chosen(), pathlib.Path(folder) / "Format-Serving"
    tf.saved_model.save(model, str(path), signatures={signature: model.examples})
    (path / "assets.extra").mkdir()
    (path / "assets.extra/marco.json").write_text(json.dumps({"classes": list(classes)}))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models: `candidate`, wrong on every tenth image; `worse`, wrong also on every fourth; and others."""
    root = tmp_path_factory.mktemp("models")
    tenth, fourth = range(0, COUNT, 10), range(0, COUNT, 4)
    kinds = {
        "candidate": (predict(tenth), CLASSES, "serving_examples"),
        "worse": (predict({*tenth, *fourth}), CLASSES, "serving_examples"),
        "worse_in_another_order": (predict({*tenth, *fourth}), CLASSES[::-1], "serving_examples"),
        "best": (predict([]), CLASSES, "serving_examples"),
        "others": (predict([]), ("a", "b", "c", "d"), "serving_examples"),
        "closed": (predict([]), CLASSES, "serving_default"),
        "diverged": (np.where(np.arange(COUNT) == 7, 4, predict([])), CLASSES, "serving_examples"),
    }
    for name, (guesses, classes, signature) in kinds.items():
        save_model(root / name, guesses, classes, signature)
    return root


@pytest.fixture
def examples(tmp_path, write_examples, record):
    records = []
    for index in range(COUNT):
        institution, imager = PLACES[index % 3]
        records.append(record(index, int(LABELS[index]), institution=institution, imager=imager))
    return write_examples(tmp_path / "examples", {"train": records[:1], "eval": records}, shards=2)


def evaluation_of(folder, guesses, failures):
    """Writes the output of the Evaluator: the candidate's predictions, in the two shards of `examples`."""
    index = np.arange(COUNT)
    frame = pd.DataFrame(
        {
            "shard": [f"data_tfrecord-{number % 2:05d}-of-00002" for number in index],
            "index": (index // 2).astype(np.int32),
            "image_id": index,
            "filename": [f"{number}.jpg" for number in index],
            "label": LABELS.astype(np.int16),
            "institution": [PLACES[number % 3][0] for number in index],
            "imager": [PLACES[number % 3][1] for number in index],
            "scores": list(np.eye(4, dtype=np.float32)[guesses]),
            "plate": "",
        }
    )
    evaluations.write_predictions(frame, folder / evaluations.PREDICTIONS_FILE)
    (folder / "metrics.json").write_text(json.dumps({"failures": list(failures)}))


def gate(
    folder,
    examples,
    models,
    to_beat,
    blessed=True,
    failures=(),
    rules=None,
    registered_model="",
    initial="",
    guesses=None,
):
    """Runs the gate on the model `candidate` and returns its decision, which must equal the blessing.

    `guesses`: what the Evaluator saw of the candidate; None for what it answers.
    """
    from tfx.types import standard_artifacts

    from components.artifacts import Decision
    from components.steps.evaluation import ChampionGate

    def make_artifact(kind, name):
        artifact = kind()
        artifact.uri = str(folder / name)
        pathlib.Path(artifact.uri).mkdir(parents=True, exist_ok=True)
        return artifact

    evaluation = make_artifact(standard_artifacts.ModelEvaluation, "evaluation")
    guesses = predict(range(0, COUNT, 10)) if guesses is None else guesses
    evaluation_of(pathlib.Path(evaluation.uri), guesses, failures)
    verdict = make_artifact(standard_artifacts.ModelBlessing, "verdict")
    verdict.set_int_custom_property("blessed", int(blessed))
    blessing = make_artifact(standard_artifacts.ModelBlessing, "blessing")
    output = make_artifact(Decision, "decision")
    candidate = standard_artifacts.Model()
    candidate.uri = str(models / "candidate" if isinstance(models, pathlib.Path) else models)
    executor = ChampionGate.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do(
        {"examples": [examples], "model": [candidate], "evaluation": [evaluation], "model_blessing": [verdict]},
        {"blessing": [blessing], "decision": [output]},
        {
            "champion": to_beat,
            "registered_model": registered_model,
            "initial": initial,
            "rules": (rules or Rules()).model_dump_json(),
            "classes": json.dumps(CLASSES),
            "split": "eval",
            "batch_size": 64,
        },
    )
    decision = read_decision(output.uri)
    assert blessing.get_int_custom_property("blessed") == int(decision["blessed"])
    name = "BLESSED" if decision["blessed"] else "NOT_BLESSED"
    assert [path.name for path in pathlib.Path(blessing.uri).iterdir()] == [name]
    return decision


def champion_at(models, name, version="7"):
    return champion.write_champion(str(models / name / "Format-Serving"), version)


@pytest.mark.parametrize("name", ["worse", "worse_in_another_order"])
def test_a_better_candidate_is_blessed_and_every_check_is_recorded(tmp_path, examples, models, name):
    decision = gate(tmp_path, examples, models, champion_at(models, name), rules=Rules(cross=True))
    assert decision["blessed"], decision["reasons"]
    assert decision["champion"] == {"model": str(models / name / "Format-Serving"), "version": "7"}
    checks = {(check["kind"], check["name"]): check for check in decision["checks"]}
    overall = checks["better", "accuracy"]
    wrong = {*range(0, COUNT, 10), *range(0, COUNT, 4)}
    assert overall["count"] == COUNT
    assert overall["candidate"] == pytest.approx(0.9)
    assert overall["champion"] == pytest.approx(1 - len(wrong) / COUNT)
    assert checks["better", "recall/Crystals"]["count"] == COUNT / 4
    expected = {f"institution/{name}" for name in ("CSIRO", "Merck")} | {"imager/Minstrel", "imager/Rock"}
    crossed = {f"institution × imager/{institution} × {imager}" for institution, imager in PLACES}
    assert {name for kind, name in checks if kind == "slice"} == expected | crossed
    rock = [index for index in range(COUNT) if PLACES[index % 3][1] == "Rock"]
    found = checks["slice", "imager/Rock"]
    assert found["count"] == len(rock)
    assert found["champion"] == pytest.approx(1 - len(wrong & set(rock)) / len(rock))


def test_a_worse_candidate_is_refused_with_the_reasons(tmp_path, examples, models):
    decision = gate(tmp_path, examples, models, champion_at(models, "best"))
    assert not decision["blessed"]
    assert decision["reasons"][0].startswith(
        "no evidence that it is better than the champion: accuracy 100.00% → 90.00%"
    )
    assert any(reason.startswith("accuracy fell by 10.00%") for reason in decision["reasons"])


def test_without_a_champion_the_candidate_must_be_better_than_one_answer(tmp_path, examples, models):
    decision = gate(tmp_path, examples, models, "")
    assert (decision["blessed"], decision["champion"]) == (True, None)
    (reason,) = decision["reasons"]
    assert reason.startswith(
        "there is no champion to beat, and it is better than always answering Clear: accuracy 25.00% → 90.00% of 400 "
    )
    (check,) = decision["checks"]
    assert (check["kind"], check["count"], check["champion"], check["passed"]) == ("constant", COUNT, 0.25, True)


def test_a_candidate_of_one_answer_is_refused_without_a_champion(tmp_path, examples, models, tracked):
    trained, run = tracked
    decision = gate(tmp_path, examples, trained, "", guesses=np.full(COUNT, 2))
    assert not decision["blessed"]
    assert decision["reasons"] == [
        "no evidence that it is better than always answering Clear: accuracy 25.00% against 25.00% of 400 images, "
        "p = 0.53; p of at most 0.025 is wanted"
    ]
    assert run.tags()["failures"] == decision["reasons"][0]


def test_a_trial_run_may_ask_for_no_evidence(tmp_path, examples, models):
    decision = gate(tmp_path, examples, models, "", rules=Rules(evidence=False), guesses=np.full(COUNT, 2))
    assert decision == {
        "blessed": True,
        "champion": None,
        "reasons": ["there is no champion to beat, and gate.evidence is false: the thresholds alone decide"],
        "checks": [],
    }


def test_the_model_that_training_began_with_is_the_first_champion(tmp_path, examples, models):
    start = str(models / "worse" / "Format-Serving")
    decision = gate(tmp_path, examples, models, "", initial=start)
    assert decision["blessed"]
    assert decision["champion"] == {"model": start, "version": "start"}
    assert decision["reasons"][0].startswith("better than the model that training began with: accuracy 70.00% → 90.00%")


def test_a_training_that_made_its_first_weights_worse_is_refused(tmp_path, examples, models, tracked):
    trained, run = tracked
    start = str(models / "best" / "Format-Serving")
    decision = gate(tmp_path, examples, trained, "", initial=start)
    assert not decision["blessed"]
    assert decision["reasons"][0].startswith("no evidence that it is better than the model that training began with: ")
    assert decision["reasons"][1].startswith("accuracy fell by 10.00%")
    assert decision["reasons"][-1].endswith("with gate.champion=none there is no model to beat")
    assert run.tags()["gate.champion"] == f"the model that training began with ({start})"


@pytest.mark.parametrize(("to_beat", "initial"), [("", "random"), ("", "others"), ("worse", "best")])
def test_a_start_of_other_classes_and_one_beside_a_champion_do_not_count(tmp_path, examples, models, to_beat, initial):
    place = initial if initial == "random" else str(models / initial / "Format-Serving")
    decision = gate(tmp_path, examples, models, to_beat and champion_at(models, to_beat), initial=place)
    assert decision["blessed"]
    assert (decision["champion"] or {"version": None})["version"] == ("7" if to_beat else None)


def test_a_model_that_the_evaluator_refuses_is_not_compared(tmp_path, examples, models):
    missed = ["accuracy is 0.5000, and at least 0.9 is wanted"]
    decision = gate(tmp_path, examples, models, champion_at(models, "worse"), blessed=False, failures=missed)
    assert (decision["blessed"], decision["reasons"], decision["checks"]) == (False, missed, [])
    assert decision["champion"]["version"] == "7"


@pytest.mark.parametrize(
    ("to_beat", "steps", "start"),
    [
        ("", 30, "training gained nothing: at no evaluation in 30 steps"),
        ("worse", 30, "training gained nothing: at no evaluation in 30 steps"),
        ("", 0, "nothing was trained: the weights that training begins with"),
    ],
)
def test_a_model_with_the_weights_its_training_began_with_is_refused(tmp_path, examples, models, to_beat, steps, start):
    from components import mlflow_runs

    trained = tmp_path / "trained"
    shutil.copytree(models / "candidate", trained)
    (trained / mlflow_runs.TRAINING_FILE).write_text(json.dumps({"steps": steps, "best_step": 0, "accuracy": 0.918}))
    to_beat = to_beat and champion.write_champion(str(models / to_beat / "Format-Serving"))
    decision = gate(tmp_path, examples, str(trained), to_beat)
    assert not decision["blessed"]
    (reason,) = decision["reasons"]
    assert reason.startswith(start)
    assert "91.8%" in reason and "--validation-share" in reason


def test_the_champion_itself_is_blessed_because_it_serves_already(tmp_path, examples, models):
    (tmp_path / "models").mkdir()
    shutil.copytree(models / "candidate/Format-Serving", tmp_path / "models/4")
    (tmp_path / "models/4/assets.extra/push.json").write_text("{}")
    decision = gate(tmp_path, examples, models, champion.write_champion(str(tmp_path / "models")))
    assert decision["blessed"]
    assert decision["reasons"] == ["it is the champion itself, which is serving already"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("others", "its classes are a, b, c, d, and the candidate's are Clear, Crystals, Other, Precipitate"),
        ("closed", "it has no signature serving_examples"),
        ("gone", "no model in "),
        ("damaged", "cannot be loaded: it is damaged"),
        ("diverged", "record 3 of data_tfrecord-00001-of-00002 scores that are not finite"),
    ],
)
def test_a_champion_that_cannot_be_compared_with_is_a_refusal_with_reason_and_fix(
    tmp_path, examples, models, name, reason
):
    if name == "damaged":
        shutil.copytree(models / "best", tmp_path / "damaged")
        (tmp_path / "damaged/Format-Serving/saved_model.pb").write_bytes(b"\x80half of it")
    to_beat = champion_at(tmp_path if name == "damaged" else models, name)
    decision = gate(tmp_path, examples, models, to_beat)
    assert not decision["blessed"]
    (sentence,) = decision["reasons"]
    assert sentence.startswith("it could not be compared with the champion, version 7 at ")
    assert reason in sentence
    assert "gate.champion" in sentence and "model_name" in sentence


def test_a_champion_in_a_bucket_is_compared(tmp_path, examples, models, gcs):
    served = gcs.bucket("served")
    folder = models / "worse/Format-Serving"
    for path in folder.rglob("*"):
        if path.is_file():
            served.blob(f"drops/3/{path.relative_to(folder).as_posix()}").upload_from_filename(str(path))
    decision = gate(tmp_path, examples, models, champion.write_champion("gs://served/drops/3", "3"))
    assert decision["blessed"], decision["reasons"]
    assert len(decision["checks"]) == 8


@pytest.fixture
def tracked(tmp_path, models):
    """The folder of the model `candidate` as a training with MLflow writes it, and its run."""
    from components import mlflow_runs

    store = stores.local_store(tmp_path / "mlflow")
    run = mlflow_runs.open_run(store, "marco", "gated", "gated")
    shutil.copytree(models / "candidate", tmp_path / "trained")
    content = {"mlflow_run_id": run.run_id, "tracking_uri": store}
    (tmp_path / "trained" / mlflow_runs.TRAINING_FILE).write_text(json.dumps(content))
    return str(tmp_path / "trained"), run


def test_the_decision_is_logged_to_the_mlflow_run(tmp_path, examples, models, tracked):
    trained, run = tracked
    gate(tmp_path, examples, trained, champion_at(models, "best"))
    tags = run.tags()
    assert tags["blessed"] == "false"
    assert tags["failures"].startswith("no evidence that it is better")
    assert tags["gate.champion"].startswith("version 7 at ")
    assert tags["evaluation"] == str(tmp_path / "evaluation")
    assert tags["model.fingerprint"] == model_fingerprint(models / "candidate/Format-Serving")


def crown_at(store, place, fingerprint):
    """Registers a champion of `marco` that is published at `place`."""
    from components import mlflow_store
    from components.mlflow_registry import crown

    client = mlflow_store.connect(store)
    client.create_registered_model("marco")
    version = client.create_model_version("marco", str(place), tags={"model.fingerprint": fingerprint})
    crown(client, "marco", str(version.version), str(place))


@pytest.mark.parametrize("earlier", ["", "worse"])
def test_a_changed_model_must_beat_the_current_champion_and_not_the_one_the_run_began_with(
    tmp_path, examples, models, tracked, earlier
):
    """As after a change of code, which is not part of a run's signature."""
    trained, run = tracked
    best = models / "best/Format-Serving"
    crown_at(run.tracking_uri, best, "another")
    to_beat = champion_at(models, earlier) if earlier else ""
    decision = gate(tmp_path, examples, trained, to_beat, registered_model="marco")
    assert decision["champion"] == {"model": str(best), "version": "1"}
    assert not decision["blessed"]
    assert decision["reasons"][0].startswith(
        "no evidence that it is better than the champion: accuracy 100.00% → 90.00%"
    )


def test_the_champion_is_judged_again_against_the_champion_of_its_first_judgement(tmp_path, examples, models, tracked):
    trained, run = tracked
    crown_at(run.tracking_uri, models / "best/Format-Serving", model_fingerprint(models / "candidate/Format-Serving"))
    decision = gate(tmp_path, examples, trained, "", registered_model="marco")
    assert (decision["blessed"], decision["champion"]) == (True, None)


def test_the_registry_is_ignored_unless_it_is_asked(tmp_path, examples, models, tracked):
    trained, run = tracked
    crown_at(run.tracking_uri, models / "best/Format-Serving", "another")
    decision = gate(tmp_path, examples, trained, champion_at(models, "worse"))
    assert (decision["blessed"], decision["champion"]["version"]) == (True, "7")
