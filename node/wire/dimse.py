"""Command sets: what a DIMSE message asks or answers (PS3.7 section 6.3.1 and annex E).

A command set is always Implicit VR Little Endian and holds group 0000 alone, so a small codec of
our own is enough; it does not know sequences because a command set has none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from node.wire.pdu import AbortReason, Violation

# PS3.7 table E.1-1, Command Field
C_STORE_RQ = 0x0001
C_GET_RQ = 0x0010
C_FIND_RQ = 0x0020
C_MOVE_RQ = 0x0021
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_GET_RQ = 0x0110
N_SET_RQ = 0x0120
N_ACTION_RQ = 0x0130
N_CREATE_RQ = 0x0140
N_DELETE_RQ = 0x0150
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000

NO_DATA_SET = 0x0101
WITH_DATA_SET = 0x0001

OPERATIONS = {
    C_STORE_RQ: "C-STORE",
    C_GET_RQ: "C-GET",
    C_FIND_RQ: "C-FIND",
    C_MOVE_RQ: "C-MOVE",
    C_ECHO_RQ: "C-ECHO",
    N_EVENT_REPORT_RQ: "N-EVENT-REPORT",
    N_GET_RQ: "N-GET",
    N_SET_RQ: "N-SET",
    N_ACTION_RQ: "N-ACTION",
    N_CREATE_RQ: "N-CREATE",
    N_DELETE_RQ: "N-DELETE",
}

# PS3.7 section 9.3 and 10.3: what each request must carry besides Message ID
REQUIRED_KEYWORDS = {
    C_STORE_RQ: ("AffectedSOPClassUID", "AffectedSOPInstanceUID"),
    C_GET_RQ: ("AffectedSOPClassUID",),
    C_FIND_RQ: ("AffectedSOPClassUID",),
    C_MOVE_RQ: ("AffectedSOPClassUID", "MoveDestination"),
    N_EVENT_REPORT_RQ: ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "EventTypeID"),
    N_ACTION_RQ: ("RequestedSOPClassUID", "RequestedSOPInstanceUID", "ActionTypeID"),
}

_ELEMENTS: dict[str, tuple[int, str]] = {
    "AffectedSOPClassUID": (0x0002, "UI"),
    "RequestedSOPClassUID": (0x0003, "UI"),
    "CommandField": (0x0100, "US"),
    "MessageID": (0x0110, "US"),
    "MessageIDBeingRespondedTo": (0x0120, "US"),
    "MoveDestination": (0x0600, "AE"),
    "Priority": (0x0700, "US"),
    "CommandDataSetType": (0x0800, "US"),
    "Status": (0x0900, "US"),
    "OffendingElement": (0x0901, "AT"),
    "ErrorComment": (0x0902, "LO"),
    "ErrorID": (0x0903, "US"),
    "AffectedSOPInstanceUID": (0x1000, "UI"),
    "RequestedSOPInstanceUID": (0x1001, "UI"),
    "EventTypeID": (0x1002, "US"),
    "AttributeIdentifierList": (0x1005, "AT"),
    "ActionTypeID": (0x1008, "US"),
    "NumberOfRemainingSuboperations": (0x1020, "US"),
    "NumberOfCompletedSuboperations": (0x1021, "US"),
    "NumberOfFailedSuboperations": (0x1022, "US"),
    "NumberOfWarningSuboperations": (0x1023, "US"),
    "MoveOriginatorApplicationEntityTitle": (0x1030, "AE"),
    "MoveOriginatorMessageID": (0x1031, "US"),
}
_KEYWORDS = {number: (keyword, vr) for keyword, (number, vr) in _ELEMENTS.items()}
_NUMBERS = {keyword: number for keyword, (number, _) in _ELEMENTS.items()}
_HEADER = struct.Struct("<HHI")
_US = struct.Struct("<H")
_US_ELEMENT = struct.Struct("<HHIH")
_GROUP_LENGTH = struct.Struct("<HHII")
_ERROR_COMMENT_CHARACTERS = 64


class Command(dict[str, Any]):
    """A command set: keyword to value, also as attributes (``command.MessageID``).

    UIDs, AE titles and texts are ``str``, numbers ``int``, tags tuples of ``int``. A keyword that
    the peer did not send is absent: the attribute raises AttributeError, ``get`` gives None.
    """

    def __getattr__(self, keyword: str) -> Any:
        try:
            return self[keyword]
        except KeyError:
            raise AttributeError(f"the command set has no {keyword}") from None

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows (PS3.7 section E.1, Command Data Set Type)."""
        return bool(self.get("CommandDataSetType", NO_DATA_SET) != NO_DATA_SET)


