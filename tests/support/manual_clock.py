"""A clock that stands still until a test moves it."""

from __future__ import annotations

from node.clock import Clock


class ManualClock(Clock):
    """Time passes only by ``advance``; ``set_by`` is somebody who sets the system's clock."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._passed = start
        self._set_by = 0.0
        super().__init__(wall=lambda: self._passed + self._set_by, steady=lambda: self._passed)

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def set_by(self, seconds: float) -> None:
        self._set_by += seconds
