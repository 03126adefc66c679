"""Where the voxels of an input lie, whether or not its slices are the images of the source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import Volume
from node.results.given import Given
from node.results.source_grid import NotOnTheGrid, SourceGrid, source_grid
from node.results.source_header import SourceHeader


@dataclass(frozen=True)
class Grid:
    """The slices of an input.

    Attributes
    ----------
    shape
        (slice, row, column).
    frames
        For each slice the index of its instance among the header's and the index of its frame, both
        from 0; empty, with a ``reason``, when the slices are not the frames of the source.
    positions_mm
        (slice, 3) float64: where the centre of the first voxel of each slice lies; None when the
        source is not placed in a patient.
    steps_mm
        (2, 3) float64: from row to row, and from column to column.
    is_multi_frame
        Whether an instance of the source has several of the slices as its frames.
    """

    shape: tuple[int, int, int]
    frames: tuple[tuple[int, int], ...] = ()
    reason: str = ""
    positions_mm: NDArray[np.float64] | None = None
    steps_mm: NDArray[np.float64] | None = None
    is_multi_frame: bool = False

    def to_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 3) points in voxels, (slice, row, column), as (x, y, z) in LPS mm.

        A point between two slices lies on the straight line between them; half a slice beyond the
        first or the last, the step to its neighbour goes on.
        """
        assert self.positions_mm is not None
        assert self.steps_mm is not None
        count = len(self.positions_mm)
        below = np.clip(np.floor(points[:, 0]).astype(int), 0, max(count - 2, 0))
        above = np.minimum(below + 1, count - 1)
        share = (points[:, 0] - below)[:, None]
        origin = self.positions_mm[below] + share * (self.positions_mm[above] - self.positions_mm[below])
        return np.asarray(origin + points[:, 1:] @ self.steps_mm, np.float64)


def grid_of(given: Given) -> Grid | None:
    """Return the grid of an input; None for a series that was given as its instances."""
    if given.source.volume is not None:
        return _of_volume(given.source.volume, given)
    if len(given.header.images) != 1:
        return None
    placed = source_grid(given.source, given.header)
    return _of_source(placed, given.header, is_placed=placed.is_placed)


def _of_volume(volume: Volume, given: Given) -> Grid:
    """Lay a volume on the images of its source; where that fails, its own affine says where it lies."""
    try:
        return _of_source(source_grid(given.source, given.header), given.header, is_placed=True)
    except NotOnTheGrid as error:
        shape = (volume.voxels.shape[0], volume.voxels.shape[1], volume.voxels.shape[2])
        slices = np.arange(shape[0])[:, None]
        positions = volume.affine[:3, 3] + slices * volume.affine[:3, 0]
        return Grid(shape, (), str(error), positions, np.ascontiguousarray(volume.affine[:3, 1:3].T))


def _of_source(placed: SourceGrid, header: SourceHeader, *, is_placed: bool) -> Grid:
    index_of = {id(instance): index for index, instance in enumerate(header.instances)}
    shape = (len(placed.slices), placed.rows, placed.columns)
    frames = tuple((index_of[id(one.instance)], (one.frame or 1) - 1) for one in placed.slices)
    is_multi_frame = len({instance for instance, _ in frames}) < len(frames)
    if not is_placed:
        return Grid(shape, frames, is_multi_frame=is_multi_frame)
    spacing = placed.pixel_spacing_mm
    steps = np.stack([np.array(placed.along_column) * spacing[0], np.array(placed.along_row) * spacing[1]])
    positions = np.array([one.position_mm for one in placed.slices], np.float64)
    return Grid(shape, frames, "", positions, steps, is_multi_frame)
