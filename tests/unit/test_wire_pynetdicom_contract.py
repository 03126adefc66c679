"""What ``negotiation.py`` relies on inside pynetdicom: another version of it must be looked at first."""

from __future__ import annotations

import ast
import re
import struct
import tomllib
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pynetdicom import pdu as pynetdicom_pdu
from pynetdicom import pdu_items

from node.storage.archive import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.wire import negotiation
from node.wire.contexts import ProposedContext, Rejection, negotiate
from node.wire.extended_negotiation import CommonExtension
from tests.support import scripted_peer as peer

ROOT = Path(__file__).parents[2]
CT, FIND = peer.CT_IMAGE_STORAGE, peer.STUDY_ROOT_FIND
EXPLICIT, IMPLICIT = peer.EXPLICIT_VR_LITTLE_ENDIAN, peer.IMPLICIT_VR_LITTLE_ENDIAN
PRIVATE = "1.2.840.113619.4.26"

# The classes that are used, and what is read from or written to an instance of each.
RELIED_ON: dict[Any, set[str]] = {
    pynetdicom_pdu.A_ASSOCIATE_RQ: {
        "application_context_name", "called_ae_title", "calling_ae_title", "decode", "encode",
        "presentation_context", "protocol_version", "user_information", "variable_items",
    },
    pynetdicom_pdu.A_ASSOCIATE_AC: {
        "decode", "encode", "presentation_context", "user_information", "variable_items",
    },
    pynetdicom_pdu.A_ASSOCIATE_RJ: {
        "decode", "encode", "reason_diagnostic", "reason_str", "result", "source",
    },
    pdu_items.ApplicationContextItem: {"application_context_name"},
    pdu_items.PresentationContextItemRQ: {
        "abstract_syntax", "abstract_transfer_syntax_sub_items", "context_id", "presentation_context_id",
        "transfer_syntax",
    },
    pdu_items.PresentationContextItemAC: {
        "context_id", "presentation_context_id", "result", "result_reason", "transfer_syntax",
        "transfer_syntax_sub_item",
    },
    pdu_items.AbstractSyntaxSubItem: {"abstract_syntax_name"},
    pdu_items.TransferSyntaxSubItem: {"transfer_syntax_name"},
    pdu_items.UserInformationItem: {"implementation_version_name", "maximum_length", "user_data"},
    pdu_items.MaximumLengthSubItem: {"maximum_length_received"},
    pdu_items.ImplementationClassUIDSubItem: {"implementation_class_uid"},
    pdu_items.ImplementationVersionNameSubItem: {"implementation_version_name"},
    pdu_items.AsynchronousOperationsWindowSubItem: {
        "maximum_number_operations_invoked", "maximum_number_operations_performed",
    },
    pdu_items.SCP_SCU_RoleSelectionSubItem: {"scp_role", "scu_role", "sop_class_uid"},
    pdu_items.SOPClassExtendedNegotiationSubItem: {"service_class_application_information", "sop_class_uid"},
    pdu_items.SOPClassCommonExtendedNegotiationSubItem: {
        "related_general_sop_class_identification", "service_class_uid", "sop_class_uid",
    },
    pdu_items.UserIdentitySubItemRQ: {"positive_response_requested", "user_identity_type"},
}  # fmt: skip
ITEM_TYPES = {
    0x10: "ApplicationContextItem",
    0x20: "PresentationContextItemRQ",
    0x21: "PresentationContextItemAC",
    0x30: "AbstractSyntaxSubItem",
    0x40: "TransferSyntaxSubItem",
    0x50: "UserInformationItem",
    0x51: "MaximumLengthSubItem",
    0x52: "ImplementationClassUIDSubItem",
    0x53: "AsynchronousOperationsWindowSubItem",
    0x54: "SCP_SCU_RoleSelectionSubItem",
    0x55: "ImplementationVersionNameSubItem",
    0x56: "SOPClassExtendedNegotiationSubItem",
    0x57: "SOPClassCommonExtendedNegotiationSubItem",
    0x58: "UserIdentitySubItemRQ",
    0x59: "UserIdentitySubItemAC",
}


