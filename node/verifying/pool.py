"""Verifies instances in several processes: in parallel, and so that a codec that crashes ends one of them.

A damaged code stream may do anything to the library that decodes it. An instance over which two processes
crash is damaged; of one whose process was ended from outside, or hangs, nothing is known. Another process
goes on with the rest.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from node import forked, subordinate
from node.config.settings import StorageConfig
from node.errors import StorageFailure
from node.index.index import StoredInstance
from node.verifying import child
from node.verifying.verdict import Verdict

#: So many instances are given to a process at a time, so that it never waits for the next.
_AHEAD = 4
#: How often it is looked whether the answers are still wanted, and whether an instance takes too long by the
#: clock,
_LOOK_SECONDS = 0.5
#: of which it may have so many times of the processor time that is allowed: others work too.
_PATIENCE = 20.0
#: An instance over which so many processes crash is damaged.
_MOST_CRASHES = 2
#: So many processes in a row that end without an answer, for reasons outside: it is given up.
_MOST_ENDS = 5


def verified(
    data_dir: Path,
    config: StorageConfig,
    instances: Iterable[StoredInstance],
    *,
    processes: int,
    niceness: int = 0,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[StoredInstance, Verdict]]:
    """Verify ``instances``, and yield each with what came of it, as they become ready.

    Parameters
    ----------
    data_dir, config
        Where they are; they are only read.
    instances : iterable of StoredInstance
        Their rows as they are now; a few are taken ahead.
    processes : int
        How many work side by side.
    niceness : int
        How far they stand back.
    is_wanted : callable
        Is asked now and then; false ends the iteration.

    Raises
    ------
    StorageFailure
        No process can be started, or none stays.
    """
    left = iter(instances)
    workers = [_Worker(data_dir, config, niceness) for _ in range(processes)]
    try:
        while True:
            for worker in workers:
                worker.ask(islice(left, _AHEAD - len(worker.asked)))
            busy: dict[Connection, _Worker] = {one.connection: one for one in workers if one.asked}
            if not busy:
                return
            ready = wait(busy, _LOOK_SECONDS)
            if not is_wanted():
                return
            for worker in busy.values():
                worker.kill_if_late()
            for connection in ready:
                answer = busy[cast(Connection, connection)].answer()
                if answer is not None:
                    yield answer
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """One process, and the instances that it was given and has not answered; the first is in work."""

    def __init__(self, data_dir: Path, config: StorageConfig, niceness: int) -> None:
        self.asked: deque[StoredInstance] = deque()
        self._arguments = str(data_dir.absolute()), config, niceness
        self._crashes: Counter[str] = Counter()
        self._ends = 0
        self._is_late = False
        self._began = time.monotonic()
        self._process = self._started()

    @property
    def connection(self) -> Connection:
        return self._process.connection

    def ask(self, instances: Iterable[StoredInstance]) -> None:
        for stored in instances:
            if not self.asked:
                self._began = time.monotonic()
            self.asked.append(stored)
            self._send(stored)

    def answer(self) -> tuple[StoredInstance, Verdict] | None:
        """What came of the first; None where its process ended, and another one has it."""
        try:
            verdict: Verdict = self.connection.recv()
        except (EOFError, OSError):
            return self._replaced()
        self._ends = 0
        self._began = time.monotonic()
        return self.asked.popleft(), verdict

    def kill_if_late(self) -> None:
        """End the process where its first instance takes too long by the clock."""
        seconds = _PATIENCE * subordinate.cpu_seconds(self.asked[0].data_set_bytes)
        if time.monotonic() - self._began > seconds:
            self._is_late = True
            self._process.kill()

    def end(self) -> None:
        """End the process, in the middle of its work too."""
        self.connection.close()
        self._process.end()

    def _replaced(self) -> tuple[StoredInstance, Verdict] | None:
        """Start another process in place of one that ended; what is known of the first instance now."""
        why, number = self._process.ending()
        first = self.asked[0]
        verdict: Verdict | None = None
        if self._is_late:
            verdict = Verdict("cannot be verified for now: it took too long", is_known=False)
        elif subordinate.is_crash(number):
            self._crashes[first.sop_instance_uid] += 1
            if self._crashes[first.sop_instance_uid] >= _MOST_CRASHES:
                verdict = Verdict(f"damaged: verifying it ended {_MOST_CRASHES} processes: {why}")
        else:
            self._ends += 1
            if self._ends >= _MOST_ENDS:
                raise StorageFailure(f"the processes that verify end: {why}")
        self._is_late = False
        if verdict is not None:
            self.asked.popleft()
        self.connection.close()
        self._process = self._started()
        self._began = time.monotonic()
        for stored in self.asked:
            self._send(stored)
        return None if verdict is None else (first, verdict)

    def _send(self, stored: StoredInstance) -> None:
        try:
            self.connection.send(stored)
        except OSError:
            return  # it has ended, which the answer will tell

    def _started(self) -> forked.Forked:
        return forked.Forked("verifies", child.main, *self._arguments)
