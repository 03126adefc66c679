"""What a model is given and what it returns. No pydicom, file or socket here.

Axis order is always (slice, row, column). Lengths are millimetres, patient
coordinates are DICOM's LPS (PS3.3 section C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

HeaderValue = str | int | float | tuple["HeaderValue", ...] | None


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Volume:
    """A series as one regular grid.

    Attributes
    ----------
    voxels
        (slice, row, column), real-world values after Modality LUT, int16, int32 or float32.
    affine
        (4, 4) float64: (slice, row, column, 1) to (x, y, z, 1) in LPS mm. Column 0 is the step
        from slice to slice; with gantry tilt it is not orthogonal to the others.
    spacing_mm
        (slice, row, column): the lengths of the affine's columns; for a tilted
        gantry the slice value is the distance *between planes* along their normal, so that
        the product is always the volume of a voxel.
    unit
        UCUM code of the voxels, ``[hnsf'U]`` for CT, ``1`` when unknown.
    header
        Keyword to value, where all instances agree (``Modality``, ``KVP``, ...).
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    unit: str
    header: Mapping[str, HeaderValue] = field(default_factory=dict)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0


@dataclass(frozen=True)
class InstanceView:
    """One instance of a series as a model may see it.

    ``header`` maps keywords to values (numbers as numbers, multi-valued as tuples); no
    identifiers of persons are in it except as opaque digests (``PatientID`` and
    ``StudyInstanceUID`` arrive hashed, so that they can be compared but not read).
    ``pixels`` is (frame, row, column[, sample]) of stored values, or None for an instance
    without pixels or with pixels that cannot be decoded (``pixels_error`` then says why).
    """

    number: int
    header: Mapping[str, HeaderValue]
    pixels: NDArray[Any] | None = None
    pixels_error: str = ""


@dataclass(frozen=True)
class Series:
    """All instances of one series, ordered along the slice normal where there is one."""

    instances: tuple[InstanceView, ...]


@dataclass(frozen=True)
class Inputs:
    """What ``predict`` gets: exactly one of the two, as the model's ``needs`` says."""

    volume: Volume | None = None
    series: Series | None = None


@dataclass(frozen=True)
class Measurement:
    """A number with its coded concept and UCUM unit (TID 300 of PS3.16).

    ``derivation`` (e.g. Mean) and ``method`` modify the concept.
    """

    concept: Code
    value: float
    unit: Code
    derivation: Code | None = None
    method: Code | None = None


@dataclass(frozen=True)
class Segment:
    """A region on the grid of the input volume.

    ``mask`` is bool (slice, row, column), same shape as ``Volume.voxels``. ``name`` is stable
    from run to run and unique in the Findings (``left-lung``); ``label`` is for people.
    An empty mask is allowed: it is reported in the SR and left out of the SEG.
    """

    name: str
    label: str
    mask: NDArray[np.bool_]
    category: Code
    type: Code
    laterality: Code | None = None
    measurements: tuple[Measurement, ...] = ()
    colour: tuple[int, int, int] = (255, 196, 0)


@dataclass(frozen=True)
class Evaluation:
    """A coded or textual answer to a coded question (TID 1500 row 12, Qualitative Evaluations)."""

    concept: Code
    value: Code | str


@dataclass(frozen=True)
class Check:
    """A quality check the model made of its own input or output.

    A model whose check fails leaves the numbers that depend on it out of its Findings; the check's
    ``reason`` is reported in their place.
    """

    name: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Findings:
    """All that one run of a model says of one series."""

    segments: tuple[Segment, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    checks: tuple[Check, ...] = ()
    summary: str = ""
