"""Files of the archive on their way into it: written, made durable, given their names.

A flush costs nearly the same for many files as for one: the file system brings what it knows of all of them
to the disk at once. So files are begun one after the other and finished together.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from node.errors import NodeError
from node.storage import disk

_FOLDER = "partial"


class Unfinished:
    """A file that is written below ``partial``, and neither durable nor in its place.

    Parameters
    ----------
    archive : Path
        The archive folder.
    relative : str
        Where below it the file shall be. One that is there is replaced in one step.
    file_bytes : iterable of bytes
        The content, written as it comes.

    Raises
    ------
    OutOfSpace, StorageFailure
        Nothing is left behind; so it is for whatever ``file_bytes`` raises.
    """

    def __init__(self, archive: Path, relative: str, file_bytes: Iterable[bytes]) -> None:
        self.target = archive / relative
        self._path = archive / _FOLDER / f"{os.getpid()}-{uuid.uuid4().hex}.part"
        disk.make_directory(self._path.parent, below=archive)
        #: Those made for it; their names are made durable with its own.
        self.folders = disk.begin_directory(self.target.parent, below=archive)
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise disk.failure(error, "creating an archive file") from error
        self._is_open = True
        try:
            position = 0
            for chunk in file_bytes:
                disk.write_at(self._file, chunk, position)
                position += len(chunk)
        except BaseException:
            self.discard()
            raise
        self._size = position

    def begin_writing_out(self) -> None:
        """Have the system begin to bring its bytes to the disk."""
        disk.begin_writing_out(self._file, 0, self._size)

    def make_durable(self) -> None:
        """Bring its bytes to the disk. Raises OutOfSpace or StorageFailure; it is to be discarded then."""
        disk.sync_data(self._file)
        self._close()

    def put_in_place(self) -> None:
        """Give it its name. Raises as ``make_durable`` does."""
        try:
            self._path.replace(self.target)
        except OSError as error:
            raise disk.failure(error, "naming an archive file") from error

    def discard(self) -> None:
        """Remove it; a file that was there before is still there."""
        self._close()
        with contextlib.suppress(OSError):  # a file system that went read-only
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._file)


def finish(files: Sequence[Unfinished]) -> list[NodeError | None]:
    """Make files durable and put them in their places; what is wrong with each, None where it is there.

    Of a file that fails nothing is left behind, unless it is only its name that could not be made durable.
    """
    problems: dict[Unfinished, NodeError] = {}
    # Not before, when each is written: whoever flushes something in between would wait for it.
    for file in files:
        file.begin_writing_out()
    try:
        for step in (Unfinished.make_durable, Unfinished.put_in_place):
            for file in files:
                if file not in problems:
                    try:
                        step(file)
                    except NodeError as error:
                        problems[file] = error
                        file.discard()
    except BaseException:
        for file in files:
            file.discard()
        raise
    in_place = [file for file in files if file not in problems]
    # The names of the files, and of the folders that were made for them.
    named = {file: {file.target.parent, *(folder.parent for folder in file.folders)} for file in in_place}
    for folder in dict.fromkeys(folder for file in in_place for folder in sorted(named[file], reverse=True)):
        try:
            disk.sync_directory(folder)
        except NodeError as error:
            problems.update((file, error) for file in in_place if folder in named[file])
    for file in in_place:
        if file not in problems:
            disk.note_durable(file.folders)
    return [problems.get(file) for file in files]


def write(archive: Path, relative: str, file_bytes: Iterable[bytes]) -> None:
    """Write one file so that it is there whole and durable, or not at all; as of ``Unfinished``."""
    (problem,) = finish([Unfinished(archive, relative, file_bytes)])
    if problem is not None:
        raise problem


def remove(archive: Path, process_id: int | None = None) -> int:
    """Remove what a process left that has ended, or at a start all there is; return how many files."""
    count = 0
    for path in (archive / _FOLDER).glob("*.part" if process_id is None else f"{process_id}-*.part"):
        path.unlink(missing_ok=True)
        count += 1
    return count
