"""Where the slices of a derived image lie, on the grid of its input or on one of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import DerivedImage
from node.errors import ResultImpossible
from node.results.given import Given
from node.results.grid import Grid, Slice

#: Rows and columns are perpendicular (PS3.3 section C.7.6.2.1.1) when their cosine is not larger.
_PERPENDICULAR = 1e-4


@dataclass(frozen=True)
class Plane:
    """One slice to be made.

    ``position_mm``, ``orientation`` and ``spacing_mm`` are the values of Image Position (Patient), Image
    Orientation (Patient) and Pixel Spacing, empty for an image without geometry. ``sources`` are the
    images that it was made from, the nearest first.
    """

    index: int
    sources: tuple[Slice, ...]
    position_mm: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    thickness_mm: float | None = None

    @property
    def is_placed(self) -> bool:
        """Whether it is known where it lies in the patient."""
        return bool(self.position_mm)


def planes(image: DerivedImage, given: Given) -> tuple[Plane, ...]:
    """Return the planes of ``image``, whose input is ``given``.

    Raises
    ------
    ValueError
        when its own grid is one that no image can have
    ResultImpossible
        when its source has no place in the patient, or not the slices of the volume
    """
    grid = given.grid
    if grid is None:
        reason = "it was given as instances, which have no grid"
    elif not (reason := grid.reason) and image.affine is None and len(image.voxels) != grid.shape[0]:
        reason = f"the image has {grid.shape[0]} frames, and {len(image.voxels)} were found something in"
    if grid is None or reason:
        raise ResultImpossible(f"the image {image.name} cannot be laid on its source: {reason}")
    if image.affine is not None:
        return _own(image, image.affine, grid)
    thickness, volume = given.header.slice_thickness_mm, given.source.volume
    if thickness is None and volume is not None:
        thickness = float(volume.spacing_mm[0])
    return tuple(
        Plane(
            one.index,
            (one,),
            () if grid.positions_mm is None else tuple(grid.positions_mm[one.index].tolist()),
            grid.orientation,
            grid.pixel_spacing_mm,
            thickness,
        )
        for one in grid.slices
    )


def _own(image: DerivedImage, affine: NDArray[np.float64], grid: Grid) -> tuple[Plane, ...]:
    if grid.positions_mm is None:
        raise ResultImpossible(f"the image {image.name} has a place in the patient, and its source has none")
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or (lengths <= 0).any():
        raise ValueError(f"the affine of {image.name} has a step of no length")
    along_row, along_column = steps[:, 2] / lengths[2], steps[:, 1] / lengths[1]
    if abs(float(along_row @ along_column)) > _PERPENDICULAR:
        raise ValueError(
            f"the rows and columns of {image.name} are not perpendicular, which no image can be; resample it"
        )
    normal = np.cross(along_row, along_column)
    thickness = abs(float(steps[:, 0] @ normal))
    if thickness < 1e-3 * float(lengths[0]):
        raise ValueError(f"the slices of {image.name} lie in one plane")
    found = []
    for index in range(image.voxels.shape[0]):
        position = affine[:3, 3] + index * steps[:, 0]
        found.append(
            Plane(
                index,
                _near(position, steps, image.voxels.shape, grid),
                tuple(float(value) for value in position),
                (*map(float, along_row), *map(float, along_column)),
                (float(lengths[1]), float(lengths[2])),
                thickness,
            )
        )
    return tuple(found)


def _near(
    position: NDArray[np.float64], steps: NDArray[np.float64], shape: tuple[int, ...], grid: Grid
) -> tuple[Slice, ...]:
    """Return the slices of the source between which a plane lies, and those next to them; never none."""
    normal = np.cross(grid.orientation[:3], grid.orientation[3:])
    assert grid.positions_mm is not None
    heights = grid.positions_mm @ normal
    corners = [
        (position + row * steps[:, 1] + column * steps[:, 2]) @ normal
        for row in (0, shape[1] - 1)
        for column in (0, shape[2] - 1)
    ]
    gap = float(np.abs(np.diff(heights)).max()) if len(heights) > 1 else 0.0
    within = (heights >= min(corners) - gap) & (heights <= max(corners) + gap)
    by_distance = np.argsort(np.abs(heights - float(np.mean(corners))), kind="stable")
    chosen = [grid.slices[int(index)] for index in by_distance if within[index]]
    return tuple(chosen) or (grid.slices[int(by_distance[0])],)
