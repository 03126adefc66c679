"""The durable queue of jobs: a table, its leases, and the lanes that wait for a peer.

A job is *ready* (due at ``due_at``), *leased* (a worker of ``lease_owner`` runs it), *done*, or
*set_aside* (a person has to look). Only ready and leased jobs are looked at by the workers, through
partial indexes, so jobs that are done cost nothing.

A *lane* groups the jobs that share a fate: those for one peer. A lane that failed as a whole is
blocked until ``blocked_until``. No two jobs of a named lane run at once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from node.clock import Clock
from node.errors import AnodeError, LeaseLost, NodeDied
from node.index.database import Database
from node.jobs import analysis_jobs
from node.jobs.task import Job
from node.jobs.wakeup import Wakeup

SCHEMA: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS job (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        lane TEXT NOT NULL DEFAULT '',
        payload TEXT NOT NULL DEFAULT '{}',
        study_instance_uid TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'done', 'set_aside')),
        attempts INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0,
        runs_alone INTEGER NOT NULL DEFAULT 0,
        is_wanted_again INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        since REAL NOT NULL,
        due_at REAL NOT NULL,
        lease_number INTEGER NOT NULL DEFAULT 0,
        lease_owner TEXT,
        lease_until REAL,
        finished_at REAL,
        failed_at REAL,
        error_name TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        action TEXT NOT NULL DEFAULT '',
        UNIQUE (kind, key)
    )""",
    "CREATE INDEX IF NOT EXISTS job_ready ON job (kind, due_at, id) WHERE state = 'ready'",
    "CREATE INDEX IF NOT EXISTS job_ready_lane ON job (kind, lane, due_at, id) WHERE state = 'ready'",
    "CREATE INDEX IF NOT EXISTS job_leased ON job (kind, lane) WHERE state = 'leased'",
    "CREATE INDEX IF NOT EXISTS job_set_aside ON job (id) WHERE state = 'set_aside'",
    "CREATE INDEX IF NOT EXISTS job_done ON job (finished_at) WHERE state = 'done'",
    analysis_jobs.INDEX,
    "CREATE INDEX IF NOT EXISTS job_study ON job (study_instance_uid, id)",
    """CREATE TABLE IF NOT EXISTS job_lane (
        kind TEXT NOT NULL,
        lane TEXT NOT NULL,
        blocked_until REAL NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        failed_at REAL,
        error_name TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        action TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (kind, lane)
    ) WITHOUT ROWID""",
)

_ENQUEUE = (
    "INSERT INTO job (kind, key, lane, payload, study_instance_uid, created_at, since, due_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ENQUEUE_AGAIN = (
    _ENQUEUE.removesuffix("DO NOTHING") + "(kind, key) DO UPDATE SET payload = excluded.payload,"
    " lane = excluded.lane, study_instance_uid = excluded.study_instance_uid, state = 'ready',"
    " attempts = 0, crashes = 0, runs_alone = 0, created_at = excluded.created_at,"
    " since = excluded.since, due_at = excluded.due_at, finished_at = NULL, failed_at = NULL,"
    " error_name = '', error = '', action = '' WHERE job.state IN ('done', 'set_aside')"
)

_WANT_AGAIN = (
    "UPDATE job SET payload = ?, lane = ?, is_wanted_again = (is_wanted_again OR state = 'leased')"
    " WHERE kind = ? AND key = ? AND state IN ('ready', 'leased')"
)

#: A job during which the node died so often is set aside: most likely it is the cause.
MOST_CRASHES = 10
#: The longest pause after a crash; the first repetition is at once.
CRASH_PAUSE_MAX_SECONDS = 10.0