def encode(command: Command) -> bytes:
    """Encode a command set with its group length (0000,0000); elements whose value is None are left out.

    Raises
    ------
    KeyError
        For a keyword that is not in PS3.7 table E.1-1.
    """
    parts = [b""]  # the group length, when the rest is known
    for keyword in sorted(command, key=_NUMBERS.__getitem__):
        value = command[keyword]
        if value is None:
            continue
        number, vr = _ELEMENTS[keyword]
        if vr == "US":
            parts.append(_US_ELEMENT.pack(0, number, 2, value))
            continue
        encoded = _encode_tags(value) if vr == "AT" else _encode_text(vr, value)
        parts.append(_HEADER.pack(0, number, len(encoded)))
        parts.append(encoded)
    parts[0] = _GROUP_LENGTH.pack(0, 0, 4, sum(map(len, parts)))
    return b"".join(parts)


def _encode_text(vr: str, value: Any) -> bytes:
    text = str(value).encode("ascii", "replace")
    if len(text) % 2:
        text += b"\0" if vr == "UI" else b" "
    return text


def _encode_tags(value: int | Iterable[int]) -> bytes:
    return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in _tags(value))


def _tags(value: int | Iterable[int]) -> Iterable[int]:
    return (value,) if isinstance(value, int) else value


def decode(encoded: bytes) -> Command:
    """Decode a command set; elements of group 0000 that PS3.7 does not name are passed over.

    Raises
    ------
    Violation
        When it is no command set: another group, a wrong length, no Command Field.
    """
    command = Command()
    offset, end = 0, len(encoded)
    while offset < end:
        if offset + 8 > end:
            raise _malformed("ends inside an element")
        group, number, length = _HEADER.unpack_from(encoded, offset)
        begin = offset + 8
        offset = begin + length
        if group != 0:
            raise _malformed(f"holds an element of group {group:04X}")
        if offset > end:
            raise _malformed(f"element (0000,{number:04X}) is longer than the command set")
        known = _KEYWORDS.get(number)
        if known is None or not length:
            continue
        keyword, vr = known
        if vr == "US":
            if length < 2:
                raise _malformed(f"element (0000,{number:04X}) is too short")
            command[keyword] = _US.unpack_from(encoded, begin)[0]
        elif vr == "AT":
            pairs = struct.iter_unpack("<HH", encoded[begin : begin + length // 4 * 4])
            command[keyword] = tuple(group << 16 | element for group, element in pairs)
        else:
            text = encoded[begin:offset].decode("ascii", "replace").strip(" \0")
            if text:
                command[keyword] = text
    if "CommandField" not in command:
        raise _malformed("has no Command Field (0000,0100)")
    return command


def _malformed(how: str) -> Violation:
    return Violation(f"the command set {how}", AbortReason.INVALID_PDU_PARAMETER_VALUE)


def error_comment(text: str) -> str:
    r"""Cut ``text`` to what Error Comment (0000,0902) can hold: LO, 64 characters, no ``\``, ASCII."""
    plain = text.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    plain = "".join(character if character.isprintable() else " " for character in plain).strip()
    if len(plain) > _ERROR_COMMENT_CHARACTERS:
        plain = plain[: _ERROR_COMMENT_CHARACTERS - 3].rstrip() + "..."
    return plain
