"""Copies the archive: what is in the backup already stays, as settled files never change.

An original that is damaged or gone never takes the place of a good copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from node.backup import copying
from node.backup.copying import Copied
from node.backup.log_copy import Damage
from node.backup.manifest import Entry, Manifest
from node.errors import AnodeError, StorageFailure
from node.index.snapshot import ArchivedFile

#: Name of the archive's folder, in a data directory and in a backup.
ARCHIVE = "archive"
# File systems that are not of one kind keep times differently; what is taken as equal is proven then.
_SAME_TIME_NS = 2_000_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its entry, None where there is none; was it copied now; the damage.

    ``replaced`` is the entry of an earlier backup whose copy is of no use once this one is finished.
    """

    entry: Entry | None
    is_new: bool = False
    damage: Damage | None = None
    replaced: Entry | None = None


class ArchiveCopy:
    """Copies the files of an archive that rows name.

    Parameters
    ----------
    data_dir, folder : Path
        From where, and the folder of the backup.
    generation : str
        Name of this backup, for a copy that must not replace another.
    before : Manifest or None
        Of the backup that the folder holds already.
    is_verifying : bool
        Whether copies that are there are read and proven; one that is damaged is made anew.
    """

    def __init__(
        self,
        data_dir: Path,
        folder: Path,
        generation: str,
        before: Manifest | None,
        *,
        is_verifying: bool = False,
    ) -> None:
        self._data_dir = data_dir
        self._folder = folder
        self._generation = generation
        self._before = before
        self._is_verifying = is_verifying

    def copy(self, files: Iterable[ArchivedFile]) -> Iterator[Outcome]:
        """Yield what became of each of ``files``, which come in the order of their places.

        Raises
        ------
        StorageFailure, OutOfSpace
            A copy cannot be written.
        """
        earlier = _EntriesByPath(self._before)
        for file in files:
            known = earlier.at(f"{ARCHIVE}/{file.relative}")
            outcome = self._copy(file, known)
            is_replaced = (
                known is not None
                and outcome.entry is not None
                and outcome.entry.file != known.file
                and not outcome.entry.problem
            )
            yield replace(outcome, replaced=known) if is_replaced else outcome

    def _copy(self, file: ArchivedFile, earlier: Entry | None) -> Outcome:
        path = f"{ARCHIVE}/{file.relative}"
        source = self._data_dir / path
        try:
            facts = source.stat()
        except OSError as error:
            return self._without(file, earlier, f"cannot be read: {error.strerror}")
        if earlier is not None and not earlier.problem:
            is_unchanged = (earlier.modified_ns, earlier.count) == (facts.st_mtime_ns, facts.st_size)
            if is_unchanged and self._is_there(earlier):
                return Outcome(earlier)
        if earlier is None and (entry := self._left_behind(file, path, facts.st_size, facts.st_mtime_ns)):
            return Outcome(entry)
        name = path if earlier is None else f"{path.removesuffix('.dcm')}.{self._generation}.dcm"
        try:
            copied = copying.copy(
                source, self._folder, name, check=lambda copy, _: _check(copy, source, file.data_set_sha256)
            )
        except copying.Unreadable as error:
            return self._without(file, earlier, f"cannot be read: {error}")
        except _DamagedOriginal as error:
            return self._damaged(file, earlier, path, name, str(error))
        return Outcome(_entry(path, name, copied), is_new=True)

    def _is_there(self, earlier: Entry) -> bool:
        copy = self._folder / earlier.file
        if not self._is_verifying:
            return _size(copy) == earlier.count
        try:
            return copying.digest_of(copy) == earlier.sha256
        except StorageFailure:
            return False

    def _left_behind(self, file: ArchivedFile, path: str, count: int, modified_ns: int) -> Entry | None:
        """The copy that a backup made which did not come to its end, where it is good."""
        copy = self._folder / path
        try:
            facts = copy.stat()
        except OSError:
            return None
        if facts.st_size != count or abs(facts.st_mtime_ns - modified_ns) > _SAME_TIME_NS:
            return None
        if copying.problem_of(copy, file.data_set_sha256):
            return None
        return Entry(path, path, count, copying.digest_of(copy), modified_ns)

    def _damaged(
        self, file: ArchivedFile, earlier: Entry | None, path: str, name: str, problem: str
    ) -> Outcome:
        """Keep the copy that is good, else one of what is damaged: it may be mended some day."""
        kept = self._without(file, earlier, problem)
        if kept.entry is not None:
            return kept
        copied = copying.copy(self._data_dir / path, self._folder, name)
        entry = replace(_entry(path, name, copied), problem=problem)
        return Outcome(entry, is_new=True, damage=Damage(file.sop_instance_uid, problem))

    def _without(self, file: ArchivedFile, earlier: Entry | None, problem: str) -> Outcome:
        """What there is without the original."""
        if earlier is None or copying.problem_of(self._folder / earlier.file, file.data_set_sha256):
            return Outcome(None, damage=Damage(file.sop_instance_uid, problem))
        saved = f"{problem}; the good copy of an earlier backup is kept"
        return Outcome(earlier, damage=Damage(file.sop_instance_uid, saved))


class _DamagedOriginal(AnodeError):
    """What is copied is not what was acknowledged."""


def _check(copy: Path, source: Path, data_set_sha256: str) -> None:
    problem = copying.problem_of(copy, data_set_sha256)
    if problem and not copying.problem_of(source, data_set_sha256):
        raise StorageFailure(
            f"a copy is not what its original is: {problem}",
            action="the disk of the backup is at fault: use another",
        )
    if problem:
        raise _DamagedOriginal(problem)


def _entry(path: str, name: str, copied: Copied) -> Entry:
    return Entry(path, name, copied.count, copied.sha256, copied.modified_ns)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class _EntriesByPath:
    """The archive's entries in a manifest, for who asks for them in the order of their paths."""

    def __init__(self, manifest: Manifest | None) -> None:
        entries = manifest.entries() if manifest is not None else iter(())
        self._entries = (entry for entry in entries if entry.path.startswith(f"{ARCHIVE}/"))
        self._next = next(self._entries, None)

    def at(self, path: str) -> Entry | None:
        """The entry of ``path``, which comes after all paths that were asked for; None without one."""
        while self._next is not None and self._next.path < path:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next.path == path else None
