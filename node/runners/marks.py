"""Points and boxes of a network's output, on the grid of its input.

A box is its outer edges on the way, because half a voxel of the network's array is another length than half
a voxel of the input. What it becomes has the centres of its outermost voxels, as ``models.types.Mark`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Mark, ParameterValue
from node.catalogue.folder_tables import OutputTable, setting
from node.runners.failures import FolderFault
from node.runners.placement import Placement
from node.runners.tensors import Answer, Answers, activated, numbers

#: What rounding may add.
_NEARLY = 1e-4


def marks(
    answers: Answers, table: OutputTable, placement: Placement, parameters: Mapping[str, ParameterValue]
) -> list[Mark]:
    """Make the marks of one output, the most probable first, ``table.most`` at most.

    What lies wholly beyond the input, where its array was padded, is left out.

    Raises
    ------
    FolderFault
        when the tensors do not fit each other or the table, or a score is no probability
    """
    threshold = setting(table.threshold, parameters)
    found: list[tuple[float, int, NDArray[np.float64], float | None]] = []
    for index, tensors in enumerate(answers.of_each):
        places, scores, classes = _read(tensors, table, index if answers.takes_slices else None)
        for number in range(len(places)):
            score = None if scores is None else float(scores[number])
            if score is None or score >= threshold:
                found.append((-(score or 0.0), int(classes[number]), places[number], score))
    found.sort(key=lambda one: one[0])
    labels = {label.index: label for label in table.labels}
    made: list[Mark] = []
    for _, label_index, place, score in found:
        if len(made) == table.most:
            break
        if label_index not in labels:
            raise FolderFault(f"output {table.name}: the network found something of index {label_index}")
        label = labels[label_index]
        back = placement.points_back(place)
        at = _point(back, placement) if table.kind == "points" else _corners(back, placement)
        if at is None:
            continue
        made.append(
            Mark(
                name=f"{label.name}-{len(made) + 1}",
                label=f"{label.label} {len(made) + 1}",
                shape="point" if table.kind == "points" else "box",
                points=at,
                category=label.category,
                type=label.type,
                site=label.site,
                laterality=label.laterality,
                probability=score,
                colour=label.colour,
                on=table.on,
            )
        )
    return made


def _point(point: NDArray[np.float64], placement: Placement) -> NDArray[np.float64] | None:
    """Return a point (1, 3) of the input, None when it lies beyond it."""
    low, high = -0.5, np.array(placement.source_shape) - 0.5
    if (point < low - _NEARLY).any() or (point > high + _NEARLY).any():
        return None
    return np.clip(point, low, high)


def _corners(edges: NDArray[np.float64], placement: Placement) -> NDArray[np.float64] | None:
    """Return the corners (2, 3) of a box with these outer edges, None when all of it is beyond the input.

    A side that is thinner than a voxel has both corners in its middle.
    """
    last = np.array(placement.source_shape) - 0.5
    low, high = edges.min(axis=0), edges.max(axis=0)
    if (high <= -0.5).any() or (low >= last).any():
        return None
    low, high = np.maximum(low, -0.5), np.minimum(high, last)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2 - 0.5, 0.0)
    return np.stack([middle - half, middle + half])


def _read(
    tensors: Mapping[str, Answer], table: OutputTable, slice_index: int | None
) -> tuple[NDArray[np.float64], NDArray[Any] | None, NDArray[np.intp]]:
    """Return places, scores, and indices of labels.

    A place is (1, 3), a point, or (2, 3), the outer edges of a box, in the order of the axes; whole numbers
    are centres.
    """
    order = table.coordinates.upper() or ("HW" if slice_index is not None else "DHW")
    raw = numbers(tensors, table.tensor).astype(np.float64)
    if raw.ndim == 3 and raw.shape[0] == 1:
        raw = raw[0]
    many = 1 if table.kind == "points" else 2
    width = many * len(order)
    scores = _flat(tensors, table.scores)
    if raw.ndim != 2 or raw.shape[1] not in (width, width + 1):
        raise FolderFault(
            f"output {table.name}: the tensor is {raw.shape}, expected (n, {width}) or one more"
        )
    if raw.shape[1] == width + 1:
        scores = raw[:, width]
    given = raw[:, :width].reshape(len(raw), many, len(order))
    if many == 2:
        given = _edges(given, table)
    if table.origin == "corner":
        given = given - 0.5
    places = np.zeros((len(raw), many, 3))
    if "D" not in order:
        beyond = 0.0 if many == 1 else np.array([-0.5, 0.5])
        places[..., 0] = (slice_index or 0) + beyond
    for position, letter in enumerate(order):
        places[..., "DHW".index(letter)] = given[..., position]
    classes = _flat(tensors, table.classes)
    if classes is None:
        classes = np.full(len(raw), table.labels[0].index)
    if len(classes) != len(raw) or (scores is not None and len(scores) != len(raw)):
        raise FolderFault(f"output {table.name}: places, scores and classes are not of one number")
    return places, None if scores is None else _probabilities(scores, table), classes.astype(np.intp)


def _edges(given: NDArray[np.float64], table: OutputTable) -> NDArray[np.float64]:
    """Return the outer edges of boxes (n, 2, axis), the lower first."""
    if table.form == "centre_size":
        centre, half = given[:, 0], np.abs(given[:, 1]) / 2
        return np.stack([centre - half, centre + half], axis=1)
    low, high = given.min(axis=1), given.max(axis=1)
    # with the first voxel's centre at 0 the corners of a box are centres as well, and so in it
    beyond = 0.5 if table.origin == "centre" else 0.0
    return np.stack([low - beyond, high + beyond], axis=1)


def _probabilities(scores: NDArray[Any], table: OutputTable) -> NDArray[Any]:
    """Return scores as probabilities; raises FolderFault when they are none."""
    found = activated(scores, table.activation)
    wrong = found[(found < -_NEARLY) | (found > 1 + _NEARLY)]
    if wrong.size:
        raise FolderFault(
            f"output {table.name}: the score {wrong[0]:g} is no probability; an activation is missing"
        )
    return np.clip(found, 0.0, 1.0)


def _flat(tensors: Mapping[str, Answer], name: str) -> NDArray[Any] | None:
    return numbers(tensors, name).reshape(-1) if name else None
