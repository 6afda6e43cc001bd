"""What a schedule changes from run to run: parameters of the steps that train, beside the settings that stay.

They are parameters of their own, since a parameter of a compiled pipeline can't stand within the JSON of
`custom_config`: TFX leaves it there as text.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfx import types
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import component_spec
from tfx.utils import json_utils

from marco_model.errors import InputError

_CONFIG = "custom_config"


@dataclasses.dataclass(frozen=True)
class TrainingParameters:
    """`source` and `fingerprint` of the data, the fingerprint of the weights that training begins from, and the steps.

    Each is a string or a parameter that is given when the run is submitted. `initial` is empty where those weights
    can't be read before the run; `steps` is empty for the recipe's own.
    """

    source: str | RuntimeParameter
    fingerprint: str | RuntimeParameter
    initial: str | RuntimeParameter = ""
    steps: str | RuntimeParameter = ""

    def values(self) -> dict[str, Any]:
        """Returns the parameters by name."""
        return {name: getattr(self, name) for name in NAMES}


NAMES = tuple(field.name for field in dataclasses.fields(TrainingParameters))
SPEC = {name: component_spec.ExecutionParameter(type=str) for name in NAMES}
"""For the PARAMETERS of a TFX component."""


def steps(text: str) -> int | None:
    """Returns the steps that a parameter asks for, None for the recipe's.

    Raises `InputError` for what is no whole number above 0.
    """
    if not text:
        return None
    if not text.isdecimal() or not int(text):
        raise InputError(f"steps is {text!r}; give a whole number above 0, or nothing for the recipe's own")
    return int(text)


def into_config(exec_properties: dict[str, Any]) -> dict[str, Any]:
    """Returns the execution properties as TFX's own executor wants them: the parameters within `custom_config`.

    Raises `InputError` for steps that are no number.
    """
    properties = dict(exec_properties)
    given = {name: properties.pop(name) for name in NAMES}
    config = json_utils.loads(properties[_CONFIG])
    config["data"] = {**config.get("data", {}), "source": given["source"], "fingerprint": given["fingerprint"]}
    config["initial"] = given["initial"]
    if wanted := steps(given["steps"]):
        config["recipe"] = {**config["recipe"], "steps": wanted}
    return {**properties, _CONFIG: json_utils.dumps(config)}


class TakesParameters:
    """For an executor of TFX's, in front of it: hands the parameters over within `custom_config`."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs the executor; raises what it does, and `InputError` for steps that are no number."""
        super().Do(input_dict, output_dict, into_config(exec_properties))  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class Judging:
    """The model to beat (`components.champion.write_champion`, empty for none) and the run's signature.

    Each is a string or a parameter that a step of the run gives.
    """

    champion: str | RuntimeParameter = ""
    signature: str | RuntimeParameter = ""
