"""Puts an index that was made anew in the place of the one that is damaged or lost.

The old file is never deleted: it is set aside under another name, with SQLite's files beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from node.errors import StorageFailure
from node.storage import disk

_BESIDE = ("", "-wal", "-shm", "-journal")


def path_of_new(path: Path) -> Path:
    """Where the index that shall replace ``path`` is made; what an earlier attempt left there is removed.

    Raises StorageFailure.
    """
    new = path.with_name(path.name + ".new")
    try:
        for suffix in _BESIDE:
            new.with_name(new.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise disk.failure(error, "removing what an earlier rebuild left") from error
    return new


def put_in_place(new: Path, path: Path, moment: float) -> Path | None:
    """Set the file at ``path`` aside and give its name to ``new``, which is closed; durably.

    A stop in between leaves no file at ``path``, both under other names, and the next start refuses.

    Parameters
    ----------
    moment : float
        For the name of the one that is set aside, in seconds since the epoch.

    Returns
    -------
    Path or None
        What the old file is called now; None when there was none.

    Raises
    ------
    StorageFailure, OutOfSpace
        ``new`` is not in place.
    """
    if new.with_name(new.name + "-wal").exists():
        raise StorageFailure(f"the new index could not be finished: {new.name}-wal is still there")
    found = [suffix for suffix in _BESIDE if _exists_beside(path, [suffix])]
    aside = _name_of_old(path, found, moment)
    try:
        with new.open("rb+") as file:
            disk.sync_data(file.fileno())
        # The file itself first: without it nobody takes what lies beside it for part of another.
        for suffix in found:
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        disk.sync_directory(path.parent)
        new.rename(path)
    except OSError as error:
        raise disk.failure(error, "putting the new index in place") from error
    disk.sync_directory(path.parent)
    return aside if found else None


def _name_of_old(path: Path, found: Sequence[str], moment: float) -> Path:
    earlier = sorted(path.parent.glob(f"{path.name}.damaged-*Z"))
    if "" not in found and earlier and not _exists_beside(earlier[-1], found):
        return earlier[-1]  # which an earlier attempt set aside without these
    while True:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))
        aside = path.with_name(f"{path.name}.damaged-{when}")
        if not _exists_beside(aside, _BESIDE):
            return aside
        moment += 1


def _exists_beside(path: Path, suffixes: Sequence[str]) -> bool:
    return any(os.path.lexists(path.with_name(path.name + suffix)) for suffix in suffixes)
