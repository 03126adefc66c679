"""From a row to the Identifier of a C-FIND response (PS3.4 section C.4.1.1.3.2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.index.character_set import UTF_8, CharacterSet

_SPECIFIC_CHARACTER_SET = 0x00080005
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_LONGEST_SHORT_VALUE_BYTES = 0xFFFE
_LONG_VRS = frozenset({"SQ", "SV", "UC", "UR", "UT", "UV"})
_NUMBER_FORMATS = {
    "FD": "d", "FL": "f", "SL": "l", "SS": "h", "SV": "q", "UL": "L", "US": "H", "UV": "Q",
}  # fmt: skip
_IMPLICIT = struct.Struct("<HHL")
_EXPLICIT = struct.Struct("<HH2sH")
_EXPLICIT_LONG = struct.Struct("<HH2sHL")
_AnyElement = DataElement | RawDataElement


@dataclass(frozen=True)
class ReturnKey:
    """An attribute of the response; ``column`` is where its text is in the row."""

    tag: int
    vr: str
    column: int


class ResponseWriter:
    """Makes the Identifiers of the responses to one query.

    Parameters
    ----------
    keys : sequence of ReturnKey
        The attributes that were asked for.
    constants : sequence of (tag, value representation, text)
        Attributes that are the same in every response.
    requested : CharacterSet
        That of the request. A response is in it where it can hold all values, in UTF-8 where it
        cannot, and says neither where all values are ASCII.
    """

    def __init__(
        self, keys: Sequence[ReturnKey], constants: Sequence[tuple[int, str, str]], requested: CharacterSet
    ) -> None:
        self._requested = requested
        self._fixed: dict[int, _AnyElement] = {
            tag: _raw(tag, vr, text.encode("ascii", "replace")) for tag, vr, text in constants
        }
        self._keys = list(keys)
        self._template: list[tuple[int, bytes]] = []

    def response(self, row: Sequence[object]) -> Dataset:
        """Make the Identifier of one match."""
        charset, texts = self._texts(row)
        elements = {BaseTag(tag): element for tag, element in self._fixed.items()}
        for key, text in texts:
            elements[BaseTag(key.tag)] = _element(key, text, charset or UTF_8)
        codecs: str | list[str] = default_encoding
        if charset is not None:
            declared = _declaration(charset)
            elements[declared.tag] = declared
            codecs = convert_encodings(list(charset.terms))
        data_set = Dataset(elements)
        data_set.set_original_encoding(False, True, codecs)
        return data_set

    def encoded(self, row: Sequence[object], *, is_implicit_vr: bool) -> bytes:
        """Make it in Little Endian at once, which spares most of the time of a long answer."""
        charset, texts = self._texts(row)
        if not self._template:
            self._template = [
                (tag, _encoded(element, is_implicit_vr)) for tag, element in self._fixed.items()
            ]
        parts = dict(self._template)
        for key, text in texts:
            parts[key.tag] = _encoded(_raw_element(key, text, charset or UTF_8), is_implicit_vr)
        if charset is not None:
            parts[_SPECIFIC_CHARACTER_SET] = _encoded(_declaration(charset), is_implicit_vr)
        return b"".join([parts[tag] for tag in sorted(parts)])

    def _texts(self, row: Sequence[object]) -> tuple[CharacterSet | None, list[tuple[ReturnKey, str]]]:
        """Texts of the row, and which Specific Character Set they need; None for ASCII."""
        texts = [(key, str(row[key.column])) for key in self._keys]
        beyond = [(key, text) for key, text in texts if not text.isascii()]
        if not beyond:
            return None, texts
        asked = self._requested
        if (
            asked.terms
            and asked.is_standard
            and all(asked.encode(text, is_name=key.vr == "PN") is not None for key, text in beyond)
        ):
            return asked, texts
        return UTF_8, texts


def _declaration(charset: CharacterSet) -> RawDataElement:
    return _raw(_SPECIFIC_CHARACTER_SET, "CS", "\\".join(charset.terms).encode("ascii"))


def _encoded(element: _AnyElement, is_implicit_vr: bool) -> bytes:
    """Encode an element in Little Endian (PS3.5 section 7.1); sequences are always empty here."""
    value = element.value if isinstance(element, RawDataElement) and element.value else b""
    tag, vr = int(element.tag), str(element.VR)
    if is_implicit_vr:
        return _IMPLICIT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in _LONG_VRS:
        return _EXPLICIT_LONG.pack(tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def _raw_element(key: ReturnKey, text: str, charset: CharacterSet) -> _AnyElement:
    """Encode one value in Little Endian."""
    numbers = _numbers(key.vr, text)
    if numbers is None:
        return _element(key, text, charset)
    return _raw(key.tag, key.vr, numbers)


def _numbers(vr: str, text: str) -> bytes | None:
    """Encode binary numbers; None for what is written as text. What does not fit is left empty."""
    if vr not in _NUMBER_FORMATS and vr != "AT":
        return None
    try:
        if vr == "AT":
            tags = [int(part, 16) for part in text.split("\\") if part]
            return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
        read = float if vr in ("FL", "FD") else int
        numbers = [read(part) for part in text.split("\\") if part]
        return struct.pack(f"<{len(numbers)}{_NUMBER_FORMATS[vr]}", *numbers)
    except (ValueError, struct.error, OverflowError):
        return b""


def _element(key: ReturnKey, text: str, charset: CharacterSet) -> _AnyElement:
    """Make one element. Numbers are left to pydicom, which knows the byte order on the wire."""
    if not text:
        return _raw(key.tag, key.vr, b"")
    numbers = _numbers(key.vr, text)
    if numbers is not None:
        raw = _raw(key.tag, key.vr, numbers)
        return convert_raw_data_element(raw) if numbers else raw
    if key.vr in _TEXT_VRS:
        return _raw(key.tag, key.vr, charset.encode(text, is_name=key.vr == "PN") or text.encode())
    return _raw(key.tag, key.vr, text.encode("ascii", "replace"))


def _raw(tag: int, vr: str, value: bytes) -> RawDataElement:
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    if vr not in _LONG_VRS and len(value) > _LONGEST_SHORT_VALUE_BYTES:
        # PS3.5 section 7.1.2: the length has 16 bits; whole values alone are left out
        value = value[:_LONGEST_SHORT_VALUE_BYTES].rpartition(b"\\")[0]
        value += b"" if len(value) % 2 == 0 else b"\0" if vr == "UI" else b" "
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
