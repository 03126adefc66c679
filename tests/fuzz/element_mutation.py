"""Changes encoded data sets by their elements, with true lengths, mostly."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from tests.fuzz.pdu_mutation import MutateBytes

_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_VRS = (
    b"AE", b"CS", b"DA", b"DS", b"FD", b"IS", b"LO", b"OB", b"PN", b"SQ", b"TM", b"UI", b"UN", b"US",
    b"UT", b"ZZ", b"\0\0",
)  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_TAGS = (
    0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080030, 0x00080052, 0x00080061, 0x00080060,
    0x00080008, 0x00081140, 0x00090010, 0x00091001, 0x00100010, 0x00100020, 0x00101000, 0x00104000,
    0x0020000D, 0x0020000E, 0x00200013, 0x00280010, 0x00281101, 0x0040A730, 0x60000010, 0x7FE00008,
    0x7FE00010, 0xFFFCFFFC, 0xFFFEE000,
)  # fmt: skip
_VALUES = (
    b"", b"*", b"?", b"1", b"1.2.3", b"A^B^C=D=E", b"^^^^", b"=", b"\\", b"a\\b\\c", b"*a*b*c*d*",
    b"[a-z]*", b"20240101-20241231", b"-20240101", b"20240101-", b"1030-", b"10:30", b"2024.01.01",
    b"20240101+0100", b"ISO_IR 192", b"ISO_IR 100", b"ISO 2022 IR 6\\ISO 2022 IR 87",
    b"\\ISO 2022 IR 149", b"GB18030", b"\x1b$B", b"\xff\xfe\xfd", b"\xe5\xb1\xb1", b"STUDY", b"SERIES",
    b"IMAGE", b"PATIENT", b"-0", b"1e308", b"nan", b"0" * 70, b"'; DROP", b"%", b"_",
)  # fmt: skip


@dataclass(frozen=True)
class _Encoding:
    is_implicit: bool
    order: str


@dataclass(frozen=True)
class _Element:
    tag: int
    vr: bytes
    value: bytes
    is_undefined: bool = False


def split(encoded: bytes, encoding: _Encoding) -> tuple[list[_Element], bytes]:
    """The elements, those inside of undefined lengths among them; and the bytes that are none."""
    elements = []
    position = 0
    order = encoding.order
    while len(encoded) - position >= 8:
        group, number = struct.unpack_from(order + "HH", encoded, position)
        vr, header_bytes = b"", 8
        if encoding.is_implicit or group == 0xFFFE:
            (length,) = struct.unpack_from(order + "L", encoded, position + 4)
        else:
            vr = encoded[position + 4 : position + 6]
            if vr in _LONG_VRS:
                if len(encoded) - position < 12:
                    break
                header_bytes = 12
                (length,) = struct.unpack_from(order + "L", encoded, position + 8)
            else:
                (length,) = struct.unpack_from(order + "H", encoded, position + 6)
        begin = position + header_bytes
        if length == _UNDEFINED:
            elements.append(_Element(group << 16 | number, vr, b"", True))
            position = begin
            continue
        if begin + length > len(encoded):
            break
        elements.append(_Element(group << 16 | number, vr, encoded[begin : begin + length]))
        position = begin + length
    return elements, encoded[position:]


def join(elements: Iterable[_Element], encoding: _Encoding) -> bytes:
    """Encode elements as ``split`` has read them."""
    return b"".join(_encoded(element, encoding, len(element.value)) for element in elements)


def _encoded(element: _Element, encoding: _Encoding, length: int) -> bytes:
    order = encoding.order
    length = _UNDEFINED if element.is_undefined else length & _UNDEFINED
    tag = struct.pack(order + "HH", element.tag >> 16, element.tag & 0xFFFF)
    if encoding.is_implicit or element.tag >> 16 == 0xFFFE:
        return tag + struct.pack(order + "L", length) + element.value
    if element.vr in _LONG_VRS:
        return tag + element.vr + b"\0\0" + struct.pack(order + "L", length) + element.value
    return tag + (element.vr or b"UN") + struct.pack(order + "H", min(length, 0xFFFF)) + element.value


class ElementMutator:
    """Changes an input that is ``prefix_bytes`` of choices and a data set.

    Parameters
    ----------
    encodings
        Whether VRs are absent, and the byte order, by the first byte of an input (from its end on again).
    """

    def __init__(
        self,
        corpus: Iterable[bytes],
        mutate_bytes: MutateBytes,
        *,
        prefix_bytes: int,
        encodings: tuple[tuple[bool, str], ...],
    ) -> None:
        self._mutate_bytes = mutate_bytes
        self._prefix_bytes = prefix_bytes
        self._encodings = [_Encoding(*encoding) for encoding in encodings]
        pool = {
            element
            for data in corpus
            if len(data) > prefix_bytes
            for element in split(data[prefix_bytes:], self._encoding(data))[0]
            if len(element.value) < 256
        }
        self._pool = sorted(pool, key=lambda element: (element.tag, element.value)) or [
            _Element(8, b"UI", b"1")
        ]

    def _encoding(self, data: bytes) -> _Encoding:
        return self._encodings[data[0] % len(self._encodings)]

    def __call__(self, data: bytes, max_bytes: int, random: Random) -> bytes:
        count = self._prefix_bytes
        if len(data) <= count or random.random() < 0.05:
            return self._mutate_bytes(data, random)[:max_bytes]
        if random.random() < 0.05:
            return (self._mutate_bytes(data[:count], random).ljust(count, b"\0")[:count] + data[count:])[
                :max_bytes
            ]
        encoding = self._encoding(data)
        elements, rest = split(data[count:], encoding)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            self._change(elements, encoding, random)
        encoded = join(elements, encoding)
        if random.random() < 0.03 and elements:
            at = random.randrange(len(elements))
            lie = len(elements[at].value) + random.choice((-2, -1, 1, 2, 8, 1 << 16, 1 << 31))
            encoded = (
                join(elements[:at], encoding)
                + _encoded(elements[at], encoding, lie)
                + join(elements[at + 1 :], encoding)
            )
        elif random.random() < 0.03:
            encoded = encoded[: random.randrange(len(encoded) + 1)]
        return (data[:count] + encoded + rest)[:max_bytes]

    def _change(self, elements: list[_Element], encoding: _Encoding, random: Random) -> None:
        deed = random.randrange(12)
        at = random.randrange(len(elements)) if elements else 0
        if not elements or deed == 0:
            elements.insert(at, random.choice(self._pool))
        elif deed == 1:
            del elements[at]
        elif deed == 2:
            elements.insert(random.randrange(len(elements) + 1), elements[at])
        elif deed == 3:
            elements[at] = replace(elements[at], tag=random.choice(_TAGS))
        elif deed == 4:
            elements[at] = replace(elements[at], vr=random.choice(_VRS))
        elif deed == 5:
            elements[at] = replace(elements[at], is_undefined=not elements[at].is_undefined)
        elif deed == 6:
            elements.insert(at, _Element(random.choice((_ITEM, _ITEM_END, _SEQUENCE_END)), b"", b""))
        elif deed == 7:
            elements[at : at + 1] = self._nested(elements[at], encoding, random)
        elif deed <= 9:
            elements[at] = replace(elements[at], value=self._other_text(elements[at].value, random))
        else:
            elements[at] = replace(elements[at], value=self._mutate_bytes(elements[at].value, random))

    def _other_text(self, value: bytes, random: Random) -> bytes:
        token = random.choice(_VALUES)
        place = random.randrange(len(value) + 1)
        text = random.choice((token, value + token, value[:place] + token + value[place:], token * 3))
        return text + b" " * (len(text) % 2)

    def _nested(self, inside: _Element, encoding: _Encoding, random: Random) -> list[_Element]:
        """A sequence with an item that holds the element, to a depth that may be too much."""
        tag = random.choice((0x00081140, 0x0040A730, 0x00091001))
        is_undefined = random.random() < 0.5
        elements = [inside]
        for _ in range(random.choice((1, 1, 2, 5, 12))):
            if is_undefined:
                begin = [_Element(tag, b"SQ", b"", True), _Element(_ITEM, b"", b"", True)]
                end = [_Element(_ITEM_END, b"", b""), _Element(_SEQUENCE_END, b"", b"")]
                elements = [*begin, *elements, *end]
            else:
                item = join([_Element(_ITEM, b"", join(elements, encoding))], encoding)
                elements = [_Element(tag, b"SQ", item)]
        return elements
