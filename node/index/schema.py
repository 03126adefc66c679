"""All tables of the database: those of the index, and what the other rooms bring."""

from __future__ import annotations

from node import analysis_runs, completion, confirmations, parking
from node.index.attributes import COLUMNS, KEYWORDS, QueryLevel, folded_columns
from node.jobs import queue


def _columns(level: QueryLevel) -> str:
    names = [name for keyword in COLUMNS[level] for name in (keyword, *folded_columns(keyword))]
    return ", ".join(f"{name} TEXT NOT NULL DEFAULT ''" for name in names)


def _told_by_patient() -> str:
    """Fill the studies of an older file, which kept what is known of a patient with the patient alone."""
    told = set(COLUMNS[QueryLevel.STUDY]) - set(KEYWORDS[QueryLevel.STUDY])
    names = [name for keyword in sorted(told) for name in (keyword, *folded_columns(keyword))]
    return (
        f"UPDATE study SET says_patient = 1, {', '.join(f'{name} = patient.{name}' for name in names)}"
        " FROM patient WHERE patient.id = study.patient_id AND NOT study.says_patient"
    )


#: Names of columns are keywords of PS3.6 for attributes, and snake case for what is ours.
INDEX: tuple[str, ...] = (
    f"""CREATE TABLE IF NOT EXISTS patient (
        id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL UNIQUE,
        {_columns(QueryLevel.PATIENT)}
    )""",
    "CREATE INDEX IF NOT EXISTS patient_patient_id ON patient (PatientID)",
    "CREATE INDEX IF NOT EXISTS patient_birth_date ON patient (PatientBirthDate)",
    "CREATE INDEX IF NOT EXISTS patient_name_alphabetic ON patient (PatientName_alphabetic)",
    "CREATE INDEX IF NOT EXISTS patient_name_ideographic ON patient (PatientName_ideographic)",
    "CREATE INDEX IF NOT EXISTS patient_name_phonetic ON patient (PatientName_phonetic)",
    f"""CREATE TABLE IF NOT EXISTS study (
        id INTEGER PRIMARY KEY,
        patient_id INTEGER NOT NULL REFERENCES patient (id),
        says_patient INTEGER NOT NULL DEFAULT 0,
        {_columns(QueryLevel.STUDY)}
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS study_uid ON study (StudyInstanceUID)",
    "CREATE INDEX IF NOT EXISTS study_patient_id ON study (patient_id)",
    "CREATE INDEX IF NOT EXISTS study_date ON study (StudyDate)",
    "CREATE INDEX IF NOT EXISTS study_accession_number ON study (AccessionNumber)",
    "CREATE INDEX IF NOT EXISTS study_birth_date ON study (PatientBirthDate)",
    "CREATE INDEX IF NOT EXISTS study_name_alphabetic ON study (PatientName_alphabetic)",
    "CREATE INDEX IF NOT EXISTS study_name_ideographic ON study (PatientName_ideographic)",
    "CREATE INDEX IF NOT EXISTS study_name_phonetic ON study (PatientName_phonetic)",
    "CREATE INDEX IF NOT EXISTS study_old_row ON study (id) WHERE NOT says_patient",
    _told_by_patient(),
    # every person whom the instances of a study name, one row for each way of naming; see identity
    """CREATE TABLE IF NOT EXISTS study_patient (
        study_id INTEGER NOT NULL REFERENCES study (id),
        identity TEXT NOT NULL,
        PRIMARY KEY (study_id, identity)
    ) WITHOUT ROWID""",
    # header: what the first instance of the series says, as JSON of keyword to text
    f"""CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY,
        study_id INTEGER NOT NULL REFERENCES study (id),
        header TEXT NOT NULL,
        {_columns(QueryLevel.SERIES)}
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS series_uid ON series (SeriesInstanceUID, study_id)",
    "CREATE INDEX IF NOT EXISTS series_study ON series (study_id, Modality)",
    # header: where it differs from that of the series; an empty text is an absent value
    f"""CREATE TABLE IF NOT EXISTS instance (
        id INTEGER PRIMARY KEY,
        series_id INTEGER NOT NULL REFERENCES series (id),
        {_columns(QueryLevel.IMAGE)},
        received_transfer_syntax_uid TEXT NOT NULL,
        stored_transfer_syntax_uid TEXT NOT NULL,
        data_set_sha256 TEXT NOT NULL,
        data_set_bytes INTEGER NOT NULL,
        stored_bytes INTEGER NOT NULL,
        location TEXT NOT NULL,
        segment TEXT NOT NULL,
        is_settled INTEGER NOT NULL,
        kept_reason TEXT NOT NULL,
        proof TEXT,
        is_own INTEGER NOT NULL,
        provenance TEXT NOT NULL,
        received_at REAL NOT NULL,
        verified_at REAL,
        problem TEXT NOT NULL DEFAULT '',
        header TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS instance_uid ON instance (SOPInstanceUID)",
    "CREATE INDEX IF NOT EXISTS instance_series ON instance (series_id, SOPClassUID)",
    "CREATE INDEX IF NOT EXISTS instance_segment ON instance (segment) WHERE segment <> ''",
    """CREATE TABLE IF NOT EXISTS quarantine (
        id INTEGER PRIMARY KEY,
        sop_instance_uid TEXT NOT NULL,
        sop_class_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        location TEXT NOT NULL,
        segment TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,
        data_set_sha256 TEXT NOT NULL,
        data_set_bytes INTEGER NOT NULL,
        provenance TEXT NOT NULL,
        reason TEXT NOT NULL,
        received_at REAL NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS quarantine_content ON quarantine (sop_instance_uid, data_set_sha256)",
    "CREATE INDEX IF NOT EXISTS quarantine_segment ON quarantine (segment) WHERE segment <> ''",
)

STATEMENTS: tuple[str, ...] = (
    *INDEX,
    *queue.SCHEMA,
    *completion.SCHEMA,
    *analysis_runs.SCHEMA,
    *confirmations.SCHEMA,
    *parking.SCHEMA,
)
