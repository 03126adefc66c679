"""What happens by the clock: ticks of APScheduler, which enqueue, and write down what was refused."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING

from apscheduler.schedulers.background import BackgroundScheduler

from node import parking
from node.errors import NodeError
from node.jobs.clock_watch import ClockWatch
from node.jobs.policy import SECONDS_PER_DAY
from node.jobs.task import Job

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

COMPLETION_SECONDS = 1.0
SWEEP_SECONDS = 10.0
REFUSALS_SECONDS = 5.0
#: At each of so many sweeps it is looked whether the next verification is due.
SWEEPS_FOR_A_LOOK = 6


class Schedule:
    """The ticks of a running node; each can also be called by hand.

    Each of ``keep_house`` is called at each sweep, and returns at once.
    """

    def __init__(self, services: Services, keep_house: Sequence[Callable[[], None]] = ()) -> None:
        self._also_keep_house = keep_house
        self._services = services
        self._scheduler: BackgroundScheduler | None = None
        self._clock_watch = ClockWatch(services, self._begin_ticks)
        self._sweeps = 0
        self._names = [analysis.name for analysis in services.config.analyses]
        self._parked: Mapping[str, parking.Parked] = {}

    def start(self) -> None:
        """Start the ticks in a thread of their own; one that is late is made up for once.

        Raises DatabaseFailure.
        """
        # APScheduler speaks of every tick, and warns of one that still runs when it would come again,
        # which is made up for by the next.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler = scheduler
        self._begin_ticks()
        scheduler.start()
        self._clock_watch.start()

    def _begin_ticks(self) -> None:
        """Let each tick come after its interval from now: APScheduler waits for times of day."""
        if self._scheduler is None:
            return
        ticks = {
            "complete": (self._look, COMPLETION_SECONDS),
            "housekeeping": (self._keep_house, SWEEP_SECONDS),
            "refusals": (self._services.refusals.flush, REFUSALS_SECONDS),
        }
        for name, (tick, seconds) in ticks.items():
            self._scheduler.add_job(tick, "interval", seconds=seconds, id=name, replace_existing=True)

    def stop(self) -> None:
        """End the ticks, after the one that runs."""
        self._clock_watch.stop()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)
            self._scheduler = None

    def _look(self) -> None:
        self.complete()
        self.tell_of_parked()

    def tell_of_parked(self) -> None:
        """Raise or clear the alarm of parked analyses, where that has changed since the last look."""
        services = self._services
        try:
            with services.database.read() as connection:
                found = parking.configured(parking.parked(connection), self._names)
        except NodeError as error:
            logger.error("parking not looked at", extra={"error": error.name, "reason": str(error)})
            return
        # An end of a job may have raised it, and an operator unparked it, between two looks.
        if found != self._parked or not found:
            parking.tell(services.config.node.data_dir, found, services.clock.timestamp())
            self._parked = found

    def complete(self) -> int:
        """Enqueue the selection for every study that is complete; return how many were enqueued."""
        try:
            with self._services.database.read() as connection:
                found = self._services.completion.due(connection)
            if not found:
                return 0
            return self._services.database.write(lambda connection: self._fire(connection, found))
        except NodeError as error:
            logger.error("completion not looked at", extra={"error": error.name, "reason": str(error)})
            return 0

    def _keep_house(self) -> None:
        """Sweep, and verify when that is due: one tick, for each has a thread where several come at once."""
        self.sweep()
        for keep_house in self._also_keep_house:
            keep_house()
        self._sweeps += 1
        if self._sweeps % SWEEPS_FOR_A_LOOK == 0:
            self.verify()

    def sweep(self) -> None:
        """Enqueue the sweep, unless it waits already."""
        try:
            self._services.database.write(
                lambda connection: self._services.queue.enqueue(
                    connection, "sweep", key="sweep", payload={}, again=True
                )
            )
        except NodeError as error:
            logger.error("sweep not enqueued", extra={"error": error.name, "reason": str(error)})

    def verify(self) -> bool:
        """Enqueue the verification of a sample when that is due; return whether it was.

        A node that has never verified begins at once, and so does one whose clock was set back behind the
        last time.
        """
        services = self._services
        every_days = services.config.verify.every_days
        if not every_days or not services.config.verify.sample_percent:
            return False
        now = services.clock.timestamp()
        before = now - every_days * SECONDS_PER_DAY
        try:
            with services.database.read() as connection:
                last = services.queue.last_enqueued_at(connection, "verify", "verify")
            if last is not None and before < last <= now:
                return False
            return services.database.write(
                lambda connection: services.queue.enqueue(
                    connection, "verify", key="verify", payload={}, again=True
                )
            )
        except NodeError as error:
            logger.error("verification not enqueued", extra={"error": error.name, "reason": str(error)})
            return False

    def _fire(self, connection: sqlite3.Connection, found: Sequence[tuple[str, str, int]]) -> int:
        # Asked again within the transaction: another instance may have come since.
        due = self._services.completion.still_due(connection, found)
        fire(self._services, connection, due)
        return len(due)


def fire(
    services: Services,
    connection: sqlite3.Connection,
    due: Sequence[tuple[str, str, int]],
    *,
    again: bool = False,
) -> None:
    """Enqueue the selection for each (Study Instance UID, analysis, revision), once, or ``again``."""
    for study_instance_uid, analysis, revision in due:
        services.queue.enqueue(
            connection,
            "select",
            key=f"{study_instance_uid}/{analysis}/{revision}",
            payload={
                "study_instance_uid": study_instance_uid,
                "analysis": analysis,
                "revision": revision,
            },
            study_instance_uid=study_instance_uid,
            again=again,
        )
        services.completion.fired(connection, study_instance_uid, analysis, revision)


def follow_up(services: Services, connection: sqlite3.Connection, job: Job) -> None:
    """Enqueue the selections that wait for the analysis of which ``job`` ends, where that is now over.

    ``job`` selects for an analysis or is a run of one; call it in the transaction that ends the job, when
    all else that follows from it is written. What does not come this way is found by the next tick.
    """
    analysis = str(job.payload["analysis"])
    if analysis in parking.parked(connection):
        # Whether the job failed or only waits for an operator is not known before it has ended.
        return
    followers = services.completion.followers(
        connection, str(job.payload["study_instance_uid"]), analysis, besides_job=job.id
    )
    fire(services, connection, followers, again=True)
