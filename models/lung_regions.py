"""Where the lungs are in a chest CT: from Hounsfield units to one mask for each side.

The steps: air by a threshold midway between lung and soft tissue; the outside left out, slice by
slice; trachea and main bronchi grown from the trachea and left out; connected components judged by
size, density and place; lungs that touch cut apart at the narrowest place; vessels and nodules
inside filled. Shapes are decided on a coarse grid, edges on the fine one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from models import lung_airways, lung_sides
from models.lung_grid import CoarseGrid, Mask, ball, box_of

#: Denser than this is body; between lung and soft tissue whatever the lung's own density.
FIRST_THRESHOLD_HU = -500
#: Vessels and fissures up to twice this thick are closed over ...
CLOSING_MM = 5.0
#: ... and what is enclosed is filled up to this radius: vessels and nodules, not a mass.
FILL_RADIUS_MM = 15.0
#: Airways at least so wide are never closed over.
TRUNK_RADIUS_MM = 3.0
#: The wall of a main bronchus, with the coarse grid's own blur.
WALL_MM = 3.5


@dataclass(frozen=True)
class Lungs:
    """What was found.

    ``left`` and ``right`` are masks (slice, row, column) of the whole volume, perhaps empty.
    ``outside_ml`` is lung-like tissue that lies within the body's outline but runs out of the field
    of view; ``outside_air_hu`` the median of the air around the body, NaN when there is none;
    ``threshold_hu`` the density that parts lung from tissue; ``notes`` are for people.
    """

    left: Mask
    right: Mask
    outside_ml: float
    outside_air_hu: float
    threshold_hu: float
    notes: tuple[str, ...]


def find(
    voxels: NDArray[np.int16], affine: NDArray[np.float64], spacing_mm: tuple[float, float, float]
) -> Lungs:
    """Find both lungs in an axial chest CT.

    Parameters
    ----------
    voxels
        (slice, row, column), int16, HU
    affine
        (4, 4): (slice, row, column, 1) to LPS mm; decides which side is left, and where the head is
    spacing_mm
        (slice, row, column)

    Raises
    ------
    ValueError
        when there is no body, or nothing in it that could be a lung
    """
    grid = CoarseGrid.over(_shape(voxels), spacing_mm)
    density = grid.mean(voxels)
    body = _body(density, grid)
    threshold = _threshold(density, body)
    head_is_last = bool(affine[2, 0] > 0)

    air = voxels < threshold
    by_slice, outside_air_hu = _leave_out_outside(air, voxels, spacing_mm)
    rows, columns = np.nonzero(body.any(axis=0))
    middle = (float(rows.mean()) * grid.factors[1], float(columns.mean()) * grid.factors[2])
    chain = lung_airways.trachea(by_slice, spacing_mm, head_is_last=head_is_last, middle=middle)
    airways = lung_airways.grow(voxels, air, chain, spacing_mm, head_is_last=head_is_last)
    air &= ~airways.mask

    share = grid.share(air)
    hull = _hull(body, grid)
    x_mm = _x_of_columns(grid, affine)
    middle_mm = float(np.average(x_mm, weights=body.sum(axis=0, dtype=np.float64)))
    sides, notes = lung_sides.label(
        share >= 0.5, density, hull, grid, x_mm, middle_mm, head_is_last=head_is_last
    )
    outside_ml = _running_out(density, share, hull, sides, threshold, grid)

    trunk = _trunk(grid.share(airways.mask) >= 0.5, grid)
    left, right = _fine(air, sides, trunk, share, grid)
    remarks = (airways.note, *notes) if airways.note else tuple(notes)
    return Lungs(left, right, outside_ml, outside_air_hu, float(threshold), remarks)


def _shape(voxels: NDArray[np.int16]) -> tuple[int, int, int]:
    slices, rows, columns = voxels.shape
    return slices, rows, columns


def _body(density: NDArray[np.float32], grid: CoarseGrid) -> Mask:
    """The largest piece of soft tissue, without table, tubes and clothes (coarse)."""
    radius = grid.radius(4.0)
    image = sitk.GetImageFromArray((density > FIRST_THRESHOLD_HU + 200).astype(np.uint8))
    opened = sitk.BinaryErode(image, [max(1, n) for n in radius[::-1]])
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    body: Mask = sitk.GetArrayFromImage(sitk.BinaryDilate(labels == 1, [max(1, n) for n in radius[::-1]])) > 0
    if np.count_nonzero(body) * grid.voxel_ml < 500.0:
        raise ValueError("there is no body in the image: too little soft tissue in Hounsfield units")
    return body


def _threshold(density: NDArray[np.float32], body: Mask) -> int:
    """Midway between the lung's density and that of soft tissue, where an edge is half of each."""
    tissue = density[body & (density > -200) & (density < 200)]
    box = box_of(body)
    within = density[box]
    lung = within[(within > -980) & (within < -600)]
    if not tissue.size or lung.size < 1000:
        return FIRST_THRESHOLD_HU
    middle = (float(np.median(tissue)) + float(np.median(lung))) / 2
    return round(min(max(middle, -550.0), -350.0))


