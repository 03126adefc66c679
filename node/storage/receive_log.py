"""The receive log: a pool of preallocated segments that makes Success cheap.

One reception at a time holds a segment and appends one record to it; a record that is longer goes
on in further segments, which hold nothing else. When no record of a segment is needed any more,
the segment and those that continue its records are used again under the next numbers; numbers
never come back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.clock import Clock
from node.errors import IntegrityFailure, NodeError, OutOfSpace, StorageFailure
from node.repairs import Repairs
from node.storage import disk
from node.storage.chain import ChainWindow, Part, parts, read_link
from node.storage.free_space import FreeSpace
from node.storage.location import Location
from node.storage.record import BLOCK_BYTES, Head, Life, is_intact
from node.storage.segment import (
    Segment,
    begin_again,
    lock_unread,
    numbers_in,
    read_head,
    read_life,
    records,
    segment_name,
    segment_path,
)
from node.storage.spares import Spares
from node.storage.window import Window

logger = logging.getLogger(__name__)

#: Told the name of a segment, and what in it cannot be read.
Report = Callable[[str, str], None]

DAMAGED_HEAD = "the head of a record in it is damaged"
DAMAGED_LIFE = "its first block is damaged, without which no record counts"

# Who has just looked up a record did so in this run: a segment of an earlier one has no grace.
_EVER = float("-inf")


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

    ``first`` is the segment in which the record begins that this one continues: it is needed as
    long as that one is there. ``idle_since`` is the monotonic time at which it was first found
    unneeded, in seconds; ``is_kept`` means that it is not used again before the next start.
    """

    number: int
    is_broken: bool = False
    awaits_replay: bool = False
    is_kept: bool = False
    first: int | None = None
    idle_since: float | None = None


