"""Copies one file: what was copied is digested, and the copy has its name only when it is whole and durable.

Copies are made, and never links: a link does not survive what it is kept against. The bytes pass
through here because their digest is taken of what is written.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import IntegrityFailure, NodeError, StorageFailure
from node.storage import archive, disk
from node.storage.window import Window
from node.transcode.checksum import crc32
from node.transcode.restoring import chunks, pieces

_CHUNK_BYTES = 1 << 20
#: Unfinished copies lie here, below the folder that is copied to.
PARTIAL = ".partial"


class Unreadable(StorageFailure):
    """The original cannot be read, or not all of it."""


@dataclass(frozen=True)
class Copied:
    """What was copied: its length in bytes, its SHA-256 in hex, when the original was written last."""

    count: int
    sha256: str
    modified_ns: int


def copy(
    source: Path,
    folder: Path,
    relative: str,
    *,
    count: int | None = None,
    check: Callable[[Path, Copied], None] | None = None,
) -> Copied:
    """Copy ``source`` to ``folder / relative``, whole and durable, or not at all.

    Parameters
    ----------
    source : Path
        What is copied.
    folder, relative : Path, str
        To where; folders are made. A file that is there is replaced in one step.
    count : int, optional
        How many bytes of it, from its beginning.
    check : callable
        Given the unnamed copy; when it raises, there will be no copy.

    Raises
    ------
    Unreadable
        The original cannot be read.
    StorageFailure, OutOfSpace
        The copy cannot be written.
    """
    target = folder / relative
    partial = folder / PARTIAL / uuid.uuid4().hex
    disk.make_directory(partial.parent)
    disk.make_directory(target.parent)
    try:
        file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"{error.strerror} while opening {source.name}") from error
    try:
        facts = os.fstat(file)
        copied = _write(file, partial, facts.st_size if count is None else count, facts)
    finally:
        os.close(file)
    try:
        if check is not None:
            check(partial, copied)
        try:
            partial.replace(target)
        except OSError as error:
            raise disk.failure(error, "naming a copy") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    disk.sync_directory(target.parent)
    return copied


def _write(source: int, partial: Path, count: int, facts: os.stat_result) -> Copied:
    digest = hashlib.sha256()
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk.failure(error, "writing a copy") from error
    try:
        position = 0
        while position < count:
            chunk = _read(source, min(_CHUNK_BYTES, count - position), position)
            disk.write_at(file, chunk, position)
            digest.update(chunk)
            position += len(chunk)
        disk.sync_data(file)
        with suppress(OSError):  # where a file system keeps no such times, more is copied the next time
            os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return Copied(position, digest.hexdigest(), facts.st_mtime_ns)


def _read(source: int, count: int, position: int) -> bytes:
    try:
        chunk = disk.read_at(source, count, position)
    except NodeError as error:
        raise Unreadable(str(error)) from error
    if len(chunk) < count:
        raise Unreadable("it became shorter while it was copied")
    return chunk


def remove_unfinished(folder: Path) -> None:
    """Remove what copies that were killed left behind in a folder that was copied to."""
    for path in (folder / PARTIAL).glob("*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / PARTIAL).rmdir()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; raises StorageFailure when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise disk.failure(error, f"reading {path.name}") from error


def problem_of(path: Path, data_set_sha256: str) -> str:
    """Why a file is not the archive file of a data set with this digest, unchanged; empty when it is.

    What is stored is compared with what settling noted, and not decoded: that is the work of
    ``anode verify``.
    """
    try:
        private = archive.read_private(path)
        if private["received"]["sha256"] != data_set_sha256:
            return "damaged: it is not the file of its instance"
        stored = private["stored"]
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            offset = archive.data_set_offset(Window(file.fileno(), 0, size))
            data_set = Window(file.fileno(), offset, size - offset)
            if size - offset == stored["length"] and stored.get("crc32") == crc32(pieces(data_set)):
                return ""
            data_set.seek(0)
            # What conflicts with an instance is kept as it was received, and noted once.
            for _ in chunks(data_set, stored if "sha256" in stored else private["received"]):
                pass
    except IntegrityFailure as error:
        return f"damaged: {error}"
    except (KeyError, TypeError, AttributeError):
        return "damaged: its proof is not readable"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except NodeError as error:
        return f"cannot be read: {error}"
    return ""
