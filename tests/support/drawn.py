"""Slices to draw and what is found again in a picture, for the tests of result pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from node.results.build import Source
from node.results.given import AllGiven
from node.results.pictures.anatomy import Anatomy
from node.results.source_header import SourceHeader


def plain(grey: Any, spacing_mm: tuple[float, float] = (1.0, 1.0), masks: Any = ()) -> Anatomy:
    return Anatomy(np.asarray(grey, np.uint8), masks, spacing_mm, ("R", "L", "A", "P"), 0, 1, 0)


def given(source: Source) -> AllGiven:
    return AllGiven.of(source, SourceHeader.of(source))


def bright_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is pure white: the anatomy of ``plain`` when it is all 255."""
    rows, columns = np.nonzero((pixels == 255).all(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
