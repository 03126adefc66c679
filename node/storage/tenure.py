"""Whose turn it is to write: one running node, and the settling processes that it started.

A settling process may outlive a node that was killed by a moment, and a disk may be unmounted under a
node that runs. So whoever writes a file asks first whether the node that it works for is still the last
one that started, and whether the folder is still the one that was there then.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from node.errors import ArchiveUnavailable, StorageFailure
from node.storage import disk

_FILE = "turn"
_TOKEN_BYTES = 64
# A write that an older process is in the middle of is a batch of files with their flushes.
_WAIT_SECONDS = 120.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Tenure:
    """The right of one start of a node to write to its folders, as that start found them.

    Settling processes are handed it. Nothing is written by an older one once a newer has begun.
    """

    data_dir: Path
    token: str
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, data_dir: Path, *, folders: tuple[str, ...] = ("archive", "log")) -> Tenure:
        """Begin, once no older process is in the middle of a write; only with the directory's lock held.

        Raises
        ------
        ArchiveUnavailable
            An older process does not come to the end of its write.
        OutOfSpace, StorageFailure
            It cannot be noted, or a folder cannot be looked at.
        """
        token = uuid.uuid4().hex
        file = _open(data_dir / _FILE, os.O_RDWR | os.O_CREAT)
        try:
            _lock_alone(file, data_dir)
            disk.write_at(file, token.ljust(_TOKEN_BYTES).encode("ascii"), 0)
        finally:
            os.close(file)
        return cls(data_dir, token, {name: _identity(data_dir / name) for name in folders})

    @contextmanager
    def writing(self, folder: str) -> Iterator[None]:
        """While this context is open no newer node begins. Raises StorageFailure as ``check`` does."""
        file = _open(self.data_dir / _FILE, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if disk.read_at(file, _TOKEN_BYTES, 0).decode("ascii", "replace").strip() != self.token:
                raise StorageFailure("another node has taken the data directory over")
            self.check(folder)
            yield
        finally:
            os.close(file)

    def check(self, folder: str) -> None:
        """Raise StorageFailure when a folder is not the one that was there at the start."""
        if _identity(self.data_dir / folder) != self._places[folder]:
            raise StorageFailure(
                f"{self.data_dir / folder} is another folder than at the start of the node",
                action=f"mount the disk that belongs at {self.data_dir / folder}, then restart the node",
            )


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise disk.failure(error, "asking whose turn it is to write") from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        facts = os.stat(folder)
    except OSError as error:
        raise disk.failure(error, f"looking at the folder {folder}") from error
    return facts.st_dev, facts.st_ino


def _lock_alone(file: int, data_dir: Path) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ArchiveUnavailable(
                    f"a settling process of the node before still writes to {data_dir}",
                    action="end what it left running ('ps ax | grep forkserver'), then start again",
                ) from None
            time.sleep(_LOOK_SECONDS)
