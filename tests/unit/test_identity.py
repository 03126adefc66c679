"""Who is who: patients are told apart and together by Patient ID and issuer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.index import identity
from node.index.entry import Entry
from tests.support.indexed import Indexed, header_of, indexed, stored_of
from tests.support.made import instance


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Indexed]:
    with indexed(tmp_path) as opened:
        yield opened


def patients(index: Indexed, study_instance_uid: str) -> list[str]:
    with index.database.read() as connection:
        return identity.patients_of_study(connection, study_instance_uid)


def patient_ids(index: Indexed) -> list[object]:
    return [row[0] for row in index.rows("SELECT PatientID FROM patient ORDER BY id")]


def test_concurrent_first_images_of_a_patient_make_one_patient(index: Indexed) -> None:
    def send(number: int) -> None:
        header = header_of(instance(PatientID="P1", study_instance_uid=f"1.2.{number % 2}"))
        stored = stored_of(header)
        index.database.write(lambda connection: index.index.add(connection, Entry.of(header), stored))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(64)))
    assert patient_ids(index) == ["P1"]
    assert index.rows("SELECT COUNT(*) FROM study") == [(2,)]
    assert index.rows("SELECT COUNT(*) FROM instance") == [(64,)]


def test_an_empty_patient_id_never_groups_studies(index: Indexed) -> None:
    index.add(
        instance(PatientID="", study_instance_uid="1.1"),
        instance(PatientID="", study_instance_uid="1.2"),
        instance(PatientID=None, study_instance_uid="1.3"),
    )
    assert patient_ids(index) == ["", "", ""]


def test_the_same_id_of_two_issuers_is_two_patients(index: Indexed) -> None:
    index.add(
        instance(PatientID="7", IssuerOfPatientID="NORTH", study_instance_uid="1.1"),
        instance(PatientID="7", IssuerOfPatientID="SOUTH", study_instance_uid="1.2"),
        instance(PatientID="7", IssuerOfPatientID="SOUTH", study_instance_uid="1.3"),
    )
    assert patient_ids(index) == ["7", "7"]


def test_a_study_of_two_patients_stays_with_the_first_and_names_both(index: Indexed) -> None:
    index.add(
        instance(PatientID="FIRST", study_instance_uid="1.1"),
        instance(PatientID="SECOND", study_instance_uid="1.1"),
        instance(PatientID="SECOND", study_instance_uid="1.1"),
    )
    named = patients(index, "1.1")
    assert [name.split("\x1f")[0] for name in named] == ["FIRST", "SECOND"]
    assert patient_ids(index) == ["FIRST"]


@pytest.mark.parametrize(
    "others",
    [
        [{"PatientID": "A"}, {"PatientID": ""}],
        [{"PatientID": ""}, {"PatientID": "A"}],
        [{"PatientID": "A", "IssuerOfPatientID": "X"}, {"PatientID": "A"}],
        [{"PatientID": "A"}, {"PatientID": "A", "IssuerOfPatientID": "X"}],
    ],
)
def test_what_is_not_said_contradicts_nothing(index: Indexed, others: list[dict[str, str]]) -> None:
    index.add(*(instance(study_instance_uid="1.1", **attributes) for attributes in others))
    assert len(patients(index, "1.1")) == 1
    assert patient_ids(index) == ["A"]


def test_a_patient_id_that_comes_later_joins_the_study_to_its_patient(index: Indexed) -> None:
    index.add(
        instance(PatientID="A", PatientName="Known^Name", study_instance_uid="1.1"),
        instance(PatientID="", PatientName="", PatientSex="F", study_instance_uid="1.2"),
        instance(PatientID="A", PatientName="Known^Name", PatientSex="", study_instance_uid="1.2"),
    )
    assert patient_ids(index) == ["A"]
    assert index.rows("SELECT COUNT(DISTINCT patient_id) FROM study") == [(1,)]


def test_the_first_word_stays_and_gaps_are_filled(index: Indexed) -> None:
    index.add(
        instance(PatientID="A", PatientName="First^Name", PatientSex="", study_instance_uid="1.1"),
        instance(
            SpecificCharacterSet="ISO_IR 192",
            PatientID="A",
            PatientName="Second^Name=第二",
            PatientSex="M",
            study_instance_uid="1.1",
        ),
    )
    statement = "SELECT PatientName, PatientName_alphabetic, PatientName_ideographic, PatientSex FROM patient"
    assert index.rows(statement) == [("First^Name", "first^name", "", "M")]


def test_a_study_that_is_not_held_has_no_patients(index: Indexed) -> None:
    assert patients(index, "9.9") == []


def test_what_is_said_of_a_person_decides_who_is_different() -> None:
    def of(name: str = "", patient_id: str = "", issuer: str = "", birth_date: str = "") -> identity.Person:
        keywords = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate")
        return identity.Person.of(dict(zip(keywords, (name, patient_id, issuer, birth_date), strict=True)))

    different = [
        (of(patient_id="A"), of(patient_id="B")),
        (of(patient_id="A", issuer="X"), of(patient_id="A", issuer="Y")),
        (of("Doe^J", "A", "", "19500101"), of("Doe^J", "A", "", "19990101")),
        (of(birth_date="19500101"), of(patient_id="A", birth_date="19990101")),
        (of("Adam^A"), of("Berta^B")),
        (of("Adam^A"), of("Berta^B", "B")),
        (of("Adam^A=亜^檀"), of("Adam^A=別^人")),
        (of("Adam^A"), of("=亜^檀")),
    ]
    the_same = [
        (of(), of("Adam^A", "A", "X", "19500101")),
        (of("Doe^John", "A"), of("DOE^JOHN^^", "A")),
        (of("Doe^John", "A"), of("Roe^Jane", "A")),
        (of("Doe^John"), of("DOE^JOHN^^", "A")),
        (of("Adam^A=亜^檀"), of("adam^a")),
        (of(patient_id="A", issuer="X" * 64), of(patient_id="A", issuer="X" * 70)),
    ]
    for one, other in different:
        assert identity.are_different(one, other)
        assert identity.are_different(other, one)
    for one, other in the_same:
        assert not identity.are_different(one, other)
        assert not identity.are_different(other, one)
        assert identity.Person.from_text(other.to_text()) == other


ADAM = {"PatientID": "", "PatientName": "Adam^A", "PatientBirthDate": "19500101"}
BERTA = {"PatientID": "", "PatientName": "Berta^B", "PatientBirthDate": "19990101"}
CAESAR = {"PatientID": "P1", "PatientName": "Caesar^C", "PatientBirthDate": "19700101"}
DORA = {"PatientID": "P1", "PatientName": "Dora^D", "PatientBirthDate": "19770101"}
A, AX, AY = ({"PatientID": "A", "IssuerOfPatientID": issuer} for issuer in ("", "X", "Y"))


@pytest.mark.parametrize(
    ("named", "count"),
    [
        ([ADAM, BERTA, CAESAR, DORA], 4),
        ([ADAM, BERTA], 2),
        ([CAESAR, DORA], 2),
        ([{"PatientID": "", "PatientName": "Adam^A"}, {"PatientID": "", "PatientName": "Berta^B"}], 2),
        ([{"PatientID": "", "PatientName": "Adam^A"}, {"PatientID": "A", "PatientName": "Berta^B"}], 2),
        ([A, AX, AY], 2),
        ([A, AX], 1),
        ([{"PatientID": "A", "PatientName": name} for name in ("Doe^John", "DOE^JOHN^^", "Doe^Jon")], 1),
        ([{**ADAM, "PatientName": name} for name in ("Doe^John", "DOE^JOHN^^")], 1),
        # What says nothing of either hides neither.
        ([AX, {**A, "PatientBirthDate": "19500101"}, {**A, "PatientBirthDate": "19700101"}], 2),
        ([{"PatientID": f"P{number % 150}"} for number in range(160)], 100),
    ],
)
def test_the_people_of_a_study_are_told_apart_pair_by_pair(
    index: Indexed, named: list[dict[str, str]], count: int
) -> None:
    for number, order in enumerate((named, named[::-1])):
        uid = f"1.{number}"
        index.add(*(instance(study_instance_uid=uid, **{"PatientName": "", **said}) for said in order))
        assert len(patients(index, uid)) == count


def test_each_way_of_naming_is_one_row_however_many_instances_there_are(index: Indexed) -> None:
    index.add(*(instance(study_instance_uid="1.1", **(AX if number % 2 else A)) for number in range(10)))
    assert index.rows("SELECT COUNT(*) FROM study_patient") == [(2,)]


def test_what_this_node_made_names_nobody_new(index: Indexed) -> None:
    index.add(instance(study_instance_uid="1.1", **ADAM))
    index.add(instance(study_instance_uid="1.1", **BERTA), is_own=True)
    index.add(instance(study_instance_uid="1.2", **CAESAR), is_own=True)
    assert patients(index, "1.1") == ["study:1.1"]
    assert patients(index, "1.2") == ["P1\x1f"]


def test_people_recorded_by_an_older_version_are_compared_too(index: Indexed) -> None:
    index.add(instance(study_instance_uid="1.1", **A), instance(study_instance_uid="1.2", **ADAM))
    older = [(1, "A\x1f"), (1, "A\x1fX"), (1, "A\x1fY"), (2, "study:1.2")]
    index.database.write(
        lambda connection: connection.executemany("INSERT INTO study_patient VALUES (?, ?)", older)
    )
    assert patients(index, "1.1") == ["A\x1fX", "A\x1fY"]
    assert patients(index, "1.2") == ["study:1.2"]


def test_an_issuer_is_never_added_to_a_patient_that_was_named_without(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.1", **A),
        instance(study_instance_uid="1.2", **A),
        instance(study_instance_uid="1.2", PatientComments="of somebody", **AX),
    )
    assert index.rows("SELECT PatientID, IssuerOfPatientID, PatientComments FROM patient") == [("A", "", "")]


def test_somebody_else_completes_neither_the_study_nor_the_patient(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.1", PatientSex="", **CAESAR),
        instance(study_instance_uid="1.1", PatientSex="F", PatientAge="047Y", **DORA),
        instance(study_instance_uid="1.2", PatientSex="F", **DORA),
        instance(study_instance_uid="1.3", PatientSex="M", **ADAM),
        instance(study_instance_uid="1.3", PatientComments="mixed up", **CAESAR),
    )
    assert index.rows("SELECT PatientName, PatientSex, PatientComments FROM patient") == [
        ("Caesar^C", "", ""),
        ("Adam^A", "M", ""),
    ]
    assert index.rows("SELECT PatientName, PatientSex, PatientAge FROM study") == [
        ("Caesar^C", "", ""),
        ("Dora^D", "F", ""),
        ("Adam^A", "M", ""),
    ]
