"""How fast instances arrive now, so that work that can wait gives way to a burst."""

from __future__ import annotations

from node.clock import Clock

_SPAN_SECONDS = 0.5
# A burst is one after so long; until then a few instances are no more than a few.
_SOON_SECONDS = 0.1
# A burst is over when nothing has come for so long: a sender waits a few milliseconds for each answer.
_QUIET_SECONDS = 0.1
# Once no peer is connected: one that connects for each instance is back sooner.
_ALONE_SECONDS = 0.02


class Pace:
    """Counts arrivals by spans of half a second; any thread may use it, and none waits for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._count = 0
        self._before = 0.0  # per second, in the span before this one
        self._last = self._began - _QUIET_SECONDS

    def count(self) -> None:
        """Note the arrival of an instance."""
        self._go_on()
        self._count += 1
        self._last = self._clock.monotonic()

    def per_second(self, *, is_anyone_connected: bool = True) -> float:
        """Instances per second: in this span so far or in the one before, whichever is more.

        0 when none has come for a moment, which is shorter while no peer is connected.
        """
        self._go_on()
        now = self._clock.monotonic()
        if now - self._last >= (_QUIET_SECONDS if is_anyone_connected else _ALONE_SECONDS):
            return 0.0
        passed = now - self._began
        return max(self._before, self._count / max(passed, _SOON_SECONDS))

    def _go_on(self) -> None:
        # Two threads may do this at once: one count more or less is no matter.
        now = self._clock.monotonic()
        passed = now - self._began
        if passed >= _SPAN_SECONDS:
            self._before = self._count / passed
            self._began, self._count = now, 0
