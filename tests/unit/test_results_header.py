"""Odd headers of the source never break a result, and its identity is kept to the letter."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.results.build import Source
from node.results.check import check
from node.results.header_values import as_decimal_string
from node.results.source_header import SourceHeader
from tests.support.made_findings import built, made_source, read, two_lungs

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def stored(data_set: Dataset) -> Dataset:
    """The header as it comes from a file: raw values, decoded when asked for."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        data_set.SOPClassUID,
        data_set.SOPInstanceUID,
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta = meta
    out = io.BytesIO()
    dcmwrite(out, data_set, enforce_file_format=True)
    return dcmread(io.BytesIO(out.getvalue()))


def all_of(source: Source) -> list[Dataset]:
    assert source.volume is not None
    objects = built(two_lungs(source.volume), source)
    assert list(objects) == ["sr", "seg", "sc"]
    for one in objects.values():
        assert check(one.part10) == []
    return [read(one) for one in objects.values()]


def with_header(source: Source, **attributes: Any) -> Source:
    data_sets = []
    for data_set in source.data_sets:
        for keyword, value in attributes.items():
            if value is None and keyword in data_set:
                delattr(data_set, keyword)
            elif value is not None:
                setattr(data_set, keyword, value)
        data_sets.append(stored(data_set))
    return Source(data_sets, source.volume, source.input_digest)


@pytest.mark.checklist("A5")
def test_patient_and_study_are_those_of_the_source() -> None:
    attributes = {
        "PatientName": "Müller^Jörg", "PatientID": "P-7", "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19700102", "PatientSex": "M", "PatientAge": "056Y", "StudyID": "S1",
        "StudyDate": "20260101", "StudyTime": "101112.5", "AccessionNumber": "A-1",
        "ReferringPhysicianName": "Doe^Jane", "StudyDescription": "Thorax",
    }  # fmt: skip
    source = with_header(made_source(), SpecificCharacterSet="ISO_IR 100", **attributes)
    for made in all_of(source):
        assert {keyword: str(made.get(keyword)) for keyword in attributes} == attributes
        assert made.SpecificCharacterSet == "ISO_IR 100"
    report = all_of(source)[0]
    assert report.ReferencedRequestSequence[0].AccessionNumber == "A-1"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], JAPANESE),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", JAPANESE),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 100", "Buc^Jérôme"),
    ],
)
@pytest.mark.checklist("A5")
def test_a_name_in_any_character_set_arrives_whole(character_set: Any, name: str) -> None:
    source = with_header(made_source(), SpecificCharacterSet=character_set, PatientName=name)
    for made in all_of(source):
        assert str(made.PatientName) == name


def test_a_label_that_the_character_set_of_the_source_lacks_is_written_in_utf_8() -> None:
    source = made_source(SpecificCharacterSet="ISO_IR 100", PatientName="Buc^Jérôme")
    assert source.volume is not None
    findings = two_lungs(source.volume)
    japanese = type(findings)(segments=findings.segments, summary="左肺")
    report = read(built(japanese, source, kinds=("sr",))["sr"])
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == "Buc^Jérôme"
    assert "左肺" in [item.get("TextValue") for item in report.ContentSequence[-1].ContentSequence]


def test_a_header_with_next_to_nothing_still_gives_valid_objects() -> None:
    absent = dict.fromkeys(
        [
            "PatientName", "PatientID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
            "FrameOfReferenceUID", "SliceThickness", "SeriesNumber",
        ]
    )  # fmt: skip
    for made in all_of(with_header(made_source(), **absent)):
        assert not made.PatientID
        assert not made.StudyTime
    segmentation = all_of(with_header(made_source(), FrameOfReferenceUID=None))[1]
    assert segmentation.FrameOfReferenceUID.startswith("2.25.")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_break_their_representation_are_mended_or_left_empty() -> None:
    source = made_source()
    for data_set in source.data_sets:
        for keyword, vr, value in (
            ("StudyDate", "DA", "2026.01.31"),
            ("StudyTime", "TM", "12:34:56"),
            ("PatientBirthDate", "DA", "unknown"),
            ("PatientSex", "CS", "female"),
            ("PatientAge", "AS", "7"),
            ("PatientWeight", "DS", "heavy"),
            ("StudyDescription", "LO", "d" * 100),
            ("WindowCenter", "DS", "middle"),
            ("BodyPartExamined", "CS", "chest!"),
            ("SeriesNumber", "IS", "4.5x"),
            ("TimezoneOffsetFromUTC", "SH", "UTC"),
            ("SliceThickness", "DS", "0"),
            ("PatientIdentityRemoved", "CS", "YES"),
        ):
            _set_raw(data_set, keyword, vr, value.encode())
    report, _, capture = all_of(source)
    assert (report.StudyDate, report.StudyTime) == ("20260131", "123456")
    assert not report.PatientBirthDate
    assert not report.PatientSex
    assert report.StudyDescription == "d" * 64
    assert "PatientIdentityRemoved" not in report
    assert "BodyPartExamined" not in capture


def _set_raw(data_set: Dataset, keyword: str, vr: str, value: bytes) -> None:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = Tag(tag_for_keyword(keyword) or 0)
    data_set._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, -1 / 3, 1e-12, 123456789.123456789, -1.2345678901234567e-100, 2.0]
)
@pytest.mark.checklist("T8")
def test_a_decimal_string_has_at_most_16_characters(value: float) -> None:
    written = as_decimal_string(value)
    assert len(written) <= 16
    assert float(written) == pytest.approx(value, rel=1e-7)


@pytest.mark.checklist("S3", "T2")
def test_procedure_and_identifiers_of_the_study_are_copied_when_complete() -> None:
    code, broken, issuer = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", "CT Chest"
    broken.CodeValue = "1"
    issuer.LocalNamespaceEntityID = "RIS"
    source = with_header(
        made_source(), ProcedureCodeSequence=[code, broken], IssuerOfAccessionNumberSequence=[issuer]
    )
    report = all_of(source)[0]
    assert [item.CodeValue for item in report.PerformedProcedureCodeSequence] == ["24627-2"]
    assert report.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"


def test_a_lossy_source_makes_lossy_results() -> None:
    source = with_header(
        made_source(),
        LossyImageCompression="01",
        LossyImageCompressionRatio=["12.5"],
        LossyImageCompressionMethod="ISO_10918_1",
    )
    assert SourceHeader.of(source).lossy_image_compression
    _, segmentation, capture = all_of(source)
    assert (segmentation.LossyImageCompression, capture.LossyImageCompression) == ("01", "01")
    assert capture.LossyImageCompressionRatio == 12.5


@pytest.mark.parametrize("stated", [[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [1, 0, 0, 0.1, 1, 0]])
def test_an_orientation_that_is_none_says_nothing(stated: list[float]) -> None:
    of = made_source(2)
    for one in of.data_sets:
        one.ImageOrientationPatient = stated
    assert [one.orientation for one in SourceHeader.of(of).instances] == [(), ()]


def test_an_orientation_that_was_rounded_has_axes_of_length_one() -> None:
    of = made_source(2)
    of.data_sets[0].ImageOrientationPatient = [0.98, 0, 0, 0, 1.02, 0]
    assert SourceHeader.of(of).instances[0].orientation == (1, 0, 0, 0, 1, 0)
