"""Numbers over segments, and the checks of ``analysis.toml`` on what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.types import (
    Check,
    Code,
    Findings,
    Image,
    Inputs,
    Measurement,
    Segment,
    Volume,
)
from node.catalogue.folder_tables import CheckTable, MeasurementTable, ModelFolder, setting
from node.catalogue.folder_values import UNIT_MEANINGS
from node.runners.regions import components, edge_share

HOUNSFIELD = "[hnsf'U]"
_VOLUME = Code("118565006", "SCT", "Volume")
_AREA = Code("42798000", "SCT", "Area")
_ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
_VALUE = Code("VOXEL-VALUE", "99ANODE", "Voxel value")
_SHARE = Code("VOXEL-SHARE", "99ANODE", "Share of voxels")
_COUNT = Code("COMPONENTS", "99ANODE", "Number of components")
_ML = Code("ml", "UCUM", "milliliter")
_PERCENT = Code("%", "UCUM", "percent")
_NO_UNIT = Code("1", "UCUM", "no units")
_DERIVATIONS = {
    "mean": Code("373098007", "SCT", "Mean"),
    "sd": Code("386136009", "SCT", "Standard deviation"),
    "minimum": Code("255605001", "SCT", "Minimum"),
    "maximum": Code("56851009", "SCT", "Maximum"),
    "median": Code("373099004", "SCT", "Median"),
}
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
    ValueError
        when a measurement needs what the model did not find or was not given
    """
    segments = {one.name: one for one in findings.segments}
    for table in folder.measurements:
        if table.of not in segments:
            raise ValueError(f"measurement {table.name}: nothing called '{table.of}' was found")
        segment = segments[table.of]
        number = _measured(table, segment, inputs)
        if number is not None:
            segments[table.of] = replace(segment, measurements=(*segment.measurements, number))
    with_numbers = replace(findings, segments=tuple(segments.values()))
    # What could not be taken is in no result: a check need not withhold it, and its reason says so.
    taken = {_name_of(one) for one in _all_measurements(with_numbers)}
    absent = {table.name for table in folder.measurements} - taken
    tables = [
        replace(one, withholds=tuple(name for name in one.withholds if name not in absent))
        for one in folder.checks
    ]
    checks = tuple(_checked(one, with_numbers, inputs, probabilities) for one in tables)
    return replace(with_numbers, checks=(*with_numbers.checks, *checks))


def _measured(table: MeasurementTable, segment: Segment, inputs: Inputs) -> Measurement | None:
    """Take one number over a segment; None where there is nothing to take it over."""
    own = inputs.given[segment.on] if segment.on else inputs.primary
    if table.kind == "volume":
        return _volume(table, segment, own)
    if table.kind == "count":
        return Measurement(
            table.concept or _COUNT, components(segment.mask), table.unit or _NO_UNIT, name=table.name
        )
    over = inputs.given.get(table.over, None) if table.over else own
    if over is None:
        return None
    grid = over.voxels if isinstance(over, Volume) else over.pixels if isinstance(over, Image) else None
    if grid is None or grid.shape != segment.mask.shape:
        raise ValueError(f"measurement {table.name}: '{table.over}' lies not on the grid of {segment.name}")
    assert isinstance(over, Volume | Image)
    values = _inside(grid, segment.mask)
    if not values.size:
        return None
    if table.kind == "share":
        edge = table.below if table.above is None else table.above
        assert edge is not None
        limit = setting(edge, inputs.parameters)
        counted = np.count_nonzero(values < limit if table.above is None else values > limit)
        return Measurement(
            table.concept or _SHARE,
            100.0 * int(counted) / values.size,
            table.unit or _PERCENT,
            name=table.name,
        )
    concept = table.concept or (_ATTENUATION if over.unit == HOUNSFIELD else _VALUE)
    unit = table.unit or Code(over.unit, "UCUM", UNIT_MEANINGS.get(over.unit, over.unit))
    derivation = _DERIVATIONS.get(table.kind)
    if table.kind == "percentile" and table.concept is None:
        share = f"{table.percentile:g}"
        concept = Code(f"PERCENTILE-{share}"[:16], "99ANODE", f"Percentile {share} of the voxel values")
    return Measurement(concept, _statistic(table, values), unit, derivation, name=table.name)


def _volume(table: MeasurementTable, segment: Segment, own: object) -> Measurement | None:
    voxels = int(np.count_nonzero(segment.mask))
    if isinstance(own, Volume):
        return Measurement(
            table.concept or _VOLUME, voxels * own.voxel_ml, table.unit or _ML, name=table.name
        )
    if isinstance(own, Image) and own.spacing_mm is not None:
        area = voxels * own.spacing_mm[0] * own.spacing_mm[1]
        unit = table.unit or Code("mm2", "UCUM", UNIT_MEANINGS["mm2"])
        return Measurement(table.concept or _AREA, area, unit, name=table.name)
    return None


def _inside(grid: NDArray[np.generic], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the values under a mask, slice by slice: the grid may be mapped from a file."""
    parts = [plane[inside] for plane, inside in zip(grid, mask, strict=True) if inside.any()]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def _statistic(table: MeasurementTable, values: NDArray[np.float64]) -> float:
    if table.kind == "mean":
        return float(values.mean())
    if table.kind == "sd":
        return float(values.std())
    if table.kind == "minimum":
        return float(values.min())
    if table.kind == "maximum":
        return float(values.max())
    return float(np.percentile(values, 50.0 if table.kind == "median" else table.percentile))


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
    if value is None:
        what = table.measurement or f"{table.quantity} of {table.of}"
        return Check(table.name, False, f"{table.reason} ({what} could not be taken)", table.withholds)
    if (low is None or value >= low) and (high is None or value <= high):
        return Check(table.name, True)
    return Check(table.name, False, f"{table.reason} ({value:.4g}, {_bounds(low, high)})", table.withholds)


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
