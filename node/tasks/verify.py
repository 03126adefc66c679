"""The weekly look at a part of the archive: is it still what was received?"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

from node import alarms
from node.jobs.task import Done, Job, Outcome
from node.services import Services
from node.verifying.verifying import Verifying

logger = logging.getLogger(__name__)

#: It goes behind everything else.
NICENESS = 19


class VerifyTask:
    """Proves again those instances of which the last proof is the longest ago, and marks each."""

    kind = "verify"
    batch = 1

    def __init__(self) -> None:
        self._cancellations = 0

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Verify once, for however many jobs; nothing is yielded when the node stops meanwhile."""
        if self._is_verified(services, self._cancellations):
            yield from ((job, Done()) for job in jobs)

    def cancel(self) -> None:
        """Leave the present work, because the node stops; what was verified is marked."""
        self._cancellations += 1

    def _is_verified(self, services: Services, cancellations: int) -> bool:
        """Verify the sample; whether that came to its end."""

        def is_wanted() -> bool:
            return self._cancellations == cancellations

        percent = services.config.verify.sample_percent
        with services.database.read() as connection:
            count = math.ceil(services.index.count(connection) * percent / 100)
            sample = services.index.longest_unverified(connection, count)
        verifying = Verifying(services.config, services.database, services.index, services.clock)
        good = damaged = 0
        for _, verdict in verifying.verify(sample, processes=1, niceness=NICENESS, is_wanted=is_wanted):
            if verdict.problem and verdict.is_known:
                logger.error("an instance is damaged", extra={"problem": verdict.problem})
                damaged += 1
            else:
                good += not verdict.problem
        if not is_wanted():
            return False
        logger.info("a sample was verified", extra={"good": good, "damaged": damaged})
        _tell(services)
        return True


def _tell(services: Services) -> None:
    """Raise the alarm while any instance is known to be damaged, whoever found it."""
    data_dir = services.config.node.data_dir
    with services.database.read() as connection:
        damaged = services.index.counts(connection)["damaged"]
    if damaged:
        message = f"{damaged} of the instances held here are damaged: 'anode verify --damaged' names them"
        alarms.raise_alarm(data_dir, alarms.DAMAGE_FOUND, message, services.clock.timestamp())
    else:
        alarms.clear_alarm(data_dir, alarms.DAMAGE_FOUND)
