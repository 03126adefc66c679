"""Values held against the types that ``models.types`` declares for them."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np

from node.processes.texts import refuse_unprintable

#: What numpy has for a plain value is as good; a truth value is no number, nor the other way round.
_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("truth value", lambda value: isinstance(value, bool | np.bool_)),
    int: ("whole number", lambda value: isinstance(value, int | np.integer) and not isinstance(value, bool)),
    float: (
        "number",
        lambda value: (
            isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        ),
    ),
}


def refuse_other_types(value: Any) -> None:
    """Refuse a dataclass of which a part is not of the type that is declared for it.

    Of arrays only that they are some; of texts their length, too, and that they can be printed.

    Raises
    ------
    TypeError, ValueError
        naming the part
    """
    _refuse(value, type(value), type(value).__name__)


@cache
def declared(kind: type) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, by name."""
    return typing.get_type_hints(kind)


def _refuse(value: Any, kind: Any, where: str) -> None:
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, kind):
            raise TypeError(f"{where} is no {kind.__name__}, but {_named(value)}")
        for one in fields(kind):
            _refuse(getattr(value, one.name), declared(kind)[one.name], f"{kind.__name__}.{one.name}")
        return
    if kind in _PLAIN:
        what, is_one = _PLAIN[kind]
        if not is_one(value):
            raise TypeError(f"{where} is no {what}, but {_named(value)}")
        if kind is str:
            refuse_unprintable(value, where)
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is np.ndarray:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{where} is no array, but {_named(value)}")
    elif origin is tuple:
        _refuse_items(value, arguments, where)
    elif origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{where} is none of {', '.join(map(repr, arguments))}, but {_named(value)}")
    elif origin in (typing.Union, types.UnionType):
        _refuse_all_of(value, arguments, where)


def _refuse_items(value: Any, arguments: tuple[Any, ...], where: str) -> None:
    # A list is what a model may have collected; it arrives as a tuple.
    if not isinstance(value, tuple | list):
        raise TypeError(f"{where} is no tuple, but {_named(value)}")
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise TypeError(f"{where} has {len(value)} items instead of {len(kinds)}")
    for one, kind in zip(value, kinds, strict=True):
        _refuse(one, kind, where)


def _refuse_all_of(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    """Refuse what is none of a union's; a class that the value is of says what is wrong within it."""
    if value is None and type(None) in kinds:
        return
    others = [kind for kind in kinds if kind is not type(None)]
    of_its_class = [kind for kind in others if isinstance(kind, type) and isinstance(value, kind)]
    _refuse(value, (of_its_class or others)[0], where)


def _named(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
