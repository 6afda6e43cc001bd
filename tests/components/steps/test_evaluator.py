"""The Evaluator's executor on real artifacts, against scikit-learn on the same predictions."""

import json
import shutil

import numpy as np
import pytest
import sklearn.metrics

from components import evaluations
from components.evaluations import encoded_images
from marco_data import contract
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.model_directory import model_fingerprint
from tests import stores

pytestmark = pytest.mark.slow

PLACES = [("CSIRO", "Minstrel"), ("CSIRO", "Rock"), ("Merck", "Rock")]


def drops(record, count=90):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, [count, 3])
    labels = rng.integers(0, 4, count)
    labels[::2] = np.where(colours[::2, 0] > 130, 1, np.where(colours[::2, 1] > 130, 2, 3))
    records = []
    for index in range(count):
        institution, imager = PLACES[index % 3]
        records.append(record(index, int(labels[index]), institution=institution, imager=imager, colour=colours[index]))
    return records


def judge(folder, examples, model, thresholds, beam_args=(), average=1):
    from tfx.types import standard_artifacts

    from components.steps.evaluation import Evaluator

    def make_artifact(kind, name):
        artifact = kind()
        artifact.uri = str(folder / name)
        return artifact

    evaluation = make_artifact(standard_artifacts.ModelEvaluation, "evaluation")
    blessing = make_artifact(standard_artifacts.ModelBlessing, "blessing")
    trained = standard_artifacts.Model()
    trained.uri = str(model)
    executor = Evaluator.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=list(beam_args), tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do(
        {"examples": [examples], "model": [trained]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "thresholds": json.dumps(thresholds),
            "classes": json.dumps(CLASSES),
            "split": "eval",
            "batch_size": 16,
            "average": average,
        },
    )
    return evaluation, blessing


def predictions(model, examples):
    import tensorflow as tf

    score = tf.saved_model.load(str(model / "Format-Serving")).signatures["serving_examples"]
    serialized = tf.constant([example.SerializeToString() for example in examples])
    labels = [example.features.feature["image/class/label"].int64_list.value[0] for example in examples]
    return np.array(labels), score(examples=serialized)["scores"].numpy()


def check_against_sklearn(found, labels, scores):
    guesses = scores.argmax(axis=1)
    every = range(len(CLASSES))
    matrix = sklearn.metrics.confusion_matrix(labels, guesses, labels=every)
    assert found["confusion_matrix"] == matrix.tolist()
    assert found["count"] == len(labels)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, guesses))
    precision, recall, _, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, guesses, labels=every, zero_division=np.nan
    )
    for index, name in enumerate(CLASSES):
        for kind, values in (("precision", precision), ("recall", recall)):
            got = found[f"{kind}/{name}"]
            assert np.isnan(values[index]) if got is None else got == pytest.approx(values[index])
    for name in ("Crystals", "Precipitate"):
        index = CLASSES.index(name)
        auc = sklearn.metrics.roc_auc_score(labels == index, scores[:, index])
        assert found[f"auc/{name}"] == pytest.approx(auc, abs=1e-9)


def test_every_slice_agrees_with_sklearn_and_the_model_is_blessed(tmp_path, write_examples, record, colour_model):
    records = drops(record)
    artifact = write_examples(tmp_path / "examples", {"train": records[:1], "eval": records}, shards=3)
    evaluation, blessing = judge(tmp_path, artifact, colour_model, {"accuracy": 0.3, "recall/Crystals": 0.3})
    found = evaluations.slice_metrics(evaluation.uri)
    labels, scores = predictions(colour_model, records)
    places = np.array([PLACES[index % 3] for index in range(len(records))])
    assert set(found["slices"]["institution"]) == {"CSIRO", "Merck"}
    assert set(found["slices"]["imager"]) == {"Minstrel", "Rock"}
    check_against_sklearn(found["slices"]["overall"]["all"], labels, scores)
    for column, kind in enumerate(("institution", "imager")):
        for value, slice_found in found["slices"][kind].items():
            chosen = places[:, column] == value
            check_against_sklearn(slice_found, labels[chosen], scores[chosen])
    crossed = found["slices"]["institution × imager"]
    assert set(crossed) == {"CSIRO × Minstrel", "CSIRO × Rock", "Merck × Rock"}
    for value, slice_found in crossed.items():
        chosen = (places == value.split(" × ")).all(axis=1)
        check_against_sklearn(slice_found, labels[chosen], scores[chosen])
    assert found["blessed"] is True and found["failures"] == []
    assert found["model"] == model_fingerprint(colour_model / "Format-Serving")
    assert blessing.get_int_custom_property("blessed") == 1
    assert (tmp_path / "blessing/BLESSED").exists()


