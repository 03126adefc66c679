"""Where the slices of an input lie, and which image of the source each of them is.

The Image Plane module (PS3.3 section C.7.6.2) places the *centre* of the first pixel; here, too, whole
numbers are the centres of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.types import Volume
from node.results.facts import Source
from node.results.frames import are_parallel, frames_of, numbers_of
from node.results.source_header import SourceHeader, SourceInstance

#: How far, in parts of a voxel, the directions of a volume may be off those of its source.
_DIRECTION_TOLERANCE = 1e-2
#: A slice may lie a little off an even grid, never as far as half way to its neighbour.
_POSITION_TOLERANCE = 0.45
#: Of a place in mm; what differs less is the same place.
_PLACE_DIGITS = 4


class _NotOnTheGrid(ValueError):
    """The images of the source are not the slices of the volume, one to one; the text says why."""


@dataclass(frozen=True)
class Slice:
    """One slice of an input, and the image that it is.

    ``instance`` is number ``number`` among those of the header, from 0. ``frame`` is the Frame Number
    from 1, None for an image of one frame.
    """

    index: int
    instance: SourceInstance
    number: int
    frame: int | None


@dataclass(frozen=True)
class Grid:
    """The slices of an input in the order of its array, with what is common to them.

    Attributes
    ----------
    shape
        (slice, row, column).
    slices
        Empty, with a ``reason``, when the slices are not the images of the source.
    positions_mm
        (slice, 3) float64: where the centre of the first voxel of each slice lies in LPS; None when that
        is not known, or the frames do not lie in one stack.
    orientation, pixel_spacing_mm
        Image Orientation (Patient) and Pixel Spacing; empty when there are no positions.
    """

    shape: tuple[int, int, int]
    slices: tuple[Slice, ...] = ()
    reason: str = ""
    positions_mm: NDArray[np.float64] | None = None
    orientation: tuple[float, ...] = ()
    pixel_spacing_mm: tuple[float, ...] = ()

    @property
    def is_multi_frame(self) -> bool:
        """Whether an instance of the source has several of the slices as its frames."""
        return any(one.frame is not None for one in self.slices)

    def to_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 3) points in voxels, (slice, row, column), as (x, y, z) in LPS mm.

        A point between two slices lies on the straight line between them; half a slice beyond the
        first or the last, the step to its neighbour goes on.
        """
        assert self.positions_mm is not None
        count = len(self.positions_mm)
        below = np.clip(np.floor(points[:, 0]).astype(int), 0, max(count - 2, 0))
        above = np.minimum(below + 1, count - 1)
        share = (points[:, 0] - below)[:, None]
        origin = self.positions_mm[below] + share * (self.positions_mm[above] - self.positions_mm[below])
        # The row index grows along a column.
        along_row, along_column = np.reshape(self.orientation, (2, 3))
        steps = np.stack([along_column * self.pixel_spacing_mm[0], along_row * self.pixel_spacing_mm[1]])
        return np.asarray(origin + points[:, 1:] @ steps, np.float64)


def grid_of(source: Source, header: SourceHeader) -> Grid | None:
    """Return the grid of an input; None for a series that was given as its instances.

    A volume is laid on the images of its source; where that fails, its own affine says where it lies.
    """
    if source.volume is None:
        return _of_image(source, header) if len(header.images) == 1 else None
    try:
        return _on_source(source.volume, source, header)
    except _NotOnTheGrid as error:
        shape, affine = _shape_of(source.volume), source.volume.affine
        down, across = affine[:3, 1], affine[:3, 2]
        spacing = (float(np.linalg.norm(down)), float(np.linalg.norm(across)))
        return Grid(
            shape,
            reason=str(error),
            positions_mm=affine[:3, 3] + np.arange(shape[0])[:, None] * affine[:3, 0],
            orientation=(*(across / spacing[1]).tolist(), *(down / spacing[0]).tolist()),
            pixel_spacing_mm=spacing,
        )


def lie_apart(positions: Iterable[Sequence[float]]) -> bool:
    """Return whether no two of some places in mm are the same."""
    places = [tuple(round(one, _PLACE_DIGITS) for one in position) for position in positions]
    return len(set(places)) == len(places)


