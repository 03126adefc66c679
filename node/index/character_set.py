"""Text in the character sets of the standard: Specific Character Set (0008,0005) in both directions.

The codecs are Python's, the names of the sets pydicom's. What is ours is the state of ISO 2022
(PS3.5 section 6.1.2.5): which code elements are designated, and that delimiters reset them. It is
strict, so that a wrong label is noticed, and no character is ever replaced where another reading fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pydicom.charset import STAND_ALONE_ENCODINGS, python_encoding

UTF_8_TERM = "ISO_IR 192"

_ESCAPE = 0x1B
_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")
# PS3.3 tables C.12-3 and C.12-4: escape sequences that designate G0 (None: single bytes)
_G0_CODECS: dict[bytes, str | None] = {
    b"(B": None,
    b"(J": None,
    b"$@": "iso2022_jp",
    b"$B": "iso2022_jp",
    b"$(D": "iso2022_jp_1",
}
# and those that designate G1
_G1_CODECS = {
    b")I": "shift_jis",
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-F": "iso8859_7",
    b"-G": "iso8859_6",
    b"-H": "iso8859_8",
    b"-L": "iso8859_5",
    b"-M": "iso8859_9",
    b"-T": "tis_620",
    b"-b": "iso8859_15",
    b"$)A": "gb2312",
    b"$)C": "euc_kr",
}
# How to write in a set that was extended to: escape sequence and codec. Those without an escape
# sequence write their own.
_EXTENSIONS = {
    "ISO 2022 IR 13": (b")I", "shift_jis"),
    "ISO 2022 IR 58": (b"$)A", "gb2312"),
    "ISO 2022 IR 87": (b"", "iso2022_jp"),
    "ISO 2022 IR 100": (b"-A", "latin_1"),
    "ISO 2022 IR 101": (b"-B", "iso8859_2"),
    "ISO 2022 IR 109": (b"-C", "iso8859_3"),
    "ISO 2022 IR 110": (b"-D", "iso8859_4"),
    "ISO 2022 IR 126": (b"-F", "iso8859_7"),
    "ISO 2022 IR 127": (b"-G", "iso8859_6"),
    "ISO 2022 IR 138": (b"-H", "iso8859_8"),
    "ISO 2022 IR 144": (b"-L", "iso8859_5"),
    "ISO 2022 IR 148": (b"-M", "iso8859_9"),
    "ISO 2022 IR 149": (b"$)C", "euc_kr"),
    "ISO 2022 IR 159": (b"", "iso2022_jp_1"),
    "ISO 2022 IR 166": (b"-T", "tis_620"),
    "ISO 2022 IR 203": (b"-b", "iso8859_15"),
}
_LINE_DELIMITERS = "\t\n\f\r"


@dataclass(frozen=True)
class CharacterSet:
    """The values of Specific Character Set, as Defined Terms (PS3.3 section C.12.1.1.2)."""

    terms: tuple[str, ...] = ()

    @property
    def _first_codec(self) -> str:
        term = self.terms[0] if self.terms else ""
        return "ascii" if term in _ASCII else python_encoding.get(term, "ascii")

    @property
    def _is_extended(self) -> bool:
        return not any(term in STAND_ALONE_ENCODINGS for term in self.terms[:1])

    @property
    def is_standard(self) -> bool:
        """Whether the terms go together as the standard says, so that an answer may repeat them."""
        if len(self.terms) < 2:
            return all(term in python_encoding for term in self.terms)
        return all(
            (term.startswith("ISO 2022 ") and term in python_encoding) or (not term and not number)
            for number, term in enumerate(self.terms)
        )

    def decode(self, raw: bytes, *, is_name: bool = False) -> str:
        """Decode a value; never fails.

        Where the bytes do not fit the label they are read as UTF-8 if they are that, and else as
        Latin-1: what is wrong can then be seen, and nothing is lost.

        Parameters
        ----------
        raw : bytes
            The encoded value.
        is_name : bool
            Whether ``^`` and ``=`` are delimiters, as in PN.
        """
        if raw.isascii() and _ESCAPE not in raw:
            return raw.decode("ascii")
        try:
            if self._is_extended and _ESCAPE in raw:
                return _decode_iso_2022(raw, self._first_codec, is_name)
            return raw.decode(self._first_codec)
        except UnicodeError:
            pass
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin_1")

    def encode(self, text: str, *, is_name: bool = False) -> bytes | None:
        """Encode a value; None where this character set cannot hold it."""
        if text.isascii():
            return text.encode("ascii")
        if self._is_extended and len(self.terms) > 1:
            delimiters = _delimiters(is_name)
            parts = re.split(f"([{re.escape(delimiters)}])", text)
            encoded = [self._encode_extended(part) for part in parts]
            if any(part is None for part in encoded):
                return None
            raw = b"".join(part for part in encoded if part)
        else:
            try:
                raw = text.encode(self._first_codec)
            except UnicodeEncodeError:
                return None
        return raw if self.decode(raw, is_name=is_name) == text else None

    def _encode_extended(self, text: str) -> bytes | None:
        if text.isascii():
            return text.encode("ascii")
        candidates = (
            [(b"", self._first_codec)]
            if self.terms[0] not in _EXTENSIONS or _is_single(self.terms[0])
            else []
        )
        candidates += [_EXTENSIONS[term] for term in self.terms if term in _EXTENSIONS]
        for escape, codec in candidates:
            try:
                raw = text.encode(codec)
            except UnicodeEncodeError:
                continue
            if codec == "shift_jis" and len(raw) != len(text):
                continue  # JIS X 0201 alone has one byte for each character
            if codec == "iso2022_jp_1" and b"$B" in raw and "ISO 2022 IR 87" not in self.terms:
                continue
            if not escape and codec.startswith("iso2022") and self.terms[0] == "ISO 2022 IR 13":
                raw = raw.replace(b"\x1b(B", b"\x1b(J")
            return (b"\x1b" + escape if escape else b"") + raw
        return None


UTF_8 = CharacterSet((UTF_8_TERM,))


@lru_cache(maxsize=256)
def character_set(raw: bytes) -> CharacterSet:
    """Read an encoded Specific Character Set; terms are corrected for common slips of writing."""
    terms = tuple(_term(term) for term in raw.decode("ascii", "replace").rstrip("\0 ").split("\\"))
    return CharacterSet(terms if any(terms) else ())


def of_terms(terms: Iterable[str]) -> CharacterSet:
    """Make the set of already decoded terms."""
    return character_set("\\".join(terms).encode("ascii", "replace"))


def _term(text: str) -> str:
    term = text.strip().upper()
    if term in python_encoding or term in _EXTENSIONS:
        return term
    # ISO-IR 100, ISO IR 100, ISO_IR_100, ISO2022 IR 87 are seen in the field
    found = re.fullmatch(r"ISO[ _-]?(2022[ _-])?IR[ _-]?(\d+)", term)
    if found:
        return f"ISO 2022 IR {found[2]}" if found[1] else f"ISO_IR {found[2]}"
    return {"UTF-8": UTF_8_TERM, "UTF8": UTF_8_TERM}.get(term, "")


def _is_single(term: str) -> bool:
    return _EXTENSIONS[term][0][:1] in (b"-", b")")


def _delimiters(is_name: bool) -> str:
    return "\\^=" + _LINE_DELIMITERS if is_name else "\\" + _LINE_DELIMITERS


def _decode_iso_2022(raw: bytes, first_codec: str, is_name: bool) -> str:
    """Decode text with escape sequences; raise UnicodeError where it breaks their rules."""
    delimiters = frozenset(_delimiters(is_name).encode("ascii"))
    g0_escape, g0_codec, g1_codec = b"", None, first_codec
    parts: list[str] = []
    position = 0
    while position < len(raw):
        byte = raw[position]
        if byte == _ESCAPE:
            escape = raw[position + 1 : position + 4]
            if escape not in _G0_CODECS and escape not in _G1_CODECS:
                escape = escape[:2]
            if escape in _G0_CODECS:
                g0_escape, g0_codec = escape, _G0_CODECS[escape]
            elif escape in _G1_CODECS:
                g1_codec = _G1_CODECS[escape]
            else:
                raise UnicodeDecodeError("iso2022", raw, position, position + 1, "unknown escape sequence")
            position += 1 + len(escape)
            continue
        if byte <= 0x20 or (byte < 0x80 and g0_codec is None):
            parts.append(chr(byte))
            position += 1
            if byte in delimiters:
                g0_codec = None
                # The default repertoire has no G1; some writers rely on the one designated before.
                g1_codec = g1_codec if first_codec == "ascii" else first_codec
            continue
        is_left = byte < 0x80
        end = position + 1
        while end < len(raw) and raw[end] > 0x20 and (raw[end] < 0x80) == is_left:
            end += 1
        run = raw[position:end]
        if is_left:
            parts.append((b"\x1b" + g0_escape + run + b"\x1b(B").decode(str(g0_codec)))
        else:
            parts.append(run.decode(g1_codec))
        position = end
    return "".join(parts)
