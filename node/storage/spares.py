"""Segments that are ready before anybody needs one, so that no sender waits until one is written.

To write a new segment takes the disk as long as to receive as much, so a pool of them is filled while
nobody receives: one segment after each five seconds in which no reception began. It is written a little at
a time, with pauses while there is another one, so that nobody waits for the disk until all of it is there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from node.clock import Clock
from node.errors import NodeError
from node.storage import disk
from node.storage.free_space import FreeSpace
from node.storage.segment import Segment, create, segment_path

logger = logging.getLogger(__name__)

_REST_SECONDS = 5.0
#: Between one megabyte of a new segment and the next.
_PAUSE_SECONDS = 0.01
_TRY_AGAIN_SECONDS = 10.0


class Spares:
    """The segments without records, and the thread that makes new ones.

    Parameters
    ----------
    folder : Path
        Where the segments lie; created with the first.
    segment_bytes : int
        Size of a new segment.
    free_space : FreeSpace
        Asked before each new one.
    next_number : int
        Number of the next segment.
    clock : Clock
        For the pause after one that could not be made.
    pool : int
        How many segments there are, in use or ready, once there was time to make them.
    in_use : callable
        How many there are that hold records: they come back when these are settled.
    check_place : callable
        Raises when ``folder`` is not the one that it should be, before anything is made in it.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int,
        free_space: FreeSpace,
        next_number: int,
        clock: Clock,
        *,
        pool: int,
        in_use: Callable[[], int],
        check_place: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_place = check_place
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._free_space = free_space
        self._next_number = next_number
        self._clock = clock
        self._try_again_at = float("-inf")
        self._lock = threading.Lock()
        self._ready: list[Segment] = []
        self._pool = pool
        self._in_use = in_use
        self._wanted = 1  # so many are made at once, whoever receives
        self._nudge = threading.Event()
        self._receptions = 0
        self._maker: threading.Thread | None = None
        self._closing = threading.Event()

    def take_number(self) -> int:
        """Return a number that no segment ever had."""
        with self._lock:
            self._next_number += 1
            return self._next_number - 1

    @property
    def newest_number(self) -> int:
        """The highest number that a segment has had."""
        return self._next_number - 1

    @property
    def are_enough(self) -> bool:
        """Whether one more would be removed."""
        return len(self._ready) >= self._most()

    def note_reception(self) -> None:
        """Somebody receives: what is not wanted at once is made later."""
        # Only whether it has changed counts, so that nobody has to wait for a lock.
        self._receptions += 1

    def take(self) -> Segment:
        """Hand out a spare segment, or where there is none a new one that is only allocated.

        Raises OutOfSpace or StorageFailure.
        """
        with self._lock:
            segment = self._ready.pop(0) if self._ready else None
            self._make_more()
        return segment or self._make(is_written=False)

    def give(self, segments: Iterable[Segment]) -> None:
        """Add segments without records; what nobody will want is removed."""
        with self._lock:
            self._ready.extend(segments)
            # The one with the highest number stays, so that numbers never come back.
            self._ready.sort(key=lambda segment: segment.number)
            is_closing = self._closing.is_set()
            surplus = self._ready if is_closing else self._ready[: -self._most()]
            self._ready = self._ready[len(surplus) :]
        for unwanted in surplus:
            unwanted.close()
            if not is_closing:
                with suppress(OSError):  # one that stays is found, empty, at the next start
                    segment_path(self._folder, unwanted.name).unlink(missing_ok=True)

    def want(self, count: int) -> None:
        """Keep ``count`` spare segments ready from now on, without waiting for time to make them."""
        self._wanted = min(count, self._pool)
        if len(self._ready) < self._wanted:
            with self._lock:
                self._make_more()

    def prepare(self) -> None:
        """Make the first spare segment, unless there is one, and begin to fill the pool."""
        if not self._ready:
            self._make_ready()
        with self._lock:
            self._make_more()

    def close(self) -> None:
        """Close all files; a segment that is being made is finished first."""
        with self._lock:
            self._closing.set()
            maker = self._maker
        self._nudge.set()
        if maker is not None:
            maker.join()
        self.give(())

    def _make(self, *, is_written: bool) -> Segment:
        self._check_place()
        disk.make_directory(self._folder)
        self._free_space.check_for_segment(self._segment_bytes)
        number = self.take_number()
        return create(self._folder, number, self._segment_bytes, is_written=is_written, pause=self._pause)

    def _pause(self) -> None:
        """Let others have the disk, unless there is no segment but the one that is being written."""
        if self._ready:
            self._closing.wait(_PAUSE_SECONDS)

    def _make_more(self) -> None:
        """Start the maker where it is needed, or tell it that one was taken; the lock is held."""
        self._nudge.set()
        if self._is_filled() or self._maker is not None or self._closing.is_set():
            return
        if self._clock.monotonic() >= self._try_again_at:
            maker = threading.Thread(target=self._fill, name="spare-segments", daemon=True)
            try:
                maker.start()
            except RuntimeError as error:  # no more threads
                logger.warning("no spare segment could be made", extra={"error": str(error)})
                self._try_again_at = self._clock.monotonic() + _TRY_AGAIN_SECONDS
            else:
                self._maker = maker

    def trim(self) -> None:
        """Remove the spare segments that a disk with less space than before cannot spare."""
        self.give(())

    def _most(self) -> int:
        ready = len(self._ready)
        try:
            allowed = self._free_space.spare_segments(self._segment_bytes, ready)
        except NodeError as error:
            # What is ready is kept, and no more is made, until the disk can be asked again.
            logger.warning("free space unknown", extra={"error": str(error)})
            allowed = max(1, ready)
        return min(self._pool, allowed)

    def _is_filled(self) -> bool:
        ready = len(self._ready)
        return ready >= self._wanted and (ready + self._in_use() >= self._pool or ready >= self._most())

    def _fill(self) -> None:
        is_made = True
        while True:
            self._nudge.clear()
            with self._lock:
                if self._closing.is_set() or not is_made or self._is_filled():
                    self._maker = None
                    return
                is_urgent = len(self._ready) < self._wanted
            before = self._receptions
            if is_urgent or not (self._nudge.wait(_REST_SECONDS) or self._receptions != before):
                is_made = self._make_ready()

    def _make_ready(self) -> bool:
        try:
            segment = self._make(is_written=True)
        except NodeError as error:
            # The next reception that needs a segment meets the same fault and reports it.
            logger.warning("no spare segment could be made", extra={"error": str(error)})
            self._try_again_at = self._clock.monotonic() + _TRY_AGAIN_SECONDS
            return False
        self.give([segment])
        return True
