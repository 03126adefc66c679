"""Who is who: which patient a study belongs to, and whether its instances agree.

A patient is a Patient ID and its issuer. Without a Patient ID a study is a patient of its own, so
an empty one never groups patients. A study stays with the first patient that was named for it;
whatever other patient its instances name is recorded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from node.index.attributes import KEYWORDS, QueryLevel, folded_columns
from node.index.person_name import folded_groups

_SEPARATOR = "\x1f"
_UNNAMED = "study:"


def identity_of(values: Mapping[str, str], study_instance_uid: str) -> str:
    """Identity of the patient that an instance names."""
    patient_id = values.get("PatientID", "")
    if not patient_id:
        return _UNNAMED + study_instance_uid
    return patient_id + _SEPARATOR + values.get("IssuerOfPatientID", "")


def are_different(identity: str, other: str) -> bool:
    """Whether two identities cannot be one patient.

    A missing Patient ID or issuer contradicts nothing.
    """
    if identity.startswith(_UNNAMED) or other.startswith(_UNNAMED):
        return False
    patient_id, _, issuer = identity.partition(_SEPARATOR)
    other_patient_id, _, other_issuer = other.partition(_SEPARATOR)
    return patient_id != other_patient_id or bool(issuer and other_issuer and issuer != other_issuer)


def patients_of_study(connection: sqlite3.Connection, study_instance_uid: str) -> list[str]:
    """Identities of all patients whom the instances of a study name, its own patient first."""
    rows = connection.execute(
        "SELECT study_patient.identity FROM study JOIN study_patient ON study_patient.study_id = study.id"
        " JOIN patient ON patient.id = study.patient_id WHERE study.StudyInstanceUID = ?"
        " ORDER BY study_patient.identity <> patient.identity, study_patient.identity",
        (study_instance_uid,),
    )
    return [row[0] for row in rows]


def patient_row(connection: sqlite3.Connection, identity: str, values: Mapping[str, str]) -> int:
    """Row of the patient, which is made where there is none and completed where it says less."""
    row = connection.execute("SELECT * FROM patient WHERE identity = ?", (identity,)).fetchone()
    columns = column_values(QueryLevel.PATIENT, values)
    if row is None:
        return insert(connection, "patient", {"identity": identity, **columns})
    complete(connection, "patient", row, columns)
    return int(row["id"])


def settle_patient(
    connection: sqlite3.Connection, study: sqlite3.Row, identity: str, values: Mapping[str, str]
) -> None:
    """Compare the patient whom a further instance names with the patient of its study."""
    patient = connection.execute("SELECT * FROM patient WHERE id = ?", (study["patient_id"],)).fetchone()
    held = str(patient["identity"])
    if are_different(held, identity):
        name_patient(connection, int(study["id"]), identity)
    elif held.startswith(_UNNAMED) and not identity.startswith(_UNNAMED):
        _take_name(connection, study, patient, identity, values)
    else:
        complete(connection, "patient", patient, column_values(QueryLevel.PATIENT, values))


def name_patient(connection: sqlite3.Connection, study_id: int, identity: str) -> None:
    """Record that an instance of the study names this patient."""
    connection.execute(
        "INSERT INTO study_patient (study_id, identity) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (study_id, identity),
    )


def _take_name(
    connection: sqlite3.Connection,
    study: sqlite3.Row,
    unnamed: sqlite3.Row,
    identity: str,
    values: Mapping[str, str],
) -> None:
    """Give a study that had no Patient ID to the patient whom a later instance names."""
    merged = {keyword: values.get(keyword) or unnamed[keyword] for keyword in KEYWORDS[QueryLevel.PATIENT]}
    patient_id = patient_row(connection, identity, merged)
    connection.execute("UPDATE study SET patient_id = ? WHERE id = ?", (patient_id, study["id"]))
    connection.execute("DELETE FROM patient WHERE id = ?", (unnamed["id"],))
    connection.execute("DELETE FROM study_patient WHERE study_id = ?", (study["id"],))
    name_patient(connection, int(study["id"]), identity)


# --- rows ---------------------------------------------------------------------


def column_values(level: QueryLevel, values: Mapping[str, str]) -> dict[str, str]:
    """Columns of a level, with the folded groups of person names."""
    columns = {}
    for keyword in KEYWORDS[level]:
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
