"""Classes and numbers of a network's output, as coded answers and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.types import Code, Evaluation, Measurement, ParameterValue
from node.catalogue.folder_tables import LabelTable, OutputTable, setting
from node.runners.failures import FolderFault
from node.runners.tensors import Answers, activated, answer_called, numbers

PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("2667000", "SCT", "Absent")


def evaluations(
    answers: Answers, table: OutputTable, parameters: Mapping[str, ParameterValue]
) -> list[Evaluation]:
    """Make the answers of a classification: the most probable label, or for ``sigmoid`` each by itself.

    Raises
    ------
    FolderFault
        when the network's answer has no place for a label
    """
    assert table.concept is not None
    if table.activation == "labels":
        best = {int(numbers(one, table.tensor).reshape(-1)[0]) for one in answers.of_each}
        if len(best) != 1:
            raise FolderFault(f"output {table.name}: the slices have different answers: {sorted(best)}")
        return [Evaluation(table.concept, _label(table, best.pop()).type, None, table.name)]
    probabilities = _probabilities(answers, table)
    if table.activation == "sigmoid":
        threshold = setting(table.threshold, parameters)
        return [_presence(label, table.name, probabilities[label.index], threshold) for label in table.labels]
    best_index = max(probabilities, key=lambda index: (probabilities[index], -index))
    label = _label(table, best_index)
    return [Evaluation(table.concept, label.type, probabilities[best_index], table.name)]


def measurement(answers: Answers, table: OutputTable) -> Measurement:
    """Make the number of a regression: one element of the tensor, scaled; the mean over slices."""
    assert table.concept is not None
    assert table.unit is not None
    values = answers.mean(table.tensor)
    if table.element >= values.size:
        raise FolderFault(
            f"output {table.name}: there is no element {table.element}, there are {values.size}"
        )
    value = float(values[table.element]) * table.scale + table.offset
    return Measurement(table.concept, value, table.unit, name=table.name)


def _probabilities(answers: Answers, table: OutputTable) -> dict[int, float]:
    """Return the probability of each index, the mean over slices."""
    each = [_of_one(answer_called(one, table.tensor), table) for one in answers.of_each]
    if any(one.keys() != each[0].keys() for one in each):
        raise FolderFault(f"output {table.name}: the slices have answers of different classes")
    found = {index: float(np.mean([one[index] for one in each])) for index in each[0]}
    for label in table.labels:
        if label.index not in found:
            there = ", ".join(map(str, sorted(found)))
            raise FolderFault(
                f"output {table.name}: label {label.name} has index {label.index}, '{table.tensor}' has the "
                f"classes {there}"
            )
    wrong = [value for value in found.values() if not -1e-4 <= value <= 1 + 1e-4]
    if wrong:
        raise FolderFault(f"output {table.name}: {wrong[0]:g} is no probability; an activation is missing")
    return {index: min(1.0, max(0.0, value)) for index, value in found.items()}


def _of_one(answer: Any, table: OutputTable) -> dict[int, float]:
    if isinstance(answer, list):
        # what a classifier of scikit-learn gives: a table from class to probability for each sample
        if len(answer) != 1 or not isinstance(answer[0], Mapping):
            raise FolderFault(f"output {table.name}: '{table.tensor}' is no table of one sample")
        names = {label.name: label.index for label in table.labels}
        of_sample: dict[Any, float] = {
            names.get(str(key), key): float(value) for key, value in answer[0].items()
        }
        try:
            return {int(key): value for key, value in of_sample.items()}
        except ValueError:
            raise FolderFault(
                f"output {table.name}: a class of {sorted(map(str, of_sample))} has no label"
            ) from None
    scores = numbers({table.tensor: answer}, table.tensor).reshape(-1)
    if table.activation == "argmax":
        raise FolderFault(f"output {table.name}: argmax makes no probability; write softmax")
    return {index: float(value) for index, value in enumerate(activated(scores, table.activation))}


def _presence(label: LabelTable, name: str, probability: float, threshold: float) -> Evaluation:
    """Say whether something is present; the probability is that of what is said."""
    is_present = probability >= threshold
    value, of_value = (PRESENT, probability) if is_present else (ABSENT, 1 - probability)
    return Evaluation(label.type, value, of_value, f"{name}.{label.name}")


def _label(table: OutputTable, index: int) -> LabelTable:
    for label in table.labels:
        if label.index == index:
            return label
    raise FolderFault(f"output {table.name}: class {index} has no label")
