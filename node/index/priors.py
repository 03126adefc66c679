"""Earlier studies of a patient."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from node.index import identity
from node.index.identity import Person


def earlier_studies(connection: sqlite3.Connection, study_instance_uid: str) -> list[str]:
    """Study Instance UIDs of earlier studies of the same patient, the latest first.

    There are none where the study has no Patient ID, no date, or instances of several patients. A study
    is left out that has no date, is not known to be earlier, or may be of another person: the patient has
    to be the same by Patient ID and issuer, and nothing that the instances of the two say of the patient
    may contradict (``identity``), nor their sex. Where not all of them say issuer and birth date, their
    family names may not differ either: such a Patient ID may have been given to many. Where studies of
    that Patient ID are known of people born on different days, who says no birth date may be either of them.
    """
    row = connection.execute(
        "SELECT study.patient_id, patient.PatientID, study.StudyDate, study.StudyTime FROM study"
        " JOIN patient ON patient.id = study.patient_id WHERE study.StudyInstanceUID = ?",
        (study_instance_uid,),
    ).fetchone()
    if row is None or not row[1]:
        return []
    told = _told_of(connection, study_instance_uid)
    is_shared = _is_shared(connection, row[0])
    if is_shared and not told.says_birth_date:
        return []
    present = moment(row[2], row[3])
    rows = connection.execute(
        "SELECT StudyInstanceUID, StudyDate, StudyTime FROM study WHERE patient_id = ?"
        " AND StudyInstanceUID <> ?",
        (row[0], study_instance_uid),
    ).fetchall()
    earlier = [
        (began, uid)
        for uid, began in ((one[0], moment(one[1], one[2])) for one in rows)
        if is_earlier(began, present)
    ]
    found = []
    for _, uid in sorted(earlier, reverse=True):
        of_other = _told_of(connection, uid)
        if (
            identity.are_of_one_person(connection, (study_instance_uid, uid))
            and may_be_one(told, of_other)
            and (of_other.says_birth_date or not is_shared)
        ):
            found.append(uid)
    return found


def date_of(connection: sqlite3.Connection, study_instance_uid: str) -> str:
    """Study Date as ISO 8601, or as it is written where it is no date; empty where there is none."""
    row = connection.execute(
        "SELECT StudyDate FROM study WHERE StudyInstanceUID = ?", (study_instance_uid,)
    ).fetchone()
    date, _ = moment(str(row[0]) if row else "", "")
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


class Told(NamedTuple):
    """What a study says of its patient: Patient's Sex, and each way in which instances name them."""

    sex: str
    people: tuple[Person, ...]

    @property
    def says_birth_date(self) -> bool:
        """Whether any instance says when the patient was born."""
        return any(person.birth_date for person in self.people)


def _is_shared(connection: sqlite3.Connection, patient_id: int) -> bool:
    """Whether the studies of one Patient ID and issuer say different birth dates."""
    rows = connection.execute(
        "SELECT DISTINCT study_patient.identity FROM study_patient"
        " JOIN study ON study.id = study_patient.study_id WHERE study.patient_id = ?",
        (patient_id,),
    )
    return len({Person.from_text(row[0]).birth_date for row in rows} - {""}) > 1


def _told_of(connection: sqlite3.Connection, study_instance_uid: str) -> Told:
    rows = connection.execute(
        "SELECT study.PatientSex, study_patient.identity FROM study"
        " JOIN study_patient ON study_patient.study_id = study.id WHERE study.StudyInstanceUID = ?",
        (study_instance_uid,),
    ).fetchall()
    sex = str(rows[0][0]).strip().upper() if rows else ""
    return Told(sex, tuple(Person.from_text(row[1]) for row in rows))


def may_be_one(one: Told, other: Told) -> bool:
    """Whether neither sex nor, where little else is said, a family name tells two people apart.

    For studies of one Patient ID, of which nothing contradicts.
    """
    if one.sex and other.sex and one.sex != other.sex:
        return False
    people = (*one.people, *other.people)
    if all(person.issuer and person.birth_date for person in people):
        return True
    return not any(_families_differ(a.name, b.name) for a in one.people for b in other.people)


def _families_differ(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the family names differ in a component group that both have, or they have none in common."""
    pairs = [(a.partition("^")[0], b.partition("^")[0]) for a, b in zip(one, other, strict=True)]
    if not any(a for a, _ in pairs) or not any(b for _, b in pairs):
        return False
    common = [(a, b) for a, b in pairs if a and b]
    return not common or any(a != b for a, b in common)


def moment(date: str, time: str) -> tuple[str, str]:
    """Date and time so that they sort, also as the standard's forerunner wrote them (PS3.5 section 6.2)."""
    return date.replace(".", ""), time.replace(":", "")


def is_earlier(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether it is known that one ``moment`` was before another."""
    if not all(len(date) == 8 and date.isdecimal() for date, _ in (one, other)):
        return False
    if one[0] != other[0]:
        return one[0] < other[0]
    # "12" is any time from 12:00 to 13:00.
    told = min(len(one[1]), len(other[1]))
    return one[1][:told] < other[1][:told]
