"""``data_dir/work``: where unfinished work lies, temporary files of the whole process included.

They hold images, so they are as private as the archive, and lie on the disk that the operator chose for
images. What a process left that was killed is cleared away at the next start.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from pathlib import Path

from node.errors import StorageFailure
from node.processes import foreign_files
from node.storage import disk

MODEL, ANALYSIS = "model-", "analysis-"
"""What the folder of a model's process is called, and in it, two levels down, those of a run."""
_TEMPORARY = "temporary"


def of(data_dir: Path) -> Path:
    """The folder of a data directory."""
    return data_dir / "work"


def clear(data_dir: Path) -> int:
    """Remove what an earlier process left; only for who holds the lock of the data directory.

    What cannot be removed stays, and is in nobody's way.

    Returns
    -------
    int
        How many analyses were cut short.
    """
    analyses = len(list(of(data_dir).glob(f"{MODEL}*/given/{ANALYSIS}*")))
    foreign_files.remove(of(data_dir))
    return analyses


def use_for_temporary_files(data_dir: Path) -> Path:
    """Have the temporary files of this process, and of those that it starts, made in the work folder.

    Returns
    -------
    Path
        Where they are made.

    Raises
    ------
    OutOfSpace, StorageFailure
        The folder cannot be made.
    """
    folder = (of(data_dir) / _TEMPORARY).absolute()
    try:
        for one in (folder.parent, folder):
            one.mkdir(0o700, exist_ok=True)
    except OSError as error:
        raise disk.failure(error, "making the folder for temporary files") from error
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


@contextmanager
def temporary_files(data_dir: Path) -> Iterator[None]:
    """Have temporary files made in the work folder for the time being; for commands, beside a running node.

    Nothing changes for a user who may not write in the data directory, or where there is none.
    """
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    if os.access(data_dir, os.W_OK | os.X_OK):
        use_for_temporary_files(data_dir)
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before[1]


def use_for_all_temporary_files(data_dir: Path) -> None:
    """Have SQLite and multiprocessing use the work folder too; for the node, before either makes a file.

    Raises
    ------
    OutOfSpace, StorageFailure
        The folder cannot be made, or SQLite does not take it.
    """
    folder = use_for_temporary_files(data_dir)
    # SQLite has read its environment when it was loaded. The pragma holds for the whole process.
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("PRAGMA temp_store_directory = '{}'".format(str(folder).replace("'", "''")))
        if connection.execute("PRAGMA temp_store_directory").fetchone() != (str(folder),):
            raise StorageFailure("this build of SQLite does not let its temporary files be placed")
    except sqlite3.Error as error:
        raise StorageFailure(f"SQLite cannot make temporary files in {folder}: {error}") from error
    finally:
        connection.close()
    _place_sockets(folder)


def _place_sockets(folder: Path) -> None:
    """Have multiprocessing make the folder of its sockets in ``folder``, however long its path is.

    The address of a socket has at most 107 bytes, so it leads through a descriptor of the folder, which
    stays open for as long as the process lives.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    tempfile.tempdir = f"/proc/self/fd/{descriptor}"
    try:
        util.get_temp_dir()  # is remembered
    finally:
        tempfile.tempdir = str(folder)