def extended(sop_class_uid: str, information: bytes) -> bytes:
    return peer.item(0x56, struct.pack(">H", len(sop_class_uid)) + sop_class_uid.encode() + information)


def common_extended(sop_class_uid: str, service_class_uid: str, *related: str) -> bytes:
    def counted(uid: str) -> bytes:
        return struct.pack(">H", len(uid)) + uid.encode()

    general = b"".join(map(counted, related))
    value = counted(sop_class_uid) + counted(service_class_uid) + struct.pack(">H", len(general)) + general
    return peer.item(0x57, value)


OUR_USER_ITEMS = (
    peer.item(0x52, IMPLEMENTATION_CLASS_UID.encode()),
    peer.item(0x55, IMPLEMENTATION_VERSION_NAME.encode()),
)
EVERY_USER_ITEM = (
    peer.item(0x53, struct.pack(">HH", 5, 7))
    + peer.role(CT, 1, 1)
    + peer.item(0x55, b"VERSION_1")
    + extended(FIND, b"\1\1\1")
    + common_extended(PRIVATE, "1.2.840.10008.4.2", CT, FIND)
    + peer.item(0x58, b"\1\1\0\3joe\0\0")
)


def test_the_version_is_the_one_that_is_pinned() -> None:
    """The installed pynetdicom is the one version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pinned] = [name for name in project["dependencies"] if name.startswith("pynetdicom")]
    assert pinned == f"pynetdicom=={pynetdicom.__version__}" == "pynetdicom==3.0.4"


def test_nothing_else_of_pynetdicom_is_used() -> None:
    """The classes above are those that the source names, and no attribute of them is missing above."""
    text = Path(negotiation.__file__).read_text()
    used = set(re.findall(r"\bpynetdicom_pdu\.(A_\w+)|\bpdu_items\.(\w+)", text))
    names = {name for pair in used for name in pair if name}
    assert names == {kind.__name__ for kind in RELIED_ON} | {"PDU_ITEM_TYPES"}
    attributes = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    known = {name for kind in RELIED_ON for name in dir(kind()) if not name.startswith("_")}
    ours = {
        "asynchronous_window", "contexts", "extended", "roles", "rejection", "results", "abstract_syntax_uid",
        "transfer_syntax_uid", "transfer_syntax_uids", "scp_role", "accepted",
    }  # fmt: skip
    relied_on = {name for names in RELIED_ON.values() for name in names}
    assert attributes & known - relied_on - ours == set()


@pytest.mark.parametrize("kind", RELIED_ON, ids=lambda kind: kind.__name__)
def test_each_class_has_what_is_read_and_written(kind: Any) -> None:
    """A new instance of each class has every attribute that is relied on."""
    missing = {name for name in RELIED_ON[kind] if not hasattr(kind, name) and not hasattr(kind(), name)}
    assert missing == set()


def test_each_item_type_has_its_class() -> None:
    """The table by which items are decoded is that of PS3.8 section 9.3.2 and PS3.7 annex D.3.3."""
    assert {kind: cls.__name__ for kind, cls in pdu_items.PDU_ITEM_TYPES.items()} == ITEM_TYPES


def test_a_request_is_encoded_byte_for_byte_as_ps3_8_says() -> None:
    """An A-ASSOCIATE-RQ of ours is what is put together by hand from PS3.8 table 9-11."""
    contexts = [ProposedContext(CT, (EXPLICIT, IMPLICIT), scp_role=True), ProposedContext(FIND, (IMPLICIT,))]
    maximum = peer.item(0x51, struct.pack(">I", 16384))
    user = maximum + OUR_USER_ITEMS[0] + peer.role(CT, 0, 1) + OUR_USER_ITEMS[1]
    items = peer.item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, context in ((1, contexts[0]), (3, contexts[1])):
        inner = peer.item(0x30, context.abstract_syntax_uid.encode())
        inner += b"".join(peer.item(0x40, syntax.encode()) for syntax in context.transfer_syntax_uids)
        items += peer.item(0x20, bytes([number, 0, 0, 0]) + inner)
    titles = b"YOU".ljust(16) + b"ME".ljust(16)
    expected = peer.pdu(1, b"\0\1\0\0" + titles + bytes(32) + items + peer.item(0x50, user))
    assert negotiation.encode_request("ME", "YOU", contexts, max_pdu_bytes=16384) == expected


def test_an_acceptance_is_encoded_byte_for_byte_as_ps3_8_says() -> None:
    """An A-ASSOCIATE-AC of ours with every sub-item is what is put together by hand from PS3.8 table 9-17."""
    encoded = peer.associate_rq(peer.CONTEXTS, more_user_items=EVERY_USER_ITEM)
    request = negotiation.decode_request(encoded, "192.0.2.1")
    admission = negotiate(request, verbs=("store", "query"), accept_unknown_sop_classes=False)
    user = (
        peer.item(0x51, struct.pack(">I", 131072))
        + OUR_USER_ITEMS[0]
        + peer.role(CT, 1, 0)
        + OUR_USER_ITEMS[1]
        + peer.item(0x53, struct.pack(">HH", 1, 1))
        + extended(FIND, b"\0\0\0")
    )
    items = peer.item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (_, syntaxes) in peer.CONTEXTS.items():
        items += peer.item(0x21, bytes([number, 0, 0, 0]) + peer.item(0x40, syntaxes[0].encode()))
    expected = peer.pdu(2, encoded[6:74] + items + peer.item(0x50, user))
    assert negotiation.encode_acceptance(encoded, admission, max_pdu_bytes=131072) == expected


def test_every_field_of_a_request_is_decoded() -> None:
    """What a hand-made A-ASSOCIATE-RQ says comes out field by field."""
    encoded = peer.associate_rq(peer.CONTEXTS, more_user_items=EVERY_USER_ITEM, max_pdu_bytes=4242)
    request = negotiation.decode_request(encoded, "192.0.2.1")
    assert (request.calling_ae_title, request.called_ae_title) == ("SCRIPTED", "ANODE")
    assert (request.peer_address, request.protocol_version) == ("192.0.2.1", 1)
    assert request.application_context_uid == "1.2.840.10008.3.1.1.1"
    proposed = {c.context_id: (c.abstract_syntax_uid, c.transfer_syntax_uids) for c in request.contexts}
    assert proposed == peer.CONTEXTS
    assert request.roles == {CT: (True, True)}
    assert request.extended == {FIND: b"\1\1\1"}
    assert request.common_extended == {PRIVATE: CommonExtension("1.2.840.10008.4.2", (CT, FIND))}
    assert request.proposes_asynchronous_operations
    assert (request.max_pdu_bytes, request.implementation_version_name) == (4242, "VERSION_1")
    assert request.wants_username_confirmed


def test_every_field_of_an_acceptance_is_decoded() -> None:
    """What a hand-made A-ASSOCIATE-AC says comes out field by field."""
    encoded = peer.associate_ac(
        {1: (0, EXPLICIT), 3: (3, IMPLICIT)}, max_pdu_bytes=77, more_user_items=peer.role(CT, 0, 1)
    )
    contexts = [ProposedContext(CT, (EXPLICIT,), scp_role=True), ProposedContext(FIND, (IMPLICIT,))]
    acceptance = negotiation.decode_acceptance(encoded, contexts)
    [(number, accepted)] = acceptance.contexts.items()
    assert (number, accepted.abstract_syntax_uid, accepted.transfer_syntax_uid) == (1, CT, EXPLICIT)
    assert (accepted.requestor_is_scu, accepted.requestor_is_scp) == (False, True)
    assert acceptance.max_pdu_bytes == 77


def test_a_rejection_is_encoded_and_decoded_as_ps3_8_says() -> None:
    """An A-ASSOCIATE-RJ is that of PS3.8 table 9-21, and its reason is put into words."""
    encoded = negotiation.encode_rejection(Rejection(2, 3, 2, "any words"))
    assert encoded == peer.pdu(3, bytes([0, 2, 3, 2]))
    assert negotiation.decode_rejection(encoded) == Rejection(2, 3, 2, "Local limit exceeded")
    unknown = negotiation.decode_rejection(peer.pdu(3, bytes([0, 1, 1, 99])))
    assert unknown.explanation
