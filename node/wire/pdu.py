"""The protocol data units of the DICOM upper layer, as far as they are not negotiation (PS3.8 section 9.3).

A-ASSOCIATE-RQ, -AC and -RJ are ``negotiation.py``'s. Everything here is big endian, as the upper
layer always is; only the message inside a PDV has a transfer syntax.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from node.errors import ProtocolViolation

A_ASSOCIATE_RQ = 0x01
A_ASSOCIATE_AC = 0x02
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_RELEASE_RP = 0x06
A_ABORT = 0x07

PDU_HEADER_BYTES = 6
PDV_HEADER_BYTES = 6
# of A-RELEASE-RQ, A-RELEASE-RP and A-ABORT, after the header
FIXED_BODY_BYTES = 4
# PS3.8 table 9-22 and annex E.2: the bits of the message control header
PDV_IS_COMMAND = 0x01
PDV_IS_LAST = 0x02

# what stands in place of a PDU type where the peer speaks TLS and we do not (RFC 8446 section 5.1)
_TLS_HINTS = {
    0x16: ": TLS begins so, but this port is plain; TLS has a port of its own, where [node.tls] gives it one",
    0x15: ": TLS ends so; this port speaks TLS, so call it with tls = true",
}

PDU_HEADER = struct.Struct(">BxI")
# length of the item, presentation context, message control header (PS3.8 table 9-23)
PDV_HEADER = struct.Struct(">IBB")
# both, as a P-DATA-TF PDU begins
P_DATA_HEADERS = struct.Struct(">BxIIBB")
_A_ABORT = struct.Struct(">BxIxxBB")

RELEASE_RQ = PDU_HEADER.pack(A_RELEASE_RQ, 4) + bytes(4)
RELEASE_RP = PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4)


class AbortSource(IntEnum):
    """Who aborts (PS3.8 table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class Violation(ProtocolViolation):
    """The peer broke PS3.8 or PS3.7; ``reason`` is what our A-P-ABORT will say."""

    def __init__(self, message: str, reason: AbortReason) -> None:
        super().__init__(message)
        self.reason = reason


def abort(source: AbortSource, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> bytes:
    """Encode an A-ABORT PDU (PS3.8 section 9.3.8); the reason counts for the provider only."""
    said = reason if source is AbortSource.SERVICE_PROVIDER else AbortReason.NOT_SPECIFIED
    return _A_ABORT.pack(A_ABORT, 4, source, said)


def p_data_header(context_id: int, fragment_bytes: int, control: int) -> bytes:
    """Header of a P-DATA-TF PDU that holds one PDV with a fragment of ``fragment_bytes`` bytes."""
    return P_DATA_HEADERS.pack(P_DATA_TF, fragment_bytes + 6, fragment_bytes + 2, context_id, control)


def explain_unexpected(pdu_type: int, where: str) -> Violation:
    """Build the violation for a PDU that is unknown, or known but not allowed ``where`` we are."""
    if A_ASSOCIATE_RQ <= pdu_type <= A_ABORT:
        return Violation(
            f"PDU type {pdu_type:02X} is not allowed {where}",
            AbortReason.UNEXPECTED_PDU,
        )
    hint = _TLS_HINTS.get(pdu_type, "")
    return Violation(f"PDU type {pdu_type:02X} is unknown{hint}", AbortReason.UNRECOGNISED_PDU)


def describe_abort(body: bytes | memoryview) -> str:
    """Say in words who aborted and why; ``body`` is the A-ABORT PDU after its header."""
    source, reason = (body[2], body[3]) if len(body) >= 4 else (0, 0)
    if source != AbortSource.SERVICE_PROVIDER:
        return "aborted by the peer (A-ABORT)"
    known = reason in AbortReason._value2member_map_
    word = AbortReason(reason).name.lower().replace("_", " ") if known else f"reason {reason}"
    return f"aborted by the peer's upper layer (A-P-ABORT): {word}"
