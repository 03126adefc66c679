"""Files that a model's process wrote, read and removed as those of a stranger.

It may have put a link, a pipe or a bottomless file where a plain one is expected, a link even in the place
of its folder.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from node.processes.texts import clean

#: How much of standard error an error message quotes.
LAST_LINES, LAST_CHARACTERS = 4, 600
_LAST_BYTES = 8192
#: In a traceback; any other path is what the model means.
_FOLDER_OF_CODE = re.compile(r'(File ")[^"|]*/(?=[^/"|]+", line \d)')
#: Whoever waits has other runs to do.
_REMOVAL_SECONDS = 20.0
#: Names that are read of a folder before they are removed, which may have any number of them.
_MOST_AT_ONCE = 10_000


def open_plain(folder: Path, name: str, most_bytes: int) -> BinaryIO:
    """Open a file of ``folder`` for reading.

    Raises
    ------
    FileNotFoundError
        there is none
    ValueError
        it is no plain file of the folder itself, or larger than ``most_bytes``
    OSError
        it cannot be read
    """
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file in the folder")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    # Whoever opens a pipe would wait for somebody to write to it.
    within = os.open(folder, flags | os.O_DIRECTORY)
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode):
            raise ValueError(f"{name!r} is no name of a file in the folder, but a link")
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=within)
    finally:
        os.close(within)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > most_bytes:
        os.close(descriptor)
        raise ValueError(f"{name!r} is no plain file, or larger than {most_bytes >> 20} MB")
    return os.fdopen(descriptor, "rb")


def last_words(folder: Path, name: str) -> str:
    """The last lines of a file, short enough for a list of jobs; where code lies is shortened to names."""
    try:
        with open_plain(folder, name, 1 << 62) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LAST_BYTES))
            text = file.read(_LAST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return "its standard error cannot be read"
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not set(line.strip()) <= {"^", "~"}
    ]
    words = _FOLDER_OF_CODE.sub(r"\1", " | ".join(lines[-LAST_LINES:]))
    return clean(words, len(words))[-LAST_CHARACTERS:] or "it said nothing"


def remove(folder: Path) -> bool:
    """Remove a folder with all that is in it, and return whether it is gone.

    What cannot be removed within 20 seconds stays: the process that made it may still be making more. No
    link is followed, not even one that is put there meanwhile.
    """
    until = time.monotonic() + _REMOVAL_SECONDS
    try:
        top = _opened(str(folder), None)
    except FileNotFoundError:
        return True
    except OSError:
        # A link or a file in its place.
        with suppress(OSError):
            os.unlink(folder)
        return not os.path.lexists(folder)
    try:
        while _emptied(top, top, until):
            continue
    finally:
        os.close(top)
    with suppress(OSError):
        os.rmdir(folder)
    return not os.path.lexists(folder)


def _emptied(within: int, top: int, until: float) -> bool:
    """Remove some of what is in a folder; return whether it was anything at all.

    Folders in it are moved to the ``top`` before they are emptied, so that no depth is too deep.
    """
    was_any = False
    with os.scandir(within) as entries:
        some = itertools.islice(entries, _MOST_AT_ONCE)
        found = [(one.name, one.is_dir(follow_symlinks=False)) for one in some]
    for name, is_folder in found:
        if time.monotonic() > until:
            return False
        with suppress(OSError):
            if not is_folder:
                os.unlink(name, dir_fd=within)
            elif within != top:
                _move_up(name, within, top)
            elif not _remove_one(name, top, until):
                continue
            was_any = True
    return was_any


def _remove_one(name: str, top: int, until: float) -> bool:
    """Remove a folder of ``top``, with what is below it moved there; whether anything was removed."""
    below = _opened(name, top)
    try:
        was_any = _emptied(below, top, until)
    finally:
        os.close(below)
    try:
        os.rmdir(name, dir_fd=top)
    except OSError:
        return was_any
    return True


def _move_up(name: str, within: int, top: int) -> None:
    # Who moves a folder writes into it: where it lies.
    os.close(_opened(name, within))
    os.rename(name, uuid.uuid4().hex, src_dir_fd=within, dst_dir_fd=top)


def _opened(name: str, within: int | None) -> int:
    """Open a folder, and no link to one; nobody may be kept from it afterwards who owns it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=within)
        if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(descriptor, stat.S_IRWXU)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        # What is open in this way cannot be read, but it is what it is, whatever lies there now.
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
            descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(place)
    return descriptor
