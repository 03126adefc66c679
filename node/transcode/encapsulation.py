"""Encapsulated Pixel Data with one fragment for each frame (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from node.errors import IntegrityFailure
from node.ingest.elements import ITEM, SEQUENCE_DELIMITATION, UNDEFINED_LENGTH

_ITEM_HEAD = struct.Struct("<HHL")
#: Offsets in the Basic Offset Table, and the length of an item, are of 32 bits.
LARGEST_BASIC_OFFSET = 0xFFFFFFFF
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
#: With that of the frames' concatenation, all elements that stand beside encapsulated pixels alone.
EXTENDED_OFFSET_TABLES = (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, 0x7FE00003)
_PIXEL_DATA_HEAD = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED_LENGTH)
END_OF_PIXEL_DATA = _ITEM_HEAD.pack(SEQUENCE_DELIMITATION >> 16, SEQUENCE_DELIMITATION & 0xFFFF, 0)


def fragment(encoded: bytes) -> bytes:
    """Item of one frame, padded to an even length."""
    padding = b"\0" * (len(encoded) % 2)
    head = _ITEM_HEAD.pack(ITEM >> 16, ITEM & 0xFFFF, len(encoded) + len(padding))
    return head + encoded + padding


class OffsetTables:
    """Where the frames begin, for either table.

    Parameters
    ----------
    fragment_lengths : sequence of int
        Bytes of each frame's fragment, padding included, without its item header.
    """

    def __init__(self, fragment_lengths: Sequence[int]) -> None:
        self._lengths = fragment_lengths
        self._offsets = []
        offset = 0
        for length in fragment_lengths:
            self._offsets.append(offset)
            offset += 8 + length

    @property
    def is_extended(self) -> bool:
        """Whether the Basic Offset Table cannot hold the offsets (PS3.5 section A.4)."""
        return (
            bool(self._offsets) and max(self._offsets[-1], 4 * len(self._offsets)) > LARGEST_BASIC_OFFSET - 1
        )

    def elements(self) -> dict[int, tuple[str, bytes]]:
        """Extended Offset Table and Extended Offset Table Lengths, where they are needed."""
        if not self.is_extended:
            return {}
        count = len(self._offsets)
        return {
            EXTENDED_OFFSET_TABLE: ("OV", struct.pack(f"<{count}Q", *self._offsets)),
            EXTENDED_OFFSET_TABLE_LENGTHS: ("OV", struct.pack(f"<{count}Q", *self._lengths)),
        }

    def start_of_pixel_data(self) -> bytes:
        """Head of the element Pixel Data (Explicit VR Little Endian) and the Basic Offset Table."""
        table = b"" if self.is_extended else struct.pack(f"<{len(self._offsets)}L", *self._offsets)
        return _PIXEL_DATA_HEAD + _ITEM_HEAD.pack(ITEM >> 16, ITEM & 0xFFFF, len(table)) + table


def fragments(file: BinaryIO) -> Iterator[bytes]:
    """Yield the fragments of frames from the present position up to the Sequence Delimitation Item.

    Raises IntegrityFailure when something else stands there.
    """
    while True:
        head = file.read(8)
        if head == END_OF_PIXEL_DATA:
            return
        if len(head) < 8 or head[:4] != b"\xfe\xff\x00\xe0":
            raise IntegrityFailure("the stored frames are damaged")
        length = struct.unpack_from("<L", head, 4)[0]
        encoded = file.read(length)
        if len(encoded) < length:
            raise IntegrityFailure("the stored frames are cut short")
        yield encoded
