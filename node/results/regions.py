"""Where a mark lies: in mm of the patient, or on the pixels of an image (PS3.3 section C.18.6 and C.18.9).

A point is where its coordinates say, and so are the vertices of a polygon or a polyline. The corners of
a box are the centres of voxels, and the box reaches half a voxel beyond them, to the outer edges of the
voxels. Along the slices it takes in those whose centres lie in it, and has its outline in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.types import Mark
from node.results.given import Given
from node.results.grid import Slice

GraphicType = Literal["POINT", "POLYGON", "POLYLINE"]
#: As many as Graphic Data (FL) has room for within the 64 KiB of Explicit VR, in space and on an image.
MOST_POINTS_IN_SPACE, MOST_POINTS_ON_AN_IMAGE = 65534 // 12, 65534 // 8


@dataclass(frozen=True)
class OnImage:
    """A shape on one image: ``points`` is (n, 2) float64, (column, row), the first pixel's corner 0, 0."""

    image: Slice
    points: NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """Where a mark lies: one of the two lists is filled, or neither, and then ``reason`` says why.

    ``in_space`` holds for each slice that the mark is in (n, 3) float64 mm in LPS.
    """

    graphic_type: GraphicType
    in_space: tuple[NDArray[np.float64], ...] = ()
    on_images: tuple[OnImage, ...] = ()
    reason: str = ""

    @property
    def is_planar(self) -> bool:
        """Whether it lies in one plane."""
        return len(self.in_space) + len(self.on_images) == 1


def region_of(mark: Mark, given: Given) -> Region:
    """Return where ``mark`` lies on its input: in space on a volume that says in which, else on its images.

    Raises
    ------
    ValueError
        when it has not the points of its shape, or lies outside the input
    """
    grid = given.grid
    if grid is None:
        return Region(_TYPES[mark.shape], reason="its input was given as instances, which have no grid")
    outlines = outlines_of(mark, grid.shape)
    kind = _TYPES[mark.shape]
    is_in_space = given.source.volume is not None and given.has_frame_of_reference
    most, longest = MOST_POINTS_IN_SPACE if is_in_space else MOST_POINTS_ON_AN_IMAGE, max(map(len, outlines))
    if longest > most:
        return Region(
            kind, reason=f"a report has room for {most:,} points of an outline, and it has {longest:,}"
        )
    if is_in_space:
        return Region(kind, in_space=tuple(grid.to_mm(one) for one in outlines))
    if grid.reason:
        return Region(kind, reason=grid.reason)
    # Whole numbers are the centres of voxels here, and the corners of pixels in DICOM.
    images = (OnImage(grid.slices[slice_of(one, grid.shape)], one[:, :0:-1] + 0.5) for one in outlines)
    return Region(kind, on_images=tuple(images))


_TYPES: dict[str, GraphicType] = {
    "point": "POINT", "box": "POLYGON", "polygon": "POLYGON", "polyline": "POLYLINE",
}  # fmt: skip
_POINTS = {"point": (1, 1), "box": (2, 2), "polygon": (3, None), "polyline": (2, None)}


def outlines_of(mark: Mark, shape: tuple[int, int, int]) -> list[NDArray[np.float64]]:
    """Return the outline of ``mark`` in each slice that it is in: (n, 3) float64, (slice, row, column).

    A polygon, and so a box, is closed: its last vertex is the first.

    Raises
    ------
    ValueError
        when it has not the points of its shape, or lies outside the grid of ``shape``
    """
    points = np.asarray(mark.points, np.float64)
    least, most = _POINTS[mark.shape]
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError(f"the points of the mark {mark.name} are no finite (n, 3)")
    if len(points) < least or (most is not None and len(points) > most):
        raise ValueError(f"the mark {mark.name} is a {mark.shape} of {len(points)} points")
    last = np.array(shape) - 0.5
    if (points < -0.5).any() or (points > last).any():
        raise ValueError(f"the mark {mark.name} lies outside its input")
    if mark.shape == "box":
        low, high = np.maximum(points.min(axis=0) - 0.5, -0.5), np.minimum(points.max(axis=0) + 0.5, last)
        first, end = int(np.floor(points[:, 0].min() + 0.5)), int(np.ceil(points[:, 0].max() - 0.5))
        corners = ((low[1], low[2]), (low[1], high[2]), (high[1], high[2]), (high[1], low[2]))
        slices = range(max(first, 0), min(max(first, end), shape[0] - 1) + 1)
        return [np.array([(index, *corner) for corner in (*corners, corners[0])]) for index in slices]
    if mark.shape == "polygon" and not np.array_equal(points[0], points[-1]):
        points = np.concatenate([points, points[:1]])
    return [points]


def slice_of(outline: NDArray[np.float64], shape: tuple[int, int, int]) -> int:
    """Return the slice that an outline of ``outlines_of`` lies nearest to."""
    return int(np.clip(np.floor(outline[0, 0] + 0.5), 0, shape[0] - 1))
