# ruff: noqa: E501
"""The checklist finds each fault that is planted in a result, and none in a good one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from models.types import Findings
from node.errors import ResultInvalid
from node.results import encoding
from node.results.build import ResultObject
from node.results.check import check
from node.results.checks.check_report import concept_of, content
from tests.support.drawn import given
from tests.support.made_findings import built, everything, made_source, read, with_fault

Fault = Callable[[Dataset], Any]


@pytest.fixture(scope="module")
def good() -> dict[str, ResultObject]:
    source = made_source(AccessionNumber="A-1")
    assert source.volume is not None
    return built(everything(source.volume), source)


def empty(keyword: str) -> Fault:
    return lambda data_set: setattr(data_set, keyword, None)


def without(keyword: str) -> Fault:
    return lambda data_set: delattr(data_set, keyword)


def put(keyword: str, value: Any) -> Fault:
    return lambda data_set: setattr(data_set, keyword, value)


def in_first(sequence: str, fault: Fault) -> Fault:
    return lambda data_set: fault(data_set[sequence].value[0])


def in_item(code: str, fault: Fault) -> Fault:
    return lambda data_set: fault(next(i for i in content(data_set) if concept_of(i) == code))


def without_item(parent: str, child: str) -> Fault:
    def fault(data_set: Dataset) -> None:
        items = [i for i in [data_set, *content(data_set)] if concept_of(i) == parent]
        items[0].ContentSequence = [i for i in items[0].ContentSequence if concept_of(i) != child]

    return fault


ROOT, GROUP = "126000", "125007"


def at_one_place(data_set: Dataset) -> None:
    first, *others = data_set.PerFrameFunctionalGroupsSequence
    for frame in others:
        frame.PlanePositionSequence = first.PlanePositionSequence


def a_segment(number: int) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = number
    return segment


FAULTS: list[tuple[str, str, Fault]] = [
    *((kind, "Contributing Equipment", without("ContributingEquipmentSequence")) for kind in ("sr", "seg", "sc")),
    *((kind, "DeviceUID", in_first("ContributingEquipmentSequence", without("DeviceUID"))) for kind in ("sr", "sc")),
    ("sr", "Manufacturer's Model Name", put("ManufacturerModelName", "other")),
    ("sr", "PatientID is absent", without("PatientID")),
    ("seg", "StudyTime is absent", without("StudyTime")),
    ("sc", "SeriesNumber is absent or empty", empty("SeriesNumber")),
    ("sc", "Series Description", put("SeriesDescription", "lungs")),
    ("sr", "does not name the model", put("SeriesDescription", "a report - not for diagnosis")),
    ("sr", "is no valid UID", put("SeriesInstanceUID", "1.02.3")),
    ("sr", "Media Storage SOP Instance", put("SOPInstanceUID", "1.2.3.99")),
    ("sr", "99ANODE is not identified", without("CodingSchemeIdentificationSequence")),
    ("sr", "not complete", in_first("ConceptNameCodeSequence", empty("CodeMeaning"))),
    ("sr", "too long", in_first("ConceptNameCodeSequence", put("CodeMeaning", "m" * 65))),
    ("sr", "Completion Flag", put("CompletionFlag", "MAYBE")),
    ("sr", "Verification Flag", put("VerificationFlag", "VERIFIED")),
    ("sr", "PerformedProcedureCodeSequence", without("PerformedProcedureCodeSequence")),
    ("sr", "TID 1500", without("ContentTemplateSequence")),
    ("sr", "CID 7021", in_first("ConceptNameCodeSequence", put("CodeValue", "1"))),
    ("sr", "SEPARATE", put("ContinuityOfContent", "CONTINUOUS")),
    ("sr", "another Accession Number", put("AccessionNumber", "B")),
    ("sr", "no evidence", without("CurrentRequestedProcedureEvidenceSequence")),
    ("sr", "not in the evidence", in_item("260753009", in_first("ReferencedSOPSequence", put("ReferencedSOPInstanceUID", "1.2")))),
    ("sr", "another SOP class", in_item("260753009", in_first("ReferencedSOPSequence", put("ReferencedSOPClassUID", "1.2")))),
    ("sr", "language", without_item(ROOT, "121049")),
    ("sr", "observer is not stated", without_item(ROOT, "121005")),
    ("sr", "procedure reported", without_item(ROOT, "121058")),
    ("sr", "neither Imaging", lambda d: (without_item(ROOT, "126010")(d), without_item(ROOT, "C0034375")(d))),
    ("sr", "is empty", in_item("C0034375", put("ContentSequence", []))),
    ("sr", "121012", in_item("121012", put("UID", "1.2"))),
    ("sr", "111003", in_item("111003", put("TextValue", "0"))),
    ("sr", "Tracking Identifier", without_item(GROUP, "112039")),
    ("sr", "Tracking Unique Identifier", without_item(GROUP, "112040")),
    ("sr", "no Finding", without_item(GROUP, "121071")),
    ("sr", "neither source series", without_item(GROUP, "121232")),
    ("sr", "has no number", in_item("121191", in_first("ReferencedSOPSequence", without("ReferencedSegmentNumber")))),
    ("sr", "without a qualifier", in_item("118565006", put("MeasuredValueSequence", []))),
    ("sr", "no UCUM unit", in_item("118565006", in_first("MeasuredValueSequence", without("MeasurementUnitsCodeSequence")))),
    ("sr", "the root is no CONTAINER", without("ContentSequence")),
    ("seg", "DeviceSerialNumber", put("DeviceSerialNumber", "0000")),
    ("seg", "Frame of Reference", without("FrameOfReferenceUID")),
    ("seg", "names no source", without("ReferencedSeriesSequence")),
    ("seg", "its source image", in_first("PerFrameFunctionalGroupsSequence", without("DerivationImageSequence"))),
    ("seg", "not in Referenced Series", in_first("ReferencedSeriesSequence", lambda s: s.ReferencedInstanceSequence.pop(1))),
    ("seg", "not 1 to n", in_first("SegmentSequence", put("SegmentNumber", 7))),
    ("seg", "lacks TrackingUID", in_first("SegmentSequence", without("TrackingUID"))),
    ("seg", "AUTOMATIC", in_first("SegmentSequence", put("SegmentAlgorithmType", "MANUAL"))),
    ("seg", "lacks AlgorithmVersion", in_first("SegmentSequence", in_first("SegmentationAlgorithmIdentificationSequence", without("AlgorithmVersion")))),
    ("seg", "same Tracking UID", lambda d: put("TrackingUID", d.SegmentSequence[1].TrackingUID)(d.SegmentSequence[0])),
    ("seg", "Number of Frames", lambda d: d.PerFrameFunctionalGroupsSequence.pop()),
    ("seg", "one bit", put("BitsStored", 8)),
    ("seg", "Pixel Data", put("PixelData", b"\0\0")),
    ("seg", "Lossy", without("LossyImageCompression")),
    ("seg", "PixelMeasuresSequence", in_first("SharedFunctionalGroupsSequence", without("PixelMeasuresSequence"))),
    ("seg", "Plane Position", in_first("PerFrameFunctionalGroupsSequence", without("PlanePositionSequence"))),
    ("seg", "right angles", in_first("SharedFunctionalGroupsSequence", in_first("PlaneOrientationSequence", put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0])))),
    ("seg", "in one place", at_one_place),
    ("seg", "not three numbers", in_first("PerFrameFunctionalGroupsSequence", in_first("PlanePositionSequence", put("ImagePositionPatient", [1, 2])))),
    ("seg", "a segment has no frame", lambda d: d.SegmentSequence.append(a_segment(9))),
    ("sc", "Image Type", put("ImageType", ["ORIGINAL", "PRIMARY"])),
    ("sc", "Burned In", put("BurnedInAnnotation", "NO")),
    ("sc", "Conversion Type", without("ConversionType")),
    ("sc", "Patient Orientation", without("PatientOrientation")),
    ("sc", "Pixel Data", put("Rows", 3)),
    ("sc", "none that results have", put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sr", "seg", "sc"])
def test_a_good_object_has_no_fault(good: dict[str, ResultObject], kind: str) -> None:
    assert check(good[kind].part10) == []


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(("kind", "problem", "fault"), FAULTS, ids=[f"{k}: {p}" for k, p, _ in FAULTS])
@pytest.mark.checklist(
    "A6", "A11", "S1", "S2", "S3", "S4", "S6", "T1", "T2", "T4", "T5", "T6", "T8", "G1", "G4", "G5", "C1"
)
def test_a_planted_fault_is_found(
    good: dict[str, ResultObject], kind: str, problem: str, fault: Fault
) -> None:
    found = check(with_fault(good[kind], fault))
    assert any(problem in one for one in found), found


@pytest.mark.parametrize(
    ("problem", "fault"),
    [
        ("PatientName is not that", put("PatientName", "???^????")),
        ("PatientID is not that", put("PatientID", "other")),
        ("AccessionNumber is not that", empty("AccessionNumber")),
        ("StudyInstanceUID is not that", put("StudyInstanceUID", "1.2.3.77")),
        ("by another SOP class", in_first("SourceImageSequence", put("ReferencedSOPClassUID", "1.2.840.10008.5.1.4.1.1.4"))),
    ],
)  # fmt: skip
@pytest.mark.checklist("A5", "A11")
def test_what_is_not_as_the_source_has_it_is_found(
    good: dict[str, ResultObject], problem: str, fault: Fault
) -> None:
    source = made_source(AccessionNumber="A-1")
    inputs = given(source)
    assert check(good["sc"].part10, inputs) == []
    data_set = read(good["sc"])
    fault(data_set)
    out = io.BytesIO()
    dcmwrite(out, data_set, enforce_file_format=False)
    found = check(out.getvalue(), inputs)
    assert any(problem in one for one in found), found


def test_a_source_whose_image_has_the_uid_of_its_study_has_results() -> None:
    source = made_source(2)
    source.data_sets[0].SOPInstanceUID = source.data_sets[0].StudyInstanceUID
    assert source.volume is not None
    assert "rtstruct" in built(everything(source.volume), source, kinds=("rtstruct",))


@pytest.mark.filterwarnings("ignore:Failed to encode:UserWarning:pydicom")
def test_an_object_that_does_not_say_whose_it_is_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "character_set", lambda *_: "ISO_IR 100")
    with pytest.raises(ResultInvalid, match="PatientName is not that of the source"):
        built(Findings(), made_source(PatientName="Ямада^Тарō", SpecificCharacterSet="ISO_IR 192"))


def test_what_is_no_dicom_file_is_refused() -> None:
    assert check(b"not a file")
