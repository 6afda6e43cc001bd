"""From KerasTuner's hyperparameters to a search space of Vizier's, and from its suggestions back."""

from __future__ import annotations

from typing import Any

from keras_tuner.engine import hyperparameters as hp

from marco_model.errors import InputError

_SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}


def parameter_spec(one: Any) -> dict[str, Any]:
    """Returns Vizier's `ParameterSpec` of a hyperparameter other than Fixed.

    What has a step is searched as a list of values, unordered choices and booleans as categories by their text.
    Raises `InputError` for a conditional hyperparameter.
    """
    if one.conditions:
        raise InputError(f"the hyperparameter {one.name} depends on another one; Vizier is given independent ones only")
    if isinstance(one, hp.Boolean) or (isinstance(one, hp.Choice) and not one.ordered):
        return {"parameter_id": one.name, "categorical_value_spec": {"values": [str(value) for value in one.values]}}
    spec = {"parameter_id": one.name, "scale_type": _SCALES[getattr(one, "sampling", "linear")]}
    if isinstance(one, hp.Choice) or _stepped(one):
        return {**spec, "discrete_value_spec": {"values": sorted({float(value) for value in one.values})}}
    kind = "integer_value_spec" if isinstance(one, hp.Int) else "double_value_spec"
    return {**spec, kind: {"min_value": one.min_value, "max_value": one.max_value}}


def value_of(one: Any, suggested: float | str) -> Any:
    """Returns a suggestion as a value of the hyperparameter: of its type, within its limits or among its values."""
    if isinstance(suggested, str):
        return next(value for value in one.values if str(value) == suggested)
    if isinstance(one, hp.Choice) or _stepped(one):
        value = min(one.values, key=lambda value: abs(value - suggested))
    else:
        value = min(max(suggested, one.min_value), one.max_value)
    return round(value) if isinstance(one, hp.Int) else value


def _stepped(one: Any) -> bool:
    """Returns whether a number has a step; KerasTuner gives linear integers one of 1 by default."""
    return one.step is not None and not (isinstance(one, hp.Int) and one.sampling == "linear" and one.step == 1)


def searched(spec: Any) -> tuple[Any, ...]:
    """Returns what makes two studies' specifications one search; the service may fill in the rest."""
    kinds = ("double_value_spec", "integer_value_spec", "categorical_value_spec", "discrete_value_spec")
    limits = set()
    for parameter in spec.parameters:
        kind = next(kind for kind in kinds if kind in parameter)
        asked = getattr(parameter, kind)
        found = tuple(asked.values) if "values" in type(asked).meta.fields else (asked.min_value, asked.max_value)
        limits.add((parameter.parameter_id, kind, found))
    return limits, {(metric.metric_id, metric.goal) for metric in spec.metrics}
