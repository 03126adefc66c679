"""The processes of models that are ready to run, kept warm for the next run of the same kind."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.processes.worker import RunStopped, Worker, WorkerSpec

__all__ = ["RunStopped", "Worker", "WorkerSpec", "Workers"]

logger = logging.getLogger(__name__)

#: So often a thread looks at the workers that no run looks after.
LOOK_SECONDS = 0.2


class Workers:
    """Lends workers, each to one at a time.

    Parameters
    ----------
    data_dir
        in whose work folder they work, and which no model sees
    most_idle_seconds
        after which ``end_idle`` ends one that nobody has used
    reserve_bytes
        that have to stay free on the disk while a model runs
    hidden
        further folders and files that no model may see: keys, the configuration
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        most_idle_seconds: float = 600.0,
        reserve_bytes: int = 0,
        hidden: Sequence[Path] = (),
    ) -> None:
        self._data_dir = data_dir
        self._most_idle_seconds = most_idle_seconds
        self._reserve_bytes = reserve_bytes
        self._hidden = tuple(hidden)
        self._lock = threading.Lock()
        self._leased: set[Worker] = set()
        # With the time since when, the longest first.
        self._idle: list[tuple[float, Worker]] = []
        self._is_stopped = self._is_watched = False
        self._stopped = threading.Event()

    @contextmanager
    def lease(self, spec: WorkerSpec) -> Iterator[Worker]:
        """Lend a worker; one that has to be started does so while the caller goes on.

        Raises
        ------
        OutOfSpace, StorageFailure
            it cannot be started
        RunStopped
            ``stop`` was called
        """
        while (worker := self._idle_one(spec)) is not None:
            # It may have begun to take more a moment ago: that is no fault of the run that comes.
            worker.look()
            if worker.is_usable:
                break
            with self._lock:
                self._leased.discard(worker)
            worker.remove()
        worker = worker or self._new_one(spec)
        try:
            yield worker
        finally:
            with self._lock:
                self._leased.discard(worker)
                is_kept = not self._is_stopped and worker.is_usable
                if is_kept:
                    self._idle.append((time.monotonic(), worker))
            if not is_kept:
                worker.remove()

    def end_idle(self) -> None:
        """End the workers that nobody has used for long, and those that have ended by themselves."""
        limit = time.monotonic() - self._most_idle_seconds
        with self._lock:
            ended = [one for one in self._idle if one[0] <= limit or not one[1].is_usable]
            self._idle = [one for one in self._idle if one not in ended]
        for _, worker in ended:
            worker.remove()

    def stop(self) -> None:
        """End every worker; ``run`` and ``lease`` raise RunStopped, now and until ``resume``."""
        with self._lock:
            self._is_stopped = True
            self._stopped.set()
            idle, self._idle = self._idle, []
            for worker in self._leased:
                worker.interrupt()
        for _, worker in idle:
            worker.remove()

    def resume(self) -> None:
        """Lend workers again after a ``stop``."""
        with self._lock:
            self._is_stopped = False
            self._stopped.clear()

    def _idle_one(self, spec: WorkerSpec) -> Worker | None:
        """Take the one that was used last: it is the most likely to be in memory still."""
        with self._lock:
            if self._is_stopped:
                raise RunStopped
            fitting = [one for one in self._idle if one[1].spec == spec and one[1].is_usable]
            if not fitting:
                return None
            self._idle.remove(fitting[-1])
            worker = fitting[-1][1]
            self._leased.add(worker)
            return worker

    def _new_one(self, spec: WorkerSpec) -> Worker:
        worker = Worker(
            spec,
            self._data_dir,
            hidden=self._hidden,
            reserve_bytes=self._reserve_bytes,
            relieve=self._end_longest_idle,
        )
        with self._lock:
            if not self._is_stopped:
                self._leased.add(worker)
                if not self._is_watched:
                    self._is_watched = True
                    threading.Thread(target=self._watch, name="models", daemon=True).start()
                return worker
        worker.remove()
        raise RunStopped

    def _watch(self) -> None:
        """Look at each worker that no run looks after, for as long as there is any."""
        while True:
            with self._lock:
                workers = [*self._leased, *(worker for _, worker in self._idle)]
                if not workers:
                    self._is_watched = False
                    return
            for worker in workers:
                worker.look()
            self._stopped.wait(LOOK_SECONDS)

    def _end_longest_idle(self) -> bool:
        with self._lock:
            worker = self._idle.pop(0)[1] if self._idle else None
        if worker is None:
            return False
        logger.info(
            "idle model process ended for its memory", extra={"model": worker.spec.description.reference}
        )
        worker.remove()
        return True