def _leave_out_outside(
    air: Mask, voxels: NDArray[np.int16], spacing_mm: tuple[float, float, float]
) -> tuple[list[list[lung_airways.Spot]], float]:
    """Clear the air that reaches the edge of its slice; return round patches and the outside's density.

    Slice by slice, since the airways join the outside at the mouth, and lungs at a cut end.
    """
    spots = []
    samples = []
    for index in range(len(air)):
        labels, count = ndimage.label(air[index])
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        is_outside = np.zeros(count + 1, np.bool_)
        is_outside[edge] = True
        is_outside[0] = False
        outside = is_outside[labels]
        if index % 4 == 0:
            values = voxels[index][::4, ::4][outside[::4, ::4]]
            # far below air is padding outside the field of view
            samples.append(values[values > -1100])
        air[index] &= ~outside
        labels[outside] = 0
        spots.append(lung_airways.spots(labels, voxels[index], index, spacing_mm))
    found = np.concatenate(samples)
    return spots, float(np.median(found)) if found.size > 1000 else float("nan")


def _hull(body: Mask, grid: CoarseGrid) -> Mask:
    """The convex outline of the body in each slice (coarse); one outline serves 8 mm of slices."""
    hull = np.zeros_like(body)
    step = max(1, round(8.0 / grid.spacing_mm[0]))
    for start in range(0, len(body), step):
        middle = body[min(start + step // 2, len(body) - 1)]
        if middle.any():
            hull[start : start + step] = convex_hull_image(middle)
    return hull


def _x_of_columns(grid: CoarseGrid, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x coordinate, in mm to the patient's left, of each (row, column) of the coarse grid."""
    row = (np.arange(grid.shape[1]) + 0.5) * grid.factors[1] - 0.5
    column = (np.arange(grid.shape[2]) + 0.5) * grid.factors[2] - 0.5
    x: NDArray[np.float64] = affine[0, 3] + affine[0, 1] * row[:, None] + affine[0, 2] * column[None, :]
    return x


def _running_out(
    density: NDArray[np.float32],
    share: NDArray[np.float32],
    hull: Mask,
    sides: NDArray[np.uint8],
    threshold: int,
    grid: CoarseGrid,
) -> float:
    """Millilitres of lung-like tissue inside the body's outline that count as outside, beside the lungs."""
    lung_slices = (sides > 0).any(axis=(1, 2))
    lost = hull & (share == 0) & (density > -950) & (density < min(threshold, -600))
    lost[~lung_slices] = False
    thick = ndimage.binary_erosion(lost, ball(2.5 * max(grid.spacing_mm[1:]), grid.spacing_mm))
    lost = ndimage.binary_dilation(thick, ball(2.5 * max(grid.spacing_mm[1:]), grid.spacing_mm))
    return float(np.count_nonzero(lost) * grid.voxel_ml)


def _trunk(airways: Mask, grid: CoarseGrid) -> Mask:
    """The wide airways, with their walls (coarse)."""
    if not airways.any():
        return airways
    box = box_of(airways, (3, 5, 5))
    trunk = np.zeros_like(airways)
    wide = ndimage.binary_opening(airways[box], ball(TRUNK_RADIUS_MM, grid.spacing_mm))
    trunk[box] = ndimage.binary_dilation(wide, ball(WALL_MM, grid.spacing_mm))
    return trunk


def _fine(
    air: Mask,
    sides: NDArray[np.uint8],
    trunk: Mask,
    share: NDArray[np.float32],
    grid: CoarseGrid,
) -> tuple[Mask, Mask]:
    """From coarse labels to masks with the fine grid's edges.

    A block at the surface keeps its air voxels alone, so the surface is where the threshold puts
    it. Only a block whose 26 neighbours all belong to the closed lung is filled whole.
    """
    # blocks at the surface hold less than half lung, and belong to the lung beside them
    grown = ndimage.grey_dilation(sides, size=(3, 3, 3))
    sides = np.where((sides == 0) & (share > 0), grown, sides).astype(np.uint8)
    closed = [_closed(sides == side, trunk, grid) for side in (1, 2)]
    both = closed[0] & closed[1]
    masks = []
    for side in (1, 2):
        filled = closed[side - 1] & ~both & (sides != 3 - side)
        filled = ndimage.binary_erosion(filled, np.ones((3, 3, 3), np.bool_))
        mask = grid.spread(sides == side)
        mask &= air
        mask |= grid.spread(filled)
        masks.append(mask)
    return masks[0], masks[1]


def _closed(lung: Mask, trunk: Mask, grid: CoarseGrid) -> Mask:
    """Close over vessels and fissures, then fill what is enclosed and no larger than a nodule."""
    if not lung.any():
        return lung
    radius = grid.radius(CLOSING_MM)
    margin = (radius[0] + 2, radius[1] + 2, radius[2] + 2)
    box = box_of(lung, margin)
    # room for the closing beyond the ends of the volume
    inside = np.pad(lung[box], [(n, n) for n in margin])
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    image = sitk.BinaryMorphologicalClosing(image, [max(1, n) for n in radius[::-1]])
    closed = sitk.GetArrayFromImage(image) > 0
    barrier = np.pad(trunk[box], [(n, n) for n in margin])
    closed &= ~barrier | inside
    holes = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(closed.astype(np.uint8)))) > 0
    holes &= ~closed
    if holes.any():
        labels, count = ndimage.label(holes)
        depth = sitk.GetArrayFromImage(lung_sides.depth_mm(holes, grid))
        deepest = ndimage.maximum(depth, labels, range(1, count + 1))
        small = np.concatenate([[False], np.asarray(deepest) <= FILL_RADIUS_MM])
        closed |= small[labels]
    whole = np.zeros_like(lung)
    whole[box] = closed[tuple(slice(n, -n) for n in margin)]
    return whole
