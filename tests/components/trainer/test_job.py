import copy
import dataclasses
import typing

import pytest

from components.machines import Machines, Placement, Replicas
from components.settings import Parameter, Transform, Tuning
from components.trainer import job as jobs
from components.vertex.options import Vertex
from marco_model import example_files, recipe
from marco_model.errors import InputError
from marco_model.network import RELEASED, Network
from marco_model.recipe import Engine, Recipe
from tests import small_training

PURPOSES = typing.get_args(jobs.Purpose)
SPACE = {"recipe.momentum": Parameter(min=0.5, max=0.9)}
PLACE = Vertex(project="crystals", location="europe-west4")
# For each field, or field of a field (with a dot): the purposes that depend on it, and another value.
ALL, TRAINING, RUN = {"checkpoints", "search", "run"}, {"checkpoints", "search"}, {"run"}
CHANGES = {
    "classes": (ALL, ("Crystals", "Clear")),
    "network": (ALL, Network(variant="released")),
    "network.initial": (RUN, RELEASED),
    "recipe": (ALL, Recipe(steps=11)),
    "transform": (ALL, Transform(shorter_side=800)),
    "data": (ALL, jobs.DataSet(overlay="overlay.csv")),
    "data.source": (TRAINING, "elsewhere"),
    "data.fingerprint": (ALL, "0b"),
    "initial": (ALL, "0b"),
    "left_out": (ALL, jobs.LeftOut(attribute="imager", value="Rock", sources="sources.npz")),
    "left_out.sources": (set(), "elsewhere"),
    "transform_graph": (TRAINING, "graph/2"),
    "tuning": ({"search", "run"}, Tuning(space=SPACE, steps=9)),
    "tuning.trials": (RUN, 99),
    "engine": (RUN, Engine(kind="mirrored")),
    "tflite": (RUN, True),
    "time_course": (RUN, True),
    "tracking": (set(), jobs.TrackingServer(uri="http://server", experiment="other", artifacts="gs://bucket")),
    "name": (set(), "other"),
    "key": (set(), "0b"),
    "checkpoints": (set(), "elsewhere"),
    "model_directory": (set(), "elsewhere"),
    "targets": (set(), example_files.Targets(raw_labels={3: "needles"})),
    "train_files": (set(), ["train.tfrecord"]),
    "validation_files": (set(), ["eval.tfrecord"]),
    "placement": (set(), Placement(shared="/shared", replicas=Replicas(workers=3))),
    "gpus": (set(), 4),
    "custom_job": (set(), jobs.CustomJob(place=PLACE, machines=Machines(), image="marco")),
}
LEFT_OUT = jobs.LeftOut(attribute="institution", value="Bristol-Myers Squibb")
BASE = small_training.job(tuning=Tuning(space=SPACE), left_out=LEFT_OUT)


def with_value(job, field, value):
    """Returns the job with another value of a field, or of a field of a field, which is not checked."""
    name, _, inner = field.partition(".")
    if inner:
        section = copy.copy(getattr(job, name))
        object.__setattr__(section, inner, value)
        value = section
    return job.model_copy(update={name: value})


def decides(field, value):
    other = with_value(BASE, field, value)
    assert other != BASE, field
    return {purpose for purpose in PURPOSES if other.identity(purpose) != BASE.identity(purpose)}


def test_every_field_decides_as_it_is_marked():
    assert {field for field in CHANGES if "." not in field} == set(jobs.TrainingJob.model_fields)
    for field, (purposes, value) in CHANGES.items():
        assert decides(field, value) == purposes, field


def test_every_value_of_a_section_decides_as_the_section_does():
    for section in ("network", "recipe", "engine", "transform", "data", "tuning", "left_out"):
        for name in vars(getattr(BASE, section)):
            field = f"{section}.{name}"
            if field not in CHANGES:
                assert decides(field, "another") == CHANGES[section][0], field


