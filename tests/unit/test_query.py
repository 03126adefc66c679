"""Identifiers: what is accepted, what is answered, in which script; and what a retrieval names."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.errors import IdentifierInvalid, MalformedDataSet
from node.query import query
from node.query.answers import Answers
from node.wire import data_sets
from tests.support.indexed import Indexed, identifier, indexed
from tests.support.made import ct_image, instance


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Indexed]:
    with indexed(tmp_path) as opened:
        yield opened


@pytest.fixture
def filled(index: Indexed) -> Indexed:
    """Two studies of one patient: CT (2 images) with an SR, and another SR; and a second patient."""
    study = {"study_instance_uid": "1.1", "PatientID": "P1"}
    for number in (1, 2):
        uids = {"series_instance_uid": "1.1.1", "sop_instance_uid": f"1.1.1.{number}"}
        index.add(ct_image(**study, **uids, InstanceNumber=number, KVP="120"))
    index.add(
        instance(**study, series_instance_uid="1.1.2", sop_instance_uid="1.1.2.1", Modality="SR"),
        instance(
            study_instance_uid="1.2",
            series_instance_uid="1.2.1",
            sop_instance_uid="1.2.1.1",
            PatientID="P1",
            Modality="SR",
        ),
        instance(
            study_instance_uid="2.1",
            series_instance_uid="2.1.1",
            sop_instance_uid="2.1.1.1",
            PatientID="P2",
            Modality="MR",
        ),
    )
    return index


# --- what is accepted -------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked", "comment"),
    [
        ("study", Dataset(), "Level"),
        ("study", identifier("PATIENT"), "Level"),
        ("patient", identifier("FRAME"), "Level"),
        ("patient-study-only", identifier("SERIES", StudyInstanceUID="1.1"), "Level"),
        ("study", identifier("SERIES"), "StudyInstanceUID"),
        ("study", identifier("SERIES", StudyInstanceUID=""), "StudyInstanceUID"),
        ("study", identifier("SERIES", StudyInstanceUID="*"), "StudyInstanceUID"),
        ("study", identifier("SERIES", StudyInstanceUID="1.1\\1.2"), "StudyInstanceUID"),
        ("study", identifier("IMAGE", StudyInstanceUID="1.1"), "SeriesInstanceUID"),
        ("patient", identifier("IMAGE", SeriesInstanceUID="1.1"), "StudyInstanceUID"),
    ],
)
def test_an_identifier_that_does_not_fit_the_model_is_refused_by_name(
    model: query.Model, asked: Dataset, comment: str
) -> None:
    with pytest.raises(IdentifierInvalid, match=comment):
        query.parse_identifier(asked, model)


def test_a_patient_without_an_id_can_be_asked_about(index: Indexed) -> None:
    index.add(instance(study_instance_uid="1.1", PatientID=""))
    for asked in (identifier("STUDY"), identifier("SERIES", StudyInstanceUID="1.1", PatientID="")):
        assert len(index.find(asked, "patient")) == 1


def test_below_the_patient_a_study_answers_what_its_own_instances_say(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.1", PatientName="Phantom^Test", PatientSex="M"),
        instance(study_instance_uid="1.2", PatientName="Berta^B", PatientSex="", PatientBirthDate="19990101"),
    )
    upper = {
        "PATIENT": {},
        "STUDY": {"StudyInstanceUID": "1.2"},
        "SERIES": {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""},
    }
    wanted = {"PatientName": "", "PatientSex": "", "PatientID": "PHANTOM-1"}
    found = {}
    for level, keys in upper.items():
        (answer,) = index.find(identifier(level, **wanted, **keys), "patient")
        found[level] = (str(answer.PatientName), answer.PatientSex or "", answer.PatientID)
    # The patient was named first by the other study.
    assert found == {
        "PATIENT": ("Phantom^Test", "M", "PHANTOM-1"),
        "STUDY": ("Berta^B", "", "PHANTOM-1"),
        "SERIES": ("Berta^B", "", "PHANTOM-1"),
    }

    def studies(**keys: str) -> list[str]:
        asked = identifier("STUDY", **{"StudyInstanceUID": "", **keys})
        return [str(answer.StudyInstanceUID) for answer in index.find(asked)]

    assert studies(PatientName="berta*") == studies(PatientBirthDate="19990101") == ["1.2"]
    assert studies(PatientName="Phantom*") == studies(PatientSex="M") == ["1.1"]


def test_what_tells_how_to_read_is_no_key(filled: Indexed) -> None:
    asked = identifier("STUDY", QueryRetrieveView="CLASSIC", TimezoneOffsetFromUTC="+0100", StudyID="")
    parsed = query.parse_identifier(asked, "study")
    assert [key.keyword for key in parsed.keys] == ["StudyID"]
    assert not parsed.has_unsupported_keys
    assert len(filled.find(asked)) == 3


# --- what is answered -------------------------------------------------------------


def test_all_keys_are_answered_with_level_title_and_availability(filled: Indexed) -> None:
    (answer,) = filled.find(
        identifier("STUDY", StudyInstanceUID="1.1", PatientID="", StudyDate="", StudyID="")
    )
    assert {element.keyword: str(element.value) for element in answer} == {
        "StudyDate": "20240229",
        "QueryRetrieveLevel": "STUDY",
        "RetrieveAETitle": "ANODE",
        "InstanceAvailability": "ONLINE",
        "PatientID": "P1",
        "StudyInstanceUID": "1.1",
        "StudyID": "1",
    }


def test_computed_keys_count_what_is_held(filled: Indexed) -> None:
    (study,) = filled.find(
        identifier(
            "STUDY",
            StudyInstanceUID="1.1",
            NumberOfStudyRelatedSeries="",
            NumberOfStudyRelatedInstances="",
            ModalitiesInStudy="",
            SOPClassesInStudy="",
        )
    )
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 3)
    assert list(study.ModalitiesInStudy) == ["CT", "SR"]
    assert len(study.SOPClassesInStudy) == 2
    (patient,) = filled.find(
        identifier(
            "PATIENT",
            PatientID="P1",
            NumberOfPatientRelatedStudies="",
            NumberOfPatientRelatedSeries="",
            NumberOfPatientRelatedInstances="",
        ),
        "patient",
    )
    assert patient.NumberOfPatientRelatedStudies == 2
    assert patient.NumberOfPatientRelatedSeries == 3
    assert patient.NumberOfPatientRelatedInstances == 4
    series = filled.find(
        identifier("SERIES", StudyInstanceUID="1.1", SeriesInstanceUID="", NumberOfSeriesRelatedInstances="")
    )
    assert {str(one.SeriesInstanceUID): one.NumberOfSeriesRelatedInstances for one in series} == {
        "1.1.1": 2,
        "1.1.2": 1,
    }


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        ({"ModalitiesInStudy": "CT"}, {"1.1"}),
        ({"ModalitiesInStudy": "CT\\MR"}, {"1.1", "2.1"}),
        ({"ModalitiesInStudy": "S*"}, {"1.1", "1.2"}),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}, {"1.1"}),
        ({"NumberOfStudyRelatedInstances": "3"}, {"1.1"}),
        ({"RetrieveAETitle": "ANODE"}, {"1.1", "1.2", "2.1"}),
        ({"RetrieveAETitle": "OTHER"}, set()),
        ({"InstanceAvailability": "ONLINE\\NEARLINE"}, {"1.1", "1.2", "2.1"}),
        ({"InstanceAvailability": "OFFLINE"}, set()),
    ],
)
def test_computed_keys_are_matched_too(filled: Indexed, keys: dict[str, str], studies: set[str]) -> None:
    answers = filled.find(identifier("STUDY", StudyInstanceUID="", **keys))
    assert {str(answer.StudyInstanceUID) for answer in answers} == studies


def test_keys_of_the_levels_above_are_matched_and_answered(filled: Indexed) -> None:
    asked = identifier("SERIES", StudyInstanceUID="1.1", PatientID="P1", StudyDate="", Modality="CT")
    (answer,) = filled.find(asked)
    assert (answer.PatientID, answer.StudyDate, answer.Modality) == ("P1", "20240229", "CT")
    asked = identifier("SERIES", StudyInstanceUID="1.1", PatientID="P2")
    assert filled.find(asked) == []


def test_every_plain_attribute_of_an_instance_can_be_asked_for(filled: Indexed) -> None:
    asked = identifier(
        "IMAGE",
        StudyInstanceUID="1.1",
        SeriesInstanceUID="1.1.1",
        SOPInstanceUID="",
        InstanceNumber="2",
        KVP="120",
        PixelSpacing="",
        Rows=b"\x10\x00",
        ImageType="AXIAL",
    )
    (answer,) = filled.find(asked)
    assert answer.SOPInstanceUID == "1.1.1.2"
    assert answer.Rows == 16
    assert list(answer.PixelSpacing) == [0.7, 0.7]
    assert list(answer.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    asked = identifier("IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", KVP="80")
    assert filled.find(asked) == []


def test_keys_that_are_not_supported_are_announced_and_not_answered(filled: Indexed) -> None:
    asked = identifier("STUDY", StudyInstanceUID="1.1", Modality="MR")
    asked.RequestAttributesSequence = []
    asked.private_block(0x0011, "SOMEONE", create=True).add_new(0x01, "LO", "x")
    parsed = query.parse_identifier(asked, "study")
    assert parsed.has_unsupported_keys
    assert parsed.unsupported == {0x00080060, 0x00400275, 0x00111001}
    (answer,) = filled.find(asked)
    # PS3.4 section C.2.2.1.3: what is not supported for existence "shall not be returned"
    assert not {0x00080060, 0x00400275, 0x00111001} & set(answer.keys())
    data_sets.encode(answer, ImplicitVRLittleEndian)


def test_group_lengths_are_no_keys(filled: Indexed) -> None:
    asked = identifier("STUDY", StudyID="")
    asked.add_new(0x00080000, "UL", 42)
    assert not query.parse_identifier(asked, "study").has_unsupported_keys


@pytest.mark.parametrize(
    "transfer_syntax_uid", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_an_answer_reads_the_same_in_every_transfer_syntax(filled: Indexed, transfer_syntax_uid: str) -> None:
    asked = identifier(
        "IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", SOPInstanceUID="1.1.1.1", Rows="", KVP=""
    )
    (answer,) = filled.find(asked)
    decoded = data_sets.decode(
        data_sets.encode(answer, transfer_syntax_uid), transfer_syntax_uid, limit_bytes=10**6
    )
    assert (decoded.Rows, decoded.KVP, decoded.SOPInstanceUID) == (16, 120, "1.1.1.1")


@pytest.mark.parametrize("transfer_syntax_uid", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_answer_encoded_at_once_is_the_same_byte_for_byte(
    index: Indexed, transfer_syntax_uid: str
) -> None:
    for number, (charset, name) in enumerate(SCRIPTS.items()):
        index.add(
            ct_image(
                SpecificCharacterSet=charset.split("\\"),
                PatientName=name,
                PatientID=f"P{number}",
                study_instance_uid="1.1",
                series_instance_uid="1.1.1",
                FrameIncrementPointer=[0x00181063, 0x00181065],
                TableOfYBreakPoints=[1, 70000],
                RecommendedDisplayFrameRateInFloat=12.5,
                InstanceNumber=number,
            )
        )
    asked = identifier(
        "IMAGE",
        charset="\\ISO 2022 IR 87",
        StudyInstanceUID="1.1",
        SeriesInstanceUID="1.1.1",
        PatientName="",
        Rows="",
        FrameIncrementPointer="",
        TableOfYBreakPoints="",
        RecommendedDisplayFrameRateInFloat="",
        PixelSpacing="",
        LargestImagePixelValue="",
        LongCodeValue="",
        ReferencedImageSequence="",
        PixelData=b"",
    )
    parsed = query.parse_identifier(asked, "study")
    answers = Answers(index.database, parsed, ae_title="ANODE")
    usual = [data_sets.encode(answer, transfer_syntax_uid) for answer in answers.data_sets()]
    at_once = answers.encoded(is_implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian)
    assert list(at_once) == usual
    assert len(usual) == len(SCRIPTS)


# --- in which script --------------------------------------------------------------

SCRIPTS = {
    "ISO_IR 100": "Buc^Jérôme",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
    "ISO_IR 144": "Люкceмбypг",
}


def read_back(answer: Dataset) -> Dataset:
    """The answer, as a peer's pydicom decodes it from the wire."""
    file = io.BytesIO()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    encoded = data_sets.encode(answer, ExplicitVRLittleEndian)
    file.write(encoded)
    file.seek(0)
    return dcmread(file, force=True)


