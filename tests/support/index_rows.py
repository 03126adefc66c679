"""All rows of an index, told without the numbers that SQLite gave them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_PLACES = {
    "patient": "SELECT identity AS key, * FROM patient",
    "study": "SELECT StudyInstanceUID AS key,"
    " (SELECT identity FROM patient WHERE id = patient_id) AS patient, * FROM study",
    "study_patient": "SELECT (SELECT StudyInstanceUID FROM study WHERE id = study_id) || identity AS key,"
    " identity FROM study_patient",
    "series": "SELECT SeriesInstanceUID || (SELECT StudyInstanceUID FROM study WHERE id = study_id) AS key,"
    " * FROM series",
    "instance": "SELECT SOPInstanceUID AS key,"
    " (SELECT SeriesInstanceUID FROM series WHERE id = series_id) AS series, * FROM instance",
    "quarantine": "SELECT sop_instance_uid || data_set_sha256 AS key, * FROM quarantine",
    "study_arrival": "SELECT study_instance_uid AS key, * FROM study_arrival",
    "analysis_run": "SELECT study_instance_uid || series_instance_uid || analysis || revision AS key, *"
    " FROM analysis_run",
    "job": "SELECT kind || key AS key, kind, payload, state, study_instance_uid FROM job",
}  # fmt: skip
_NUMBERS = {"id", "patient_id", "study_id", "series_id"}
_JSON = {"proof", "provenance", "header", "payload", "result_sop_instance_uids"}


def index_rows(path: Path) -> dict[str, dict[str, Row]]:
    """Rows by table and key, with JSON decoded."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return {
            table: {row["key"]: _told(dict(row)) for row in connection.execute(statement)}
            for table, statement in _PLACES.items()
        }
    finally:
        connection.close()


def order_of(path: Path) -> list[str]:
    """SOP Instance UIDs in the order of their rows."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute("SELECT SOPInstanceUID FROM instance ORDER BY id")]
    finally:
        connection.close()


def _told(row: Row) -> Row:
    return {
        name: json.loads(value) if name in _JSON and value is not None else value
        for name, value in row.items()
        if name not in _NUMBERS
    }
