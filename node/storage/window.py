"""A part of a file that reads like a file of its own."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, cast

from node.storage import disk


class Window(io.RawIOBase):
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
    """

    def __init__(self, file: int, offset: int, length: int, *, owns_file: bool = False) -> None:
        super().__init__()
        self._file = file
        self._offset = offset
        self._length = length
        self._position = 0
        self._owns_file = owns_file

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
        data = disk.read_at(self._file, count, self._offset + self._position) if count else b""
        self._position += len(data)
        return data

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


def window(file: int, offset: int, length: int, *, owns_file: bool = False) -> BinaryIO:
    """Make a ``Window`` and call it a binary file, which it is."""
    return cast(BinaryIO, Window(file, offset, length, owns_file=owns_file))
