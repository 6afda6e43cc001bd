"""The settings of the steps: one class per section of a configuration or parameter of a step, checked once.

`Section` is what all of them are, and `parse` makes one from values that a user wrote. What a cluster is given is in
`components.machines`, what Vertex AI is given in `components.vertex.options`.
"""

import dataclasses
import difflib
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

import pydantic

from marco_data.name_tables import IMAGER_RULES, ImagerRule
from marco_model import errors, labels, network, pixels, recipe

# One process, since the threads of a unit decode outside Python's lock; more workers pay for their start and copies.
# The runner is named since `DirectRunner` would first try to download another one. An image is named since TFX would
# otherwise pack its own code for workers elsewhere, over a second for each step.
LOCAL_BEAM_ARGS: tuple[str, ...] = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
    "--sdk_container_image=none",
)

SourceAttribute = Literal["institution", "imager"]
"""What tells the sources of images apart."""

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Kind = TypeVar("Kind", bound=pydantic.BaseModel)


class Section(pydantic.BaseModel):
    """A section of a configuration, or what is passed on as JSON: frozen, without unknown keys, NaN and infinities."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def parse(kind: type[Kind], values: Mapping[str, Any], origin: str, section: str = "") -> Kind:
    """Returns `values` as a `kind`.

    Raises `InputError`, in one line that names `origin` and each wrong key with its value; keys are those of `section`.
    """
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        found = enumerate(error.errors())
        problems = "; ".join(_describe(problem, section, kind if number < 3 else None) for number, problem in found)
        raise errors.InputError(f"{origin}: {problems}") from error


# A few lines of YAML may stand for a list that would fill the memory once it is written out.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 200, 200

_FIXES: dict[tuple[str | int, ...], str] = {("recipe", "window_share"): recipe.WINDOW_SHARE}
"""What to give instead of a value of another type, for settings whose type does not say it."""


def _describe(problem: Any, section: str, kind: type[pydantic.BaseModel] | None) -> str:
    """Returns what is wrong with a value, and with a `kind` which key of it an unknown one was meant as."""
    key = ".".join(str(part) for part in (section, *problem["loc"]) if part != "") or "the content"
    message = str(problem["msg"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        name = str(problem["loc"][-1])
        keys = _keys_beside(problem["loc"], kind) if kind else []
        meant = difflib.get_close_matches(name[:100], keys, n=1)
        meant += _keys_named(name, kind)[:3] if kind else []
        fix = f"did you mean {' or '.join(map(repr, meant))}?" if meant else "remove it or fix its name"
        return f"unknown key {key!r}; {fix}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{key} is not set; {_FIXES.get(problem['loc'][:2], 'give a value')}"
    if problem["type"] == "value_error":
        return message.removeprefix("Value error, ")
    fix = _FIXES.get(problem["loc"][:2]) or message.replace("Input should be", "it must be", 1)
    return f"{key} is {_SHORT.repr(problem['input'])}; {fix}"


def _keys_beside(location: Sequence[str | int], kind: type[pydantic.BaseModel]) -> list[str]:
    """Returns the keys that may stand where `location` leads in a `kind`; of a choice those of all its kinds."""
    schema = kind.model_json_schema()
    places = [schema]
    for part in location[:-1]:
        inner = [
            place.get("properties", {}).get(part, place.get("additionalProperties"))
            for place in _resolved(places, schema)
        ]
        places = [place for place in inner if isinstance(place, dict)]
    return sorted({key for place in _resolved(places, schema) for key in place.get("properties", {})})


def _keys_named(name: str, kind: type[pydantic.BaseModel]) -> list[str]:
    """Returns the keys of this name in all sections of a `kind`, with their sections: `recipe.steps`."""
    schema = kind.model_json_schema()

    def within(place: dict[str, Any], sections: tuple[str, ...]) -> Iterator[str]:
        for inner in _resolved([place], schema):
            for key, value in inner.get("properties", {}).items():
                if key == name:
                    yield ".".join((*sections, key))
                yield from within(value, (*sections, key))

    return list(within(schema, ()))


def _resolved(places: Sequence[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns parts of a JSON schema with references followed and choices laid side by side."""
    found = []
    for place in places:
        if "$ref" in place:
            found += _resolved([schema["$defs"][place["$ref"].rpartition("/")[2]]], schema)
        elif choices := [*place.get("anyOf", []), *place.get("oneOf", []), *place.get("allOf", [])]:
            found += _resolved(choices, schema)
        else:
            found.append(place)
    return found


