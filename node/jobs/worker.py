"""The engine: threads that lease jobs, hand them to their task, and write down what became of them.

The engine knows no task: it is handed groups of them. A group has its own threads, so that a slow
kind of work never holds up another. In a group that is ``by_lane`` each lane gets a thread of its own
while it has jobs that are due, so that a peer that is down or stalls delays no other peer.

Between jobs a thread sleeps until something is enqueued for its group or the next job is due. What
another process enqueues is seen within ``POLL_SECONDS``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node import logs
from node.errors import AnodeError, LeaseLost, NodeError, OutOfSpace, PeerRefused, UnexpectedFailure
from node.jobs.policy import RetryPolicy
from node.jobs.task import Cancellable, Done, Job, Outcome, Retry, SetAside, Task
from node.jobs.wakeup import Wakeup

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

#: How long a thread sleeps at most: another process may have enqueued something.
POLL_SECONDS = 2.0
#: How long a lease holds; it is renewed three times as often.
LEASE_SECONDS = 60.0
#: How long the dispatcher of lanes rests between two looks.
DISPATCH_REST_SECONDS = 0.02
#: How long outcomes that can be replayed are collected for one transaction.
OUTCOMES_WAIT_SECONDS = 1.0
#: How long a thread rests when the database cannot be used.
DATABASE_REST_SECONDS = 5.0


@dataclass(frozen=True)
class Group:
    """Tasks that share threads.

    ``tasks`` maps a kind of job to its task, in order of preference. ``threads`` is the number of
    threads, or for a group that is ``by_lane`` the most lanes that run at once.
    """

    name: str
    tasks: Mapping[str, Task]
    threads: int
    policy: RetryPolicy
    is_by_lane: bool = False


class Engine:
    """Runs the jobs of the queue from ``start`` to ``stop``."""

    def __init__(self, services: Services, groups: Sequence[Group], *, owner: str | None = None) -> None:
        self._services = services
        self._queue = services.queue
        self._groups = tuple(groups)
        self._owner = owner or f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wakeups: list[Wakeup] = []
        self._lock = threading.Lock()
        # What is leased now; what could not be written down because the database failed.
        self._running: dict[int, Job] = {}
        self._stranded: list[tuple[Job, Group, AnodeError]] = []
        self._busy_lanes: set[tuple[str, str]] = set()

    # --- life ----------------------------------------------------------------

    def start(self) -> int:
        """Free the leases of a process that is gone, and start the threads; return how many jobs it left."""
        freed = self._queue.release_leases_of(None)
        self._stopping.clear()
        self._spawn(self._keep_leases, "jobs-leases")
        for group in self._groups:
            wakeup = self._queue.subscribe(group.tasks)
            self._wakeups.append(wakeup)
            if group.is_by_lane:
                self._spawn(self._dispatch, f"jobs-{group.name}", group, wakeup)
            else:
                for number in range(group.threads):
                    self._spawn(self._work, f"jobs-{group.name}-{number + 1}", group, wakeup)
        return freed

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """Let what runs come to a stopping point, then give back every lease.

        A batch stops after its present job. A task that can be cancelled is cancelled at once.
        Returns whether all threads ended within ``timeout_seconds``; the outcome of one that ends
        later is refused, and its job is repeated at the next start.
        """
        self._stopping.set()
        for wakeup in self._wakeups:
            wakeup.notify(everyone=True)
        for group in self._groups:
            for task in group.tasks.values():
                if isinstance(task, Cancellable):
                    task.cancel()
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for wakeup in self._wakeups:
            self._queue.unsubscribe(wakeup)
        self._wakeups.clear()
        with self._lock:
            left = list(self._running.values())
            self._running.clear()
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            ended = not self._threads
        try:
            self._release(left)
        except NodeError as error:
            logger.error("leases kept", extra={"jobs": len(left), "error": error.name})
        return ended

    def is_running(self) -> bool:
        """Whether the engine has threads and was not asked to stop."""
        with self._lock:
            return bool(self._threads) and not self._stopping.is_set()

    def run_until_idle(self, seconds: float = 30.0) -> None:
        """Run until no job is leased or due, for tests; TimeoutError when that takes longer.

        Jobs that wait for a later try do not count. An engine that was not started is started for
        the time of this call.
        """
        kinds = [kind for group in self._groups for kind in group.tasks]
        was_running = self.is_running()
        if not was_running:
            self.start()
        try:
            deadline = time.monotonic() + seconds
            while unfinished := self._queue.unfinished(kinds):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{unfinished} jobs are unfinished after {seconds:g} s")
                time.sleep(0.005)
        finally:
            if not was_running:
                self.stop()

    def _spawn(self, target: Callable[..., None], name: str, *arguments: object) -> None:
        thread = threading.Thread(target=target, name=name, args=arguments, daemon=True)
        with self._lock:
            # Started under the lock: ``stop`` may not find a thread that it cannot join.
            self._threads.append(thread)
            thread.start()

    # --- threads -------------------------------------------------------------

    def _work(self, group: Group, wakeup: Wakeup) -> None:
        kinds = list(group.tasks)
        is_worth_a_lease = True
        while not self._stopping.is_set():
            seen = wakeup.count
            looked_at = self._services.clock.timestamp()
            try:
                # A lease is a write, so it waits behind the transaction that woke this thread; after
                # a mere time-out a read says whether it is worth it.
                if is_worth_a_lease or self._is_due(kinds):
                    jobs = self._lease(group, kinds, None)
                    if jobs:
                        self._run(group, jobs)
                        is_worth_a_lease = True
                        continue
                due_at = self._queue.next_due_at(kinds)
            except NodeError as error:
                self._rest(error)
                continue
            is_worth_a_lease = wakeup.wait(seen, self._sleep_seconds(due_at, looked_at))

    def _dispatch(self, group: Group, wakeup: Wakeup) -> None:
        while not self._stopping.is_set():
            seen = wakeup.count
            now = self._services.clock.timestamp()
            due_at: float | None = None
            try:
                # A write waits behind the transaction that woke this thread, a read does not.
                self._services.database.write(_nothing, can_be_replayed=True)
                for kind in group.tasks:
                    for lane, lane_due_at in self._queue.lanes(kind):
                        if lane_due_at > now:
                            due_at = lane_due_at if due_at is None else min(due_at, lane_due_at)
                        else:
                            self._open_lane(group, wakeup, kind, lane)
            except NodeError as error:
                self._rest(error)
                continue
            wakeup.wait(seen, self._sleep_seconds(due_at, now))
            # Instances come by the hundred a second; one look serves many of them.
            self._stopping.wait(DISPATCH_REST_SECONDS)

    def _open_lane(self, group: Group, wakeup: Wakeup, kind: str, lane: str) -> None:
        with self._lock:
            busy = sum(1 for busy_kind, _ in self._busy_lanes if busy_kind in group.tasks)
            if (kind, lane) in self._busy_lanes or busy >= group.threads:
                return
            self._busy_lanes.add((kind, lane))
        self._spawn(self._work_lane, f"jobs-{kind}-{lane}", group, wakeup, kind, lane)

    def _work_lane(self, group: Group, wakeup: Wakeup, kind: str, lane: str) -> None:
        try:
            while not self._stopping.is_set():
                jobs = self._lease(group, [kind], lane)
                if not jobs:
                    break
                self._run(group, jobs)
        except NodeError as error:
            self._rest(error)
        finally:
            with self._lock:
                self._busy_lanes.discard((kind, lane))
                self._threads.remove(threading.current_thread())
            # What was enqueued since the last look gets its thread again.
            wakeup.notify(everyone=True)

    def _keep_leases(self) -> None:
        while not self._stopping.wait(LEASE_SECONDS / 3):
            with self._lock:
                held = list(self._running)
                stranded, self._stranded = self._stranded, []
            try:
                self._queue.renew(held, seconds=LEASE_SECONDS, owner=self._owner)
            except NodeError as error:
                logger.error("leases not renewed", extra={"jobs": len(held), "error": error.name})
            for job, group, failure in stranded:
                self._fail(group, job, failure)

    def _is_due(self, kinds: Sequence[str]) -> bool:
        due_at = self._queue.next_due_at(kinds)
        return due_at is not None and due_at <= self._services.clock.timestamp()

    def _sleep_seconds(self, due_at: float | None, looked_at: float) -> float:
        # What was due at the last look and was not taken has a busy lane, whose end wakes this thread.
        if due_at is None or due_at <= looked_at:
            return POLL_SECONDS
        return min(max(due_at - self._services.clock.timestamp(), 0.0), POLL_SECONDS)

    def _rest(self, error: NodeError) -> None:
        logger.error("job queue unavailable", extra={"error": error.name, "reason": str(error)})
        self._stopping.wait(DATABASE_REST_SECONDS)

    # --- jobs ----------------------------------------------------------------

    def _lease(self, group: Group, kinds: Sequence[str], lane: str | None) -> list[Job]:
        jobs = self._queue.lease(
            {kind: group.tasks[kind].batch for kind in kinds},
            seconds=LEASE_SECONDS,
            owner=self._owner,
            lane=lane,
        )
        with self._lock:
            self._running.update((job.id, job) for job in jobs)
        return jobs

    def _run(self, group: Group, jobs: list[Job]) -> None:
        task = group.tasks[jobs[0].kind]
        left = {job.id: job for job in jobs}
        unwritten: list[tuple[Job, Done]] = []
        outcomes: Iterator[tuple[Job, Outcome]] | None = None
        begun = time.monotonic()
        try:
            outcomes = iter(task.run(self._services, jobs))
            for job, outcome in outcomes:
                left.pop(job.id, None)
                if isinstance(outcome, Done) and outcome.can_be_replayed:
                    unwritten.append((job, outcome))
                else:
                    self._write(group, job, outcome)
                if self._stopping.is_set():
                    break
                if time.monotonic() - begun > OUTCOMES_WAIT_SECONDS:
                    self._write_together(group, unwritten)
                    begun = time.monotonic()
        except Exception as error:
            self._log_failure(jobs[0], error)
            for job in left.values():
                self._fail(group, job, _as_anode_error(error), alone=len(jobs) > 1)
            left.clear()
        finally:
            close = getattr(outcomes, "close", None)
            if close is not None:
                close()
            self._write_together(group, unwritten)
        if not left:
            return
        if self._stopping.is_set():
            self._forget(left.values())
            self._release(list(left.values()))
            return
        missing = UnexpectedFailure("the task ended without saying what became of this job")
        for job in left.values():
            self._fail(group, job, missing, alone=True)

    def _write_together(self, group: Group, outcomes: list[tuple[Job, Done]]) -> None:
        """Apply outcomes that can be replayed in one transaction, and take them from the list."""
        together = outcomes.copy()
        outcomes.clear()

        def work(connection: sqlite3.Connection) -> None:
            for job, outcome in together:
                if outcome.apply is not None:
                    outcome.apply(connection)
                self._queue.finish(connection, job)

        if not together:
            return
        try:
            self._services.database.write(work, can_be_replayed=True)
        except Exception:
            # Each by itself: one may have lost its lease, and the others must not suffer for it.
            for job, outcome in together:
                self._write(group, job, outcome)
            return
        self._forget(job for job, _ in together)
        for job, outcome in together:
            self._log(job, outcome)

    def _write(self, group: Group, job: Job, outcome: Outcome) -> None:
        """Apply an outcome in one transaction with the end of its job."""

        def work(connection: sqlite3.Connection) -> None:
            if outcome.apply is not None:
                outcome.apply(connection)
            match outcome:
                case Done():
                    self._queue.finish(connection, job)
                case SetAside():
                    self._queue.set_aside(connection, job, outcome.error)
                case Retry():
                    self._retry(connection, group, job, outcome)

        try:
            can_be_replayed = isinstance(outcome, Done) and outcome.can_be_replayed
            self._services.database.write(work, can_be_replayed=can_be_replayed)
        except LeaseLost as error:
            logger.warning(
                "job outcome refused", extra={"job": job.id, "kind": job.kind, "error": error.name}
            )
        except Exception as error:
            # The outcome and the end of the job were undone together; the job is tried again.
            self._log_failure(job, error)
            self._fail(group, job, _as_anode_error(error))
            return
        self._forget([job])
        self._log(job, outcome)

    def _retry(
        self, connection: sqlite3.Connection, group: Group, job: Job, outcome: Retry, *, alone: bool = False
    ) -> None:
        now = self._services.clock.timestamp()
        error = outcome.error
        age_seconds = self._queue.age_seconds(connection, job)
        is_exhausted = group.policy.is_exhausted(attempts=job.attempts, age_seconds=age_seconds)
        # A full disk is no fault of the job, and the node resumes by itself when there is room.
        if is_exhausted and not isinstance(error, OutOfSpace):
            self._queue.set_aside(connection, job, error)
            if outcome.is_for_lane:
                self._block_lane(connection, group, job, outcome, now)
            return
        if outcome.is_for_lane:
            self._block_lane(connection, group, job, outcome, now)
            self._queue.retry(connection, job, error, not_before=now, alone=alone)
            return
        pause = outcome.after_seconds
        if pause is None:
            pause = group.policy.pause_seconds(job.attempts)
        self._queue.retry(connection, job, error, not_before=now + pause, alone=alone)

    def _block_lane(
        self, connection: sqlite3.Connection, group: Group, job: Job, outcome: Retry, now: float
    ) -> None:
        if self._queue.is_lane_blocked(connection, job.kind, job.lane):
            # Another job of the same batch has said so already.
            return
        pause = outcome.after_seconds
        if pause is None:
            failures = self._queue.lane_failures(connection, job.kind, job.lane)
            pause = group.policy.pause_seconds(failures + 1)
        self._queue.block_lane(connection, job.kind, job.lane, outcome.error, until=now + pause)
        logger.warning(
            "lane waits",
            extra={
                "kind": job.kind,
                "lane": job.lane,
                "seconds": round(pause, 1),
                "error": outcome.error.name,
                # A peer's own words may name a patient.
                **({} if isinstance(outcome.error, PeerRefused) else {"reason": str(outcome.error)}),
            },
        )
        oldest = group.policy.oldest_seconds()
        if oldest is not None:
            self._queue.set_aside_older(connection, job.kind, job.lane, outcome.error, before=now - oldest)

    def _fail(self, group: Group, job: Job, error: AnodeError, *, alone: bool = False) -> None:
        """Write down that a job failed; when that fails too, the keeper of the leases tries again."""

        def work(connection: sqlite3.Connection) -> None:
            self._retry(connection, group, job, Retry(error), alone=alone)

        try:
            self._services.database.write(work)
        except LeaseLost:
            pass
        except NodeError:
            with self._lock:
                self._stranded.append((job, group, error))
            return
        self._forget([job])

    def _release(self, jobs: Sequence[Job]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for job in jobs:
                self._queue.release(connection, job)

        if jobs:
            self._services.database.write(work, can_be_replayed=True)

    def _forget(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            for job in jobs:
                self._running.pop(job.id, None)

    # --- log -----------------------------------------------------------------

    def _log(self, job: Job, outcome: Outcome) -> None:
        facts = {"job": job.id, "kind": job.kind, "attempt": job.attempts}
        match outcome:
            case Done():
                logger.debug("job done", extra=facts)
            case Retry(error=error, is_for_lane=is_for_lane):
                # A lane that is down was logged once, for however many jobs.
                level = logging.DEBUG if is_for_lane else logging.WARNING
                logger.log(level, "job failed", extra={**facts, "error": error.name})
            case SetAside(error=error):
                logger.error("job set aside", extra={**facts, "error": error.name})

    def _log_failure(self, job: Job, error: Exception) -> None:
        facts = {"job": job.id, "kind": job.kind, "attempt": job.attempts, "error": type(error).__name__}
        if isinstance(error, AnodeError):
            logger.warning("task failed", extra=facts)
        else:
            # The message of an unforeseen error may hold values of a data set; where it arose does not.
            logger.error("task failed", extra={**facts, "frames": logs.frames(error)})
            logger.debug("task failed: detail", extra=facts, exc_info=error)


def _nothing(connection: sqlite3.Connection) -> None:
    del connection


def _as_anode_error(error: Exception) -> AnodeError:
    if isinstance(error, AnodeError):
        return error
    return UnexpectedFailure(f"{type(error).__name__}: {error}")
