"""Which results a peer confirmed to hold, by the Storage Commitment Push Model (PS3.4 annex J).

One row for each delivered result and peer, and one for each request: an answer is believed only from
the peer that was asked, under the Transaction UID with which it was asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS confirmation (
        peer TEXT NOT NULL,
        sop_instance_uid TEXT NOT NULL,
        sop_class_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        state TEXT NOT NULL,
        failure_reason INTEGER,
        failures INTEGER NOT NULL DEFAULT 0,
        changed_at REAL NOT NULL,
        PRIMARY KEY (peer, sop_instance_uid)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS confirmation_study ON confirmation (study_instance_uid, peer)",
    """CREATE TABLE IF NOT EXISTS confirmation_request (
        transaction_uid TEXT PRIMARY KEY,
        peer TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        asked_at REAL NOT NULL
    ) WITHOUT ROWID""",
)

WANTED = "wanted"
ASKED = "asked"
HELD = "held"
REFUSED = "failed"
NOT_OFFERED = "not-offered"
SENT_AGAIN = "sent-again"


@dataclass(frozen=True)
class Confirmation:
    """What a peer said about one result.

    ``state`` is 'wanted' (delivered, not asked yet), 'asked', 'held', 'failed' (``failure_reason`` is
    the peer's, PS3.3 section C.14), 'sent-again' (a second delivery is on its way) or 'not-offered' (the
    peer does no storage commitment).
    ``failures`` counts how often the peer said that it does not hold it.
    """

    peer: str
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    state: str
    failure_reason: int | None
    failures: int
    changed_at: float


_COLUMNS = (
    "peer, sop_instance_uid, sop_class_uid, study_instance_uid, state, failure_reason, failures, changed_at"
)


def move_times(connection: sqlite3.Connection, seconds: float) -> None:
    """Move what waits for a report by ``seconds``, because the clock was set by as much."""
    connection.execute(
        "UPDATE confirmation SET changed_at = changed_at + ? WHERE state <> ?", (seconds, HELD)
    )


def want(
    connection: sqlite3.Connection,
    *,
    peer: str,
    sop_instance_uid: str,
    sop_class_uid: str,
    study_instance_uid: str,
    at: float,
) -> None:
    """Note that a result was delivered and that ``peer`` shall confirm it; once more after a redelivery."""
    connection.execute(
        "INSERT INTO confirmation (peer, sop_instance_uid, sop_class_uid, study_instance_uid, state,"
        " changed_at) VALUES (?, ?, ?, ?, 'wanted', ?) ON CONFLICT (peer, sop_instance_uid)"
        " DO UPDATE SET state = 'wanted', changed_at = excluded.changed_at WHERE state <> 'held'",
        (peer, sop_instance_uid, sop_class_uid, study_instance_uid, at),
    )


def ask(
    connection: sqlite3.Connection,
    *,
    peer: str,
    study_instance_uid: str,
    transaction_uid: str,
    sop_instance_uids: Iterable[str],
    at: float,
) -> None:
    """Record a request before it is sent, so that an answer on any association finds it."""
    connection.execute(
        "INSERT INTO confirmation_request (transaction_uid, peer, study_instance_uid, asked_at)"
        " VALUES (?, ?, ?, ?)",
        (transaction_uid, peer, study_instance_uid, at),
    )
    mark(connection, peer=peer, sop_instance_uids=sop_instance_uids, state=ASKED, at=at)


def mark(
    connection: sqlite3.Connection, *, peer: str, sop_instance_uids: Iterable[str], state: str, at: float
) -> None:
    """Set the state of results that are not confirmed yet."""
    connection.executemany(
        "UPDATE confirmation SET state = ?, changed_at = ?"
        " WHERE peer = ? AND sop_instance_uid = ? AND state <> 'held'",
        [(state, at, peer, sop_instance_uid) for sop_instance_uid in sop_instance_uids],
    )


def answer(
    connection: sqlite3.Connection,
    *,
    peer: str,
    transaction_uid: str,
    held: Iterable[str],
    failed: Mapping[str, int],
    at: float,
) -> str | None:
    """Record an answer; return the Study Instance UID it is about, None when this was never asked.

    The first answer counts: only results that are still asked for change. An N-EVENT-REPORT that is
    repeated therefore changes nothing.
    """
    row = connection.execute(
        "SELECT study_instance_uid FROM confirmation_request WHERE transaction_uid = ? AND peer = ?",
        (transaction_uid, peer),
    ).fetchone()
    if row is None:
        return None
    for sop_instance_uid in held:
        connection.execute(
            "UPDATE confirmation SET state = 'held', failure_reason = NULL, changed_at = ?"
            " WHERE peer = ? AND sop_instance_uid = ? AND state = 'asked'",
            (at, peer, sop_instance_uid),
        )
    for sop_instance_uid, reason in failed.items():
        connection.execute(
            "UPDATE confirmation SET state = 'failed', failure_reason = ?, failures = failures + 1,"
            " changed_at = ? WHERE peer = ? AND sop_instance_uid = ? AND state = 'asked'",
            (reason, at, peer, sop_instance_uid),
        )
    return str(row[0])


def of_study(
    connection: sqlite3.Connection, study_instance_uid: str, peer: str | None = None
) -> list[Confirmation]:
    """Return what peers, or ``peer``, said about the results of a study."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM confirmation WHERE study_instance_uid = :study"
        " AND (:peer IS NULL OR peer = :peer) ORDER BY peer, sop_instance_uid",
        {"study": study_instance_uid, "peer": peer},
    )
    return [Confirmation(*tuple(row)) for row in rows]