def digest(settings: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of settings made of JSON's types, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


BY_SHARD, BY_HASH = "shard", "hash"
THREE = "three"


class IngestOptions(Section):
    """How records are checked and split.

    `split_by`: `shard` takes the split from the shard's name; `hash` draws it from the plate, or from the image id if
    the file name gives no plate. `eval_share`: of plates or images that `hash` puts into the evaluation split.
    `splits`: `three` draws a validation split out of the training split, unless the set brings one; `as_published`
    leaves the set as it is, like the paper, whose training stopped by its test images. `validation_share`: of plates or
    images of the training split that are drawn.
    `max_quarantined`: share of the records read above which the ingest fails. `max_pixels`: an image whose header
    claims more is not decoded. `imager_rules`: which imager took an image, by institution and file name; the first that
    fits. `shard_bytes`: an output shard is closed once it is longer. `decode_workers`: threads that check and decode; 0
    takes one per core. `label_scheme`: the classes to write, and what of a record each is taken from. `overlay`: CSV of
    labels that experts gave some images in place of their own, local or `gs://`; empty for none. `names`: where images
    lie whose records state no plate, see `marco_data.place_reader`; `names_content`: a digest of it if it is a file.
    """

    split_by: Literal["shard", "hash"] = "shard"
    eval_share: float = pydantic.Field(0.1, gt=0, lt=1)
    splits: Literal["three", "as_published"] = "three"
    validation_share: float = pydantic.Field(0.1, gt=0, lt=1)
    max_quarantined: Share = 1.0
    max_pixels: int = pydantic.Field(pixels.MAX_PIXELS, ge=1, le=pixels.MAX_PIXELS)
    imager_rules: tuple[ImagerRule, ...] = IMAGER_RULES
    shard_bytes: int = pydantic.Field(100_000_000, ge=1)
    decode_workers: int = pydantic.Field(0, ge=0)
    label_scheme: labels.LabelScheme = labels.FOUR
    overlay: str = ""
    names: str = ""
    names_content: str = ""

    @property
    def threads(self) -> int:
        """The number of threads to check with, on the machine that asks."""
        return self.decode_workers or pixels.cores()


class Transform(Section):
    """What is done to an image once, before training and before serving alike."""

    # Pixels of the shorter side after shrinking; 0 leaves the image as it is.
    shorter_side: int = pydantic.Field(0, ge=0)
    # JPEG quality of the shrunk image.
    quality: int = pydantic.Field(95, ge=50, le=100)


SECTIONS = {"recipe": recipe.Recipe, "network": network.Network}


class Parameter(Section):
    """Where a value is searched: between `min` and `max`, or among `choices`; not both."""

    min: float | None = None
    max: float | None = None
    # `log` looks at all orders of magnitude alike, as suits a learning rate.
    sampling: Literal["linear", "log"] = "linear"
    choices: tuple[Any, ...] = ()

    @pydantic.model_validator(mode="after")
    def _limits_or_choices(self) -> "Parameter":
        limits = [limit for limit in (self.min, self.max) if limit is not None]
        if len(limits) != (0 if self.choices else 2):
            values = f"min {self.min}, max {self.max}, choices {list(self.choices)}"
            raise ValueError(f"a parameter has {values}; give both limits, or choices")
        if limits and not limits[0] < limits[1]:
            raise ValueError(f"a parameter has min {self.min} and max {self.max}; min must be smaller")
        if limits and self.sampling == "log" and limits[0] <= 0:
            raise ValueError(f"a parameter has min {self.min} and sampling log; min must be above 0")
        return self

    def limits(self) -> tuple[float, float]:
        """Returns `min` and `max` of a parameter without choices."""
        return cast(float, self.min), cast(float, self.max)


class Tuning(Section):
    """A search before the training, which then takes the best values (docs/tuning.md).

    `space` maps fields of the sections recipe and network, such as `recipe.learning_rate`, to where their values are
    searched. A trial is a training of `steps` steps; the best has the highest accuracy on the validation split.
    """

    space: dict[str, Parameter]
    trials: int = pydantic.Field(10, ge=1)
    steps: int = pydantic.Field(500, ge=1)
    # hyperband gives most trials a fraction of `steps` and chooses `trials` by itself; vizier needs project and region.
    oracle: Literal["random", "bayesian", "hyperband", "vizier"] = "bayesian"
    seed: int = pydantic.Field(0, ge=0)
    project: str = ""
    region: str = ""

    @pydantic.model_validator(mode="after")
    def _can_be_searched(self) -> "Tuning":
        if not self.space:
            raise ValueError("tuning.space is empty; name a field, such as recipe.learning_rate, with min and max")
        if self.oracle == "vizier" and not (self.project and self.region):
            raise ValueError("tuning.oracle is vizier; give tuning.project and tuning.region of Google Cloud too")
        for name, parameter in self.space.items():
            _check_values(name, parameter)
        return self


def kind_of(name: str) -> type:
    """Returns the type of a field such as `recipe.momentum`: int, float, bool or str.

    Raises `InputError` if there is no such field.
    """
    section, _, field_name = name.partition(".")
    for field in dataclasses.fields(SECTIONS[section]) if section in SECTIONS else ():
        if field.name == field_name:
            return type(field.default)
    raise errors.InputError(
        f"tuning.space has {name!r}; give a field of recipe or network, such as recipe.learning_rate"
    )


def _check_values(name: str, parameter: Parameter) -> None:
    kind = kind_of(name)
    if not parameter.choices and kind not in (int, float):
        raise ValueError(f"tuning.space has limits for {name}, which is not a number; give choices")
    section, _, field = name.partition(".")
    for value in parameter.choices or parameter.limits():
        try:
            SECTIONS[section](**{field: kind(value) if kind in (int, float) else value})
        except errors.InputError as error:
            raise ValueError(f"tuning.space, {name}: {error}") from error


CRYSTALS = "Crystals"
"""The class that must not be missed, unless a configuration names another."""

REGISTRY, NONE = "registry", "none"


def percent(confidence: float) -> str:
    """Returns a confidence as people say it, with its digits: `95%`, `99.8%`."""
    return f"{100 * confidence:.10g}%"


class Rules(Section):
    """Margins are shares: what accuracy, recall or a slice's accuracy may fall by, if it is shown to be no more.

    `confidence`: of the two-sided intervals; an equal model is called better in at most half of what is left, and loses
    its promotion to a slice by chance in as much. `caution`: how often, by chance, a model that is better in one of
    accuracy and recall and just equal in the other is refused; the more, the smaller the falls that are found.
    `recall_class`: whose recall must not fall; None for Crystals if there is such a class, otherwise for none.
    `smallest_slice`: slices of fewer images are not judged. `cross`: institution and imager together are slices too.
    `evidence`: whether a model that has no champion to beat must be better than always answering the commonest class.
    """

    confidence: float = pydantic.Field(0.95, ge=0.5, lt=1)
    caution: float = pydantic.Field(0.1, gt=0, le=0.5)
    accuracy_margin: Share = 0.005
    recall_margin: Share = 0.01
    slice_margin: Share = 0.03
    recall_class: str | None = None
    smallest_slice: int = pydantic.Field(20, ge=1)
    cross: bool = False
    evidence: bool = True

    def recall_index(self, classes: Sequence[str]) -> int | None:
        """Returns the index of the class whose recall must not fall, or None.

        Raises `InputError` if `recall_class` is not one of `classes`.
        """
        if self.recall_class is None:
            return list(classes).index(CRYSTALS) if CRYSTALS in classes else None
        if self.recall_class not in classes:
            raise errors.InputError(
                f"gate.recall_class {self.recall_class!r} is not a class; choose from {', '.join(classes)}"
            )
        return list(classes).index(self.recall_class)


class LeaveOut(Section):
    """Sources that are left out of a training each, one at a time, to see how a model does on images of a new one.

    `values`: the institutions or imagers, such as `CSIRO`; none: all that a run on this machine finds in the data.
    """

    attribute: SourceAttribute
    values: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _values_differ(self) -> "LeaveOut":
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"leave_out.values has a value twice: {', '.join(self.values)}; give each once")
        return self

    @classmethod
    def read(cls, text: str) -> dict[str, Any]:
        """Returns the section that `--leave-out` stands for: `institution`, or `institution=CSIRO,Merck`."""
        attribute, _, values = text.partition("=")
        names = [name.strip() for name in values.split(",")]
        return {"attribute": attribute.strip(), "values": [name for name in names if name]}


