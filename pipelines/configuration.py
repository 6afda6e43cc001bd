"""The configuration of a pipeline run: frozen, checked, read from a short YAML preset and `key=value` overrides.

Sections that a step takes as they are, such as `report`, are in `components`.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import yaml

from components import evaluations, machines as hardware, mlflow_runs, settings
from components.vertex import options as vertex_options
from marco_data import inspection, name_tables, shards
from marco_model import InputError, errors, labels as label_schemes, network as networks, pixels, recipe as recipes

Parsed = TypeVar("Parsed", bound=pydantic.BaseModel)

PRESETS = pathlib.Path(__file__).parent / "presets"


class Labels(settings.Section):
    """Which classes are trained, and what of a record each is taken from (docs/labels.md)."""

    # four: MARCO's classes, the default; hwmri10: HWMRI's ten; raw: the raw labels themselves.
    scheme: Literal["four", "hwmri10", "raw"] | None = None
    # Your own classes in place of a scheme, in the order of their indices.
    classes: tuple[str, ...] = ()
    # A raw label, by name or number -> the class it stands for; null leaves such records out.
    # Strictly a number: YAML reads the label `yes` as true, which would else count as 1.
    from_raw: dict[str | pydantic.StrictInt, str | None] = pydantic.Field(default_factory=dict)
    # One of MARCO's four classes -> your class that it becomes; null leaves such records out.
    from_class: dict[str, str | None] = pydantic.Field(default_factory=dict)
    # What becomes of a record whose label no entry names.
    others: Literal["quarantine", "leave_out"] = "quarantine"

    @pydantic.model_validator(mode="after")
    def _says_one_thing(self) -> "Labels":
        scheme = self.scheme or ("four" if not self.classes else None)
        if self.scheme and self.classes:
            raise ValueError(f"labels has both scheme {self.scheme!r} and classes; give one of them")
        if self.from_raw and self.from_class:
            raise ValueError("labels has both from_raw and from_class; a class is taken from one of them")
        if self.from_class and scheme:
            raise ValueError("labels.from_class needs labels.classes, which it maps to")
        if self.from_raw and scheme == "four":
            raise ValueError(
                "labels.from_raw needs labels.classes, or another scheme than four, which ignores raw labels"
            )
        self.label_scheme()
        return self

    def label_scheme(self, raw_labels: Mapping[int, str] | None = None) -> label_schemes.LabelScheme | None:
        """Returns the scheme; None for `raw` without `raw_labels`, the names of the raw labels by number.

        Raises `InputError` if the table contradicts itself.
        """
        table = {str(label): name for label, name in self.from_raw.items()}
        if self.classes:
            source: Literal["class", "raw"] = "class" if self.from_class else "raw"
            return label_schemes.LabelScheme("classes", self.classes, source, self.from_class or table, self.others)
        if self.scheme == "hwmri10":
            return label_schemes.with_entries(label_schemes.HWMRI_TEN, table, self.others)
        if self.scheme == "raw":
            return label_schemes.raw_scheme(raw_labels, table, self.others) if raw_labels is not None else None
        return label_schemes.FOUR


class Synthetic(settings.Section):
    """A synthetic set, drawn before the run if no data are given."""

    images: int = pydantic.Field(1_000, ge=8)
    seed: int = pydantic.Field(0, ge=0)
    eval_share: float = pydantic.Field(0.25, gt=0, lt=1)
    # Pixels of the drawn image's shorter side; 0 draws each imager's own size.
    shorter_side: int = pydantic.Field(0, ge=0)
    label_noise: float = pydantic.Field(0.0, ge=0, lt=1)
    # Images of each drop over time (docs/synthetic.md).
    inspections: int = pydantic.Field(1, ge=1, le=12)


class Data(settings.Section):
    """Where scored images come from and which are refused (docs/data.md)."""

    # A folder, a glob or a gs:// URI of MARCO shards; `--data` of `marco run` sets it.
    source: str | None = None
    synthetic: Synthetic | None = None
    # Labels that experts gave some images in place of their own, local or gs:// (docs/relabelling.md); `--overlay`
    # of `marco run` sets it.
    overlay: str = ""
    # Where the images of records without a plate lie: a regular expression or a .csv file, as --names of `marco data
    # import` takes it (docs/data.md).
    names: str = ""
    split_by: Literal["shard", "hash"] = "shard"
    eval_share: float = pydantic.Field(0.1, gt=0, lt=1)
    # as_published: no validation split is drawn, and training stops by the images that judge it.
    splits: Literal["three", "as_published"] = "three"
    validation_share: float = pydantic.Field(0.1, gt=0, lt=1)
    max_quarantined: float = pydantic.Field(0.01, ge=0, le=1)
    max_pixels: int = pydantic.Field(pixels.MAX_PIXELS, ge=1, le=pixels.MAX_PIXELS)
    imagers: tuple[name_tables.ImagerRule, ...] = name_tables.IMAGER_RULES


class Tracking(settings.Section):
    """Where runs are compared: MLflow's URI; by default MLFLOW_TRACKING_URI, or `mlflow.db` where a run is started."""

    uri: str | None = None
    experiment: str = "marco"
    # Where a new experiment keeps models and figures, such as gs://BUCKET/mlflow; null: beside the SQLite store, or
    # wherever the server keeps them.
    artifacts: str | None = pydantic.Field(None, pattern=r"^[a-z][a-z0-9+.-]*://?\S+$")


