"""Takes withheld numbers out of all that findings say in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from models.types import Check, Code, Evaluation, Findings
from node.results.written_numbers import WrittenNumbers

#: The fields that are for people, of whatever part of the findings.
_TEXTS = {"label", "summary", "reason", "meaning"}
_NAMED = ("segments", "marks", "images", "transforms", "pictures")

AnyFindings = TypeVar("AnyFindings", bound=Findings)


def without_words(findings: AnyFindings, numbers: Sequence[float]) -> AnyFindings:
    """Return ``findings`` with ``numbers`` replaced in texts, labels, names, and meanings of codes."""
    written = WrittenNumbers(numbers)
    return _with_other_names(_silent(findings, written), written)


def _silent(part: Any, written: WrittenNumbers) -> Any:
    """Return a part of the findings, of whatever type, with other words in it."""
    if isinstance(part, tuple):
        return tuple(_silent(one, written) for one in part)
    if isinstance(part, Evaluation):
        part = replace(part, value=_answer(part.value, written))
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changes: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, str):
            if field.name in _TEXTS or (isinstance(part, Check) and field.name == "name"):
                changes[field.name] = written.without(value)
        elif isinstance(part, Check) and field.name == "withholds":
            changes[field.name] = tuple(written.without(name) for name in value)
        elif is_dataclass(value) or isinstance(value, tuple):
            changes[field.name] = _silent(value, written)
    return replace(part, **changes)


def _answer(value: Code | str, written: WrittenNumbers) -> Code | str:
    """Return an answer; a code that says the number is none any more, only what is left of its words."""
    if isinstance(value, str):
        return written.without(value)
    meaning = written.without(value.meaning)
    # A code of a digit or two is one of a scale.
    is_telling = len(value.value) > 2 and written.without(value.value) != value.value
    return meaning if is_telling or meaning != value.meaning else value


def _with_other_names(findings: AnyFindings, written: WrittenNumbers) -> AnyFindings:
    """Return the findings with names that hold no number, each still the only one of its kind.

    Whole numbers as large as there are things only count them: ``nodule-2``.
    """
    taken = {one.name for kind in _NAMED for one in getattr(findings, kind)}
    ordinals = len(taken)
    changes: dict[str, Any] = {}
    for kind in _NAMED:
        changes[kind] = []
        for one in getattr(findings, kind):
            name = fresh = written.without(one.name, ordinals=ordinals)
            number = 1
            while fresh != one.name and fresh in taken:
                number += 1
                fresh = f"{name} {number}"
            taken.add(fresh)
            changes[kind].append(replace(one, name=fresh))
        changes[kind] = tuple(changes[kind])
    return replace(findings, **changes)
