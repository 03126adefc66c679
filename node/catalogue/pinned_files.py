"""The files of a model folder, each pinned by its SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 1024 * 1024
#: What says which model it is, in every model folder.
STATED = "analysis.toml"
#: A folder with a whole environment in it would fill a page for each thing that is not pinned.
MOST_TOLD = 10


@dataclass(frozen=True)
class PackageSource:
    """Where a file comes from: a member of a wheel, which is pinned as a whole."""

    package: str
    version: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True)
class PinnedFile:
    """A file: its path in the folder, with ``/``, its SHA-256 (hex), and the package that brings it."""

    path: str
    sha256: str
    source: PackageSource | None = None


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def joint_digest(files: Sequence[PinnedFile], stated_sha256: str) -> str:
    """SHA-256 (hex) of the paths and digests of all files and of ``analysis.toml``, sorted by path."""
    lines = sorted(f"{path}\0{sha256}\n" for path, sha256 in [*_pairs(files), (STATED, stated_sha256)])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _pairs(files: Sequence[PinnedFile]) -> list[tuple[str, str]]:
    return [(one.path, one.sha256) for one in files]


def faults(folder: Path, files: Sequence[PinnedFile]) -> list[str]:
    """Say which files are missing, are no files of the folder, or are not those that were pinned."""
    found = []
    root = folder.resolve()
    for one in files:
        path = folder / one.path
        try:
            is_inside = path.resolve(strict=True).is_relative_to(root)
            # to read what is no file, a pipe say, could wait for ever
            digest = digest_of(path) if is_inside and path.is_file() else ""
        except FileNotFoundError:
            install = f"; 'anode models install {folder}' fetches it" if one.source else ""
            found.append(f"{path} is missing{install}")
            continue
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
            continue
        if not is_inside:
            found.append(f"{path} leads out of the folder")
        elif not digest:
            found.append(f"{path} is no file")
        elif digest != one.sha256:
            found.append(
                f"{path} has the SHA-256 {digest}, not {one.sha256} as {STATED} says; put the file back that "
                "was meant or, if this one is right, write its SHA-256 there"
            )
    return found


def others(folder: Path, files: Sequence[PinnedFile]) -> Iterator[tuple[str, str]]:
    """Yield the path of each file that is there and is another one than was pinned, and its SHA-256 (hex)."""
    root = folder.resolve()
    for one in files:
        path = (folder / one.path).resolve()
        if path.is_relative_to(root) and path.is_file() and (digest := digest_of(path)) != one.sha256:
            yield one.path, digest


def unpinned(folder: Path, files: Sequence[PinnedFile], but: Collection[str] = ()) -> list[str]:
    """Say what lies in a folder and is not pinned, ``but`` those files and folders.

    Any of it may be run or read by the model: weights beside a network, a module that is imported, a
    library that a program loads.
    """
    pinned = {one.path for one in files} | {STATED}
    found = [
        f"{folder / path} {fault or _NOT_PINNED}"
        for path, fault in _contents(folder, but)
        if fault or path not in pinned
    ]
    if len(found) > MOST_TOLD:
        found[MOST_TOLD:] = [f"{folder}: {len(found) - MOST_TOLD} more are not pinned either"]
    return found


def identities(folder: Path, files: Sequence[PinnedFile]) -> tuple[tuple[int, ...], ...]:
    """Return what changes when one of the files or ``analysis.toml`` does: cheap, unlike their digests.

    Raises OSError when one is not there.
    """
    facts = [(folder / path).stat() for path in [*(one.path for one in files), STATED]]
    return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in facts)


def stanza(folder: Path, *, but: Collection[str] = ()) -> str:
    """Return the ``[[runner.files]]`` tables that pin every file of a folder as it is now.

    ``but`` are paths of files and folders that are left out.
    """
    tables = []
    for path, fault in _contents(folder, but):
        if not fault and path != STATED and (folder / path).is_file():
            shown = json.dumps(path)
            tables.append(f'\n[[runner.files]]\npath = {shown}\nsha256 = "{digest_of(folder / path)}"\n')
    return "".join(tables)


#: The command prints, and leaves it to a person to write.
PIN_IT = f"is not pinned; add its path and sha256 to {STATED} ('anode models pin' prints the table)"
_NOT_PINNED = f"{PIN_IT}, or remove it"
_COMPILED = "is what Python compiled earlier, which is not pinned and may be run; remove it"
_FOLDER_LINK = "is a link to a folder, whose files cannot be pinned; put the folder there"


def _contents(folder: Path, but: Collection[str], under: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each file in a folder, and with a reason that of each thing that cannot be pinned.

    What is in ``but`` is left out.
    """
    try:
        entries = sorted(os.scandir(folder / under), key=lambda one: one.name)
    except OSError as error:
        yield under or ".", f"cannot be looked into: {error.strerror}"
        return
    for entry in entries:
        path = f"{under}/{entry.name}" if under else entry.name
        if path in but:
            continue
        if not (folder / path).is_dir():
            yield path, ""
        elif entry.is_symlink():
            yield path, _FOLDER_LINK
        elif entry.name == "__pycache__":
            yield path, _COMPILED
        else:
            yield from _contents(folder, but, path)