class Export(settings.Section):
    """What is written beside the SavedModel."""

    # assets.extra/model.tflite, checked on every evaluation image (docs/model.md).
    tflite: bool = False
    # assets.extra/time_course.npz, which tells from a drop's pictures over time when crystals came
    # (docs/beyond-the-paper.md).
    time_course: bool = False


class Gate(settings.Rules):
    """What a model must beat to be published, and by which rules (docs/gate.md).

    `champion`: `registry` for the version with that alias in MLflow, `none`, or a model's folder or `gs://` URI.
    """

    champion: str = pydantic.Field(settings.REGISTRY, min_length=1)


class Configuration(settings.Section):
    """A whole run. Paths that are null lie in the run's output folder."""

    name: str = pydantic.Field(pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9]*$")
    data: Data = Data()
    labels: Labels = Labels()
    transform: settings.Transform = settings.Transform()
    network: networks.Network = networks.Network()
    recipe: recipes.Recipe = recipes.Recipe()
    engine: recipes.Engine = recipes.Engine()
    # A search for better values before the training; none by default.
    tuning: settings.Tuning | None = None
    # What a model must reach over the evaluation split to be blessed: metric -> smallest good value. The metrics are
    # accuracy, and precision, recall and auc of a class, such as recall/Crystals.
    thresholds: dict[str, Annotated[float, pydantic.Field(ge=0, le=1)]] = pydantic.Field(min_length=1)
    gate: Gate = Gate()
    # Trainings without one source each, compared with the training on all (docs/beyond-the-paper.md); none by default.
    leave_out: settings.LeaveOut | None = None
    # What the report of the run shows (docs/report.md).
    report: settings.ReportOptions = settings.ReportOptions()
    export: Export = Export()
    tracking: Tracking = Tracking()
    # The registered model's name in MLflow.
    model_name: str = "marco"
    # Where blessed models are published, one folder per version.
    destination: str | None = None
    # What the steps are given on Kubernetes (docs/kubeflow.md); a run on this machine ignores it.
    cluster: hardware.Cluster = hardware.Cluster()
    # Where in Google Cloud a package for Vertex AI runs, and endpoints are (docs/vertex.md).
    vertex: vertex_options.Vertex | None = None
    # The machines of a training on several of them there (docs/vertex.md); none by default.
    machines: hardware.Machines | None = None
    # The endpoint of Vertex AI that a published model takes over, after the Pusher; none by default.
    endpoint: vertex_options.Endpoint | None = None
    # Beam's options for every step that runs on it, such as --runner=DataflowRunner.
    beam: tuple[str, ...] = settings.LOCAL_BEAM_ARGS

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Configuration":
        shorter, size = self.transform.shorter_side, self.network.input_size
        if shorter and shorter < size:
            raise ValueError(f"transform.shorter_side {shorter} is less than network.input_size {size}; raise it")
        if self.cluster.replicas:
            hardware.job_counts(self.engine, "cluster.replicas", self.cluster.replicas)
        if self.machines:
            hardware.job_counts(self.engine, "machines", self.machines)
        if self.leave_out and self.tuning:
            raise ValueError(
                "leave_out and tuning are both set, and a search would see what is left out; set what it found, and "
                "leave tuning out"
            )
        if self.endpoint and not self.vertex:
            raise ValueError("endpoint is set and vertex is not; give vertex.project and vertex.location")
        # The pipeline checks raw labels, once it has read their names.
        if scheme := self.labels.label_scheme():
            self.check_classes(scheme.classes)
        return self

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises `InputError` if thresholds, gate or report name a class that is not one of `classes`."""
        evaluations.check_thresholds(self.thresholds, classes)
        self.gate.recall_index(classes)
        self.report.target_of(classes)


class Deploying(settings.Section):
    """What `marco deploy` needs of a configuration."""

    vertex: vertex_options.Vertex
    endpoint: vertex_options.Endpoint
    model_name: str = "marco"

    @property
    def model(self) -> str:
        """The display name in Vertex AI of the model whose versions are deployed."""
        return self.endpoint.model or self.model_name


def preset_names() -> list[str]:
    """Returns the names of the presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(
    preset: str,
    overrides: list[str] | None = None,
    source: str | None = None,
    over: pathlib.Path | None = None,
    overlay: str | None = None,
    leave_out: str | None = None,
) -> Configuration:
    """Returns the configuration of a preset, or of your own YAML file, with `section.key=value` overrides.

    `source` and `overlay`, if given, are those of the section `data`. `over` is a YAML file that is laid over the
    preset, key by key: what a site sets for all of its presets. `leave_out`: as `LeaveOut.read` takes it.

    Raises `InputError` for an unknown preset, a file that is not a mapping, an unknown key, a value out of range, or a
    URI that holds credentials.
    """
    path = pathlib.Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    values = _read(path)
    if over:
        values = _merge(values, _read(over))
    for override in overrides or []:
        _override(values, override)
    for option, name, value in (("--data", "source", source), ("--overlay", "overlay", overlay)):
        if value:
            _section(values, ["data"], f"{option} {value!r}")[name] = value
    if leave_out:
        values["leave_out"] = settings.LeaveOut.read(leave_out)
    name = f"{path.name} with {over.name}" if over else path.name
    origin = f"{name} with --set {' '.join(overrides)}" if overrides else name
    return _without_credentials(settings.parse(Configuration, values, origin))


