"""Verifies instances and notes in the index what came of each."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from node.clock import Clock
from node.config.settings import Config
from node.index.database import Database
from node.index.index import Index, StoredInstance
from node.verifying import pool
from node.verifying.verdict import Verdict

_MARKS_OF_A_COMMIT = 200
_MARKS_WAIT_SECONDS = 10.0


class Verifying:
    """Verifies instances of one data directory, whether or not a node runs on it.

    Parameters
    ----------
    config
        Where they are.
    database, index, clock
        Where their rows are, and what time it is.
    """

    def __init__(self, config: Config, database: Database, index: Index, clock: Clock) -> None:
        self._data_dir = config.node.data_dir
        self._storage = config.storage
        self._database = database
        self._index = index
        self._clock = clock
        self._marks: list[tuple[StoredInstance, float, str]] = []
        self._committed_at = time.monotonic()

    def verify(
        self,
        sop_instance_uids: Iterable[str],
        *,
        processes: int,
        niceness: int = 0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[tuple[str, Verdict], None, None]:
        """Yield each instance with what came of it, and mark it; ones that are held no more are left out.

        Parameters and errors are those of ``pool.verified``. What was found is marked also when the
        iteration ends early.
        """
        moved: list[StoredInstance] = []

        def rows() -> Iterator[StoredInstance]:
            for sop_instance_uid in sop_instance_uids:
                stored = self._held(sop_instance_uid)
                if stored is not None:
                    yield stored

        def verified(instances: Iterable[StoredInstance]) -> Iterator[tuple[StoredInstance, Verdict]]:
            return pool.verified(
                self._data_dir,
                self._storage,
                instances,
                processes=processes,
                niceness=niceness,
                is_wanted=is_wanted,
            )

        try:
            for stored, verdict in verified(rows()):
                now = self._held(stored.sop_instance_uid) if verdict.problem else None
                if now is not None and now.location != stored.location:
                    # It was settled while it was read, and its place in the log may be used again.
                    moved.append(now)
                    continue
                self._mark(stored, verdict)
                yield stored.sop_instance_uid, verdict
            if moved and is_wanted():
                for stored, verdict in verified(moved):
                    self._mark(stored, verdict)
                    yield stored.sop_instance_uid, verdict
        finally:
            self._commit()

    def _held(self, sop_instance_uid: str) -> StoredInstance | None:
        with self._database.read() as connection:
            return self._index.get(connection, sop_instance_uid)

    def _mark(self, stored: StoredInstance, verdict: Verdict) -> None:
        if not verdict.is_known:
            return  # so what was known before stays
        self._marks.append((stored, self._clock.timestamp(), verdict.problem))
        waited = time.monotonic() - self._committed_at
        if verdict.problem or len(self._marks) >= _MARKS_OF_A_COMMIT or waited > _MARKS_WAIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        """Write the marks in one transaction, of those instances that are still where they were read."""
        marks, self._marks = self._marks, []
        self._committed_at = time.monotonic()

        def write(connection: sqlite3.Connection) -> None:
            for stored, verified_at, problem in marks:
                now = self._index.get(connection, stored.sop_instance_uid)
                if now is not None and now.location == stored.location:
                    self._index.mark_verified(connection, stored.sop_instance_uid, verified_at, problem)

        if marks:
            self._database.write(write)