_NOT_BLOCKED = (
    "NOT EXISTS (SELECT 1 FROM job_lane WHERE job_lane.kind = job.kind AND job_lane.lane = job.lane"
    " AND job_lane.blocked_until > :now)"
)
_COUNT_LEASED = "SELECT COUNT(*) FROM job WHERE state = 'leased' AND kind = ?"
_COUNT_DUE = (
    f"SELECT COUNT(*) FROM job WHERE state = 'ready' AND kind = :kind AND due_at <= :now AND {_NOT_BLOCKED}"
)
_LANE_IS_FREE = (
    "(job.lane = '' OR NOT EXISTS (SELECT 1 FROM job AS other"
    " WHERE other.state = 'leased' AND other.kind = job.kind AND other.lane = job.lane))"
)
# The one job that runs every few seconds for as long as a node does.
_THE_SWEEP = "kind = 'sweep' AND key = 'sweep'"
# A loose index scan: one probe for each lane, however many jobs wait in it.
_LANES = """WITH RECURSIVE waiting(lane) AS (
        SELECT MIN(lane) FROM job WHERE state = 'ready' AND kind = :kind
        UNION ALL
        SELECT (SELECT MIN(lane) FROM job WHERE state = 'ready' AND kind = :kind AND lane > waiting.lane)
        FROM waiting WHERE waiting.lane IS NOT NULL
    )
    SELECT waiting.lane, MAX(
        (SELECT MIN(due_at) FROM job WHERE state = 'ready' AND kind = :kind AND job.lane = waiting.lane),
        COALESCE((SELECT blocked_until FROM job_lane
                  WHERE job_lane.kind = :kind AND job_lane.lane = waiting.lane), 0)
    )
    FROM waiting WHERE waiting.lane IS NOT NULL"""


class Requeued(NamedTuple):
    """A job that is due again; ``analysis`` is empty for one that belongs to none."""

    id: int
    kind: str
    lane: str
    analysis: str