def load_deploying(preset: str | None, options: dict[str, dict[str, Any]], overrides: list[str]) -> Deploying:
    """Returns the sections for `marco deploy`: those of a preset, if any, then `options` by section, then `overrides`.

    Options that are None are left out. Raises `InputError` as `load` does.
    """
    values = load(preset).model_dump(include={"vertex", "endpoint", "model_name"}) if preset else {}
    for name, fields in options.items():
        values[name] = (values.get(name) or {}) | {field: value for field, value in fields.items() if value is not None}
    for override in overrides:
        _override(values, override)
    return _without_credentials(settings.parse(Deploying, values, preset or "the options of marco deploy"))


def load_labels(scheme: str) -> Labels:
    """Returns the labels of a scheme's name or of a YAML file's section `labels`; raises `InputError` as `load`."""
    if not scheme.endswith((".yaml", ".yml")):
        return settings.parse(Labels, {"scheme": scheme}, f"labels {scheme!r}", "labels")
    return settings.parse(Labels, _read(pathlib.Path(scheme)).get("labels") or {}, f"labels in {scheme}", "labels")


def label_scheme(labels: Labels, *sources: str) -> label_schemes.LabelScheme:
    """Returns the scheme that a configuration describes; only `raw` reads the shards' `labels-raw.csv` at `sources`.

    Raises `InputError` if that file cannot be found or read from here, or if several contradict each other.
    """
    if scheme := labels.label_scheme():
        return scheme
    file, fix = name_tables.RAW_LABELS_FILE, "list labels.classes, which needs no file when the pipeline is made"
    try:
        paths = [shard.path for shard in shards.find_shards(sources)]
        raw_labels = name_tables.find_table(file, sources, paths)
    except InputError as error:
        raise InputError(f"labels.scheme raw takes its classes from {file}: {error}; or {fix}") from error
    scheme = labels.label_scheme(raw_labels)
    if scheme is None:
        raise InputError(f"labels.scheme raw finds no {file} at {sources[0]!r} to take its classes from; {fix}")
    return scheme


