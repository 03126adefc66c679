"""Reading and writing single elements of headers that may be odd; nothing here raises for that."""

from __future__ import annotations

import math
import re
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.undecodable import UNDECODABLE_IN_MEMORY

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def text(data_set: Dataset, keyword: str) -> str:
    """Return the decoded value, stripped; several values joined by a backslash; empty if unreadable."""
    try:
        value = data_set.get(keyword)
        if value is None:
            return ""
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        decoded = "\\".join(str(one) for one in values)
    except UNDECODABLE_IN_MEMORY:
        return ""
    return _CONTROL.sub(" ", decoded).strip()


def numbers(data_set: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the finite numbers of an element; empty when any value of it is none."""
    try:
        found = tuple(float(one) for one in text(data_set, keyword).split("\\") if one.strip())
    except ValueError:
        return ()
    return found if all(math.isfinite(one) for one in found) else ()


def integer(data_set: Dataset, keyword: str) -> int:
    """Return the element as a whole number, 0 when it is none."""
    found = numbers(data_set, keyword)
    return int(found[0]) if len(found) == 1 and abs(found[0]) < 2**31 else 0


def items(data_set: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty when it is absent or unreadable."""
    try:
        return [item for item in data_set.get(keyword) or [] if isinstance(item, Dataset)]
    except UNDECODABLE_IN_MEMORY:
        return []


def code_items(data_set: Dataset, keyword: str) -> list[Dataset]:
    """Return copies of the complete items of a code sequence (PS3.3 section 8)."""
    found = []
    for item in items(data_set, keyword):
        value, scheme, meaning = (
            text(item, name) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        )
        if value and scheme and meaning and len(value) <= 16 and len(scheme) <= 16:
            copy = Dataset()
            copy.CodeValue, copy.CodingSchemeDesignator, copy.CodeMeaning = value, scheme, meaning[:64]
            found.append(copy)
    return found


def put(data_set: Dataset, keyword: str, value: str) -> None:
    """Set a value as it is, also one too long for its VR: it is what the PACS knows the study by."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    data_set[keyword] = DataElement(tag, dictionary_VR(tag), value or None, validation_mode=config.IGNORE)


def as_decimal_string(value: Any) -> str:
    """Return a number as DS of at most 16 characters (PS3.5 section 6.2)."""
    number = float(value)
    for digits in range(16, 3, -1):
        written = f"{number:.{digits}g}"
        if len(written) <= 16:
            return written
    return f"{number:.3g}"
