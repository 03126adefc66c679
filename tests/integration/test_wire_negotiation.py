"""Association negotiation with pynetdicom, which proposes what few peers do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from node.storage.archive import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.support.scripted_peer import CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from tests.support.toy_node import ToyNode, toy_node

PRIVATE = "1.2.840.113619.4.26"


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    with toy_node() as running:
        yield running


def extended(sop_class_uid: str, information: bytes) -> SOPClassExtendedNegotiation:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = sop_class_uid, information
    return item


def answers(node: ToyNode, *proposed: Any, classes: tuple[str, ...] = (CT_IMAGE_STORAGE,)) -> Any:
    """Associate with pynetdicom, release, and return what it made of the node's A-ASSOCIATE-AC."""
    entity = AE("PYNETDICOM")
    for uid in classes:
        entity.add_requested_context(uid, EXPLICIT_VR_LITTLE_ENDIAN)
    association = entity.associate("127.0.0.1", node.port, ae_title="ANODE", ext_neg=list(proposed))
    assert association.is_established
    association.release()
    assert association.is_released
    return association


def test_extended_negotiation_is_answered(node: ToyNode) -> None:
    """A requestor of fuzzy, relational queries and of storage levels is told the truth."""
    association = answers(
        node,
        extended(STUDY_ROOT_FIND, b"\1\1\1"),
        extended(CT_IMAGE_STORAGE, b"\3\0\0\0\2\0"),
        classes=(STUDY_ROOT_FIND, CT_IMAGE_STORAGE),
    )
    assert association.acceptor.sop_class_extended == {
        STUDY_ROOT_FIND: b"\0\0\0",
        CT_IMAGE_STORAGE: b"\2\0\3\0\0\0",
    }


def test_an_asynchronous_operations_window_is_answered_with_one(node: ToyNode) -> None:
    """Whoever proposes several operations at a time is told that it is one."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 8, 8
    assert answers(node, window).acceptor.asynchronous_operations == (1, 1)


def test_what_is_not_proposed_is_not_answered(node: ToyNode) -> None:
    """A plain request is answered with the maximum length and our implementation alone."""
    acceptor = answers(node).acceptor
    kinds = {type(item).__name__ for item in acceptor.user_information}
    assert kinds == {
        "MaximumLengthNotification",
        "ImplementationClassUIDNotification",
        "ImplementationVersionNameNotification",
    }
    assert acceptor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert acceptor.implementation_version_name == IMPLEMENTATION_VERSION_NAME


def test_common_extended_negotiation_is_heeded_and_not_answered(node: ToyNode) -> None:
    """A private SOP class like CT Image Storage is accepted, and nothing is said of it."""
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = PRIVATE, "1.2.840.10008.4.2"
    item.related_general_sop_class_identification = [CT_IMAGE_STORAGE]
    association = answers(node, item, classes=(PRIVATE, CT_IMAGE_STORAGE))
    assert [context.abstract_syntax for context in association.accepted_contexts] == [
        PRIVATE,
        CT_IMAGE_STORAGE,
    ]
    assert association.acceptor.sop_class_common_extended == {}


@pytest.mark.parametrize(("kind", "secondary", "is_confirmed"), [(1, b"", True), (2, b"secret", False)])
def test_a_username_alone_is_confirmed(
    node: ToyNode, kind: int, secondary: bytes, is_confirmed: bool
) -> None:
    """A username is confirmed on request; a passcode, which is not looked at, never."""
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = kind, b"joe"
    identity.secondary_field, identity.positive_response_requested = secondary, True
    assert (answers(node, identity).acceptor.user_identity is not None) is is_confirmed


def test_roles_are_answered(node: ToyNode) -> None:
    """Both roles of a storage SOP class are granted to whoever proposes them."""
    acceptor = answers(node, build_role(CT_IMAGE_STORAGE, scu_role=True, scp_role=True)).acceptor
    [granted] = acceptor.role_selection.values()
    assert (granted.scu_role, granted.scp_role) == (True, True)
