"""The structure of an encoded data set: tags, VRs and lengths, without decoding a value.

This walk (PS3.5 sections 7.1, 7.5 and A.4) is what tells a whole data set from a truncated or
hostile one. It reads a file by pages, so memory does not grow with the object.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, NamedTuple

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from node.errors import LimitExceeded, MalformedDataSet

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD
TRAILING_PADDING = 0xFFFCFFFC
PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

# PS3.5 section 7.1.2: two bytes of length, or two reserved bytes and four of length.
_SHORT_VRS = frozenset(
    {
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
        b"TM",
        b"UI",
        b"UL",
        b"US",
    }
)
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_TEXT = {vr: vr.decode() for vr in _SHORT_VRS}
_LONG_TEXT = {vr: vr.decode() for vr in _LONG_VRS if vr != b"SQ"}
_VR_TEXT = {**_SHORT_TEXT, **_LONG_TEXT, b"SQ": "SQ"}
_PAGE_BYTES = 64 * 1024
# tag and length; tag, VR and short length; long length
_UNPACKERS = {
    order == "<": tuple(struct.Struct(order + form).unpack_from for form in ("HHL", "HH2sH", "L"))
    for order in "<>"
}


class Element(NamedTuple):
    """Where one data element is.

    ``vr`` is None where the encoding does not say. ``length`` is that of the value in bytes,
    without delimiters; ``end`` is the offset behind the whole element. ``is_implicit`` says how
    the items inside a sequence are encoded.
    """

    tag: int
    vr: str | None
    offset: int
    value_offset: int
    length: int
    end: int
    is_undefined: bool
    is_implicit: bool


def tag_text(tag: int) -> str:
    """Write a tag as the standard does: ``(0010,0020)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def vr_of(tag: int, private_creator: str | None = None) -> str | None:
    """Value representation of ``tag`` from the dictionaries; None when they do not say one."""
    try:
        if tag >> 16 & 1:
            return private_dictionary_VR(tag, private_creator) if private_creator else None
        return dictionary_VR(tag)
    except KeyError:
        return None


#: An element by its VR (None where the encoding does not say it), its encoded value without delimiters,
#: and whether items in it are encoded in Implicit VR.
RawElement = tuple[str | None, bytes, bool]


@cache
def _is_sequence(tag: int) -> bool:
    return vr_of(tag) == "SQ"