@pytest.mark.parametrize("asked_in", ["", *SCRIPTS])
@pytest.mark.parametrize("held_in", SCRIPTS)
def test_names_are_found_and_answered_in_a_set_that_holds_them(
    index: Indexed, held_in: str, asked_in: str
) -> None:
    name = SCRIPTS[held_in]
    index.add(instance(SpecificCharacterSet=held_in.split("\\"), PatientName=name, PatientID="P"))
    (answer,) = index.find(identifier("STUDY", charset=asked_in, PatientName="", PatientID="P"))
    decoded = read_back(answer)
    assert str(decoded.PatientName) == name
    declared = decoded.get("SpecificCharacterSet")
    written = declared if isinstance(declared, str) else "\\".join(declared)
    assert written in (asked_in, "ISO_IR 192")
    if asked_in == held_in:
        assert written == asked_in


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_key_is_read_in_its_own_character_set(index: Indexed, script: str) -> None:
    name = SCRIPTS[script]
    index.add(
        instance(SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID="P"),
        instance(SpecificCharacterSet="ISO_IR 192", PatientName="Other^One", PatientID="Q"),
    )
    asked = Dataset()
    asked.SpecificCharacterSet = script.split("\\")
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientID = ""
    asked.PatientName = name
    on_the_wire = data_sets.decode(
        data_sets.encode(asked, ImplicitVRLittleEndian), ImplicitVRLittleEndian, limit_bytes=10**6
    )
    for identifier_as_sent in (asked, on_the_wire):
        assert [answer.PatientID for answer in index.find(identifier_as_sent)] == ["P"]


