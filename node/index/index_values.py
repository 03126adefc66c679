"""From a header to the text that the index keeps: decoded, normalised, one string for each keyword."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.index import character_set
from node.index.attributes import is_undivided
from node.index.character_set import CharacterSet
from node.ingest.elements import RawElement

#: Longer values of other attributes than those with a column are left out of the kept header.
HEADER_VALUE_CHARACTERS = 256
#: Longer values are cut; the longest that the standard allows is that of LT (PS3.5 section 6.2).
VALUE_CHARACTERS = 10240

SPECIFIC_CHARACTER_SET = 0x00080005
_LOCALISED_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_PLAIN_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_NUMBERS = {
    "FD": "d", "FL": "f", "SL": "l", "SS": "h", "SV": "q", "UL": "L", "US": "H", "UV": "Q",
}  # fmt: skip
_READABLE_VRS = _LOCALISED_VRS | _PLAIN_VRS | _NUMBERS.keys() | {"AT"}
_LEGACY_DATE = re.compile(r"(\d{4})[.\-/](\d{2})[.\-/](\d{2})")
_PLAIN_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_REMEMBERED_BYTES = 128
_LONGEST_RAW_BYTES = 4 * VALUE_CHARACTERS


def header_values(elements: Mapping[int, RawElement], charset: CharacterSet, order: str) -> dict[str, str]:
    """Text of every top-level element that is neither a sequence nor bulk data, by its keyword.

    Values that are not text are written as such; several values are joined by a backslash. Dates
    and times lose the separators of old (1993's ``2004.01.19``, ``10:30``), numbers their padding.
    Nothing in a value makes this fail. Private elements and group lengths have no keyword and
    are left out. ``charset`` and ``order`` are as of ``raw_text``.
    """
    remembered = _remembered_text(charset, order)
    values: dict[str, str] = {}
    for tag, (vr, raw, _) in elements.items():
        if len(raw) <= _REMEMBERED_BYTES:
            keyword, text = remembered(tag, vr, raw)
        else:
            keyword, text = _text_of(tag, vr, raw, charset, order)
        if text is not None:
            values[keyword] = text
    return values


def _text_of(
    tag: int, vr: str | None, raw: bytes, charset: CharacterSet, order: str
) -> tuple[str, str | None]:
    keyword, dictionary_vr = keyword_and_vr(tag)
    return keyword, raw_text(raw, vr or dictionary_vr, charset, order) if keyword else None


@cache
def keyword_and_vr(tag: int) -> tuple[str, str]:
    """Keyword and value representation of a tag; an empty keyword for what is not kept."""
    if not tag & 0xFFFF or tag >> 16 & 1:
        return "", ""
    keyword = keyword_for_tag(tag)
    return (keyword, dictionary_VR(tag).split(" or ")[0]) if keyword else ("", "")


def data_set_character_set(data_set: Dataset) -> CharacterSet:
    """Specific Character Set (0008,0005) of a data set; the default one where it says none."""
    element = data_set.get_item(SPECIFIC_CHARACTER_SET)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return character_set.character_set(value)
    terms = list(value) if isinstance(value, MultiValue | list | tuple) else [value or ""]
    return character_set.of_terms(str(term) for term in terms)


def element_text(
    element: DataElement | RawDataElement, vr: str, charset: CharacterSet, order: str = "<"
) -> str | None:
    """Whole text of an element, decoded by pydicom or not; ``vr`` is that of PS3.6. None as ``raw_text``."""
    own = vr if element.VR in (None, "UN") else str(element.VR).split(" or ")[0]
    if isinstance(element, RawDataElement):
        return raw_text(element.value, own, charset, order, is_cut=False)
    return _decoded_text(element.value, own)


def raw_text(
    raw: bytes | None, vr: str, charset: CharacterSet, order: str = "<", *, is_cut: bool = True
) -> str | None:
    """Text of an encoded value; None for sequences and bulk data, whatever is too long for text.

    Parameters
    ----------
    raw : bytes or None
        The encoded value.
    vr : str
        Its value representation; UN is read as text if it is plain ASCII.
    charset : CharacterSet
        That of the data set.
    order : str
        Byte order of binary numbers, as in ``struct``: ``<`` or ``>``.
    is_cut : bool
        Whether what is longer than ``VALUE_CHARACTERS`` is cut there.
    """
    if not raw:
        return "" if vr in _READABLE_VRS else None
    if vr in _NUMBERS:
        return _numbers(raw, order + _NUMBERS[vr])
    if vr == "AT":
        return None if len(raw) % 4 else _tags(raw, order)
    if is_cut:
        raw = raw[:_LONGEST_RAW_BYTES]
    if vr in _LOCALISED_VRS:
        return normalised(charset.decode(raw.rstrip(b"\0"), is_name=vr == "PN"), vr, is_cut=is_cut)
    if vr in _PLAIN_VRS:
        return normalised(raw.decode("ascii") if raw.isascii() else charset.decode(raw), vr, is_cut=is_cut)
    if vr == "UN" and raw.isascii() and raw.rstrip(b"\0").decode("ascii").isprintable():
        return normalised(raw.decode("ascii"), vr, is_cut=is_cut)
    return None


@lru_cache(maxsize=32)
def _remembered_text(
    charset: CharacterSet, order: str
) -> Callable[[int, str | None, bytes], tuple[str, str | None]]:
    """Return ``_text_of`` with a memory: most values of an instance are those of the one before."""

    @lru_cache(maxsize=8192)
    def text(tag: int, vr: str | None, raw: bytes) -> tuple[str, str | None]:
        return _text_of(tag, vr, raw, charset, order)

    return text


def normalised(text: str, vr: str, *, is_cut: bool = True) -> str:
    """Bring a decoded value to the one form in which the index keeps it and keys are compared."""
    text = text.rstrip("\0 ")
    if is_cut and len(text) > VALUE_CHARACTERS:
        return text[:VALUE_CHARACTERS]
    if is_undivided(vr):
        return text
    if "\\" not in text:
        return _one(text, vr)
    return "\\".join([_one(value, vr) for value in text.split("\\")])


def _one(value: str, vr: str) -> str:
    value = value.strip(" \0")
    if vr == "DA":
        found = _LEGACY_DATE.fullmatch(value)
        return "".join(found.groups()) if found else value
    if vr == "TM":
        return value.replace(":", "")
    if vr == "IS":
        return _integer(value)
    if vr == "DS":
        return _decimal(value)
    return value


def _integer(value: str) -> str:
    try:
        return str(int(value)) if len(value) <= 12 else value
    except ValueError:
        return value


def _decimal(value: str) -> str:
    if len(value) > 32:
        return value
    if len(value) <= 16 and _PLAIN_DECIMAL.fullmatch(value):
        # what nearly all are, without the detour by a number
        text = value.rstrip("0").rstrip(".") if "." in value else value
        return "0" if text == "-0" else text
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    if not number.is_finite():
        return value
    text = format(number.normalize(), "f") if abs(number.adjusted()) < 16 else value
    text = "0" if text == "-0" else text
    return text if len(text) <= 16 else value


def _numbers(raw: bytes, letter: str) -> str | None:
    size = struct.calcsize(letter)
    count = len(raw) // size
    if not count or count > HEADER_VALUE_CHARACTERS:
        return None
    numbers = struct.unpack(f"{letter[0]}{count}{letter[1]}", raw[: count * size])
    return "\\".join(f"{number:.9g}" if letter[1] == "f" else str(number) for number in numbers)


def _tags(raw: bytes, order: str) -> str:
    words = struct.unpack(f"{order}{len(raw) // 2}H", raw)
    return "\\".join(
        f"{group:04X}{element:04X}" for group, element in zip(words[::2], words[1::2], strict=True)
    )


def _decoded_text(value: object, vr: str) -> str | None:
    """Text of a value that pydicom has decoded already."""
    if vr not in _READABLE_VRS:
        return None
    if value is None:
        return ""
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    return normalised("\\".join(_part(part, vr) for part in parts), vr, is_cut=False)


def _part(part: object, vr: str) -> str:
    if vr == "AT" and isinstance(part, int):
        return f"{part:08X}"
    if vr == "FL" and isinstance(part, float):
        return f"{part:.9g}"
    original = getattr(part, "original_string", None)
    return str(original) if isinstance(original, str) else str(part)


def is_kept(text: str) -> bool:
    """Whether a value is kept for every instance: when it is short enough, and not empty."""
    return 0 < len(text) <= HEADER_VALUE_CHARACTERS


def kept_header(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values that are kept for every instance."""
    return {keyword: text for keyword, text in values.items() if is_kept(text)}