def test_averaging_over_views_is_compared_with_single_scores(tmp_path, write_examples, record):
    import keras
    import tensorflow as tf

    from marco_model import classifier

    keras.utils.set_random_seed(1)
    images = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(8, 5, activation="relu")(images)
    pooled = keras.layers.Flatten()(keras.layers.GlobalAveragePooling2D(keepdims=True)(features))
    network = keras.Model(images, keras.layers.Dense(4)(pooled), name="small")
    folder = tmp_path / "model/Format-Serving"
    classifier.export(network, folder, classes=CLASSES, input_size=16, metadata={"name": "small"})
    noise = np.random.default_rng(3).integers(0, 256, [12, 16, 16, 3]).astype(np.uint8)
    encoded = [tf.io.encode_png(image).numpy() for image in noise]
    records = [record(number, number % 4, **{contract.ENCODED: image}) for number, image in enumerate(encoded)]
    artifact = write_examples(tmp_path / "examples", {"eval": records})
    judge(tmp_path, artifact, tmp_path / "model", {"accuracy": 0.0}, average=4)
    found = evaluations.slice_metrics(str(tmp_path / "evaluation"))
    model = tf.saved_model.load(str(folder))
    images = model.images(tf.constant(encoded))
    turned = [images, images[:, ::-1], images[:, :, ::-1], tf.image.rot90(images, 2)]
    expected = np.mean([tf.nn.softmax(model.logits(view)) for view in turned], axis=0)
    averaged = evaluations.scores_of(evaluations.read_predictions(str(tmp_path / "evaluation/averaged")))
    np.testing.assert_allclose(averaged, expected, atol=1e-5)
    labels = np.arange(12) % 4
    accuracy = found["averaged"]["metrics"][0]
    assert (found["averaged"]["views"], accuracy["metric"]) == (4, "accuracy")
    assert accuracy["averaged"] == pytest.approx((expected.argmax(axis=1) == labels).mean())
    assert accuracy["single"] == found["slices"]["overall"]["all"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(accuracy["averaged"] - accuracy["single"])
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]


def test_scores_that_are_not_finite_are_an_error_that_names_the_record(tmp_path, write_examples, record, colour_model):
    import tensorflow as tf

    model = tf.saved_model.load(str(colour_model / "Format-Serving"))
    (weights,) = (variable for variable in model.signatures["serving_examples"].variables if variable.shape == [3, 4])
    weights.assign(np.full([3, 4], np.nan))
    shutil.copytree(colour_model, tmp_path / "diverged")
    tf.saved_model.save(model, str(tmp_path / "diverged/Format-Serving"), signatures=model.signatures)
    artifact = write_examples(tmp_path / "examples", {"eval": drops(record, 8)})
    with pytest.raises(InputError, match=r"gives record 0 of data_tfrecord\S+ scores that are not finite \(nan, nan"):
        judge(tmp_path, artifact, tmp_path / "diverged", {"accuracy": 0.3})


def test_a_damaged_file_of_examples_is_named_with_the_fix(tmp_path, write_examples, record, colour_model):
    artifact = write_examples(tmp_path / "examples", {"eval": drops(record, 8)})
    (file,) = (tmp_path / "examples" / "Split-eval").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file} is damaged at byte [0-9,]+; delete its folder and run the same"):
        judge(tmp_path, artifact, colour_model, {"accuracy": 0.3})


