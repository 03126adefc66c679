"""One object on its way in."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import BinaryIO, Self

from node.errors import LimitExceeded, NodeError
from node.storage import disk
from node.storage.location import Location
from node.storage.receive_log import ReceiveLog
from node.storage.record import BLOCK_BYTES, Head, record_bytes
from node.storage.segment import Segment
from node.storage.window import window

_COPY_BYTES = 1 << 20


class Reception:
    """A data set that streams into the receive log; a context manager.

    Leaving the context without ``commit`` leaves nothing behind. Until it is left, the segment is
    not used for anything else and is not reclaimed, so the index row is written inside it.
    """

    def __init__(self, log: ReceiveLog, *, limit_bytes: int | None = None) -> None:
        self._log = log
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256()
        self.length = 0
        self._segment: Segment = log.take()
        self._start = self._segment.position

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log.release(self._segment)

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, fragment: bytes | bytearray | memoryview) -> None:
        """Append a fragment.

        Raises
        ------
        LimitExceeded
            The data set is longer than it may be.
        OutOfSpace, StorageFailure
            The disk failed; the segment is not written to again.
        """
        count = len(fragment)
        end = self.length + count
        if self._limit_bytes is not None and end > self._limit_bytes:
            raise LimitExceeded(f"the data set is longer than {self._limit_bytes} bytes")
        if self._start + BLOCK_BYTES + end > self._segment.size:
            self._make_room(end)
        self._write_at(fragment, self._start + BLOCK_BYTES + self.length)
        self._digest.update(fragment)
        self.length = end

    def _write_at(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        try:
            disk.write_at(self._segment.file, data, offset)
        except NodeError:
            self._segment.is_broken = True
            raise

    def _make_room(self, data_set_bytes: int) -> None:
        """Move to an empty segment, or let this one grow when it holds nothing else."""
        if not self._segment.is_empty:
            full, self._segment = self._segment, self._log.take(empty=True)
            source, self._start = self._start + BLOCK_BYTES, self._segment.position
            try:
                for offset in range(0, self.length, _COPY_BYTES):
                    chunk = disk.read_at(full.file, min(_COPY_BYTES, self.length - offset), source + offset)
                    self._write_at(chunk, self._start + BLOCK_BYTES + offset)
            finally:
                self._log.release(full, is_full=True)
        needed = self._start + record_bytes(data_set_bytes)
        if needed > self._segment.size:
            growth = max(needed - self._segment.size, 16 * _COPY_BYTES)
            disk.check_free_space(self._log.folder, self._log.reserve_bytes + growth)
            self._segment.size += growth

    def data_set(self) -> BinaryIO:
        """What was written so far, as a file to read from; valid inside the context."""
        return window(self._segment.file, self._start + BLOCK_BYTES, self.length)

    def commit(self, transfer_syntax_uid: str, provenance: str) -> Location:
        """Make the record durable; only now does it exist.

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
        head = Head(self.length, self.sha256, transfer_syntax_uid, provenance)
        block = head.encode(self._segment.key)
        self._write_at(block, self._start)
        try:
            disk.sync_data(self._segment.file)
        except NodeError:
            self._segment.is_broken = True
            raise
        self._segment.position = self._start + head.record_bytes
        return Location("log", self._segment.name, self._start + BLOCK_BYTES, self.length)

    def revoke(self) -> None:
        """Undo ``commit`` for a record that turned out not to be needed.

        This is not made durable: a record that comes back after a crash is known by its content.
        """
        self._write_at(bytes(BLOCK_BYTES), self._start)
        self._segment.position = self._start
