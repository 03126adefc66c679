"""The audit trail on disk: files of lines, one for each message, that are appended to and never altered.

A line is a whole syslog message (RFC 5424), so what is sent later is what was written.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = "audit"
_FILE_BYTES = 16 * 1024**2
_POSITION = "sent.json"
_SECONDS_PER_DAY = 86400.0


class Position(NamedTuple):
    """A place in the trail: the number of a file, and a byte offset in it."""

    number: int
    offset: int


class AuditFiles:
    """The files of one data directory. One thread appends; another may read.

    Parameters
    ----------
    folder : Path
        Where they lie; made with the first message.
    keep_bytes, keep_days
        Older files go when there are more bytes, or when so many days have passed since they were full.
    file_bytes : int
        A file that is so long is followed by another one.

    Attributes
    ----------
    has_lost : bool
        A flush failed, and none has succeeded since: what was written before may be gone.
    """

    def __init__(
        self, folder: Path, *, keep_bytes: int, keep_days: float, file_bytes: int = _FILE_BYTES
    ) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._keep_days = keep_days
        self._file_bytes = min(file_bytes, max(keep_bytes // 4, 1))
        self._file: int | None = None
        self._number = 0
        self._length = 0
        self.has_lost = False

    def append(self, lines: Sequence[bytes]) -> bool:
        """Add whole lines to the end, all of them or none; OSError where the disk does not take them.

        Returns whether a new file was begun with them.
        """
        content = b"".join(line + b"\n" for line in lines)
        if self._length >= self._file_bytes:
            self.close()
        if self._file is None:
            self._open()
        assert self._file is not None
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise
        is_new = self._length == 0
        self._length += len(content)
        return is_new

    def sync(self) -> None:
        """Make durable what was appended; after an OSError what follows is written to another file.

        The system may have dropped what it could not write, and would say of the next flush of the same
        file that it went well.
        """
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
        except OSError:
            self.has_lost = True
            file, self._file = self._file, None
            os.close(file)
            raise
        self.has_lost = False

    def close(self) -> None:
        """Make durable what was appended, and close the file."""
        self.sync()
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def prune(self, now: float) -> list[int]:
        """Remove the oldest files until what is left is allowed to stay; return the numbers of those gone."""
        removed = []
        found = [(number, self._path(number).stat()) for number in self._numbers()]
        total = sum(facts.st_size for _, facts in found)
        for number, facts in found[:-1]:
            is_old = now - facts.st_mtime > self._keep_days * _SECONDS_PER_DAY
            if total <= self._keep_bytes and not is_old:
                break
            self._path(number).unlink()
            removed.append(number)
            total -= facts.st_size
        return removed

    def end(self) -> Position:
        """Where the next line will be added."""
        numbers = self._numbers()
        if not numbers:
            return Position(1, 0)
        return Position(numbers[-1], self._path(numbers[-1]).stat().st_size)

    def read(self, position: Position, limit_bytes: int) -> tuple[list[bytes], Position]:
        """Read whole lines from ``position`` on, at least one where there is one, and where they end."""
        numbers = self._numbers()
        for number in numbers:
            if number < position.number:
                continue
            offset = position.offset if number == position.number else 0
            content = self._content(number, offset, limit_bytes)
            if content:
                return content.split(b"\n")[:-1], Position(number, offset + len(content))
            position = Position(number, offset)
        return [], position

    def saved_position(self) -> Position | None:
        """What ``save_position`` saved last; None when that cannot be known."""
        try:
            raw = json.loads((self._folder / _POSITION).read_text(encoding="ascii"))
            return Position(int(raw["file"]), int(raw["offset"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save_position(self, position: Position) -> None:
        """Remember up to where the trail was sent; OSError where the disk does not take it."""
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        partial = self._folder / f".{_POSITION}.part"
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"file": position.number, "offset": position.offset}, file)
        partial.replace(self._folder / _POSITION)

    def _content(self, number: int, offset: int, limit_bytes: int) -> bytes:
        """Whole lines of one file; what was cut off by a loss of power is none."""
        with self._path(number).open("rb") as file:
            file.seek(offset)
            content = file.read(limit_bytes)
            if content and b"\n" not in content:
                content += file.readline()
        return content[: content.rfind(b"\n") + 1]

    def _open(self) -> None:
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        numbers = self._numbers()
        self._number = (numbers[-1] if numbers else 0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(self._number), flags, 0o600)
        self._length = 0

    def _path(self, number: int) -> Path:
        return self._folder / f"audit-{number:08}.log"

    def _numbers(self) -> list[int]:
        names = (path.stem.removeprefix("audit-") for path in self._folder.glob("audit-*.log"))
        return sorted(int(name) for name in names if name.isdecimal())
