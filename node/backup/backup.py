"""A backup of a data directory, made while its node receives, or while it is stopped.

The order is what makes it whole. First every segment of the receive log is held, so that no record
leaves it. Then the database is frozen: what was acknowledged before either has its row in it, or its
record in a held segment, as a row is written after Success but before its record is ever given up.
Then the log is copied and let go of, and last the archive, whose files stay.

The folder of a backup::

    anode-backup.json   of which archive it is
    manifest.jsonl      all files of the last backup that was finished, with their digests
    archive/            as in the data directory, added to by each backup
    generations/NAME/   index.sqlite, log/ and config.toml of one backup

A new manifest replaces the old one in one step, and what only the old one named is removed then: so
there is a finished backup at every moment, however many are killed on their way.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from node.backup import copying, log_copy, manifest
from node.backup.archive_copy import ARCHIVE, ArchiveCopy
from node.backup.log_copy import Damage
from node.backup.manifest import Entry, Manifest, Origin, Writer
from node.clock import Clock
from node.errors import ArchiveUnavailable, StorageFailure, WrongUsage
from node.index import database, snapshot
from node.index.database import Database
from node.index.index import Index
from node.storage import disk, guard, small_file
from node.storage.held_log import HeldLog

_IDENTITY = "anode-backup.json"
_LOCK = ".lock"
_BACKUPS = "backups.json"
_GENERATIONS = "generations"
_CONFIGURATION = "config.toml"
# A record that leaves the log between two steps is looked for again; it takes ten idle seconds to leave.
_MOST_TRIES = 5

Progress = Callable[[int], object]


@dataclass
class Summary:
    """What a backup came to.

    Attributes
    ----------
    files, total_bytes : int
        That the backup holds.
    new_files, new_bytes : int
        That were copied now.
    records : int
        In the copied receive log.
    damages : list of Damage
        What is not as it was acknowledged, in the data directory.
    """

    generation: str = ""
    files: int = 0
    total_bytes: int = 0
    new_files: int = 0
    new_bytes: int = 0
    records: int = 0
    damages: list[Damage] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """The data directory that is backed up, and its configuration file where it has one."""

    data_dir: Path
    state_file: Path | None
    configuration: Path | None
    database: Database
    clock: Clock


def make(
    source: Source, folder: Path, *, is_verifying: bool = False, progress: Progress = lambda _files: None
) -> Summary:
    """Back up ``source`` to ``folder``: what is there already from an earlier backup is not copied again.

    Parameters
    ----------
    source : Source
        Its node may be running.
    folder : Path
        Of its own disk, best: absent, empty, or a backup of the same archive.
    is_verifying : bool
        Whether the copies that are there already are read and proven, too.
    progress : callable
        Told how many files of the archive were looked at since it was told last.

    Raises
    ------
    WrongUsage
        The folder holds something else, or lies in the data directory.
    ArchiveUnavailable
        There is no archive, or it or the receive log is not what was there; or another backup is being made.
    StorageFailure, OutOfSpace, DatabaseFailure
        It was not finished. The one before, if there was one, is still whole; this one goes on where
        it ended, when it is tried again.
    """
    archive_id = guard.inspect(source.data_dir, source.state_file)
    if not archive_id:
        raise ArchiveUnavailable(f"there is no archive in {source.data_dir} yet")
    index = Index(source.clock)
    with source.database.read() as connection:
        # else the one before would be given up for what is not mounted
        guard.DataDirectory(source.data_dir, source.state_file).look(
            index.segments(connection),
            holds_instances=index.holds_any(connection),
            holds_settled=index.holds_settled(connection),
        )
    with _opened(folder, source.data_dir, archive_id):
        before = manifest.read(folder)
        _remove_unfinished(folder, before)
        began_at = source.clock.timestamp()
        stamp = datetime.fromtimestamp(began_at, UTC).strftime("%Y%m%dT%H%M%SZ")
        origin = Origin(
            archive_id, f"{stamp}-{uuid.uuid4().hex[:8]}", began_at, str(source.data_dir.resolve())
        )
        summary, replaced = _make(source, folder, origin, before, is_verifying, progress)
        if manifest.read(folder) is None:
            raise StorageFailure(f"the manifest in {folder} is gone again")
        _prune(folder, before, replaced)
        _remember(source.data_dir, folder, origin.generation)
        copying.remove_unfinished(folder)
        return summary


def _make(
    source: Source,
    folder: Path,
    origin: Origin,
    before: Manifest | None,
    is_verifying: bool,
    progress: Progress,
) -> tuple[Summary, list[Entry]]:
    """Make it; return what it came to, and the entries of ``before`` whose copies were replaced."""
    replaced: list[Entry] = []
    generation = f"{_GENERATIONS}/{origin.generation}"
    place = folder / generation
    disk.make_directory(place / log_copy.LOG)
    index_copy = place / database.FILE_NAME
    summary = Summary(origin.generation)
    with Writer(folder, origin) as writer:
        for entry in _copy_what_changes(source, folder, generation, index_copy, summary):
            writer.add(entry)
        frozen = Database.open_read_only(index_copy)
        try:
            copies = ArchiveCopy(
                source.data_dir, folder, origin.generation, before, is_verifying=is_verifying
            )
            with frozen.read() as connection:
                for outcome in copies.copy(snapshot.archived(connection)):
                    if outcome.damage is not None:
                        summary.damages.append(outcome.damage)
                    if outcome.replaced is not None:
                        replaced.append(outcome.replaced)
                    if outcome.entry is not None:
                        writer.add(outcome.entry)
                        summary.new_files += outcome.is_new
                        summary.new_bytes += outcome.entry.count if outcome.is_new else 0
                    progress(1)
        finally:
            frozen.close()
        writer.finish(source.clock.timestamp())
        summary.files, summary.total_bytes = writer.files, writer.total_bytes
    return summary, replaced


def _copy_what_changes(
    source: Source, folder: Path, generation: str, index_copy: Path, summary: Summary
) -> list[Entry]:
    """Copy the database and the receive log, which belong together, and the configuration."""
    with ExitStack() as exits:
        log = exits.enter_context(HeldLog(source.data_dir / log_copy.LOG))
        connection = exits.enter_context(_frozen(source, log))
        snapshot.copy(connection, index_copy)
        copied = log_copy.copy(log, source.data_dir, folder, generation, snapshot.in_log(connection))
    entries = [_index_entry(index_copy, generation), *copied.entries]
    if source.configuration is not None:
        with suppress(copying.Unreadable):  # it is the operator's; nothing of the archive is in it
            name = f"{generation}/{_CONFIGURATION}"
            configuration = copying.copy(source.configuration, folder, name)
            entries.append(Entry(_CONFIGURATION, name, configuration.count, configuration.sha256))
    summary.records = copied.records
    summary.damages.extend(copied.damages)
    summary.new_files += len(entries)
    summary.new_bytes += sum(entry.count for entry in entries)
    return entries


@contextmanager
def _frozen(source: Source, log: HeldLog) -> Iterator[sqlite3.Connection]:
    """Hold the log and freeze the database, so that the log has all that the database says is in it."""
    for _ in range(_MOST_TRIES):
        log.hold()
        with source.database.read() as connection:
            snapshot.freeze(connection)
            log.hold()  # segments that came between
            missing = _segments(connection) - log.names
            if not missing or not _were_used_again(source, missing):
                # What is missing now is damage, and is named with the rest.
                yield connection
                return
    raise StorageFailure(
        "the receive log changes faster than it can be held", action="try again when less is received"
    )


def _segments(connection: sqlite3.Connection) -> set[str]:
    return {location.path for location in snapshot.in_log(connection)}


def _were_used_again(source: Source, segments: set[str]) -> bool:
    """Whether a later look at the database needs some of ``segments`` no more."""
    with source.database.read() as connection:
        return bool(segments - _segments(connection))


def _index_entry(index_copy: Path, generation: str) -> Entry:
    with index_copy.open("rb") as file:
        disk.sync_data(file.fileno())
    disk.sync_directory(index_copy.parent)
    name = database.FILE_NAME
    return Entry(name, f"{generation}/{name}", index_copy.stat().st_size, copying.digest_of(index_copy))


# --- the folder --------------------------------------------------------------


@contextmanager
def _opened(folder: Path, data_dir: Path, archive_id: str) -> Iterator[None]:
    """Take the folder for this backup, or refuse with what to do."""
    inner, outer = folder.resolve(), data_dir.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise WrongUsage(f"{folder} and the data directory {data_dir} lie in each other")
    is_empty = not folder.exists() or (folder.is_dir() and not _names_in(folder))
    identity = {} if is_empty else small_file.read_object(folder / _IDENTITY)
    if not is_empty and not identity:
        raise WrongUsage(f"{folder} is not empty, and no backup", action="name a folder that is empty")
    if is_empty and _remembered(data_dir, folder):
        raise ArchiveUnavailable(
            f"the backup that was in {folder} is not there",
            action=f"mount its disk; to begin another one there, take it out of {data_dir / _BACKUPS}",
        )
    if identity and identity.get("archive") != archive_id:
        raise WrongUsage(
            f"{folder} is a backup of another archive, {identity.get('archive')}",
            action="name another folder for this one",
        )
    disk.make_directory(folder)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveUnavailable(
                f"another backup is being made to {folder}", action="wait for it, or name another folder"
            ) from None
        if not identity:
            small_file.write(
                folder / _IDENTITY, json.dumps({"format": manifest.FORMAT, "archive": archive_id})
            )
        yield
    finally:
        os.close(lock)


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {_LOCK, f".{_IDENTITY}.part", "lost+found"}


def _remembered(data_dir: Path, folder: Path) -> bool:
    """Whether a backup of this data directory was finished in the folder."""
    return str(folder.resolve()) in small_file.read_object(data_dir / _BACKUPS)


def _remember(data_dir: Path, folder: Path, generation: str) -> None:
    """Note a backup that was finished, so that an unmounted disk never passes for a new place."""
    known = small_file.read_object(data_dir / _BACKUPS)
    small_file.write(data_dir / _BACKUPS, json.dumps({**known, str(folder.resolve()): generation}, indent=1))


def _remove_unfinished(folder: Path, before: Manifest | None) -> None:
    """Remove what backups left that did not come to their end; their copies of archive files stay."""
    copying.remove_unfinished(folder)
    keep = before.origin.generation if before is not None else ""
    for path in (folder / _GENERATIONS).glob("*"):
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _prune(folder: Path, before: Manifest | None, replaced: Iterable[Entry]) -> None:
    """Remove what only the manifest before named: its generation, and copies that were replaced."""
    if before is None:
        return
    shutil.rmtree(folder / _GENERATIONS / before.origin.generation, ignore_errors=True)
    for entry in replaced:
        if entry.file.startswith(f"{ARCHIVE}/"):
            before.place_of(entry).unlink(missing_ok=True)
