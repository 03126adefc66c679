"""Time, as the node reads it: UTC for what is written down, monotonic for deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A clock that is set by less than this is followed at once: pauses and leases are longer.
TOLERANCE_SECONDS = 1.0


def _steady() -> float:
    # Goes on while the machine sleeps, so that a sleep is no step.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The system's clock, which somebody may set.

    When it is set by more than ``TOLERANCE_SECONDS``, the time of day goes on here as before until
    ``follow`` is called: whoever compares it with times that are written down moves those first
    (``node/jobs/clock_watch.py``).

    Parameters
    ----------
    wall
        Seconds since the epoch; may jump.
    steady
        Seconds that never jump.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady) -> None:
        self._wall = wall
        self._steady = steady
        self._difference = wall() - steady()

    def timestamp(self) -> float:
        """Seconds since the epoch, as the database stores times."""
        return self._steady() + self._difference

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""
        return self._steady()

    def step_seconds(self) -> float:
        """By how much the system's clock was set; 0 for less than can matter, which is followed."""
        difference = self._wall() - self._steady()
        step_seconds = difference - self._difference
        if abs(step_seconds) > TOLERANCE_SECONDS:
            return step_seconds
        self._difference = difference
        return 0.0

    def follow(self, step_seconds: float) -> None:
        """Take over a step that ``step_seconds`` told."""
        self._difference += step_seconds
