"""Regions as closed contours in their slices.

A contour runs along the outer edges of the voxels, so that it encloses their area exactly, and a centre
lies inside when its voxel is in the region; a single voxel is a square. Parts that touch at a corner
alone are separate. A hole is joined to the contour around it by a channel of no width (a keyhole, PS3.3
section C.8.8.6.3), so each part is one contour.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Corner = tuple[int, int]
Edge = tuple[Corner, tuple[int, int]]
# From a corner to the next, as (row, column); the region is on the right hand, and this is the order of
# right turns.
_RIGHT, _DOWN, _LEFT, _UP = (0, 1), (1, 0), (0, -1), (-1, 0)
_TURNS = (_RIGHT, _DOWN, _LEFT, _UP)


def contours(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield the contour of each connected part of a slice.

    Parameters
    ----------
    mask
        (row, column) bool.

    Yields
    ------
    NDArray
        (n, 2) float64: (row, column) of its corners in voxels, whole numbers being the centres, without
        the first corner repeated.
    """
    labels, count = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(labels, count), 1):
        rows, columns = box
        corners = _keyholed(_loops(labels[box] == number))
        yield np.array(corners, np.float64) + np.array([rows.start - 0.5, columns.start - 0.5])


def count_parts(mask: NDArray[np.bool_]) -> int:
    """Return how many contours ``contours`` yields."""
    return int(ndimage.label(mask)[1])


def _loops(part: NDArray[np.bool_]) -> list[list[Corner]]:
    """Return the corners of the loops around a part and its holes, every one; the outer loop is first."""
    padded = np.pad(part, 1)
    # A dictionary as a set that keeps its order: the topmost edge comes first, and is on the outside.
    edges: dict[Edge, None] = {}
    for direction, outside, (down, right) in (
        (_RIGHT, padded[:-2, 1:-1], (0, 0)),
        (_DOWN, padded[1:-1, 2:], (0, 1)),
        (_LEFT, padded[2:, 1:-1], (1, 1)),
        (_UP, padded[1:-1, :-2], (1, 0)),
    ):
        for row, column in np.argwhere(part & ~outside).tolist():
            edges[(row + down, column + right), direction] = None
    found = []
    for first in list(edges):
        if first not in edges:
            continue
        edge, loop = first, []
        while True:
            corner, direction = edge
            del edges[edge]
            loop.append(corner)
            corner = (corner[0] + direction[0], corner[1] + direction[1])
            edge = _onward(corner, direction, edges, first)
            if edge == first:
                break
        found.append(loop)
    return found


def _onward(corner: Corner, direction: tuple[int, int], edges: dict[Edge, None], first: Edge) -> Edge:
    """Return the edge that goes on, with the same voxel on the right where there is a choice."""
    turn = _TURNS.index(direction)
    for change in (1, 0, -1):
        edge = (corner, _TURNS[(turn + change) % 4])
        if edge in edges or edge == first:
            return edge
    raise AssertionError("an edge of a region leads nowhere")


def _keyholed(loops: list[list[Corner]]) -> list[Corner]:
    """Return one contour: each hole is joined to what lies on its right, along the edges of voxels.

    The contour is a chain, in which a hole is put in without moving the rest: a noisy region has thousands.
    """
    corners = list(loops[0])
    onward = [*range(1, len(corners)), 0]
    place = {corner: index for index, corner in enumerate(corners)}
    # From the right, so that what is met on the way has been joined before.
    for hole in sorted(loops[1:], key=lambda one: -max(column for _, column in one)):
        start = max(range(len(hole)), key=lambda index: hole[index][1])
        row, column = hole[start]
        met = (row, column)
        while met not in place:
            met = (row, met[1] + 1)
        # There, around the hole, back, and on as before.
        at, first = place[met], len(corners)
        corners += [*hole[start:], *hole[: start + 1], met]
        onward += [*range(first + 1, len(corners)), onward[at]]
        onward[at] = first
        for index in range(first, len(corners) - 1):
            place.setdefault(corners[index], index)
    contour, index = [], 0
    for _ in corners:
        contour.append(corners[index])
        index = onward[index]
    return _without_straight_corners(contour)


def _without_straight_corners(contour: list[Corner]) -> list[Corner]:
    corners = np.array(contour)
    come = np.sign(corners - np.roll(corners, 1, axis=0))
    turns = (come != np.roll(come, -1, axis=0)).any(axis=1)
    return [contour[index] for index in np.flatnonzero(turns).tolist()]