def test_plain_ascii_declares_nothing(index: Indexed) -> None:
    index.add(instance())
    (answer,) = index.find(identifier("STUDY", PatientName=""))
    assert "SpecificCharacterSet" not in answer


# --- retrieval --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "model", "wanted"),
    [
        (identifier("PATIENT", PatientID="P1"), "patient", 4),
        (identifier("PATIENT", PatientID="P*"), "patient", 0),
        (identifier("STUDY", StudyInstanceUID="1.1"), "study", 3),
        (identifier("STUDY", StudyInstanceUID="1.1\\2.1\\9.9"), "study", 4),
        (identifier("STUDY", PatientID="P1", StudyInstanceUID="1.1"), "patient", 3),
        (identifier("STUDY", PatientID="P2", StudyInstanceUID="1.1"), "patient", 0),
        (identifier("SERIES", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1"), "study", 2),
        (identifier("SERIES", SeriesInstanceUID="1.1.1\\1.1.2"), "study", 3),
        (identifier("IMAGE", SOPInstanceUID="1.1.1.1\\1.1.1.2", SeriesInstanceUID="1.1.1"), "study", 2),
    ],
)
def test_a_retrieval_names_its_instances(
    filled: Indexed, asked: Dataset, model: query.Model, wanted: int
) -> None:
    with filled.database.read() as connection:
        found = query.instances_to_retrieve(connection, asked, model)
    assert len(found) == wanted
    assert all(stored.location.kind == "log" for stored in found)


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        (identifier("PATIENT", PatientID="P1"), "study"),
        (identifier("PATIENT"), "patient"),
        (identifier("STUDY"), "study"),
        (identifier("STUDY", PatientID="P1"), "patient"),
        (identifier("IMAGE", SOPInstanceUID=""), "study"),
        (Dataset(), "study"),
    ],
)
def test_a_retrieval_without_its_unique_key_is_refused(asked: Dataset, model: query.Model) -> None:
    with pytest.raises(IdentifierInvalid):
        query.retrieve_keys(asked, model)