class ElementWalk:
    """Walks the elements of one encoded data set, or of the items of one encoded sequence.

    Parameters
    ----------
    file : BinaryIO
        The encoded bytes, from position 0.
    is_implicit : bool
        Whether VRs are absent (PS3.5 section 7.1.3).
    is_little_endian : bool
        The byte order.
    max_depth : int
        Deepest nesting of sequences that is followed.
    length : int or None
        Length of the data set where ``file`` has only its beginning.
    start : bytes
        The first bytes of ``file``, where they are at hand.

    Attributes
    ----------
    readable : int
        Bytes of ``file``.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        is_implicit: bool,
        is_little_endian: bool,
        max_depth: int,
        length: int | None = None,
        start: bytes = b"",
    ) -> None:
        self._file = file
        self.readable = file.seek(0, os.SEEK_END)
        self.length = self.readable if length is None else length
        self.is_implicit = is_implicit
        self.is_little_endian = is_little_endian
        self._max_depth = max_depth
        self._unpack_implicit, self._unpack_explicit, self._unpack_length = _UNPACKERS[is_little_endian]
        self._page = start
        self._page_start = 0

    def over(self, encoded: bytes) -> ElementWalk:
        """A walk over other bytes that are encoded in the same way."""
        return ElementWalk(
            io.BytesIO(encoded),
            is_implicit=self.is_implicit,
            is_little_endian=self.is_little_endian,
            max_depth=self._max_depth,
            start=encoded,
        )

    def value(self, element: Element) -> bytes:
        """The encoded value, without delimiters."""
        start = element.value_offset - self._page_start
        if start >= 0 and start + element.length <= len(self._page):
            return self._page[start : start + element.length]
        return self.read(element.value_offset, element.length)

    def raw(self, element: Element) -> RawElement:
        """The element with its value; what only says UN, and has a delimiter, is a sequence."""
        vr = element.vr
        if element.is_undefined and vr in (None, "UN") and element.tag not in PIXEL_DATA_TAGS:
            vr = "SQ"
        return vr, self.value(element), element.is_implicit

    def read(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes from ``offset``; fewer only at the end."""
        self._file.seek(offset)
        return self._file.read(count)

    def file_at(self, offset: int) -> BinaryIO:
        """The file itself, positioned at ``offset``; until it is read, the walk must rest."""
        self._file.seek(offset)
        return self._file

    def elements(self) -> Iterator[Element]:
        """Yield the top-level elements in their order.

        Raises
        ------
        MalformedDataSet
            A declared length does not fit, a delimiter is missing, or something else stands where
            an element should.
        LimitExceeded
            Sequences are nested more deeply than allowed.
        """
        position = 0
        while position < self.length:
            element = self.element_at(position)
            yield element
            position = element.end

    def tag_at(self, position: int) -> int:
        """Tag of the top-level element that begins at ``position``; raises MalformedDataSet at the end."""
        index = self._at(position, 8)
        group, number, _ = self._unpack_implicit(self._page, index)
        return int(group << 16 | number)

    def element_at(self, position: int) -> Element:
        """Read the top-level element that begins at ``position``; raises as ``elements`` does."""
        element = self._element(position, self.length, 0, self.is_implicit)
        if element.tag >> 16 == 0xFFFE:
            raise MalformedDataSet(f"{tag_text(element.tag)} stands outside of a sequence")
        return element

    def plain_elements(
        self,
        start: bytes,
        position: int,
        found: dict[int, RawElement],
        starts: list[int],
        stop: frozenset[int],
    ) -> int:
        """Put the elements from ``position`` on into ``found`` by their tags; return where it ended.

        Where each begins is added to ``starts``. Made for speed: it goes on as long as the elements lie
        whole in ``start``, the first bytes of the data set, are none of ``stop``, and are neither sequences
        nor anything else that asks for a closer look, for which ``element_at`` is there.
        """
        is_implicit, end = self.is_implicit, len(start)
        unpack = self._unpack_implicit if is_implicit else self._unpack_explicit
        vr: str | None = None
        while position + 12 <= end:
            value = position + 8
            if is_implicit:
                group, number, length = unpack(start, position)
                tag = group << 16 | number
                if _is_sequence(tag):
                    break
            else:
                group, number, raw_vr, length = unpack(start, position)
                tag = group << 16 | number
                vr = _SHORT_TEXT.get(raw_vr)
                if vr is None:
                    vr = _LONG_TEXT.get(raw_vr)
                    if vr is None:
                        break
                    (length,) = self._unpack_length(start, value)
                    value += 4
            value_end = value + length
            if value_end > end or tag in stop or group == 0xFFFE:
                break
            found[tag] = (vr, start[value:value_end], is_implicit)
            starts.append(position)
            position = value_end
        return position

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of the content of each item, for a walk over a sequence's value."""
        position = 0
        while position < self.length:
            tag, length = self._item_header(position, self.length)
            position += 8
            if tag == SEQUENCE_DELIMITATION:
                return
            if length == UNDEFINED_LENGTH:
                end = self._skip_item(position, self.length, 0, self.is_implicit)
                yield position, end - 8 - position
            else:
                end = position + length
                if end > self.length:
                    raise MalformedDataSet("an item is longer than its sequence")
                yield position, length
            position = end

    def fragments(self, element: Element) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of each item of encapsulated Pixel Data, Basic Offset Table first."""
        position, end = element.value_offset, element.value_offset + element.length
        while position < end:
            _, length = self._item_header(position, end)
            yield position + 8, length
            position += 8 + length

    # --- one element ---------------------------------------------------------

    def _at(self, offset: int, count: int) -> int:
        """Index into the page at which ``count`` bytes from ``offset`` lie; loads a page if needed."""
        index = offset - self._page_start
        if index >= 0 and index + count <= len(self._page):
            return index
        self._file.seek(offset)
        self._page = self._file.read(max(_PAGE_BYTES, count))
        self._page_start = offset
        if len(self._page) < count:
            raise MalformedDataSet(f"the data set is cut short at byte {offset}")
        return 0

    def _element(self, position: int, end: int, depth: int, is_implicit: bool) -> Element:
        """Read the element at ``position``, which lies in something that ends at ``end``."""
        if end - position < 8:
            raise MalformedDataSet(f"{end - position} stray bytes at byte {position}")
        index = self._at(position, min(12, end - position))
        vr: str | None = None
        header_bytes = 8
        if is_implicit:
            group, number, length = self._unpack_implicit(self._page, index)
        else:
            group, number, raw_vr, length = self._unpack_explicit(self._page, index)
            vr = _VR_TEXT.get(raw_vr)
            if group == 0xFFFE or (vr is None and not (b"AA" <= raw_vr <= b"ZZ")):
                # Delimiters have no VR, and some writers fall into Implicit VR for an element.
                group, number, length = self._unpack_implicit(self._page, index)
            elif raw_vr in _LONG_VRS:
                if end - position < 12:
                    raise MalformedDataSet(f"the data set is cut short at byte {position}")
                length = self._unpack_length(self._page, index + 8)[0]
                header_bytes = 12
        tag = group << 16 | number
        value_offset = position + header_bytes
        if length == UNDEFINED_LENGTH:
            return self._undefined(tag, vr, position, value_offset, end, depth, is_implicit)
        value_end = value_offset + length
        if value_end > end:
            raise MalformedDataSet(
                f"{tag_text(tag)} declares {length} bytes, but {end - value_offset} are there"
            )
        if length and (vr == "SQ" or (vr is None and is_implicit and vr_of(tag) == "SQ")):
            self._look_into(value_offset, value_end, depth, is_implicit)
        return Element(tag, vr, position, value_offset, length, value_end, False, is_implicit)

    def _undefined(
        self,
        tag: int,
        vr: str | None,
        position: int,
        value_offset: int,
        end: int,
        depth: int,
        is_implicit: bool,
    ) -> Element:
        """Find the end of an element of undefined length (PS3.5 sections 7.5.2 and A.4)."""
        if tag >> 16 == 0xFFFE and tag != ITEM:
            raise MalformedDataSet(f"the delimiter {tag_text(tag)} has a length")
        if tag in PIXEL_DATA_TAGS or vr in ("OB", "OW", "OD", "OF", "OL", "OV"):
            after = self._skip_fragments(tag, value_offset, end)
        else:
            # UN of undefined length holds Implicit VR items (PS3.5 section 6.2.2, note 2).
            is_implicit = is_implicit or vr == "UN"
            after = self._skip_items(value_offset, end, depth, is_implicit)
        return Element(tag, vr, position, value_offset, after - 8 - value_offset, after, True, is_implicit)

    # --- what is nested ------------------------------------------------------

    def _item_header(self, position: int, end: int) -> tuple[int, int]:
        if end - position < 8:
            raise MalformedDataSet(f"the data set is cut short at byte {position}")
        index = self._at(position, 8)
        group, number, length = self._unpack_implicit(self._page, index)
        tag = group << 16 | number
        if tag not in (ITEM, SEQUENCE_DELIMITATION):
            raise MalformedDataSet(f"{tag_text(tag)} stands where an item should")
        return tag, length

    def _skip_fragments(self, tag: int, position: int, end: int) -> int:
        """Offset behind the Sequence Delimitation Item of encapsulated Pixel Data."""
        while True:
            if position >= end:
                raise MalformedDataSet(f"the items of {tag_text(tag)} do not end: truncated")
            item, length = self._item_header(position, end)
            position += 8
            if item == SEQUENCE_DELIMITATION:
                return position
            position += length
            if length == UNDEFINED_LENGTH or position > end:
                raise MalformedDataSet(f"an item of {tag_text(tag)} is longer than the data set: truncated")

    def _skip_items(self, position: int, end: int, depth: int, is_implicit: bool) -> int:
        """Offset behind the Sequence Delimitation Item of a sequence."""
        depth = self._deeper(depth)
        while True:
            item, length = self._item_header(position, end)
            position += 8
            if item == SEQUENCE_DELIMITATION:
                return position
            if length == UNDEFINED_LENGTH:
                position = self._skip_item(position, end, depth, is_implicit)
            elif position + length > end:
                raise MalformedDataSet("an item is longer than its sequence")
            else:
                self._look_into_item(position, position + length, depth, is_implicit)
                position += length

    def _skip_item(self, position: int, end: int, depth: int, is_implicit: bool) -> int:
        """Offset behind the Item Delimitation Item."""
        while True:
            element = self._element(position, end, depth, is_implicit)
            position = element.end
            if element.tag == ITEM_DELIMITATION:
                return position
            if element.tag >> 16 == 0xFFFE:
                raise MalformedDataSet(f"{tag_text(element.tag)} stands inside of an item")

    def _look_into(self, position: int, end: int, depth: int, is_implicit: bool) -> None:
        """Check the depth inside a sequence whose own length is known.

        What is inside cannot make anything behind it unreadable, so other faults are let pass:
        an archive keeps such objects as they are.
        """
        depth = self._deeper(depth)
        try:
            while position < end:
                item, length = self._item_header(position, end)
                position += 8
                if item == SEQUENCE_DELIMITATION:
                    return
                if length == UNDEFINED_LENGTH:
                    position = self._skip_item(position, end, depth, is_implicit)
                else:
                    self._look_into_item(position, min(end, position + length), depth, is_implicit)
                    position += length
        except MalformedDataSet:
            return

    def _look_into_item(self, position: int, end: int, depth: int, is_implicit: bool) -> None:
        try:
            while position < end:
                position = self._element(position, end, depth, is_implicit).end
        except MalformedDataSet:
            return

    def _deeper(self, depth: int) -> int:
        if depth >= self._max_depth:
            raise LimitExceeded(f"sequences are nested more than {self._max_depth} deep")
        return depth + 1
