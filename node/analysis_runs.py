"""What came of analyses: one row for each series that an analysis chose, at each revision of its study.

The selection records what it chose, and the analysis what became of it. That no series matched stands in a
row without a series.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS analysis_run (
        id INTEGER PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL DEFAULT '',
        analysis TEXT NOT NULL,
        revision INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        selected_digest TEXT NOT NULL DEFAULT '',
        input_digest TEXT NOT NULL DEFAULT '',
        model TEXT NOT NULL DEFAULT '',
        started_at REAL,
        recorded_at REAL NOT NULL,
        sr_series_instance_uid TEXT NOT NULL DEFAULT '',
        sr_sop_class_uid TEXT NOT NULL DEFAULT '',
        sr_sop_instance_uid TEXT NOT NULL DEFAULT '',
        result_sop_instance_uids TEXT NOT NULL DEFAULT '[]',
        facts TEXT NOT NULL DEFAULT '{}',
        UNIQUE (study_instance_uid, series_instance_uid, analysis, revision)
    )""",
)

#: States of a run. 'queued' is written by the selection; the analysis writes what became of it.
QUEUED = "queued"
COMPLETED = "completed"
NO_MATCH = "no-match"
FAILED = "failed"
#: A person asked for it once more after it had failed, or its results were lost.
WANTED = "wanted"
SUPERSEDED = "superseded"
UNCHANGED = "unchanged"
#: Results of it are lost, and may have been delivered: it is done again when somebody asks for it alone.
INCOMPLETE = "incomplete"

_COLUMNS = (
    "study_instance_uid",
    "series_instance_uid",
    "analysis",
    "revision",
    "state",
    "reason",
    "selected_digest",
    "input_digest",
    "model",
    "started_at",
    "recorded_at",
    "sr_series_instance_uid",
    "sr_sop_class_uid",
    "sr_sop_instance_uid",
    "result_sop_instance_uids",
    "facts",
)


def record_selection(
    connection: sqlite3.Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    analysis: str,
    revision: int,
    selected_digest: str,
    started_at: float,
    at: float,
) -> None:
    """Record that a series was chosen for an analysis, with the digest of all that decided it.

    A run of the revision that left no result gives way to it.
    """
    connection.execute(
        "INSERT INTO analysis_run (study_instance_uid, series_instance_uid, analysis, revision, state,"
        " selected_digest, started_at, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (study_instance_uid, series_instance_uid, analysis, revision) DO UPDATE SET"
        " state = excluded.state, reason = '', selected_digest = excluded.selected_digest,"
        " started_at = excluded.started_at, recorded_at = excluded.recorded_at"
        " WHERE state NOT IN (?, ?, ?)",
        (
            study_instance_uid,
            series_instance_uid,
            analysis,
            revision,
            QUEUED,
            selected_digest,
            started_at,
            at,
            *(COMPLETED, INCOMPLETE, UNCHANGED),
        ),
    )


def supersede(
    connection: sqlite3.Connection,
    study_instance_uid: str,
    analysis: str,
    runs: Iterable[tuple[str, int]],
    *,
    at: float,
) -> None:
    """Mark runs, by series and revision, that nobody has begun and that a newer selection replaces."""
    connection.executemany(
        "UPDATE analysis_run SET state = ?, reason = ?, recorded_at = ? WHERE study_instance_uid = ?"
        " AND series_instance_uid = ? AND analysis = ? AND revision = ? AND state IN (?, ?)",
        [
            (
                SUPERSEDED,
                "the study was looked at again before it began",
                at,
                study_instance_uid,
                series_instance_uid,
                analysis,
                revision,
                # What is parked failed without having begun.
                *(QUEUED, FAILED),
            )
            for series_instance_uid, revision in runs
        ],
    )