def test_hostile_text_stays_text(filled: Indexed) -> None:
    for text in ("'; DROP TABLE study; --", '" OR 1=1', "[a-z]", "%", "\x00"):
        filled.find(identifier("STUDY", StudyDescription=text + "x", PatientName=text + "*"))
    assert filled.rows("SELECT COUNT(*) FROM study") == [(3,)]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"PatientName": "A" + "^*" * 1500}),
        ("STUDY", {"PatientName": "\\".join(f"A{number}^*^*" for number in range(200))}),
        ("IMAGE", {"AccessionNumber": "\\".join(f"{number}*" for number in range(200))}),
        ("IMAGE", {"OperatorsName": "A" + "^*" * 5000}),
    ],
)
def test_many_comparisons_are_made_without_a_complaint_of_sqlite(
    filled: Indexed, level: str, keys: dict[str, str]
) -> None:
    unique = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"} if level == "IMAGE" else {}
    assert filled.find(identifier(level, **unique, **keys)) == []


def test_as_many_keys_as_may_be_are_no_complaint_of_sqlite_either(filled: Indexed) -> None:
    asked = identifier("IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    for tag in (tag for tag, (vr, *_) in DicomDictionary.items() if vr in ("SH", "LO") and tag >> 16 > 8):
        if len(asked) < 900:
            asked.add_new(tag, DicomDictionary[tag][0], "1")
    assert len(asked) > 300
    assert filled.find(asked) == []


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientID": "w" * 9000, "StudyID": "x" * 9000, "StudyDescription": "y" * 9000,
         "AccessionNumber": "z" * 9000},
        {"PatientName": "\\".join(f"A{number}^*^*^*^*^*" for number in range(200)),
         "ReferringPhysicianName": "\\".join(f"B{number}^*^*^*^*^*" for number in range(200))},
    ],
)  # fmt: skip
def test_an_identifier_that_asks_for_too_much_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(IdentifierInvalid, match="more than"):
        query.parse_identifier(identifier("STUDY", **keys), "study")


