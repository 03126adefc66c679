"""Refuses a result object that breaks the rules which receivers rely on, before it is stored or sent.

The rules are those of IHE AI Results (what every result carries), of the modules of each class (PS3.3) and
of TID 1500 (PS3.16). Each rule yields what is wrong.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import (
    Comprehensive3DSRStorage,
    DeformableSpatialRegistrationStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
)

from node.ingest.made_here import PROCESSING_EQUIPMENT_CODE
from node.results.checks.check_image import image_problems, map_problems
from node.results.checks.check_presentation import presentation_problems
from node.results.checks.check_registration import deformation_problems, registration_problems
from node.results.checks.check_report import report_problems
from node.results.checks.check_segmentation import LABEL_MAP_SEGMENTATION_STORAGE, segmentation_problems
from node.results.checks.check_structures import structure_set_problems
from node.results.given import AllGiven
from node.results.header_values import text
from node.results.provenance import NOT_FOR_DIAGNOSIS

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
    "InstanceNumber", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ContentDate",
    "ContentTime", "SeriesDescription",
)  # fmt: skip
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip

_IDENTITY = ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID")

Rule = Callable[[Dataset], Iterator[str]]


def check(part10: bytes, given: AllGiven | None = None) -> list[str]:
    """Return what is wrong with a result object, empty when nothing is.

    Parameters
    ----------
    part10
        A whole PS3.10 file, of the SOP classes that ``build`` makes.
    given
        The inputs of the run, to compare identity and references with.
    """
    # Identity that the source spells against the rules is kept, and pydicom warns of it at each look.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(part10, given)


def _check(part10: bytes, given: AllGiven | None) -> list[str]:
    try:
        data_set = dcmread(io.BytesIO(part10))
    except (InvalidDicomError, EOFError, ValueError, KeyError) as error:
        return [f"it cannot be read: {error}"]
    found: list[str] = []
    for rule in (_file_meta, _required, _uids, _equipment, _description, _character_set):
        found += rule(data_set)
    items = list(every_item(data_set))
    found += _codes(data_set, items)
    if given is not None:
        found += [*_identity(data_set, given), *_references(items, given)]
    special = _rules_of(data_set)
    if special is None:
        return [*found, "its SOP class is none that results have"]
    return [*found, *special(data_set)]


def _rules_of(data_set: Dataset) -> Rule | None:
    # A derived image may be of any class that a source has, also of that of a picture.
    if "DerivationCodeSequence" in data_set or (
        "PixelData" in data_set and "SourceImageEvidenceSequence" in data_set
    ):
        return image_problems
    by_class: dict[str, Rule] = {
        Comprehensive3DSRStorage: report_problems,
        SegmentationStorage: segmentation_problems,
        LABEL_MAP_SEGMENTATION_STORAGE: segmentation_problems,
        SecondaryCaptureImageStorage: _secondary_capture,
        MultiFrameTrueColorSecondaryCaptureImageStorage: _multi_frame_capture,
        ParametricMapStorage: map_problems,
        SpatialRegistrationStorage: registration_problems,
        DeformableSpatialRegistrationStorage: deformation_problems,
        GrayscaleSoftcopyPresentationStateStorage: presentation_problems,
        RTStructureSetStorage: structure_set_problems,
    }
    return by_class.get(str(data_set.get("SOPClassUID", "")))


# --- every result ------------------------------------------------------------


def _file_meta(data_set: Dataset) -> Iterator[str]:
    meta = data_set.file_meta
    if meta.get("FileMetaInformationVersion") != b"\x00\x01":
        yield "File Meta Information Version is not 00 01"
    if meta.get("MediaStorageSOPInstanceUID") != data_set.get("SOPInstanceUID"):
        yield "Media Storage SOP Instance UID is not the SOP Instance UID"
    if meta.get("MediaStorageSOPClassUID") != data_set.get("SOPClassUID"):
        yield "Media Storage SOP Class UID is not the SOP Class UID"


def _required(data_set: Dataset) -> Iterator[str]:
    for keyword in _TYPE_1:
        if data_set.get(keyword) in (None, ""):
            yield f"{keyword} is absent or empty"
    for keyword in _TYPE_2:
        if keyword not in data_set:
            yield f"{keyword} is absent"


def _uids(data_set: Dataset) -> Iterator[str]:
    """UIDs made here; those of the source are as they came."""
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        value = str(data_set.get(keyword, ""))
        if len(value) > 64 or not _UID.fullmatch(value):
            yield f"{keyword} is no valid UID"


def _equipment(data_set: Dataset) -> Iterator[str]:
    """A1: Contributing Equipment with the purpose Processing Equipment, and A2: the same names inside."""
    algorithms = [
        item
        for item in data_set.get("ContributingEquipmentSequence", [])
        if any(
            (code.get("CodeValue"), code.get("CodingSchemeDesignator")) == (PROCESSING_EQUIPMENT_CODE, "DCM")
            for code in item.get("PurposeOfReferenceCodeSequence", [])
        )
    ]
    if not algorithms:
        yield "no Contributing Equipment has the purpose (109102, DCM, Processing Equipment)"
    for item in algorithms:
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not item.get(keyword):
                yield f"Contributing Equipment lacks {keyword}"
    if not any("input-sha256=" in str(item.get("ContributionDescription", "")) for item in algorithms):
        yield "Contributing Equipment does not say of which input, weights and parameters"
    names = {str(item.get("ManufacturerModelName", "")) for item in algorithms}
    if str(data_set.get("ManufacturerModelName", "")) not in names:
        yield "Manufacturer's Model Name is not that of the Contributing Equipment"


def _description(data_set: Dataset) -> Iterator[str]:
    description = str(data_set.get("SeriesDescription", ""))
    if NOT_FOR_DIAGNOSIS not in description:
        yield f"Series Description does not say {NOT_FOR_DIAGNOSIS}"
    model = str(data_set.get("ManufacturerModelName", ""))
    if model and not description.startswith(model[:20]):
        yield "Series Description does not name the model"


def _codes(data_set: Dataset, items: Iterable[Dataset]) -> Iterator[str]:
    """T10: codes are complete, and a private scheme is identified."""
    identified = {
        str(item.get("CodingSchemeDesignator", ""))
        for item in data_set.get("CodingSchemeIdentificationSequence", [])
    }
    seen = set()
    for item in items:
        if "CodeMeaning" not in item:
            continue
        value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
        scheme, meaning = str(item.get("CodingSchemeDesignator", "")), str(item.CodeMeaning or "")
        if not value or not scheme or not meaning:
            seen.add(f"the code ({value}, {scheme}, {meaning}) is not complete")
        if len(meaning) > 64 or len(str(item.get("CodeValue", ""))) > 16 or len(scheme) > 16:
            seen.add(f"the code ({value}, {scheme}, {meaning}) is too long")
        if scheme.startswith("99") and scheme not in identified:
            seen.add(f"the private coding scheme {scheme} is not identified")
    yield from sorted(seen)


def _character_set(data_set: Dataset) -> Iterator[str]:
    """A5: what could not be encoded would have become question marks or replacement characters."""
    if not data_set.get("SpecificCharacterSet"):
        yield "Specific Character Set is absent"


def _identity(data_set: Dataset, given: AllGiven) -> Iterator[str]:
    """A5: who and which study it is, as a reader decodes it."""
    of_source = given.first.header.patient_and_study
    for keyword in _IDENTITY:
        if text(data_set, keyword) != text(of_source, keyword):
            yield f"{keyword} is not that of the source"


def _references(items: Iterable[Dataset], given: AllGiven) -> Iterator[str]:
    """Images of the source are referred to by the class that they are of."""
    classes: dict[str, set[str]] = {}
    for one in given:
        for instance in one.header.instances:
            classes.setdefault(instance.sop_instance_uid, set()).add(instance.sop_class_uid)
    for one in given:
        # There are sources whose image and study have one UID, and a study is referred to by a class, too.
        classes.pop(one.header.study_instance_uid, None)
    seen = set()
    for item in items:
        if "ReferencedSOPInstanceUID" not in item:
            continue
        uid = str(item.ReferencedSOPInstanceUID)
        if uid in classes and str(item.get("ReferencedSOPClassUID", "")) not in classes[uid]:
            seen.add(f"the source image {uid} is referred to by another SOP class")
    yield from sorted(seen)


# --- Secondary Capture -------------------------------------------------------


def _secondary_capture(data_set: Dataset) -> Iterator[str]:
    image_type = list(data_set.get("ImageType", []))
    if image_type[:2] != ["DERIVED", "SECONDARY"]:
        yield "Image Type is not DERIVED, SECONDARY"
    if data_set.get("BurnedInAnnotation") != "YES":
        yield "Burned In Annotation is not YES"
    if not data_set.get("ConversionType"):
        yield "Conversion Type is absent"
    if "PatientOrientation" not in data_set:
        yield "Patient Orientation is absent"
    expected = data_set.get("Rows", 0) * data_set.get("Columns", 0) * data_set.get("SamplesPerPixel", 0)
    expected *= int(data_set.get("NumberOfFrames", 1) or 0)
    if not expected or len(data_set.get("PixelData", b"")) != expected + expected % 2:
        yield "Pixel Data has not the length that Rows and Columns say"


def _multi_frame_capture(data_set: Dataset) -> Iterator[str]:
    yield from _secondary_capture(data_set)
    frames = int(data_set.get("NumberOfFrames", 0) or 0)
    pages = data_set.get("PageNumberVector")
    if not data_set.get("FrameIncrementPointer") or not pages:
        yield "the frames are in no order: Frame Increment Pointer or Page Number Vector is absent"
    elif (len(pages) if isinstance(pages, MultiValue) else 1) != frames:
        yield "Page Number Vector has not a value for each frame"


def every_item(data_set: Dataset) -> Iterator[Dataset]:
    """Return every item of every sequence, at all depths."""
    for tag in data_set.keys():  # noqa: SIM118  (a data set iterates over its elements, which decodes them)
        element = data_set.get_item(tag)
        if element.VR not in ("SQ", None):
            continue
        element = data_set[tag]
        if element.VR == "SQ":
            items: Iterable[Any] = element.value or []
            for item in items:
                yield item
                yield from every_item(item)
