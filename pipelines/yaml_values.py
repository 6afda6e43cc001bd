"""Nested mappings as YAML files and `--set` give them: read, laid over each other, changed at a dotted key."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

from marco_model.errors import InputError


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a YAML file holds; raises `InputError` where that is no mapping."""
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}; it must map keys to values, as the presets do")
    return values


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Returns both as one; where both have a name, mappings are joined and other values are those of `above`."""
    joined = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        joined[name] = laid_over(below[name], value) if both else value
    return joined


def override(values: dict[str, Any], change: str) -> None:
    """Makes a change such as `recipe.steps=500` in place; the value is YAML.

    Raises `InputError` where it has no `=`, or leads through a value.
    """
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f"--set {change!r} has no '='; write it as section.key=value")
    *sections, last = key.strip().split(".")
    section(values, sections, f"--set {change!r}")[last] = yaml.safe_load(text)


def section(values: dict[str, Any], names: list[str], option: str) -> dict[str, Any]:
    """Returns the mapping at a path of names, made where it is not there; `option` is what an error names.

    Raises `InputError` where the path leads through a value.
    """
    for name in names:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise InputError(f"{option}: {name!r} holds a value, not a section")
    return values
