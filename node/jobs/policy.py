"""When a failed job is tried again, and when it is set aside."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from node.config.settings import JobsConfig

#: Each pause of work is so many times the one before.
WORK_FACTOR = 3.0
#: Pauses vary by this share, so that jobs that failed together do not all come back together.
JITTER = 0.1
SECONDS_PER_DAY = 86400.0


def jitter() -> float:
    """Draw a factor around 1 by which a pause is multiplied."""
    return random.uniform(1.0 - JITTER, 1.0 + JITTER)


class RetryPolicy(ABC):
    """Decides what becomes of a job that failed."""

    @abstractmethod
    def pause_seconds(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (1 or more)."""

    @abstractmethod
    def is_exhausted(self, *, attempts: int, age_seconds: float) -> bool:
        """Whether a job that was tried so often, for so long, is set aside."""

    @abstractmethod
    def oldest_seconds(self) -> float | None:
        """Age at which a job of a lane that is down is set aside untried; None for never."""

    @staticmethod
    def for_work(config: JobsConfig) -> WorkPolicy:
        """Build the policy of settle, select, analyze and sweep."""
        return WorkPolicy(tries=config.tries, window_seconds=config.window_seconds)

    @staticmethod
    def for_delivery(config: JobsConfig) -> DeliveryPolicy:
        """Build the policy of all that waits for a peer: deliver, confirm and commit."""
        return DeliveryPolicy(
            first_seconds=config.delivery_retry_first_seconds,
            max_seconds=config.delivery_retry_max_seconds,
            days=config.delivery_days,
        )


@dataclass(frozen=True)
class WorkPolicy(RetryPolicy):
    """So many ``tries``, spread over ``window_seconds`` with growing pauses."""

    tries: int
    window_seconds: float
    vary: Callable[[], float] = jitter

    def pause_seconds(self, failures: int) -> float:
        """Pauses grow by a factor of three; all of them together fit into the window."""
        pauses = max(self.tries - 1, 1)
        growth = (WORK_FACTOR**pauses - 1) / (WORK_FACTOR - 1)
        first = self.window_seconds / growth / (1.0 + JITTER)
        return first * WORK_FACTOR ** (min(failures, pauses) - 1) * self.vary()

    def is_exhausted(self, *, attempts: int, age_seconds: float) -> bool:
        """Work is set aside by the count of its tries alone: a node that was off costs no try."""
        del age_seconds
        return attempts >= self.tries

    def oldest_seconds(self) -> float | None:
        """Work has no age."""
        return None


@dataclass(frozen=True)
class DeliveryPolicy(RetryPolicy):
    """Pauses double from ``first_seconds`` to ``max_seconds``, for ``days``."""

    first_seconds: float
    max_seconds: float
    days: float
    vary: Callable[[], float] = jitter

    def pause_seconds(self, failures: int) -> float:
        """Never longer than ``max_seconds``, whatever the variation."""
        # 2**64 seconds is beyond any maximum; the cap keeps the power from overflowing.
        pause = self.first_seconds * 2.0 ** min(failures - 1, 64)
        return min(min(pause, self.max_seconds) * self.vary(), self.max_seconds)

    def is_exhausted(self, *, attempts: int, age_seconds: float) -> bool:
        """Delivery is set aside by age: a peer may be down for days."""
        return attempts > 0 and age_seconds >= self.days * SECONDS_PER_DAY

    def oldest_seconds(self) -> float | None:
        """All that waits for a peer that is down grows old together."""
        return self.days * SECONDS_PER_DAY
