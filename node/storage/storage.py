"""Where bytes are kept: the receive log for what has just come, the archive for what is settled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import NodeError, StorageFailure
from node.repairs import Repairs
from node.storage import archive, disk, unfinished
from node.storage.location import Location
from node.storage.receive_log import ReceiveLog, ReplayedRecord, Report
from node.storage.reception import Reception
from node.storage.tenure import Tenure
from node.storage.unfinished import Unfinished
from node.storage.window import LastingWindow, Window

# Settling may take all of the reserve but one part in so many.
_SETTLING_PART = 4


class Storage:
    """The bytes below ``data_dir``. Making one touches no file, so a second process may read.

    Parameters
    ----------
    data_dir : Path
        The data directory; ``log`` and ``archive`` lie in it.
    config : StorageConfig
        Size of a segment, free space held in reserve.
    clock : Clock
        For the grace of reclaimed segments.
    reclaim_grace_seconds : float
        How long a segment must have been unneeded before ``reclaim`` uses it again.
    tenure : Tenure or None
        The right to write of the running node; None for who writes beside no node.
    known_segments : collection of str
        Segments of the receive log that the index names, be they there or not.
    """

    def __init__(
        self,
        data_dir: Path,
        config: StorageConfig,
        clock: Clock,
        *,
        reclaim_grace_seconds: float = 10.0,
        tenure: Tenure | None = None,
        known_segments: Collection[str] = (),
    ) -> None:
        self.tenure = tenure
        self._archive = data_dir / "archive"
        self._reserve_bytes = config.free_space_reserve_bytes
        self._log = ReceiveLog(
            data_dir / "log",
            segment_bytes=config.segment_bytes,
            spare_segments=config.spare_segments,
            reserve_bytes=config.free_space_reserve_bytes,
            grace_seconds=reclaim_grace_seconds,
            clock=clock,
            known_numbers=[int(name) for name in known_segments],
            check_place=lambda: None if tenure is None else tenure.check("log"),
        )

    # --- the way in ----------------------------------------------------------

    def begin(self, limit_bytes: int | None = None) -> Reception:
        """Begin to receive one data set of at most ``limit_bytes`` bytes.

        Raises OutOfSpace, before anything is written, when the free space is below the reserve.
        """
        self.check_free_space()
        return Reception(self._log, limit_bytes=limit_bytes)

    def check_free_space(self) -> None:
        """Raise OutOfSpace when the free space is below the reserve."""
        self._log.free_space.check(0)

    def prepare(self, is_live: Callable[[str], bool]) -> None:
        """Make ready for the first reception: no sender waits until a segment is written.

        Only at start, after ``replay``; ``is_live`` as for ``reclaim``.
        """
        self.reclaim(is_live)
        self._log.prepare()

    def replay(
        self,
        is_known: Callable[[Location], bool] = lambda _location: False,
        repairs: Repairs | None = None,
        is_used: Callable[[str], bool] = lambda _segment: False,
    ) -> Iterator[ReplayedRecord]:
        """Yield the whole records of earlier runs that ``is_known`` does not know. Only at start.

        A segment that begins with damage is searched where ``is_used`` says that records of it are known.
        What a stopped process left unfinished is removed, and counted in ``repairs``.
        """
        repairs = repairs or Repairs()
        repairs.files_removed += unfinished.remove(self._archive)
        return self._log.replay(is_known, repairs, is_used)

    def survey(self, report: Report) -> Iterator[ReplayedRecord]:
        """Yield every whole record of the receive log, wherever it stands; ``report`` is told of damage.

        Only while no node runs. What a stopped process left unfinished is removed.
        """
        unfinished.remove(self._archive)
        return self._log.survey(report)

    def archived(self) -> Iterator[Location]:
        """Yield where archive files lie, those in quarantine last; raises StorageFailure."""
        return (Location("archive", relative) for relative in archive.files(self._archive))

    def keep(self, location: Location) -> None:
        """Keep the segment of a replayed record from being used again before the next start."""
        self._log.keep(location)

    def without_reclaiming(self) -> AbstractContextManager[object]:
        """While this context is open no segment is used again."""
        return self._log.without_reclaiming()

    def reclaim(self, is_live: Callable[[str], bool]) -> int:
        """Free each segment (``Location.path``) that ``is_live`` says nobody needs; return how many.

        One that holds a reception or a reader, waits for its replay or was needed a moment ago
        is left for the next time.
        """
        return self._log.reclaim(is_live)

    def suspects(self) -> list[str]:
        """Segments to which a write or flush failed; they are not written to again."""
        return self._log.suspects()

    def clear(self, segment: str) -> None:
        """Note that nothing that counts is in a suspect segment any more."""
        self._log.clear(segment)

    # --- the archive ---------------------------------------------------------

    def settle(
        self, sop_instance_uid: str, file_bytes: Iterable[bytes], *, data_set_sha256: str = ""
    ) -> Location:
        """Write the archive file of an instance: durable and whole, or not there at all.

        ``file_bytes`` is ``archive.part10`` and then the data set, ``data_set_sha256`` the digest of what
        was received. A file of other content that is there is set aside. Raises OutOfSpace or
        StorageFailure; a file that was there before is then still there.
        """
        file = self.begin_settling(sop_instance_uid, file_bytes, data_set_sha256=data_set_sha256)
        return self._finish(file)

    def settle_quarantine(
        self, sop_instance_uid: str, data_set_sha256: str, file_bytes: Iterable[bytes]
    ) -> Location:
        """Write an archive file for content that conflicts with what is held; as ``settle``."""
        return self._finish(
            self._begin(archive.quarantine_path(sop_instance_uid, data_set_sha256), file_bytes)
        )

    def begin_settling(
        self, sop_instance_uid: str, file_bytes: Iterable[bytes], *, data_set_sha256: str = ""
    ) -> Unfinished:
        """Write the archive file of an instance, and leave it to ``finish_settling``; as ``settle``."""
        relative = archive.relative_path(sop_instance_uid)
        return self._begin(relative, file_bytes, data_set_sha256=data_set_sha256)

    def finish_settling(self, files: Sequence[Unfinished]) -> list[Location | NodeError]:
        """Make files durable and put them in their places, together; where each is, or what is wrong."""
        try:
            with self._turn():
                problems = unfinished.finish(files)
        except NodeError as error:
            for file in files:
                file.discard()
            return [error for _ in files]
        except BaseException:
            for file in files:
                file.discard()
            raise
        return [
            Location("archive", file.target.relative_to(self._archive).as_posix()) if error is None else error
            for file, error in zip(files, problems, strict=True)
        ]

    def _begin(self, relative: str, file_bytes: Iterable[bytes], *, data_set_sha256: str = "") -> Unfinished:
        with self._turn():
            disk.make_directory(self._archive, below=self._archive)
            # To settle frees more of the log than it takes: it goes on where nothing is received any more.
            disk.check_free_space(self._archive, self._reserve_bytes // _SETTLING_PART)
            if data_set_sha256:
                archive.set_aside_other(self._archive, relative, data_set_sha256)
            return Unfinished(self._archive, relative, file_bytes)

    def _finish(self, file: Unfinished) -> Location:
        (settled,) = self.finish_settling([file])
        if isinstance(settled, NodeError):
            raise settled
        return settled

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.tenure is None else self.tenure.writing("archive")

    def check_folders(self) -> None:
        """Raise StorageFailure when the archive or the log is not the folder that it was at the start."""
        if self.tenure is not None:
            for folder in ("archive", "log"):
                self.tenure.check(folder)

    # --- reading -------------------------------------------------------------

    def path(self, location: Location) -> Path:
        """Path of the file that holds ``location``: a segment, or an archive file."""
        if location.kind == "log":
            return self._log.path(location)
        path = self._archive / location.path
        if Path(location.path).is_absolute() or ".." in path.parts:
            raise StorageFailure("a location points out of the archive")
        return path

    def open(self, location: Location) -> Window:
        """Open the data set at ``location``, without its file meta information.

        Raises
        ------
        StorageFailure
            The file is gone or unreadable. An instance that was settled meanwhile has another
            location.
        IntegrityFailure
            An archive file does not begin as it should, or a segment that continues a record is
            gone or another one.
        """
        if location.kind == "log":
            return self._log.open(location)
        path = self.path(location)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise disk.failure(error, f"opening {location.path} of the archive") from error
        try:
            size = os.fstat(file).st_size
            offset = archive.data_set_offset(Window(file, 0, size))
        except BaseException:
            os.close(file)
            raise
        return LastingWindow(file, offset, size - offset, owns_file=True)

    def read_ahead(self, location: Location, count: int) -> None:
        """Have the system begin to read what is at ``location``, about ``count`` bytes, without waiting.

        What is in the way of that is for ``open`` to say.
        """
        with contextlib.suppress(OSError, StorageFailure):
            file = os.open(self.path(location), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(file, location.offset, count, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)

    def size(self, location: Location) -> int:
        """Bytes of the data set at ``location``; raises as ``open`` does."""
        if location.kind == "log":
            return location.length
        with self.open(location) as file:
            return file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close all files of the receive log."""
        self._log.close()
