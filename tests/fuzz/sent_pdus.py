"""What the node has sent, held against PS3.8 section 9.3 and PS3.7 by a reader of its own.

It shares no code with ``node/wire``.
"""

from __future__ import annotations

import struct

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
_LAST_OF_ALL = (ASSOCIATE_RJ, ABORT)


def pdus(encoded: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each PDU; fails where bytes are left over."""
    found = []
    position = 0
    while position < len(encoded):
        assert len(encoded) - position >= 6, "a PDU header is cut short"
        kind, reserved, length = struct.unpack_from(">BBI", encoded, position)
        assert reserved == 0
        assert position + 6 + length <= len(encoded), "a PDU is cut short"
        found.append((kind, encoded[position + 6 : position + 6 + length]))
        position += 6 + length
    return found


def check(encoded: bytes, *, is_requestor: bool, max_pdu_bytes: int, is_cut: bool = False) -> list[int]:
    """Check all that one side of an association has sent; return the types of its PDUs.

    Parameters
    ----------
    max_pdu_bytes
        What the peer takes; 0 is no limit.
    is_cut
        The connection may have ended in the middle of a message.
    """
    sent = pdus(encoded)
    kinds = [kind for kind, _ in sent]
    first = ASSOCIATE_RQ if is_requestor else ASSOCIATE_AC
    message: tuple[int, int, bytes] | None = None
    expects_data_set = 0
    for number, (kind, body) in enumerate(sent):
        if number == 0:
            assert kind in ((first,) if is_requestor else (first, ASSOCIATE_RJ, ABORT)), f"begins with {kind}"
        else:
            assert kind in (P_DATA, RELEASE_RQ, RELEASE_RP, ABORT), f"PDU type {kind} inside"
            assert kinds[number - 1] not in _LAST_OF_ALL or kind == ABORT, "goes on after its end"
        if kind in (RELEASE_RQ, RELEASE_RP, ABORT, ASSOCIATE_RJ):
            assert len(body) == 4
        if kind in (RELEASE_RQ, RELEASE_RP):
            assert body == bytes(4)
            assert message is None, "a release inside a message"
            assert not expects_data_set, "a release before the data set"
        if kind == ABORT:
            assert body[2] in (0, 2)
            assert body[3] in (0, 1, 2, 4, 5, 6)
            assert body[2] == 2 or body[3] == 0
        if kind == P_DATA:
            assert not {RELEASE_RP, ASSOCIATE_RJ, ABORT} & set(kinds[:number]), "data after the end"
            assert not max_pdu_bytes or len(body) <= max(max_pdu_bytes, 8), "longer than the peer takes"
            assert len(body) >= 6
            length, context_id, control = struct.unpack_from(">IBB", body)
            assert length == len(body) - 4, "one PDV for each PDU is what we send"
            assert context_id % 2 == 1
            assert control in (0, 1, 2, 3)
            if message is None:
                assert bool(control & 1) != bool(expects_data_set), "command and data set alternate"
                assert expects_data_set in (0, context_id)
                message = (context_id, control & 1, body[6:])
            else:
                assert message[:2] == (context_id, control & 1), "a message changes in its middle"
                message = (*message[:2], message[2] + body[6:])
            if control & 2:
                expects_data_set = context_id if control & 1 and _has_data_set(message[2]) else 0
                message = None
    assert is_cut or ABORT in kinds or (message is None and not expects_data_set), "ends inside a message"
    return kinds


def _has_data_set(command: bytes) -> bool:
    """Check a command set (PS3.7 section 6.3.1); whether a data set follows."""
    elements = {}
    position, before = 0, -1
    while position < len(command):
        group, number, length = struct.unpack_from("<HHI", command, position)
        assert group == 0
        assert number > before, "elements are in no order"
        assert position + 8 + length <= len(command)
        elements[number] = command[position + 8 : position + 8 + length]
        position, before = position + 8 + length, number
    assert all(len(value) % 2 == 0 for value in elements.values())
    assert struct.unpack("<I", elements[0]) == (len(command) - 12,)
    assert len(elements[0x0100]) == 2
    return elements[0x0800] != b"\x01\x01"
