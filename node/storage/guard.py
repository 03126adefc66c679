"""The guard of the data directory: one node at a time, a known format, and the right archive.

``format.json`` in the data directory names the archive. A state file beside the configuration
file remembers which archive was there, so that a disk that is not mounted is noticed before an
empty archive takes its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import ArchiveUnavailable, IndexDamaged, NodeError, OutOfSpace
from node.storage import disk, restoration
from node.storage.segment import segment_path

logger = logging.getLogger(__name__)

FORMAT = 2
_MARKER = "format.json"
_OUR_NAMES = ("archive", "log")
_ARCHIVE_FILES = "archive/[0-9a-f]*/*.dcm"
_SEGMENTS = "log/*.seg"
# The lock, the markers and the database's log of changes need a little; the reserve is far more.
_START_BYTES = 1 << 20


@dataclass(frozen=True)
class _State:
    """What the state file remembers."""

    data_dir: str
    archive: str


def state_file_of(config_file: Path | None) -> Path | None:
    """The state file that belongs to a configuration file; None without one."""
    return None if config_file is None else config_file.with_name(config_file.name + ".state")


def inspect(path: Path, state_file: Path | None) -> str:
    """Look whether the right archive lies at ``path``; nothing is changed.

    Returns
    -------
    str
        Its identity, empty where a new archive may begin.

    Raises
    ------
    ArchiveUnavailable
        The archive that was there is gone or another one, its format is not the one
        that this anode knows, or its marker is missing or damaged. ``action`` says what to do.
    """
    if backup := restoration.of(path):
        raise ArchiveUnavailable(
            f"a restore of the backup {backup} to {path} was begun and is not finished",
            action="repeat 'anode restore-backup' with the same folder: it goes on where it ended",
        )
    remembered = _remembered(path, state_file)
    marker = path / _MARKER
    if not marker.exists():
        if remembered is not None:
            raise _gone(path, remembered, state_file)
        ours = [name for name in _OUR_NAMES if (path / name).exists()]
        if ours:
            raise ArchiveUnavailable(
                f"{path} holds {' and '.join(ours)} of an archive, but not its {_MARKER}",
                action=f"restore {marker} from a backup, or configure an empty data_dir",
            )
        return ""
    facts = _read_json(marker)
    archive_id, version = facts.get("archive"), facts.get("format")
    if not isinstance(archive_id, str) or not isinstance(version, int):
        raise ArchiveUnavailable(f"{marker} is damaged", action=f"restore {marker} from a backup")
    if version > FORMAT:
        raise ArchiveUnavailable(
            f"the data directory {path} has format {version}; this anode knows up to {FORMAT}",
            action="run the newer anode that wrote it",
        )
    if version < FORMAT:
        raise ArchiveUnavailable(
            f"the data directory {path} has format {version}; this anode knows {FORMAT} alone",
            action=f"configure another data_dir, and take over its instances with 'anode import {path}'",
        )
    if remembered is not None and remembered.archive != archive_id:
        raise _gone(path, remembered, state_file)
    return archive_id


def remembered_archive(path: Path, state_file: Path | None) -> str:
    """Identity of the archive that was at ``path`` when a node last ran; empty when nobody knows."""
    remembered = _remembered(path, state_file)
    return "" if remembered is None else remembered.archive


def mark(path: Path, archive_id: str) -> None:
    """Make ``path`` the data directory of an archive, durably; its files lie there already."""
    for folder in (path / "archive", path / "log", path):
        disk.make_directory(folder)
        _write_json(folder / _MARKER, {"format": FORMAT, "archive": archive_id})


class DataDirectory:
    """The data directory of a running node.

    Parameters
    ----------
    path : Path
        The data directory.
    state_file : Path or None
        Where to remember which archive was here; None remembers nothing.
    """

    def __init__(self, path: Path, state_file: Path | None) -> None:
        self.path = path
        self.archive_id = ""
        self._state_file = state_file
        self._lock: int | None = None

    @classmethod
    def beside(cls, path: Path, config_file: Path | None) -> DataDirectory:
        """Guard ``path``, remembered beside the configuration file as ``<config>.state``."""
        return cls(path, state_file_of(config_file))

    def open(self) -> None:
        """Take the directory for this process, or refuse with what to do.

        A new archive is begun where none was before. Free space below the reserve is no reason to
        refuse: what is held can be read, and receiving resumes when there is more. Raises
        ArchiveUnavailable (with nothing changed), OutOfSpace where not even a start has room, or
        StorageFailure.
        """
        inspect(self.path, self._state_file)
        try:
            self._open()
        except OutOfSpace as error:
            raise OutOfSpace(
                f"the disk that holds {self.path} is full: {error}",
                action=f"free disk space where {self.path} lies, then start again",
            ) from error

    def lock(self) -> None:
        """Take the directory for this process, whatever is in it; raises as ``open`` does."""
        disk.make_directory(self.path)
        self._take_lock()

    def _open(self) -> None:
        self.lock()
        try:
            free = disk.free_bytes(self.path)
            if free < _START_BYTES:
                raise OutOfSpace(f"{free} bytes are free, a start needs {_START_BYTES}")
            # Again, for nobody else can change it now.
            self.archive_id = inspect(self.path, self._state_file)
            if not self.archive_id:
                self.archive_id = str(uuid.uuid4())
                _write_json(self.path / _MARKER, {"format": FORMAT, "archive": self.archive_id})
            self._remember()
        except BaseException:
            self.close()
            raise

    def check_index(self, index_file: Path) -> None:
        """Refuse when the archive or the receive log has files but the index of them is gone or empty."""
        is_there = index_file.exists()
        if is_there and index_file.stat().st_size:
            return
        state = "is empty" if is_there else "is gone"
        self._refuse_files(_ARCHIVE_FILES, f"their index {index_file.name} {state}")
        self._refuse_files(_SEGMENTS, f"their index {index_file.name} {state}")

    def check_index_knows(self, *, holds_instances: bool) -> None:
        """Refuse when the archive has files but the index holds nothing at all: it is another one."""
        if not holds_instances:
            self._refuse_files(_ARCHIVE_FILES, "the index knows of no instance")

    def _refuse_files(self, pattern: str, why: str) -> None:
        if any(self.path.glob(pattern)):
            raise ArchiveUnavailable(
                f"the {pattern.partition('/')[0]} in {self.path} has files, but {why}",
                action=IndexDamaged.action,
            )

    def check_archive(self, *, holds_settled: bool) -> None:
        """Refuse when the index has settled instances but the archive folder is not this one.

        Parameters
        ----------
        holds_settled : bool
            Whether the index knows an instance that lies in the archive. Where it knows none, the
            folder is created.
        """
        self._refuse_other_archive(holds_settled=holds_settled)
        if not self._is_ours("archive"):
            self._begin("archive")

    def check_log(self, segments: Collection[str], *, holds_instances: bool) -> list[str]:
        """Refuse when the index knows instances but the folder of the receive log is another one.

        All of them may be settled, and the folder hold what counts all the same: records that the index
        does not know yet, and the numbers that segments have had.

        Parameters
        ----------
        segments : collection of str
            Those that the index names.
        holds_instances : bool
            Whether the index knows any instance. Where it knows none, the folder is created.

        Returns
        -------
        list of str
            Those of them that are gone from the right folder.
        """
        gone = self._gone(segments)
        self._refuse_other_log(segments, gone, holds_instances=holds_instances)
        if not self._is_ours("log"):
            self._begin("log")
        return gone

    def look(self, segments: Collection[str], *, holds_instances: bool, holds_settled: bool) -> None:
        """Refuse as ``check_archive`` and ``check_log`` do, and write nothing, also beside a running node."""
        self.archive_id = inspect(self.path, self._state_file)
        self._refuse_other_archive(holds_settled=holds_settled)
        self._refuse_other_log(segments, self._gone(segments), holds_instances=holds_instances)

    def check_log_to_rebuild(self, *, is_lost: bool) -> None:
        """Refuse when the folder of the receive log is another one, or begin it where it ``is_lost``."""
        is_there = self._is_ours("log") or any(self.path.glob(_SEGMENTS))
        if is_there and is_lost:
            raise ArchiveUnavailable(
                f"the receive log {self.path / 'log'} is there", action="leave '--without-log' out"
            )
        if is_there:
            return
        if not is_lost:
            raise self._other_log()
        self._begin("log")

    def _refuse_other_archive(self, *, holds_settled: bool) -> None:
        if holds_settled and not self._is_ours("archive"):
            folder = self.path / "archive"
            raise ArchiveUnavailable(
                f"the archive folder {folder} is empty or another one, but settled instances are known",
                action=f"mount the disk that belongs at {folder}, then start again",
            )

    def _gone(self, segments: Collection[str]) -> list[str]:
        return sorted(name for name in segments if not segment_path(self.path / "log", name).exists())

    def _refuse_other_log(
        self, segments: Collection[str], gone: Collection[str], *, holds_instances: bool
    ) -> None:
        # Without a mark, a folder that has any of the segments is the right one.
        if holds_instances and len(gone) == len(segments) and not self._is_ours("log"):
            raise self._other_log()

    def _other_log(self) -> ArchiveUnavailable:
        folder = self.path / "log"
        return ArchiveUnavailable(
            f"the receive log {folder} is gone, empty or another one, but instances are known that came "
            "through it",
            action=f"mount the disk that belongs at {folder}, then start again; where it is lost "
            "for good, 'anode rebuild --without-log' makes an index without it",
        )

    def _is_ours(self, name: str) -> bool:
        return _read_json(self.path / name / _MARKER).get("archive") == self.archive_id

    def _begin(self, name: str) -> None:
        disk.make_directory(self.path / name)
        _write_json(self.path / name / _MARKER, {"format": FORMAT, "archive": self.archive_id})

    def close(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Lock the directory; the lock ends with the process, however it ends."""
        try:
            file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            failure = disk.failure(error, "locking the data directory")
            if isinstance(failure, OutOfSpace):
                raise failure from error
            raise ArchiveUnavailable(
                f"the data directory {self.path} cannot be written: {error.strerror}",
                action="give the user that runs anode the right to write there",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise ArchiveUnavailable(
                f"the data directory {self.path} is in use by another anode, process {holder}",
                action=f"stop process {holder}, or configure another data_dir",
            ) from error
        try:
            os.ftruncate(file, 0)
            disk.write_at(file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(file)
            raise disk.failure(error, "locking the data directory") from error
        except NodeError:
            os.close(file)
            raise
        self._lock = file

    def _remember(self) -> None:
        if self._state_file is None:
            return
        facts = {"data_dir": os.path.abspath(self.path), "archive": self.archive_id}
        if _read_json(self._state_file) == facts:
            return
        try:
            _write_json(self._state_file, facts)
        except NodeError as error:
            logger.warning(
                "state file not written; a missing disk will not be noticed",
                extra={"file": str(self._state_file), "error": str(error)},
            )


def _remembered(path: Path, state_file: Path | None) -> _State | None:
    """What was at ``path`` when a node last ran; None when unknown or for another directory."""
    facts = {} if state_file is None else _read_json(state_file)
    data_dir, archive_id = facts.get("data_dir"), facts.get("archive")
    if not isinstance(data_dir, str) or not isinstance(archive_id, str):
        return None
    if data_dir != os.path.abspath(path):
        # The operator has configured another directory, which is a decision and no accident.
        return None
    return _State(data_dir, archive_id)


def _gone(path: Path, remembered: _State, state_file: Path | None) -> ArchiveUnavailable:
    return ArchiveUnavailable(
        f"the archive {remembered.archive} that was in {path} is not there",
        action=(
            f"mount the disk that belongs at {path}, then start again; "
            f"to begin with another archive there, remove {state_file}"
        ),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object; empty when it is not there or not readable as one."""
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write a small JSON file so that it is there whole and durable, or not at all."""
    partial = path.with_name(f".{path.name}.part")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            disk.write_at(file, json.dumps(facts, indent=1).encode() + b"\n", 0)
            disk.sync_data(file)
        finally:
            os.close(file)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise disk.failure(error, f"writing {path.name}") from error
    disk.sync_directory(path.parent)
