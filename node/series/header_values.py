"""Values of a header, read leniently: what cannot be decoded counts as absent.

Objects are kept as they came, so any element may hold anything; whoever needs a value says what
its absence means.
"""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.undecodable import UNDECODABLE_IN_MEMORY


def value(header: Dataset, keyword: str) -> Any:
    """The decoded value; None when it is absent, empty or cannot be decoded."""
    try:
        found = header.get(keyword)
    except UNDECODABLE_IN_MEMORY:
        return None
    return None if found == "" else found


def is_empty(header: Dataset, keyword: str) -> bool:
    """Whether nothing stands there; what cannot be decoded does."""
    try:
        return header.get(keyword) in (None, "", [])
    except UNDECODABLE_IN_MEMORY:
        return False


def values(header: Dataset, keyword: str) -> list[Any]:
    """All values of an attribute; empty when there are none."""
    found = value(header, keyword)
    if found is None:
        return []
    return list(found) if isinstance(found, MultiValue | list | tuple) else [found]


def text(header: Dataset, keyword: str) -> str:
    """The first value as text without padding; empty when there is none."""
    found = values(header, keyword)
    return str(found[0]).strip(" \0") if found else ""


def whole(header: Dataset, keyword: str, default: int) -> int:
    """The first value as a whole number; ``default`` when it is none."""
    try:
        return int(values(header, keyword)[0])
    except UNDECODABLE_IN_MEMORY:
        return default


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers; None when they are not that."""
    found = values(header, keyword)
    if len(found) != count:
        return None
    try:
        converted = tuple(float(one) for one in found)
    except UNDECODABLE_IN_MEMORY:
        return None
    return converted if all(math.isfinite(one) for one in converted) else None


def number(header: Dataset, keyword: str, default: float) -> float:
    """One finite number; ``default`` when it is none."""
    found = numbers(header, keyword, 1)
    return default if found is None else found[0]


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty when there are none."""
    found = value(header, keyword)
    return [one for one in found if isinstance(one, Dataset)] if hasattr(found, "__iter__") else []
