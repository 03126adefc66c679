"""Is a series whole and usable? Geometry, pixels and attributes, for any modality.

Every fault is one evaluation in words; one coded evaluation says pass or fail. What a series
cannot have (positions of a chest radiograph) is not asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.base import ModelCard
from models.types import (
    Check,
    Code,
    Evaluation,
    Findings,
    HeaderValue,
    Inputs,
    InstanceView,
    Measurement,
    Series,
)

Finding = tuple[Code, str]

# (111222, DCM, "Succeeded") and (111224, DCM, "Failed") say how a program ended, not what it found,
# so pass and fail are the project's own codes.
PASS = Code("quality-pass", "99ANODE", "Series quality: pass")
FAIL = Code("quality-fail", "99ANODE", "Series quality: fail")
VERDICT = Code("130550", "DCM", "Imaging Series Quality")

MISSING = Code("missing-slices", "99ANODE", "Missing slices")
DUPLICATE = Code("duplicate-slices", "99ANODE", "Duplicate slices")
UNEVEN = Code("uneven-spacing", "99ANODE", "Uneven slice spacing")
MIXED = Code("mixed-geometry", "99ANODE", "Mixed geometry")
CLIPPED = Code("clipped-pixels", "99ANODE", "Clipped pixels")
CONSTANT = Code("constant-pixels", "99ANODE", "Constant pixels")
MISMATCH = Code("mismatched-attributes", "99ANODE", "Mismatched attributes")
UNREADABLE = Code("unreadable-pixels", "99ANODE", "Unreadable pixels")

INSTANCES = Code("instance-count", "99ANODE", "Number of instances")
SLICES = Code("slice-count", "99ANODE", "Number of slices")
SPACING = Code("112226", "DCM", "Spacing between slices")
MEDIAN = Code("373099004", "SCT", "Median")
NO_UNITS = Code("1", "UCUM", "no units")
MILLIMETRE = Code("mm", "UCUM", "millimeter")

#: Every instance of one series must agree on these; the first group belongs to the patient and study.
PATIENT_AND_STUDY = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "AccessionNumber",
)
SERIES = ("Modality", "SeriesInstanceUID", "SOPClassUID", "PhotometricInterpretation", "FrameOfReferenceUID")

SAME_DIRECTION = 1e-3
SAME_PLACE_MM = 0.01
SAME_GAP = 0.01
#: More of an image at the upper end of its range is clipping, not a bright spot.
MOST_CLIPPED = 0.01

CARD = ModelCard(
    name="series-quality",
    version="1.0.0",
    title="Technical quality of a series",
    intended_use="Find missing, duplicate, unevenly spaced, mixed, clipped or constant images of a series",
    limits=(
        "Research only, not for diagnosis. It says nothing of noise, motion, contrast or position. "
        "A pass means that none of the listed faults was found."
    ),
    inputs="one series of any modality, as its instances are",
    outputs="pass or fail; each fault in words; number of instances, number and spacing of slices",
    evidence="Each fault planted in made series is found. Real CT, MR and PET series of the tests pass.",
    licence="Apache-2.0",
    family=Code("123105", "DCM", "Histogram Analysis"),
)


class SeriesQuality:
    """The model ``series-quality``."""

    card = CARD
    needs: Literal["series"] = "series"

    def predict(self, inputs: Inputs) -> Findings:
        """Look at ``inputs.series``; raises ValueError when it is empty."""
        series = inputs.series
        if series is None or not series.instances:
            raise ValueError("the series has no instances")
        stack = _Stack.of(series)
        found: list[Finding] = [
            *_mismatches(series),
            *_mixed(series),
            *(stack.faults() if stack is not None else ()),
            *_pixels(series),
        ]
        measurements = [Measurement(INSTANCES, float(len(series.instances)), NO_UNITS)]
        if stack is not None:
            measurements += stack.measurements()
        verdict = FAIL if found else PASS
        unseen = sum(
            1
            for one in series.instances
            if one.header.get("Rows") and one.pixels is None and not one.pixels_error
        )
        checks = [
            Check(
                "pixels",
                True,
                f"{unseen} images were not looked at: nothing here decodes them" if unseen else "",
            ),
            Check(
                "slice geometry",
                True,
                "" if stack is not None else "no stack of parallel slices, so spacing was not checked",
            ),
        ]
        return Findings(
            measurements=tuple(measurements),
            evaluations=(
                Evaluation(VERDICT, verdict),
                *(Evaluation(concept, text) for concept, text in found),
            ),
            checks=tuple(checks),
            summary=" ".join([f"{verdict.meaning}.", *(f"{text}." for _, text in found)]),
        )


# --- attributes --------------------------------------------------------------


def _mismatches(series: Series) -> Iterator[Finding]:
    """Attributes that differ within the series; the values themselves are never shown."""
    for keyword in (*PATIENT_AND_STUDY, *SERIES):
        kinds = _kinds(series.instances, partial(_attribute, keyword))
        if len(kinds) > 1:
            yield MISMATCH, f"{keyword} has {len(kinds)} values in one series ({_counts(kinds)})"


def _attribute(keyword: str, one: InstanceView) -> HeaderValue:
    return one.header.get(keyword)


def _mixed(series: Series) -> Iterator[Finding]:
    with_pixels = [one for one in series.instances if one.header.get("Rows")]
    questions: list[tuple[str, Callable[[InstanceView], HeaderValue]]] = [
        ("image size", lambda one: (one.header.get("Rows"), one.header.get("Columns"))),
        ("pixel spacing", lambda one: _rounded(one.header.get("PixelSpacing"), 4)),
        ("samples per pixel", lambda one: one.header.get("SamplesPerPixel")),
        ("bits stored", lambda one: one.header.get("BitsStored")),
    ]
    for what, ask in questions:
        kinds = _kinds(with_pixels, ask)
        if len(kinds) > 1:
            yield MIXED, f"Mixed {what}: {_counts(kinds)}; {_odd(kinds)}"
    groups: list[tuple[NDArray[np.float64], list[InstanceView]]] = []
    for one in with_pixels:
        for direction in _directions(one)[:1]:
            group = next((g for d, g in groups if np.abs(d - direction).max() <= SAME_DIRECTION), None)
            if group is None:
                groups.append((direction, [one]))
            else:
                group.append(one)
    if len(groups) > 1:
        kinds = sorted((group for _, group in groups), key=len, reverse=True)
        yield MIXED, f"Mixed orientation: {_counts(kinds)}; {_odd(kinds)}"


def _kinds(
    instances: Sequence[InstanceView], ask: Callable[[InstanceView], HeaderValue]
) -> list[list[InstanceView]]:
    """Instances by their answer, the most common first."""
    kinds: dict[HeaderValue, list[InstanceView]] = {}
    for one in instances:
        kinds.setdefault(ask(one), []).append(one)
    return sorted(kinds.values(), key=len, reverse=True)


def _counts(kinds: Sequence[Sequence[InstanceView]]) -> str:
    shown = [str(len(kind)) for kind in kinds[:3]]
    more = [f"{sum(len(kind) for kind in kinds[3:])} others"] if len(kinds) > 3 else []
    return " and ".join([*shown, *more]) + " instances"


def _odd(kinds: Sequence[Sequence[InstanceView]]) -> str:
    return "the fewer are " + _listed([f"instance {one.number}" for kind in kinds[1:] for one in kind])


def _rounded(value: HeaderValue, digits: int) -> HeaderValue:
    if not isinstance(value, tuple):
        return value
    return tuple(round(one, digits) if isinstance(one, float) else one for one in value)


# --- geometry ----------------------------------------------------------------


class _Stack:
    """Frames that are parallel slices, with their places along the normal (mm), in order."""

    def __init__(self, along: NDArray[np.float64], names: Sequence[str]) -> None:
        order = np.argsort(along, kind="stable")
        self._along = along[order]
        self._names = [names[index] for index in order]

    @classmethod
    def of(cls, series: Series) -> _Stack | None:
        """The stack of a series; None when its frames lie nowhere, or not parallel."""
        places, names, directions = [], [], []
        for one in series.instances:
            positions, own = _positions(one), _directions(one)
            if not positions or len(own) != len(positions):
                return None
            places += positions
            directions += own
            single = len(positions) == 1
            names += [
                f"instance {one.number}" if single else f"frame {frame + 1} of instance {one.number}"
                for frame in range(len(positions))
            ]
        if len(places) < 2 or np.abs(np.stack(directions) - directions[0]).max() > SAME_DIRECTION:
            return None
        normal = np.cross(directions[0][:3], directions[0][3:])
        return cls(np.stack(places) @ normal, names)

    def measurements(self) -> list[Measurement]:
        gaps = self._gaps()
        found = [Measurement(SLICES, float(gaps.size + 1), NO_UNITS)]
        if gaps.size:
            spacing = round(float(np.median(gaps)), 4)
            found.append(Measurement(SPACING, spacing, MILLIMETRE, derivation=MEDIAN))
        return found

    def faults(self) -> Iterator[Finding]:
        """Several images at one place, holes, and gaps that are neither."""
        gaps = np.diff(self._along)
        same = gaps <= SAME_PLACE_MM
        places = int((~same).sum()) + 1
        if same.any():
            pairs = [self._pair(index) for index in np.flatnonzero(same).tolist()]
            text = f"{len(self._along)} images lie at {places} places"
            if len(self._along) % places == 0 and places > 1 and self._is_even_repetition(same):
                text += f", {len(self._along) // places} at each (phases or echoes in one series?)"
            yield DUPLICATE, f"{text}: {_listed(pairs)}"
        real = gaps[~same]
        if real.size < 2:
            return
        usual = float(np.median(real))
        for index in np.flatnonzero(~same & (np.abs(gaps - usual) > _tolerance_mm(usual))).tolist():
            times = gaps[index] / usual
            if round(times) >= 2 and abs(times - round(times)) < 0.05:
                count = round(times) - 1
                what = "1 slice is" if count == 1 else f"{count} slices are"
                yield MISSING, f"{what} missing between {self._pair(index)}"
            else:
                yield UNEVEN, f"{gaps[index]:.2f} mm instead of {usual:.2f} mm between {self._pair(index)}"

    def _is_even_repetition(self, same: NDArray[np.bool_]) -> bool:
        starts = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        return len(set(np.diff(starts).tolist())) == 1

    def _gaps(self) -> NDArray[np.float64]:
        gaps = np.diff(self._along)
        real: NDArray[np.float64] = gaps[gaps > SAME_PLACE_MM]
        return real

    def _pair(self, index: int) -> str:
        return f"{self._names[index]} and {self._names[index + 1]}"


def _tolerance_mm(usual: float) -> float:
    """Room for coordinates that were rounded to a tenth of a millimetre."""
    return max(SAME_GAP * usual, min(0.11, 0.2 * usual))


def _positions(one: InstanceView) -> list[NDArray[np.float64]]:
    return _vectors(one, "FramePositions", "ImagePositionPatient", 3)


def _directions(one: InstanceView) -> list[NDArray[np.float64]]:
    return _vectors(one, "FrameOrientations", "ImageOrientationPatient", 6)


def _vectors(one: InstanceView, of_frames: str, of_image: str, count: int) -> list[NDArray[np.float64]]:
    """One vector a frame; empty when any of them is missing."""
    values = one.header.get(of_frames)
    if not isinstance(values, tuple):
        values = (one.header.get(of_image),)
        if int(_number(one.header.get("NumberOfFrames"), 1)) > 1:
            return []
    found = []
    for value in values:
        if not isinstance(value, tuple) or len(value) != count or any(part is None for part in value):
            return []
        found.append(np.array([_number(part, np.nan) for part in value]))
    return found


def _number(value: HeaderValue, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


# --- pixels ------------------------------------------------------------------


def _pixels(series: Series) -> Iterator[Finding]:
    """Faults of the stored values, one finding for all instances that share it."""
    unreadable: list[str] = []
    constant: list[str] = []
    clipped: list[tuple[float, str]] = []
    alike: dict[tuple[Any, ...], list[tuple[str, NDArray[Any]]]] = {}
    twins: list[str] = []
    for one in series.instances:
        name = f"instance {one.number}"
        if one.pixels is None:
            if one.pixels_error:
                unreadable.append(f"{name} ({one.pixels_error})")
            continue
        low, high = one.pixels.min(), one.pixels.max()
        if low == high:
            constant.append(name)
            continue
        share = _clipped(one, high)
        if share > MOST_CLIPPED:
            clipped.append((share, name))
        key = (
            one.pixels.shape,
            one.pixels.dtype.str,
            int(low),
            int(high),
            float(one.pixels.sum(dtype=np.float64)),
        )
        others = alike.setdefault(key, [])
        twin = next((n for n, pixels in others if np.array_equal(pixels, one.pixels)), None)
        if twin is None:
            others.append((name, one.pixels))
        else:
            twins.append(f"{name} shows the same pixels as {twin}")
    if unreadable:
        yield UNREADABLE, f"Pixels of {len(unreadable)} instances cannot be decoded: {_listed(unreadable)}"
    if constant:
        yield CONSTANT, f"{len(constant)} images have one value everywhere: {_listed(constant)}"
    if clipped:
        worst = max(clipped)
        names = _listed([name for _, name in clipped])
        yield (
            CLIPPED,
            f"{len(clipped)} images are clipped at the upper end of their range, "
            f"up to {100 * worst[0]:.1f} % of {worst[1]}: {names}",
        )
    if twins:
        yield DUPLICATE, f"{len(twins)} images are duplicates: {_listed(twins)}"


def _clipped(one: InstanceView, high: Any) -> float:
    """Share of the pixels at the end of the range of values that the bits can hold; 0 for colour.

    A range may also end below that of Bits Stored (a 12-bit detector in 16 bits), so any maximum
    of all ones counts, from 10 bits on.
    """
    pixels = one.pixels
    if pixels is None or _number(one.header.get("SamplesPerPixel"), 1) != 1 or pixels.dtype.kind not in "iu":
        return 0.0
    if one.header.get("Modality") == "SEG":
        # Masks are all ends of the range.
        return 0.0
    bits = int(_number(one.header.get("BitsStored"), 8 * pixels.dtype.itemsize))
    if bits < 8:
        return 0.0
    top = bits - 1 if one.header.get("PixelRepresentation") == 1 else bits
    ends = {(1 << n) - 1 for n in (*range(10, top), top)}
    if int(high) not in ends or _is_padding(one, int(high)):
        return 0.0
    return float(np.count_nonzero(pixels == high) / pixels.size)


def _is_padding(one: InstanceView, value: int) -> bool:
    return one.header.get("PixelPaddingValue") == value


def _listed(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
