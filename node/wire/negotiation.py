"""Association negotiation: A-ASSOCIATE-RQ, -AC and -RJ (PS3.8 section 9.3, PS3.7 annex D).

The only file that touches the inside of pynetdicom, whose PDU classes encode and decode these three.
Everything else sees the dataclasses below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import pdu as pynetdicom_pdu
from pynetdicom import pdu_items

from node.storage.archive import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.undecodable import UNDECODABLE
from node.wire import pdu
from node.wire.contexts import (
    ACCEPTANCE,
    APPLICATION_CONTEXT,
    AcceptedContext,
    Admission,
    AssociationRequest,
    ProposedContext,
    Rejection,
    RequestedContext,
)
from node.wire.extended_negotiation import CommonExtension
from node.wire.pdu import AbortReason, Violation

MOST_CONTEXTS = 128

_USERNAME = 1
_ITEM_HEADER = struct.Struct(">BxH")
_USER_INFORMATION = 0x50
_FIXED_FIELDS_BYTES = 74
# what pynetdicom's decoders raise on bytes that are no A-ASSOCIATE PDU
_DECODING_ERRORS = (*UNDECODABLE, AssertionError)


# --- encoding and decoding -----------------------------------------------------


def decode_request(encoded: bytes, peer_address: str) -> AssociationRequest:
    """Decode an A-ASSOCIATE-RQ PDU, header included.

    Raises
    ------
    Violation
        When it is not one; items of unknown type are passed over, as PS3.8 section 9.3.1 says.
    """
    decoded = pynetdicom_pdu.A_ASSOCIATE_RQ()
    _decode(decoded, encoded, "A-ASSOCIATE-RQ")
    try:
        user = decoded.user_information
        data: list[Any] = [] if user is None else user.user_data
        contexts = tuple(
            RequestedContext(
                int(item.context_id),
                str(item.abstract_syntax or ""),
                tuple(str(syntax) for syntax in item.transfer_syntax if syntax),
            )
            for item in decoded.presentation_context
        )
        identity = next(_of(pdu_items.UserIdentitySubItemRQ, data), None)
        request = AssociationRequest(
            calling_ae_title=decoded.calling_ae_title.strip(),
            called_ae_title=decoded.called_ae_title.strip(),
            peer_address=peer_address,
            application_context_uid=str(decoded.application_context_name or ""),
            contexts=contexts,
            roles=_roles_of(data),
            extended={
                str(item.sop_class_uid): bytes(item.service_class_application_information or b"")
                for item in _of(pdu_items.SOPClassExtendedNegotiationSubItem, data)
            },
            common_extended={
                str(item.sop_class_uid): CommonExtension(
                    str(item.service_class_uid or ""),
                    tuple(map(str, item.related_general_sop_class_identification)),
                )
                for item in _of(pdu_items.SOPClassCommonExtendedNegotiationSubItem, data)
            },
            proposes_asynchronous_operations=any(_of(pdu_items.AsynchronousOperationsWindowSubItem, data)),
            max_pdu_bytes=int((user.maximum_length if user else 0) or 0),
            protocol_version=int(decoded.protocol_version),
            implementation_version_name=str((user.implementation_version_name if user else "") or ""),
            wants_username_confirmed=identity is not None
            and identity.user_identity_type == _USERNAME
            and bool(identity.positive_response_requested),
        )
    except _DECODING_ERRORS as error:
        raise _undecodable("A-ASSOCIATE-RQ") from error
    numbers = [context.context_id for context in contexts]
    if len(set(numbers)) != len(numbers) or any(number % 2 == 0 for number in numbers):
        raise _undecodable("A-ASSOCIATE-RQ with unique, odd presentation context IDs")
    return request


def encode_acceptance(encoded_request: bytes, admission: Admission, *, max_pdu_bytes: int) -> bytes:
    """Encode the A-ASSOCIATE-AC that answers the PDU ``encoded_request`` (PS3.8 section 9.3.3)."""
    items: list[Any] = [_application_context()]
    for result in admission.results:
        item = pdu_items.PresentationContextItemAC()
        item.presentation_context_id = result.context_id
        item.result_reason = result.result
        item.transfer_syntax_sub_item = [_transfer_syntax(result.transfer_syntax_uid)]
        items.append(item)
    more: list[Any] = []
    if admission.asynchronous_window is not None:
        window = pdu_items.AsynchronousOperationsWindowSubItem()
        window.maximum_number_operations_invoked = admission.asynchronous_window[0]
        window.maximum_number_operations_performed = admission.asynchronous_window[1]
        more.append(window)
    for sop_class_uid, information in admission.extended.items():
        extended = pdu_items.SOPClassExtendedNegotiationSubItem()
        extended.sop_class_uid = sop_class_uid
        extended.service_class_application_information = information
        more.append(extended)
    items.append(_user_information(max_pdu_bytes, admission.roles, more))
    answer = pynetdicom_pdu.A_ASSOCIATE_AC()
    answer.variable_items = items
    encoded = bytearray(answer.encode())
    # both AE titles and the reserved field come back as they were received (PS3.8 table 9-17)
    encoded[10:_FIXED_FIELDS_BYTES] = encoded_request[10:_FIXED_FIELDS_BYTES]
    return bytes(encoded)


def confirm_username(encoded_acceptance: bytes) -> bytes:
    """Add the positive response that a requestor with a username alone has asked for (PS3.7 D.3.3.7).

    Only a bare username is confirmed, because there is nothing in it that would have to be proven.
    """
    item = _ITEM_HEADER.pack(0x59, 2) + bytes(2)
    # the User Information item is the last one; its length and that of the PDU grow
    offset = _FIXED_FIELDS_BYTES
    while True:
        kind, length = _ITEM_HEADER.unpack_from(encoded_acceptance, offset)
        if kind == _USER_INFORMATION:
            break
        offset += 4 + length
    grown = bytearray(encoded_acceptance) + item
    _ITEM_HEADER.pack_into(grown, offset, kind, length + len(item))
    pdu.PDU_HEADER.pack_into(grown, 0, pdu.A_ASSOCIATE_AC, len(grown) - pdu.PDU_HEADER_BYTES)
    return bytes(grown)


def encode_rejection(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    answer = pynetdicom_pdu.A_ASSOCIATE_RJ()
    answer.result = rejection.result
    answer.source = rejection.source
    answer.reason_diagnostic = rejection.reason
    return bytes(answer.encode())


def encode_request(
    calling_ae_title: str, called_ae_title: str, contexts: Sequence[ProposedContext], *, max_pdu_bytes: int
) -> bytes:
    """Encode an A-ASSOCIATE-RQ whose contexts have the ids 1, 3, 5 ... (PS3.8 section 9.3.2).

    Raises
    ------
    ValueError
        For no context or more than 128, and for AE titles or UIDs that cannot be encoded.
    """
    if not 1 <= len(contexts) <= MOST_CONTEXTS:
        raise ValueError(f"an association needs 1 to {MOST_CONTEXTS} presentation contexts")
    items: list[Any] = [_application_context()]
    roles: dict[str, tuple[bool, bool]] = {}
    for index, context in enumerate(contexts):
        item = pdu_items.PresentationContextItemRQ()
        item.presentation_context_id = 2 * index + 1
        abstract = pdu_items.AbstractSyntaxSubItem()
        abstract.abstract_syntax_name = context.abstract_syntax_uid
        item.abstract_transfer_syntax_sub_items = [
            abstract,
            *map(_transfer_syntax, context.transfer_syntax_uids),
        ]
        items.append(item)
        if context.scp_role:
            roles[context.abstract_syntax_uid] = context.roles
    items.append(_user_information(max_pdu_bytes, roles))
    request = pynetdicom_pdu.A_ASSOCIATE_RQ()
    request.calling_ae_title = calling_ae_title
    request.called_ae_title = called_ae_title
    request.variable_items = items
    return bytes(request.encode())


@dataclass(frozen=True)
class Acceptance:
    """What the peer's A-ASSOCIATE-AC grants."""

    contexts: Mapping[int, AcceptedContext]
    max_pdu_bytes: int


