"""Is a series whole and usable? Geometry, pixels and attributes, for any modality.

Every fault is one evaluation in words; one coded evaluation says pass or fail. What a series
cannot have (positions of a chest radiograph) is not asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.base import NEEDS_SERIES, ModelCard, Parameter
from models.series_faults import MISMATCH, MIXED, NO_UNITS, Finding, listed
from models.series_pixels import pixel_faults
from models.series_stack import SAME_DIRECTION, Stack, directions
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

# (111222, DCM, "Succeeded") and (111224, DCM, "Failed") say how a program ended, not what it found,
# so pass and fail are the project's own codes.
PASS = Code("QC-PASS", "99ANODE", "Series quality: pass")
FAIL = Code("QC-FAIL", "99ANODE", "Series quality: fail")
VERDICT = Code("130550", "DCM", "Imaging Series Quality")

INSTANCES = Code("QC-INSTANCES", "99ANODE", "Number of instances")

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
    needs = NEEDS_SERIES
    parameters: tuple[Parameter, ...] = ()

    def predict(self, inputs: Inputs) -> Findings:
        """Look at ``inputs.series``; raises ValueError when it is empty."""
        series = inputs.series
        if not series.instances:
            raise ValueError("the series has no instances")
        stack = Stack.of(series)
        found: list[Finding] = [
            *_mismatches(series),
            *_mixed(series),
            *(stack.faults() if stack is not None else ()),
            *pixel_faults(series),
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
        for direction in directions(one)[:1]:
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
    return "the fewer are " + listed([f"instance {one.number}" for kind in kinds[1:] for one in kind])


def _rounded(value: HeaderValue, digits: int) -> HeaderValue:
    if not isinstance(value, tuple):
        return value
    return tuple(round(one, digits) if isinstance(one, float) else one for one in value)
