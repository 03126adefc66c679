"""Settles received instances: from the receive log into an archive file, compressed and proven.

The work is done by processes of its own (``node/settling``); what it comes to is written here.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence

from node.errors import AnodeError, DatabaseFailure, IntegrityFailure
from node.index.index import StoredInstance
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.services import Services
from node.settling.choices import Choices
from node.settling.order import Settled
from node.settling.pool import NICENESS, Settlers, SettlingStopped

logger = logging.getLogger(__name__)

#: While instances arrive at this rate, settling waits until the burst is over,
BURST_PER_SECOND = 50.0
#: but no longer than this from the arrival of an instance on: then it goes on beside the burst.
BURST_PATIENCE_SECONDS = 20.0
#: After this it shares the priority of receiving, so that the receive log does not grow for ever.
PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.01


class SettleTask:
    """Writes the archive file of each instance and points the index to it.

    Doing it twice is harmless: the file is replaced in one step by an equal one, and a settled
    instance is left alone. Until the job is done, the instance is read from the receive log.
    """

    kind = "settle"
    batch = 16

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._settlers: Settlers | None = None
        self._cancellations = 0
        self._choices = Choices()

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with what became of it; nothing more when the node stops meanwhile."""
        oldest = min(job.created_at for job in jobs)
        cancellations = self._cancellations
        self._let_burst_pass(services, oldest, cancellations)
        waiting: dict[str, tuple[Job, StoredInstance]] = {}
        rules = services.config.transcode.rules
        headers: dict[str, Mapping[str, str]] = {}
        with services.database.read() as connection:
            found = [
                (job, services.index.get(connection, str(job.payload["sop_instance_uid"]))) for job in jobs
            ]
            if rules:
                headers = {
                    stored.sop_instance_uid: services.index.header_of(connection, stored.sop_instance_uid)
                    for _, stored in found
                    if stored is not None
                }
        for job, stored in found:
            if stored is None:
                yield job, SetAside(DatabaseFailure("the instance is not in the index"))
            elif stored.is_settled:
                yield job, Done()
            else:
                waiting[stored.sop_instance_uid] = job, stored
        settlers = self._ready(services, cancellations)
        if settlers is None:
            return
        waited_seconds = services.clock.timestamp() - oldest
        niceness = 0 if waited_seconds > PATIENCE_SECONDS else NICENESS
        orders = [
            self._choices.order(services, stored, headers.get(stored.sop_instance_uid, {}))
            for _, stored in waiting.values()
        ]
        try:
            for order, answer in self._choices.settled(settlers, orders, niceness):
                job, stored = waiting[order.sop_instance_uid]
                yield job, _outcome(services, stored, answer)
        except SettlingStopped:
            return

    def cancel(self) -> None:
        """End the settling processes, because the node stops; what they had begun is done again."""
        with self._lock:
            self._cancellations += 1
            self._lock.notify_all()
            settlers, self._settlers = self._settlers, None
        if settlers is not None:
            settlers.stop()

    def _let_burst_pass(self, services: Services, oldest: float, cancellations: int) -> None:
        """Wait while instances stream in, and no longer when the node stops.

        A study comes in one go, and its sender waits for each Success.
        """
        began = services.clock.monotonic()
        pace, peers = services.ingest.pace, services.peers
        while (
            pace.per_second(is_anyone_connected=peers.is_anyone_connected) > BURST_PER_SECOND
            and services.clock.timestamp() - oldest < BURST_PATIENCE_SECONDS
            and services.clock.monotonic() - began < BURST_PATIENCE_SECONDS
        ):
            with self._lock:
                if self._cancellations != cancellations:
                    return
                self._lock.wait(_LOOK_SECONDS)

    def _ready(self, services: Services, cancellations: int) -> Settlers | None:
        """The processes; None when they were told to end since the caller began."""
        with self._lock:
            if self._cancellations != cancellations:
                return None
            if self._settlers is None:
                self._settlers = Settlers(
                    services.config.node.data_dir, services.config.storage, services.storage.tenure
                )
            return self._settlers


def _outcome(services: Services, stored: StoredInstance, answer: Settled | AnodeError) -> Outcome:
    if isinstance(answer, IntegrityFailure):
        with services.database.read() as connection:
            now = services.index.get(connection, stored.sop_instance_uid)
        if now is not None and now.location != stored.location:
            return Retry(answer)  # the good bytes have come again meanwhile
        logger.error("received bytes are damaged", extra={"segment": stored.location.path})
        return SetAside(answer)
    if isinstance(answer, AnodeError):
        return Retry(answer)
    settled = answer
    logger.debug(
        "instance settled",
        extra={"sop_instance_uid": stored.sop_instance_uid, "kept_reason": settled.kept_reason},
    )

    def apply(connection: sqlite3.Connection) -> None:
        services.index.settle(
            connection,
            stored.sop_instance_uid,
            location=settled.location,
            stored_transfer_syntax_uid=settled.transfer_syntax_uid,
            kept_reason=settled.kept_reason,
            proof=settled.proof,
        )

    # A loss of power that takes the row leaves a job that settles the instance again.
    return Done(apply, can_be_replayed=True)
