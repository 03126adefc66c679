"""Who is who: patients are told apart and together by Patient ID and issuer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.index import identity
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
        index.database.write(lambda connection: index.index.add(connection, header, stored))

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


def test_identities_differ_only_by_what_both_say() -> None:
    def of(**values: str) -> str:
        return identity.identity_of(values, "1.1")

    assert not identity.are_different(of(PatientID="A"), of(PatientID="A"))
    assert identity.are_different(of(PatientID="A"), of(PatientID="B"))
    assert identity.are_different(
        of(PatientID="A", IssuerOfPatientID="X"), of(PatientID="A", IssuerOfPatientID="Y")
    )
    assert not identity.are_different(of(), of(PatientID="B"))
