"""Patient Orientation (0020,0020): where the rows and the columns of an image run to, in letters."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.results.header_values import text

_LETTERS = set("LRPAHF")
_MOST_LETTERS = 3


def directions(data_set: Dataset) -> list[str] | None:
    """Return the directions of rows and of columns; None when they are not those that the standard has.

    Each is one to three of the letters of PS3.3 section C.7.6.1.1.1: ``["L", "PF"]``.
    """
    stated = text(data_set, "PatientOrientation").split("\\")
    if len(stated) != 2 or not all(_is_direction(one) for one in stated):
        return None
    return stated


def _is_direction(letters: str) -> bool:
    return (
        0 < len(letters) <= _MOST_LETTERS and set(letters) <= _LETTERS and len(set(letters)) == len(letters)
    )
