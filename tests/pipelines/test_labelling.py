import pathlib
import re

import pytest
import yaml

from marco_data.name_tables import write_tables
from marco_model.errors import InputError
from marco_model.labels import FOUR, TEN_CLASSES
from pipelines import configuration
from pipelines.configuration import Labels, label_scheme

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "labels.md"
RAW = "id,name\n0,clear drop\n3,needles\n4,Needles\n9,dark\n"


@pytest.fixture
def shards(tmp_path):
    """A folder that looks like a set whose raw labels are named; no shard is opened here."""
    (tmp_path / "train-00001-of-00001").write_bytes(b"")
    (tmp_path / "labels-raw.csv").write_text(RAW)
    write_tables(tmp_path)
    return tmp_path


def test_the_default_is_marcos_four_classes():
    assert label_scheme(Labels(), "nowhere") == FOUR
    assert label_scheme(Labels(scheme="four"), "nowhere") == FOUR


def test_the_ten_classes_need_no_file_while_the_pipeline_is_built():
    scheme = label_scheme(Labels(scheme="hwmri10", from_raw={"needles": "crystals", 12: None}), "gs://nowhere")
    assert scheme.classes == tuple(TEN_CLASSES)
    assert scheme.classes[scheme.index_of("Needles", 1)] == "Crystals"
    assert scheme.index_of("whatever", 12) is None


def test_raw_labels_are_read_where_the_shards_are(shards):
    for source in (shards, shards / "train-*"):
        assert label_scheme(Labels(scheme="raw"), str(source)).classes == ("clear drop", "needles", "dark")
    merged = label_scheme(Labels(scheme="raw", from_raw={9: "clear drop"}), str(shards))
    assert merged.classes == ("clear drop", "needles")


def test_raw_labels_of_several_sets_must_not_contradict_each_other(shards, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "train-00001-of-00001").write_bytes(b"")
    (other / "labels-raw.csv").write_text("0,clear drop\n7,plates\n")
    classes = label_scheme(Labels(scheme="raw"), str(shards), str(other)).classes
    assert classes == ("clear drop", "needles", "plates", "dark")
    (other / "labels-raw.csv").write_text("3,plates\n")
    with pytest.raises(
        InputError, match=r"3 is 'plates' in .*other/labels-raw\.csv and 'needles' in .*labels-raw\.csv"
    ):
        label_scheme(Labels(scheme="raw"), str(shards), str(other))


def test_raw_labels_that_cannot_be_read_are_reported_in_one_line(shards):
    with pytest.raises(InputError, match=r"labels-raw\.csv: .*nowhere.* does not exist.*; or list labels\.classes"):
        label_scheme(Labels(scheme="raw"), str(shards / "nowhere"))
    (shards / "labels-raw.csv").unlink()
    with pytest.raises(InputError, match=r"finds no labels-raw\.csv at .*list labels\.classes"):
        label_scheme(Labels(scheme="raw"), str(shards))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{scheme: ten}", "labels.scheme is 'ten'; it must be 'four', 'hwmri10' or 'raw'"),
        ("{scheme: raw, classes: [a, b]}", "both scheme 'raw' and classes"),
        ("{from_raw: {a: b}}", "labels.from_raw needs labels.classes"),
        ("{scheme: hwmri10, from_class: {Clear: Clear}}", "labels.from_class needs labels.classes"),
        ("{classes: [a, b], from_raw: {c: a}, from_class: {Clear: a}}", "both from_raw and from_class"),
        ("{classes: [a]}", "labels.classes is ['a']; name at least two"),
        ("{classes: [a, b], from_raw: {x: c}}", "'x' stands for 'c'; the classes are a, b"),
        ("{scheme: hwmri10, from_raw: {x: Sand}}", "'x' stands for 'Sand'; the classes are Clear, Crystals, Garbage"),
        ("{classes: [a, b], from_raw: {yes: a}}", "is True; it must be a valid string"),
        ("{classes: [a, b], other: 1}", "unknown key 'labels.other'"),
    ],
)
def test_contradictory_labels_are_reported_in_one_line(section, message):
    with pytest.raises(InputError) as error:
        configuration.load("local", [f"labels={section}", "thresholds={accuracy: 0}"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_thresholds_are_checked_against_the_trained_classes():
    with pytest.raises(InputError, match=r"'recall/Crystals' names no metric; choose from accuracy, precision/Hit"):
        configuration.load("local", ["labels.classes=[Hit, Miss]"])
    assert configuration.load("local", ["labels.scheme=hwmri10"]).labels.scheme == "hwmri10"
    loaded = configuration.load("local", ["labels.classes=[Hit, Miss]", "thresholds={auc/Hit: 0.9, recall/Hit: 0.5}"])
    assert set(loaded.thresholds) == {"auc/Hit", "recall/Hit"}


@pytest.mark.slow
def test_the_reports_target_is_checked_against_raw_labels_when_the_graph_is_built(shards, tmp_path):
    from components.trainer.job import TrainingParameters
    from pipelines import places
    from pipelines.pipeline import create_pipeline

    def make(target):
        changes = ["labels.scheme=raw", "thresholds={accuracy: 0}", f"report.target={target}"]
        loaded = configuration.load("local", changes)
        scheme = label_scheme(loaded.labels, str(shards))
        return create_pipeline(loaded, places.local(loaded, tmp_path), scheme, TrainingParameters(str(shards), "f00d"))

    make("needles")
    with pytest.raises(InputError, match=r"report\.target is 'needle'; give one of clear drop, needles, dark"):
        make("needle")


def test_the_labels_of_your_own_file_are_read_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nlabels: {classes: [Hit, Miss]}\n")
    assert configuration.load_labels(str(tmp_path / "mine.yaml")).classes == ("Hit", "Miss")
    assert configuration.load_labels("raw").scheme == "raw"
    with pytest.raises(InputError, match="scheme is 'ten'"):
        configuration.load_labels("ten")
    with pytest.raises(InputError, match="there is no file"):
        configuration.load_labels(str(tmp_path / "yours.yaml"))


def test_every_example_in_the_documentation_is_a_section_that_loads():
    found = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(found) >= 4
    for text in found:
        values = yaml.safe_load(text)
        Labels.model_validate(values["labels"])


@pytest.mark.slow
def test_a_package_for_a_cluster_passes_the_classes_to_every_step(tmp_path):
    from pipelines import compilation

    loaded = configuration.load("local", ["labels.scheme=hwmri10", "tracking.uri=http://mlflow:5000"])
    compilation.compile_for_kubeflow(loaded, "gs://bucket/runs", tmp_path / "marco.yaml")
    package, _ = yaml.safe_load_all((tmp_path / "marco.yaml").read_text())
    for step, parameter in (
        ("MarcoExampleGen", "options"), ("CuratedSchema", "classes"), ("Evaluator", "classes"),
        ("Trainer", "training"),
    ):  # fmt: skip
        parameters = package["root"]["dag"]["tasks"][step]["inputs"]["parameters"]
        assert "Phase separation and precipitate" in str(parameters[parameter])
