"""Verifies instances in several processes: in parallel, and so that a codec that crashes ends one of them.

A damaged code stream may do anything to the library that decodes it. What ends a process is told of the
instance, and another process goes on.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from node import subordinate
from node.config.settings import StorageConfig
from node.errors import StorageFailure
from node.index.index import StoredInstance
from node.verifying import child
from node.verifying.verdict import Verdict

_CONTEXT = multiprocessing.get_context("forkserver")
#: So many instances are given to a process at a time, so that it never waits for the next.
_AHEAD = 4
_ENDS_WITHIN_SECONDS = 5.0


def verified(
    data_dir: Path,
    config: StorageConfig,
    instances: Iterable[StoredInstance],
    *,
    processes: int,
    niceness: int = 0,
    is_wanted: Callable[[], bool] = lambda: True,
    wake: Connection | None = None,
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
    is_wanted, wake
        When ``wake`` can be read, ``is_wanted`` is asked; false ends the iteration.

    Raises
    ------
    StorageFailure
        No process can be started.
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
            ready = wait([*busy, *([wake] if wake is not None else [])])
            if not is_wanted():
                return
            for connection in ready:
                if connection is not wake:
                    yield busy[cast(Connection, connection)].answer()
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """One process, and the instances that it was given and has not answered; the first is in work."""

    def __init__(self, data_dir: Path, config: StorageConfig, niceness: int) -> None:
        self.asked: deque[StoredInstance] = deque()
        self._arguments = str(data_dir.absolute()), config, niceness
        self.connection, self._process = self._started()

    def ask(self, instances: Iterable[StoredInstance]) -> None:
        for stored in instances:
            self.asked.append(stored)
            self._send(stored)

    def answer(self) -> tuple[StoredInstance, Verdict]:
        """What came of the first; where the process has ended over it, that, and there is a new one."""
        try:
            verdict: Verdict = self.connection.recv()
        except (EOFError, OSError):
            verdict = Verdict(f"damaged: verifying it ended its process: {self._end_reason()}")
            first = self.asked.popleft()
            self.connection.close()
            self.connection, self._process = self._started()
            for stored in self.asked:
                self._send(stored)
            return first, verdict
        return self.asked.popleft(), verdict

    def end(self) -> None:
        """End the process, in the middle of its work too."""
        self.connection.close()
        self._process.terminate()
        self._process.join(_ENDS_WITHIN_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_ENDS_WITHIN_SECONDS)

    def _send(self, stored: StoredInstance) -> None:
        try:
            self.connection.send(stored)
        except OSError:
            return  # it has ended, which the answer will tell

    def _end_reason(self) -> str:
        self._process.join(_ENDS_WITHIN_SECONDS)
        status = self._process.exitcode
        if status is not None and status < 0:
            return subordinate.signal_in_words(-status)
        return f"exit status {status}"

    def _started(self) -> tuple[Connection, BaseProcess]:
        ours, theirs = _CONTEXT.Pipe()
        with theirs:
            process = _CONTEXT.Process(
                target=child.main, args=(theirs, *self._arguments), name="verifying", daemon=True
            )
            try:
                process.start()
            except (OSError, EOFError) as error:
                ours.close()
                raise StorageFailure(f"no process that verifies can be started: {error}") from error
        return ours, process
