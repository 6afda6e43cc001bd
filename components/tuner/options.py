"""What a search may be told, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from marco_model.errors import InputError
from marco_model.network import Network
from marco_model.recipe import Recipe

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
