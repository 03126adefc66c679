"""The rules of ``check`` for Structured Reports: the document, its evidence, and TID 1500."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from node.results.checks.check_places import lie_in_a_plane

_MEASUREMENT_GROUP, _IMAGING_MEASUREMENTS, _EVALUATIONS = "125007", "126010", "C0034375"
_TITLES = {"126000", "126001", "126002", "126003"}
_TRACKING_IDENTIFIER, _TRACKING_UID, _FINDING = "112039", "112040", "121071"
_REFERENCED_SEGMENT, _SOURCE_SERIES, _SOURCE_IMAGE = "121191", "121232", "121233"
_OBSERVER_TYPE, _DEVICE, _DEVICE_UID = "121005", "121007", "121012"
_DEVICE_MANUFACTURER, _DEVICE_MODEL = "121014", "121015"
_ALGORITHM_NAME, _ALGORITHM_VERSION = "111001", "111003"
_LANGUAGE, _PROCEDURE, _IMAGE_LIBRARY = "121049", "121058", "111028"


def report_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a Structured Report."""
    yield from _document(data_set)
    if data_set.get("ValueType") != "CONTAINER" or not data_set.get("ContentSequence"):
        yield "the root is no CONTAINER with content"
        return
    yield from _evidence(data_set)
    yield from _root(data_set)
    yield from _observer(data_set)
    for item in content(data_set):
        if concept_of(item) == _MEASUREMENT_GROUP:
            yield from _group(item)
        if item.get("ValueType") == "NUM":
            yield from _number(item)
        if item.get("ValueType") in ("SCOORD", "SCOORD3D"):
            yield from _coordinates(item)


def content(item: Dataset) -> Iterator[Dataset]:
    """Return every content item below ``item``, in document order."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def concept_of(item: Dataset) -> str:
    """Return the code value of a content item's concept name."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _document(data_set: Dataset) -> Iterator[str]:
    """S1, S2, S3, S5, S6: the SR Document modules."""
    if data_set.get("Modality") != "SR":
        yield "Modality is not SR"
    if data_set.get("CompletionFlag") not in ("PARTIAL", "COMPLETE"):
        yield "Completion Flag is neither PARTIAL nor COMPLETE"
    if data_set.get("VerificationFlag") != "UNVERIFIED":
        yield "Verification Flag is not UNVERIFIED"
    for keyword in ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence"):
        if keyword not in data_set:
            yield f"{keyword} is absent"
    template = data_set.get("ContentTemplateSequence") or [Dataset()]
    if (template[0].get("MappingResource"), template[0].get("TemplateIdentifier")) != ("DCMR", "1500"):
        yield "the root template is not TID 1500 of DCMR"
    if concept_of(data_set) not in _TITLES:
        yield "the title is none of CID 7021"
    if data_set.get("ContinuityOfContent") != "SEPARATE":
        yield "Continuity of Content is not SEPARATE"
    for item in data_set.get("ReferencedRequestSequence", []):
        if item.get("AccessionNumber") != data_set.get("AccessionNumber"):
            yield "Referenced Request has another Accession Number"


def _evidence(data_set: Dataset) -> Iterator[str]:
    """S4: what the tree refers to is listed, with its class."""
    listed: dict[str, str] = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in data_set.get(keyword, []):
            for series in study.get("ReferencedSeriesSequence", []):
                for instance in series.get("ReferencedSOPSequence", []):
                    listed[str(instance.ReferencedSOPInstanceUID)] = str(instance.ReferencedSOPClassUID)
    if not listed:
        yield "no evidence is listed"
    missing = other_class = 0
    for item in content(data_set):
        for reference in item.get("ReferencedSOPSequence", []):
            listed_class = listed.get(str(reference.ReferencedSOPInstanceUID))
            missing += listed_class is None
            other_class += listed_class not in (None, str(reference.ReferencedSOPClassUID))
    if missing:
        yield f"{missing} instances that the tree refers to are not in the evidence"
    if other_class:
        yield f"{other_class} instances have another SOP class in the evidence"


def _root(data_set: Dataset) -> Iterator[str]:
    """T1 to T4: language, procedure, image library, and something said."""
    concepts = [concept_of(item) for item in data_set.ContentSequence]
    for code, name in (
        (_LANGUAGE, "language"),
        (_OBSERVER_TYPE, "observer"),
        (_PROCEDURE, "procedure reported"),
    ):
        if code not in concepts:
            yield f"the {name} is not stated"
    if not {_IMAGING_MEASUREMENTS, _EVALUATIONS} & set(concepts):
        yield "there are neither Imaging Measurements nor Qualitative Evaluations"
    for item in data_set.ContentSequence:
        if concept_of(item) in (_IMAGING_MEASUREMENTS, _EVALUATIONS, _IMAGE_LIBRARY) and not item.get(
            "ContentSequence"
        ):
            yield f"the container {concept_of(item)} is empty"


