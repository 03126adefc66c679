"""System calls of the storage rooms, with their failures named.

Every byte that the node promises to keep goes through these functions, so a test that replaces
one of them sees the whole room's behaviour on a failing disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from node.errors import NodeError, OutOfSpace, StorageFailure, TransientFailure

# What the system takes in one call; POSIX promises 16 at least.
_MOST_BUFFERS = max(16, os.sysconf("SC_IOV_MAX"))
_PIECE_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What is wrong with the moment, and not with what is stored.
_TRANSIENT = {
    errno.EAGAIN,
    errno.EINTR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def failure(error: OSError, doing: str) -> NodeError:
    """Name ``error``: OutOfSpace for a full disk or quota, TransientFailure or StorageFailure for others."""
    if error.errno in _FULL:
        return OutOfSpace(f"no space left while {doing}")
    if error.errno in _TRANSIENT:
        return TransientFailure(f"{error.strerror or error} while {doing}")
    return StorageFailure(f"{error.strerror or error} while {doing}")


def write_at(file: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``data`` at byte ``offset`` of the open file descriptor ``file``."""
    view = memoryview(data)
    while len(view):
        try:
            written = os.pwrite(file, view, offset)
        except OSError as error:
            raise failure(error, "writing an instance") from error
        view = view[written:]
        offset += written


def write_all_at(file: int, fragments: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
    """Write all ``fragments`` behind each other from byte ``offset`` on, in as few calls as can be."""
    if len(fragments) == 1:
        write_at(file, fragments[0], offset)
        return
    left = list(fragments)
    while left:
        try:
            written = os.pwritev(file, left[:_MOST_BUFFERS], offset)
        except OSError as error:
            raise failure(error, "writing an instance") from error
        if written == sum(map(len, left)):
            return
        offset += written
        done = 0
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        del left[:done]
        if written:
            left[0] = memoryview(left[0])[written:]


def read_at(file: int, count: int, offset: int) -> bytes:
    """Read up to ``count`` bytes at byte ``offset``; fewer only at the end of the file."""
    try:
        data = os.pread(file, count, offset)
        while len(data) < count:
            more = os.pread(file, count - len(data), offset + len(data))
            if not more:
                break
            data += more
    except OSError as error:
        raise failure(error, "reading an instance") from error
    return data


def allocate(file: int, size: int) -> None:
    """Give the open file descriptor ``file`` space for ``size`` bytes, without writing them."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise failure(error, "allocating a segment of the receive log") from error


def begin_writing_out(file: int, offset: int, count: int) -> None:
    """Have the system begin to write out what was just written, so that ``sync_data`` finds less to do.

    A hint without a promise: nothing is durable by it, and what is wrong is ``sync_data``'s to find.
    """
    # Linux writes dirty pages out for it, and then drops those that are clean: these are not yet.
    with suppress(OSError):
        os.posix_fadvise(file, offset, count, os.POSIX_FADV_DONTNEED)


def write_anew(file: int) -> None:
    """Write what is read from ``file`` to the same place, so that the next flush has to write it.

    After a failed flush the system counts what it could not write as written.
    """
    offset = 0
    while piece := read_at(file, _PIECE_BYTES, offset):
        write_at(file, piece, offset)
        offset += len(piece)


def sync_data(file: int) -> None:
    """Return when the bytes of ``file`` are on stable storage.

    After a failure the kernel may have dropped the pages, so the caller must not trust what it
    reads back and must not try the same file again.
    """
    try:
        os.fdatasync(file)
    except OSError as error:
        raise failure(error, "making an instance durable") from error


def sync_directory(path: Path) -> None:
    """Make the names in folder ``path`` durable."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise failure(error, f"making the folder {path.name} durable") from error


# Folders whose names this process knows to be durable.
_durable: set[str] = set()


def make_directory(path: Path, *, below: Path | None = None) -> None:
    """Create folder ``path`` and its parents, durably; one that exists is left as it is.

    Who made one that exists may have been stopped before its name was durable. So each process flushes
    the folders above once, before it relies on them; up to ``below``, whose name is known to be durable.
    """
    made = begin_directory(path, below=below)
    for folder in made:
        sync_directory(folder.parent)
    note_durable(made)


def begin_directory(path: Path, *, below: Path | None = None) -> list[Path]:
    """Create folder ``path`` and its parents; return those made, whose names are not durable yet.

    Of folders that exist the names are made durable, as of ``make_directory``.
    """
    folder = path.absolute()
    if str(folder) in _durable and folder.is_dir():
        return []
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    _make_durable(folder, below.absolute() if below else None)
    missing.reverse()
    for folder in missing:
        try:
            folder.mkdir(0o750, exist_ok=True)
        except OSError as error:
            raise failure(error, f"creating the folder {folder.name}") from error
    return missing


def note_durable(folders: Iterable[Path]) -> None:
    """Note that the folders above these were flushed since they were made."""
    _durable.update(map(str, folders))


def _make_durable(folder: Path, below: Path | None) -> None:
    """Flush the folders above one that exists, up to where its file system is mounted."""
    while folder != below and str(folder) not in _durable and not folder.is_mount():
        try:
            beside = [entry.path for entry in os.scandir(folder.parent)]
            file = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except PermissionError:
            return  # who may not look there did not make it either
        except OSError as error:
            raise failure(error, f"making the folder {folder.name} durable") from error
        # all that was there before the flush
        _durable.update(beside)
        _durable.add(str(folder))
        folder = folder.parent


def free_bytes(path: Path) -> int:
    """How many bytes the file system of ``path`` has free for this user."""
    try:
        facts = os.statvfs(path)
    except OSError as error:
        raise failure(error, "asking for the free space") from error
    return facts.f_bavail * facts.f_frsize


def free_names(path: Path) -> tuple[int, int]:
    """How many more files the file system of ``path`` can name, and how many at all; (0, 0): no limit."""
    try:
        facts = os.statvfs(path)
    except OSError as error:
        raise failure(error, "asking for the free space") from error
    return facts.f_favail, facts.f_files


def check_free_space(path: Path, reserve_bytes: int) -> None:
    """Raise OutOfSpace when the file system of ``path`` has less than ``reserve_bytes`` free."""
    free = free_bytes(path)
    if free < reserve_bytes:
        raise OutOfSpace(f"{free} bytes are free, {reserve_bytes} are held in reserve")
