"""The receive log as somebody else sees it who copies or reads it, whether its node runs or not.

Nothing is written to it. A segment that is held is not used again meanwhile, as its node leaves alone
what somebody reads.
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from node.clock import Clock
from node.errors import StorageFailure
from node.storage import disk
from node.storage.chain import Part, parts
from node.storage.location import Location
from node.storage.receive_log import DAMAGED_HEAD, DAMAGED_LIFE, ReceiveLog, Report
from node.storage.record import BLOCK_BYTES, Head, Life, record_bytes
from node.storage.segment import numbers_in, read_life, records, segment_name, segment_path
from node.storage.window import Window

# of a look at the folder: a node that makes segments faster than they are held has no such disk
_MOST_LOOKS = 100
_DESCRIPTORS_BESIDE = 64


class HeldLog:
    """The segments of one folder; a context manager, which lets go of them at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._log = ReceiveLog(
            folder, segment_bytes=0, spare_segments=0, reserve_bytes=0, grace_seconds=0.0, clock=Clock()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            os.close(file)

    @property
    def names(self) -> set[str]:
        """Names of the segments that are held."""
        return set(self._files)

    def hold(self) -> None:
        """Hold all segments that there are now; raises StorageFailure where they cannot be."""
        for _ in range(_MOST_LOOKS):
            names = map(segment_name, numbers_in(self._folder))
            new = [name for name in names if name not in self and segment_path(self._folder, name).is_file()]
            if not new:
                return
            _allow_files(len(self._files) + len(new))
            for name in new:
                self._hold(name)
        raise StorageFailure("the receive log changes faster than it can be held")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def _hold(self, name: str) -> None:
        path = segment_path(self._folder, name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it was used again, and has another name
        except OSError as error:
            raise disk.failure(error, "opening a segment of the receive log") from error
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            is_it = os.fstat(file).st_ino == path.stat().st_ino
        except FileNotFoundError:
            is_it = False
        except OSError as error:
            os.close(file)
            raise disk.failure(error, "holding a segment of the receive log") from error
        if is_it:
            self._files[name] = file
        else:
            os.close(file)

    def records(self, name: str, report: Report) -> list[tuple[Location, Head]]:
        """The records that begin in a held segment, in order, also those behind damage.

        Whether they are whole is not looked at. ``report`` is told what cannot be read.
        """
        found: list[tuple[Location, Head]] = []
        file = self._files[name]
        try:
            life = read_life(file)
            if life is None:
                report(name, DAMAGED_LIFE)
            if life is None or segment_name(life.number) != name:
                return []  # of another name: it was to be used again, and its next life never began
            end = 2 * BLOCK_BYTES
            for offset, head in records(file, life, is_thorough=True):
                if offset != end:
                    report(name, DAMAGED_HEAD)
                end = offset + head.record_bytes
                found.append((Location("log", name, offset, head.data_set_bytes), head))
        except StorageFailure as error:
            report(name, str(error))
        return found

    def _life(self, name: str) -> Life | None:
        life = read_life(self._files[name])
        return life if life is not None and segment_name(life.number) == name else None

    def open(self, location: Location) -> Window:
        """Open the data set of a record; raises as ``ReceiveLog.open``."""
        return self._log.open(location)

    def end_of(self, location: Location) -> int:
        """Byte of its segment at which a record ends, or what of it lies there."""
        size = os.fstat(self._files[location.path]).st_size
        return min(size, location.offset - BLOCK_BYTES + record_bytes(location.length))

    def continuations(self, location: Location, head: Head) -> Iterator[Path]:
        """Yield the segments in which a record goes on; raises IntegrityFailure where one is not there."""
        life = self._life(location.path)
        if head.continued_in is not None and life is not None:
            path = segment_path(self._folder, location.path)
            first = os.fstat(self._files[location.path]).st_size - location.offset
            found = parts(
                self._folder,
                life,
                Part(path, location.offset, first),
                head.continued_in,
                location.length,
            )
            yield from (part.path for part in found[1:])


def _allow_files(count: int) -> None:
    """Let this process have so many files open, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _DESCRIPTORS_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
