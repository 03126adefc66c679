"""Numbers over segments, as the tables ``[[measurement]]`` ask for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.types import Code, Image, Input, Inputs, Measurement, ParameterValue, Segment, Volume
from node.catalogue.folder_tables import UNITS_OF_A_VOLUME, MeasurementTable, ModelFolder, setting
from node.catalogue.folder_values import UNIT_MEANINGS, unit_symbol
from node.config.config_values import suggestion
from node.runners.failures import FolderFault
from node.runners.frames import refuse_apart
from node.runners.placement import Interpolation, covered, onto
from node.runners.regions import components

_VOLUME = Code("118565006", "SCT", "Volume")
_AREA = Code("42798000", "SCT", "Area")
_COUNT = Code("COMPONENTS", "99ANODE", "Number of components")
_ML = Code("ml", "UCUM", "milliliter")
_PERCENT = Code("%", "UCUM", "percent")
_NO_UNIT = Code("1", "UCUM", "no units")
#: What values of a unit are, where that is all that they can be.
_QUANTITIES = {"[hnsf'U]": Code("112031", "DCM", "Attenuation Coefficient")}
_DERIVATIONS = {
    "mean": Code("373098007", "SCT", "Mean"),
    "sd": Code("386136009", "SCT", "Standard deviation"),
    "minimum": Code("255605001", "SCT", "Minimum"),
    "maximum": Code("56851009", "SCT", "Maximum"),
    "median": Code("373099004", "SCT", "Median"),
}
_MOST_MEANING = 64


def measured(
    table: MeasurementTable, folder: ModelFolder, segments: Mapping[str, Segment], inputs: Inputs
) -> Measurement | str:
    """Take one number over a segment.

    Returns
    -------
    The number; or why it cannot be taken, nothing where there is nothing to take it over.

    Raises
    ------
    FolderFault
        when the table names what the model did not find
    ValueError
        when the inputs do not lie as they have to
    """
    if table.of not in segments:
        raise FolderFault(
            f"measurement {table.name}: nothing called '{table.of}' was found{suggestion(table.of, segments)}"
        )
    segment = segments[table.of]
    own_name = segment.on or next(iter(inputs.given))
    own = inputs.given[own_name]
    if table.kind == "volume":
        return _volume(table, segment, own)
    if table.kind == "count":
        number = components(segment.mask)
        return Measurement(table.concept or _COUNT, number, table.unit or _NO_UNIT, name=table.name)
    over_name = table.over or own_name
    over = inputs.given.get(over_name)
    if over is None:
        return ""
    how: dict[str, Interpolation] = {one.need.name: one.interpolation for one in folder.inputs}
    values = _values(table, segment, (own_name, own), (over_name, over), how.get(over_name, "linear"))
    if isinstance(values, str) or not values.size:
        return values if isinstance(values, str) else ""
    assert isinstance(over, Volume | Image)
    # two numbers that differ only in whose values they are have to say so
    method = None
    if over_name != own_name:
        method = _private("METHOD", f"In the values of {over_name}")
    if table.kind == "share":
        concept, value = _share(table, values, over.unit, inputs.parameters)
        return Measurement(concept, value, table.unit or _PERCENT, None, method, table.name)
    unit = table.unit or Code(over.unit, "UCUM", UNIT_MEANINGS.get(over.unit, over.unit))
    concept = table.concept or _QUANTITIES.get(over.unit) or _own("VALUE", "Voxel value", table.name)
    if table.kind == "percentile" and table.concept is None:
        told = f"Percentile {table.percentile:g} of the voxel values"
        concept = _own("PERCENT", told, table.name)
    derivation = _DERIVATIONS.get(table.kind)
    return Measurement(concept, _statistic(table, values), unit, derivation, method, table.name)


def _share(
    table: MeasurementTable,
    values: NDArray[np.float64],
    unit: str,
    parameters: Mapping[str, ParameterValue],
) -> tuple[Code, float]:
    edge = table.below if table.above is None else table.above
    assert edge is not None
    limit = setting(edge, parameters)
    where, is_counted = ("below", values < limit) if table.above is None else ("above", values > limit)
    told = f"Share of voxels {where} {limit:.10g} {unit_symbol(unit)}".rstrip()
    share = 100.0 * int(np.count_nonzero(is_counted)) / values.size
    return table.concept or _own("SHARE", told, table.name), share


def _own(kind: str, told: str, name: str) -> Code:
    """Return a code of the project's own for what a number is; the folder's name for it is in its words."""
    with_name = f"{told} ({name})"
    return _private(kind, with_name if len(with_name) <= _MOST_MEANING else told[:_MOST_MEANING])


def _private(kind: str, meaning: str) -> Code:
    """Return a code whose value is another one for each meaning."""
    return Code(f"{kind}-{hashlib.sha256(meaning.encode()).hexdigest()[:8].upper()}", "99ANODE", meaning)


def _volume(table: MeasurementTable, segment: Segment, own: Input) -> Measurement | str:
    voxels = int(np.count_nonzero(segment.mask))
    kind, what = ("volume", "a volume") if isinstance(own, Volume) else ("image", "an image")
    allowed = UNITS_OF_A_VOLUME[kind]
    # a program may have said only now what the segment lies on
    if table.unit is not None and table.unit.value not in allowed:
        raise FolderFault(
            f"measurement {table.name}: {segment.name} lies on {what}, where its size is taken in "
            f"{' or '.join(allowed)}, not {table.unit.value}"
        )
    if isinstance(own, Volume):
        volume = voxels * own.voxel_ml
        return Measurement(table.concept or _VOLUME, volume, table.unit or _ML, name=table.name)
    if isinstance(own, Image) and own.spacing_mm is not None:
        area = voxels * own.spacing_mm[0] * own.spacing_mm[1]
        unit = table.unit or Code("mm2", "UCUM", UNIT_MEANINGS["mm2"])
        return Measurement(table.concept or _AREA, area, unit, name=table.name)
    return ""


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


# --- the values under a segment ----------------------------------------------


def _values(
    table: MeasurementTable,
    segment: Segment,
    own: tuple[str, Input],
    over: tuple[str, Input],
    interpolation: Interpolation,
) -> NDArray[np.float64] | str:
    """Return the values of an input under a segment, which may lie on another; or why there are none."""
    (own_name, lies_on), (over_name, given) = own, over
    own_grid, grid = _grid(lies_on), _grid(given)
    if own_grid is None or grid is None:
        raise FolderFault(f"measurement {table.name}: '{over_name}' is a series, which is no grid of values")
    if own_grid.shape[:3] != segment.mask.shape:
        raise FolderFault(
            f"measurement {table.name}: {segment.name} is {segment.mask.shape} and '{own_name}', on which it "
            f"lies, {own_grid.shape[:3]}"
        )
    if grid.ndim != 3:
        raise ValueError(f"measurement {table.name}: '{over_name}' is in colour and has no values")
    if given is lies_on:
        return _inside(grid, segment.mask)
    if not isinstance(given, Volume) or not isinstance(lies_on, Volume):
        if grid.shape != segment.mask.shape:
            raise ValueError(
                f"measurement {table.name}: '{over_name}' is {grid.shape}, and '{own_name}' {own_grid.shape}"
            )
        return _inside(grid, segment.mask)
    refuse_apart(f"measurement {table.name}", (over_name, given), (own_name, lies_on))
    values = _elsewhere(segment.mask, lies_on.affine, given, interpolation)
    return f"a part of {segment.name} lies beyond '{over_name}'" if values is None else values


def _grid(one: Input) -> NDArray[np.generic] | None:
    return one.voxels if isinstance(one, Volume) else one.pixels if isinstance(one, Image) else None


def _elsewhere(
    mask: NDArray[np.bool_], affine: NDArray[np.float64], over: Volume, interpolation: Interpolation
) -> NDArray[np.float64] | None:
    """Return the values of a volume at the centres of a mask's voxels; None where one lies beyond it."""
    if not mask.any():
        return np.empty(0)
    box = tuple(
        slice(int(at.min()), int(at.max()) + 1)
        for at in (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    )
    inside = mask[box]
    target = _from(affine, [one.start for one in box])
    if not covered(inside.shape, target, over.voxels.shape, over.affine)[inside].all():
        return None
    # of a large volume no more is resampled than lies about the segment
    corners = np.array(np.meshgrid(*[[0, count - 1] for count in inside.shape])).reshape(3, -1)
    matrix = np.linalg.inv(over.affine) @ target
    at = matrix[:3, :3] @ corners + matrix[:3, 3:]
    part = tuple(
        slice(int(np.clip(np.floor(low) - 1, 0, count - 1)), int(np.clip(np.ceil(high) + 2, 1, count)))
        for low, high, count in zip(at.min(axis=1), at.max(axis=1), over.voxels.shape, strict=True)
    )
    there = _from(over.affine, [one.start for one in part])
    values: NDArray[np.float64] = onto(over.voxels[part], there, inside.shape, target, interpolation)[
        inside
    ].astype(np.float64)
    return values


def _from(affine: NDArray[np.float64], start: list[int]) -> NDArray[np.float64]:
    """Return the affine of a part of a grid that begins at ``start``."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ start
    return moved


def _inside(grid: NDArray[np.generic], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the values under a mask, slice by slice: the grid may be mapped from a file."""
    parts = [plane[inside] for plane, inside in zip(grid, mask, strict=True) if inside.any()]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
