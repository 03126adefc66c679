"""When a study is complete; all of it in the database.

Each arrival from outside re-arms the study: its revision grows and its quiet period begins anew.
When it was quiet long enough for an analysis, that analysis is *due* for the revision, and is marked
*fired* in the transaction that enqueues its job. A study for which every analysis fired is closed: it
leaves the partial index, and costs nothing until another instance arrives.

An analysis that comes ``after`` others is due only when these are over for the revision (`node/chains.py`).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from typing import Any

from node import analysis_runs, chains
from node.clock import Clock
from node.config.settings import AnalysisConfig, Config
from node.jobs import analysis_jobs

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS study_arrival (
        study_instance_uid TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        last_arrival REAL NOT NULL,
        is_open INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS study_arrival_open ON study_arrival (last_arrival) WHERE is_open = 1",
    """CREATE TABLE IF NOT EXISTS study_fired (
        study_instance_uid TEXT NOT NULL,
        analysis TEXT NOT NULL,
        revision INTEGER NOT NULL,
        fired_at REAL NOT NULL,
        PRIMARY KEY (study_instance_uid, analysis)
    ) WITHOUT ROWID""",
)

#: In the payload of a selection that waits for an earlier study to arrive: since when.
WAITS_SINCE = "waits_since"

# Whether an analysis, by the name of its parameter, has fired for the revision of a row of study_arrival.
_FIRED = (
    "EXISTS (SELECT 1 FROM study_fired"
    " WHERE study_fired.study_instance_uid = study_arrival.study_instance_uid"
    " AND study_fired.analysis = :{} AND study_fired.revision = study_arrival.revision)"
)


class Completion:
    """The completion state of studies. Every method runs in the caller's transaction."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    # --- arrivals ------------------------------------------------------------

    def arrived(
        self, connection: sqlite3.Connection, study_instance_uid: str, last_arrival: float, count: int = 1
    ) -> None:
        """Re-arm a study for which instances came from outside; never for what anode made.

        ``last_arrival`` in seconds since the epoch; ``count`` says how many came.
        """
        connection.execute(
            "INSERT INTO study_arrival (study_instance_uid, revision, last_arrival, is_open)"
            " VALUES (:study, :count, :last_arrival, :is_open) ON CONFLICT (study_instance_uid)"
            " DO UPDATE SET revision = revision + :count,"
            " last_arrival = :last_arrival, is_open = :is_open",
            {
                "study": study_instance_uid,
                "count": count,
                "last_arrival": last_arrival,
                # Without analyses nothing would ever close it again.
                "is_open": bool(self._config.analyses),
            },
        )

    def select_again(
        self, connection: sqlite3.Connection, study_instance_uid: str, last_arrival: float
    ) -> None:
        """Re-arm a study because a person wants it, whatever came of its analyses before."""
        analysis_runs.want_again(connection, study_instance_uid)
        self.arrived(connection, study_instance_uid, last_arrival)

    def arrived_before(self, connection: sqlite3.Connection) -> None:
        """Note the arrival of all that the index holds, as closed: for an index that was made again.

        What was imported to start nothing never arrived. A revision is never lower than that of a
        run; more instances raise it further.
        """
        connection.execute(
            "INSERT INTO study_arrival (study_instance_uid, revision, last_arrival, is_open)"
            " SELECT study.StudyInstanceUID, MAX(COUNT(*), COALESCE((SELECT MAX(revision) FROM analysis_run"
            " WHERE analysis_run.study_instance_uid = study.StudyInstanceUID), 0)),"
            " MAX(instance.received_at), 0 FROM instance JOIN series ON series.id = instance.series_id"
            " JOIN study ON study.id = series.study_id WHERE NOT instance.is_own"
            " AND NOT COALESCE(json_extract(instance.provenance, '$.starts_nothing'), 0) GROUP BY study.id"
        )

    def rearm(self, connection: sqlite3.Connection, *, seconds: float) -> int:
        """Open the studies that arrived within ``seconds`` before the last one; return how many.

        Not those that hold a result of which nobody knows the run: it might be made again.
        """
        if not self._config.analyses:
            return 0
        return connection.execute(
            "UPDATE study_arrival SET is_open = 1"
            " WHERE last_arrival >= (SELECT MAX(last_arrival) FROM study_arrival) - ?"
            " AND study_instance_uid NOT IN (SELECT study.StudyInstanceUID FROM instance"
            " JOIN series ON series.id = instance.series_id JOIN study ON study.id = series.study_id"
            " WHERE instance.is_own AND json_extract(instance.provenance, '$.run') IS NULL)",
            (seconds,),
        ).rowcount

    def due(self, connection: sqlite3.Connection, *, now: float | None = None) -> list[tuple[str, str, int]]:
        """(Study Instance UID, analysis, revision) that are due and have not fired.

        ``now`` in seconds since the epoch: infinity is for all that have not fired.
        """
        now = self._clock.timestamp() if now is None else now
        return [
            (row[0], analysis.name, row[1])
            for analysis in self._config.analyses
            for row in self._due(connection, analysis, now)
        ]

    def still_due(
        self, connection: sqlite3.Connection, found: Iterable[tuple[str, str, int]]
    ) -> list[tuple[str, str, int]]:
        """Those of what ``due`` found before that are due now; nothing else is looked at."""
        now = self._clock.timestamp()
        return [
            (study_instance_uid, name, row[1])
            for study_instance_uid, name, _ in found
            if (analysis := self._config.analysis(name)) is not None
            for row in self._due(connection, analysis, now, study_instance_uid)
        ]

    def _due(
        self,
        connection: sqlite3.Connection,
        analysis: AnalysisConfig,
        now: float,
        study_instance_uid: str | None = None,
    ) -> list[tuple[str, int]]:
        """(Study Instance UID, revision) for which one analysis is due, of all studies or of one."""
        values = {
            "latest": now - self._config.quiet_seconds(analysis),
            "analysis": analysis.name,
            "study": study_instance_uid,
        }
        conditions = ["is_open = 1", "last_arrival <= :latest", f"NOT {_FIRED.format('analysis')}"]
        if study_instance_uid is not None:
            conditions.append("study_instance_uid = :study")
        for number, one in enumerate(analysis.after if now != math.inf else ()):
            values[f"after{number}"] = one
            is_unfinished = analysis_jobs.IS_UNFINISHED.format(number)
            conditions += [_FIRED.format(f"after{number}"), f"NOT {is_unfinished}"]
        rows = connection.execute(
            f"SELECT study_instance_uid, revision FROM study_arrival WHERE {' AND '.join(conditions)}"
            " ORDER BY last_arrival",
            values,
        )
        return [(row[0], row[1]) for row in rows]

    def followers(
        self,
        connection: sqlite3.Connection,
        study_instance_uid: str,
        analysis: str,
        *,
        besides_job: int | None = None,
    ) -> list[tuple[str, str, int]]:
        """Those of a study, as of ``due``, that were waiting for ``analysis`` and for nothing else.

        Also those that have fired already: they are to look again at what ``analysis`` has found since.
        ``besides_job`` is the job that is just ending.
        """
        row = connection.execute(
            "SELECT revision, last_arrival FROM study_arrival WHERE study_instance_uid = ?",
            (study_instance_uid,),
        ).fetchone()
        those = [one for one in self._config.analyses if analysis in one.after]
        if row is None or not those:
            return []
        revision, last_arrival = row
        unfinished = analysis_jobs.unfinished(connection, study_instance_uid, besides_job=besides_job)
        fired = self._fired(connection, study_instance_uid)
        now = self._clock.timestamp()
        ready = [
            one
            for one in those
            if last_arrival + self._config.quiet_seconds(one) <= now
            and not chains.waits_for(one, revision, fired, unfinished)
        ]
        return [
            (study_instance_uid, one.name, revision) for one in chains.next_of(ready, self._config.analyses)
        ]

    def _fired(self, connection: sqlite3.Connection, study_instance_uid: str) -> dict[str, int]:
        """The revision for which each analysis has fired last."""
        rows = connection.execute(
            "SELECT analysis, revision FROM study_fired WHERE study_instance_uid = ?", (study_instance_uid,)
        )
        return {row[0]: row[1] for row in rows}

    def fired(
        self, connection: sqlite3.Connection, study_instance_uid: str, analysis: str, revision: int
    ) -> None:
        """Mark an analysis as enqueued for a revision; the study closes when all of them are."""
        connection.execute(
            "INSERT INTO study_fired (study_instance_uid, analysis, revision, fired_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (study_instance_uid, analysis)"
            " DO UPDATE SET revision = excluded.revision, fired_at = excluded.fired_at",
            (study_instance_uid, analysis, revision, self._clock.timestamp()),
        )
        fired = {
            row[0]
            for row in connection.execute(
                "SELECT analysis FROM study_fired JOIN study_arrival USING (study_instance_uid, revision)"
                " WHERE study_instance_uid = ?",
                (study_instance_uid,),
            )
        }
        if fired.issuperset(analysis.name for analysis in self._config.analyses):
            connection.execute(
                "UPDATE study_arrival SET is_open = 0 WHERE study_instance_uid = ?", (study_instance_uid,)
            )

    def has_fired_since(
        self, connection: sqlite3.Connection, study_instance_uid: str, analysis: str, revision: int
    ) -> bool:
        """Whether an analysis was enqueued for a later revision than this."""
        return self._fired(connection, study_instance_uid).get(analysis, revision) > revision

    def quiet_at(
        self, connection: sqlite3.Connection, study_instance_uid: str, analysis: AnalysisConfig
    ) -> float:
        """When a study will have been quiet for long enough, if nothing comes; 0 when nothing ever came."""
        row = connection.execute(
            "SELECT last_arrival FROM study_arrival WHERE study_instance_uid = ?", (study_instance_uid,)
        ).fetchone()
        return 0.0 if row is None else float(row[0]) + self._config.quiet_seconds(analysis)

    def waiting(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[dict[str, Any]]:
        """Analyses that have not fired: analysis, revision, last_arrival, quiet_seconds, due_at, waits_for.

        ``waits_for`` names the analyses that have to be over first and are not.
        """
        row = connection.execute(
            "SELECT revision, last_arrival FROM study_arrival WHERE study_instance_uid = ? AND is_open = 1",
            (study_instance_uid,),
        ).fetchone()
        if row is None:
            return []
        revision, last_arrival = row[0], row[1]
        fired = self._fired(connection, study_instance_uid)
        unfinished = analysis_jobs.unfinished(connection, study_instance_uid)
        return [
            {
                "analysis": analysis.name,
                "revision": revision,
                "last_arrival": last_arrival,
                "quiet_seconds": self._config.quiet_seconds(analysis),
                "due_at": last_arrival + self._config.quiet_seconds(analysis),
                "waits_for": chains.waits_for(analysis, revision, fired, unfinished),
            }
            for analysis in self._config.analyses
            if fired.get(analysis.name) != revision
        ]

    def move_times(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Move the quiet period of every open study by ``seconds``, because the clock was set by as much."""
        connection.execute(
            "UPDATE study_arrival SET last_arrival = last_arrival + ? WHERE is_open = 1", (seconds,)
        )
