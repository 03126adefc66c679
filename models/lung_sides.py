"""Which air-filled components are lungs, and which lung is which.

Works on the coarse grid. Sides come from patient coordinates, never from the order of the array.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from models.lung_grid import CoarseGrid, Mask, box_of

#: The median inside a lung: gas in the bowel is less dense, stool and foam are denser.
LUNG_CORE_HU = (-970.0, -600.0)
SMALLEST_LUNG_ML = 100.0
SMALLEST_FRAGMENT_ML = 5.0
#: Lungs that touch are cut where the deepest places come apart at one of these depths.
DEPTHS_MM = (1.6, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0)


def label(
    lung: Mask,
    density: NDArray[np.float32],
    hull: Mask,
    grid: CoarseGrid,
    x_mm: NDArray[np.float64],
    middle_mm: float,
    *,
    head_is_last: bool,
) -> tuple[NDArray[np.uint8], list[str]]:
    """Label the lungs on the coarse grid: 1 left, 2 right."""
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(lung.astype(np.uint8)))
    smallest = max(1, int(SMALLEST_FRAGMENT_ML / grid.voxel_ml))
    labels = sitk.GetArrayFromImage(
        sitk.RelabelComponent(image, minimumObjectSize=smallest, sortByObjectSize=True)
    )
    candidates = [
        number
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None and _is_lung(labels[box] == number, density[box], hull[box])
    ]
    sizes_ml = {number: np.count_nonzero(labels == number) * grid.voxel_ml for number in candidates[:12]}
    main = [number for number in candidates[:12] if sizes_ml[number] >= SMALLEST_LUNG_ML]
    if not main:
        raise ValueError("nothing in the body has the size, density and place of a lung")

    def offset(mask: Mask) -> float:
        return float(np.average(x_mm, weights=mask.sum(axis=0, dtype=np.float64))) - middle_mm

    sides = np.zeros(labels.shape, np.uint8)
    notes = []
    first = labels == main[0]
    parts = _apart(first, grid, x_mm) if _lies_on_both_sides(first, x_mm, middle_mm) else None
    if parts is not None:
        notes.append("the lungs touch each other and were parted at the narrowest place")
        left, right = sorted(parts, key=offset, reverse=True)
        sides[left], sides[right] = 1, 2
    else:
        sides[first] = 1 if offset(first) > 0 else 2
        other = 3 - int(sides[first][0])
        for number in main[1:]:
            second = labels == number
            if sizes_ml[number] >= 0.1 * sizes_ml[main[0]] and (offset(second) > 0) == (other == 1):
                sides[second] = other
                break
    _add_fragments(sides, labels, candidates, head_is_last=head_is_last)
    return sides, notes


def _is_lung(mask: Mask, density: NDArray[np.float32], hull: Mask) -> bool:
    """Whether a component is as dense as lung inside, and lies within the body."""
    if np.count_nonzero(mask & hull) < 0.8 * np.count_nonzero(mask):
        return False
    core = ndimage.binary_erosion(mask)
    values = density[core if core.any() else mask]
    return LUNG_CORE_HU[0] <= float(np.median(values)) <= LUNG_CORE_HU[1]


def _lies_on_both_sides(mask: Mask, x_mm: NDArray[np.float64], middle_mm: float) -> bool:
    columns = mask.sum(axis=0, dtype=np.float64)
    share_left = columns[x_mm > middle_mm].sum() / columns.sum()
    return bool(0.2 < share_left < 0.8)


def _apart(mask: Mask, grid: CoarseGrid, x_mm: NDArray[np.float64]) -> tuple[Mask, Mask] | None:
    """Cut one component into two lungs at the narrowest place; None when it is one lung."""
    box = box_of(mask, (1, 1, 1))
    inside = mask[box]
    depth = sitk.GetArrayFromImage(depth_mm(inside, grid))
    total = np.count_nonzero(inside)
    x = x_mm[box[1], box[2]]
    span_mm = float(np.ptp(x[inside.any(axis=0)]))
    for radius_mm in DEPTHS_MM:
        labels, count = ndimage.label(depth > radius_mm)
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        one, two = (int(n) + 1 for n in np.argsort(sizes)[::-1][:2])
        if sizes[two - 1] < 0.15 * sizes.sum():
            continue
        centres = [np.average(x, weights=(labels == n).sum(axis=0, dtype=np.float64)) for n in (one, two)]
        if abs(centres[0] - centres[1]) < 0.3 * span_mm:
            continue
        markers = np.where(labels == one, 1, np.where(labels == two, 2, 0)).astype(np.int32)
        parted = watershed(-depth, markers, mask=inside)
        if min(np.count_nonzero(parted == 1), np.count_nonzero(parted == 2)) < 0.1 * total:
            continue
        halves = []
        for number in (1, 2):
            half = np.zeros_like(mask)
            half[box] = parted == number
            halves.append(half)
        return halves[0], halves[1]
    return None


def depth_mm(mask: Mask, grid: CoarseGrid) -> sitk.Image:
    """Distance in mm from each voxel of ``mask`` to the nearest one outside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(grid.spacing_mm[::-1])
    return sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )


def _add_fragments(
    sides: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    candidates: list[int],
    *,
    head_is_last: bool,
) -> None:
    """Give loose pieces of lung to the side whose box holds them, where no bowel can be."""
    boxes = {side: box_of(sides == side) for side in (1, 2) if (sides == side).any()}
    for number in candidates:
        piece = labels == number
        if sides[piece].any():
            continue
        centre = ndimage.center_of_mass(piece)
        for side, box in boxes.items():
            length = box[0].stop - box[0].start
            from_below = centre[0] - box[0].start if head_is_last else box[0].stop - centre[0]
            inside = all(one.start <= at < one.stop for one, at in zip(box, centre, strict=True))
            if inside and from_below > 0.4 * length:
                sides[piece] = side
                break