def record(
    connection: sqlite3.Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str = "",
    analysis: str,
    revision: int,
    state: str,
    at: float,
    reason: str = "",
    input_digest: str = "",
    model: str = "",
    started_at: float | None = None,
    sr_series_instance_uid: str = "",
    sr_sop_class_uid: str = "",
    sr_sop_instance_uid: str = "",
    result_sop_instance_uids: Sequence[str] = (),
    facts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Record what became of an analysis of a series at a revision; a repetition replaces it.

    Parameters
    ----------
    connection
        the transaction that also ends the job
    state
        'completed', 'failed', or a word for why there is no result: 'no-match',
        'not-a-volume', 'two-patients' …
    at
        now, in seconds since the epoch
    reason
        one sentence for a person
    sr_sop_instance_uid
        with its series and SOP class: the Structured Report that a later run supersedes
    result_sop_instance_uids
        all result objects of this run
    facts
        what it found, for ``when`` of analyses that come after it: a name, and the words any of
        which may match
    """
    connection.execute(
        "INSERT INTO analysis_run (study_instance_uid, series_instance_uid, analysis, revision, state,"
        " reason, input_digest, model, started_at, recorded_at, sr_series_instance_uid,"
        " sr_sop_class_uid, sr_sop_instance_uid, result_sop_instance_uids, facts)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (study_instance_uid, series_instance_uid, analysis, revision) DO UPDATE SET"
        " state = excluded.state, reason = excluded.reason, input_digest = excluded.input_digest,"
        " model = excluded.model, started_at = COALESCE(excluded.started_at, started_at),"
        " recorded_at = excluded.recorded_at,"
        " sr_series_instance_uid = excluded.sr_series_instance_uid,"
        " sr_sop_class_uid = excluded.sr_sop_class_uid,"
        " sr_sop_instance_uid = excluded.sr_sop_instance_uid,"
        " result_sop_instance_uids = excluded.result_sop_instance_uids, facts = excluded.facts",
        (
            study_instance_uid,
            series_instance_uid,
            analysis,
            revision,
            state,
            reason,
            input_digest,
            model,
            started_at,
            at,
            sr_series_instance_uid,
            sr_sop_class_uid,
            sr_sop_instance_uid,
            json.dumps(list(result_sop_instance_uids)),
            json.dumps({name: list(values) for name, values in (facts or {}).items()}),
        ),
    )


def drop_unseen(
    connection: sqlite3.Connection,
    study_instance_uid: str,
    analysis: str,
    seen: Collection[str],
    *,
    at: float,
) -> None:
    """Mark what came of series that are not ``seen`` any more, and left no result, as superseded.

    A result stands: it may have been delivered.
    """
    kept = (COMPLETED, INCOMPLETE, UNCHANGED, SUPERSEDED, QUEUED)
    connection.execute(
        "UPDATE analysis_run SET state = ?, reason = ?, recorded_at = ? WHERE study_instance_uid = ?"
        f" AND analysis = ? AND series_instance_uid <> '' AND state NOT IN ({_marks(kept)})"
        f" AND series_instance_uid NOT IN ({_marks(seen)})",
        (
            SUPERSEDED,
            "the analysis does not see this series any more",
            at,
            study_instance_uid,
            analysis,
            *kept,
            *seen,
        ),
    )


def forget_no_match(
    connection: sqlite3.Connection, study_instance_uid: str, analysis: str, revision: int
) -> None:
    """Forget that no series matched, as one does now that an analysis before it was done once more."""
    connection.execute(
        "DELETE FROM analysis_run WHERE study_instance_uid = ? AND series_instance_uid = ''"
        " AND analysis = ? AND revision = ? AND state = ?",
        (study_instance_uid, analysis, revision, NO_MATCH),
    )


def want_again(connection: sqlite3.Connection, study_instance_uid: str) -> None:
    """Let the runs of a study that failed, or whose results are lost, be done once more.

    What has results is asked for as well: its run finds out whether the model is another one now, and
    leaves all as it is where nothing is.
    """
    connection.execute(
        "UPDATE analysis_run SET state = ? WHERE study_instance_uid = ? AND state IN (?, ?)",
        (WANTED, study_instance_uid, FAILED, INCOMPLETE),
    )
    connection.execute(
        "UPDATE analysis_run SET selected_digest = '' WHERE study_instance_uid = ? AND state IN (?, ?)",
        (study_instance_uid, COMPLETED, UNCHANGED),
    )


def of_study(connection: sqlite3.Connection, study_instance_uid: str) -> list[dict[str, Any]]:
    """Every run of a study, the oldest first; one key for each column of the table but its number."""
    return _runs(connection, "study_instance_uid = ? ORDER BY revision, id", (study_instance_uid,))


def latest(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> dict[str, Any] | None:
    """The latest run of a series, whatever became of it; ``selected_digest`` says what it saw."""
    runs = _runs(
        connection,
        "study_instance_uid = ? AND series_instance_uid = ? AND analysis = ? ORDER BY revision DESC LIMIT 1",
        (study_instance_uid, series_instance_uid, analysis),
    )
    return runs[0] if runs else None


def completed(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> list[dict[str, Any]]:
    """The runs of a series that left results of whatever kind, the latest revision first."""
    return _runs(
        connection,
        "study_instance_uid = ? AND series_instance_uid = ? AND analysis = ? AND state IN (?, ?)"
        " ORDER BY revision DESC",
        (study_instance_uid, series_instance_uid, analysis, COMPLETED, INCOMPLETE),
    )


def standing(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> dict[str, Any] | None:
    """The latest run of a series, or where that found all unchanged, the one that left the results.

    None where there is none. Its results are those of the series as it is now; where its state is neither
    'completed' nor 'incomplete', there are none, whatever an earlier run left.
    """
    last = latest(connection, study_instance_uid, series_instance_uid, analysis)
    if last is None or last["state"] != UNCHANGED:
        return last
    with_results = completed(connection, study_instance_uid, series_instance_uid, analysis)
    return with_results[0] if with_results else last


def found(
    connection: sqlite3.Connection,
    study_instance_uid: str,
    series_instance_uid: str,
    analysis: str,
) -> dict[str, tuple[str, ...]] | str:
    """What the latest run of an analysis found in a series, or in a few words why there is nothing."""
    last = standing(connection, study_instance_uid, series_instance_uid, analysis)
    if last is None:
        return "does not see this series"
    if last["state"] not in (COMPLETED, INCOMPLETE):
        return f"has no result for this series ({last['state']})"
    return {name: tuple(values) for name, values in last["facts"].items()}


def _runs(connection: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM analysis_run WHERE {condition}", values)
    runs = [dict(zip(_COLUMNS, tuple(row), strict=True)) for row in rows]
    for run in runs:
        run["result_sop_instance_uids"] = json.loads(run["result_sop_instance_uids"])
        run["facts"] = json.loads(run["facts"])
    return runs


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))
