"""The jobs of analyses: to find the series for one, and to analyse a series with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from node.errors import AnalysisParked

#: The analysis of a job; empty for one of another kind.
ANALYSIS = "json_extract(payload, '$.analysis')"
# What is not done. The index is found by these very words.
_OPEN = "kind IN ('select', 'analyze') AND state <> 'done'"

INDEX = (
    f"CREATE INDEX IF NOT EXISTS job_analysis ON job (study_instance_uid, {ANALYSIS}, state, error_name)"
    f" WHERE {_OPEN}"
)

_NOT_GIVEN_UP = f"(state <> 'set_aside' OR error_name = '{AnalysisParked('').name}')"
#: Whether the analysis ``:afterN`` is unfinished in the study of a row of study_arrival.
IS_UNFINISHED = (
    f"EXISTS (SELECT 1 FROM job WHERE {_OPEN} AND {_NOT_GIVEN_UP}"
    f" AND job.study_instance_uid = study_arrival.study_instance_uid AND {ANALYSIS} = :after{{}})"
)


def unfinished(
    connection: sqlite3.Connection, study_instance_uid: str, *, besides_job: int | None = None
) -> set[str]:
    """Analyses of a study whose selection or runs wait, are under way or are parked.

    ``besides_job`` is not looked at.
    """
    rows = connection.execute(
        f"SELECT DISTINCT {ANALYSIS} FROM job WHERE {_OPEN} AND {_NOT_GIVEN_UP}"
        " AND study_instance_uid = ? AND id IS NOT ?",
        (study_instance_uid, besides_job),
    )
    return {row[0] for row in rows}


def supersede(
    connection: sqlite3.Connection,
    study_instance_uid: str,
    analysis: str,
    is_of: Callable[[str], bool],
    *,
    at: float,
    with_failed: bool = False,
) -> list[tuple[str, int]]:
    """End the runs of an analysis that nobody has begun, as a newer selection replaces them.

    Also those that are parked, and ``with_failed`` those that were given up. ``is_of`` says of which
    series; return (series, revision) of what ended.
    """
    jobs = connection.execute(
        "SELECT id, json_extract(payload, '$.series_instance_uid'), json_extract(payload, '$.revision')"
        f" FROM job WHERE {_OPEN} AND ({_NOT_GIVEN_UP} OR ?) AND kind = 'analyze'"
        f" AND state <> 'leased' AND study_instance_uid = ? AND {ANALYSIS} = ?",
        (with_failed, study_instance_uid, analysis),
    ).fetchall()
    ended = [(job[0], (str(job[1]), int(job[2]))) for job in jobs if is_of(str(job[1]))]
    connection.executemany(
        "UPDATE job SET state = 'done', finished_at = ?, error_name = '', error = '', action = '',"
        " failed_at = NULL WHERE id = ?",
        [(at, job_id) for job_id, _ in ended],
    )
    return [run for _, run in ended]
