"""Finds what is to be imported, in files and folders of any kind.

Plain folders and Orthanc's storage hold DICOM files of whatever name; a data directory or a backup of
an anode holds settled files and the segments of a receive log; a DICOMDIR names files beside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from node.errors import AnodeError, MalformedDataSet, StorageFailure
from node.importing.sources import AnyFile, LogRecord, SettledFile, Source
from node.sending import dicom_files
from node.storage import archive
from node.storage.held_log import HeldLog
from node.storage.segment import SUFFIX, is_segment
from node.undecodable import UNDECODABLE

_DICOMDIR = "DICOMDIR"
_SEPARATOR = "\\"  # of the components of a File ID (PS3.10 section 8.2)
_QUARANTINE = "quarantine"


@dataclass(frozen=True)
class PassedOver:
    """What is not imported, and why; ``is_dicom`` where it should have been."""

    where: str
    reason: str
    is_dicom: bool


NOT_DICOM = "not DICOM"
NO_FILE = "no regular file"
IN_QUARANTINE = "in quarantine there"
LINKED_FOLDER = "a link to a folder, which is not followed: name the folder itself"


def find(paths: Sequence[Path]) -> Iterator[Source | PassedOver]:
    """Yield what there is at ``paths``, folders in the order of their names.

    A source of a receive log is to be used before the next one is asked for.
    """
    for path in paths:
        if path.is_dir():
            yield from _in_folder(path)
        elif path.name.upper() == _DICOMDIR and path.is_file():
            yield from _named_by(path)
        else:
            yield _file(path, is_named=True)


def _in_folder(top: Path) -> Iterator[Source | PassedOver]:
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(top, onerror=unreadable.append):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # not followed, as a link may lead in a circle; what lies behind it is named by who wants it
        linked = [name for name in folders if (here / name).is_symlink()]
        yield from (PassedOver(str(here / name), LINKED_FOLDER, is_dicom=True) for name in linked)
        segments = {name for name in names if is_segment(here / name) and (here / name).is_file()}
        if segments:
            yield from _in_log(here)
        for name in sorted(names):
            if name.startswith(".") or name in segments:
                continue
            if name.upper() == _DICOMDIR and (here / name).is_file():
                # what it names lies here as well, and is found by itself
                yield from (found for found in _named_by(here / name) if isinstance(found, PassedOver))
            else:
                yield _file(here / name, is_named=here == top)
    for error in unreadable:
        yield PassedOver(str(error.filename), f"cannot be read: {error.strerror}", is_dicom=True)


def _file(path: Path, *, is_named: bool) -> Source | PassedOver:
    """One file; ``is_named`` where a person named it, or the folder that it lies in."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return PassedOver(str(path), NO_FILE, is_dicom=False)  # to open a pipe waits for ever
        file = dicom_files.read(path)
        if not _is_settled_file(path):
            return AnyFile(file)
        if path.parent.name == _QUARANTINE and not is_named:
            return PassedOver(str(path), IN_QUARANTINE, is_dicom=False)
        return SettledFile(file, archive.read_private(path))
    except dicom_files.NotDicom:
        return PassedOver(str(path), NOT_DICOM, is_dicom=False)
    except AnodeError as error:
        return PassedOver(str(path), str(error), is_dicom=True)
    except OSError as error:
        return PassedOver(str(path), f"cannot be read: {error.strerror}", is_dicom=True)


def _is_settled_file(path: Path) -> bool:
    try:
        creator = read_file_meta_info(path).get("PrivateInformationCreatorUID", "")
    except (OSError, *UNDECODABLE):
        return False  # what can be made of it is said when it is read
    return str(creator) == archive.PRIVATE_INFORMATION_CREATOR_UID


def _in_log(folder: Path) -> Iterator[Source | PassedOver]:
    """What lies in the segments of a receive log; what was settled lately is still there as well."""
    with HeldLog(folder) as log:
        log.hold()
        problems: list[PassedOver] = []

        def report(segment: str, problem: str) -> None:
            reason = f"not all of it can be read: {problem}"
            problems.append(PassedOver(f"{folder / segment}{SUFFIX}", reason, is_dicom=True))

        for name in sorted(log.names):
            records = log.records(name, report)
            yield from problems
            problems.clear()
            for location, head in records:
                where = f"{folder / name}{SUFFIX} at {location.offset}"
                try:
                    yield LogRecord(log, location, head, where)
                except (AnodeError, OSError) as error:
                    yield PassedOver(where, f"a record cannot be read: {error}", is_dicom=True)


# --- DICOMDIR ----------------------------------------------------------------


def _named_by(path: Path) -> Iterator[Source | PassedOver]:
    """What the records of a DICOMDIR name (PS3.3 annex F), and what of it is missing."""
    try:
        named = _referenced(path)
    except (MalformedDataSet, StorageFailure) as error:
        yield PassedOver(str(path), str(error), is_dicom=True)
        return
    for components in named:
        if not all(map(_is_component, components)):
            where = f"{path}: {_SEPARATOR.join(components)!r}"
            yield PassedOver(where, f"the {_DICOMDIR} names it, which is no file beside it", is_dicom=True)
        elif (found := _beside(path.parent, components)) is None:
            where = str(path.parent.joinpath(*components))
            yield PassedOver(where, f"the {_DICOMDIR} names it, and it is not there", is_dicom=True)
        else:
            yield _file(found, is_named=True)


def _referenced(path: Path) -> list[tuple[str, ...]]:
    """The Referenced File IDs (0004,1500) of a DICOMDIR, each once, as their components."""
    try:
        directory = dcmread(path)
        file_ids = [
            record.get("ReferencedFileID") for record in directory.get("DirectoryRecordSequence") or []
        ]
    except OSError as error:
        raise StorageFailure(f"cannot be read: {error.strerror}") from error
    except UNDECODABLE as error:
        raise MalformedDataSet(f"no DICOMDIR that can be read: {error}") from error
    found: dict[tuple[str, ...], None] = {}
    for file_id in file_ids:
        components = (file_id,) if isinstance(file_id, str) else tuple(map(str, file_id or ()))
        if components:
            found[components] = None
    return list(found)


def _is_component(name: str) -> bool:
    """Whether a component of a File ID can be the name of a file or folder."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _beside(folder: Path, components: Sequence[str]) -> Path | None:
    """Find a file by its components, however the medium shows capitals and versions ("IM0001;1")."""
    here = folder
    for component in components:
        try:
            if (here / component).exists():
                here /= component
                continue
            names = [name for name in os.listdir(here) if _plain(name) == _plain(component)]
        except OSError:  # its name may be longer than any can be
            return None
        if not names:
            return None
        here /= names[0]
    return here if here.is_file() else None


def _plain(name: str) -> str:
    return name.partition(";")[0].rstrip(".").casefold()
