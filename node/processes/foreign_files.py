"""Files that a model's process wrote, read and removed as those of a stranger.

It may have put a link, a pipe or a bottomless file where a plain one is expected, a link even in the place
of its folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import BinaryIO

#: How much of standard error an error message quotes.
LAST_LINES, LAST_CHARACTERS = 4, 600
_LAST_BYTES = 8192
_REMOVAL_SECONDS = 60.0


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
    """The last lines of a file, short enough for a list of jobs; paths shortened to names."""
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
    words = re.sub(r"[^\s\"']*/([^/\s\"']+)", r"\1", " | ".join(lines[-LAST_LINES:]))
    return words[-LAST_CHARACTERS:] or "it said nothing"


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it; what cannot be removed stays."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        # Folders that nobody may enter or that lie too deep, or a link in its place. The tools of the
        # system follow no links here, and go as deep as it takes.
        closed = ["find", str(folder), "-type", "d", "!", "-perm", "-700", "-exec", "chmod", "700", "{}", ";"]
        for command in (closed, ["rm", "-rf", "--", str(folder)]):
            try:
                subprocess.run(command, check=False, capture_output=True, timeout=_REMOVAL_SECONDS)
            except (OSError, subprocess.TimeoutExpired):
                return