def test_a_character_set_of_another_kind_makes_an_identifier_malformed() -> None:
    """What pydicom cannot take for a number of its length is the fault of the sender."""
    encoded = b"\x08\x00\x05\x00FD\x0a\x00ISO_IR 192\x08\x00\x52\x00CS\x06\x00STUDY "
    with pytest.raises(MalformedDataSet):
        data_sets.decode(encoded, str(ExplicitVRLittleEndian), limit_bytes=1000)


@pytest.mark.parametrize(
    "keys",
    [
        {"StudyInstanceUID": "1.1\\1.2\0.7\\2.1"},
        {"StudyInstanceUID": "", "PatientName": "*\0nobody*"},
        {"StudyInstanceUID": "", "StudyID": "?\0?"},
    ],
)
def test_a_key_with_a_nul_inside_is_refused(keys: dict[str, str]) -> None:
    """SQLite would match what stands before it."""
    with pytest.raises(IdentifierInvalid, match="NUL"):
        query.parse_identifier(identifier("STUDY", **keys), "study")


def test_padding_is_no_nul_inside(filled: Indexed) -> None:
    asked = identifier("STUDY", StudyInstanceUID="1.1\0\\2.1\0")
    assert {str(answer.StudyInstanceUID) for answer in filled.find(asked)} == {"1.1", "2.1"}


def test_an_empty_level_of_no_known_vr_is_missing() -> None:
    encoded = b"\x08\x00\x52\x00ZZ\x00\x00\x20\x00\x0d\x00UI\x00\x00"
    asked = data_sets.decode(encoded, str(ExplicitVRLittleEndian), limit_bytes=1000)
    with pytest.raises(IdentifierInvalid, match="missing"):
        query.parse_identifier(asked, "study")