def _observer(data_set: Dataset) -> Iterator[str]:
    """T1 and A2: the observer is a device, and the algorithm is the contributing equipment."""
    said: dict[str, set[str]] = {}
    for item in content(data_set):
        value = item.get("TextValue") or item.get("UID")
        if value is not None:
            said.setdefault(concept_of(item), set()).add(str(value))
        elif concept_of(item) == _OBSERVER_TYPE:
            said[_OBSERVER_TYPE] = {str(item.ConceptCodeSequence[0].CodeValue)}
    if said.get(_OBSERVER_TYPE) != {_DEVICE}:
        yield "the observer is no device"
    equipment = (data_set.get("ContributingEquipmentSequence") or [Dataset()])[0]
    for code, keyword in (
        (_DEVICE_UID, "DeviceUID"),
        (_DEVICE_MANUFACTURER, "Manufacturer"),
        (_DEVICE_MODEL, "ManufacturerModelName"),
        (_ALGORITHM_NAME, "ManufacturerModelName"),
        (_ALGORITHM_VERSION, "SoftwareVersions"),
    ):
        if said.get(code) != {str(equipment.get(keyword, ""))}:
            yield f"content item {code} is not {keyword} of the Contributing Equipment"


def _group(group: Dataset) -> Iterator[str]:
    """T5 and T6: a group can be followed, says what it found, and where its region comes from."""
    concepts = [concept_of(item) for item in group.get("ContentSequence", [])]
    for code, name in (
        (_TRACKING_IDENTIFIER, "Tracking Identifier"),
        (_TRACKING_UID, "Tracking Unique Identifier"),
        (_FINDING, "Finding"),
        (_ALGORITHM_NAME, "algorithm"),
    ):
        if code not in concepts:
            yield f"a measurement group has no {name}"
    if _REFERENCED_SEGMENT in concepts and not {_SOURCE_SERIES, _SOURCE_IMAGE} & set(concepts):
        yield "a referenced segment has neither source series nor source images"
    for item in group.get("ContentSequence", []):
        if concept_of(item) == _REFERENCED_SEGMENT and not item.ReferencedSOPSequence[0].get(
            "ReferencedSegmentNumber"
        ):
            yield "a referenced segment has no number"


def _number(item: Dataset) -> Iterator[str]:
    """T8: a number with its unit, or why there is none."""
    measured = item.get("MeasuredValueSequence")
    if not measured:
        if not item.get("NumericValueQualifierCodeSequence"):
            yield "a number is absent without a qualifier"
        return
    text = str(measured[0].get("NumericValue", ""))
    try:
        is_number = math.isfinite(float(text))
    except ValueError:
        is_number = False
    if not is_number or len(text) > 16:
        yield f"{text!r} is no Numeric Value"
    if not any(
        u.get("CodingSchemeDesignator") == "UCUM" for u in measured[0].get("MeasurementUnitsCodeSequence", [])
    ):
        yield "a number has no UCUM unit"


def _coordinates(item: Dataset) -> Iterator[str]:
    """T7: coordinates say in what they are, and are as many as their shape has (PS3.3 C.18.6, C.18.9)."""
    in_space = item.ValueType == "SCOORD3D"
    if in_space and not item.get("ReferencedFrameOfReferenceUID"):
        yield "a region in space names no frame of reference"
    if not in_space and not any(
        (one.get("ValueType"), one.get("RelationshipType")) == ("IMAGE", "SELECTED FROM")
        for one in item.get("ContentSequence", [])
    ):
        yield "a region on an image does not say on which"
    if "GraphicData" in item and item["GraphicData"].VR != "FL":
        yield "the coordinates of a region are longer than their value representation has room for"
        return
    kind, size = str(item.get("GraphicType", "")), 3 if in_space else 2
    values = list(item.get("GraphicData") or [])
    if len(values) % size or not values or not all(math.isfinite(one) for one in values):
        yield f"the coordinates of a region are no whole number of points of {size} numbers"
        return
    points = len(values) // size
    if (kind == "POINT") != (points == 1):
        yield f"a region is a {kind} of {points} points"
    if kind == "POLYGON" and values[:size] != values[-size:]:
        yield "a polygon is not closed"
    if kind == "POLYGON" and in_space and not lie_in_a_plane(np.array(values, np.float64).reshape(-1, 3)):
        yield "a polygon does not lie in a plane"
