"""What a search may be told, checked once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pydantic

from marco_data.name_tables import IMAGER_RULES, ImagerRule
from marco_model.errors import InputError
from marco_model.labels import FOUR, LabelScheme
from marco_model.network import Network
from marco_model.recipe import Recipe


class Section(pydantic.BaseModel):
    """A section of a configuration, or what is passed on as JSON: frozen, and without unknown keys."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


def digest(settings: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of settings made of JSON's types, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Transform(Section):
    """What is done to an image once, before training and before serving alike."""

    # Pixels of the shorter side after shrinking; 0 leaves the image as it is.
    shorter_side: int = pydantic.Field(0, ge=0)
    # JPEG quality of the shrunk image.
    quality: int = pydantic.Field(95, ge=50, le=100)


BY_SHARD = "shard"
BY_HASH = "hash"

# One process, since the threads of a unit decode outside Python's lock; more workers pay for their start and copies.
# The runner is named since `DirectRunner` would first try to download another one.
LOCAL_BEAM_ARGS: tuple[str, ...] = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
)


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """How records are checked and split.

    Attributes:
        split_by: `shard` takes the split from the shard's name; `hash` draws it from the plate, or the image id where
            the file name tells no plate.
        eval_share: share of plates or images that `hash` puts into the evaluation set, in (0, 1).
        max_quarantined: share of the records read above which the ingest is given up, in [0, 1].
        max_pixels: an image whose header asks for more is not decoded.
        imager_rules: which imager took an image, by institution and file name; the first that fits.
        shard_bytes: an output shard is closed once it is longer.
        decode_workers: threads that check and decode; 0 takes one a core.
        label_scheme: the classes to write, and what of a record each is taken from.
        overlay: CSV of what experts say of some images in the place of their labels, local or `gs://`; empty for none.
    """

    split_by: str = BY_SHARD
    eval_share: float = 0.1
    max_quarantined: float = 1.0
    max_pixels: int = 50_000_000
    imager_rules: tuple[ImagerRule, ...] = IMAGER_RULES
    shard_bytes: int = 100_000_000
    decode_workers: int = 0
    label_scheme: LabelScheme = FOUR
    overlay: str = ""

    def __post_init__(self) -> None:
        if self.split_by not in (BY_SHARD, BY_HASH):
            raise InputError(f"split_by is {self.split_by!r}; expected {BY_SHARD!r} or {BY_HASH!r}")
        if not 0 < self.eval_share < 1:
            raise InputError(f"eval_share is {self.eval_share}; expected a share between 0 and 1")
        if not 0 <= self.max_quarantined <= 1:
            raise InputError(f"max_quarantined is {self.max_quarantined}; expected a share from 0 to 1")
        if self.max_pixels < 1 or self.shard_bytes < 1:
            raise InputError(f"max_pixels is {self.max_pixels}, shard_bytes {self.shard_bytes}; expected at least 1")

    @property
    def threads(self) -> int:
        """The number of threads to check with, on the machine that asks."""
        return self.decode_workers or len(os.sched_getaffinity(0))


def rules_to_json(rules: Sequence[ImagerRule]) -> str:
    """Writes an imager table as a component's parameter."""
    return json.dumps([dataclasses.asdict(rule) for rule in rules])


def rules_from_json(text: str) -> tuple[ImagerRule, ...]:
    """Reads an imager table; raises `InputError` where it is none."""
    try:
        return tuple(ImagerRule(**rule) for rule in json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"imager_rules is no list of institution, imager and pattern: {error}; got {text[:80]!r}"
        ) from error


DEFAULT_RECALL_CLASS = "Crystals"
REGISTRY, NONE = "registry", "none"


def percent(confidence: float) -> str:
    """Returns a confidence as people say it, with its digits: `95%`, `99.8%`."""
    return f"{100 * confidence:.10g}%"


@dataclasses.dataclass(frozen=True)
class Rules:
    """Margins are shares: what accuracy, recall or a slice's accuracy may fall by, if it is shown to be no more.

    `confidence`: of the two-sided intervals; an equal model is called better in at most half of what is left, and loses
    its promotion to a slice by chance in as much. `caution`: how often, by chance, a model that is better in one of
    accuracy and recall and just equal in the other is refused; the more, the smaller the falls that are found.
    `recall_class`: whose recall must not fall; None for Crystals where there is such a class, otherwise for none.
    `smallest_slice`: slices of fewer images are not judged. `cross`: institution and imager together are slices too.
    """

    confidence: float = 0.95
    caution: float = 0.1
    accuracy_margin: float = 0.005
    recall_margin: float = 0.01
    slice_margin: float = 0.03
    recall_class: str | None = None
    smallest_slice: int = 20
    cross: bool = False

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"gate.confidence is {self.confidence}; give a share from 0.5 to below 1, such as 0.95")
        if not 0 < self.caution <= 0.5:
            raise ValueError(f"gate.caution is {self.caution}; give a share above 0, up to 0.5, such as 0.1")
        for name in ("accuracy_margin", "recall_margin", "slice_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} is {getattr(self, name)}; give a share between 0 and 1, such as 0.01")
        if self.smallest_slice < 1:
            raise ValueError(f"gate.smallest_slice is {self.smallest_slice}; give at least 1")

    def recall_index(self, classes: Sequence[str]) -> int | None:
        """Returns the index of the class whose recall must not fall, or None.

        Raises `InputError` where `recall_class` is none of `classes`.
        """
        if self.recall_class is None:
            return list(classes).index(DEFAULT_RECALL_CLASS) if DEFAULT_RECALL_CLASS in classes else None
        if self.recall_class not in classes:
            raise InputError(f"gate.recall_class {self.recall_class!r} is no class; choose from {', '.join(classes)}")
        return list(classes).index(self.recall_class)


