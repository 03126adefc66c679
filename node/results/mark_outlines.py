"""Marks as outlines in single slices, for the objects that draw: points, lines and closed contours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import Mark


@dataclass(frozen=True)
class Outline2D:
    """What a mark is in one slice.

    ``places`` is (n, 2) float64, (row, column) in voxels: one place, or the corners of a line.
    """

    slice_index: int
    places: NDArray[np.float64]
    is_closed: bool = False

    @property
    def is_point(self) -> bool:
        """Whether it is one place."""
        return len(self.places) == 1


def outlines(mark: Mark, slice_count: int) -> Iterator[Outline2D]:
    """Yield a mark slice by slice; a box takes in the slices whose centres lie within it, one at least.

    The corners of a box are where the model put them; whole numbers are the centres of voxels.
    """
    indices = np.clip(np.rint(mark.points[:, 0]).astype(int), 0, slice_count - 1)
    places = np.asarray(mark.points[:, 1:], np.float64)
    if mark.shape != "box":
        yield Outline2D(int(indices[0]), places, mark.shape == "polygon")
        return
    low, high = mark.points[:, 0].min(), mark.points[:, 0].max()
    first, last = int(np.ceil(low - 1e-6)), int(np.floor(high + 1e-6))
    if last < first:
        first = last = int(indices.min())
    (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
    corners = np.array([(top, left), (top, right), (bottom, right), (bottom, left)])
    for index in range(max(first, 0), min(last, slice_count - 1) + 1):
        yield Outline2D(index, corners, True)
