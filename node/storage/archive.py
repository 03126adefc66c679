"""Settled instances: one Part 10 file each, which carries its own proof and provenance.

The File Meta Information (PS3.10 section 7.1) holds, as Private Information (0002,0102), what
cannot be told from the data set: how it was received, how it is stored, and the received bytes
that the stored form cannot give back. So the index can be rebuilt from these files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from node.errors import IntegrityFailure, StorageFailure
from node.storage import disk

if TYPE_CHECKING:
    from node.index.index import Provenance

IMPLEMENTATION_CLASS_UID = "2.25.215843967812440128764190452351470921543"
IMPLEMENTATION_VERSION_NAME = "ANODE_0_1"
PRIVATE_INFORMATION_CREATOR_UID = "2.25.118503772954216044829361170583246617201"
QUARANTINE = "quarantine"
_REPLACED = "replaced"
#: What lies there is not, not yet or no more in the place of an instance.
_APART = frozenset({QUARANTINE, _REPLACED, "partial"})
#: Hexadecimal digits of a folder's name: 4,096 folders, which hold some thousand files each of ten million.
FOLDER_DIGITS = 3

_PREAMBLE = b"\0" * 128 + b"DICM"
# A proof is some kilobytes, but for what is in it of a long header, which is compressed already.
_LONGEST_PROOF_BYTES = 64 << 20
_MOST_GROWTH = 4

_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHL")


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode element (0002,``number``) as Explicit VR Little Endian (PS3.5 section 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    if vr in _LONG_VRS:
        return _LONG.pack(2, number, vr, 0, len(value)) + value
    return _SHORT.pack(2, number, vr, len(value)) + value


def part10(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    private: Mapping[str, Any],
    provenance: Provenance | None = None,
) -> bytes:
    """Preamble and File Meta Information of an archive file; the data set follows it.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        Of the data set that follows.
    private : mapping
        What ``read_private`` gives back; of JSON types.
    provenance : Provenance or None
        Gives Source, Sending and Receiving Application Entity Title (0002,0016), (0002,0017)
        and (0002,0018).

    Returns
    -------
    bytes
        The same for the same arguments.
    """
    elements = [
        _element(0x0001, b"OB", b"\0\1"),
        _element(0x0002, b"UI", sop_class_uid.encode("ascii")),
        _element(0x0003, b"UI", sop_instance_uid.encode("ascii")),
        _element(0x0010, b"UI", transfer_syntax_uid.encode("ascii")),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    if provenance is not None:
        calling = provenance.calling_ae_title.encode("ascii", "replace")
        called = provenance.called_ae_title.encode("ascii", "replace")
        elements.append(_element(0x0016, b"AE", calling))
        elements.append(_element(0x0017, b"AE", calling))
        elements.append(_element(0x0018, b"AE", called))
    text = json.dumps(private, sort_keys=True, separators=(",", ":")).encode()
    elements.append(_element(0x0100, b"UI", PRIVATE_INFORMATION_CREATOR_UID.encode("ascii")))
    # The value is one length word and then the compressed text, so that padding cannot confuse it.
    packed = zlib.compress(text, 6)
    elements.append(_element(0x0102, b"OB", struct.pack("<L", len(packed)) + packed))
    body = b"".join(elements)
    return _PREAMBLE + _element(0x0000, b"UL", struct.pack("<L", len(body))) + body


def _file_meta(file: BinaryIO) -> tuple[dict[int, bytes], int]:
    """Elements of group 0002 by element number, and the offset at which the data set starts."""
    file.seek(0)
    start = file.read(144)
    if len(start) < 144 or start[128:132] != b"DICM" or start[132:140] != b"\2\0\0\0UL\4\0":
        raise IntegrityFailure("an archive file does not begin as PS3.10 section 7.1 says")
    length = struct.unpack_from("<L", start, 140)[0]
    body = file.read(length)
    if len(body) < length:
        raise IntegrityFailure("the file meta information of an archive file is cut short")
    elements: dict[int, bytes] = {}
    position = 0
    while position + 8 <= length:
        group, number, vr, size = _SHORT.unpack_from(body, position)
        position += 8
        if vr in _LONG_VRS:
            if position + 4 > length:
                break
            size = struct.unpack_from("<L", body, position)[0]
            position += 4
        if group != 2 or position + size > length:
            raise IntegrityFailure("the file meta information of an archive file is damaged")
        elements[number] = body[position : position + size]
        position += size
    return elements, 144 + length


def data_set_offset(file: BinaryIO) -> int:
    """Byte offset in a Part 10 file at which its data set starts (PS3.10 section 7.1).

    Raises IntegrityFailure when the file meta information is cut short or damaged.
    """
    return _file_meta(file)[1]


def transfer_syntax_uid(file: BinaryIO) -> str:
    """Transfer Syntax UID (0002,0010) of a Part 10 file, empty when it has none."""
    return _file_meta(file)[0].get(0x0010, b"").rstrip(b"\0 ").decode("ascii", "replace")


def read_private(path: Path) -> dict[str, Any]:
    """Read what ``part10`` was given as ``private``.

    Raises
    ------
    IntegrityFailure
        It is not there, or damaged.
    StorageFailure
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            elements, _ = _file_meta(file)
    except OSError as error:
        raise disk.failure(error, f"reading {path.name} of the archive") from error
    creator = elements.get(0x0100, b"").rstrip(b"\0 ").decode("ascii", "replace")
    value = elements.get(0x0102, b"")
    if creator != PRIVATE_INFORMATION_CREATOR_UID or len(value) < 4:
        raise IntegrityFailure("an archive file carries no proof of this node")
    length = struct.unpack_from("<L", value)[0]
    try:
        private = json.loads(_inflated(value[4 : 4 + length]))
    except (zlib.error, ValueError, RecursionError) as error:
        raise IntegrityFailure("the proof in an archive file is damaged") from error
    if not isinstance(private, dict):
        raise IntegrityFailure("the proof in an archive file is damaged")
    return private


