"""Who is who: which patient a study belongs to, and whether its instances agree.

A patient is a Patient ID and its issuer. Without a Patient ID a study is a patient of its own, so
an empty one never groups patients. A study stays with the first patient that was named for it, and
keeps what its own instances say of the patient; every different way in which they name somebody is
recorded, so that all can be compared with each other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from node.index.attributes import COLUMNS, QueryLevel, folded_columns
from node.index.person_name import folded_groups

_SEPARATOR = "\x1f"
_UNNAMED = "study:"
# A study of more people than these is as unfit as one of so many.
_MOST_PEOPLE = 100
_NO_NAME = ("", "", "")
# The longest issuer that the standard allows (LO, PS3.5 section 6.2).
_ISSUER_CHARACTERS = 64


class Person(NamedTuple):
    """What one instance says of who the patient is; empty where it says nothing.

    ``name`` has the folded component groups, so that spelling makes no other person.
    """

    patient_id: str
    issuer: str
    birth_date: str
    name: tuple[str, str, str]

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Person:
        """Take it from the values of an instance."""
        return cls(
            values.get("PatientID", ""),
            values.get("IssuerOfPatientID", "")[:_ISSUER_CHARACTERS],
            values.get("PatientBirthDate", ""),
            folded_groups(values.get("PatientName", "")),
        )

    def to_text(self) -> str:
        """Write it as a row of ``study_patient`` has it."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Person:
        """Read what ``to_text`` wrote, or the identity that older versions wrote."""
        if text.startswith(_UNNAMED):
            return cls("", "", "", _NO_NAME)
        if _SEPARATOR in text:
            patient_id, _, issuer = text.partition(_SEPARATOR)
            return cls(patient_id, issuer, "", _NO_NAME)
        patient_id, issuer, birth_date, (alphabetic, ideographic, phonetic) = json.loads(text)
        return cls(patient_id, issuer, birth_date, (alphabetic, ideographic, phonetic))


def identity_of(values: Mapping[str, str], study_instance_uid: str) -> str:
    """Identity of the patient that an instance names."""
    patient_id = values.get("PatientID", "")
    if not patient_id:
        return _UNNAMED + study_instance_uid
    return patient_id + _SEPARATOR + values.get("IssuerOfPatientID", "")


def are_different(one: Person, other: Person) -> bool:
    """Whether two ways of naming a patient cannot mean one person.

    What is missing contradicts nothing. Names get corrected: they tell people apart only where a
    Patient ID is missing.
    """
    if any(a and b and a != b for a, b in zip(one[:3], other[:3], strict=True)):
        return True
    return not (one.patient_id and other.patient_id) and _names_differ(one.name, other.name)


