"""Instances of a series to one regular grid of real-world values; refuses by name what is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.types import Volume
from node.errors import NotAVolume
from node.series import geometry
from node.series.geometry import Grid, Plane
from node.series.header_values import text
from node.series.series_view import Allocate, common_header
from node.series.source_series import SourceInstance
from node.series.values import HOUNSFIELD_UNIT, fill_padding, real, unit_of, wide_enough

#: Value 1 of Image Type (PS3.3 sections C.7.6.1.1.2 and C.8.16.1.1).
_ORIGINS = ("ORIGINAL", "DERIVED", "MIXED")


@dataclass(frozen=True)
class BuiltVolume:
    """A volume and where it comes from.

    ``ordered`` holds the instances in the order of the slices (one alone when it is multi-frame);
    ``planes[k]`` names instance (index into the instances as they were given) and frame of slice k.
    """

    volume: Volume
    ordered: tuple[SourceInstance, ...]
    planes: tuple[Plane, ...]


def _anything(slices: int, unit: str) -> None:
    del slices, unit


def build(
    instances: Sequence[SourceInstance],
    allocate: Allocate = np.empty,
    check: Callable[[int, str], None] = _anything,
) -> BuiltVolume:
    """Build the volume of a series.

    Voxels are (slice, row, column) after the Modality LUT (PS3.3 section C.11.1): int16 where all
    values are whole and fit, else int32, else float32. Slices are in order along their normal.
    Padding outside the field of view becomes -1024 HU in CT, with all below it where padding below it
    was compressed with loss, and elsewhere the lowest value of its slice where it was higher.

    Parameters
    ----------
    instances
        of one series, in any order; single frames, or enhanced multi-frame objects
    allocate
        gives the array for the voxels, filled slice by slice, perhaps mapped from a file
    check
        is told the number of slices and the unit before anything is decoded, and may raise

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
    planes = geometry.planes(headers)
    _refuse_strangers(headers, len(planes))
    grid = geometry.grid(planes)
    try:
        unit = unit_of(headers)
    except ValueError as error:
        raise NotAVolume(str(error)) from None
    check(len(grid.planes), unit)
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


def _refuse_strangers(headers: Sequence[Dataset], planes: int) -> None:
    """Refuse instances that nothing but their Series Instance UID holds together."""
    studies = Counter(text(header, "StudyInstanceUID") for header in headers)
    if len(studies) > 1:
        raise NotAVolume(f"mixed studies: {_odd(studies)}")
    frames = Counter(text(header, "FrameOfReferenceUID") for header in headers)
    # Where each plane has one of its own, an anonymiser made them, and they say nothing.
    if len(frames) > 1 and not (len(frames) == planes > 2):
        raise NotAVolume(f"mixed Frames of Reference: {_odd(frames)}, so their positions cannot be compared")
    kinds = Counter(text(header, "ImageType").upper() for header in headers)
    made = Counter({kind: kinds[kind] for kind in _ORIGINS if kind in kinds})
    if len(made) > 1:
        raise NotAVolume(f"mixed original and derived images: {_odd(made)}")
    if "MIXED" in made:
        raise NotAVolume("original and derived frames are mixed (Image Type begins with MIXED)")


def _odd(kinds: Counter[str]) -> str:
    total = kinds.total()
    return f"{total - max(kinds.values())} of {total} instances differ from the others"


def _fill(
    instances: Sequence[SourceInstance], grid: Grid, allocate: Allocate, *, is_ct: bool
) -> NDArray[Any]:
    """Decode every frame into its slice."""
    shape = (len(grid.planes), *grid.planes[0].size)
    is_whole = all(plane.rescaling.is_whole for plane in grid.planes)
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
            values = real(stored, plane.rescaling)
            fill_padding(values, stored, instance.header, plane.rescaling, is_ct=is_ct)
            voxels = wide_enough(voxels, values, allocate)
            voxels[index] = values
        if waiting:
            raise NotAVolume(f"{next(iter(waiting.values()))[1].label} has no pixels")
    return voxels
