"""DICOM files of others, as they lie in folders: what C-STORE has to know of each (PS3.10 section 7)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.errors import LimitExceeded, MalformedDataSet
from node.ingest.elements import PIXEL_DATA_TAGS, Element, ElementWalk
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, walk
from node.storage.window import LastingWindow

MEDIA_STORAGE_DIRECTORY_UID = "1.2.840.10008.1.3.10"

_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
#: Of a data set alone: by the group that it begins with, and whether it has VRs.
_BARE = {
    (b"\x08\0", False): str(ImplicitVRLittleEndian),
    (b"\x08\0", True): str(ExplicitVRLittleEndian),
    (b"\0\x08", True): str(ExplicitVRBigEndian),
}
_START_BYTES = 1 << 16
_MOST_UID_BYTES = 64
#: Of what may still be meant as a UID.
_LONGEST_VALUE = 256
_MAX_DEPTH = 64


@dataclass(frozen=True)
class DicomFile:
    """One Part 10 file, whose data set begins at ``data_set_offset``, or a data set alone."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    data_set_bytes: int


class NotDicom(MalformedDataSet):
    """The file is no DICOM file at all, or a DICOMDIR: it holds no SOP instance to send."""


def find(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files among ``paths`` and, in the order of their names, those in the folders below.

    Hidden files and folders below a named one are passed over, links to folders not followed. A folder
    that cannot be looked into is yielded itself, so that who reads it hears of it.
    """
    unreadable: list[OSError] = []
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, files in os.walk(path, onerror=unreadable.append):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))
    yield from (Path(error.filename) for error in unreadable)


def read(path: Path) -> DicomFile:
    """Read the little that C-STORE needs; the pixels are not touched.

    The SOP Class and Instance UID are those of the data set, which the receiver compares with the
    command; File Meta Information may be wrong about them, and counts only where they are absent.

    Raises
    ------
    NotDicom
        When there is neither "DICM" where PS3.10 section 7.1 wants it nor a data set from the first byte on,
        or the file is a DICOMDIR.
    MalformedDataSet
        When the file cannot be read, is cut short, or lacks a UID.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise MalformedDataSet(f"cannot be read: {error.strerror}") from error
    except LimitExceeded as error:
        raise MalformedDataSet(str(error)) from error


def uids_of(file: BinaryIO, transfer_syntax_uid: str) -> dict[int, str]:
    """Read SOP Class UID and SOP Instance UID of the data set at which ``file`` stands, by their tags.

    Raises MalformedDataSet when it cannot be read so far.
    """
    start = file.read(_START_BYTES)
    if transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES:
        try:
            start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, _START_BYTES)
        except zlib.error as error:
            raise MalformedDataSet("the deflated data set is damaged") from error
    uids = {}
    # the length is that of no end in sight: what is cut off here is not cut off in the file
    elements = walk(io.BytesIO(start), transfer_syntax_uid, max_depth=_MAX_DEPTH, length=1 << 62)
    for element in elements.elements():
        if element.tag > SOP_INSTANCE_UID or element.end > elements.readable:
            break
        if element.tag in (SOP_CLASS_UID, SOP_INSTANCE_UID):
            uids[element.tag] = _uid(elements.value(element))
    return uids


def open_data_set(file: DicomFile) -> BinaryIO:
    """Open the data set alone, as a file of its own; raises OSError when the file is gone."""
    opened = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    return LastingWindow(opened, file.data_set_offset, file.data_set_bytes, owns_file=True)


