"""Instances of a series to one regular grid of real-world values; refuses by name what is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.types import Volume
from node.errors import NotAVolume
from node.series import geometry
from node.series.geometry import Grid, Plane
from node.series.header_values import items, text
from node.series.series_view import Allocate, common_header, stored_value
from node.series.source_series import SourceInstance

HOUNSFIELD_UNIT = "[hnsf'U]"
#: What padding outside the field of view becomes in a CT: air, at the end of the scale.
CT_PADDING_HU = -1024
#: Units (0054,1001) of PET (PS3.3 section C.8.9.1.1.3) as UCUM.
_PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "{counts}", "CPS": "{counts}/s", "PROPCNTS": "{counts}"}


@dataclass(frozen=True)
class BuiltVolume:
    """A volume and where it comes from.

    ``ordered`` holds the instances in the order of the slices (one alone when it is multi-frame);
    ``planes[k]`` names instance (index into the instances as they were given) and frame of slice k.
    """

    volume: Volume
    ordered: tuple[SourceInstance, ...]
    planes: tuple[Plane, ...]


def build(instances: Sequence[SourceInstance], allocate: Allocate = np.empty) -> BuiltVolume:
    """Build the volume of a series.

    Voxels are (slice, row, column) after the Modality LUT (PS3.3 section C.11.1): int16 where all
    values are whole and fit, else int32, else float32. Slices are in order along their normal.
    Padding outside the field of view becomes -1024 HU in CT, and elsewhere the lowest value of
    its slice where it was higher.

    Parameters
    ----------
    instances
        of one series, in any order; single frames, or enhanced multi-frame objects
    allocate
        gives the array for the voxels, filled slice by slice, perhaps mapped from a file

    Raises
    ------
    NotAVolume
        naming the fault and the slices
    UnsupportedPixelData, StorageFailure, IntegrityFailure
        when pixels cannot be decoded or read
    """
    if not instances:
        raise NotAVolume("the series has no instances")
    headers = [instance.header for instance in instances]
    without = next((one for one in instances if not one.has_pixels), None)
    if without is not None:
        raise NotAVolume("an instance of the series has no pixels")
    _refuse_tables(headers)
    grid = geometry.grid(geometry.planes(headers))
    unit = _unit(headers)
    voxels = _fill(instances, grid, allocate, is_ct=unit == HOUNSFIELD_UNIT)
    volume = Volume(
        voxels=voxels,
        affine=grid.affine,
        spacing_mm=grid.spacing_mm,
        unit=unit,
        header=common_header(headers),
    )
    order = dict.fromkeys(plane.instance for plane in grid.planes)
    return BuiltVolume(volume, tuple(instances[index] for index in order), grid.planes)


def _refuse_tables(headers: Sequence[Dataset]) -> None:
    for header in headers:
        if "ModalityLUTSequence" in header:
            raise NotAVolume("the values need a Modality LUT table, and only rescaling is done here")


def _unit(headers: Sequence[Dataset]) -> str:
    """UCUM unit of the rescaled values; ``1`` where the objects name none."""
    modalities = {text(header, "Modality") for header in headers}
    if len(modalities) > 1:
        raise NotAVolume(f"mixed modalities: {', '.join(sorted(modalities))}")
    types = {_rescale_type(header) for header in headers}
    units = {text(header, "Units") for header in headers}
    if len(types) > 1 or len(units) > 1:
        raise NotAVolume("mixed units of the values")
    if modalities == {"CT"} and types <= {"", "HU"}:
        return HOUNSFIELD_UNIT
    if modalities == {"PT"}:
        return _PET_UNITS.get(units.pop(), "1")
    return "1"


def _rescale_type(header: Dataset) -> str:
    groups = [
        *items(header, "SharedFunctionalGroupsSequence"),
        *items(header, "PerFrameFunctionalGroupsSequence")[:1],
    ]
    transformations = [one for group in groups for one in items(group, "PixelValueTransformationSequence")]
    return next(filter(None, (text(one, "RescaleType") for one in (header, *transformations))), "")


def _fill(
    instances: Sequence[SourceInstance], grid: Grid, allocate: Allocate, *, is_ct: bool
) -> NDArray[Any]:
    """Decode every frame into its slice."""
    shape = (len(grid.planes), *grid.planes[0].size)
    is_whole = all(plane.slope.is_integer() and plane.intercept.is_integer() for plane in grid.planes)
    voxels = allocate(shape, np.dtype(np.int16 if is_whole else np.float32))
    places: dict[int, dict[int, tuple[int, Plane]]] = {}
    for index, plane in enumerate(grid.planes):
        places.setdefault(plane.instance, {})[plane.frame] = (index, plane)
    for number, frames in places.items():
        instance = instances[number]
        waiting = dict(frames)
        for frame, stored in enumerate(instance.frames()):
            place = waiting.pop(frame, None)
            if place is None:
                raise NotAVolume(f"there are more frames than {frames[0][1].label} declares")
            index, plane = place
            if stored.shape != plane.size:
                raise NotAVolume(f"{plane.label} decodes to {stored.shape} pixels instead of {plane.size}")
            values = _real(stored, plane, instance.header, is_ct=is_ct)
            voxels = _wide_enough(voxels, values, allocate)
            voxels[index] = values
        if waiting:
            raise NotAVolume(f"{next(iter(waiting.values()))[1].label} has no pixels")
    return voxels


def _real(stored: NDArray[Any], plane: Plane, header: Dataset, *, is_ct: bool) -> NDArray[Any]:
    """Stored values of one slice to real-world ones: int64, or float32."""
    values: NDArray[Any]
    is_whole = plane.slope.is_integer() and plane.intercept.is_integer()
    if is_whole and not np.issubdtype(stored.dtype, np.floating):
        values = stored.astype(np.int64) * int(plane.slope) + int(plane.intercept)
    else:
        values = (stored.astype(np.float64) * plane.slope + plane.intercept).astype(np.float32)
    padding = _padding(stored, header)
    if padding is None or not padding.any():
        return values
    if is_ct:
        values[padding] = CT_PADDING_HU
    elif not padding.all():
        lowest = values[~padding].min()
        values[padding & (values > lowest)] = lowest
    return values


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    """Pixels that are padding (PS3.3 section C.7.5.1.1.2); None when none is declared."""
    first = stored_value(header, "PixelPaddingValue")
    if first is None:
        return None
    last = stored_value(header, "PixelPaddingRangeLimit")
    if last is None:
        return stored == first
    low, high = sorted((first, last))
    return (stored >= low) & (stored <= high)


def _wide_enough(voxels: NDArray[Any], values: NDArray[Any], allocate: Allocate) -> NDArray[Any]:
    """Give back ``voxels``, or a copy of a dtype that holds ``values`` too.

    The declared range of 16 bits is often wider than int16 while the values never are, so the
    narrow type is tried first.
    """
    steps: list[type[np.generic]] = [np.int16, np.int32, np.float32]
    for kind in steps[steps.index(voxels.dtype.type) :]:
        if _holds(kind, values):
            break
    if voxels.dtype == kind:
        return voxels
    wider = allocate(voxels.shape, np.dtype(kind))
    # What is not filled yet is copied too, and written over later.
    wider[:] = voxels
    return wider


def _holds(kind: type[np.generic], values: NDArray[Any]) -> bool:
    if kind is np.float32:
        return True
    if np.issubdtype(values.dtype, np.floating):
        return False
    limits = np.iinfo(np.int16 if kind is np.int16 else np.int32)
    return bool(limits.min <= values.min() and values.max() <= limits.max)
