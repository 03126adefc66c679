"""Trachea and main bronchi: found slice by slice, then grown through their air.

Growing stops short of an explosion: when a slightly higher threshold suddenly lets the region run
into the lung through a thin wall, the last region before is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from models.lung_grid import Mask, ball, box_of

#: Air of the airways is below these; the list is tried upwards.
THRESHOLDS_HU = (-960, -940, -920, -900, -875, -850)
#: Trachea and bronchi of an adult hold 50 to 100 ml of air.
MOST_ML = 130.0
#: One step of the threshold may add so much.
MOST_GROWTH_ML = 25.0
#: Cross-section of a trachea.
AREA_MM2 = (40.0, 900.0)
SHORTEST_MM = 20.0
#: Voxels at the edge of the lumen are mixed with wall, and so denser than the air inside.
RIM_MM = 1.8


@dataclass(frozen=True)
class Spot:
    """A round patch of air in one slice, perhaps a cut through the trachea.

    ``row`` and ``column`` are its centre, ``inside`` a voxel of it.
    """

    slice: int
    row: float
    column: float
    inside: tuple[int, int]
    area_mm2: float


def spots(
    labels: NDArray[np.int32], voxels: NDArray[Any], index: int, spacing_mm: tuple[float, float, float]
) -> list[Spot]:
    """Round patches of nearly pure air among the labelled components of one slice (row, column)."""
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        tall_mm, wide_mm = height * spacing_mm[1], width * spacing_mm[2]
        if max(tall_mm, wide_mm) > 45.0 or max(tall_mm, wide_mm) > 2.2 * min(tall_mm, wide_mm):
            continue
        patch = labels[box] == number
        count = int(patch.sum())
        if not AREA_MM2[0] <= count * pixel_mm2 <= AREA_MM2[1] or count < 0.6 * height * width:
            continue
        values = voxels[box][patch]
        if np.percentile(values, 25) > -920:
            continue
        rows, columns = np.nonzero(patch)
        darkest = int(
            np.argmin(ndimage.uniform_filter(np.where(patch, voxels[box], 0).astype(np.float32), 3))
        )
        inside = np.unravel_index(darkest, patch.shape)
        found.append(
            Spot(
                index,
                float(rows.mean()) + box[0].start,
                float(columns.mean()) + box[1].start,
                (int(inside[0]) + box[0].start, int(inside[1]) + box[1].start),
                count * pixel_mm2,
            )
        )
    return found


def trachea(
    by_slice: Sequence[Sequence[Spot]],
    spacing_mm: tuple[float, float, float],
    *,
    head_is_last: bool,
    middle: tuple[float, float],
) -> list[Spot]:
    """The most trachea-like chain of spots, from its cranial end down; empty when there is none.

    ``middle`` is the (row, column) of the middle of the body.
    """
    order = range(len(by_slice) - 1, -1, -1) if head_is_last else range(len(by_slice))
    chains: list[list[Spot]] = []
    open_chains: list[list[Spot]] = []
    for index in order:
        free = list(by_slice[index])
        still_open = []
        for chain in open_chains:
            last = chain[-1]
            near = min(free, key=lambda spot: _apart_mm(spot, last, spacing_mm), default=None)
            if near is not None and _apart_mm(near, last, spacing_mm) <= 5.0 + spacing_mm[0]:
                free.remove(near)
                chain.append(near)
                still_open.append(chain)
        started = [[spot] for spot in free]
        chains.extend(started)
        open_chains = still_open + started

    slices = len(by_slice)

    def score(chain: list[Spot]) -> float:
        length_mm = min(len(chain) * spacing_mm[0], 100.0)
        top = chain[0].slice if head_is_last else slices - 1 - chain[0].slice
        below_the_top = (slices - 1 - top) / slices
        aside_mm = abs(np.mean([spot.column for spot in chain]) - middle[1]) * spacing_mm[2]
        return float(length_mm - 60.0 * below_the_top - 0.7 * aside_mm)

    long_enough = [chain for chain in chains if len(chain) * spacing_mm[0] >= SHORTEST_MM]
    best = max(long_enough, key=score, default=[])
    return best if best and score(best) > 0 else []


def _apart_mm(a: Spot, b: Spot, spacing_mm: tuple[float, float, float]) -> float:
    return float(np.hypot((a.row - b.row) * spacing_mm[1], (a.column - b.column) * spacing_mm[2]))


@dataclass(frozen=True)
class Airways:
    """``mask`` has the grid's shape; ``note`` says what went less than well, for people."""

    mask: Mask
    note: str = ""


