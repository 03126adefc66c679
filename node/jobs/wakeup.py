"""How a worker sleeps: until something was enqueued for it, or a time has come."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Wakeup:
    """A counter that sleepers watch; one for each group of workers.

    Counting, not flagging: a worker reads ``count`` before it looks for jobs, so what is enqueued
    between the look and the sleep ends the sleep at once.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = frozenset(kinds)
        self._condition = threading.Condition()
        self._count = 0

    @property
    def count(self) -> int:
        """How often something was enqueued so far."""
        with self._condition:
            return self._count

    def notify(self, *, everyone: bool = False) -> None:
        """Wake one sleeper, or everyone."""
        with self._condition:
            self._count += 1
            self._condition.notify(self._waiting() if everyone else 1)

    def wait(self, seen: int, seconds: float) -> bool:
        """Sleep until the count differs from ``seen``; return whether it does within ``seconds``."""
        with self._condition:
            if self._count != seen:
                return True
            self._condition.wait(seconds)
            return self._count != seen

    def _waiting(self) -> int:
        # More than any group has; Condition.notify takes the number of sleepers at most.
        return 1 << 16
