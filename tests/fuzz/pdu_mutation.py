"""Changes conversations by their structure: PDUs, PDVs, elements of command sets; with true lengths, mostly.

Bytes changed at random break a length nearly always, and then nothing behind it is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from random import Random

from tests.fuzz.sent_pdus import ABORT, P_DATA, RELEASE_RP, RELEASE_RQ

MutateBytes = Callable[[bytes, Random], bytes]

_PDU = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")
_CHOICE_BYTES = 2
_MOST_POOL = 2000
_FIXED = tuple(_PDU.pack(kind, 0, 4) + bytes(4) for kind in (RELEASE_RQ, RELEASE_RP, ABORT))
_INTERESTING = (0, 1, 2, 3, 5, 6, 12, 0x7F, 0x80, 0xFF, 0x100, 0x101, 0x1000, 0x4000, 0x7FFF, 0xFFFF, 0x8000)
_COMMAND_FIELDS = (
    0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0130, 0x0FFF,
    0x8001, 0x8010, 0x8020, 0x8021, 0x8030, 0x8100, 0x8130,
)  # fmt: skip


def split(conversation: bytes) -> list[bytes]:
    """The PDUs of a conversation; the last piece is whatever is no whole PDU."""
    parts = []
    position = 0
    while len(conversation) - position >= 6:
        (length,) = struct.unpack_from(">I", conversation, position + 2)
        end = min(position + 6 + length, len(conversation))
        parts.append(conversation[position:end])
        position = end
    if position < len(conversation):
        parts.append(conversation[position:])
    return parts


class PduMutator:
    """Changes an input of ``PduTarget`` in one to three places.

    Parameters
    ----------
    corpus
        Inputs from which PDUs are taken over.
    mutate_bytes
        Changes bytes of which nothing is known.
    """

    def __init__(self, corpus: Iterable[bytes], mutate_bytes: MutateBytes) -> None:
        pool = {part for data in corpus for part in split(data[_CHOICE_BYTES:])[1:] if len(part) < 2048}
        self._pool: Sequence[bytes] = sorted(pool)[:_MOST_POOL] + list(_FIXED)
        self._mutate_bytes = mutate_bytes

    def __call__(self, data: bytes, max_bytes: int, random: Random) -> bytes:
        choices, parts = data[:_CHOICE_BYTES], split(data[_CHOICE_BYTES:])
        if len(choices) < _CHOICE_BYTES or not parts or random.random() < 0.05:
            return self._mutate_bytes(data, random)[:max_bytes]
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            choices = self._change(choices, parts, random)
        return (choices + b"".join(parts))[:max_bytes]

    def _change(self, choices: bytes, parts: list[bytes], random: Random) -> bytes:
        deed = random.randrange(16)
        # the association itself is left as it is, mostly
        at = 0 if random.random() < 0.05 or len(parts) == 1 else random.randrange(1, len(parts))
        if not parts or deed == 0:
            parts.insert(random.randrange(len(parts) + 1) if parts else 0, random.choice(self._pool))
        elif deed == 1 and len(parts) > 1:
            del parts[at]
        elif deed == 2:
            parts.insert(random.randrange(1, len(parts) + 1), parts[at])
        elif deed == 3 and len(parts) > 2:
            other = random.randrange(1, len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif deed == 4:
            return _other_choices(choices, random)
        elif deed == 5:
            parts[at] = _other_header(parts[at], random)
        elif deed == 6:
            parts[at] = parts[at][: random.randrange(len(parts[at]) + 1)]
        elif deed <= 8 or not parts[at] or parts[at][0] != P_DATA:
            kind = parts[at][0] if parts[at] else P_DATA
            body = self._mutate_bytes(parts[at][6:], random)
            length = len(body) if random.random() < 0.9 else len(body) + random.choice((-1, 1, 6, 1 << 20))
            parts[at] = _PDU.pack(kind, 0, length & 0xFFFFFFFF) + body
        else:
            parts[at : at + 1] = self._other_data(parts[at], deed, random)
        return choices

    def _other_data(self, part: bytes, deed: int, random: Random) -> list[bytes]:
        """Another P-DATA-TF, or several."""
        if len(part) < 12:
            return [part]
        length, context_id, control = _PDV.unpack_from(part, 6)
        fragment, rest = part[12 : 10 + length], part[10 + length :]
        if deed == 9:
            context_id = (context_id + random.choice((-2, -1, 1, 2, 4))) & 0xFF
        elif deed == 10:
            control = control ^ random.choice((1, 2, 3, 4, 0x80))
        elif deed <= 12 and fragment:
            cut = random.randrange(len(fragment) + 1)
            first = _pdv(context_id, control & ~2, fragment[:cut])
            second = _pdv(context_id, control, fragment[cut:])
            return (
                [_pdu(first + second + rest)] if random.random() < 0.5 else [_pdu(first), _pdu(second + rest)]
            )
        elif control & 1:
            fragment = self._other_command(fragment, random)
        else:
            fragment = self._mutate_bytes(fragment, random)
        return [_pdu(_pdv(context_id, control, fragment) + rest)]

    def _other_command(self, encoded: bytes, random: Random) -> bytes:
        elements = []
        position = 0
        while len(encoded) - position >= 8:
            group, number, length = _ELEMENT.unpack_from(encoded, position)
            elements.append((group, number, encoded[position + 8 : position + 8 + length]))
            position += 8 + length
        if not elements:
            return self._mutate_bytes(encoded, random)
        at = random.randrange(len(elements))
        group, number, value = elements[at]
        deed = random.randrange(6)
        if deed == 0:
            del elements[at]
        elif deed == 1:
            elements.insert(random.randrange(len(elements) + 1), elements[at])
        elif deed == 2:
            elements[at] = (group, random.choice((0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000)), value)
        elif number == 0x0100 and deed < 5:
            elements[at] = (group, number, struct.pack("<H", random.choice(_COMMAND_FIELDS)))
        elif len(value) == 2:
            elements[at] = (group, number, struct.pack("<H", random.choice(_INTERESTING)))
        else:
            elements[at] = (group, number, self._mutate_bytes(value, random))
        return b"".join(_ELEMENT.pack(group, number, len(value)) + value for group, number, value in elements)


def _pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    return _PDV.pack(len(fragment) + 2, context_id, control & 0xFF) + fragment


def _pdu(body: bytes) -> bytes:
    return _PDU.pack(P_DATA, 0, len(body)) + body


def _other_choices(choices: bytes, random: Random) -> bytes:
    """Another end, other pieces, other turns, or another script."""
    first, second = choices
    deed = random.randrange(4)
    if deed == 0:
        first = first & ~0x06 | random.randrange(3) << 1
    elif deed == 1:
        first = first & ~0x18 | random.randrange(4) << 3
    elif deed == 2:
        first = first & ~0xC0 | random.randrange(3) << 6
    else:
        second = random.randrange(8)
    return bytes([first, second])


def _other_header(part: bytes, random: Random) -> bytes:
    if len(part) < 6:
        return part
    kind, reserved, length = _PDU.unpack_from(part)
    if random.random() < 0.5:
        kind = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 0x16, 0xFF))
    else:
        length = random.choice((0, 1, 5, length - 1, length + 1, length + 6, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
    return _PDU.pack(kind, reserved, length & 0xFFFFFFFF) + part[6:]


def change_bytes(data: bytes, random: Random) -> bytes:
    """Change a few bytes at random; for where there is no better way."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(changed) + 1)
        deed = random.randrange(5)
        if deed == 0 and changed:
            del changed[at : at + random.choice((1, 1, 2, 4, 16))]
        elif deed == 1:
            changed[at:at] = bytes(random.randrange(256) for _ in range(random.choice((1, 2, 4))))
        elif deed == 2 and changed:
            begin = random.randrange(len(changed))
            changed[at:at] = changed[begin : begin + random.choice((1, 2, 4, 16))]
        elif at < len(changed):
            changed[at] = random.choice(
                (random.randrange(256), changed[at] ^ 1 << random.randrange(8), 0, 0xFF)
            )
    return bytes(changed)
