"""A queue with a real database, and engines over tasks that a test scripts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.index import schema
from node.index.database import Database
from node.jobs import listing
from node.jobs.policy import RetryPolicy, WorkPolicy
from node.jobs.queue import Queue
from node.jobs.task import Done, Job, Outcome
from node.jobs.worker import Engine, Group
from node.refusals import Refusals


class ScriptedTask:
    """A task whose outcomes come from a function of the job; it notes what it was given."""

    def __init__(self, kind: str, outcome: Callable[[Job], Outcome] | None = None, batch: int = 1) -> None:
        self.kind = kind
        self.batch = batch
        self.batches: list[list[str]] = []
        self._outcome = outcome or (lambda job: Done())

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.batches for key in batch]

    def run(self, services: Any, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        self.batches.append([job.key for job in jobs])
        for job in jobs:
            yield job, self._outcome(job)


class Bench:
    """A database with the tables of jobs and completion, and shorthands for them."""

    def __init__(self, path: Path, clock: Clock, config: Config) -> None:
        self.clock = clock
        self.config = config
        self.database = Database(path, clock=clock, schema=schema.STATEMENTS)
        self.queue = Queue(clock, self.database)
        self.completion = Completion(config, clock)
        self.services: Any = SimpleNamespace(
            config=config,
            clock=clock,
            database=self.database,
            queue=self.queue,
            completion=self.completion,
            refusals=Refusals(clock),
        )

    def enqueue(self, kind: str, key: str, **values: Any) -> bool:
        values.setdefault("payload", {})
        return self.database.write(lambda connection: self.queue.enqueue(connection, kind, key=key, **values))

    def lease(self, kind: str = "work", limit: int = 1, **values: Any) -> list[Job]:
        values.setdefault("seconds", 60.0)
        values.setdefault("owner", "me")
        return self.queue.lease({kind: limit}, **values)

    def jobs(self, **wanted: Any) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            return listing.jobs(connection, **wanted)

    def job(self, key: str) -> dict[str, Any]:
        return next(job for job in self.jobs() if job["key"] == key)

    def states(self) -> dict[str, str]:
        return {job["key"]: job["state"] for job in self.jobs()}

    def arrive(self, study: str = "1.2", at: float | None = None) -> None:
        """Let an instance of a study come from outside, now or ``at`` a time."""
        at = self.clock.timestamp() if at is None else at
        self.database.write(lambda connection: self.completion.arrived(connection, study, at))

    def due(self) -> list[tuple[str, str, int]]:
        with self.database.read() as connection:
            return self.completion.due(connection)

    def fire(self, *due: tuple[str, str, int]) -> None:
        """Mark (Study Instance UID, analysis, revision) as enqueued."""
        for one in due:
            self.database.write(lambda connection, one=one: self.completion.fired(connection, *one))

    def waiting(self, study: str = "1.2") -> list[dict[str, Any]]:
        with self.database.read() as connection:
            return self.completion.waiting(connection, study)

    def is_open(self, study: str = "1.2") -> bool:
        """Whether an analysis has still to fire for a study."""
        with self.database.read() as connection:
            (is_open,) = connection.execute(
                "SELECT is_open FROM study_arrival WHERE study_instance_uid = ?", (study,)
            ).fetchone()
        return bool(is_open)

    def plans(self, work: Callable[[sqlite3.Connection], Any]) -> tuple[list[str], list[str]]:
        """The statements by which ``work`` reads, and how SQLite finds the rows of each."""
        statements: list[str] = []
        with self.database.read() as connection:
            connection.set_trace_callback(statements.append)
            work(connection)
            connection.set_trace_callback(None)
            plans = [
                row[3]
                for statement in statements
                for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
            ]
        return statements, plans

    def engine(
        self,
        *tasks: Any,
        threads: int = 1,
        policy: RetryPolicy | None = None,
        is_by_lane: bool = False,
        services: Any = None,
    ) -> Engine:
        group = Group(
            "test",
            {task.kind: task for task in tasks},
            threads,
            policy or WorkPolicy(tries=3, window_seconds=60.0),
            is_by_lane,
        )
        return Engine(services or self.services, [group])


@contextmanager
def job_bench(folder: Path, clock: Clock | None = None, config: Config | None = None) -> Iterator[Bench]:
    """A bench below ``folder``; the database is closed at the end."""
    bench = Bench(folder / "index.sqlite", clock or Clock(), config or Config())
    try:
        yield bench
    finally:
        bench.database.close()
