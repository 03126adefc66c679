"""Encodes the elements of a data set anew, in Explicit or Implicit VR Little Endian.

No value is decoded: the bytes of each value stay as they are, but for the byte order of Big
Endian words. So what an element means cannot change, whatever is in it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.errors import MalformedDataSet, UnsupportedPixelData
from node.ingest.elements import (
    ITEM,
    PIXEL_DATA_TAGS,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Element,
    ElementWalk,
    tag_text,
    vr_of,
)
from node.ingest.header import is_implicit_vr

_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_WORD_BYTES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_PIXEL_REPRESENTATION = 0x00280103
_LONGEST_SHORT_VALUE = 0xFFFE

#: New elements by tag: (VR, value). An empty VR removes the element.
Changes = Mapping[int, tuple[str, bytes]]


def element_bytes(tag: int, vr: str, value: bytes, *, is_implicit: bool) -> bytes:
    """Encode one element, Little Endian (PS3.5 section 7.1)."""
    return element_head(tag, vr, len(value), is_implicit=is_implicit) + value


def element_head(tag: int, vr: str, length: int, *, is_implicit: bool) -> bytes:
    """Encode tag, VR and length, Little Endian."""
    if is_implicit:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)
    if vr not in _LONG_VRS:
        if length <= _LONGEST_SHORT_VALUE:
            return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)
        vr = "UN"  # PS3.5 section 6.2.2, note 1: too long for its own VR
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)


def recoded(
    walk: ElementWalk,
    elements: Iterable[Element],
    from_transfer_syntax_uid: str,
    to_transfer_syntax_uid: str,
    changes: Changes,
) -> bytes:
    """Encode ``elements`` in another uncompressed transfer syntax.

    Parameters
    ----------
    walk : ElementWalk
        Over the data set of the elements.
    elements : iterable of Element
        Some of its top-level elements, in their order.
    from_transfer_syntax_uid : str
        How they are encoded; any that is not deflated.
    to_transfer_syntax_uid : str
        Explicit or Implicit VR Little Endian.
    changes : mapping
        Elements that are set or removed. Group lengths of changed groups go away.

    Raises
    ------
    MalformedDataSet
        Something nested is not encoded as PS3.5 says.
    UnsupportedPixelData
        A nested image is compressed, which these transfer syntaxes cannot hold, or a value of
        unknown VR is in Big Endian order.
    """
    to_implicit = to_transfer_syntax_uid == ImplicitVRLittleEndian
    is_same_encoding = walk.is_little_endian and is_implicit_vr(from_transfer_syntax_uid) == to_implicit
    if is_same_encoding and from_transfer_syntax_uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        return _spliced(walk, elements, changes, to_implicit)
    return b"".join(_Recoder(walk, to_implicit).encode(elements, changes))


def _spliced(walk: ElementWalk, elements: Iterable[Element], changes: Changes, to_implicit: bool) -> bytes:
    """Copy the elements as they are, those beside each other in one piece."""
    changed_groups = {tag >> 16 for tag in changes}
    parts: list[bytes] = []
    start = end = 0
    for piece in _merged(elements, changes):
        if isinstance(piece, bytes):
            parts.append(piece)
        elif isinstance(piece, tuple) and not isinstance(piece, Element):
            tag, vr, value = piece
            parts.append(walk.read(start, end - start))
            start = end = 0
            parts.append(element_bytes(tag, vr, value, is_implicit=to_implicit))
        elif not (piece.tag & 0xFFFF == 0 and piece.tag >> 16 in changed_groups):
            if piece.offset != end:
                parts.append(walk.read(start, end - start))
                start = piece.offset
            end = piece.end
    parts.append(walk.read(start, end - start))
    return b"".join(parts)


def _merged(elements: Iterable[Element], changes: Changes) -> Iterator[Element | tuple[int, str, bytes]]:
    """Elements and changes in the order of their tags; a change takes the place of its element."""
    waiting = sorted(changes.items())
    for element in elements:
        while waiting and waiting[0][0] < element.tag:
            tag, (vr, value) = waiting.pop(0)
            if vr:
                yield tag, vr, value
        if element.tag not in changes:
            yield element
    for tag, (vr, value) in waiting:
        if vr:
            yield tag, vr, value


class _Recoder:
    """Encodes the elements of one data set or item anew."""

    def __init__(self, walk: ElementWalk, to_implicit: bool, *, is_signed: bool = False) -> None:
        self._walk = walk
        self._to_implicit = to_implicit
        self._is_signed = is_signed
        self._creators: dict[int, str] = {}

    def encode(self, elements: Iterable[Element], changes: Changes) -> Iterator[bytes]:
        for piece in _merged(elements, changes):
            if not isinstance(piece, Element):
                tag, vr, value = piece
                yield element_bytes(tag, vr, value, is_implicit=self._to_implicit)
            elif piece.tag & 0xFFFF:  # a group length would be wrong now
                yield self._element(piece)

    def _element(self, element: Element) -> bytes:
        tag = element.tag
        vr = self._named(element) if element.vr == "UN" else element.vr or self._looked_up(tag)
        if tag == _PIXEL_REPRESENTATION and element.length >= 2:
            words = "<u2" if self._walk.is_little_endian else ">u2"
            self._is_signed = int(np.frombuffer(self._walk.value(element), words, 1)[0]) == 1
        if element.is_undefined and (tag in PIXEL_DATA_TAGS or vr in ("OB", "OW")):
            raise UnsupportedPixelData(f"a nested image at {tag_text(tag)} is compressed")
        if element.is_undefined and element.vr == "UN":
            return self._unknown_sequence(element)
        if element.is_undefined or vr == "SQ":
            try:
                return self._sequence(element)
            except MalformedDataSet:
                if element.vr == "SQ" or element.is_undefined or not tag >> 16 & 1:
                    raise
                vr = "UN"  # a private element that is no sequence, whatever the dictionary says
        return self._plain(element, vr)

    def _plain(self, element: Element, vr: str | None) -> bytes:
        value = self._walk.value(element)
        if element.tag >> 16 & 1 and 0x10 <= element.tag & 0xFFFF <= 0xFF:
            self._creators[element.tag] = value.decode("latin-1").strip("\0 ")
        word_bytes = _WORD_BYTES.get(vr or "", 1)
        if element.vr is None and len(value) % word_bytes:
            vr, word_bytes = "UN", 1  # the dictionary is wrong about this one
        if not self._walk.is_little_endian:
            if vr is None:
                raise UnsupportedPixelData(f"{tag_text(element.tag)} has no known VR and is Big Endian")
            if word_bytes > 1:
                if len(value) % word_bytes:
                    raise MalformedDataSet(f"{tag_text(element.tag)} is no whole number of words")
                value = np.frombuffer(value, f"u{word_bytes}").byteswap().tobytes()
        return element_bytes(element.tag, vr or "UN", value, is_implicit=self._to_implicit)

    def _named(self, element: Element) -> str:
        """VR of a standard element that came as UN; many peers do not find UIDs in such a one.

        Its value is Implicit VR Little Endian (PS3.5 section 6.2.2, note 2), so its bytes stay.
        """
        if element.tag >> 16 & 1 or element.is_undefined or not self._walk.is_little_endian:
            return "UN"
        vr = self._looked_up(element.tag)
        if vr is None or vr == "SQ" or element.length % _WORD_BYTES.get(vr, 1):
            return "UN"
        return vr

    def _looked_up(self, tag: int) -> str | None:
        """VR by the dictionaries, for an element that does not carry it (PS3.5 annex A.1)."""
        if tag >> 16 & 1:
            number = tag & 0xFFFF
            if 0x10 <= number <= 0xFF:
                return "LO"
            vr = vr_of(tag, self._creators.get(tag & 0xFFFF0000 | number >> 8))
        else:
            vr = vr_of(tag)
        if vr is None or " or " not in vr:
            return vr if vr is None or len(vr) == 2 else None
        if "OW" in vr:
            return "OW"
        return "SS" if self._is_signed else "US"

    def _unknown_sequence(self, element: Element) -> bytes:
        """UN of undefined length: its items are Implicit VR Little Endian wherever they stand."""
        head = element_head(element.tag, "UN", UNDEFINED_LENGTH, is_implicit=self._to_implicit)
        return head + self._walk.value(element) + _delimiter(SEQUENCE_DELIMITATION)

    def _sequence(self, element: Element) -> bytes:
        value = self._walk.value(element)
        items = ElementWalk(
            io.BytesIO(value),
            is_implicit=element.is_implicit,
            is_little_endian=self._walk.is_little_endian,
            max_depth=_DEEPEST,
        )
        encoded = []
        for offset, length in items.items():
            item = ElementWalk(
                io.BytesIO(value[offset : offset + length]),
                is_implicit=element.is_implicit,
                is_little_endian=self._walk.is_little_endian,
                max_depth=_DEEPEST,
            )
            inside = _Recoder(item, self._to_implicit, is_signed=self._is_signed)
            content = b"".join(inside.encode(item.elements(), {}))
            encoded.append(struct.pack("<HHL", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content)
        return element_bytes(element.tag, "SQ", b"".join(encoded), is_implicit=self._to_implicit)


# What is stored was checked against the configured limit when it came in.
_DEEPEST = 256


def _delimiter(tag: int) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, 0)