class ReportOptions(Section):
    """What is shown, how much of it, and what the pictures may cost."""

    # The class that must not be missed; empty: Crystals, if there is such a class.
    target: str = ""
    # The recall of it for which the headline shows the threshold, and others beside it.
    recall: float = pydantic.Field(0.98, gt=0, le=1)
    recalls: tuple[Annotated[float, pydantic.Field(gt=0, le=1)], ...] = (0.9, 0.95, 0.98, 0.99, 1.0)
    # Images most in disagreement with their labels.
    disagreements: int = pydantic.Field(12, ge=0)
    # Kinds of error (true class, predicted class) of which examples are shown, and examples of each.
    error_kinds: int = pydantic.Field(12, ge=0)
    errors: int = pydantic.Field(1, ge=0)
    # SmoothGrad over the examples of errors: noisy copies of an image, and seconds after which no other is begun.
    overlays: bool = True
    overlay_samples: int = pydantic.Field(16, ge=1)
    overlay_seconds: float = pydantic.Field(30.0, ge=0)
    # Views of an image whose mean score is compared with the score of the image: 2, 4 or 8; 1 compares nothing.
    average: Literal[1, 2, 4, 8] = 1
    # The model's licence in its card, such as cc-by-4.0; empty: not stated.
    license: str = pydantic.Field("", pattern=r"^[A-Za-z0-9.-]*$")

    def target_of(self, classes: Sequence[str]) -> str | None:
        """Returns the class that must not be missed, or None if `classes` has no such class.

        Raises `InputError` if `target` is not a class.
        """
        if self.target and self.target not in classes:
            raise errors.InputError(f"report.target is {self.target!r}; give one of {', '.join(classes)}")
        return self.target or (CRYSTALS if CRYSTALS in classes else None)
