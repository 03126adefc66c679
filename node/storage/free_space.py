"""The free space that is held in reserve, asked for so seldom that it costs nothing."""

from __future__ import annotations

from pathlib import Path

from node.clock import Clock
from node.storage import disk

_ASK_AGAIN_SECONDS = 1.0
_ASK_AGAIN_BYTES = 64 * 1024**2
# What is written ahead takes no more than one part in so many of what is free.
_PARTS = 20


class FreeSpace:
    """The reserve of one file system.

    The system is asked again when a second has passed or a segment's worth of bytes was received
    by anybody. Segments are allocated before they are used, so receiving takes space only in
    whole segments, and for those it is asked always.

    Parameters
    ----------
    folder : Path
        Lies on the file system; need not be there yet.
    reserve_bytes : int
        What must be free.
    clock : Clock
        For the second.
    """

    def __init__(self, folder: Path, reserve_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._ask_at = float("-inf")
        self._unasked_bytes = 0

    def check(self, count: int) -> None:
        """Raise OutOfSpace when less than the reserve is free, with ``count`` bytes about to come."""
        # Threads may lose each other's addition: then the second decides.
        self._unasked_bytes += count
        now = self._clock.monotonic()
        if now < self._ask_at and self._unasked_bytes < _ASK_AGAIN_BYTES:
            return
        self._ask_at = float("-inf")  # while there is none, each reception asks
        if self._folder.is_dir():
            disk.check_free_space(self._folder, self._reserve_bytes)
            self._ask_at = now + _ASK_AGAIN_SECONDS
            self._unasked_bytes = 0

    def check_for_segment(self, segment_bytes: int) -> None:
        """Raise OutOfSpace when a new segment would touch the reserve."""
        disk.check_free_space(self._folder, self._reserve_bytes + segment_bytes)

    def spare_segments(self, segment_bytes: int, ready: int) -> int:
        """How many spare segments the disk can spare, one at least, where ``ready`` are there already."""
        if not self._folder.is_dir():
            return 1
        free_bytes = disk.free_bytes(self._folder) + ready * segment_bytes
        return max(1, free_bytes // _PARTS // segment_bytes)
