"""A training as one value: everything that a process needs to take part in it, on whatever machine.

The graph describes a `TrainingJob` once (`pipelines.pipeline.training_job`) and passes it to the Tuner and the Trainer
as JSON. A step binds it to the data of its run and writes it beside the checkpoints as `job.json`, from which the other
processes of a cluster read it (`marco train`).
"""

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from components import machines as pools, settings
from components.vertex.options import Vertex
from marco_data import name_tables, shards
from marco_model import errors, example_files, network as networks, recipe as recipes, store

if TYPE_CHECKING:
    from tfx.orchestration.data_types import RuntimeParameter

FILE = "job.json"

Purpose = Literal["checkpoints", "search", "run"]
"""What a job's identity is asked for: whose checkpoints it resumes, which search its trials belong to, and which run of
the pipeline it is to the gate."""


@dataclasses.dataclass(frozen=True)
class Decides:
    """Marks a field of `TrainingJob`: jobs that differ in it, but for its own fields `ignored`, are not the same.

    A field without this mark decides for no purpose.
    """

    purposes: tuple[Purpose, ...]
    ignored: frozenset[str] = frozenset()


ALWAYS = Decides(("checkpoints", "search", "run"))
TRAINING = Decides(("checkpoints", "search"))
RUN = Decides(("run",))


class DataSet(settings.Section):
    """The shards that a job trains on: where they lie, a fingerprint of their content, and their overlay, if any.

    The graph knows the overlay alone.
    """

    source: str = ""
    fingerprint: str = ""
    overlay: str = ""


class LeftOut(settings.Section):
    """The images that a training does not see, in neither split: those whose `attribute` has this value.

    `sources`: the file that says which these are (`components.leave_out`). The graph does not know it.
    """

    attribute: settings.SourceAttribute
    value: str
    sources: str = ""

    @property
    def slug(self) -> str:
        """The value in letters, digits and single hyphens, for names of steps and models; it may be empty."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.value).strip("-")[:40].rstrip("-")


class TrackingServer(settings.Section):
    """MLflow's URI, the experiment, and the URI below which a new experiment keeps its artifacts."""

    uri: str
    experiment: str
    artifacts: str | None = None


class CustomJob(settings.Section):
    """A training on several machines of Vertex AI: where, on which machines, and what their containers run."""

    place: Vertex
    machines: pools.Machines
    image: str
    environment: dict[str, str] = pydantic.Field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TrainingParameters:
    """What a schedule changes from run to run: parameters of the steps that train, beside the job that stays.

    `source` and `fingerprint` of the data; `initial`, the fingerprint of the weights that training begins from, empty
    if it is not known before the run; `steps`, empty for the recipe's own. Each is a string, or a parameter of a
    compiled package: such a parameter cannot be inside the JSON of the job, where TFX leaves it as text.
    """

    source: "str | RuntimeParameter"
    fingerprint: "str | RuntimeParameter"
    initial: "str | RuntimeParameter" = ""
    steps: "str | RuntimeParameter" = ""


def parse_steps(text: str) -> int | None:
    """Returns the steps that the parameter `steps` asks for, None for the recipe's.

    Raises `InputError` if it is not a whole number above 0.
    """
    if not text:
        return None
    if not text.isdecimal() or not int(text):
        raise errors.InputError(f"steps is {text!r}; give a whole number above 0, or nothing for the recipe's own")
    return int(text)