#: With the place in mm of its first voxel, empty where none is stated.
_Frame = tuple[Slice, tuple[float, ...]]


def _frames(source: Source, header: SourceHeader) -> list[_Frame]:
    """Every frame of every image, in the order of the source."""
    found: list[_Frame] = []
    for number, (data_set, instance) in enumerate(zip(source.data_sets, header.instances, strict=True)):
        if not instance.is_image:
            continue
        if instance.frames == 1:
            found.append((Slice(len(found), instance, number, None), instance.position_mm))
            continue
        places = [numbers_of(groups, "ImagePositionPatient") for groups in frames_of(data_set)]
        if len(places) != instance.frames:
            places = [()] * instance.frames
        found += [
            (Slice(len(found) + frame, instance, number, frame + 1), place)
            for frame, place in enumerate(places)
        ]
    return found


def _laid(frames: Sequence[_Frame], *, is_placed: bool) -> Grid:
    """The grid whose slices are ``frames``, in this order."""
    slices = tuple(replace(one, index=index) for index, (one, _) in enumerate(frames))
    first = slices[0].instance
    shape = (len(slices), first.rows, first.columns)
    if not is_placed:
        return Grid(shape, slices)
    positions = np.array([place for _, place in frames], np.float64)
    return Grid(shape, slices, "", positions, first.orientation, first.pixel_spacing_mm)


def _of_image(source: Source, header: SourceHeader) -> Grid:
    """The frames of the one image that was given."""
    frames = _frames(source, header)
    image = frames[0][0]
    is_placed = len(image.instance.orientation) == 6 and len(image.instance.pixel_spacing_mm) == 2
    is_placed = is_placed and all(len(place) == 3 for _, place in frames)
    return _laid(frames, is_placed=is_placed and are_parallel(source.data_sets[image.number]))


def _on_source(volume: Volume, source: Source, header: SourceHeader) -> Grid:
    first = header.instances[0]
    if any(not instance.is_image for instance in header.instances):
        raise _NotOnTheGrid("an instance of the source is no image")
    if (first.rows, first.columns) != _shape_of(volume)[1:]:
        raise _NotOnTheGrid("the volume has not the rows and columns of the source")
    if len(first.orientation) != 6 or len(first.pixel_spacing_mm) != 2:
        raise _NotOnTheGrid("the source has no orientation or spacing")
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    for axis, step in (
        (1, along_column * first.pixel_spacing_mm[0]),
        (2, along_row * first.pixel_spacing_mm[1]),
    ):
        off = float(np.linalg.norm(volume.affine[:3, axis] - step))
        if off > _DIRECTION_TOLERANCE * float(np.linalg.norm(step)):
            raise _NotOnTheGrid("the volume is not on the grid of the source")
    frames = _frames(source, header)
    return _laid([frames[index] for index in _order(frames, volume)], is_placed=True)


def _order(frames: Sequence[_Frame], volume: Volume) -> list[int]:
    """For each slice of the volume which image of the source it is; each image must be one slice."""
    if len(frames) != len(volume.voxels) or any(len(place) != 3 for _, place in frames):
        raise _NotOnTheGrid("the slices of the volume are not the images of the source")
    step, origin = volume.affine[:3, 0], volume.affine[:3, 3]
    length = float(np.linalg.norm(step)) or 1.0
    offsets = np.array([place for _, place in frames], np.float64) - origin
    along = np.round(offsets @ step / length**2).astype(int)
    if len(frames) > 1 and (
        float(np.linalg.norm(offsets - along[:, None] * step, axis=1).max()) > _POSITION_TOLERANCE * length
    ):
        raise _NotOnTheGrid("the slices of the volume do not lie where the images of the source lie")
    if sorted(along.tolist()) != list(range(len(frames))):
        raise _NotOnTheGrid("the images of the source do not match the slices of the volume one to one")
    return [int(image) for image in np.argsort(along)]


def _shape_of(volume: Volume) -> tuple[int, int, int]:
    return (volume.voxels.shape[0], volume.voxels.shape[1], volume.voxels.shape[2])
