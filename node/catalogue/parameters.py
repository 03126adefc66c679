"""The parameters of a model: what was given for them, read by type and bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.base import Parameter
from models.types import ParameterValue
from node.config.config_values import suggestion


class ParameterFaults(ValueError):
    """``faults`` says for each key what is wrong with it, in the words that follow the key."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"parameter {key}: {fault}" for key, fault in faults.items()))
        self.faults = dict(faults)


def read(known: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """Return a value for each of ``known``: what was given, else its default.

    Raises
    ------
    ParameterFaults
        with every fault of what was given
    """
    by_name = {one.name: one for one in known}
    values: dict[str, ParameterValue] = {one.name: one.default for one in known}
    faults: dict[str, str] = {}
    for key, value in given.items():
        if key not in by_name:
            faults[key] = _unknown(key, by_name)
            continue
        try:
            values[key] = read_one(by_name[key], value)
        except ValueError as error:
            faults[key] = str(error)
    if faults:
        raise ParameterFaults(faults)
    return values


def read_one(parameter: Parameter, value: Any) -> ParameterValue:
    """Return ``value`` as ``parameter`` takes it; raises ValueError saying why it does not."""
    read_value = _typed(parameter.default, value)
    if parameter.choices and read_value not in parameter.choices:
        allowed = ", ".join(map(_shown, parameter.choices))
        hint = suggestion(read_value, map(str, parameter.choices)) if isinstance(read_value, str) else ""
        raise ValueError(f"{_shown(value)} is none of {allowed}{hint}")
    numbers = read_value if isinstance(read_value, tuple) else (read_value,)
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool):
            _refuse_out_of_bounds(parameter, number)
    return read_value


def _unknown(key: str, known: Mapping[str, Parameter]) -> str:
    if not known:
        return "unknown; this model has no parameters"
    return f"unknown parameter{suggestion(key, known) or '; there are ' + ', '.join(known)}"


def _typed(default: ParameterValue, value: Any) -> ParameterValue:
    """Return ``value`` in the type of ``default``."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, not {_shown(value)}")
        return value
    if isinstance(default, int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"expected a whole number, not {_shown(value)}")
        return value
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise ValueError(f"expected a number, not {_shown(value)}")
        return float(value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"expected text in quotes, not {_shown(value)}")
        return value
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"expected a table, not {_shown(value)}")
        return {key: _plain(one) for key, one in value.items()}
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list in square brackets, not {_shown(value)}")
    return tuple(_typed(default[0], one) if default else _plain(one) for one in value)


def _plain(value: Any) -> ParameterValue:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, bool | int | str) or (isinstance(value, float) and value - value == 0):
        return value
    raise ValueError(f"{_shown(value)} is no value that a parameter may have")


def _refuse_out_of_bounds(parameter: Parameter, number: float) -> None:
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = (
            f"from {low:g} to {high:g}"
            if low is not None and high is not None
            else f"of at least {low:g}"
            if low is not None
            else f"of at most {high:g}"
        )
        raise ValueError(f"expected a number {bounds}, not {number:g}")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
