"""Where the array that a network is given lies on the grid of its input, and the way back.

An array is made from an input in steps: its axes are turned (``orientation``), it is resampled
(``spacing_mm`` or ``resize``), and cropped or padded (``size``, ``divisible_by``). Each step is a map of
indices, so what the network says of its array can be said of the input, exactly where nothing was
resampled. Whole indices are the centres of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["linear", "nearest"]
#: In voxels: what two affines of one grid differ by, each rounded to float32.
_SLACK = 1e-3
_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


@dataclass(frozen=True)
class Placement:
    """The steps from the grid of an input to the array of a network, both of three axes.

    Attributes
    ----------
    source_shape
        (slice, row, column) of the input
    order
        which axis of the input each axis of the array is
    flips
        whether it runs the other way
    scaled_shape
        the shape after resampling; that of the turned input when there is none
    offset
        index in the resampled array of the first voxel of the final one; negative where it was padded
    shape
        of the final array
    """

    source_shape: tuple[int, ...]
    order: tuple[int, ...]
    flips: tuple[bool, ...]
    scaled_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def turned_shape(self) -> tuple[int, ...]:
        """The shape of the input after its axes were turned."""
        return tuple(self.source_shape[axis] for axis in self.order)

    @property
    def is_resampled(self) -> bool:
        """Whether the way there and back interpolates."""
        return self.scaled_shape != self.turned_shape

    @property
    def is_cropped(self) -> bool:
        """Whether a part of the input is not in the array."""
        ends = zip(self.offset, self.shape, self.scaled_shape, strict=True)
        return any(start > 0 or start + size < scaled for start, size, scaled in ends)

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])

    def turned(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turn the axes of the input; a view. Further axes stay where they are."""
        more = range(3, voxels.ndim)
        return np.flip(voxels.transpose(*self.order, *more), self._flipped)

    def resampled(self, turned: NDArray[Any], interpolation: Interpolation) -> NDArray[Any]:
        """Resample the turned input onto ``scaled_shape``."""
        return rescale(turned, self.scaled_shape, interpolation)

    def fitted(self, scaled: NDArray[Any], fill: float) -> NDArray[Any]:
        """Crop and pad to ``shape``."""
        if self.offset == (0, 0, 0) and self.shape == scaled.shape[:3]:
            return scaled
        array = np.full(self.shape + scaled.shape[3:], fill, scaled.dtype)
        inside, there = self._overlap()
        array[inside] = scaled[there]
        return array

    def back(self, array: NDArray[Any], interpolation: Interpolation, outside: float = 0.0) -> NDArray[Any]:
        """Say on the grid of the input what ``array`` says; ``outside`` where it was cropped."""
        scaled = array
        if self.offset != (0, 0, 0) or self.shape != self.scaled_shape:
            scaled = np.full(self.scaled_shape, outside, array.dtype)
            inside, there = self._overlap()
            scaled[there] = array[inside]
        turned = rescale(scaled, self.turned_shape, interpolation)
        unflipped = np.flip(turned, self._flipped)
        return np.ascontiguousarray(unflipped.transpose(*np.argsort(self.order)))

    def points_back(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take (n, 3) indices of the array to indices of the input."""
        scale = np.array(self.turned_shape) / np.array(self.scaled_shape)
        turned = (points + np.array(self.offset) + 0.5) * scale - 0.5
        last = np.array(self.turned_shape) - 1.0
        unflipped = np.where(self.flips, last - turned, turned)
        back: NDArray[np.float64] = unflipped[:, np.argsort(self.order)]
        return back

    def _overlap(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where the final array and the resampled one overlap: slices of the first, and of the second."""
        inside, there = [], []
        for start, size, scaled in zip(self.offset, self.shape, self.scaled_shape, strict=True):
            first, last = max(start, 0), min(start + size, scaled)
            there.append(slice(first, max(first, last)))
            inside.append(slice(first - start, max(first, last) - start))
        return tuple(inside), tuple(there)


def place(
    shape: tuple[int, ...],
    affine: NDArray[np.float64] | None,
    *,
    orientation: str = "",
    spacing_mm: Sequence[float] = (),
    source_spacing_mm: Sequence[float] = (),
    resize: Sequence[int] = (),
    size: Sequence[int] = (),
    divisible_by: int = 1,
    least: Sequence[int] = (),
    divide_all: bool = True,
) -> Placement:
    """Find the placement of an array on an input of ``shape``.

    ``resize`` and ``size`` of two numbers are of the last two axes. Cropping and padding to ``size`` are
    about the centre, padding to ``least`` and ``divisible_by`` at the end; with ``divide_all`` unset the
    first axis need not be divisible.
    """
    order: tuple[int, ...] = (0, 1, 2)
    flips: tuple[bool, ...] = (False, False, False)
    if orientation and affine is not None:
        order, flips = turns(affine, orientation)
    turned = tuple(shape[axis] for axis in order)
    scaled = turned
    if spacing_mm:
        spacing = [source_spacing_mm[axis] for axis in order]
        scaled = tuple(
            max(1, round(count * own / wanted))
            for count, own, wanted in zip(turned, spacing, spacing_mm, strict=True)
        )
    if resize:
        scaled = (*scaled[: 3 - len(resize)], *resize)
    final = (*scaled[: 3 - len(size)], *size) if size else scaled
    # what is cut off or added is shared out to both ends
    offset = tuple((have - want) // 2 for have, want in zip(scaled, final, strict=True))
    if least:
        wide = (*final[: 3 - len(least)], *least)
        final = tuple(max(have, want) for have, want in zip(final, wide, strict=True))
    if divisible_by > 1:
        divided = tuple(-(-count // divisible_by) * divisible_by for count in final)
        final = divided if divide_all else (final[0], *divided[1:])
    return Placement(shape, order, flips, scaled, offset, final)


def turns(affine: NDArray[np.float64], orientation: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Which axis of a grid leads where ``orientation`` wants each axis to lead, and which run the other way.

    Parameters
    ----------
    affine
        (4, 4) float64, index to LPS mm. Of an oblique grid the axes lead where they lead most.
    orientation
        such as ``"RAS"``: the first axis leads to the right of the patient, and so on
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best, order = -1.0, (0, 1, 2)
    for candidate in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        along = [
            abs(directions[_TOWARDS[letter][0], axis])
            for letter, axis in zip(orientation, candidate, strict=True)
        ]
        if sum(along) > best + 1e-9:
            best, order = float(sum(along)), candidate
    flips = tuple(
        bool(directions[_TOWARDS[letter][0], axis] * _TOWARDS[letter][1] < 0)
        for letter, axis in zip(orientation, order, strict=True)
    )
    return order, flips


def rescale(array: NDArray[Any], shape: tuple[int, ...], interpolation: Interpolation) -> NDArray[Any]:
    """Resample to ``shape`` so that the outer faces stay where they are.

    One axis after the other, so that memory holds little more than the array. Beyond the outermost
    centres the outermost values count. Integers stay integers when nearest, else become float32.
    """
    for axis, count in enumerate(shape):
        have = array.shape[axis]
        if have == count:
            continue
        at = (np.arange(count) + 0.5) * (have / count) - 0.5
        if interpolation == "nearest":
            # half-way goes to the lower one, whatever the rounding of the processor
            array = np.take(array, np.clip(np.ceil(at - 0.5 - 1e-9), 0, have - 1).astype(np.intp), axis)
            continue
        low = np.clip(np.floor(at), 0, have - 1).astype(np.intp)
        high = np.minimum(low + 1, have - 1)
        weight = np.clip(at - low, 0.0, 1.0).astype(np.float32)
        weight = weight.reshape([-1 if one == axis else 1 for one in range(array.ndim)])
        lower = np.take(array, low, axis).astype(np.float32, copy=False)
        array = lower + weight * (np.take(array, high, axis).astype(np.float32, copy=False) - lower)
    return array


def onto(
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    target: NDArray[np.float64],
    interpolation: Interpolation,
    outside: float = 0.0,
) -> NDArray[Any]:
    """Say on another grid, of ``shape`` and the affine ``target``, what ``voxels`` says on its own.

    Where the two differ only in the order and direction of their axes nothing is interpolated. Up to the
    outer faces of the outermost voxels these count, and ``outside`` beyond them.
    """
    matrix = np.linalg.inv(affine) @ target
    whole = np.rint(matrix)
    if voxels.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-3):
        return voxels
    slack = 1e-3 / max(1, max(shape))
    is_turned = np.allclose(matrix[:3, :3], whole[:3, :3], atol=slack) and (
        np.abs(matrix[:3, 3] - whole[:3, 3]).max() < 1e-2 and (np.abs(whole[:3, :3]).sum(axis=0) == 1).all()
    )
    from scipy import ndimage

    if is_turned:
        matrix, interpolation = whole, "nearest"
    is_nearest = interpolation == "nearest"
    moved: NDArray[Any] = ndimage.affine_transform(
        voxels if is_nearest else voxels.astype(np.float32, copy=False),
        matrix[:3, :3],
        # half-way goes to the lower one, whatever the rounding of the processor
        matrix[:3, 3] - (_SLACK if is_nearest else 0.0),
        output_shape=shape,
        order=0 if is_nearest else 1,
        mode="nearest",
    )
    _blank(moved, matrix, voxels.shape, outside)
    return moved


def covered(
    shape: tuple[int, ...],
    target: NDArray[np.float64],
    source_shape: tuple[int, ...],
    affine: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Say of which voxels of a grid, of ``shape`` and the affine ``target``, the centres lie in another."""
    inside = np.ones(shape, np.bool_)
    _blank(inside, np.linalg.inv(affine) @ target, source_shape, False)
    return inside


def _blank(
    moved: NDArray[Any], matrix: NDArray[np.float64], source_shape: tuple[int, ...], outside: float
) -> None:
    """Write ``outside`` where ``matrix`` leads beyond the outer faces of the source, slice by slice."""
    rows, columns = np.arange(moved.shape[1])[:, np.newaxis], np.arange(moved.shape[2])
    for axis, count in enumerate(source_shape):
        by_slice, by_row, by_column, start = matrix[axis]
        least, most = -0.5 - _SLACK, count - 0.5 + _SLACK
        ends = np.array([0.0, by_row * rows[-1, 0]])[:, np.newaxis] + [0.0, by_column * columns[-1]]
        for index, plane in enumerate(moved):
            first = start + by_slice * index
            if first + ends.min() < least or first + ends.max() > most:
                at = (first + by_row * rows) + by_column * columns
                plane[(at < least) | (at > most)] = outside