class Queue:
    """The only way to the table of jobs.

    Methods that take a connection run in the caller's transaction; the others make their own.
    """

    def __init__(self, clock: Clock, database: Database) -> None:
        self._clock = clock
        self._database = database
        self._wakeups: list[Wakeup] = []
        self._wakeups_lock = threading.Lock()

    # --- enqueueing ----------------------------------------------------------

    def enqueue(
        self,
        connection: sqlite3.Connection,
        kind: str,
        *,
        key: str,
        payload: dict[str, Any],
        lane: str = "",
        study_instance_uid: str = "",
        not_before: float | None = None,
        again: bool = False,
    ) -> bool:
        """Add a job, once for each (kind, key); return whether the job was added or revived.

        ``again`` makes a job of that key that is done or set aside ready again; one that runs now is run
        once more after it is done. In any state this payload counts from now on. Workers are woken at once:
        their lease is a write, which waits behind this transaction.
        """
        now = self._clock.timestamp()
        due_at = now if not_before is None else not_before
        encoded = json.dumps(payload)
        added = connection.execute(
            _ENQUEUE_AGAIN if again else _ENQUEUE,
            (kind, key, lane, encoded, study_instance_uid, now, due_at, due_at),
        ).rowcount
        if again and not added:
            connection.execute(_WANT_AGAIN, (encoded, lane, kind, key))
        if added:
            self._notify(kind)
        return added > 0

    def enqueue_all(
        self,
        connection: sqlite3.Connection,
        kind: str,
        jobs: Sequence[tuple[str, dict[str, Any], str]],
    ) -> None:
        """Add jobs of (key, payload, Study Instance UID) as ``enqueue`` does with ``again``."""
        now = self._clock.timestamp()
        encoded = [(key, json.dumps(payload), study) for key, payload, study in jobs]
        added = connection.executemany(
            _ENQUEUE_AGAIN,
            [(kind, key, "", payload, study, now, now, now) for key, payload, study in encoded],
        ).rowcount
        if added < len(jobs):
            # those that were added are not leased
            connection.executemany(_WANT_AGAIN, [(payload, "", kind, key) for key, payload, _ in encoded])
        self._notify(kind)

    # --- leasing -------------------------------------------------------------

    def lease(
        self, limits: Mapping[str, int], *, seconds: float, owner: str, lane: str | None = None
    ) -> list[Job]:
        """Take due jobs of one kind and lane, for ``seconds``.

        ``limits`` maps each kind to the most jobs of it that are taken. The first kind that has a due
        job wins; within it the oldest due job. With ``lane`` only that lane is looked at. A job that
        may have brought a worker down comes alone.
        """

        def work(connection: sqlite3.Connection) -> list[Job]:
            now = self._clock.timestamp()
            self._expire(connection, now, owner)
            for kind, limit in limits.items():
                jobs = self._lease(connection, kind, lane, now, limit, seconds, owner)
                if jobs:
                    return jobs
            return []

        # A lease that a loss of power takes is one that nobody holds any more.
        return self._database.write(work, can_be_replayed=True)

    def _lease(
        self,
        connection: sqlite3.Connection,
        kind: str,
        lane: str | None,
        now: float,
        limit: int,
        seconds: float,
        owner: str,
    ) -> list[Job]:
        due = "SELECT id, lane, runs_alone FROM job WHERE state = 'ready' AND kind = :kind AND due_at <= :now"
        in_lane = "" if lane is None else " AND lane = :lane"
        values = {"kind": kind, "now": now, "lane": lane, "limit": limit}
        first = connection.execute(
            f"{due}{in_lane} AND {_NOT_BLOCKED} AND {_LANE_IS_FREE} ORDER BY due_at, id LIMIT 1", values
        ).fetchone()
        if first is None:
            return []
        ids = [first[0]]
        if not first[2] and limit > 1:
            values["lane"] = first[1]
            rows = connection.execute(
                f"{due} AND lane = :lane AND runs_alone = 0 ORDER BY due_at, id LIMIT :limit", values
            )
            ids = [row[0] for row in rows]
        jobs = []
        for job_id in ids:
            row = connection.execute(
                "UPDATE job SET state = 'leased', attempts = attempts + 1, lease_number = lease_number + 1,"
                " lease_owner = ?, lease_until = ? WHERE id = ?"
                " RETURNING id, kind, key, lane, payload, study_instance_uid, attempts, created_at, since,"
                " lease_number",
                (owner, now + seconds, job_id),
            ).fetchone()
            jobs.append(Job(row[0], row[1], row[2], row[3], json.loads(row[4]), *row[5:]))
        return jobs

    def renew(self, job_ids: Iterable[int], *, seconds: float, owner: str) -> None:
        """Hold leases for ``seconds`` more."""
        until = self._clock.timestamp() + seconds
        rows = [(until, job_id, owner) for job_id in job_ids]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE job SET lease_until = ? WHERE id = ? AND state = 'leased' AND lease_owner = ?", rows
            )

        if rows:
            self._database.write(work, can_be_replayed=True)

    def release(self, connection: sqlite3.Connection, job: Job) -> None:
        """Give a job back as if it had not been taken: the node stops in the middle of it."""
        connection.execute(
            "UPDATE job SET state = 'ready', attempts = attempts - 1, lease_owner = NULL, lease_until = NULL"
            " WHERE id = ? AND state = 'leased' AND lease_number = ?",
            (job.id, job.lease_number),
        )
        self._notify(job.kind)

    def release_leases_of(self, owner: str | None = None) -> int:
        """Free what a process that is gone had taken; None means every process.

        At start no other process can hold a lease, as one node locks the data directory.
        Returns how many jobs were freed.
        """

        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "SELECT id FROM job WHERE state = 'leased' AND (:owner IS NULL OR lease_owner = :owner)",
                {"owner": owner},
            ).fetchall()
            return self._crashed(connection, [row[0] for row in rows], self._clock.timestamp())

        return self._database.write(work)

    def _expire(self, connection: sqlite3.Connection, now: float, owner: str) -> None:
        # The owner's own leases are renewed while their task runs, and outlast a clock that jumps.
        rows = connection.execute(
            "SELECT id FROM job WHERE state = 'leased' AND lease_until < ? AND lease_owner <> ?", (now, owner)
        ).fetchall()
        self._crashed(connection, [row[0] for row in rows], now)

    def _crashed(self, connection: sqlite3.Connection, job_ids: Sequence[int], now: float) -> int:
        error = NodeDied(f"the node died {MOST_CRASHES} times while this job ran")
        for job_id in job_ids:
            kind, crashes = connection.execute(
                "UPDATE job SET state = 'ready', attempts = attempts - 1, crashes = crashes + 1,"
                " runs_alone = crashes > 0, lease_owner = NULL, lease_until = NULL WHERE id = ?"
                " RETURNING kind, crashes",
                (job_id,),
            ).fetchone()
            pause = min(2.0 ** (crashes - 2), CRASH_PAUSE_MAX_SECONDS) if crashes > 1 else 0.0
            connection.execute("UPDATE job SET due_at = ? WHERE id = ?", (now + pause, job_id))
            if crashes >= MOST_CRASHES:
                connection.execute(
                    "UPDATE job SET state = 'set_aside', failed_at = ?, error_name = ?, error = ?, action = ?"
                    " WHERE id = ?",
                    (now, error.name, str(error), error.action, job_id),
                )
            self._notify(kind)
        return len(job_ids)

    # --- outcomes ------------------------------------------------------------

    def finish(self, connection: sqlite3.Connection, job: Job) -> None:
        """Mark a leased job done; LeaseLost, which undoes the transaction, when it is leased no more."""
        state = self._end(
            connection,
            job,
            "state = CASE WHEN is_wanted_again THEN 'ready' ELSE 'done' END, finished_at = :now,"
            " attempts = CASE WHEN is_wanted_again THEN 0 ELSE attempts END, due_at = :now,"
            " is_wanted_again = 0, error_name = '', error = '', action = '', failed_at = NULL",
            {},
        )
        if job.lane:
            self._unblock(connection, job.kind, job.lane)
        if job.lane or state == "ready":
            self._notify(job.kind)

    def retry(
        self,
        connection: sqlite3.Connection,
        job: Job,
        error: AnodeError,
        *,
        not_before: float,
        alone: bool = False,
    ) -> None:
        """Make a leased job ready again, due at ``not_before``; ``alone``: it shares no batch any more."""
        self._end(
            connection,
            job,
            "state = 'ready', due_at = CASE WHEN is_wanted_again THEN :now ELSE :due_at END,"
            " is_wanted_again = 0, runs_alone = runs_alone OR :alone, failed_at = :now,"
            " error_name = :error_name, error = :error, action = :action",
            {"due_at": not_before, "alone": alone, **_columns(error)},
        )
        self._notify(job.kind)

    def set_aside(self, connection: sqlite3.Connection, job: Job, error: AnodeError) -> None:
        """Put a leased job where a person has to look, unless it was wanted again while it ran."""
        state = self._end(
            connection,
            job,
            "state = CASE WHEN is_wanted_again THEN 'ready' ELSE 'set_aside' END, failed_at = :now,"
            " attempts = CASE WHEN is_wanted_again THEN 0 ELSE attempts END, due_at = :now,"
            " is_wanted_again = 0, error_name = :error_name, error = :error, action = :action",
            _columns(error),
        )
        if job.lane or state == "ready":
            self._notify(job.kind)

    def _end(self, connection: sqlite3.Connection, job: Job, change: str, values: dict[str, Any]) -> str:
        """End the lease of a job, and return the state that it is in then."""
        row = connection.execute(
            f"UPDATE job SET {change}, lease_owner = NULL, lease_until = NULL"
            " WHERE id = :id AND state = 'leased' AND lease_number = :lease_number RETURNING state",
            {**values, "id": job.id, "lease_number": job.lease_number, "now": self._clock.timestamp()},
        ).fetchone()
        if row is None:
            raise LeaseLost(f"job {job.id} ({job.kind}) is leased to this worker no more")
        return str(row[0])

    def hasten(self, connection: sqlite3.Connection, kind: str, key: str) -> None:
        """Make a waiting job due now, or one that runs due once more: what it waits for has come."""
        hastened = connection.execute(
            "UPDATE job SET due_at = MIN(due_at, ?), is_wanted_again = (state = 'leased')"
            " WHERE kind = ? AND key = ? AND state IN ('ready', 'leased')",
            (self._clock.timestamp(), kind, key),
        ).rowcount
        if hastened:
            self._notify(kind)

    # --- the clock -----------------------------------------------------------

    def move_times(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Move all that waits by ``seconds``, because the clock was set by as much."""
        connection.execute(
            "UPDATE job SET due_at = due_at + :seconds, since = since + :seconds WHERE state = 'ready'",
            {"seconds": seconds},
        )
        connection.execute(
            "UPDATE job SET since = since + :seconds, lease_until = lease_until + :seconds"
            " WHERE state = 'leased'",
            {"seconds": seconds},
        )
        connection.execute("UPDATE job_lane SET blocked_until = blocked_until + ?", (seconds,))
        connection.execute(f"UPDATE job SET created_at = created_at + ? WHERE {_THE_SWEEP}", (seconds,))

    def last_known_at(self, connection: sqlite3.Connection) -> float | None:
        """When a node last wrote the time down: at its last sweep. None when none has run."""
        return self.last_enqueued_at(connection, "sweep", "sweep")

    def last_enqueued_at(self, connection: sqlite3.Connection, kind: str, key: str) -> float | None:
        """When this job was enqueued last; None when it never was, or was forgotten since."""
        row = connection.execute(
            "SELECT created_at FROM job WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else float(row[0])

    def age_seconds(self, connection: sqlite3.Connection, job: Job) -> float:
        """For how long a leased job has been tried, by the clock as it is set now; 0 when it is gone."""
        row = connection.execute("SELECT since FROM job WHERE id = ?", (job.id,)).fetchone()
        return 0.0 if row is None else self._clock.timestamp() - float(row[0])

    # --- lanes ---------------------------------------------------------------

    def is_lane_blocked(self, connection: sqlite3.Connection, kind: str, lane: str) -> bool:
        """Whether the lane as a whole waits now."""
        row = connection.execute(
            "SELECT blocked_until FROM job_lane WHERE kind = ? AND lane = ?", (kind, lane)
        ).fetchone()
        return row is not None and float(row[0]) > self._clock.timestamp()

    def lane_failures(self, connection: sqlite3.Connection, kind: str, lane: str) -> int:
        """How often in a row the lane failed as a whole."""
        row = connection.execute(
            "SELECT failures FROM job_lane WHERE kind = ? AND lane = ?", (kind, lane)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def block_lane(
        self, connection: sqlite3.Connection, kind: str, lane: str, error: AnodeError, *, until: float
    ) -> None:
        """Let the whole lane wait until ``until``, because of ``error``."""
        connection.execute(
            "INSERT INTO job_lane (kind, lane, blocked_until, failures, failed_at, error_name, error, action)"
            " VALUES (:kind, :lane, :until, 1, :now, :error_name, :error, :action)"
            " ON CONFLICT (kind, lane) DO UPDATE SET blocked_until = :until, failures = failures + 1,"
            " failed_at = :now, error_name = :error_name, error = :error, action = :action",
            {
                "kind": kind,
                "lane": lane,
                "until": until,
                "now": self._clock.timestamp(),
                **_columns(error),
            },
        )

    def set_aside_older(
        self, connection: sqlite3.Connection, kind: str, lane: str, error: AnodeError, *, before: float
    ) -> int:
        """Set aside the waiting jobs of a lane whose tries began before ``before``."""
        return connection.execute(
            "UPDATE job SET state = 'set_aside', failed_at = :now, error_name = :error_name, error = :error,"
            " action = :action WHERE state = 'ready' AND kind = :kind AND lane = :lane AND since <= :before",
            {
                "kind": kind,
                "lane": lane,
                "before": before,
                "now": self._clock.timestamp(),
                **_columns(error),
            },
        ).rowcount

    def _unblock(self, connection: sqlite3.Connection, kind: str, lane: str) -> None:
        connection.execute("DELETE FROM job_lane WHERE kind = ? AND lane = ?", (kind, lane))

    def lanes(self, kind: str) -> list[tuple[str, float]]:
        """Each lane of ``kind`` that has ready jobs, and when its next one is due."""
        with self._database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(_LANES, {"kind": kind})]

    # --- sleeping ------------------------------------------------------------

    def subscribe(self, kinds: Iterable[str]) -> Wakeup:
        """Return a wakeup that counts what becomes ready among ``kinds``."""
        wakeup = Wakeup(kinds)
        with self._wakeups_lock:
            self._wakeups.append(wakeup)
        return wakeup

    def unsubscribe(self, wakeup: Wakeup) -> None:
        """Stop telling ``wakeup``."""
        with self._wakeups_lock:
            self._wakeups.remove(wakeup)

    def next_due_at(self, kinds: Iterable[str]) -> float | None:
        """When the next ready job of ``kinds`` is due; None when none is ready."""
        with self._database.read() as connection:
            times = [
                connection.execute(
                    "SELECT MIN(due_at) FROM job WHERE state = 'ready' AND kind = ?", (kind,)
                ).fetchone()[0]
                for kind in kinds
            ]
        return min((time for time in times if time is not None), default=None)

    def unfinished(self, kinds: Sequence[str]) -> int:
        """How many jobs of ``kinds`` run now or are due: 0 means that the workers are idle."""
        with self._database.read() as connection:
            leased = sum(connection.execute(_COUNT_LEASED, (kind,)).fetchone()[0] for kind in kinds)
            # The clock is read after the first row: what the snapshot shows to be due at once was
            # made due before it, and never after a time that was read earlier.
            now = self._clock.timestamp()
            return leased + sum(
                connection.execute(_COUNT_DUE, {"kind": kind, "now": now}).fetchone()[0] for kind in kinds
            )

    def _notify(self, kind: str) -> None:
        with self._wakeups_lock:
            for wakeup in self._wakeups:
                if kind in wakeup.kinds:
                    wakeup.notify()

    # --- for people ----------------------------------------------------------

    def hold(self, connection: sqlite3.Connection, kinds: Sequence[str], error: AnodeError) -> int:
        """Set all unfinished jobs of ``kinds`` aside until a person looks; return how many.

        Only where no worker runs.
        """
        return sum(
            connection.execute(
                "UPDATE job SET state = 'set_aside', lease_owner = NULL, lease_until = NULL,"
                " failed_at = :now, is_wanted_again = 0, error_name = :error_name, error = :error,"
                " action = :action"
                " WHERE kind = :kind AND state IN ('ready', 'leased')",
                {"kind": kind, "now": self._clock.timestamp(), **_columns(error)},
            ).rowcount
            for kind in kinds
        )

    def requeue(
        self,
        connection: sqlite3.Connection,
        *,
        job_id: int | None = None,
        study_instance_uid: str | None = None,
        kind: str | None = None,
        analysis: str | None = None,
        error_name: str | None = None,
    ) -> list[Requeued]:
        """Make jobs that are set aside, or wait for their next try, due now; return which.

        The conditions are joined by *and*; without any, all such jobs are meant.
        """
        wanted = {
            "id": job_id,
            "study_instance_uid": study_instance_uid,
            "kind": kind,
            "analysis": analysis,
            "error_name": error_name,
        }
        columns = {column: column for column in wanted} | {"analysis": analysis_jobs.ANALYSIS}
        conditions = "".join(
            f" AND {columns[name]} = :{name}" for name, value in wanted.items() if value is not None
        )
        rows = connection.execute(
            "UPDATE job SET state = 'ready', attempts = 0, crashes = 0, since = :now, due_at = :now"
            " WHERE (state = 'set_aside' OR (state = 'ready' AND"
            " (due_at > :now OR EXISTS (SELECT 1 FROM job_lane WHERE job_lane.kind = job.kind"
            f" AND job_lane.lane = job.lane)))){conditions}"
            f" RETURNING id, kind, lane, {analysis_jobs.ANALYSIS}",
            {**wanted, "now": self._clock.timestamp()},
        ).fetchall()
        for lane_kind, lane in {(row[1], row[2]) for row in rows}:
            self._unblock(connection, lane_kind, lane)
            self._notify(lane_kind)
        return [Requeued(row[0], row[1], row[2], row[3] or "") for row in rows]

    def delete_done(
        self,
        connection: sqlite3.Connection,
        *,
        before: float,
        limit: int = 1000,
        set_aside_kinds: Collection[str] = (),
    ) -> int:
        """Forget up to ``limit`` jobs that were done before ``before``; return how many.

        The verification, of which there is one, stays: it tells when it was. Of ``set_aside_kinds`` also
        those that were set aside before.
        """
        forgotten = connection.execute(
            "DELETE FROM job WHERE id IN"
            " (SELECT id FROM job WHERE state = 'done' AND finished_at < ? AND +kind <> 'verify'"
            " ORDER BY finished_at LIMIT ?)",
            (before, limit),
        ).rowcount
        for kind in set_aside_kinds:
            forgotten += connection.execute(
                "DELETE FROM job WHERE id IN (SELECT id FROM job"
                " WHERE state = 'set_aside' AND +kind = ? AND failed_at < ? LIMIT ?)",
                (kind, before, limit - forgotten),
            ).rowcount
        return forgotten


def _columns(error: AnodeError) -> dict[str, str]:
    return {"error_name": _stable_name(error), "error": str(error), "action": error.action}


def _stable_name(error: AnodeError) -> str:
    """Name of the nearest class of ``node/errors.py``: a room's own subclass is no word for people."""
    public: type[AnodeError] = next(
        kind for kind in type(error).__mro__ if kind.__module__ == AnodeError.__module__
    )
    return public.__new__(public).name
