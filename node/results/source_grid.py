"""Where the slices of an input lie, and which image of the source each of them is.

The Image Plane module (PS3.3 section C.7.6.2) places the *centre* of the first pixel; here, too, whole
numbers are the centres of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.results.evidence import frame_positions_mm, frames_are_parallel
from node.results.facts import Source
from node.results.header_values import integer, items
from node.results.source_header import SourceHeader, SourceInstance

#: How far, in parts of a voxel, the directions of a volume may be off those of its source.
_DIRECTION_TOLERANCE = 1e-2
#: A slice may lie a little off an even grid, never as far as half way to its neighbour.
_POSITION_TOLERANCE = 0.45
#: Of a place in mm; what differs less is the same place.
_PLACE_DIGITS = 4


class NotOnTheGrid(ValueError):
    """What was found cannot be laid on the images of the source; the text says why."""


@dataclass(frozen=True)
class Slice:
    """One slice of an input: the image that it is, and where it lies.

    ``frame`` is the Frame Number from 1, None for a single-frame image. ``position_mm`` is (x, y, z) of
    the centre of the first voxel in LPS, empty when the source does not say where it is.
    """

    index: int
    instance: SourceInstance
    frame: int | None
    position_mm: tuple[float, ...] = ()


@dataclass(frozen=True)
class SourceGrid:
    """The slices of an input in the order of its array, with what is common to them.

    ``along_row`` and ``along_column`` are the unit vectors of Image Orientation (Patient): in their
    directions the column index and the row index grow. ``pixel_spacing_mm`` is (between rows, between
    columns). All three are empty when the source has no geometry, and when its frames do not lie in one
    stack: orientation and spacing are then those of each alone.
    """

    slices: tuple[Slice, ...]
    rows: int
    columns: int
    along_row: tuple[float, ...] = ()
    along_column: tuple[float, ...] = ()
    pixel_spacing_mm: tuple[float, ...] = ()

    @property
    def is_placed(self) -> bool:
        """Whether it is known where every slice lies in the patient."""
        return bool(self.along_row) and all(len(one.position_mm) == 3 for one in self.slices)

    def to_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 3) points in voxels, (slice, row, column), as (x, y, z) in LPS mm.

        A point between two slices lies on the straight line between them.
        """
        positions = np.array([one.position_mm for one in self.slices], np.float64)
        below = np.clip(np.floor(points[:, 0]).astype(int), 0, max(len(positions) - 2, 0))
        above = np.minimum(below + 1, len(positions) - 1)
        share = (points[:, 0] - below)[:, None]
        origin = positions[below] + share * (positions[above] - positions[below])
        across = np.outer(points[:, 2] * self.pixel_spacing_mm[1], self.along_row)
        down = np.outer(points[:, 1] * self.pixel_spacing_mm[0], self.along_column)
        placed: NDArray[np.float64] = origin + across + down
        return placed

    def nearest(self, slice_place: float) -> int:
        """Return the slice that a place along the slices is nearest to."""
        return int(np.clip(np.floor(slice_place + 0.5), 0, len(self.slices) - 1))

    def in_slice_mm(self, index: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 3) mm in LPS of ``places``, (n, 2) float64 (row, column) in voxels of a slice."""
        return self.to_mm(np.column_stack([np.full(len(places), float(index)), places]))


def source_grid(source: Source, header: SourceHeader, slice_count: int | None = None) -> SourceGrid:
    """Return the grid of an input, checked against its volume where it has one.

    Parameters
    ----------
    slice_count
        how many slices or frames an array on an input without a volume has

    Raises
    ------
    NotOnTheGrid
        when the images of the source are not the slices of the volume, one to one
    """
    if source.volume is None:
        return _image_grid(header, slice_count)
    first = header.instances[0]
    if any(not instance.is_image for instance in header.instances):
        raise NotOnTheGrid("an instance of the source is no image")
    if (first.rows, first.columns) != source.volume.voxels.shape[1:]:
        raise NotOnTheGrid("the volume has not the rows and columns of the source")
    if len(first.orientation) != 6 or len(first.pixel_spacing_mm) != 2:
        raise NotOnTheGrid("the source has no orientation or spacing")
    affine = source.volume.affine
    along_row, along_column = np.asarray(first.orientation[:3]), np.asarray(first.orientation[3:])
    for axis, step in (
        (1, along_column * first.pixel_spacing_mm[0]),
        (2, along_row * first.pixel_spacing_mm[1]),
    ):
        if float(np.linalg.norm(affine[:3, axis] - step)) > _DIRECTION_TOLERANCE * float(
            np.linalg.norm(step)
        ):
            raise NotOnTheGrid("the volume is not on the grid of the source")
    frames = _frames(source, header)
    order = _order([place for *_, place in frames], affine, source.volume.voxels.shape[0])
    return SourceGrid(
        tuple(Slice(index, *frames[image]) for index, image in enumerate(order)),
        first.rows,
        first.columns,
        first.orientation[:3],
        first.orientation[3:],
        first.pixel_spacing_mm,
    )


def lie_apart(positions: Iterable[Sequence[float]]) -> bool:
    """Return whether no two of some places in mm are the same."""
    places = [tuple(round(one, _PLACE_DIGITS) for one in position) for position in positions]
    return len(set(places)) == len(places)


def _frames(
    source: Source, header: SourceHeader
) -> list[tuple[SourceInstance, int | None, tuple[float, ...]]]:
    """Every frame of every instance: the instance, the Frame Number where it has several, the place."""
    found: list[tuple[SourceInstance, int | None, tuple[float, ...]]] = []
    for data_set, instance in zip(source.data_sets, header.instances, strict=True):
        if positions := frame_positions_mm(data_set):
            found += [(instance, number, position) for number, position in enumerate(positions, 1)]
        else:
            found.append((instance, None, instance.position_mm))
    return found


def _image_grid(header: SourceHeader, slice_count: int | None) -> SourceGrid:
    """The frames of the one image that was given."""
    if not header.images:
        raise NotOnTheGrid("the source has no image")
    image = header.images[0]
    data_set = header.first
    frames = max(1, integer(data_set, "NumberOfFrames"))
    if slice_count is not None and slice_count != frames:
        raise NotOnTheGrid(f"the image has {frames} frames, and {slice_count} were found something in")
    # The class of an image with one frame may be one that has no frames.
    is_multi_frame = frames > 1 or has_functional_groups(header)
    positions: Sequence[tuple[float, ...]] = frame_positions_mm(data_set)
    if len(positions) != frames:
        positions = [image.position_mm] if frames == 1 else [()] * frames
    is_placed = len(image.orientation) == 6 and len(image.pixel_spacing_mm) == 2
    is_placed = is_placed and (frames == 1 or frames_are_parallel(header))
    return SourceGrid(
        tuple(
            Slice(index, image, index + 1 if is_multi_frame else None, positions[index])
            for index in range(frames)
        ),
        image.rows,
        image.columns,
        image.orientation[:3] if is_placed else (),
        image.orientation[3:] if is_placed else (),
        image.pixel_spacing_mm if is_placed else (),
    )


def _order(
    positions: Sequence[tuple[float, ...]], affine: NDArray[np.float64], slice_count: int
) -> list[int]:
    """For each slice of the volume which image of the source it is; each image must be one slice."""
    if len(positions) != slice_count or any(len(position) != 3 for position in positions):
        raise NotOnTheGrid("the slices of the volume are not the images of the source")
    step, origin = affine[:3, 0], affine[:3, 3]
    length = float(np.linalg.norm(step)) or 1.0
    offsets = np.asarray(positions, dtype=float) - origin
    along = np.round(offsets @ step / length**2).astype(int)
    if len(positions) > 1 and (
        float(np.linalg.norm(offsets - along[:, None] * step, axis=1).max()) > _POSITION_TOLERANCE * length
    ):
        raise NotOnTheGrid("the slices of the volume do not lie where the images of the source lie")
    if sorted(along.tolist()) != list(range(len(positions))):
        raise NotOnTheGrid("the images of the source do not match the slices of the volume one to one")
    order = [0] * len(positions)
    for image, index in enumerate(along.tolist()):
        order[index] = image
    return order


def has_functional_groups(header: SourceHeader) -> bool:
    """Whether the source is one multi-frame instance with functional groups (PS3.3 section C.7.6.16)."""
    return len(header.instances) == 1 and bool(items(header.first, "PerFrameFunctionalGroupsSequence"))