def test_the_table_has_every_example_its_scores_and_the_position_of_its_image(
    tmp_path, write_examples, record, colour_model
):
    records = drops(record)
    for example in records[::2]:
        example.features.feature[contract.PLATE].bytes_list.value.append(b"plate 7")
    artifact = write_examples(tmp_path / "examples", {"train": records[:1], "eval": records}, shards=3)
    evaluation, _ = judge(tmp_path, artifact, colour_model, {"accuracy": 0.3})
    table = evaluations.read_predictions(evaluation.uri)
    assert list(zip(table["shard"], table["index"], strict=True)) == [
        (f"data_tfrecord-{shard:05d}-of-00003", index) for shard in range(3) for index in range(30)
    ]
    order = [shard + 3 * index for shard in range(3) for index in range(30)]
    labels, scores = predictions(colour_model, records)
    assert table["image_id"].tolist() == order
    assert table["filename"].tolist() == [f"{index}.jpg" for index in order]
    assert table["label"].tolist() == labels[order].tolist()
    assert table["plate"].tolist() == ["" if index % 2 else "plate 7" for index in order]
    assert list(zip(table["institution"], table["imager"], strict=True)) == [PLACES[index % 3] for index in order]
    np.testing.assert_allclose(evaluations.scores_of(table), scores[order], atol=1e-6)
    chosen = table.iloc[[71, 3, 40, 3]]
    expected = [
        records[index].features.feature["image/encoded"].bytes_list.value[0] for index in chosen["image_id"].tolist()
    ]
    assert encoded_images(artifact.uri, "eval", chosen) == expected


def test_a_missed_threshold_is_named_with_its_value(tmp_path, write_examples, record, colour_model, caplog):
    records = drops(record, 30)
    artifact = write_examples(tmp_path / "examples", {"eval": records})
    evaluation, blessing = judge(tmp_path, artifact, colour_model, {"accuracy": 0.99, "recall/Crystals": 0.0})
    labels, scores = predictions(colour_model, records)
    accuracy = sklearn.metrics.accuracy_score(labels, scores.argmax(axis=1))
    found = evaluations.slice_metrics(evaluation.uri)
    assert found["failures"] == [f"accuracy is {accuracy:.4f}, and at least 0.99 is wanted"]
    assert found["blessed"] is False
    assert found["failures"][0] in caplog.text
    assert blessing.get_int_custom_property("blessed") == 0
    assert not (tmp_path / "blessing/BLESSED").exists()


def test_without_thresholds_nothing_is_blessed(tmp_path, write_examples, record, colour_model):
    artifact = write_examples(tmp_path / "examples", {"eval": drops(record, 6)})
    evaluation, blessing = judge(tmp_path, artifact, colour_model, {})
    assert evaluations.slice_metrics(evaluation.uri)["blessed"] is False
    assert blessing.get_int_custom_property("blessed") == 0


def test_an_empty_split_is_refused(tmp_path, write_examples, colour_model):
    artifact = write_examples(tmp_path / "examples", {"eval": []})
    with pytest.raises(InputError, match="no examples"):
        judge(tmp_path, artifact, colour_model, {"accuracy": 0.1})


@pytest.mark.long
def test_two_worker_processes_find_the_same(tmp_path, write_examples, record, colour_model):
    """Serialized as a distributed runner would."""
    records = drops(record, 40)
    artifact = write_examples(tmp_path / "examples", {"eval": records}, shards=4)
    arguments = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    evaluation, _ = judge(tmp_path, artifact, colour_model, {"accuracy": 0.1}, arguments)
    check_against_sklearn(
        evaluations.slice_metrics(evaluation.uri)["slices"]["overall"]["all"], *predictions(colour_model, records)
    )


@pytest.mark.long
def test_the_training_run_gets_every_slice_the_verdict_and_the_figure(tmp_path, write_examples, record, colour_model):
    from components import mlflow_runs, mlflow_store

    store = stores.local_store(tmp_path / "mlflow")
    run = mlflow_runs.open_run(store, "marco", "judged", "judged")
    shutil.copytree(colour_model, tmp_path / "model")
    content = {"mlflow_run_id": run.run_id, "tracking_uri": store}
    (tmp_path / "model" / mlflow_runs.TRAINING_FILE).write_text(json.dumps(content))
    artifact = write_examples(tmp_path / "examples", {"eval": drops(record, 30)})
    evaluation, _ = judge(tmp_path, artifact, tmp_path / "model", {"accuracy": 0.99})
    found = mlflow_store.connect(store).get_run(run.run_id)
    slices = evaluations.slice_metrics(evaluation.uri)["slices"]
    assert found.data.metrics["eval/accuracy"] == slices["overall"]["all"]["accuracy"]
    assert found.data.metrics["eval/imager/Rock/accuracy"] == slices["imager"]["Rock"]["accuracy"]
    assert found.data.metrics["eval/institution/Merck/recall/Other"] == slices["institution"]["Merck"]["recall/Other"]
    assert found.data.tags["blessed"] == "false"
    assert "accuracy is" in found.data.tags["failures"]
    assert [file.path for file in mlflow_store.connect(store).list_artifacts(run.run_id)] == ["confusion_matrix.png"]
