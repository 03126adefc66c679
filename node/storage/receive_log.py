"""The receive log: a pool of preallocated segments that makes Success cheap.

One reception at a time holds a segment and appends one record to it. When no record of a segment
is needed any more, the segment is used again under the next number; numbers never come back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from node.clock import Clock
from node.errors import NodeError, StorageFailure
from node.storage import disk
from node.storage.location import Location
from node.storage.record import BLOCK_BYTES, is_intact
from node.storage.segment import (
    Segment,
    begin_again,
    create,
    lock_unread,
    numbers_in,
    records,
    segment_name,
    segment_path,
)
from node.storage.window import window

logger = logging.getLogger(__name__)

_MOST_FREE_SEGMENTS = 8


@dataclass(frozen=True)
class ReplayedRecord:
    """A whole record found in the log at start; ``provenance`` as it was given to ``commit``."""

    location: Location
    transfer_syntax_uid: str
    provenance: str
    data_set_sha256: str
    data_set_bytes: int


@dataclass(eq=False)
class _Closed:
    """A segment that takes no more records.

    ``idle_since`` is the monotonic time at which it was first found unneeded, in seconds;
    ``is_kept`` means that it is not used again before the next start.
    """

    number: int
    is_broken: bool = False
    awaits_replay: bool = False
    is_kept: bool = False
    idle_since: float | None = None


class ReceiveLog:
    """The pool of segments in one folder. Making one touches no file.

    Parameters
    ----------
    folder : Path
        Where the segments lie; created with the first segment.
    segment_bytes : int
        Size of a new segment.
    reserve_bytes : int
        Free space that is never touched.
    grace_seconds : float
        How long a segment must have been unneeded before it is used again, so that a reader who
        has just looked up a record still finds it.
    clock : Clock
        For the grace.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int, reserve_bytes: int, grace_seconds: float, clock: Clock
    ) -> None:
        self.folder = folder
        self.reserve_bytes = reserve_bytes
        self._segment_bytes = max(4 * BLOCK_BYTES, segment_bytes // BLOCK_BYTES * BLOCK_BYTES)
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._reclaiming = threading.RLock()
        self._fresh: list[Segment] = []
        self._open: list[Segment] = []
        numbers = numbers_in(folder)
        self._closed = {number: _Closed(number, awaits_replay=True) for number in numbers}
        self._next_number = numbers[-1] + 1 if numbers else 1
        self._spare_maker: threading.Thread | None = None
        self._is_closing = False

    # --- handing out ---------------------------------------------------------

    def take(self, *, empty: bool = False) -> Segment:
        """Check a segment out: one in use, else a spare one, else a new one.

        ``empty`` asks for one without records. Raises OutOfSpace or StorageFailure.
        """
        with self._lock:
            if self._open and not empty:
                return self._open.pop()
            if self._fresh:
                return self._fresh.pop(0)
        return self._make()

    def release(self, segment: Segment, *, is_full: bool = False) -> None:
        """Give a checked-out segment back; a broken or full one takes no more records."""
        with self._lock:
            is_full = is_full or segment.size - segment.position < 2 * BLOCK_BYTES
            if segment.is_broken or is_full or self._is_closing:
                self._close(segment)
            elif segment.is_empty:
                self._fresh.insert(0, segment)
            else:
                self._open.append(segment)
            is_more_than_half_full = segment.position > segment.size // 2
            if is_more_than_half_full and not (self._fresh or self._spare_maker or self._is_closing):
                self._spare_maker = threading.Thread(target=self._make_spare, name="spare-segment")
                self._spare_maker.start()

    def _close(self, segment: Segment) -> None:
        os.close(segment.file)
        self._closed[segment.number] = _Closed(segment.number, is_broken=segment.is_broken)

    def _make(self) -> Segment:
        disk.make_directory(self.folder)
        disk.check_free_space(self.folder, self.reserve_bytes + self._segment_bytes)
        return create(self.folder, self._take_number(), self._segment_bytes)

    def _take_number(self) -> int:
        with self._lock:
            self._next_number += 1
            return self._next_number - 1

    def _make_spare(self) -> None:
        """Make a segment before somebody waits for it."""
        segment = None
        try:
            segment = self._make()
        except NodeError as error:
            # The next reception that needs a segment meets the same fault and reports it.
            logger.warning("no spare segment could be made", extra={"error": str(error)})
        with self._lock:
            self._spare_maker = None
            if segment is not None and self._is_closing:
                self._close(segment)
            elif segment is not None:
                self._fresh.append(segment)

    # --- reading -------------------------------------------------------------

    def path(self, location: Location) -> Path:
        """Path of the segment that holds a record."""
        return segment_path(self.folder, location.path)

    def open(self, location: Location) -> BinaryIO:
        """Open the data set of a record; raise StorageFailure when it is no longer here.

        The reader holds a shared lock, which keeps the segment from being used again.
        """
        path = self.path(location)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file).st_ino != path.stat().st_ino:
                    raise StorageFailure("the record has moved; its location must be looked up again")
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise disk.failure(error, "opening a segment of the receive log") from error
        return window(file, location.offset, location.length, owns_file=True)

    def replay(self, is_known: Callable[[Location], bool]) -> Iterator[ReplayedRecord]:
        """Yield the whole records of earlier runs that ``is_known`` does not know, oldest first.

        A segment may be used again only after the caller has come back for the record after its
        last one.
        """
        for path in self.folder.glob("*.part"):
            path.unlink(missing_ok=True)
        for number in sorted(closed.number for closed in self._closed.values() if closed.awaits_replay):
            try:
                file = os.open(segment_path(self.folder, segment_name(number)), os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise disk.failure(error, "opening a segment of the receive log") from error
            try:
                for offset, head in records(file, number):
                    location = Location("log", segment_name(number), offset, head.data_set_bytes)
                    if is_known(location):
                        continue
                    if is_intact(file, offset, head):
                        yield ReplayedRecord(
                            location,
                            head.transfer_syntax_uid,
                            head.provenance,
                            head.data_set_sha256,
                            head.data_set_bytes,
                        )
                    else:
                        # Its reception never came to an end, so nobody was told Success.
                        logger.warning("torn record left out", extra={"segment": segment_name(number)})
            finally:
                os.close(file)
            self._closed[number].awaits_replay = False

    # --- using again ---------------------------------------------------------

    def keep(self, location: Location) -> None:
        """Keep the segment of a replayed record from being used again before the next start."""
        with self._lock:
            for closed in self._closed.values():
                if segment_name(closed.number) == location.path:
                    closed.is_kept = True

    def without_reclaiming(self) -> AbstractContextManager[object]:
        """While this context is open no segment is used again."""
        return self._reclaiming

    def reclaim(self, is_live: Callable[[str], bool]) -> int:
        """Free each segment that nobody holds and of which ``is_live(name)`` is false.

        Returns
        -------
        int
            How many segments became free; those still in their grace are not among them.
        """
        with self._reclaiming:
            self._close_idle(is_live)
            with self._lock:
                candidates = [
                    closed for closed in self._closed.values() if not (closed.awaits_replay or closed.is_kept)
                ]
            return sum(self._free(closed) for closed in candidates if self._is_idle(closed, is_live))

    def _close_idle(self, is_live: Callable[[str], bool]) -> None:
        """Close segments in use of which no record is needed; the pool keeps the others."""
        with self._lock:
            idle, self._open = self._open, []
        # Out of the pool, so that nobody appends to a segment between the question and the answer.
        dead: list[Segment] = []
        try:
            dead = [segment for segment in idle if not is_live(segment.name)]
        finally:
            with self._lock:
                self._open = [segment for segment in idle if segment not in dead] + self._open
                for segment in dead:
                    self._close(segment)

    def _is_idle(self, closed: _Closed, is_live: Callable[[str], bool]) -> bool:
        if is_live(segment_name(closed.number)):
            closed.idle_since = None
            return False
        now = self._clock.monotonic()
        if closed.idle_since is None:
            closed.idle_since = now
        return now - closed.idle_since >= self._grace_seconds

    def _free(self, closed: _Closed) -> bool:
        """Make a closed segment a spare one, or remove it where it is broken or not wanted."""
        path = segment_path(self.folder, segment_name(closed.number))
        try:
            file = lock_unread(path)
            if file is None:
                return False
            with self._lock:
                del self._closed[closed.number]
            if closed.is_broken or os.fstat(file).st_size < self._segment_bytes:
                path.unlink()
                os.close(file)
                disk.sync_directory(self.folder)
                return True
            segment = begin_again(self.folder, file, closed.number, self._take_number(), self._segment_bytes)
        except (NodeError, OSError) as error:
            logger.warning("a segment could not be freed", extra={"error": str(error)})
            return False
        with self._lock:
            self._fresh.append(segment)
            # The one with the highest number stays, so that numbers never come back.
            surplus = self._fresh[:-_MOST_FREE_SEGMENTS]
            self._fresh = self._fresh[-_MOST_FREE_SEGMENTS:]
        for unwanted in surplus:
            os.close(unwanted.file)
            segment_path(self.folder, unwanted.name).unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Close all files; records stay as they are."""
        with self._lock:
            self._is_closing = True
            maker = self._spare_maker
        if maker is not None:
            maker.join()
        with self._lock:
            for segment in self._open + self._fresh:
                self._close(segment)
            self._open, self._fresh = [], []