def _inflated(packed: bytes) -> bytes:
    """Inflate a proof; raises ValueError where it is longer than any that was written, or cut short."""
    inflating = zlib.decompressobj()
    text = inflating.decompress(packed, _LONGEST_PROOF_BYTES + _MOST_GROWTH * len(packed))
    if not inflating.eof:
        raise ValueError("a proof without an end")
    return text


def files(archive: Path) -> Iterator[str]:
    """Yield the places of all files below the archive folder, those in quarantine last.

    Those that are where no node puts any are among them. Raises StorageFailure when a folder cannot be read.
    """
    for one in _names(archive):
        if one not in _APART:
            yield from _below(archive, one)
    yield from (f"{QUARANTINE}/{name}" for name in _names(archive / QUARANTINE, ".dcm"))


def _names(folder: Path, suffix: str = "") -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise disk.failure(error, f"reading the folder {folder.name} of the archive") from error


def _below(archive: Path, folder: str) -> Iterator[str]:
    for name in _names(archive / folder):
        place = f"{folder}/{name}"
        if name.endswith(".dcm"):
            yield place
        elif not (archive / place).is_symlink():  # which may lead in a circle
            yield from _below(archive, place)


def relative_path(sop_instance_uid: str) -> str:
    """Place of an instance below the archive folder; a hash, so no UID ever becomes a path."""
    name = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
    return f"{name[:FOLDER_DIGITS]}/{name}.dcm"


def quarantine_path(sop_instance_uid: str, data_set_sha256: str) -> str:
    """Place below the archive folder of content that conflicts with what is held."""
    name = hashlib.sha256(f"{sop_instance_uid} {data_set_sha256}".encode()).hexdigest()
    return f"{QUARANTINE}/{name}.dcm"


def set_aside_other(archive: Path, relative: str, data_set_sha256: str) -> None:
    """Keep a file that is in the place of an instance and is not an earlier copy of it.

    Nothing that the index knows lies there: it may be a file that a rebuild of the index could not read.
    It goes to the folder ``replaced``. Raises OutOfSpace or StorageFailure; it is where it was then.
    """
    target = archive / relative
    if not target.exists():
        return
    try:
        if read_private(target)["received"]["sha256"] == data_set_sha256:
            return
    except (IntegrityFailure, StorageFailure, KeyError, TypeError):
        pass  # who cannot be read may still be somebody
    aside = archive / _REPLACED / f"{target.stem}-{uuid.uuid4().hex[:8]}{target.suffix}"
    disk.make_directory(aside.parent, below=archive)
    try:
        target.rename(aside)
    except OSError as error:
        raise disk.failure(error, "setting an archive file aside") from error
    disk.sync_directory(aside.parent)
