"""A clock that stands still until a test moves it."""

from __future__ import annotations

from node.clock import Clock


class ManualClock(Clock):
    """Time passes only by ``advance``."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._timestamp = start

    def timestamp(self) -> float:
        return self._timestamp

    def monotonic(self) -> float:
        return self._timestamp

    def advance(self, seconds: float) -> None:
        self._timestamp += seconds