def find_left_out(configuration: Configuration, source: str) -> Configuration:
    """Returns the configuration, which leaves out each known value in the shards at `source` in turn if it names none.

    Every record is read, and no image decoded. Raises `InputError` if they have a single one.
    """
    chosen = configuration.leave_out
    if not chosen or chosen.values:
        return configuration
    counts = inspection.inspect_shards([source], rules=configuration.data.imagers).imagers
    values = sorted({key[1 + evaluations.SLICES.index(chosen.attribute)] for key in counts})
    if len(values) < 2:
        raise InputError(f"all images have the {chosen.attribute} {', '.join(values)}; leave_out needs two or more")
    # What is not known is no source: it may be images of any.
    known = tuple(value for value in values if value != name_tables.UNKNOWN)
    return configuration.model_copy(update={"leave_out": chosen.model_copy(update={"values": known})})


def _without_credentials(parsed: Parsed) -> Parsed:
    """Returns settings; raises `InputError` for a URI that holds credentials, as packages and MLflow keep values.

    They are parsed before, since YAML's aliases may stand for more text than fits into memory.
    """
    for name, value in mlflow_runs.flatten(parsed.model_dump()):
        errors.refuse_credentials(str(value), name)
    return parsed


_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: also for other bytes than UTF-8, for a date that does not exist and for nesting without end."""


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a YAML file; raises `InputError` if there is no such file, or it is not a mapping."""
    if not path.is_file() and path.parent != PRESETS:
        raise InputError(f"there is no file {str(path)!r}; copy one of {PRESETS.name}/*.yaml to begin with")
    if not path.is_file():
        raise InputError(f"there is no preset {path.stem!r}; take one of {', '.join(preset_names())}, or a .yaml file")
    with errors.translated(InputError, f"{path} is not YAML: {{}}", *_NOT_YAML):
        values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}; it must map keys to values, as the presets do")
    return values


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Returns both as one; if both have a key, mappings are joined and other values are those of `above`."""
    joined = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        joined[name] = _merge(below[name], value) if both else value
    return joined


def _override(values: dict[str, Any], change: str) -> None:
    """Makes a change such as `recipe.steps=500`, of YAML; raises `InputError` without a `=`, or as `_section` does."""
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f"--set {change!r} has no '='; write it as section.key=value")
    *sections, last = key.strip().split(".")
    with errors.translated(InputError, f"--set {change!r}: the value is not YAML ({{}}); put it in quotes", *_NOT_YAML):
        _section(values, sections, f"--set {change!r}")[last] = yaml.safe_load(text)


def _section(values: dict[str, Any], names: list[str], option: str) -> dict[str, Any]:
    """Returns the mapping at a path, made if missing; raises `InputError` with `option` if it leads through a value."""
    for name in names:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise InputError(f"{option}: {name!r} holds a value, not a section")
    return values