def decode_acceptance(encoded: bytes, contexts: Sequence[ProposedContext]) -> Acceptance:
    """Decode the A-ASSOCIATE-AC that answers ``contexts``, as ``encode_request`` numbered them.

    Raises
    ------
    Violation
        When it is not one.
    """
    decoded = pynetdicom_pdu.A_ASSOCIATE_AC()
    _decode(decoded, encoded, "A-ASSOCIATE-AC")
    accepted: dict[int, AcceptedContext] = {}
    try:
        user = decoded.user_information
        roles = _roles_of([] if user is None else user.user_data)
        for item in decoded.presentation_context:
            number = int(item.context_id)
            if item.result != ACCEPTANCE or number % 2 == 0 or number // 2 >= len(contexts):
                continue
            proposed = contexts[number // 2]
            # PS3.7 section D.3.3.4: without an answer the default roles hold
            granted = roles.get(proposed.abstract_syntax_uid) if proposed.scp_role else None
            is_scu, is_scp = granted or (True, False)
            if granted:  # never more than was proposed
                is_scu, is_scp = is_scu and proposed.roles[0], is_scp and proposed.roles[1]
            syntax = str(item.transfer_syntax)
            if syntax in proposed.transfer_syntax_uids:
                accepted[number] = AcceptedContext(
                    number, proposed.abstract_syntax_uid, syntax, is_scu, is_scp
                )
        return Acceptance(accepted, int((user.maximum_length if user else 0) or 0))
    except _DECODING_ERRORS as error:
        raise _undecodable("A-ASSOCIATE-AC") from error


def decode_rejection(encoded: bytes) -> Rejection:
    """Decode an A-ASSOCIATE-RJ; Violation when it is not one."""
    decoded = pynetdicom_pdu.A_ASSOCIATE_RJ()
    _decode(decoded, encoded, "A-ASSOCIATE-RJ")
    result, source, reason = int(decoded.result), int(decoded.source), int(decoded.reason_diagnostic)
    try:
        explanation = str(decoded.reason_str)
    except _DECODING_ERRORS:
        explanation = f"source {source}, reason {reason}"
    return Rejection(result, source, reason, explanation)


def _decode(target: Any, encoded: bytes, what: str) -> None:
    try:
        target.decode(_without_unknown_items(encoded))
    except _DECODING_ERRORS as error:
        raise _undecodable(what) from error


def _undecodable(what: str) -> Violation:
    return Violation(f"not a valid {what}", AbortReason.INVALID_PDU_PARAMETER_VALUE)


def _without_unknown_items(encoded: bytes) -> bytes:
    if encoded[0] == pdu.A_ASSOCIATE_RJ:
        return encoded
    if len(encoded) < _FIXED_FIELDS_BYTES:
        raise ValueError("shorter than its fixed fields")
    return encoded[:_FIXED_FIELDS_BYTES] + _known_items(encoded[_FIXED_FIELDS_BYTES:])


def _known_items(encoded: bytes, *, is_inside: bool = False) -> bytes:
    """What pynetdicom knows of items; ``is_inside`` of those in User Information, which holds no other."""
    known = []
    offset = 0
    while offset < len(encoded):
        kind, length = _ITEM_HEADER.unpack_from(encoded, offset)
        end = offset + 4 + length
        if end > len(encoded):
            raise ValueError("an item is longer than its PDU")
        if kind == _USER_INFORMATION:
            if not is_inside:
                inner = _known_items(encoded[offset + 4 : end], is_inside=True)
                known.append(_ITEM_HEADER.pack(kind, len(inner)) + inner)
        elif kind in pdu_items.PDU_ITEM_TYPES:
            known.append(encoded[offset:end])
        offset = end
    return b"".join(known)


def _roles_of(user_data: Iterable[Any]) -> dict[str, tuple[bool, bool]]:
    return {
        str(item.sop_class_uid): (bool(item.scu_role), bool(item.scp_role))
        for item in _of(pdu_items.SCP_SCU_RoleSelectionSubItem, user_data)
    }


def _of(kind: type[Any], user_data: Iterable[Any]) -> Iterator[Any]:
    return (item for item in user_data if isinstance(item, kind))


def _application_context() -> Any:
    item = pdu_items.ApplicationContextItem()
    item.application_context_name = APPLICATION_CONTEXT
    return item


def _transfer_syntax(transfer_syntax_uid: str) -> Any:
    item = pdu_items.TransferSyntaxSubItem()
    item.transfer_syntax_name = transfer_syntax_uid
    return item


def _user_information(
    max_pdu_bytes: int, roles: Mapping[str, tuple[bool, bool]], more: Sequence[Any] = ()
) -> Any:
    maximum = pdu_items.MaximumLengthSubItem()
    maximum.maximum_length_received = max_pdu_bytes
    implementation = pdu_items.ImplementationClassUIDSubItem()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    data: list[Any] = [maximum, implementation]
    for abstract_syntax_uid, (is_scu, is_scp) in roles.items():
        role = pdu_items.SCP_SCU_RoleSelectionSubItem()
        role.sop_class_uid = abstract_syntax_uid
        role.scu_role = int(is_scu)
        role.scp_role = int(is_scp)
        data.append(role)
    version = pdu_items.ImplementationVersionNameSubItem()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    data.append(version)
    data.extend(more)
    item = pdu_items.UserInformationItem()
    item.user_data = data
    return item
