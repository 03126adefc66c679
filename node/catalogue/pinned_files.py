"""The files of a model folder, each pinned by its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 1024 * 1024
_CODE = {".py", ".pyc", ".so", ".sh", ".json", ".yaml", ".yml"}


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


def joint_digest(files: Sequence[PinnedFile]) -> str:
    """SHA-256 (hex) of the paths and digests of all files, in the order of the paths; empty without any."""
    if not files:
        return ""
    lines = sorted(f"{one.path}\0{one.sha256}\n" for one in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def faults(folder: Path, files: Sequence[PinnedFile]) -> list[str]:
    """Say which files are missing, are no files of the folder, or are not those that were pinned."""
    found = []
    root = folder.resolve()
    for one in files:
        path = folder / one.path
        try:
            is_inside = path.resolve(strict=True).is_relative_to(root)
            digest = digest_of(path) if is_inside else ""
        except FileNotFoundError:
            install = f"; 'anode models install {folder}' fetches it" if one.source else ""
            found.append(f"{path} is missing{install}")
            continue
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
            continue
        if not is_inside:
            found.append(f"{path} leads out of the folder")
        elif digest != one.sha256:
            found.append(
                f"{path} has the SHA-256 {digest}, not {one.sha256} as analysis.toml says; put the file "
                "back that was meant, or pin this one if it is right"
            )
    return found


def unpinned_code(folder: Path, files: Sequence[PinnedFile]) -> list[str]:
    """Say which files of a folder may be run, or steer what is run, and are not pinned."""
    pinned = {one.path for one in files}
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        is_code = path.suffix in _CODE and path.is_file() and "__pycache__" not in path.parts
        if is_code and relative not in pinned:
            found.append(f"{path} is not pinned; add its path and sha256 to analysis.toml, or remove it")
    return found


def stanza(folder: Path, *, but: Collection[str] = ()) -> str:
    """Return the ``[[runner.files]]`` tables that pin every file of a folder as it is now, ``but`` those."""
    tables = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "analysis.toml" or "__pycache__" in path.parts:
            continue
        relative = path.relative_to(folder).as_posix()
        if relative not in but:
            shown = json.dumps(relative)
            tables.append(f'\n[[runner.files]]\npath = {shown}\nsha256 = "{digest_of(path)}"\n')
    return "".join(tables)
