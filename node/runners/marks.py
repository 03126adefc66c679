"""Points and boxes of a network's output, on the grid of its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Mark, ParameterValue
from node.catalogue.folder_tables import OutputTable, setting
from node.runners.placement import Placement
from node.runners.tensors import Answer, Answers, numbers


def marks(
    answers: Answers, table: OutputTable, placement: Placement, parameters: Mapping[str, ParameterValue]
) -> list[Mark]:
    """Make the marks of one output, the most probable first, ``table.most`` at most.

    Raises
    ------
    ValueError
        when the tensors do not fit each other or the table
    """
    threshold = setting(table.threshold, parameters)
    found: list[tuple[float, int, NDArray[np.float64], float | None]] = []
    for index, tensors in enumerate(answers.of_each):
        corners, scores, classes = _read(tensors, table, index if answers.takes_slices else None)
        for number in range(len(corners)):
            score = None if scores is None else float(scores[number])
            if score is None or score >= threshold:
                found.append((-(score or 0.0), int(classes[number]), corners[number], score))
    found.sort(key=lambda one: one[0])
    labels = {label.index: label for label in table.labels}
    made: list[Mark] = []
    for _, label_index, corners, score in found[: table.most]:
        if label_index not in labels:
            raise ValueError(f"output {table.name}: the network found something of index {label_index}")
        label = labels[label_index]
        at = np.clip(placement.points_back(corners), -0.5, np.array(placement.source_shape) - 0.5)
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
                probability=None if score is None else min(1.0, max(0.0, score)),
                colour=label.colour,
                on=table.on,
            )
        )
    return made


def _read(
    tensors: Mapping[str, Answer], table: OutputTable, slice_index: int | None
) -> tuple[NDArray[np.float64], NDArray[Any] | None, NDArray[np.intp]]:
    """Return corners (n, 1 or 2, 3) in the order of the axes, scores, and indices of labels."""
    order = table.coordinates.upper() or ("HW" if slice_index is not None else "DHW")
    raw = numbers(tensors, table.tensor).astype(np.float64)
    if raw.ndim == 3 and raw.shape[0] == 1:
        raw = raw[0]
    many = 1 if table.kind == "points" else 2
    width = many * len(order)
    scores = _flat(tensors, table.scores)
    if raw.ndim != 2 or raw.shape[1] not in (width, width + 1):
        raise ValueError(f"output {table.name}: the tensor is {raw.shape}, expected (n, {width}) or one more")
    if raw.shape[1] == width + 1:
        scores = raw[:, width]
    given = raw[:, :width].reshape(len(raw), many, len(order))
    if many == 2 and table.form == "centre_size":
        centre, half = given[:, 0], given[:, 1] / 2
        given = np.stack([centre - half, centre + half], axis=1)
    if table.origin == "corner":
        given = given - 0.5
    corners = np.zeros((len(raw), many, 3))
    if "D" not in order:
        corners[..., 0] = slice_index or 0
    for position, letter in enumerate(order):
        corners[..., "DHW".index(letter)] = given[..., position]
    classes = _flat(tensors, table.classes)
    if classes is None:
        classes = np.full(len(raw), table.labels[0].index)
    if len(classes) != len(raw) or (scores is not None and len(scores) != len(raw)):
        raise ValueError(f"output {table.name}: places, scores and classes are not of one number")
    return corners, scores, classes.astype(np.intp)


def _flat(tensors: Mapping[str, Answer], name: str) -> NDArray[Any] | None:
    return numbers(tensors, name).reshape(-1) if name else None
