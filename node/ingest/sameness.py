"""When are two copies the same instance?

They are when their elements are equal and their decoded frames are equal, whatever transfer
syntax each copy came in. Group lengths, padding, Data Set Trailing Padding and the elements that
only describe an encoding do not count. A PACS that sends an image back decompressed has sent the
same image; one that has changed a character has not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

import numpy as np

from node.config.settings import LimitsConfig
from node.errors import LimitExceeded, MalformedDataSet, UnsupportedPixelData
from node.ingest.elements import PIXEL_DATA_TAGS, TRAILING_PADDING, Element, ElementWalk, tag_text, vr_of
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, data_set_without_pixels, inflate, walk
from node.transcode import pixels
from node.transcode.spool import spool

_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006
_OVERLAY_BIT_POSITION = 0x0102
# Extended Offset Table, its lengths, and Encapsulated Pixel Data Value Total Length.
_ENCAPSULATION_TAGS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
_WORD_BYTES = {
    "AT": 2,
    "FD": 8,
    "FL": 4,
    "OD": 8,
    "OF": 4,
    "OL": 4,
    "OV": 8,
    "OW": 2,
    "SL": 4,
    "SS": 2,
    "SV": 8,
    "UL": 4,
    "US": 2,
    "UV": 8,
}
_TEXT_OF_ONE_VALUE = frozenset({"LT", "ST", "UT"})
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI", "UR"})
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Copy:
    """One encoded copy of an instance: its data set, read from position 0."""

    data_set: BinaryIO
    transfer_syntax_uid: str


def difference(one: Copy, other: Copy, limits: LimitsConfig) -> str:
    """Say in what two copies of an instance differ.

    Parameters
    ----------
    one, other : Copy
        The copies. Neither is changed; their file positions are.
    limits : LimitsConfig
        Nesting depth, inflated length, decoded frames.

    Returns
    -------
    str
        Empty when they are the same, else the place of the first difference by tag; never a value.

    Raises
    ------
    MalformedDataSet, LimitExceeded
        A copy cannot be walked.
    """
    with ExitStack() as opened:
        first, second = _opened(one, limits, opened), _opened(other, limits, opened)
        return _Comparison(limits).data_sets(first, second, "")


def _opened(copy: Copy, limits: LimitsConfig, opened: ExitStack) -> _Side:
    file = copy.data_set
    if copy.transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES:
        inflated = opened.enter_context(spool())
        file, _ = inflate(file, limits, keep_bytes=limits.instance_bytes, into=inflated)
    elements = walk(file, copy.transfer_syntax_uid, max_depth=limits.nesting_depth)
    return _Side(elements, copy.transfer_syntax_uid)


class _Side:
    """One of the two data sets, or items, that are compared."""

    def __init__(self, elements: ElementWalk, transfer_syntax_uid: str) -> None:
        self.walk = elements
        self.transfer_syntax_uid = transfer_syntax_uid
        self.elements: dict[int, Element] = {}
        self.pixels: Element | None = None
        for element in elements.elements():
            if element.tag in PIXEL_DATA_TAGS:
                self.pixels = element
            elif element.tag & 0xFFFF and element.tag not in _ENCAPSULATION_TAGS | {TRAILING_PADDING}:
                self.elements[element.tag] = element

    def text(self, tag: int) -> str:
        """A short text value, without padding; empty when it is not there."""
        element = self.elements.get(tag)
        return self.walk.value(element).decode("ascii", "replace").strip("\0 ") if element else ""


class _Comparison:
    def __init__(self, limits: LimitsConfig) -> None:
        self._max_depth = limits.nesting_depth
        self._frame_bytes = limits.frame_bytes

    def data_sets(self, one: _Side, other: _Side, place: str, depth: int = 0) -> str:
        """Compare two data sets or items; ``place`` is where they stand, for the answer."""
        if depth > self._max_depth:
            raise LimitExceeded(f"sequences are nested more than {self._max_depth} deep")
        describes_encoding = set()
        if one.pixels is not None and other.pixels is not None:
            describes_encoding = {_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION}
        missing = (one.elements.keys() ^ other.elements.keys()) - describes_encoding
        if missing:
            return f"{place}{tag_text(min(missing))} is in one copy only"
        for tag, element in one.elements.items():
            if tag in describes_encoding:
                continue
            found = self._element(one, element, other, other.elements[tag], place, depth)
            if found:
                return found
        return self._pixels(one, other, place)

    # --- elements ------------------------------------------------------------

    def _element(self, one: _Side, a: Element, other: _Side, b: Element, place: str, depth: int) -> str:
        here = place + tag_text(a.tag)
        vr = _known(a.vr) or _known(b.vr) or vr_of(a.tag)
        is_same_order = one.walk.is_little_endian == other.walk.is_little_endian
        if is_same_order and a.is_implicit == b.is_implicit and _equal_bytes(one, a, other, b):
            return ""
        if vr == "SQ" or a.is_undefined or b.is_undefined:
            return self._sequence(one, a, other, b, here, depth)
        first = _canonical(vr, one.walk.value(a), one.walk.is_little_endian)
        second = _canonical(vr, other.walk.value(b), other.walk.is_little_endian)
        return "" if first == second else f"{here} differs"

    def _sequence(self, one: _Side, a: Element, other: _Side, b: Element, here: str, depth: int) -> str:
        try:
            first = _items(one, a, self._max_depth)
            second = _items(other, b, self._max_depth)
        except MalformedDataSet:
            return f"{here} differs"
        if len(first) != len(second):
            return f"{here} has {len(first)} items in one copy and {len(second)} in the other"
        for number, (item, its_twin) in enumerate(zip(first, second, strict=True), 1):
            found = self.data_sets(item, its_twin, f"{here}[{number}]", depth + 1)
            if found:
                return found
        return ""

    # --- pixels --------------------------------------------------------------

    def _pixels(self, one: _Side, other: _Side, place: str) -> str:
        a, b = one.pixels, other.pixels
        if a is None and b is None:
            return ""
        here = f"{place}Pixel Data"
        if a is None or b is None:
            return f"{here} is in one copy only"
        is_described_alike = all(
            one.text(tag) == other.text(tag) for tag in (_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION)
        )
        if is_described_alike and _equal_encoded_pixels(one, a, other, b):
            return ""
        is_native = not a.is_undefined and not b.is_undefined
        if is_described_alike and is_native:
            return f"{here} differs"
        if a.is_undefined != b.is_undefined and _has_overlay_in_pixels(one):
            # Decoding drops the unused bits, so what is in them cannot be compared.
            return f"{here} holds an overlay in one copy"
        try:
            first = _decoded(one, a, self._frame_bytes)
            second = _decoded(other, b, self._frame_bytes)
            if first.facts.photometric_interpretation != second.facts.photometric_interpretation:
                return f"{place}{tag_text(_PHOTOMETRIC_INTERPRETATION)} differs"
            for number, (frame, its_twin) in enumerate(zip_longest(first.frames, second.frames), 1):
                if frame is None or its_twin is None:
                    return f"{here} has more frames in one copy"
                if not np.array_equal(frame, its_twin):
                    return f"{here} differs in frame {number}"
        except UnsupportedPixelData:
            return f"{here} is encoded differently and cannot be decoded here"
        return ""


def _known(vr: str | None) -> str | None:
    return None if vr == "UN" else vr


def _canonical(vr: str | None, value: bytes, is_little_endian: bool) -> bytes:
    """The value as Little Endian, and text without its insignificant padding (PS3.5 section 6.2)."""
    if vr in _WORD_BYTES:
        return value if is_little_endian else _swapped(value, _WORD_BYTES[vr])
    if vr in _TEXT_OF_ONE_VALUE:
        return value.rstrip(b"\0 ")
    if vr in _TEXT:
        return b"\\".join(part.strip(b"\0 ") for part in value.split(b"\\"))
    # Unknown: the pad byte of a text that the dictionaries do not know may be either.
    return value.rstrip(b"\0 ") if vr is None else value


def _swapped(value: bytes, word_bytes: int) -> bytes:
    if len(value) % word_bytes:
        return value
    return np.frombuffer(value, f"u{word_bytes}").byteswap().tobytes()


def _equal_bytes(one: _Side, a: Element, other: _Side, b: Element) -> bool:
    """Whether two values have the same encoded bytes; large ones are compared by parts."""
    if a.length != b.length:
        return False
    return all(
        one.walk.read(a.value_offset + start, min(_CHUNK_BYTES, a.length - start))
        == other.walk.read(b.value_offset + start, min(_CHUNK_BYTES, a.length - start))
        for start in range(0, a.length, _CHUNK_BYTES)
    )


def _items(side: _Side, element: Element, max_depth: int) -> list[_Side]:
    value = side.walk.value(element)
    is_implicit = element.is_implicit or element.vr == "UN"
    is_little_endian = side.walk.is_little_endian or element.vr == "UN"

    def walk_over(encoded: bytes) -> ElementWalk:
        return ElementWalk(
            io.BytesIO(encoded),
            is_implicit=is_implicit,
            is_little_endian=is_little_endian,
            max_depth=max_depth,
        )

    return [
        _Side(walk_over(value[offset : offset + length]), side.transfer_syntax_uid)
        for offset, length in walk_over(value).items()
    ]


def _equal_encoded_pixels(one: _Side, a: Element, other: _Side, b: Element) -> bool:
    """Whether the pixels are equal as they are encoded, so that nothing needs to be decoded."""
    if a.tag != b.tag or a.is_undefined != b.is_undefined:
        return False
    if a.is_undefined:
        if one.transfer_syntax_uid != other.transfer_syntax_uid:
            return False
        # How a frame is cut into fragments does not count; where the frames begin is in the codes.
        return _rechunked(_fragments(one, a), _fragments(other, b))
    if one.walk.is_little_endian == other.walk.is_little_endian:
        return _equal_bytes(one, a, other, b)
    chunks = zip_longest(_little_endian(one, a), _little_endian(other, b))
    return all(first == second for first, second in chunks)


def _little_endian(side: _Side, element: Element) -> Iterator[bytes]:
    """The value as Little Endian, by parts that are whole words."""
    word_bytes = 1 if side.walk.is_little_endian else _WORD_BYTES.get(element.vr or "", 1)
    for start in range(0, element.length, _CHUNK_BYTES):
        chunk = side.walk.read(element.value_offset + start, min(_CHUNK_BYTES, element.length - start))
        yield chunk if word_bytes == 1 else _swapped(chunk, word_bytes)


def _has_overlay_in_pixels(side: _Side) -> bool:
    """Whether an overlay lies in unused bits of the pixels (PS3.3 section C.9.2, retired)."""
    return any(
        tag >> 24 == 0x60 and tag & 0xFFFF == _OVERLAY_BIT_POSITION and any(side.walk.value(element))
        for tag, element in side.elements.items()
    )


def _fragments(side: _Side, element: Element) -> Iterator[bytes]:
    """Fragments of encapsulated Pixel Data without the Basic Offset Table (PS3.5 section A.4)."""
    for number, (offset, length) in enumerate(side.walk.fragments(element)):
        if number:
            yield side.walk.read(offset, length)


def _rechunked(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Whether two streams of chunks are the same bytes, however they are cut."""
    left = right = b""
    while True:
        if not left:
            left = next(one, b"")
        if not right:
            right = next(other, b"")
        if not left or not right:
            return not left.strip(b"\0") and not right.strip(b"\0") and not any(one) and not any(other)
        count = min(len(left), len(right))
        if left[:count] != right[:count]:
            return False
        left, right = left[count:], right[count:]


def _decoded(side: _Side, element: Element, frame_bytes: int) -> pixels.Decoded:
    """The frames, decoded one after the other, so that memory does not grow with the object."""
    return pixels.decoded(
        data_set_without_pixels(side.walk),
        side.transfer_syntax_uid,
        side.walk.file_at(element.value_offset),
        frame_bytes=frame_bytes,
    )
