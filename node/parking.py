"""Analyses that are parked: their models failed again and again, and wait until an operator has looked.

A model that crashes, hangs or needs too much memory fails one job. So many series in a row as
``FAILURES_TO_PARK``, with no run that ended well or by a refusal of the model between, park the
analysis. A start of the node does not unpark it.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from node import alarms

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS failed_analysis (
        analysis TEXT NOT NULL,
        failed_over TEXT NOT NULL,
        PRIMARY KEY (analysis, failed_over)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS analysis_parked (
        analysis TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        parked_at REAL NOT NULL
    ) WITHOUT ROWID""",
)

FAILURES_TO_PARK = 3
_MOST_CHARACTERS = 160


@dataclass(frozen=True)
class Parked:
    """Why an analysis is parked: its last failure, and when that was, in seconds since the epoch."""

    reason: str
    since: float

    @property
    def shortened(self) -> str:
        """The reason in one line; of a long one the ends, for a traceback ends with the cause."""
        told = " ".join(self.reason.split())
        half = _MOST_CHARACTERS // 2
        return told if len(told) <= _MOST_CHARACTERS else f"{told[:half]} … {told[-half:]}"


def crashed(connection: sqlite3.Connection, analysis: str, over: str, reason: str, now: float) -> bool:
    """Count a job that its model failed; return whether the analysis is parked now.

    ``over`` names what the model was given: however often it fails over one series, that counts once.
    """
    connection.execute("INSERT OR IGNORE INTO failed_analysis VALUES (?, ?)", (analysis, over))
    (failures,) = connection.execute(
        "SELECT COUNT(*) FROM failed_analysis WHERE analysis = ?", (analysis,)
    ).fetchone()
    if failures < FAILURES_TO_PARK:
        return False
    connection.execute("INSERT OR IGNORE INTO analysis_parked VALUES (?, ?, ?)", (analysis, reason, now))
    return True


def succeeded(connection: sqlite3.Connection, analysis: str) -> None:
    """Forget the failures of an analysis that is not parked: its model works."""
    connection.execute(
        "DELETE FROM failed_analysis WHERE analysis = :analysis"
        " AND NOT EXISTS (SELECT 1 FROM analysis_parked WHERE analysis = :analysis)",
        {"analysis": analysis},
    )


def unpark(connection: sqlite3.Connection, analysis: str) -> None:
    """Let an analysis run again, with no failure counted."""
    connection.execute("DELETE FROM analysis_parked WHERE analysis = ?", (analysis,))
    connection.execute("DELETE FROM failed_analysis WHERE analysis = ?", (analysis,))


def parked(connection: sqlite3.Connection) -> dict[str, Parked]:
    """The analyses that are parked."""
    rows = connection.execute(
        "SELECT analysis, reason, parked_at FROM analysis_parked ORDER BY parked_at, analysis"
    )
    return {row[0]: Parked(row[1], row[2]) for row in rows}


def configured(found: Mapping[str, Parked], names: Collection[str]) -> dict[str, Parked]:
    """Those of the parked analyses that are in the configuration: nobody misses the others."""
    return {name: one for name, one in found.items() if name in names}


def tell(data_dir: Path, found: Mapping[str, Parked], now: float, *, of_anyone: bool = False) -> None:
    """Raise an alarm for each analysis that is parked, and clear those of all others.

    ``of_anyone`` is as of ``clear_alarm``.
    """
    alarms.clear_alarm(data_dir, alarms.ANALYSIS_PARKED, of_anyone=of_anyone, besides=found)
    for name, one in found.items():
        message = f"analysis {name} {told(name, one)}"
        alarms.raise_alarm(data_dir, alarms.ANALYSIS_PARKED, message, now, about=name, since=one.since)


def told(name: str, one: Parked, options: str = "") -> str:
    """Say that an analysis is parked, what lets it run again, and why it is."""
    return (
        f"is parked; 'anode retry --analysis {shlex.quote(name)}{options}' lets it run again. Its model "
        f"failed over {FAILURES_TO_PARK} series in a row, the last time: {one.shortened}"
    )
