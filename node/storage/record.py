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
from typing import BinaryIO

from node.errors import StorageFailure

BLOCK_BYTES = 4096
_MAGIC = b"ANODEREC"
_FORMAT = 1
# magic, format, length of the description, record bytes, data set bytes, SHA-256
_FIXED = struct.Struct(">8sHHQQ32s")
_CHECKSUM = struct.Struct(">I")
# what ``json.dumps`` makes of a text, without the way to it
_as_json = json.encoder.encode_basestring_ascii


@dataclass(frozen=True)
class Life:
    """One life of a segment: its number, and the random key that all in it is bound to."""

    number: int
    key: bytes


@dataclass(frozen=True)
class Head:
    """What the head of a record says; ``provenance`` is kept as the text that it was given as.

    ``continued_in`` is the segment in which the data set goes on, where the one with the head ends
    before it does.
    """

    data_set_bytes: int
    data_set_sha256: str
    transfer_syntax_uid: str
    provenance: str
    continued_in: Life | None = None

    @property
    def record_bytes(self) -> int:
        """Bytes that the record takes, head included, in whole blocks."""
        return record_bytes(self.data_set_bytes)

    def encode(self, key: bytes) -> bytes:
        """Encode as one block for the segment life ``key``.

        Raises StorageFailure when the provenance does not fit in a block.
        """
        # By hand: this is called for each instance, and the encoder of a whole object is slow.
        facts = f'"transfer_syntax_uid": {_as_json(self.transfer_syntax_uid)}'
        if self.continued_in is not None:
            facts += f', "continued_in": [{self.continued_in.number}, "{self.continued_in.key.hex()}"]'
        description = f'{{{facts}, "provenance": {_as_json(self.provenance)}}}'.encode("ascii")
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


def may_begin(blocks: bytes, offset: int) -> bool:
    """Whether what lies at byte ``offset`` looks like a head at first sight."""
    return blocks.startswith(_MAGIC, offset)


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
    continued_in = description.get("continued_in")
    return Head(
        data_set_bytes=data_set_bytes,
        data_set_sha256=digest.hex(),
        transfer_syntax_uid=description["transfer_syntax_uid"],
        provenance=description["provenance"],
        continued_in=Life(continued_in[0], bytes.fromhex(continued_in[1])) if continued_in else None,
    )


def is_intact(data_set: BinaryIO, head: Head) -> bool:
    """Whether ``data_set`` is what ``head`` promises, by its digest."""
    digest = hashlib.sha256()
    while chunk := data_set.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest() == head.data_set_sha256