def test_trainings_without_what_was_added_later_are_named_as_before_there_was_it(monkeypatch):
    def later(content):
        return {name: content["recipe"][name] for name in recipe.LATER if name in content["recipe"]}

    monkeypatch.setattr(jobs.settings, "digest", later)
    assert all(BASE.identity(purpose) == {} for purpose in PURPOSES)
    for name, value in {
        "stated_for_batch": 64,
        "raw_weight": 0.5,
        "unlabelled": ("Merck",),
        "sources": "imager",
    }.items():
        found = with_value(BASE, f"recipe.{name}", value).identity("checkpoints")
        assert found == {name: list(value) if isinstance(value, tuple) else value}


def test_a_training_that_leaves_nothing_out_is_named_as_before_it_could(monkeypatch):
    monkeypatch.setattr(jobs.settings, "digest", lambda content: str("left_out" in content))
    assert {small_training.job().identity(purpose) for purpose in PURPOSES} == {"False"}
    assert {BASE.identity(purpose) for purpose in PURPOSES} == {"True"}


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        ("Bristol-Myers Squibb", "Bristol-Myers-Squibb"),
        (" a/b  (2) ", "a-b-2"),
        ("藤", ""),
        ("x" * 39 + "-y", "x" * 39),
    ],
)
def test_a_training_without_a_source_has_a_name_of_its_own_and_no_tflite_model(value, slug):
    left_out = jobs.LeftOut(attribute="institution", value=value)
    job = small_training.job(tflite=True).without(left_out)
    assert (left_out.slug, job.name) == (slug, f"small-without-{slug}".rstrip("-"))
    assert (job.left_out, job.tflite) == (left_out, False)
    assert bind(job).checkpoints != bind(small_training.job()).checkpoints


def test_adversarial_training_without_a_source_sees_its_images_and_not_its_labels():
    left_out = jobs.LeftOut(attribute="imager", value="Rock")
    recipe = dataclasses.replace(small_training.job().recipe, adversarial_weight=0.03, unlabelled=("HWMRI",))
    by_imager = dataclasses.replace(recipe, sources="imager")
    job = small_training.job(recipe=by_imager).without(left_out)
    assert (job.recipe.unlabelled, job.sees_unlabelled) == (("HWMRI", "Rock"), True)
    for other in (recipe, dataclasses.replace(by_imager, adversarial_weight=0.0)):
        job = small_training.job(recipe=other).without(left_out)
        assert (job.recipe.unlabelled, job.sees_unlabelled) == (("HWMRI",), False)


def test_the_identity_does_not_depend_on_how_a_job_was_made():
    again = jobs.TrainingJob.model_validate_json(BASE.model_dump_json())
    assert again == BASE
    assert [again.identity(purpose) for purpose in PURPOSES] == [BASE.identity(purpose) for purpose in PURPOSES]
    assert len({BASE.identity(purpose) for purpose in PURPOSES}) == 3


def bind(job, parameters=None, **best):
    return job.bind(
        parameters or jobs.TrainingParameters("gs://bucket/marco", "0a"),
        transform_graph="graph/1",
        train_files=["train.tfrecord"],
        validation_files=["eval.tfrecord"],
        model_directory="model",
        best=best,
    )


def test_a_bound_job_has_the_data_of_its_run_and_a_place_of_its_own():
    job = bind(small_training.job(data=jobs.DataSet(overlay="gs://bucket/overlay.csv")))
    assert job.data == jobs.DataSet(source="gs://bucket/marco", fingerprint="0a", overlay="gs://bucket/overlay.csv")
    assert (job.initial, job.recipe) == ("random", Recipe())
    assert len(job.key) == 16 and job.identity("checkpoints").startswith(job.key)
    assert (job.name, job.checkpoints) == (f"small-{job.key[:8]}", f"checkpoints/{job.key}")
    assert (job.train_files, job.validation_files, job.model_directory) == (
        ["train.tfrecord"],
        ["eval.tfrecord"],
        "model",
    )


