"""What a model is given and what it returns. No pydicom, file or socket here.

Axis order is always (slice, row, column). Lengths are millimetres, patient
coordinates are DICOM's LPS (PS3.3 section C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

HeaderValue = str | int | float | tuple["HeaderValue", ...] | None
#: What an analysis may be set to: JSON's values, lists as tuples.
ParameterValue = bool | int | float | str | tuple["ParameterValue", ...] | Mapping[str, "ParameterValue"]


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
class Image:
    """One instance with pixels, of any modality, whatever its geometry.

    Attributes
    ----------
    pixels
        (frame, row, column) real-world values after Modality LUT, int16, int32 or float32; in colour
        (frame, row, column, 3) uint8 RGB. A single image has one frame. MONOCHROME1 is not inverted.
    spacing_mm
        (row, column), of Pixel Spacing or else Imager Pixel Spacing, over the magnification where the
        object states it; None when the spacing is unknown.
    unit
        UCUM code of the values, ``1`` when unknown.
    header
        Keyword to value.
    """

    pixels: NDArray[Any]
    spacing_mm: tuple[float, float] | None
    unit: str
    header: Mapping[str, HeaderValue] = field(default_factory=dict)


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


Input = Image | Volume | Series


@dataclass(frozen=True)
class Inputs:
    """What ``predict`` gets: for each of the model's needs, by name, an input; optional ones may lack.

    The first is the *primary* one, the series that the analysis was started for; ``volume``, ``image``
    and ``series`` are short for it. ``parameters`` has a value for each parameter of the model.
    """

    given: Mapping[str, Input]
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)

    @property
    def primary(self) -> Input:
        """The first input."""
        if not self.given:
            raise ValueError("no input was given")
        return next(iter(self.given.values()))

    @property
    def volume(self) -> Volume:
        """The primary input as a volume; raises ValueError when it is none."""
        if not isinstance(self.primary, Volume):
            raise ValueError("no volume was given")
        return self.primary

    @property
    def image(self) -> Image:
        """The primary input as an image; raises ValueError when it is none."""
        if not isinstance(self.primary, Image):
            raise ValueError("no image was given")
        return self.primary

    @property
    def series(self) -> Series:
        """The primary input as a series; raises ValueError when it is none."""
        if not isinstance(self.primary, Series):
            raise ValueError("no series was given")
        return self.primary


# --- what is found -----------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """A number with its coded concept and UCUM unit (TID 300 of PS3.16).

    ``derivation`` (e.g. Mean) and ``method`` modify the concept. By ``name`` the configuration's
    ``when`` and a check refer to it; without one that is the concept's meaning.
    """

    concept: Code
    value: float
    unit: Code
    derivation: Code | None = None
    method: Code | None = None
    name: str = ""


@dataclass(frozen=True)
class Evaluation:
    """A coded or textual answer to a coded question (TID 1500 row 12, Qualitative Evaluations).

    ``probability`` (0 to 1) is the model's own certainty of the answer, None when it states none.
    By ``name`` the configuration's ``when`` refers to it; without one that is the concept's meaning.
    """

    concept: Code
    value: Code | str
    probability: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Segment:
    """A region on the grid of an input volume or image.

    ``mask`` is bool (slice, row, column), the shape of ``Volume.voxels`` (of ``Image.pixels`` without
    its samples). ``name`` is stable from run to run and unique in the Findings (``left-lung``);
    ``label`` is for people. An empty mask is allowed: it is reported in the SR and left out of the SEG.

    ``probability`` is float32 in 0 to 1, of the same shape, where the model has one for each voxel: it
    makes a fractional Segmentation. ``on`` names the input that the grid is of; empty is the primary.
    """

    name: str
    label: str
    mask: NDArray[np.bool_]
    category: Code
    type: Code
    laterality: Code | None = None
    measurements: tuple[Measurement, ...] = ()
    colour: tuple[int, int, int] = (255, 196, 0)
    evaluations: tuple[Evaluation, ...] = ()
    probability: NDArray[np.float32] | None = None
    on: str = ""


@dataclass(frozen=True)
class Mark:
    """A place found: a point, a box, or a contour in one slice.

    ``points`` is (n, 3) float64 in voxels, (slice, row, column), fractions allowed; a whole number is
    the centre of a voxel. ``shape`` says what they are: one ``point``; the two opposite corners of a
    ``box`` along the axes of the grid, which lie in one slice or in several; the vertices of a
    ``polygon`` (closed) or ``polyline`` (open), all in one slice. The corners of a box are the centres of
    its outermost voxels, so a box of one voxel has the same corner twice. ``probability`` is 0 to 1.
    ``name`` is stable from run to run where the thing is the same, and unique in the Findings.
    """

    name: str
    label: str
    shape: Literal["point", "box", "polygon", "polyline"]
    points: NDArray[np.float64]
    category: Code
    type: Code
    site: Code | None = None
    laterality: Code | None = None
    probability: float | None = None
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    colour: tuple[int, int, int] = (255, 196, 0)
    on: str = ""


@dataclass(frozen=True)
class DerivedImage:
    """An image computed from an input: a new series at the PACS.

    ``voxels`` is (slice, row, column) in ``unit``, or (slice, row, column, 3) uint8 RGB. Without an
    ``affine`` it lies on the grid of the input ``on`` and has its shape; with one, (4, 4) float64 as
    that of ``Volume``, on a grid of its own in the same frame of reference.

    As ``"image"`` it becomes instances of the source's own SOP class, whose values are those of the
    source (HU of a CT). As ``"map"`` it becomes a Parametric Map of floating-point values, and
    ``quantity`` says what they are, e.g. (113041, DCM, "Apparent Diffusion Coefficient").
    """

    name: str
    label: str
    voxels: NDArray[Any]
    unit: Code
    kind: Literal["image", "map"] = "image"
    affine: NDArray[np.float64] | None = None
    quantity: Code | None = None
    on: str = ""


@dataclass(frozen=True)
class Transform:
    """How one input lies on another: a Spatial or a Deformable Spatial Registration.

    ``matrix`` is (4, 4) float64 and takes a point (x, y, z, 1) in LPS mm of the input ``moving`` to
    that of the input ``fixed``; ``kind`` is the least that it is. With ``displacements``, (slice, row,
    column, 3) float32 mm on the grid of ``displacement_affine``, a point p of ``fixed`` corresponds to
    the point ``inverse(matrix) @ (p + displacement at p)`` of ``moving``.
    """

    name: str
    label: str
    moving: str
    fixed: str
    matrix: NDArray[np.float64]
    kind: Literal["RIGID", "RIGID_SCALE", "AFFINE"] = "RIGID"
    displacements: NDArray[np.float32] | None = None
    displacement_affine: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture for people: (row, column, 3) or (frame, row, column, 3) uint8 RGB, no patient in it."""

    name: str
    label: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Check:
    """A quality check the model made of its own input or output.

    What a failed check ``withholds`` is left out of every result, and the check's ``reason`` is
    reported in its place: names of measurements and evaluations (or the meaning or the code value of
    their concepts; ``left-lung.Volume`` for that of one region alone), of segments and marks (their
    numbers), of images, transforms and pictures, or ``("*",)`` for every number and every answer with a
    probability. A name that nothing has may be misspelt: it withholds every number and every answer, or
    those of the region that it begins with. So what a model leaves out itself it does not name, and only
    gives the reason.
    """

    name: str
    passed: bool
    reason: str = ""
    withholds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All that one run of a model says of its inputs."""

    segments: tuple[Segment, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    checks: tuple[Check, ...] = ()
    summary: str = ""
    marks: tuple[Mark, ...] = ()
    images: tuple[DerivedImage, ...] = ()
    transforms: tuple[Transform, ...] = ()
    pictures: tuple[Picture, ...] = ()
