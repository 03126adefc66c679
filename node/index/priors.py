"""Earlier studies of a patient."""

from __future__ import annotations

import sqlite3

from node.index import identity


def earlier_studies(connection: sqlite3.Connection, study_instance_uid: str) -> list[str]:
    """Study Instance UIDs of earlier studies of the same patient, the latest first.

    There are none where the study has no Patient ID, no date, or instances of several patients. A study
    is left out that has no date, is not known to be earlier, or may be of another person: the patient has
    to be the same by Patient ID and issuer, and nothing that the instances of the two say of the patient
    may contradict (``identity``).
    """
    row = connection.execute(
        "SELECT study.patient_id, patient.PatientID, study.StudyDate, study.StudyTime FROM study"
        " JOIN patient ON patient.id = study.patient_id WHERE study.StudyInstanceUID = ?",
        (study_instance_uid,),
    ).fetchone()
    if row is None or not row[1]:
        return []
    present = _moment(row[2], row[3])
    rows = connection.execute(
        "SELECT StudyInstanceUID, StudyDate, StudyTime FROM study WHERE patient_id = ?"
        " AND StudyInstanceUID <> ?",
        (row[0], study_instance_uid),
    ).fetchall()
    earlier = [
        (moment, uid)
        for uid, moment in ((one[0], _moment(one[1], one[2])) for one in rows)
        if _is_earlier(moment, present)
    ]
    return [
        uid
        for _, uid in sorted(earlier, reverse=True)
        if identity.are_of_one_person(connection, (study_instance_uid, uid))
    ]


def _moment(date: str, time: str) -> tuple[str, str]:
    """Date and time so that they sort, also as the standard's forerunner wrote them (PS3.5 section 6.2)."""
    return date.replace(".", ""), time.replace(":", "")


def _is_earlier(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether it is known that ``one`` was before ``other``."""
    if not all(len(date) == 8 and date.isdecimal() for date, _ in (one, other)):
        return False
    return one[0] < other[0] or (one[0] == other[0] and bool(one[1] and other[1]) and one[1] < other[1])
