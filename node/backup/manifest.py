"""The manifest of a backup: which files it holds, with their digests. A backup is one that has it.

One JSON object a line: what the backup is of, then a line for each file, then one that closes it with
the digest of all lines before. Those of the archive come last, in the order of their paths, so that a
manifest of any length is read beside another in no memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from node.errors import IntegrityFailure, StorageFailure
from node.storage import disk

FILE_NAME = "manifest.jsonl"
#: Of the manifest, and of the folders of the archive beside it.
FORMAT = 2

# As ``backup.make`` names them: a generation is a folder that the next backup removes.
_GENERATION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Origin:
    """Of what, and when.

    Attributes
    ----------
    archive : str
        Identity of the archive, as ``format.json`` of its data directory says it.
    generation : str
        Name of this backup among those that were made to the same folder.
    began_at : float
        In seconds since the epoch. What was acknowledged before is in it.
    data_dir : str
        Where the data directory was.
    """

    archive: str
    generation: str
    began_at: float
    data_dir: str


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes
    ----------
    path : str
        Where it belongs, below the data directory.
    file : str
        Where it is, below the folder of the backup.
    count : int
        Its length, bytes.
    sha256 : str
        Of all of it, in hex.
    modified_ns : int
        When its original was written last, nanoseconds since the epoch; 0 where that tells nothing.
    problem : str
        Why it is not what was acknowledged; empty where it is.
    """

    path: str
    file: str
    count: int
    sha256: str
    modified_ns: int = 0
    problem: str = ""


class Writer:
    """Writes a manifest, which is there, whole and durable, after ``finish``; a context manager."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._path = folder / FILE_NAME
        self._partial = folder / f".{FILE_NAME}.part"
        self._digest = hashlib.sha256()
        self.files = 0
        self.total_bytes = 0
        try:
            self._file = os.fdopen(
                os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
            )
        except OSError as error:
            raise disk.failure(error, "writing the manifest") from error
        self._line(
            {
                "format": FORMAT,
                "archive": origin.archive,
                "generation": origin.generation,
                "began_at": origin.began_at,
                "data_dir": origin.data_dir,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._file.close()

    def add(self, entry: Entry) -> None:
        """Add a file, which is durable in the folder already."""
        facts: dict[str, Any] = {"path": entry.path, "bytes": entry.count, "sha256": entry.sha256}
        if entry.file != entry.path:
            facts["file"] = entry.file
        if entry.modified_ns:
            facts["modified_ns"] = entry.modified_ns
        if entry.problem:
            facts["problem"] = entry.problem
        self._line(facts)
        self.files += 1
        self.total_bytes += entry.count

    def finish(self, finished_at: float) -> None:
        """Close it, and put it where it counts; the one that was there before is replaced."""
        self._line(
            {
                "files": self.files,
                "bytes": self.total_bytes,
                "finished_at": finished_at,
                "sha256": self._digest.hexdigest(),
            }
        )
        try:
            self._file.flush()
            disk.sync_data(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise disk.failure(error, "writing the manifest") from error
        disk.sync_directory(self._path.parent)

    def _line(self, facts: dict[str, Any]) -> None:
        line = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
        self._digest.update(line)
        try:
            self._file.write(line)
        except OSError as error:
            raise disk.failure(error, "writing the manifest") from error


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read through once, and found whole.

    ``files`` and ``total_bytes`` say how much is in the backup, ``finished_at`` is in seconds since
    the epoch.
    """

    folder: Path
    origin: Origin
    files: int
    total_bytes: int
    finished_at: float

    def entries(self) -> Iterator[Entry]:
        """Yield the files, in the order in which they stand in it.

        Raises
        ------
        IntegrityFailure
            A line is none of ours, or names a place outside of the data directory or the backup.
        StorageFailure
            It cannot be read.
        """
        try:
            with (self.folder / FILE_NAME).open("rb") as file:
                for number, line in enumerate(file):
                    if 0 < number <= self.files:
                        yield _entry(line)
        except OSError as error:
            raise disk.failure(error, "reading the manifest") from error

    def place_of(self, entry: Entry) -> Path:
        """Where a file of the backup is; raises IntegrityFailure where a link leads out of the backup."""
        place = self.folder / entry.file
        if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(self.folder)):
            raise IntegrityFailure(
                f"{place} is a link to something outside of the backup", action="use another backup"
            )
        return place


def read(folder: Path) -> Manifest | None:
    """Read the manifest in ``folder`` and prove that it is whole; None when there is none.

    Raises
    ------
    IntegrityFailure
        It is damaged.
    StorageFailure
        It cannot be read.
    """
    damaged = IntegrityFailure(
        f"the manifest {folder / FILE_NAME} is damaged", action="use another backup, or make this one anew"
    )
    digest = hashlib.sha256()
    first: dict[str, Any] = {}
    last = b""
    files = 0
    try:
        with (folder / FILE_NAME).open("rb") as file:
            for number, line in enumerate(file):
                digest.update(last)
                last = line
                if number == 0:
                    first = json.loads(line)
                elif number > 1:
                    files += 1
        closing = json.loads(last)
        if first["format"] > FORMAT:
            raise StorageFailure(
                f"the backup in {folder} has format {first['format']}; this anode knows up to {FORMAT}",
                action="use the newer anode that made it",
            )
        if first["format"] < FORMAT:
            raise StorageFailure(
                f"the backup in {folder} has format {first['format']}; this anode knows {FORMAT} alone",
                action=f"restore it with the anode that made it, or take over its instances with "
                f"'anode import {folder}'",
            )
        if closing["sha256"] != digest.hexdigest() or closing["files"] != files:
            raise damaged
        if not _GENERATION.fullmatch(first["generation"]):
            raise damaged
        origin = Origin(first["archive"], first["generation"], first["began_at"], first["data_dir"])
        return Manifest(folder, origin, files, closing["bytes"], closing["finished_at"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk.failure(error, "reading the manifest") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged from error


def _entry(line: bytes) -> Entry:
    try:
        facts = json.loads(line)
        return Entry(
            path=_inside(facts["path"]),
            file=_inside(facts.get("file", facts["path"])),
            count=facts["bytes"],
            sha256=facts["sha256"],
            modified_ns=facts.get("modified_ns", 0),
            problem=facts.get("problem", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityFailure(
            "a line of the manifest is not as a backup writes it", action="use another backup"
        ) from error


def _inside(path: str) -> str:
    """Give back a path that can only lead below the folder to which it is joined."""
    plain = PurePosixPath(path)
    # ``a//b`` and ``a/./b`` are folded, so what is taken apart as text would not be what was looked at
    if (
        plain.as_posix() != path
        or plain.is_absolute()
        or not plain.name
        or ".." in plain.parts
        or "\0" in path
    ):
        raise ValueError("a path that leads outside")
    return path