def _read(path: Path, file: BinaryIO) -> DicomFile:
    start = file.read(132)
    if start[128:] != b"DICM":
        file.seek(0)
        if start[:2] != b"\2\0" or not _is_vr(start[4:6]):  # else the preamble alone is missing
            return _bare(path, file, start)
    meta = _file_meta(file)
    transfer_syntax_uid = _uid(meta.get(0x0010, b""))
    if _uid(meta.get(0x0002, b"")) == MEDIA_STORAGE_DIRECTORY_UID:
        raise NotDicom("a DICOMDIR, which is not sent")
    if not transfer_syntax_uid:
        raise MalformedDataSet("the File Meta Information names no transfer syntax")
    offset = file.tell()
    data_set_bytes = os.fstat(file.fileno()).st_size - offset
    # A data set that cannot be read is for its receiver to judge, if it is known at least what it is.
    uids = {SOP_CLASS_UID: _uid(meta.get(0x0002, b"")), SOP_INSTANCE_UID: _uid(meta.get(0x0003, b""))}
    try:
        uids |= uids_of(file, transfer_syntax_uid)
    except MalformedDataSet:
        if not all(uids.values()):
            raise
    if not _can_be_sent(uids):
        raise MalformedDataSet("it has no SOP Class UID or no SOP Instance UID, or one that is none")
    return DicomFile(
        path, uids[SOP_CLASS_UID], uids[SOP_INSTANCE_UID], transfer_syntax_uid, offset, data_set_bytes
    )


def _bare(path: Path, file: BinaryIO, start: bytes) -> DicomFile:
    """Read a file that is a data set and nothing else, as old archives have them; it is walked to its end."""
    transfer_syntax_uid = _BARE.get((start[:2], _is_vr(start[4:6])))
    if transfer_syntax_uid is None:
        raise NotDicom("not a DICOM file")
    elements = walk(file, transfer_syntax_uid, max_depth=_MAX_DEPTH)
    every = elements.elements()
    try:
        uids = _leading_uids(elements, every)
    except (LimitExceeded, MalformedDataSet):
        uids = {}
    if not _can_be_sent(uids):
        raise NotDicom("not a DICOM file")
    if any(element.tag in PIXEL_DATA_TAGS and element.is_undefined for element in every):
        raise MalformedDataSet("no File Meta Information says how its pixels are compressed")
    return DicomFile(
        path, uids[SOP_CLASS_UID], uids[SOP_INSTANCE_UID], transfer_syntax_uid, 0, elements.length
    )


def _leading_uids(elements: ElementWalk, every: Iterator[Element]) -> dict[int, str]:
    """SOP Class and Instance UID, as far as elements in the order of their tags lead to them."""
    uids: dict[int, str] = {}
    before = -1
    for element in every:
        if not before < element.tag <= SOP_INSTANCE_UID:
            break
        before = element.tag
        if before in (SOP_CLASS_UID, SOP_INSTANCE_UID) and element.length <= _LONGEST_VALUE:
            uids[before] = _uid(elements.value(element))
        if before == SOP_INSTANCE_UID:
            break
    return uids


def _file_meta(file: BinaryIO) -> dict[int, bytes]:
    """Read group 0002 by element number and leave ``file`` at the data set.

    Goes from element to element: the group length is missing or wrong in too many files.
    """
    elements: dict[int, bytes] = {}
    while True:
        start = file.read(8)
        if len(start) < 8 or start[:2] != b"\2\0":
            file.seek(-len(start), os.SEEK_CUR)
            return elements
        number, length = struct.unpack("<2xH2xH", start)
        if start[4:6] in _LONG_VRS:
            length = int.from_bytes(file.read(4), "little")
        value = file.read(length)
        if len(value) < length or not start[4:6].isupper():
            raise MalformedDataSet("the File Meta Information is damaged or cut short")
        elements[number] = value


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _can_be_sent(uids: dict[int, str]) -> bool:
    """Whether both are there and can be encoded; what is in them is for the receiver to judge."""
    sop_class_uid, sop_instance_uid = uids.get(SOP_CLASS_UID, ""), uids.get(SOP_INSTANCE_UID, "")
    is_text = sop_class_uid.isascii() and sop_instance_uid.isascii()
    return is_text and bool(sop_instance_uid) and 0 < len(sop_class_uid) <= _MOST_UID_BYTES


def _is_vr(encoded: bytes) -> bool:
    return encoded.isalpha() and encoded.isupper()
