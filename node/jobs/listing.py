"""What there is to be done, for those who look at it: what waits, runs or was set aside, and why."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any


def jobs(
    connection: sqlite3.Connection,
    *,
    study_instance_uid: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """List jobs, the latest first.

    Keys: id, kind, key, lane, payload, study_instance_uid, state, attempts, created_at,
    next_try_at (None unless ready), finished_at, failed_at, error_name, error, action. A job
    whose lane is blocked shows the error of the lane.
    """
    wanted = {"study_instance_uid": study_instance_uid, "state": state, "kind": kind}
    conditions = [f"job.{column} = :{column}" for column, value in wanted.items() if value is not None]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(
        "SELECT job.id, job.kind, job.key, job.lane, job.payload, job.study_instance_uid, job.state,"
        " job.attempts, job.created_at, job.finished_at, job.due_at, job_lane.blocked_until,"
        " job.failed_at, job.error_name, job.error, job.action, job_lane.failed_at,"
        " job_lane.error_name, job_lane.error, job_lane.action"
        " FROM job LEFT JOIN job_lane ON job_lane.kind = job.kind AND job_lane.lane = job.lane"
        f" AND job.state = 'ready' {where} ORDER BY job.id DESC LIMIT :limit",
        {**wanted, "limit": limit},
    )
    return [_row(tuple(row)) for row in rows]


def counts(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Unfinished jobs by state ('ready', 'leased', 'set_aside') and kind; done jobs are not counted."""
    by_state: dict[str, dict[str, int]] = {}
    # The state is written out, so that each query is answered from its partial index.
    for state in ("ready", "leased", "set_aside"):
        rows = connection.execute(f"SELECT kind, COUNT(*) FROM job WHERE state = '{state}' GROUP BY kind")
        by_state[state] = {row[0]: row[1] for row in rows}
    return by_state


def open_by_lane(connection: sqlite3.Connection, kind: str) -> Counter[str]:
    """How many jobs of a kind wait, run or are set aside, by their lanes."""
    # each by the index of its state; what is done may be a hundred times as much
    rows = connection.execute(
        "SELECT lane, COUNT(*) FROM ("
        "SELECT lane FROM job WHERE state = 'ready' AND kind = :kind"
        " UNION ALL SELECT lane FROM job WHERE state = 'leased' AND kind = :kind"
        " UNION ALL SELECT lane FROM job WHERE state = 'set_aside' AND +kind = :kind"
        ") GROUP BY lane",
        {"kind": kind},
    )
    return Counter({row[0]: row[1] for row in rows})


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    state, due_at, blocked_until = row[6], row[10], row[11]
    failed_at, error_name, error, action = row[12:16] if blocked_until is None else row[16:20]
    return {
        "id": row[0],
        "kind": row[1],
        "key": row[2],
        "lane": row[3],
        "payload": json.loads(row[4]),
        "study_instance_uid": row[5],
        "state": state,
        "attempts": row[7],
        "created_at": row[8],
        "finished_at": row[9],
        "next_try_at": max(due_at, blocked_until or 0.0) if state == "ready" else None,
        "failed_at": failed_at,
        "error_name": error_name,
        "error": error,
        "action": action,
    }