def grow(
    voxels: NDArray[np.int16],
    air: Mask,
    chain: Sequence[Spot],
    spacing_mm: tuple[float, float, float],
    *,
    head_is_last: bool,
) -> Airways:
    """Grow the airways from the trachea through ``air``, downwards from the chain's top.

    Parameters
    ----------
    voxels
        (slice, row, column) in HU
    air
        where air of the body is, the outside left out
    chain
        what ``trachea`` returned
    """
    if not chain:
        return Airways(np.zeros(air.shape, np.bool_), "no trachea was found, so no airway is left out")
    top = chain[0].slice
    below = slice(0, top + 1) if head_is_last else slice(top, None)
    first = 0 if head_is_last else top
    # The lumen lies in the middle of the chest; a box around it keeps the growing fast.
    reach = [round(110.0 / spacing_mm[1]), round(110.0 / spacing_mm[2])]
    centre = np.mean([[spot.row, spot.column] for spot in chain], axis=0)
    y0, x0 = (max(0, int(centre[i]) - reach[i]) for i in range(2))
    box = (below, slice(y0, int(centre[0]) + reach[0]), slice(x0, int(centre[1]) + reach[1]))

    closed = np.where(air[box], voxels[box], np.int16(32767))
    image = sitk.GetImageFromArray(closed)
    seeds = [
        (spot.inside[1] - x0, spot.inside[0] - y0, spot.slice - first)
        for spot in chain[:: max(1, len(chain) // 12)]
    ]
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    kept: Mask | None = None
    kept_ml = 0.0
    for threshold in THRESHOLDS_HU:
        grown = sitk.GetArrayFromImage(sitk.ConnectedThreshold(image, seeds, -32768, threshold))
        volume_ml = np.count_nonzero(grown) * voxel_ml
        if volume_ml > MOST_ML or (kept_ml > 5.0 and volume_ml > kept_ml + MOST_GROWTH_ML):
            break
        kept, kept_ml = grown.astype(np.bool_), volume_ml
    mask = np.zeros(air.shape, np.bool_)
    note = ""
    traced = _traced(air, chain)
    if kept is None or kept_ml < 0.3 * np.count_nonzero(traced) * voxel_ml:
        note = "the bronchi run into the lung at any threshold: only the trachea is left out"
    else:
        mask[box] = kept
    mask |= traced
    return Airways(_with_rim(mask, air, spacing_mm), note)


def _traced(air: Mask, chain: Sequence[Spot]) -> Mask:
    """The patches of the chain themselves."""
    mask = np.zeros(air.shape, np.bool_)
    for spot in chain:
        labels, _ = ndimage.label(air[spot.slice])
        mask[spot.slice] = labels == labels[spot.inside]
    return mask


def _with_rim(mask: Mask, air: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """Add the mixed voxels between lumen and wall."""
    box = box_of(mask, (2, 4, 4))
    element = ball(RIM_MM, spacing_mm)
    if element.shape[0] == 1:
        # thick slices: the rim is within the slice, and one voxel along the airway
        element = np.concatenate([np.zeros_like(element), element, np.zeros_like(element)])
        element[:, element.shape[1] // 2, element.shape[2] // 2] = True
    wider = np.zeros_like(mask)
    wider[box] = ndimage.binary_dilation(mask[box], element) & air[box]
    return wider | mask
