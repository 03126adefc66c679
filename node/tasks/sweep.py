"""Housekeeping: frees what nothing needs any more."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from node import alarms
from node.errors import NodeError, StorageFailure
from node.jobs.policy import SECONDS_PER_DAY
from node.jobs.task import Done, Job, Outcome
from node.services import Services
from node.tls_watch import TlsWatch

logger = logging.getLogger(__name__)

#: So many jobs are forgotten in one transaction, so that no other waits long for it.
JOBS_AT_ONCE = 1000
#: What was set aside of these is forgotten as well: a peer that wants to know asks again.
_FORGOTTEN_SET_ASIDE = ("commit",)


class SweepTask:
    """Uses segments of the receive log again, forgets jobs that were done long ago, and watches TLS."""

    kind = "sweep"
    batch = 1

    def __init__(self) -> None:
        self._tls_watch = TlsWatch()

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Sweep once, for however many jobs."""
        _look_at_folders(services)
        _rescue(services)
        segments = services.storage.reclaim(lambda segment: is_needed(services, segment))
        forgotten = self._forget(services)
        if segments or forgotten:
            logger.info("swept", extra={"segments": segments, "jobs": forgotten})
        self._tls_watch.look(services.config, services.clock)
        yield from ((job, Done()) for job in jobs)

    def _forget(self, services: Services) -> int:
        before = services.clock.timestamp() - services.config.jobs.keep_done_days * SECONDS_PER_DAY
        total = 0
        while True:
            forgotten = services.database.write(
                lambda connection: services.queue.delete_done(
                    connection, before=before, limit=JOBS_AT_ONCE, set_aside_kinds=_FORGOTTEN_SET_ASIDE
                )
            )
            total += forgotten
            if forgotten < JOBS_AT_ONCE:
                return total


def _look_at_folders(services: Services) -> None:
    """Let the operator know that a disk is gone from under the node."""
    data_dir = services.config.node.data_dir
    try:
        services.storage.check_folders()
    except StorageFailure as error:
        logger.error("a folder is gone", extra={"reason": str(error)})
        message = f"{error}; {error.action}" if error.action else str(error)
        alarms.raise_alarm(data_dir, alarms.FOLDER_GONE, message, services.clock.timestamp())
    else:
        alarms.clear_alarm(data_dir, alarms.FOLDER_GONE)


def _rescue(services: Services) -> None:
    """Bring what lies in segments that failed a flush to others; what cannot be now is tried again."""
    suspects = services.storage.suspects()
    if not suspects:
        return
    message = (
        "a write to the receive log failed; nothing was acknowledged by it, and what the segment held is "
        "written once more: look at the disk (dmesg, smartctl)"
    )
    data_dir = services.config.node.data_dir
    alarms.raise_alarm(data_dir, alarms.FLUSH_FAILED, message, services.clock.timestamp())
    for segment in suspects:
        try:
            services.ingest.rescue(segment)
        except NodeError as error:
            logger.error("a segment could not be rescued", extra={"segment": segment, "reason": str(error)})
        else:
            logger.warning("what a failed segment held was written once more", extra={"segment": segment})


def is_needed(services: Services, segment: str) -> bool:
    """Whether a record that begins in a segment of the receive log is still needed.

    When it is not, the index says so durably: a loss of power after its records are overwritten cannot
    bring rows back that point to them.
    """
    with services.database.read() as connection:
        is_live = services.index.in_segment(connection, segment) > 0
    is_live = is_live or services.ingest.holds_unindexed(segment)
    if not is_live:
        services.database.flush()
    return is_live