def test_the_steps_of_a_run_replace_the_recipes():
    job = bind(small_training.job(), jobs.TrainingParameters("a", "0a", "random", steps="20"))
    assert job.recipe == Recipe(steps=20)
    assert job.key != bind(small_training.job()).key


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "many", " 5"])
def test_steps_that_are_not_a_number_are_refused(text):
    with pytest.raises(InputError, match="give a whole number above 0"):
        bind(small_training.job(), jobs.TrainingParameters("a", "0a", steps=text))


def test_a_search_gives_its_best_values_and_keeps_its_own():
    best = {"recipe.momentum": 0.5, "network.variant": "released", "tuner/epochs": 3}
    job = bind(small_training.job(recipe=Recipe(steps=5)), **best)
    assert job.recipe == Recipe(steps=5, momentum=0.5)
    assert job.network.variant == "released"


def test_the_targets_are_those_of_the_data_and_of_each_trials_recipe(tmp_path):
    small_training.write_examples(tmp_path / "train.tfrecord", 6)
    (tmp_path / "labels-raw.csv").write_text("id,name\n0,clear drop\n1,needles\n2,plates\n")
    files = {"transform_graph": "", "train_files": [str(tmp_path / "train.tfrecord")], "validation_files": []}
    parameters = jobs.TrainingParameters(str(tmp_path), "0a")
    assert small_training.job().bind(parameters, **files).targets == example_files.NO_TARGETS
    job = small_training.job(recipe=Recipe(raw_weight=0.3)).bind(parameters, **files)
    assert job.targets == example_files.Targets(raw_labels={0: "clear drop", 1: "needles"})
    assert jobs.TrainingJob.model_validate_json(job.model_dump_json()) == job
    assert job.with_values({"recipe.raw_weight": 0.0}).targets == example_files.NO_TARGETS
    with pytest.raises(InputError, match=r"recipe\.adversarial_weight needs .* there are none"):
        job.with_values({"recipe.adversarial_weight": 1.0, "recipe.sources": "imager"})
    by_institution = job.with_values({"recipe.adversarial_weight": 1.0, "recipe.raw_weight": 0.0})
    assert by_institution.targets == example_files.Targets("institution", ("CSIRO", "HWMRI", "Merck"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.tfrecord").touch()
    (tmp_path / "other" / "labels-raw.csv").write_text("0,good\n")
    with pytest.raises(InputError, match=r"^0 is 'good' in .*other/labels-raw\.csv and 'clear drop' in "):
        job.with_values({"recipe.raw_weight": 0.5})


def test_training_does_not_begin_from_a_model_that_changed_since_the_run_began():
    job = small_training.job(network=Network(variant="released", initial=RELEASED))
    with pytest.raises(InputError, match="the model in released has changed since this run began"):
        bind(job, jobs.TrainingParameters("a", "0a", initial="0a"))


def test_a_job_is_read_as_it_was_written(tmp_path):
    machines = Machines(workers=4, accelerator="NVIDIA_TESLA_T4", accelerators=2)
    custom_job = jobs.CustomJob(place=PLACE, machines=machines, image="marco", environment={"A": "1"})
    placement = Placement(shared="/shared", replicas=Replicas(workers=3))
    job = small_training.job(
        tuning=Tuning(space=SPACE), custom_job=custom_job, placement=placement, checkpoints=f"{tmp_path}/key"
    )
    job.write()
    assert jobs.read(f"{tmp_path}/key/job.json") == job


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"network": {"depth": 3}}'])
def test_a_file_that_is_not_a_job_is_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(InputError, match=r"other\.json is not a training job .* give the job\.json"):
        jobs.read(str(tmp_path / "other.json"))
    with pytest.raises(InputError, match=r"missing\.json is not a training job"):
        jobs.read(str(tmp_path / "missing.json"))
