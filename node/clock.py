"""Time, as the node reads it: UTC for what is written down, monotonic for deadlines."""

from __future__ import annotations

import time


class Clock:
    """The system's clock. Tests hand in another one."""

    def timestamp(self) -> float:
        """Seconds since the epoch, as the database stores times."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""
        return time.monotonic()
