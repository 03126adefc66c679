"""Segment files of the receive log.

A segment is really written once (zeros) and made durable before its first use, so that appending
a record changes no metadata of the file system, which makes the flush several times cheaper. One
that is needed at once is only allocated; what was never written of it is when it is used again.

The first block names the segment's present life: the number, which is also the file's name, and a
random key that every record head is bound to. A segment that is used again gets a new number and a
new key, so nothing left in it counts.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import NodeError, StorageFailure
from node.storage import disk
from node.storage.record import BLOCK_BYTES, Head, Life, decode, may_begin

SUFFIX = ".seg"
_MAGIC = b"ANODESEG"
_LIFE = struct.Struct(">8sQ16s")
_CHECKSUM = struct.Struct(">I")
_ZEROS = bytes(1 << 20)
_SEARCH_BYTES = 1 << 20


@dataclass(eq=False)
class Segment:
    """A segment open for appending.

    ``position`` is the byte at which the next record starts, ``size`` that of the file,
    ``is_broken`` whether a write or flush failed, after which nothing more is written to it,
    ``is_ageing`` whether a spare one is kept ready to follow it while it is in use.
    """

    number: int
    file: int
    key: bytes
    size: int
    position: int = BLOCK_BYTES
    is_broken: bool = False
    is_ageing: bool = False

    @property
    def life(self) -> Life:
        """Its present life."""
        return Life(self.number, self.key)

    def close(self) -> None:
        """Close the file, once."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    @property
    def name(self) -> str:
        """Name of the segment, as it stands in a Location."""
        return segment_name(self.number)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no record of its present life."""
        return self.position == BLOCK_BYTES


def segment_name(number: int) -> str:
    """Name of a segment, as it stands in a Location."""
    return f"{number:08d}"


def segment_path(folder: Path, name: str) -> Path:
    """Path of a segment; raise StorageFailure for a name that is none."""
    if not (name.isascii() and name.isdecimal()):
        raise StorageFailure(f"no segment is called {name!r}")
    return folder / f"{name}{SUFFIX}"


def is_segment(path: Path) -> bool:
    """Whether a file is called as segments are."""
    number = path.stem
    is_number = number.isascii() and number.isdecimal()
    return path.suffix == SUFFIX and is_number and segment_name(int(number)) == number


def numbers_in(folder: Path) -> list[int]:
    """Numbers of the segments in ``folder``, ascending."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


def _begin_life(file: int, number: int) -> bytes:
    """Write the first block for life ``number``; return its key."""
    key = os.urandom(16)
    block = _LIFE.pack(_MAGIC, number, key)
    block += _CHECKSUM.pack(zlib.crc32(block))
    disk.write_at(file, block.ljust(BLOCK_BYTES, b"\0"), 0)
    disk.sync_data(file)
    return key


def _fill(file: int, start: int, size: int, pause: Callable[[], None] = lambda: None) -> None:
    """Write zeros, a little at a time: who makes something durable meanwhile waits for those before."""
    for offset in range(start, size, len(_ZEROS)):
        disk.write_at(file, _ZEROS[: size - offset], offset)
        disk.sync_data(file)
        pause()


def create(
    folder: Path, number: int, size: int, *, is_written: bool = True, pause: Callable[[], None] = lambda: None
) -> Segment:
    """Make a new segment of ``size`` bytes and make it durable, name included.

    ``is_written`` false only allocates it. ``pause`` is called after each megabyte that is on the disk.
    Raises OutOfSpace or StorageFailure; no file is left then.
    """
    path = segment_path(folder, segment_name(number))
    partial = path.with_suffix(".part")
    try:
        file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise disk.failure(error, "creating a segment of the receive log") from error
    try:
        if is_written:
            _fill(file, 0, size, pause)
        else:
            disk.allocate(file, size)
        key = _begin_life(file, number)
        try:
            partial.rename(path)
        except OSError as error:
            raise disk.failure(error, "naming a segment of the receive log") from error
        disk.sync_directory(folder)
    except NodeError:
        os.close(file)
        with suppress(OSError):  # a file system that went read-only
            partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        raise
    return Segment(number, file, key, size)


def lock_unread(path: Path) -> int | None:
    """Open a segment that nobody reads, locked against readers; None when somebody reads it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise disk.failure(error, "opening a segment of the receive log") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError as error:
        os.close(file)
        raise disk.failure(error, "locking a segment of the receive log") from error
    return file


def begin_again(folder: Path, file: int, old_number: int, number: int, size: int) -> Segment:
    """Give the locked segment ``file`` a new number and a new life, and unlock it.

    Raises NodeError; the descriptor is closed then, and the segment has no record that counts.
    """
    try:
        if os.fstat(file).st_size > size:
            os.ftruncate(file, size)
        old_path = segment_path(folder, segment_name(old_number))
        old_path.rename(segment_path(folder, segment_name(number)))
        disk.sync_directory(folder)
        # Allocated and never written counts as a hole.
        _fill(file, os.lseek(file, 0, os.SEEK_HOLE), size)
        key = _begin_life(file, number)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError as error:
        os.close(file)
        raise disk.failure(error, "using a segment of the receive log again") from error
    except NodeError:
        os.close(file)
        raise
    return Segment(number, file, key, size)


def read_life(file: int) -> Life | None:
    """Read in which life a segment is; None when its first block is damaged."""
    block = disk.read_at(file, BLOCK_BYTES, 0)
    if len(block) < BLOCK_BYTES:
        return None
    magic, number, key = _LIFE.unpack_from(block)
    is_sound = _CHECKSUM.unpack_from(block, _LIFE.size)[0] == zlib.crc32(block[: _LIFE.size])
    return Life(number, key) if magic == _MAGIC and is_sound else None


def read_head(file: int, offset: int, life: Life) -> Head | None:
    """Read the head of the record whose data set begins at byte ``offset``; None when it has none."""
    return decode(disk.read_at(file, BLOCK_BYTES, offset - BLOCK_BYTES), life.key)


def records(file: int, life: Life, *, is_thorough: bool = False) -> Iterator[tuple[int, Head]]:
    """Yield (offset of the data set, head) of each record that begins in a segment, in order.

    Whether the data set is whole is not looked at: ``record.is_intact`` says. Where a head is damaged, the
    next one is looked for, block by block, to the end of the segment. One that begins without a head is
    taken for a spare one, which is not worth to be read, unless the search ``is_thorough``.
    """
    offset = 2 * BLOCK_BYTES
    head = read_head(file, offset, life)
    if head is None and not is_thorough:
        return
    while True:
        if head is None:
            found = _next_head(file, offset, life)
            if found is None:
                return
            # What was written since it was looked for, while a node receives, is no damage.
            head = read_head(file, offset, life)
            if head is None:
                offset, head = found
        yield offset, head
        offset += head.record_bytes
        head = read_head(file, offset, life)


def _next_head(file: int, offset: int, life: Life) -> tuple[int, Head] | None:
    """Look for a head from the one on whose data set would begin at byte ``offset``."""
    size = os.fstat(file).st_size
    for start in range(offset - BLOCK_BYTES, size, _SEARCH_BYTES):
        blocks = disk.read_at(file, _SEARCH_BYTES, start)
        for at in range(0, len(blocks), BLOCK_BYTES):
            head = decode(blocks[at : at + BLOCK_BYTES], life.key) if may_begin(blocks, at) else None
            if head is not None:
                return start + at + BLOCK_BYTES, head
    return None
