"""A part of a file that reads like a file of its own."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO

from node.storage import disk


class Window(io.RawIOBase, BinaryIO):
    """Bytes ``offset`` to ``offset + length`` of an open file, read by position.

    Several windows may share one file descriptor: none moves its file position.

    Parameters
    ----------
    file : int
        Open file descriptor.
    offset, length : int
        Place of the window in the file, bytes.
    owns_file : bool
        Whether closing the window closes the descriptor.
    start_bytes, end_bytes : bytes-like
        The first and the last bytes of the window, where they are at hand: they are not read from
        the file, and those of the end need not be in it.
    """

    def __init__(
        self,
        file: int,
        offset: int,
        length: int,
        *,
        owns_file: bool = False,
        start_bytes: bytes | bytearray = b"",
        end_bytes: bytes = b"",
    ) -> None:
        super().__init__()
        self._file = file
        self._offset = offset
        self._length = length
        self._position = 0
        self._owns_file = owns_file
        self._start_bytes = start_bytes
        self._end_bytes = end_bytes

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read out of order: always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset`` within the window."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Position within the window."""
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or all that are left; fewer only at the end of the window."""
        left = max(0, self._length - self._position)
        count = left if size is None or size < 0 else min(size, left)
        end = self._position + count
        if end <= len(self._start_bytes):
            data = bytes(self._start_bytes[self._position : end])
        elif self._end_bytes:
            data = self._read_to_end(self._position, end)
        else:
            data = self._read(self._position, count) if count else b""
        self._position += len(data)
        return data

    def _read_to_end(self, position: int, end: int) -> bytes:
        in_memory = self._length - len(self._end_bytes)
        if position >= in_memory:
            return self._end_bytes[position - in_memory : end - in_memory]
        data = self._read(position, min(end, in_memory) - position)
        return data + self._end_bytes[: end - in_memory] if end > in_memory else data

    def _read(self, position: int, count: int) -> bytes:
        return disk.read_at(self._file, count, self._offset + position)

    def readall(self) -> bytes:
        """Read all that is left."""
        return self.read(-1)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the window goes; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the window, and the file where it is the window's own."""
        if not self.closed and self._owns_file:
            os.close(self._file)
        super().close()


class LastingWindow(Window):
    """A window of a file whose bytes never change, so that they may be sent without being copied.

    What ``os.sendfile`` was given is read by the system when the peer takes it, perhaps after the file
    was closed: no part of a segment of the receive log, which is used again, may go that way.
    """

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Yield where the bytes of the window lie, in order, whatever was read already.

        Yields
        ------
        (file, offset, count)
            An open file descriptor, and which bytes of it; fit for ``os.sendfile``. The descriptor
            is valid until the next piece is asked for, anything is read, or the window is closed.
        """
        yield self._file, self._offset, self._length
