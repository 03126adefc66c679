"""Puts a backup back into an empty data directory.

A mark stands in the data directory from the first copy until all is done: while it does,
no node starts there, and the restore can be repeated, which goes on where the last one ended.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.backup import copying, manifest
from node.backup.archive_copy import ARCHIVE
from node.backup.copying import Copied
from node.backup.log_copy import LOG, Damage
from node.backup.manifest import Entry, Manifest
from node.errors import ArchiveUnavailable, IntegrityFailure, OutOfSpace, RestoredFromBackup
from node.index import database
from node.jobs.schedule import fire
from node.services import Services
from node.storage import disk, guard, restoration

#: What the node would do towards others, or has analysed. All else is done again without harm.
_HELD_KINDS = ("select", "analyze", "deliver")
# What may lie in a data directory that is taken as empty.
_NOTHING = frozenset({"lock", "lost+found", restoration.MARK})


@dataclass(frozen=True)
class Restored:
    """What was put back: how many files, bytes; and the damages."""

    files: int
    total_bytes: int
    damages: tuple[Damage, ...]


def whole(folder: Path) -> Manifest:
    """The manifest of a finished backup; raises IntegrityFailure or ArchiveUnavailable without one."""
    found = manifest.read(folder)
    if found is None:
        raise ArchiveUnavailable(
            f"{folder} holds no finished backup", action="name the folder that 'anode backup' was given"
        )
    return found


def check(data_dir: Path, backup: Manifest, state_file: Path | None, reserve_bytes: int) -> None:
    """Refuse, with what to do, where the backup must not be put; nothing is changed."""
    begun = restoration.of(data_dir)
    generation = backup.origin.generation
    if begun and begun != generation:
        raise ArchiveUnavailable(
            f"the restore of another backup, {begun}, was begun in {data_dir} and not finished",
            action=f"finish it with that backup, or empty {data_dir} first",
        )
    if not begun and (held := _content(data_dir)):
        raise ArchiveUnavailable(
            f"{data_dir} is not empty: it holds {held}",
            action="name an empty data_dir in the configuration; nothing was changed",
        )
    remembered = guard.remembered_archive(data_dir, state_file)
    if remembered and remembered != backup.origin.archive:
        raise ArchiveUnavailable(
            f"the archive that was in {data_dir} is {remembered}, the backup is of {backup.origin.archive}",
            action=f"name the right backup; to put this one there all the same, remove {state_file}",
        )
    if not begun:
        place = data_dir
        while not place.exists():
            place = place.parent
        free = disk.free_bytes(place)
        if free < backup.total_bytes + reserve_bytes:
            raise OutOfSpace(
                f"{free} bytes are free for {data_dir}, the backup has {backup.total_bytes} and "
                f"{reserve_bytes} are held in reserve",
                action="name a data_dir on a larger disk",
            )


def _content(data_dir: Path) -> str:
    """What is in a data directory, in words; empty where it is empty or absent.

    The folders of log and archive may be there, as a disk of its own may be mounted at each.
    """
    if not data_dir.exists():
        return ""
    try:
        names = {path.name for path in data_dir.iterdir()} - _NOTHING
        for name in (LOG, ARCHIVE):
            folder = data_dir / name
            if name in names and not {path.name for path in folder.iterdir()} - _NOTHING:
                names.discard(name)
    except OSError as error:
        raise disk.failure(error, f"looking into {data_dir}") from error
    shown = sorted(names)[:5]
    return ", ".join(shown) + (" …" if len(names) > len(shown) else "")


def put_back(
    data_dir: Path, backup: Manifest, progress: Callable[[int], object] = lambda _: None
) -> Restored:
    """Copy all files of a backup to where they belong, each proven by its digest.

    Called with the data directory locked and looked at by ``check``. A file that is damaged in the
    backup is put back all the same, and named, but for the database, without which there is no use.

    Raises
    ------
    IntegrityFailure
        The database in the backup is damaged, or the manifest names something outside.
    StorageFailure, OutOfSpace
        It was not finished. It can be repeated.
    """
    restoration.begin(data_dir, backup.origin.generation)
    _remove_unfinished(data_dir)
    for leftover in data_dir.glob(f"{database.FILE_NAME}*"):
        leftover.unlink()
    damages: list[Damage] = []
    files = total_bytes = 0
    for entry in backup.entries():
        if not _belongs(entry):
            continue
        problem = _put_back(data_dir, backup, entry)
        if problem:
            damages.append(Damage(entry.path, problem))
        files += 1
        total_bytes += entry.count
        progress(1)
    return Restored(files, total_bytes, tuple(damages))


def _belongs(entry: Entry) -> bool:
    """Whether a file is one of a data directory: the configuration is not."""
    return entry.path == database.FILE_NAME or entry.path.startswith((f"{LOG}/", f"{ARCHIVE}/"))


def _put_back(data_dir: Path, backup: Manifest, entry: Entry) -> str:
    """Copy one file; return what is wrong with it."""
    target = data_dir / entry.path
    is_there = target.exists() and target.stat().st_size == entry.count
    if is_there and (entry.problem or copying.digest_of(target) == entry.sha256):
        return entry.problem
    source = backup.place_of(entry)
    # the archive may be a disk of its own, and no file is renamed from one to another
    top, _, below = entry.path.partition("/")
    folder, relative = (data_dir / top, below) if below else (data_dir, top)

    def compare(_copy: Path, copied: Copied) -> None:
        if (copied.count, copied.sha256) != (entry.count, entry.sha256):
            raise _Damaged(f"it is damaged in the backup: {entry.file} has another digest")

    try:
        copying.copy(source, folder, relative, check=compare)
    except copying.Unreadable as error:
        if entry.path == database.FILE_NAME:
            raise
        return f"it cannot be read in the backup: {error}"
    except _Damaged as error:
        if entry.path == database.FILE_NAME:
            raise
        copying.copy(source, folder, relative)
        return str(error)
    return entry.problem


class _Damaged(IntegrityFailure):
    """A file of the backup is not what its manifest says."""

    action = "use another backup"


def finish(services: Services, backup: Manifest, *, is_moved: bool) -> int:
    """Index what the log has and the database had not yet, and hold what may have been done since.

    Parameters
    ----------
    services : Services
        Of the data directory that was put back.
    backup : Manifest
        What was put back.
    is_moved : bool
        The node did nothing after the backup: nothing is held.

    Returns
    -------
    int
        How many jobs are held. ``anode retry`` lets them go on.
    """
    services.ingest.replay()
    if is_moved:
        return 0
    when = backup.origin.generation.partition("-")[0]
    error = RestoredFromBackup(
        f"held since the backup of {when} was restored: it may have been done after that"
    )

    def hold(connection: sqlite3.Connection) -> int:
        # Studies that waited for quiet: by now their analyses may have been done as well.
        fire(services, connection, services.completion.due(connection, now=math.inf))
        return services.queue.hold(connection, _HELD_KINDS, error)

    return services.database.write(hold)


def close(data_dir: Path, backup: Manifest) -> None:
    """Name the archive and take the mark away: from now on a node starts here."""
    _remove_unfinished(data_dir)
    guard.mark(data_dir, backup.origin.archive)
    restoration.end(data_dir)


def _remove_unfinished(data_dir: Path) -> None:
    for folder in (data_dir, data_dir / LOG, data_dir / ARCHIVE):
        copying.remove_unfinished(folder)