class ReceiveLog:
    """The pool of segments in one folder. Making one touches no file.

    Parameters
    ----------
    folder : Path
        Where the segments lie; created with the first segment.
    segment_bytes : int
        Size of a new segment.
    spare_segments : int
        How many segments are written ahead.
    reserve_bytes : int
        Free space that is never touched.
    grace_seconds : float
        How long a segment must have been unneeded before it is used again, so that a reader who
        has just looked up a record still finds it.
    clock : Clock
        For the grace.
    known_numbers : sequence of int
        Numbers of segments that are known elsewhere, be they here or not: none of them comes back.
    check_place : callable
        Raises when the folder is not the one that it should be, before a segment is made or used again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        spare_segments: int,
        reserve_bytes: int,
        grace_seconds: float,
        clock: Clock,
        known_numbers: Sequence[int] = (),
        check_place: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self._check_place = check_place
        self.free_space = FreeSpace(folder, reserve_bytes, clock)
        self._segment_bytes = max(4 * BLOCK_BYTES, segment_bytes // BLOCK_BYTES * BLOCK_BYTES)
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._reclaiming = threading.RLock()
        self._open: list[Segment] = []
        self._suspects: set[str] = set()
        self._ageing_in_use = 0
        numbers = numbers_in(folder)
        self._closed = {number: _Closed(number, awaits_replay=True, idle_since=_EVER) for number in numbers}
        next_number = max((*numbers, *known_numbers), default=0) + 1
        self._spares = Spares(
            folder,
            self._segment_bytes,
            self.free_space,
            next_number,
            clock,
            pool=spare_segments,
            in_use=lambda: len(self._closed) + len(self._open),
            check_place=check_place,
        )
        self._is_closing = False
        self._flushed: set[Path] = set()  # by replay

    # --- handing out ---------------------------------------------------------

    def prepare(self) -> None:
        """Have a spare segment ready for the first reception. Only where the log is written."""
        self._spares.prepare()

    def take(self, *, empty: bool = False) -> Segment:
        """Check a segment out: one in use, else a spare one, else a new one.

        ``empty`` asks for one without records. Raises OutOfSpace or StorageFailure.
        """
        self._spares.note_reception()
        if not empty:
            with self._lock:
                if self._open:
                    segment = self._open.pop()
                    self._ageing_in_use += segment.is_ageing
                    return segment
        return self._spares.take()

    def release(
        self,
        segment: Segment,
        continuations: Sequence[Segment] = (),
        *,
        is_full: bool = False,
        holds_record: bool = True,
    ) -> None:
        """Give checked-out segments back; a broken or full one takes no more records.

        Parameters
        ----------
        segment : Segment
            The one in which the record begins.
        continuations : sequence of Segment
            Those in which it goes on.
        is_full : bool
            Close ``segment``, however much room is left.
        holds_record : bool
            Whether there is a record; without one the continuations are free again.
        """
        is_full = is_full or segment.size - segment.position < 2 * BLOCK_BYTES
        unused: list[Segment] = []
        with self._lock:
            # Those in use at one time may be full at one time; those that nobody uses may not.
            wanted = 1 + self._ageing_in_use
            self._ageing_in_use -= segment.is_ageing
            if segment.is_broken or is_full or self._is_closing:
                self._close(segment)
            elif segment.is_empty:
                unused.append(segment)
            else:
                segment.is_ageing = segment.position > segment.size // 4
                self._open.append(segment)
            for continuation in continuations:
                if holds_record:
                    self._close(continuation, first=segment.number)
                elif continuation.is_broken or not _reopen(self.folder, continuation):
                    self._close(continuation)
                else:
                    unused.append(continuation)
        if unused:
            self._spares.give(unused)
        self._spares.want(wanted)

    def _close(self, segment: Segment, *, first: int | None = None) -> None:
        segment.close()
        if segment.is_broken and not segment.is_empty:
            self._suspects.add(segment.name)
        self._closed[segment.number] = _Closed(segment.number, is_broken=segment.is_broken, first=first)

    # --- reading -------------------------------------------------------------

    def path(self, location: Location) -> Path:
        """Path of the segment that holds a record."""
        return segment_path(self.folder, location.path)

    def open(self, location: Location) -> Window:
        """Open the data set of a record; raise StorageFailure when it is no longer here.

        The reader holds a shared lock, which keeps the segment from being used again, and with it
        those in which the record goes on. Raises IntegrityFailure when one of them is gone.
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
        try:
            return self._record(file, location)
        except BaseException:
            os.close(file)
            raise

    def _record(self, file: int, location: Location) -> Window:
        """Make the window on a record that begins in the open segment ``file``, which it owns then."""
        count = os.fstat(file).st_size - location.offset
        if location.length <= count:
            return Window(file, location.offset, location.length, owns_file=True)
        life = read_life(file)
        head = read_head(file, location.offset, life) if life else None
        if life is None or head is None or head.continued_in is None:
            raise IntegrityFailure("the head of a record that goes on in another segment is damaged")
        first_part = Part(self.path(location), location.offset, count)
        chain = parts(self.folder, life, first_part, head.continued_in, location.length)
        return ChainWindow(chain, lock=file)

    def replay(
        self,
        is_known: Callable[[Location], bool],
        repairs: Repairs,
        is_used: Callable[[str], bool] = lambda _segment: False,
    ) -> Iterator[ReplayedRecord]:
        """Yield the whole records of earlier runs that ``is_known`` does not know, oldest first.

        A segment in which a head is damaged is kept, and what is behind it is yielded as well. One
        without a head at its beginning is read to its end only if ``is_used``: spare ones are large.
        A segment may be used again only after the caller has come back for the record after its
        last one.
        """
        yield from self._found(is_known, repairs, _log_alone, is_used)

    def survey(self, report: Report) -> Iterator[ReplayedRecord]:
        """Yield every whole record of earlier runs, as ``replay``, also of segments that begin with damage.

        ``report`` is told of each segment in which something could not be read, and why.
        """
        return self._found(lambda _location: False, Repairs(), report, lambda _segment: True)

    def _found(
        self,
        is_known: Callable[[Location], bool],
        repairs: Repairs,
        report: Report,
        is_used: Callable[[str], bool],
    ) -> Iterator[ReplayedRecord]:
        for path in self.folder.glob("*.part"):
            path.unlink(missing_ok=True)
            repairs.files_removed += 1
        waiting = sorted(closed.number for closed in self._closed.values() if closed.awaits_replay)
        lives = {number: life for number in waiting if (life := self._recall(number, report)) is not None}
        for number in waiting:
            if number in lives:
                is_thorough = is_used(segment_name(number))
                for location, head in self._heads(lives[number], report, is_thorough=is_thorough):
                    if not is_known(location) and self._is_whole(location, head, repairs, report):
                        yield ReplayedRecord(
                            location,
                            head.transfer_syntax_uid,
                            head.provenance,
                            head.data_set_sha256,
                            head.data_set_bytes,
                        )
            self._closed[number].awaits_replay = False

    def _keep_unreadable(self, number: int, reason: str, report: Report) -> None:
        """Leave a segment as it is that the disk does not give back; the next start tries again."""
        self._closed[number].is_kept = True
        logger.error(
            "a segment of the receive log cannot be read; it is kept, and the next start tries again",
            extra={"segment": segment_name(number), "reason": reason},
        )
        report(segment_name(number), reason)

    def _recall(self, number: int, report: Report) -> Life | None:
        """Read in which life a segment of an earlier run is, and which record it continues, if any.

        A continuation belongs to the segment in which its record begins for as long as that is
        there, also when the record cannot be read: so nothing that is needed is ever used again.
        """
        try:
            with _opened(segment_path(self.folder, segment_name(number))) as file:
                life = read_life(file)
                link = read_link(file, life.key) if life else None
        except StorageFailure as error:
            self._keep_unreadable(number, str(error), report)
            return None
        if life is None:
            self._keep_unreadable(number, DAMAGED_LIFE, report)
            return None
        if life.number != number:
            return None  # it was to be used again, and its next life never began
        if link is not None:
            self._closed[number].first = link.first.number
        return life

    def _heads(self, life: Life, report: Report, *, is_thorough: bool) -> Iterator[tuple[Location, Head]]:
        found = []
        try:
            with _opened(segment_path(self.folder, segment_name(life.number))) as file:
                end = 2 * BLOCK_BYTES
                for offset, head in records(file, life, is_thorough=is_thorough):
                    if offset != end:
                        self._keep_unreadable(life.number, DAMAGED_HEAD, report)
                    end = offset + head.record_bytes
                    found.append((offset, head))
        except StorageFailure as error:
            self._keep_unreadable(life.number, str(error), report)
        for offset, head in found:
            yield Location("log", segment_name(life.number), offset, head.data_set_bytes), head

    def _is_whole(self, location: Location, head: Head, repairs: Repairs, report: Report) -> bool:
        try:
            with self.open(location) as data_set:
                if is_intact(data_set, head):
                    self._make_durable(location, data_set)
                    return True
        except (StorageFailure, OutOfSpace) as error:
            self._keep_unreadable(int(location.path), str(error), report)
            return False
        except IntegrityFailure as error:
            logger.debug("torn record: detail", extra={"reason": str(error)})
        # Its reception never came to an end, so nobody was told Success.
        repairs.records_torn += 1
        logger.warning("torn record left out", extra={"segment": location.path})
        report(location.path, "a record in it is torn, because the node stopped, or damaged")
        return False

    def _make_durable(self, location: Location, data_set: Window) -> None:
        """Flush a record that is found; whoever sends it again is told Success without a further flush.

        Its reception may have been killed before its own flush, and what is read may be in memory alone. Or
        its flush failed, and the system takes for written what it could not write: so all is written anew.
        """
        parts_of_it = data_set.paths if isinstance(data_set, ChainWindow) else [self.path(location)]
        for path in set(parts_of_it) - self._flushed:
            with _opened(path, os.O_RDWR) as file:
                disk.write_anew(file)
                disk.sync_data(file)
            self._flushed.add(path)

    # --- given up ------------------------------------------------------------

    def suspects(self) -> list[str]:
        """Segments with records to which a write or flush failed in this run, but for those cleared."""
        with self._lock:
            return sorted(self._suspects)

    def clear(self, segment: str) -> None:
        """Note that nothing that counts is in a suspect segment any more."""
        with self._lock:
            self._suspects.discard(segment)

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
            # A continuation comes after the segment in which its record begins.
            candidates.sort(key=lambda closed: closed.first is not None)
            freed = sum(self._free(closed) for closed in candidates if self._is_idle(closed, is_live))
            self._spares.trim()
            return freed

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
        if closed.first is not None:
            with self._lock:
                return closed.first not in self._closed
        if is_live(segment_name(closed.number)):
            closed.idle_since = None
            return False
        now = self._clock.monotonic()
        if closed.idle_since is None:
            closed.idle_since = now
        return now - closed.idle_since >= self._grace_seconds

    def _free(self, closed: _Closed) -> bool:
        """Make a closed segment a spare one, or remove it where it is broken or not wanted."""
        number = closed.number
        path = segment_path(self.folder, segment_name(number))
        try:
            self._check_place()
            file = lock_unread(path)
            if file is None:
                return False
            is_unfit = closed.is_broken or os.fstat(file).st_size < self._segment_bytes
            # The one with the highest number stays, so that numbers never come back.
            is_removable = closed.number != self._spares.newest_number
            if is_unfit and not is_removable:
                os.close(file)
                return False
            with self._lock:
                del self._closed[closed.number]
            if is_unfit or (is_removable and self._spares.are_enough):
                try:
                    path.unlink()
                finally:
                    os.close(file)  # and with it the lock, for which a late reader may wait
                disk.sync_directory(self.folder)
                return True
            number = self._spares.take_number()
            segment = begin_again(self.folder, file, closed.number, number, self._segment_bytes)
        except (NodeError, OSError) as error:
            logger.warning("a segment could not be freed", extra={"error": str(error)})
            self._take_back({closed.number, number})
            return False
        self._spares.give([segment])
        return True

    def _take_back(self, numbers: set[int]) -> None:
        """Know a segment that could not be freed, by the number that it has now; it is removed some time."""
        with self._lock:
            for number in numbers - self._closed.keys():
                if segment_path(self.folder, segment_name(number)).exists():
                    self._closed[number] = _Closed(number, is_broken=True)

    def close(self) -> None:
        """Close all files; records stay as they are."""
        with self._lock:
            self._is_closing = True
            for segment in self._open:
                self._close(segment)
            self._open = []
        self._spares.close()


def _log_alone(_segment: str, _reason: str) -> None:
    """Be the report of a start, of which the log is enough."""


@contextmanager
def _opened(path: Path, how: int = os.O_RDONLY) -> Iterator[int]:
    try:
        file = os.open(path, how | os.O_CLOEXEC)
    except OSError as error:
        raise disk.failure(error, "opening a segment of the receive log") from error
    try:
        yield file
    finally:
        os.close(file)


def _reopen(folder: Path, segment: Segment) -> bool:
    """Open a segment again that was closed when it was full; False where it cannot be."""
    if segment.file < 0:
        try:
            segment.file = os.open(segment_path(folder, segment.name), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
    return True
