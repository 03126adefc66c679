"""Analyses that are parked: their models failed again and again, and wait until an operator has looked.

A model that crashes, hangs or needs too much memory fails one job. ``FAILURES_TO_PARK`` of them in a row,
with no run that ended well between, park the analysis. A start of the node does not unpark it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node import alarms

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS analysis_failure (
        analysis TEXT PRIMARY KEY,
        failures INTEGER NOT NULL,
        reason TEXT NOT NULL,
        parked_at REAL
    ) WITHOUT ROWID""",
)

FAILURES_TO_PARK = 3


@dataclass(frozen=True)
class Parked:
    """Why an analysis is parked: its last failure, and when that was, in seconds since the epoch."""

    reason: str
    since: float


def crashed(connection: sqlite3.Connection, analysis: str, reason: str, now: float) -> bool:
    """Count a job that its model failed; return whether the analysis is parked now."""
    row = connection.execute(
        "INSERT INTO analysis_failure (analysis, failures, reason) VALUES (:analysis, 1, :reason)"
        " ON CONFLICT (analysis) DO UPDATE SET failures = failures + 1,"
        " reason = CASE WHEN parked_at IS NULL THEN :reason ELSE reason END"
        " RETURNING failures",
        {"analysis": analysis, "reason": reason},
    ).fetchone()
    is_parked = int(row[0]) >= FAILURES_TO_PARK
    if is_parked:
        connection.execute(
            "UPDATE analysis_failure SET parked_at = ? WHERE analysis = ? AND parked_at IS NULL",
            (now, analysis),
        )
    return is_parked


def succeeded(connection: sqlite3.Connection, analysis: str) -> None:
    """Forget the failures of an analysis that is not parked: its model works."""
    connection.execute("DELETE FROM analysis_failure WHERE analysis = ? AND parked_at IS NULL", (analysis,))


def unpark(connection: sqlite3.Connection, analysis: str) -> None:
    """Let an analysis run again, with no failure counted."""
    connection.execute("DELETE FROM analysis_failure WHERE analysis = ?", (analysis,))


def parked(connection: sqlite3.Connection) -> dict[str, Parked]:
    """The analyses that are parked."""
    rows = connection.execute(
        "SELECT analysis, reason, parked_at FROM analysis_failure WHERE parked_at IS NOT NULL"
        " ORDER BY parked_at, analysis"
    )
    return {row[0]: Parked(row[1], row[2]) for row in rows}


def tell(data_dir: Path, found: Mapping[str, Parked], now: float, *, of_anyone: bool = False) -> None:
    """Raise the alarm for analyses that are parked, or clear it where none is.

    ``of_anyone`` is as of ``clear_alarm``.
    """
    if not found:
        alarms.clear_alarm(data_dir, alarms.ANALYSIS_PARKED, of_anyone=of_anyone)
        return
    told = [f"analysis {name} ({one.reason}); 'anode retry --analysis {name}'" for name, one in found.items()]
    message = f"parked after {FAILURES_TO_PARK} failures in a row: {', '.join(told)} lets it run again"
    alarms.raise_alarm(data_dir, alarms.ANALYSIS_PARKED, message, now)
