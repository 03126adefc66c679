"""One object on its way in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self

from node.errors import LimitExceeded, NodeError
from node.storage import disk
from node.storage.chain import CONTINUATION_START, ChainWindow, Link, Part
from node.storage.location import Location
from node.storage.receive_log import ReceiveLog
from node.storage.record import BLOCK_BYTES, Head, record_bytes
from node.storage.segment import Segment, segment_path
from node.storage.window import Window
from node.storage.write_behind import WriteBehind

Fragment = bytes | bytearray | memoryview

#: So much of the start of a data set stays at hand, so that its header is read without the disk.
START_BYTES = 64 * 1024
# What is behind the last write waits in memory until it is as much as this, or the end has come.
_WORTH_WRITING_BYTES = 64 * 1024
# A record with no more than this before the end of its segment is moved as a whole to another.
_MOVE_BYTES = 1024**2
# So much is handed to the disk at a time: each time costs it a request, and us the asking.
_WRITE_OUT_BYTES = 256 * 1024
# So much is left to the last flush at most, and as much to the one before it.
_FLUSH_BYTES = 16 * 1024**2


class Reception:
    """A data set that streams into the receive log; a context manager.

    Leaving the context without ``commit`` (or ``seal``) leaves nothing behind. Until it is left,
    its segments are not used for anything else and are not reclaimed, so the index row is written
    inside it.

    Only whole blocks are written, so that the system never has to read one from the disk to
    change a part of it; what is shorter waits for what follows, and so does what is not worth a
    write of its own. The first ``START_BYTES`` wait in memory, so a small object is one write.

    Attributes
    ----------
    length : int
        Bytes received so far.
    start_bytes : bytearray
        The first of them, at most ``START_BYTES``.
    """

    def __init__(self, log: ReceiveLog, *, limit_bytes: int | None = None) -> None:
        self._log = log
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256()
        self.length = 0
        self.start_bytes = bytearray()
        # Bytes of the data set in the log, in whole blocks, and those that are behind them.
        self._written = 0
        self._tail = bytearray()
        self._write_behind: WriteBehind | None = None  # a short object needs none
        self._unflushed = 0
        self._not_handed_over = 0
        self._is_sealed = False
        self._chain: list[Segment] = []
        self._first = log.take()
        self._begin_in(self._first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(NodeError):
            self._wait_for_flushes()
        self._log.release(self._first, self._chain, holds_record=self._is_sealed)

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    # --- writing -------------------------------------------------------------

    def write(self, fragments: Sequence[Fragment]) -> None:
        """Append fragments that lie behind each other.

        Raises
        ------
        LimitExceeded
            The data set is longer than it may be.
        OutOfSpace, StorageFailure
            The disk failed or is full; a segment that failed is not written to again.
        """
        length = self.length
        end = length + sum(map(len, fragments))
        if self._limit_bytes is not None and end > self._limit_bytes:
            raise LimitExceeded(f"the data set is longer than {self._limit_bytes} bytes")
        self._log.free_space.check(end - length)
        if length < START_BYTES:
            for fragment in fragments:
                self.start_bytes += fragment[: START_BYTES - len(self.start_bytes)]
        if self._written and end - self._written < _WORTH_WRITING_BYTES:
            for fragment in fragments:
                self._tail += fragment
        elif self._written:
            self._append([self._tail, *fragments], end)
        elif end > START_BYTES:
            _, following = _split(fragments, len(self.start_bytes) - length)
            self._append([self.start_bytes, *following], end)
        # after the writing, which goes on meanwhile
        for fragment in fragments:
            self._digest.update(fragment)
        self.length = end

    def _append(self, buffers: Sequence[Fragment], end: int) -> None:
        """Write what lies behind ``_written``, in whole blocks; the rest becomes the tail."""
        count = end // BLOCK_BYTES * BLOCK_BYTES - self._written
        whole, rest = _split(buffers, count)
        tail = bytearray().join(rest)
        while count > (room := self._room()):
            if self._may_move():
                self._move()
                continue
            now, whole = _split(whole, room)
            self._put(now, room)
            count -= room
            self._go_on()
        self._put(whole, count)
        self._tail = tail

    def _put(self, buffers: Sequence[Fragment], count: int) -> None:
        if not count:
            return
        position = self._position()
        self._write_at(buffers, position)
        self._written += count
        self._unflushed += count
        self._not_handed_over += count
        if self._not_handed_over >= _WRITE_OUT_BYTES:
            begin = position + count - self._not_handed_over
            disk.begin_writing_out(self._segment.file, begin, self._not_handed_over)
            self._not_handed_over = 0
        if self._unflushed >= _FLUSH_BYTES:
            self._flush_behind(self._segment)

    def _write_tail(self) -> None:
        """Write the end of the data set, filled up to a block."""
        if len(self._tail) >= BLOCK_BYTES and len(self._tail) > self._room():
            self._append([self._tail], self.length)
        if self._tail:
            if not self._room():
                self._go_on()
            self._write_at([self._tail, bytes(-len(self._tail) % BLOCK_BYTES)], self._position())

    def _flush_behind(self, segment: Segment, *, then_close: bool = False) -> None:
        self._unflushed = 0
        if self._write_behind is None:
            self._write_behind = WriteBehind()
        self._write_behind.flush(segment, then_close=then_close)

    def _wait_for_flushes(self) -> None:
        if self._write_behind is not None:
            self._write_behind.wait()

    def _write_at(self, buffers: Sequence[Fragment], offset: int) -> None:
        segment = self._segment
        try:
            disk.write_all_at(segment.file, buffers, offset)
        except NodeError:
            segment.is_broken = True
            raise

    # --- where it lies -------------------------------------------------------

    def _begin_in(self, segment: Segment) -> None:
        """Let the record begin in ``segment``."""
        self._first = self._segment = segment
        self._start = segment.position
        self._part_offset = self._start + BLOCK_BYTES
        self._part_begin = 0
        self._not_handed_over = 0

    def _position(self) -> int:
        """Byte of the present segment at which ``_written`` lies."""
        return self._part_offset + self._written - self._part_begin

    def _room(self) -> int:
        return self._segment.size - self._position()

    def _may_move(self) -> bool:
        return not self._chain and not self._first.is_empty and self._written <= _MOVE_BYTES

    def _move(self) -> None:
        """Move to an empty segment, with the little that is written."""
        self._wait_for_flushes()  # the log closes the segment that is left
        full, source = self._first, self._part_offset
        self._begin_in(self._log.take(empty=True))
        try:
            if self._written:
                data = disk.read_at(full.file, self._written, source)
                self._write_at([data], self._part_offset)
        finally:
            self._log.release(full, is_full=True)

    def _go_on(self) -> None:
        """Go on in a further segment; the one that is left is flushed meanwhile."""
        left, upcoming = self._segment, self._log.take(empty=True)
        self._chain.append(upcoming)
        if left is not self._first:
            self._write_at([Link(self._first.life, upcoming.life).encode(left.key)], BLOCK_BYTES)
        self._flush_behind(left, then_close=left is not self._first)
        self._segment = upcoming
        self._part_offset, self._part_begin = CONTINUATION_START, self._written
        self._not_handed_over = 0

    def data_set(self) -> BinaryIO:
        """What was written so far, as a file to read from; valid inside the context."""
        start, end = self.start_bytes, bytes(self._tail)
        if not self._chain:
            offset = self._start + BLOCK_BYTES
            return Window(self._first.file, offset, self.length, start_bytes=start, end_bytes=end)
        parts, left = [], self.length
        for segment in (self._first, *self._chain):
            offset = self._start + BLOCK_BYTES if segment is self._first else CONTINUATION_START
            count = left if segment is self._segment else min(left, segment.size - offset)
            parts.append(Part(segment_path(self._log.folder, segment.name), offset, count))
            left -= count
        return ChainWindow(parts, start_bytes=start, end_bytes=end)

    # --- the record ----------------------------------------------------------

    def commit(self, transfer_syntax_uid: str, provenance: str) -> Location:
        """``seal`` and ``sync``: make the record durable; raises as they do."""
        location = self.seal(transfer_syntax_uid, provenance)
        self.sync()
        return location

    def seal(self, transfer_syntax_uid: str, provenance: str) -> Location:
        """Write the head of the record, which is durable only when ``sync`` has returned.

        Parameters
        ----------
        transfer_syntax_uid : str
            In which the data set is encoded.
        provenance : str
            Kept as it is; replay gives it back.

        Raises
        ------
        OutOfSpace, StorageFailure
            The record does not exist and its segment is not written to again.
        """
        size = record_bytes(self.length)
        is_in_memory = not self._written
        if is_in_memory and self._start + size > self._first.size:
            if self._may_move():
                self._move()
            if self._start + size > self._first.size:
                self._append([self.start_bytes], self.length)
                is_in_memory = False
        if not is_in_memory:
            self._write_tail()
        if self._chain:
            self._write_at([Link(self._first.life, None).encode(self._segment.key)], BLOCK_BYTES)
        head = Head(
            self.length,
            self.sha256,
            transfer_syntax_uid,
            provenance,
            self._chain[0].life if self._chain else None,
        ).encode(self._first.key)
        if is_in_memory:
            # Head and data set in one write: a part of it does not have the digest.
            padding = bytes(size - BLOCK_BYTES - self.length)
            self._write_at([head, self.start_bytes, padding], self._start)
        else:
            self._write_head(head)
        self._is_sealed = True
        self._first.position = min(self._start + size, self._first.size)
        return Location("log", self._first.name, self._start + BLOCK_BYTES, self.length)

    def _write_head(self, block: bytes) -> None:
        try:
            disk.write_at(self._first.file, block, self._start)
        except NodeError:
            self._first.is_broken = True
            raise

    def sync(self) -> None:
        """Return when the sealed record is durable; nobody may be told Success before.

        Raises OutOfSpace or StorageFailure; a segment that failed is not written to again then.
        """
        self._wait_for_flushes()
        for segment in (self._segment, self._first) if self._chain else (self._first,):
            try:
                disk.sync_data(segment.file)
            except NodeError:
                segment.is_broken = True
                raise


def _split(buffers: Sequence[Fragment], count: int) -> tuple[list[Fragment], list[Fragment]]:
    """Split what lies in ``buffers`` behind each other after ``count`` bytes, without a copy."""
    before: list[Fragment] = []
    for number, buffer in enumerate(buffers):
        if count < len(buffer):
            view = memoryview(buffer)
            return [*before, view[:count]], [view[count:], *buffers[number + 1 :]]
        before.append(buffer)
        count -= len(buffer)
    return before, []
