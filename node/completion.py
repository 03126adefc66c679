"""When a study is complete, and what came of its analyses; all of it in the database.

Each arrival from outside re-arms the study: its revision grows and its quiet period begins anew.
When it was quiet long enough for an analysis, that analysis is *due* for the revision, and is marked
*fired* in the transaction that enqueues its job. A study for which every analysis fired is closed: it
leaves the partial index, and costs nothing until another instance arrives.

An analysis that comes ``after`` others is due only when these are *over* for the revision: each has
fired, and neither its selection nor one of its runs waits, is under way or is parked.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from node import confirmations
from node.clock import Clock
from node.config.settings import AnalysisConfig, Config
from node.jobs import queue

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
    *confirmations.SCHEMA,
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

#: In the payload of a selection that waits for an earlier study to arrive: since when.
WAITS_SINCE = "waits_since"

_RUN_COLUMNS = (
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


# Whether an analysis, by the name of its parameter, has fired for the revision of a row of study_arrival.
_FIRED = (
    "EXISTS (SELECT 1 FROM study_fired"
    " WHERE study_fired.study_instance_uid = study_arrival.study_instance_uid"
    " AND study_fired.analysis = :{} AND study_fired.revision = study_arrival.revision)"
)


def input_digest(instances: Iterable[tuple[str, str]]) -> str:
    """SHA-256 in hex over the sorted (SOP Instance UID, data set SHA-256) of a series.

    Two selections with one digest see the same bytes, in whatever order they came.
    """
    digest = hashlib.sha256()
    for sop_instance_uid, data_set_sha256 in sorted(instances):
        digest.update(f"{sop_instance_uid} {data_set_sha256}\n".encode("ascii"))
    return digest.hexdigest()


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
        """Re-arm a study because a person wants it, with the runs that failed or whose results are lost.

        What has results is asked for once more as well: its run finds out whether the model is another one
        now, and leaves all as it is where nothing is.
        """
        connection.execute(
            "UPDATE analysis_run SET state = ? WHERE study_instance_uid = ? AND state IN (?, ?)",
            (WANTED, study_instance_uid, FAILED, INCOMPLETE),
        )
        connection.execute(
            "UPDATE analysis_run SET selected_digest = '' WHERE study_instance_uid = ? AND state IN (?, ?)",
            (study_instance_uid, COMPLETED, UNCHANGED),
        )
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
            if (analysis := self.analysis(name)) is not None
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
            conditions += [_FIRED.format(f"after{number}"), f"NOT {queue.IS_UNFINISHED.format(number)}"]
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
        unfinished = queue.unfinished_analyses(connection, study_instance_uid, besides_job=besides_job)
        now = self._clock.timestamp()
        ready = {
            one.name
            for one in those
            if last_arrival + self._config.quiet_seconds(one) <= now
            and not self._waits_for(connection, one, study_instance_uid, revision, unfinished)
        }
        # What comes after one of them as well has its turn when that is over.
        return [
            (study_instance_uid, one.name, revision)
            for one in those
            if one.name in ready and not ready & self._before(one.name)
        ]

    def _before(self, name: str) -> set[str]:
        """All analyses that have to be over before one, those that these wait for included."""
        after = {analysis.name: analysis.after for analysis in self._config.analyses}
        found: set[str] = set()
        ahead = [*after[name]]
        while ahead:
            one = ahead.pop()
            if one not in found:
                found.add(one)
                ahead += after.get(one, ())
        return found

    def _waits_for(
        self,
        connection: sqlite3.Connection,
        analysis: AnalysisConfig,
        study_instance_uid: str,
        revision: int,
        unfinished: Collection[str],
    ) -> list[str]:
        """Those of ``analysis.after`` that are not over."""
        fired = self._fired(connection, study_instance_uid)
        return [one for one in analysis.after if fired.get(one) != revision or one in unfinished]

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
        unfinished = queue.unfinished_analyses(connection, study_instance_uid)
        return [
            {
                "analysis": analysis.name,
                "revision": revision,
                "last_arrival": last_arrival,
                "quiet_seconds": self._config.quiet_seconds(analysis),
                "due_at": last_arrival + self._config.quiet_seconds(analysis),
                "waits_for": self._waits_for(connection, analysis, study_instance_uid, revision, unfinished),
            }
            for analysis in self._config.analyses
            if fired.get(analysis.name) != revision
        ]

    def move_times(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Move the quiet period of every open study by ``seconds``, because the clock was set by as much."""
        connection.execute(
            "UPDATE study_arrival SET last_arrival = last_arrival + ? WHERE is_open = 1", (seconds,)
        )

    def analysis(self, name: str) -> AnalysisConfig | None:
        """The configured analysis of this name; None when it was taken out meanwhile."""
        return next((found for found in self._config.analyses if found.name == name), None)

    # --- runs ----------------------------------------------------------------

    def record_selection(
        self,
        connection: sqlite3.Connection,
        *,
        study_instance_uid: str,
        series_instance_uid: str,
        analysis: str,
        revision: int,
        selected_digest: str,
        started_at: float,
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
                self._clock.timestamp(),
                *(COMPLETED, INCOMPLETE, UNCHANGED),
            ),
        )

    def supersede(
        self,
        connection: sqlite3.Connection,
        study_instance_uid: str,
        analysis: str,
        runs: Iterable[tuple[str, int]],
    ) -> None:
        """Mark runs, by series and revision, that nobody has begun and that a newer selection replaces."""
        connection.executemany(
            "UPDATE analysis_run SET state = ?, reason = ?, recorded_at = ? WHERE study_instance_uid = ?"
            " AND series_instance_uid = ? AND analysis = ? AND revision = ? AND state IN (?, ?)",
            [
                (
                    SUPERSEDED,
                    "the study was looked at again before it began",
                    self._clock.timestamp(),
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

    def record_run(
        self,
        connection: sqlite3.Connection,
        *,
        study_instance_uid: str,
        series_instance_uid: str = "",
        analysis: str,
        revision: int,
        state: str,
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
                self._clock.timestamp(),
                sr_series_instance_uid,
                sr_sop_class_uid,
                sr_sop_instance_uid,
                json.dumps(list(result_sop_instance_uids)),
                json.dumps({name: list(values) for name, values in (facts or {}).items()}),
            ),
        )

    def drop_unseen(
        self, connection: sqlite3.Connection, study_instance_uid: str, analysis: str, seen: Collection[str]
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
                self._clock.timestamp(),
                study_instance_uid,
                analysis,
                *kept,
                *seen,
            ),
        )

    def forget_no_match(
        self, connection: sqlite3.Connection, study_instance_uid: str, analysis: str, revision: int
    ) -> None:
        """Forget that no series matched, as one does now that an analysis before it was done once more."""
        connection.execute(
            "DELETE FROM analysis_run WHERE study_instance_uid = ? AND series_instance_uid = ''"
            " AND analysis = ? AND revision = ? AND state = ?",
            (study_instance_uid, analysis, revision, NO_MATCH),
        )

    def found(
        self,
        connection: sqlite3.Connection,
        study_instance_uid: str,
        series_instance_uid: str,
        analysis: str,
    ) -> dict[str, tuple[str, ...]] | str:
        """What the latest run of an analysis found in a series, or in a few words why there is nothing."""
        last = standing_run(connection, study_instance_uid, series_instance_uid, analysis)
        if last is None:
            return "does not see this series"
        if last["state"] not in (COMPLETED, INCOMPLETE):
            return f"has no result for this series ({last['state']})"
        return {name: tuple(values) for name, values in last["facts"].items()}

    def runs(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[dict[str, Any]]:
        """Every run of a study, the oldest first; one key for each argument of ``record_run``."""
        return _runs(connection, "study_instance_uid = ? ORDER BY revision, id", (study_instance_uid,))

    def completed_runs(
        self,
        connection: sqlite3.Connection,
        study_instance_uid: str,
        series_instance_uid: str,
        analysis: str,
    ) -> list[dict[str, Any]]:
        """The runs of a series that left results of whatever kind, the latest revision first."""
        return _completed_runs(connection, study_instance_uid, series_instance_uid, analysis)

    def last_selection(
        self,
        connection: sqlite3.Connection,
        study_instance_uid: str,
        series_instance_uid: str,
        analysis: str,
    ) -> dict[str, Any] | None:
        """The latest run of a series, whatever became of it; ``selected_digest`` says what it saw."""
        return _last_run(connection, study_instance_uid, series_instance_uid, analysis)


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


# --- reading runs ---------------------------------------------------------------


def standing_run(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> dict[str, Any] | None:
    """The latest run of a series, or where that found all unchanged, the one that left the results.

    None where there is none. Its results are those of the series as it is now; where its state is neither
    'completed' nor 'incomplete', there are none, whatever an earlier run left.
    """
    last = _last_run(connection, study_instance_uid, series_instance_uid, analysis)
    if last is None or last["state"] != UNCHANGED:
        return last
    completed = _completed_runs(connection, study_instance_uid, series_instance_uid, analysis)
    return completed[0] if completed else last


def _last_run(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> dict[str, Any] | None:
    runs = _runs(
        connection,
        "study_instance_uid = ? AND series_instance_uid = ? AND analysis = ? ORDER BY revision DESC LIMIT 1",
        (study_instance_uid, series_instance_uid, analysis),
    )
    return runs[0] if runs else None


def _completed_runs(
    connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str, analysis: str
) -> list[dict[str, Any]]:
    return _runs(
        connection,
        "study_instance_uid = ? AND series_instance_uid = ? AND analysis = ? AND state IN (?, ?)"
        " ORDER BY revision DESC",
        (study_instance_uid, series_instance_uid, analysis, COMPLETED, INCOMPLETE),
    )


def _runs(connection: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
    rows = connection.execute(f"SELECT {', '.join(_RUN_COLUMNS)} FROM analysis_run WHERE {condition}", values)
    runs = [dict(zip(_RUN_COLUMNS, tuple(row), strict=True)) for row in rows]
    for run in runs:
        run["result_sop_instance_uids"] = json.loads(run["result_sop_instance_uids"])
        run["facts"] = json.loads(run["facts"])
    return runs