def _names_differ(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Whether a component group that both have differs, or they have none in common."""
    if one == other or not any(one) or not any(other):
        return False
    common = [(a, b) for a, b in zip(one, other, strict=True) if a and b]
    return not common or any(a != b for a, b in common)


def patient_of(connection: sqlite3.Connection, study_instance_uid: str) -> tuple[str, str]:
    """Return Patient ID and Patient's Name of a study; empty where it is not held."""
    row = connection.execute(
        "SELECT patient.PatientID, study.PatientName FROM study JOIN patient ON patient.id = study.patient_id"
        " WHERE study.StudyInstanceUID = ?",
        (study_instance_uid,),
    ).fetchone()
    return ("", "") if row is None else (str(row[0] or ""), str(row[1] or ""))


def patients_of_study(connection: sqlite3.Connection, study_instance_uid: str) -> list[str]:
    """Identities of all patients whom the instances of a study name, its own patient first.

    There is one for each person: also where some have no Patient ID, and so the same identity.
    """
    rows = connection.execute(
        "SELECT patient.identity, study_patient.identity FROM study"
        " JOIN patient ON patient.id = study.patient_id"
        " LEFT JOIN study_patient ON study_patient.study_id = study.id WHERE study.StudyInstanceUID = ?",
        (study_instance_uid,),
    ).fetchall()
    if not rows:
        return []
    own = str(rows[0][0])
    people = {Person.from_text(row[1]) for row in rows if row[1] is not None}
    found = [group.identity(study_instance_uid) for group in _told_apart(people)]
    # A stable sort: equal identities stay as they are.
    return sorted(found, key=lambda identity: identity != own) or [own]


def are_of_one_person(connection: sqlite3.Connection, study_instance_uids: Sequence[str]) -> bool:
    """Whether all that the instances of several studies say of their patients may be said of one."""
    people = set()
    for study_instance_uid in study_instance_uids:
        rows = connection.execute(
            "SELECT study_patient.identity FROM study_patient JOIN study ON study.id = study_patient.study_id"
            " WHERE study.StudyInstanceUID = ?",
            (study_instance_uid,),
        )
        people |= {Person.from_text(row[0]) for row in rows}
    return len(_told_apart(people)) == 1


def number_of_people(told: Iterable[Person]) -> int:
    """How many people there are at least among those whom instances name."""
    return len(_told_apart(set(told)))


class _Group:
    """Ways of naming that may all mean one person."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()
        self._names = {True: {_NO_NAME}, False: {_NO_NAME}}

    def admits(self, person: Person) -> bool:
        """Whether ``person`` differs from none of them."""
        if any(a and b and a != b for told in self._told for a, b in zip(told, person[:3], strict=True)):
            return False
        # Names count between two of whom one has no Patient ID.
        names = self._names[False] if person.patient_id else self._names[False] | self._names[True]
        return not any(_names_differ(name, person.name) for name in names)

    def add(self, person: Person) -> None:
        """Take one more way of naming in."""
        self._told.add((person.patient_id, person.issuer, person.birth_date))
        self._names[bool(person.patient_id)].add(person.name)

    def identity(self, study_instance_uid: str) -> str:
        """Identity of the person: the Patient ID and issuer that any of them gives."""
        patient_id, issuer = (max(told[at] for told in self._told) for at in (0, 1))
        return identity_of({"PatientID": patient_id, "IssuerOfPatientID": issuer}, study_instance_uid)


def _told_apart(people: Iterable[Person]) -> list[_Group]:
    """Divide into groups within which nobody differs: more than one where any two differ."""
    groups: list[_Group] = []
    # Those who say most come first, so that the vague join them.
    for person in sorted(people, key=lambda one: (-sum(map(bool, one[:3])), one)):
        group = next((one for one in groups if one.admits(person)), None)
        if group is None:
            if len(groups) == _MOST_PEOPLE:
                break
            groups.append(group := _Group())
        group.add(person)
    return groups


def patient_row(connection: sqlite3.Connection, values: Mapping[str, str]) -> int:
    """Row of the patient, which is made where there is none and completed where it says less."""
    identity = identity_of(values, values["StudyInstanceUID"])
    row = connection.execute("SELECT * FROM patient WHERE identity = ?", (identity,)).fetchone()
    if row is None:
        columns = column_values(QueryLevel.PATIENT, values)
        return insert(connection, "patient", {"identity": identity, **columns})
    _complete_patient(connection, row, identity, values)
    return int(row["id"])


def settle_patient(connection: sqlite3.Connection, study: sqlite3.Row, values: Mapping[str, str]) -> bool:
    """Compare the patient whom a further instance names with the patient of its study.

    Returns
    -------
    bool
        Whether they may be one person. Where they are not, nothing that the instance says may become
        part of what is known of the study.
    """
    patient = connection.execute("SELECT * FROM patient WHERE id = ?", (study["patient_id"],)).fetchone()
    held, identity = str(patient["identity"]), identity_of(values, study["StudyInstanceUID"])
    known = {keyword: patient[keyword] for keyword in ("PatientID", "IssuerOfPatientID")}
    known |= {keyword: study[keyword] for keyword in ("PatientName", "PatientBirthDate")}
    if are_different(Person.of(known), Person.of(values)):
        return False
    if held.startswith(_UNNAMED) and not identity.startswith(_UNNAMED):
        # The study had no Patient ID so far.
        row_id = patient_row(connection, values)
        connection.execute("UPDATE study SET patient_id = ? WHERE id = ?", (row_id, study["id"]))
        connection.execute("DELETE FROM patient WHERE id = ?", (patient["id"],))
    else:
        _complete_patient(connection, patient, identity, values)
    return True


def _complete_patient(
    connection: sqlite3.Connection, row: sqlite3.Row, identity: str, values: Mapping[str, str]
) -> None:
    """Fill gaps of a patient with what an instance says that names just this one.

    One without the Patient ID or without the issuer may mean somebody else in another study.
    """
    if row["identity"] == identity and not are_different(Person.of(dict(row)), Person.of(values)):
        complete(connection, "patient", row, column_values(QueryLevel.PATIENT, values))


def name_person(connection: sqlite3.Connection, study_id: int, person: Person) -> None:
    """Record that an instance of the study names this person."""
    connection.execute(
        "INSERT INTO study_patient (study_id, identity) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (study_id, person.to_text()),
    )


# --- rows ---------------------------------------------------------------------


def column_values(level: QueryLevel, values: Mapping[str, str]) -> dict[str, str]:
    """Columns of a level, with the folded groups of person names."""
    columns = {}
    for keyword in COLUMNS[level]:
        columns[keyword] = text = values.get(keyword, "")
        names = folded_columns(keyword)
        if names:
            columns.update(zip(names, folded_groups(text) if text else ("", "", ""), strict=True))
    return columns


def insert(connection: sqlite3.Connection, table: str, columns: Mapping[str, object]) -> int:
    """Insert a row and return its number."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    cursor = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))
    return int(cursor.lastrowid or 0)


def complete(
    connection: sqlite3.Connection, table: str, row: sqlite3.Row, columns: Mapping[str, str]
) -> None:
    """Fill the columns of a row that are empty; what it says already stays.

    The folded groups of a name follow their name, so that they never mix two names.
    """
    held = dict(row)
    missing = {
        name: text
        for name, text in columns.items()
        if text and not held[name] and not held.get(name.partition("_")[0])
    }
    if missing:
        connection.execute(
            f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in missing)} WHERE id = ?",
            (*missing.values(), held["id"]),
        )
