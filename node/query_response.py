"""From a row to the Identifier of a C-FIND response (PS3.4 section C.4.1.1.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from node.character_set import UTF_8, CharacterSet

_SPECIFIC_CHARACTER_SET = 0x00080005
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_INTEGER_VRS = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LONGEST_SHORT_VALUE_BYTES = 0xFFFE
_LONG_VRS = frozenset({"UC", "UR", "UT"})


@dataclass(frozen=True)
class ReturnKey:
    """An attribute of the response; ``column`` is where its text is in the row, None for an empty one."""

    tag: int
    vr: str
    column: int | None


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
        self._fixed: dict[BaseTag, DataElement | RawDataElement] = {
            BaseTag(tag): _raw(tag, vr, text.encode("ascii", "replace")) for tag, vr, text in constants
        }
        for key in keys:
            if key.column is None and BaseTag(key.tag) not in self._fixed:
                self._fixed[BaseTag(key.tag)] = _empty(key)
        self._keys = [key for key in keys if key.column is not None]

    def response(self, row: Sequence[object]) -> Dataset:
        """Make the Identifier of one match."""
        texts = [(key, str(row[key.column or 0])) for key in self._keys]
        charset = self._charset(texts)
        elements = dict(self._fixed)
        for key, text in texts:
            elements[BaseTag(key.tag)] = _element(key, text, charset or UTF_8)
        codecs: str | list[str] = default_encoding
        if charset is not None:
            elements[BaseTag(_SPECIFIC_CHARACTER_SET)] = _raw(
                _SPECIFIC_CHARACTER_SET, "CS", "\\".join(charset.terms).encode("ascii")
            )
            codecs = convert_encodings(list(charset.terms))
        data_set = Dataset(elements)
        data_set.set_original_encoding(False, True, codecs)
        return data_set

    def _charset(self, texts: list[tuple[ReturnKey, str]]) -> CharacterSet | None:
        """Which Specific Character Set the values need; None for ASCII."""
        beyond = [(key, text) for key, text in texts if not text.isascii()]
        if not beyond:
            return None
        asked = self._requested
        if (
            asked.terms
            and asked.is_standard
            and all(asked.encode(text, is_name=key.vr == "PN") is not None for key, text in beyond)
        ):
            return asked
        return UTF_8


def _element(key: ReturnKey, text: str, charset: CharacterSet) -> DataElement | RawDataElement:
    """Encode one value. Numbers are left to pydicom, which knows the byte order on the wire."""
    if not text:
        return _empty(key)
    try:
        if key.vr in _INTEGER_VRS:
            return DataElement(key.tag, key.vr, _one_or_all([int(part) for part in text.split("\\")]))
        if key.vr in ("FL", "FD"):
            return DataElement(key.tag, key.vr, _one_or_all([float(part) for part in text.split("\\")]))
        if key.vr == "AT":
            return DataElement(key.tag, key.vr, _one_or_all([int(part, 16) for part in text.split("\\")]))
    except ValueError:
        return _empty(key)
    if key.vr in _TEXT_VRS:
        return _raw(key.tag, key.vr, charset.encode(text, is_name=key.vr == "PN") or text.encode())
    return _raw(key.tag, key.vr, text.encode("ascii", "replace"))


def _one_or_all(values: list[int] | list[float]) -> object:
    return values[0] if len(values) == 1 else values


def _empty(key: ReturnKey) -> DataElement | RawDataElement:
    if key.vr == "SQ":
        return DataElement(key.tag, "SQ", DicomSequence())
    return _raw(key.tag, "LO" if key.vr in _BULK_VRS else key.vr, b"")


def _raw(tag: int, vr: str, value: bytes) -> RawDataElement:
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    if vr not in _LONG_VRS and len(value) > _LONGEST_SHORT_VALUE_BYTES:
        # PS3.5 section 7.1.2: the length has 16 bits; whole values alone are left out
        value = value[:_LONGEST_SHORT_VALUE_BYTES].rpartition(b"\\")[0]
        value += b"" if len(value) % 2 == 0 else b"\0" if vr == "UI" else b" "
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
