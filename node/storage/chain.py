"""Records that go on in further segments.

The head of such a record, in its first segment, names the first continuation by number and life
key. The second block of each continuation, the link, says in which segment the record begins and
names the continuation after it. So nothing that is left from another life of a segment is ever
taken for a part, and a continuation is told from a segment with records of its own.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from node.errors import IntegrityFailure
from node.storage import disk
from node.storage.record import BLOCK_BYTES, Life
from node.storage.segment import read_life, segment_name, segment_path
from node.storage.window import Window

#: Byte of a continuation at which the data set goes on: behind the life and the link.
CONTINUATION_START = 2 * BLOCK_BYTES

_MAGIC = b"ANODELNK"
# magic, number and key of the first segment, number and key of the next; 0 when there is none
_LINK = struct.Struct(">8sQ16sQ16s")
_CHECKSUM = struct.Struct(">I")
_NONE = Life(0, bytes(16))


@dataclass(frozen=True)
class Link:
    """What a continuation says of its record: where it begins, and where it goes on."""

    first: Life
    next: Life | None

    def encode(self, key: bytes) -> bytes:
        """Encode as one block for the segment life ``key``."""
        next_life = self.next or _NONE
        link = _LINK.pack(_MAGIC, self.first.number, self.first.key, next_life.number, next_life.key)
        link += _CHECKSUM.pack(zlib.crc32(link, zlib.crc32(key)))
        return link.ljust(BLOCK_BYTES, b"\0")


def read_link(file: int, key: bytes) -> Link | None:
    """Read the link of a continuation; None when there is none of the segment life ``key``."""
    block = disk.read_at(file, BLOCK_BYTES, BLOCK_BYTES)
    if len(block) < BLOCK_BYTES or not block.startswith(_MAGIC):
        return None
    if _CHECKSUM.unpack_from(block, _LINK.size)[0] != zlib.crc32(block[: _LINK.size], zlib.crc32(key)):
        return None
    _, first_number, first_key, number, next_key = _LINK.unpack_from(block)
    return Link(Life(first_number, first_key), Life(number, next_key) if number else None)


@dataclass(frozen=True)
class Part:
    """``count`` bytes of a data set, at byte ``offset`` of the segment at ``path``."""

    path: Path
    offset: int
    count: int


def parts(folder: Path, first: Life, first_part: Part, following: Life, length: int) -> list[Part]:
    """Find the parts of a data set of ``length`` bytes that goes on in the segment ``following``.

    Raises
    ------
    IntegrityFailure
        A continuation is missing, of another life, or damaged.
    StorageFailure
        One cannot be read.
    """
    found = [first_part]
    left = length - first_part.count
    upcoming: Life | None = following
    while left > 0:
        if upcoming is None:
            raise IntegrityFailure("a record of the receive log ends before its data set does")
        path = segment_path(folder, segment_name(upcoming.number))
        size, link = _continuation(path, upcoming)
        if link is None or link.first != first or size <= CONTINUATION_START:
            raise IntegrityFailure(f"segment {path.stem} does not continue the record it should")
        found.append(Part(path, CONTINUATION_START, min(left, size - CONTINUATION_START)))
        left -= found[-1].count
        upcoming = link.next
    return found


def _continuation(path: Path, life: Life) -> tuple[int, Link | None]:
    """Size of a segment, and its link when it is in the ``life`` in which it should be."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IntegrityFailure(f"segment {path.stem}, which continues a record, is gone") from None
    except OSError as error:
        raise disk.failure(error, "opening a segment of the receive log") from error
    try:
        link = read_link(file, life.key) if read_life(file) == life else None
        return os.fstat(file).st_size, link
    finally:
        os.close(file)


class ChainWindow(Window):
    """A data set that lies in several segments.

    Parameters
    ----------
    chain : list of Part
        The parts, in order. Each is opened when it is come to, so that the longest record needs
        few open files.
    lock : int
        Descriptor of the first segment, whose shared lock keeps all parts: a continuation is
        never used again before the segment in which its record begins. Closed with the window;
        -1 where the caller keeps them.
    start_bytes, end_bytes : bytes-like
        As of ``Window``.
    """

    def __init__(
        self,
        chain: list[Part],
        lock: int = -1,
        *,
        start_bytes: bytes | bytearray = b"",
        end_bytes: bytes = b"",
    ) -> None:
        length = sum(part.count for part in chain)
        super().__init__(lock, 0, length, owns_file=lock >= 0, start_bytes=start_bytes, end_bytes=end_bytes)
        self._chain = chain
        self._starts = [0]
        for part in chain[:-1]:
            self._starts.append(self._starts[-1] + part.count)
        self._open_part = -1
        self._part_file = -1

    @property
    def paths(self) -> list[Path]:
        """Where its parts lie, in order."""
        return [part.path for part in self._chain]

    def _read(self, position: int, count: int) -> bytes:
        chunks = []
        while count:
            number = bisect_right(self._starts, position) - 1
            part, within = self._chain[number], position - self._starts[number]
            wanted = min(count, part.count - within)
            chunk = disk.read_at(self._descriptor(number), wanted, part.offset + within)
            chunks.append(chunk)
            if len(chunk) < wanted:
                break
            position += wanted
            count -= wanted
        return b"".join(chunks)

    def _descriptor(self, number: int) -> int:
        if number != self._open_part:
            self._close_part()
            try:
                self._part_file = os.open(self._chain[number].path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise disk.failure(error, "opening a segment of the receive log") from error
            self._open_part = number
        return self._part_file

    def _close_part(self) -> None:
        if self._part_file >= 0:
            os.close(self._part_file)
        self._open_part = self._part_file = -1

    def close(self) -> None:
        """Close the window and the files that are its own."""
        self._close_part()
        super().close()
