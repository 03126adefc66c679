"""Numbers over segments, and the checks of ``analysis.toml`` on what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.types import Check, Findings, Inputs, Measurement, Volume
from node.catalogue.folder_tables import CheckTable, ModelFolder, setting
from node.runners.measuring import measured
from node.runners.regions import components, edge_share

#: Between these a probability is uncertain.
_UNCERTAIN = (0.1, 0.9)


def concluded(
    folder: ModelFolder,
    inputs: Inputs,
    findings: Findings,
    probabilities: Mapping[str, NDArray[np.float32]],
) -> Findings:
    """Add the measurements and checks that the folder states to what its model found.

    Raises
    ------
    FolderFault, ValueError
        as ``measured`` does
    """
    segments = {one.name: one for one in findings.segments}
    not_taken = []
    for table in folder.measurements:
        number = measured(table, folder, segments, inputs)
        if isinstance(number, Measurement):
            segment = segments[table.of]
            segments[table.of] = replace(segment, measurements=(*segment.measurements, number))
        elif number:
            not_taken.append(Check(f"{table.name} taken", False, number))
    with_numbers = replace(findings, segments=tuple(segments.values()))
    # What could not be taken is in no result: a check need not withhold it, and its reason says so.
    taken = {_name_of(one) for one in _all_measurements(with_numbers)}
    absent = {table.name for table in folder.measurements} - taken
    tables = [
        replace(one, withholds=tuple(name for name in one.withholds if name not in absent))
        for one in folder.checks
    ]
    checks = tuple(_checked(one, with_numbers, inputs, probabilities) for one in tables)
    return replace(with_numbers, checks=(*with_numbers.checks, *not_taken, *checks))


def _checked(
    table: CheckTable,
    findings: Findings,
    inputs: Inputs,
    probabilities: Mapping[str, NDArray[np.float32]],
) -> Check:
    value = _value_of(table, findings, inputs, probabilities)
    low, high = (
        None if one is None else setting(one, inputs.parameters) for one in (table.minimum, table.maximum)
    )
    what = table.measurement or f"{(table.quantity or '').replace('_', ' ')} of {table.of}"
    if value is None:
        return Check(table.name, False, f"{table.reason}: {what} could not be taken", table.withholds)
    if (low is None or value >= low) and (high is None or value <= high):
        return Check(table.name, True)
    # the number stands alone: where it is withheld, other words take its place
    reason = f"{table.reason}: {what} is {value:.4g}, {_bounds(low, high)}"
    return Check(table.name, False, reason, table.withholds)


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"expected {low:g} to {high:g}"
    return f"expected at least {low:g}" if low is not None else f"expected at most {high:g}"


def _value_of(
    table: CheckTable,
    findings: Findings,
    inputs: Inputs,
    probabilities: Mapping[str, NDArray[np.float32]],
) -> float | None:
    if table.measurement:
        return next(
            (one.value for one in _all_measurements(findings) if _name_of(one) == table.measurement), None
        )
    if table.quantity == "probability":
        named = [one.probability for one in findings.evaluations if one.name == table.of]
        return next((one for one in named if one is not None), None)
    segment = next((one for one in findings.segments if one.name == table.of), None)
    if segment is None:
        return None
    if table.quantity == "edge_share":
        return edge_share(segment.mask)
    if table.quantity == "components":
        return float(components(segment.mask))
    if table.quantity == "volume_ml":
        own = inputs.given[segment.on] if segment.on else inputs.primary
        return int(np.count_nonzero(segment.mask)) * own.voxel_ml if isinstance(own, Volume) else None
    probability = probabilities.get(table.of, segment.probability)
    inside = int(np.count_nonzero(segment.mask))
    if probability is None or not inside:
        return None
    if table.quantity == "mean_probability":
        return float(probability[segment.mask].mean(dtype=np.float64))
    low, high = _UNCERTAIN
    return int(np.count_nonzero((probability > low) & (probability < high))) / inside


def _all_measurements(findings: Findings) -> Sequence[Measurement]:
    of_marks = [one for mark in findings.marks for one in mark.measurements]
    return [
        *findings.measurements,
        *(one for segment in findings.segments for one in segment.measurements),
        *of_marks,
    ]


def _name_of(one: Measurement) -> str:
    return one.name or one.concept.meaning


def probabilities_asked(folder: ModelFolder) -> frozenset[str]:
    """Names of the labels whose probabilities a check asks for."""
    kinds = ("mean_probability", "uncertain_share")
    return frozenset(one.of for one in folder.checks if one.quantity in kinds)
