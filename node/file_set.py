"""A study as files that any DICOM software reads: a File-set with its DICOMDIR (PS3.10 section 8).

The data sets are written byte for byte, as they were received or as they are stored. pydicom makes
the directory and the names, of a copy of each header. What a directory must say (PS3.3 annex F) and a
header does not is made up for the directory alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.fileset import DIRECTORY_RECORDERS, FileInstance, FileSet, RecordNode
from pydicom.uid import UID, ExplicitVRLittleEndian

from node import instance_file
from node.errors import AnodeError, WrongUsage
from node.index.index import StoredInstance
from node.storage import disk
from node.storage.storage import Storage
from node.undecodable import UNDECODABLE, UNDECODABLE_IN_MEMORY

_FILE_SET_ID = "ANODE"
# A directory quotes short texts alone; a document that is large is known by being there.
_LONGEST_QUOTED_BYTES = 64 * 1024
_QUOTED_SEQUENCES = frozenset(
    {
        *("ConceptNameCodeSequence", "ContentSequence", "ReferencedSeriesSequence", "BlendingSequence"),
        *("HangingProtocolDefinitionSequence", "HangingProtocolUserIdentificationCodeSequence"),
        *("ReferencedImageEvidenceSequence", "ReferencedInstanceSequence"),
    }
)


@dataclass(frozen=True)
class Written:
    """What was written; ``problems`` are those of instances that could not be, by SOP Instance UID."""

    instances: int
    total_bytes: int
    problems: tuple[tuple[str, str], ...]


def write(
    storage: Storage,
    instances: Sequence[StoredInstance],
    folder: Path,
    *,
    as_stored: bool,
    look_up: Callable[[str], StoredInstance | None],
    progress: Callable[[int], object] = lambda _: None,
) -> Written:
    """Write instances to ``folder``, which is there when all of it is, and not before.

    Parameters
    ----------
    storage : Storage
        Where their bytes are. All of a data set is checked before any of it is written.
    instances : sequence of StoredInstance
        Their rows.
    folder : Path
        Absent or empty; nothing is ever overwritten.
    as_stored : bool
        In the transfer syntax in which they are stored, rather than received.
    look_up : callable
        Gives the present row of an instance that was settled meanwhile.
    progress : callable
        Told how many instances were written since it was told last.

    Raises
    ------
    WrongUsage
        The folder is not empty.
    StorageFailure, OutOfSpace
        It cannot be written. Nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongUsage(f"{folder} is there already", action="name a folder that is absent or empty")
    disk.make_directory(folder.absolute().parent)
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        raise disk.failure(error, f"making a folder beside {folder}") from error
    try:
        with _directory(place) as directory:
            written = _write(directory, storage, instances, place, as_stored, look_up, progress)
        if written.instances:
            _sync(place)
            place.rename(folder)
            disk.sync_directory(folder.absolute().parent)
    except OSError as error:
        raise disk.failure(error, f"writing {folder}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return written


@contextmanager
def _directory(place: Path) -> Iterator[FileSet]:
    """Make an empty directory whose headers, which name patients, wait in ``place`` and nowhere else."""
    before, tempfile.tempdir = tempfile.tempdir, str(place)
    try:
        directory = FileSet()
    finally:
        tempfile.tempdir = before
    try:
        directory.ID = _FILE_SET_ID
        yield directory
    finally:
        directory._stage["t"].cleanup()  # pydicom leaves it to the garbage collector


def _write(
    directory: FileSet,
    storage: Storage,
    instances: Sequence[StoredInstance],
    place: Path,
    as_stored: bool,
    look_up: Callable[[str], StoredInstance | None],
    progress: Callable[[int], object],
) -> Written:
    files: dict[str, Path] = {}
    problems: list[tuple[str, str]] = []
    for number, stored in enumerate(instances):
        path = place / f"{number}.part"
        try:
            instance_file.write(storage, stored, path, look_up=look_up, as_stored=as_stored)
        except AnodeError as error:
            problems.append((stored.sop_instance_uid, str(error)))
        else:
            _add(directory, path, stored, number)
            files[stored.sop_instance_uid] = path
        progress(1)
    if files:
        directory.write(place)
        for instance in directory:
            files[instance.SOPInstanceUID].replace(instance.path)
    total_bytes = sum(Path(instance.path).stat().st_size for instance in directory)
    return Written(len(files), total_bytes, tuple(problems))


def _sync(place: Path) -> None:
    """Make names, and the directory, durable."""
    with (place / "DICOMDIR").open("rb") as file:
        disk.sync_data(file.fileno())
    for folder, _, _ in os.walk(place):
        disk.sync_directory(Path(folder))


# --- the directory -----------------------------------------------------------


def _add(directory: FileSet, path: Path, stored: StoredInstance, number: int) -> None:
    """Add an instance to the directory: by what its header says, or by the little that it must say."""
    quoted = _quoted(path, stored, number)
    try:
        instance = directory.add(quoted)
    except UNDECODABLE:
        instance = _add_as_image(directory, quoted, stored, number)
    syntax = dcmread(path, specific_tags=[]).file_meta.TransferSyntaxUID
    instance["ReferencedTransferSyntaxUIDInFile"].value = UID(syntax)


def _quoted(path: Path, stored: StoredInstance, number: int) -> Dataset:
    """What the directory may quote of a header, as a data set of its own."""
    quoted = _bare(stored, number)
    made_up = {element.keyword for element in quoted}
    try:
        header = dcmread(path, stop_before_pixels=True, defer_size=_LONGEST_QUOTED_BYTES)
    except UNDECODABLE:
        return quoted
    try:
        for tag in sorted(header.keys()):
            raw = header.get_item(tag)
            if isinstance(raw, RawDataElement) and raw.length > _LONGEST_QUOTED_BYTES:
                continue
            element = header[tag]
            is_quoted = element.VR != "SQ" or element.keyword in _QUOTED_SEQUENCES
            is_made_up_better = element.keyword in made_up and element.is_empty
            if not tag.is_private and is_quoted and not is_made_up_better and tag.group != 0x7FE0:
                quoted.add(element)
        if "EncapsulatedDocument" in header:
            quoted.EncapsulatedDocument = b"\0\0"
    except UNDECODABLE_IN_MEMORY:
        return _bare(stored, number)
    quoted.file_meta = instance_file.file_meta(stored, ExplicitVRLittleEndian)
    return quoted


def _bare(stored: StoredInstance, number: int) -> Dataset:
    """What a directory must say of an instance (PS3.3 section F.5, Type 1), where its header does not."""
    data_set = Dataset()
    data_set.SOPClassUID = stored.sop_class_uid
    data_set.SOPInstanceUID = stored.sop_instance_uid
    data_set.StudyInstanceUID = stored.study_instance_uid
    data_set.SeriesInstanceUID = stored.series_instance_uid
    data_set.PatientID = "UNKNOWN"
    data_set.StudyDate = data_set.ContentDate = "19000101"
    data_set.StudyTime = data_set.ContentTime = "000000"
    data_set.StudyID = "0"
    data_set.Modality = "OT"
    data_set.SeriesNumber = 0
    data_set.InstanceNumber = number + 1
    data_set.file_meta = instance_file.file_meta(stored, ExplicitVRLittleEndian)
    return data_set


def _add_as_image(directory: FileSet, quoted: Dataset, stored: StoredInstance, number: int) -> FileInstance:
    """Add an instance that lacks what its kind of record must say: as an image, which need say least."""
    try:
        return directory.add_custom(_bare(stored, number), _image_record(quoted))
    except UNDECODABLE:
        bare = _bare(stored, number)
        return directory.add_custom(bare, _image_record(bare))


def _image_record(data_set: Dataset) -> RecordNode:
    node: RecordNode | None = None
    for record_type in ("PATIENT", "STUDY", "SERIES", "IMAGE"):
        record = DIRECTORY_RECORDERS[record_type](data_set)
        record.DirectoryRecordType = record_type
        if record_type == "IMAGE":
            record.ReferencedSOPInstanceUIDInFile = data_set.SOPInstanceUID
        elif "SpecificCharacterSet" in data_set:
            record.SpecificCharacterSet = data_set.SpecificCharacterSet
        child = RecordNode(record)
        if node is not None:
            child.parent = node
        node = child
    assert node is not None
    return node