CRYSTALS = "Crystals"


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What is shown, how much of it, and what the pictures may cost."""

    # The class that must not be missed; empty: Crystals, where there is such a class.
    target: str = ""
    # The recall of it for which the threshold is told in the headline, and others beside it.
    recall: float = 0.98
    recalls: tuple[float, ...] = (0.9, 0.95, 0.98, 0.99, 1.0)
    # Images most in disagreement with their labels.
    disagreements: int = 12
    # Kinds of error (true class, predicted class) of which examples are shown, and examples of each.
    error_kinds: int = 12
    errors: int = 1
    # SmoothGrad over the examples of errors: noisy copies of an image, and seconds after which no other is begun.
    overlays: bool = True
    overlay_samples: int = 16
    overlay_seconds: float = 30.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for value in (self.recall, *self.recalls):
            if not 0 < value <= 1:
                raise ValueError(f"report.recall is {value}; give a share above 0, and 1 at most")
        for name in ("disagreements", "error_kinds", "errors"):
            if getattr(self, name) < 0:
                raise ValueError(f"report.{name} is {getattr(self, name)}; give 0 or more")
        if self.overlay_samples < 1 or self.overlay_seconds < 0:
            raise ValueError("report.overlay_samples is 1 or more, report.overlay_seconds 0 or more")

    def target_of(self, classes: Sequence[str]) -> str | None:
        """Returns the class that must not be missed, or None where there is none.

        Raises InputError where `target` is no class.
        """
        if self.target and self.target not in classes:
            raise InputError(f"report.target is {self.target!r}; give one of {', '.join(classes)}")
        return self.target or (CRYSTALS if CRYSTALS in classes else None)

    def to_json(self) -> str:
        """Returns the options as a component's parameter."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ReportOptions:
        """Reads what `to_json` wrote."""
        held = json.loads(text)
        return ReportOptions(**{**held, "recalls": tuple(held["recalls"])})


SECTIONS = {"recipe": Recipe, "network": Network}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Where a value is looked for: between `min` and `max`, or among `choices`.

    Raises `InputError` where it says both or neither.
    """

    min: float | None = None
    max: float | None = None
    # `log` looks at all orders of magnitude alike, as a learning rate wants it.
    sampling: Literal["linear", "log"] = "linear"
    choices: tuple[Any, ...] = ()

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        limits = (self.min, self.max)
        if bool(self.choices) == (None not in limits) or (self.choices and limits != (None, None)):
            raise InputError(
                f"a parameter has min {self.min}, max {self.max}, choices {list(self.choices)}; give both "
                "limits, or choices"
            )
        if not self.choices and not self.min < self.max:  # type: ignore[operator]
            raise InputError(f"a parameter has min {self.min} and max {self.max}; min must be smaller")
        if self.sampling == "log" and not self.choices and self.min <= 0:  # type: ignore[operator]
            raise InputError(f"a parameter has min {self.min} and sampling log; min must be above 0")

    def limits(self) -> tuple[float, float]:
        """Returns `min` and `max`; raises `InputError` where there are choices instead."""
        if self.min is None or self.max is None:
            raise InputError(f"a parameter has choices {list(self.choices)}, and so no limits")
        return self.min, self.max


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A search before the training, which then takes the best values (docs/tuning.md).

    `space` maps fields of the sections recipe and network, such as `recipe.learning_rate`, to where their values are
    looked for. A trial is a training of `steps` steps; the best has the highest accuracy on the evaluation split.
    Raises `InputError` for a field that there is not, or a value that it does not take.
    """

    space: Mapping[str, Parameter]
    trials: int = 10
    steps: int = 500
    # hyperband gives most trials a fraction of `steps` and chooses `trials` by itself; vizier needs project and region.
    oracle: Literal["random", "bayesian", "hyperband", "vizier"] = "bayesian"
    seed: int = 0
    project: str = ""
    region: str = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        parameters = {
            name: value if isinstance(value, Parameter) else Parameter(**value) for name, value in self.space.items()
        }
        object.__setattr__(self, "space", parameters)
        if not parameters:
            raise InputError("tuning.space is empty; name a field, such as recipe.learning_rate, with min and max")
        if min(self.trials, self.steps) < 1:
            raise InputError(f"tuning.trials is {self.trials} and steps {self.steps}; both must be at least 1")
        if self.oracle == "vizier" and not (self.project and self.region):
            raise InputError("tuning.oracle is vizier; give tuning.project and tuning.region of Google Cloud too")
        for name, parameter in parameters.items():
            _check(name, parameter)


def kind_of(name: str) -> type:
    """Returns the type of a field such as `recipe.momentum`: int, float, bool or str.

    Raises `InputError` where there is no such field.
    """
    section, _, field = name.partition(".")
    fields = {one.name: one.default for one in dataclasses.fields(SECTIONS[section])} if section in SECTIONS else {}
    if field not in fields:
        raise InputError(f"tuning.space has {name!r}; give a field of recipe or network, such as recipe.learning_rate")
    return type(fields[field])


def by_section(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns values such as `{"recipe.momentum": 0.9}` by section and field; the search's own are left out."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in values.items():
        section, _, field = name.partition(".")
        if section in sections:
            sections[section][field] = value
    return sections


def _check(name: str, parameter: Parameter) -> None:
    kind = kind_of(name)
    if not parameter.choices and kind not in (int, float):
        raise InputError(f"tuning.space has limits for {name}, which is no number; give choices")
    section, _, field = name.partition(".")
    for value in parameter.choices or (parameter.min, parameter.max):
        try:
            SECTIONS[section](**{field: kind(value) if kind in (int, float) else value})
        except InputError as error:
            raise InputError(f"tuning.space, {name}: {error}") from error
