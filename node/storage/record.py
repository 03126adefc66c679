"""One record of the receive log: a head of one block, then the data set.

The head is written last and carries a checksum, the key of the segment's present life and the
digest of the data set. So a record exists only when all of it is there: half a head, a head over
bytes that never arrived, and a head left from an earlier life of the segment (or sent by a peer
inside a data set) are all seen for what they are.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass

from node.errors import StorageFailure
from node.storage import disk

BLOCK_BYTES = 4096
_MAGIC = b"ANODEREC"
_FORMAT = 1
# magic, format, length of the description, record bytes, data set bytes, SHA-256
_FIXED = struct.Struct(">8sHHQQ32s")
_CHECKSUM = struct.Struct(">I")


@dataclass(frozen=True)
class Head:
    """What the head of a record says; ``provenance`` is kept as the text that it was given as."""

    data_set_bytes: int
    data_set_sha256: str
    transfer_syntax_uid: str
    provenance: str

    @property
    def record_bytes(self) -> int:
        """Bytes that the record takes in its segment, head included, in whole blocks."""
        return record_bytes(self.data_set_bytes)

    def encode(self, key: bytes) -> bytes:
        """Encode as one block for the segment life ``key``.

        Raises StorageFailure when the provenance does not fit in a block.
        """
        description = json.dumps(
            {"transfer_syntax_uid": self.transfer_syntax_uid, "provenance": self.provenance}
        ).encode()
        fixed = _FIXED.pack(
            _MAGIC,
            _FORMAT,
            len(description) & 0xFFFF,
            self.record_bytes,
            self.data_set_bytes,
            bytes.fromhex(self.data_set_sha256),
        )
        head = fixed + description
        head += _CHECKSUM.pack(zlib.crc32(head, zlib.crc32(key)))
        if len(head) > BLOCK_BYTES:
            raise StorageFailure("the description of a record is longer than its block")
        return head.ljust(BLOCK_BYTES, b"\0")


def record_bytes(data_set_bytes: int) -> int:
    """Bytes that a record with such a data set takes, rounded up to whole blocks."""
    return BLOCK_BYTES + -(-data_set_bytes // BLOCK_BYTES) * BLOCK_BYTES


def decode(block: bytes, key: bytes) -> Head | None:
    """Read a head; None when there is none, it is torn, or it is of another segment life."""
    if len(block) < BLOCK_BYTES or not block.startswith(_MAGIC):
        return None
    _, version, length, _, data_set_bytes, digest = _FIXED.unpack_from(block)
    end = _FIXED.size + length
    if version != _FORMAT or end + _CHECKSUM.size > BLOCK_BYTES:
        return None
    if _CHECKSUM.unpack_from(block, end)[0] != zlib.crc32(block[:end], zlib.crc32(key)):
        return None
    description = json.loads(block[_FIXED.size : end])
    return Head(
        data_set_bytes=data_set_bytes,
        data_set_sha256=digest.hex(),
        transfer_syntax_uid=description["transfer_syntax_uid"],
        provenance=description["provenance"],
    )


def is_intact(file: int, offset: int, head: Head) -> bool:
    """Whether the data set at byte ``offset`` of ``file`` has the digest that ``head`` promises."""
    digest = hashlib.sha256()
    end = offset + head.data_set_bytes
    while offset < end:
        chunk = disk.read_at(file, min(1 << 20, end - offset), offset)
        if not chunk:
            return False
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest() == head.data_set_sha256