class TrainingJob(settings.Section):
    """What is trained on what, and where it goes; paths are local or URIs, and the same for every process."""

    # Names in index order.
    classes: Annotated[tuple[str, ...], ALWAYS]
    # Where the first weights lie does not matter to a training: their fingerprint, `initial`, decides.
    network: Annotated[networks.Network, dataclasses.replace(TRAINING, ignored=frozenset({"initial"})), RUN]
    recipe: Annotated[recipes.Recipe, ALWAYS]
    transform: Annotated[settings.Transform, ALWAYS]
    # To the gate the same images are the same wherever they lie.
    data: Annotated[DataSet, TRAINING, dataclasses.replace(RUN, ignored=frozenset({"source"}))] = DataSet()
    initial: Annotated[str, ALWAYS] = ""
    # None: the training sees all images.
    left_out: Annotated[LeftOut | None, dataclasses.replace(ALWAYS, ignored=frozenset({"sources"}))] = None
    # The URI of the artifact of Transform, which stands for the examples as they were transformed.
    transform_graph: Annotated[str, TRAINING] = ""
    # More trials continue the same search.
    tuning: Annotated[settings.Tuning | None, Decides(("search",), frozenset({"trials"})), RUN] = None
    # A training begun on one engine is resumed on another.
    engine: Annotated[recipes.Engine, RUN]
    # Whether a TFLite model is written beside the SavedModel.
    tflite: Annotated[bool, RUN] = False
    # Whether the model gets a time course of drops.
    time_course: Annotated[bool, RUN] = False
    tracking: TrackingServer
    # Of the model. `bind` adds the beginning of `key`.
    name: str
    # Of this training. Empty until `bind`.
    key: str = ""
    # A folder that outlives the step. `bind` makes it this training's own.
    checkpoints: str
    # Where the SavedModel goes.
    model_directory: str = ""
    # Beside the class, as they occur in the data; the recipe decides which are sought.
    targets: example_files.Targets = example_files.NO_TARGETS
    train_files: list[str] = pydantic.Field(default_factory=list)
    validation_files: list[str] = pydantic.Field(default_factory=list)
    # With `replicas`, training is on several nodes of a Kubernetes cluster.
    placement: pools.Placement | None = None
    custom_job: CustomJob | None = None
    # Those that each process of it asked for.
    gpus: int = 0

    def identity(self, purpose: Purpose) -> str:
        """Returns the SHA-256 of all fields that decide for `purpose`; jobs with the same one are the same."""
        excluded: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            marks = [mark for mark in field.metadata if isinstance(mark, Decides) and purpose in mark.purposes]
            excluded[name] = set(marks[0].ignored) if marks else True
        # Where what was added later is off, trainings are the same as before there was it.
        plain = recipes.Recipe()
        excluded["recipe"] |= {name for name in recipes.LATER if getattr(self.recipe, name) == getattr(plain, name)}
        excluded |= {name: True for name in ("left_out", "time_course") if not getattr(self, name)}
        return settings.digest(self.model_dump(mode="json", exclude=excluded))

    def bind(
        self,
        parameters: TrainingParameters,
        *,
        transform_graph: str,
        train_files: list[str],
        validation_files: list[str],
        model_directory: str = "",
        best: dict[str, Any] | None = None,
    ) -> "TrainingJob":
        """Returns the job of one run, with a key, a name and a folder of checkpoints of its own.

        `best`: the values that a search found, as in `with_values`.

        Raises `InputError` if `parameters.steps` is not a number, if the model that training begins from does not exist
        or is not the one that `parameters.initial` identifies, and as `example_files.find_targets`.
        """
        from marco_model.weights import initial_fingerprint

        initial = initial_fingerprint(self.network.initial)
        if parameters.initial not in ("", initial):
            raise errors.InputError(f"the model in {self.network.initial} has changed since this run began; run again")
        steps = parse_steps(str(parameters.steps))
        data = {"source": parameters.source, "fingerprint": parameters.fingerprint}
        changes = {
            "recipe": dataclasses.replace(self.recipe, steps=steps) if steps else self.recipe,
            "data": self.data.model_copy(update=data),
            "initial": initial,
            "transform_graph": transform_graph,
            "train_files": train_files,
            "validation_files": validation_files,
            "model_directory": model_directory,
        }
        bound = self.model_copy(update=changes).with_values(best or {})
        return bound.named(self.name, bound.identity("checkpoints")[:16], self.checkpoints)

    def without(self, left_out: LeftOut) -> "TrainingJob":
        """Returns the job, not yet bound, of the same training without some images; its model is for comparing only.

        Adversarial training over the same attribute sees these images without their labels, as it was published.
        """
        name = "-".join(part for part in (self.name, "without", left_out.slug) if part)
        recipe = self.recipe
        if recipe.adversarial_by(left_out.attribute):
            unlabelled = tuple(dict.fromkeys([*recipe.unlabelled, left_out.value]))
            recipe = dataclasses.replace(recipe, unlabelled=unlabelled)
        plain = {"name": name, "tflite": False, "time_course": False}
        return self.model_copy(update={"left_out": left_out, "recipe": recipe, **plain})

    @property
    def sees_unlabelled(self) -> bool:
        """Whether of the images that are left out just the labels are."""
        left, recipe = self.left_out, self.recipe
        return left is not None and recipe.adversarial_by(left.attribute) and left.value in recipe.unlabelled

    def named(self, name: str, key: str, parent: str) -> "TrainingJob":
        """Returns the job with this key, `name` with the key's beginning, and a folder of checkpoints in `parent`."""
        return self.model_copy(update={"key": key, "name": f"{name}-{key[:8]}", "checkpoints": f"{parent}/{key}"})

    def with_values(self, values: dict[str, Any]) -> "TrainingJob":
        """Returns the job with a search's values, such as `{"recipe.momentum": 0.9}`.

        Values of the search itself, which name neither recipe nor network, are ignored. The targets become those of the
        recipe. Raises `InputError` if the values don't fit together, or if the data have not what the recipe asks for.
        """
        changes: dict[str, Any] = {}
        for section in settings.SECTIONS:
            fields = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{section}.")}
            changes[section] = dataclasses.replace(getattr(self, section), **fields)
        recipe, names = changes["recipe"], None
        if recipe.raw_weight:
            source = [self.data.source]
            paths = [shard.path for shard in shards.find_shards(source)]
            names = name_tables.find_table(name_tables.RAW_LABELS_FILE, source, paths)
        changes["targets"] = example_files.find_targets(recipe, self.train_files, names)
        example_files.check_validation(recipe, self.validation_files)
        return self.model_copy(update=changes)

    def write(self) -> None:
        """Writes the job as `job.json` into its folder of checkpoints."""
        store.write_bytes(f"{self.checkpoints}/{FILE}", self.model_dump_json(indent=2).encode())


def read(path: str) -> TrainingJob:
    """Returns the job in a file; raises `InputError` if there is none."""
    remedy = f"give the {FILE} that a run's Trainer wrote beside its checkpoints"
    with errors.translated(errors.InputError, f"{path} is not a training job ({{}}); {remedy}", OSError, ValueError):
        return TrainingJob.model_validate_json(store.read_bytes(path))
