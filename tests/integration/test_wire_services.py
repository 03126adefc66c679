"""Each service in the presentation contexts that were accepted for it, and in no other (PS3.7 annex C.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from node import status
from node.wire import scu
from node.wire.association import Request, Response
from node.wire.scu import ProposedContext
from tests.support import data_sets, scripted_peer
from tests.support.scripted_peer import ScriptedPeer, command_set, scripted_acceptor
from tests.support.toy_node import ToyNode, toy_node

IMPLICIT = scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN
VERIFICATION, CT = scripted_peer.VERIFICATION, scripted_peer.CT_IMAGE_STORAGE
MR = "1.2.840.10008.5.1.4.1.1.4"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PUSH, PUSH_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CONTEXTS = {
    1: (VERIFICATION, (IMPLICIT,)),
    3: (CT, (IMPLICIT,)),
    5: (FIND, (IMPLICIT,)),
    7: (MOVE, (IMPLICIT,)),
    9: (GET, (IMPLICIT,)),
    11: (PUSH, (IMPLICIT,)),
    13: (MR, (IMPLICIT,)),
}
# with a data set, so that it can be asked for as all others are
ECHO = command_set(e0002=VERIFICATION, e0100=0x0030, e0110=1, e0800=1)
NO_SERVICE = "is no service of its presentation context"
OTHER_CLASS = "the SOP class is not that of the presentation context"
NO_ROLE = "the role of SCU was not negotiated for the SOP class"


def store(sop_class_uid: str) -> bytes:
    return command_set(e0002=sop_class_uid, e0100=0x0001, e0110=1, e0700=0, e0800=1, e1000="1.2.3")


def find(sop_class_uid: str) -> bytes:
    return command_set(e0002=sop_class_uid, e0100=0x0020, e0110=1, e0700=0, e0800=1)


def move(sop_class_uid: str) -> bytes:
    return command_set(e0002=sop_class_uid, e0100=0x0021, e0110=1, e0600="PACS", e0700=0, e0800=1)


def get(sop_class_uid: str) -> bytes:
    return command_set(e0002=sop_class_uid, e0100=0x0010, e0110=1, e0700=0, e0800=1)


def action(sop_class_uid: str) -> bytes:
    return command_set(e0003=sop_class_uid, e0100=0x0130, e0110=1, e0800=1, e1001=PUSH_INSTANCE, e1008=1)


def report(sop_class_uid: str) -> bytes:
    return command_set(e0002=sop_class_uid, e0100=0x0100, e0110=1, e0800=1, e1000=PUSH_INSTANCE, e1002=1)


def _done(services: Any, request: Request) -> Iterator[Response]:
    request.identifier()
    yield Response(status.SUCCESS)


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    served = ("C-FIND", "C-MOVE", "C-GET", "N-ACTION", "N-EVENT-REPORT")
    with toy_node(handlers=dict.fromkeys(served, _done)) as running:
        yield running


def answered(peer: ScriptedPeer, context_id: int, command: bytes) -> tuple[Any, Any]:
    """Status and Error Comment of the answer to a request whose data set is an Identifier."""
    peer.request(context_id, command, data_sets.study_identifier())
    answer, _ = peer.read_message()
    return answer[0x0900], answer.get(0x0902)


@pytest.mark.parametrize(
    ("context_id", "command", "refusal"),
    [
        pytest.param(3, find(FIND), (0x0122, f"C-FIND {NO_SERVICE}"), id="C-FIND for storage"),
        pytest.param(5, store(CT), (0x0122, f"C-STORE {NO_SERVICE}"), id="C-STORE for C-FIND"),
        pytest.param(1, store(CT), (0x0122, f"C-STORE {NO_SERVICE}"), id="C-STORE for Verification"),
        pytest.param(11, store(CT), (0x0122, f"C-STORE {NO_SERVICE}"), id="C-STORE for commitment"),
        pytest.param(5, move(MOVE), (0x0122, f"C-MOVE {NO_SERVICE}"), id="C-MOVE for C-FIND"),
        pytest.param(7, get(GET), (0x0122, f"C-GET {NO_SERVICE}"), id="C-GET for C-MOVE"),
        pytest.param(9, find(FIND), (0x0122, f"C-FIND {NO_SERVICE}"), id="C-FIND for C-GET"),
        pytest.param(3, action(PUSH), (0x0118, f"N-ACTION {NO_SERVICE}"), id="N-ACTION for storage"),
        pytest.param(5, report(PUSH), (0x0118, f"N-EVENT-REPORT {NO_SERVICE}"), id="report for C-FIND"),
        pytest.param(3, store(MR), (0x0122, OTHER_CLASS), id="an MR image in the context for CT images"),
        pytest.param(5, find(PATIENT_ROOT_FIND), (0x0122, OTHER_CLASS), id="another information model"),
        pytest.param(11, action(CT), (0x0118, OTHER_CLASS), id="N-ACTION of another SOP class"),
        pytest.param(3, store(CT), (0, None), id="C-STORE in its own"),
        pytest.param(13, store(MR), (0, None), id="C-STORE in its own, again"),
        pytest.param(5, find(FIND), (0, None), id="C-FIND in its own"),
        pytest.param(7, move(MOVE), (0, None), id="C-MOVE in its own"),
        pytest.param(9, get(GET), (0, None), id="C-GET in its own"),
        pytest.param(11, action(PUSH), (0, None), id="N-ACTION in its own"),
        pytest.param(11, report(PUSH), (0, None), id="N-EVENT-REPORT in its own"),
        pytest.param(3, ECHO, (0, None), id="C-ECHO, in whatever context"),
    ],
)
def test_a_service_is_served_in_its_own_presentation_context_alone(
    node: ToyNode, context_id: int, command: bytes, refusal: tuple[int, str | None]
) -> None:
    """What comes in another context is refused with a comment, its data set read over; the rest goes on."""
    before = len(node.stored)
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts=CONTEXTS)
        assert answered(peer, context_id, command) == refusal
        is_stored = refusal[0] == 0 and command in (store(CT), store(MR))
        assert len(node.stored) - before == is_stored
        peer.request(1, scripted_peer.echo_rq(2))
        assert peer.read_message()[0][0x0900] == 0
        peer.release()
    told = [one.reason for one in node.services.refusals.refused_so_far() if one.kind == "operation"]
    assert refusal[0] == 0 or any(str(refusal[1]) in reason for reason in told), "nobody is told of it"


@pytest.mark.parametrize(
    ("scu_role", "scp_role", "refusal"),
    [(0, 1, (0x0122, NO_ROLE)), (1, 1, (0, None)), (1, 0, (0, None))],
    ids=["SCP alone", "both", "SCU alone"],
)
def test_an_instance_is_taken_from_who_has_negotiated_to_send_it(
    node: ToyNode, scu_role: int, scp_role: int, refusal: tuple[int, str | None]
) -> None:
    """PS3.7 section D.3.3.4: a peer that is SCP alone of a storage SOP class, as for C-GET, sends none."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(
            contexts=CONTEXTS, more_user_items=scripted_peer.role(CT, scu_role=scu_role, scp_role=scp_role)
        )
        assert answered(peer, 3, store(CT)) == refusal
        peer.release()


def test_a_report_is_heeded_whatever_roles_were_negotiated(node: ToyNode) -> None:
    """An N-EVENT-REPORT comes from an SCP, and many of those do not say so when they associate."""
    for role in (b"", scripted_peer.role(PUSH, 0, 1)):
        with ScriptedPeer.to(node.port) as peer:
            peer.associate(contexts=CONTEXTS, more_user_items=role)
            assert answered(peer, 11, report(PUSH)) == (0, None)
            peer.release()


@pytest.mark.parametrize("is_granted", [True, False])
def test_a_sub_operation_of_our_c_get_needs_the_role_that_we_asked_for(is_granted: bool) -> None:
    """Where the peer did not grant us to be SCP of the SOP class, its C-STORE is refused with 0122."""
    answers = []

    def script(peer: ScriptedPeer) -> None:
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RQ
        granted = scripted_peer.role(CT, 0, 1) if is_granted else b""
        peer.send(scripted_peer.associate_ac({1: (0, IMPLICIT), 3: (0, IMPLICIT)}, more_user_items=granted))
        peer.read_message()
        answers.append(answered(peer, 3, store(CT)))
        peer.request(1, command_set(e0002=GET, e0100=0x8010, e0120=1, e0800=0x0101, e0900=0))
        assert peer.read_pdu()[0] == scripted_peer.A_RELEASE_RQ
        peer.send(scripted_peer.pdu(scripted_peer.A_RELEASE_RP, bytes(4)))
        peer.expect_end()

    def keep(request: Request) -> Iterator[Response]:
        list(request.fragments())
        yield Response(status.SUCCESS)

    contexts = [ProposedContext(GET, (IMPLICIT,)), ProposedContext(CT, (IMPLICIT,), scp_role=True)]
    with (
        scripted_acceptor(script) as port,
        scu.connect(
            "127.0.0.1",
            port,
            calling_ae_title="TESTER",
            called_ae_title="PEER",
            contexts=contexts,
            timeout_seconds=10.0,
            max_pdu_bytes=16384,
            handlers={"C-STORE": keep},
        ) as association,
    ):
        assert [code for code, _ in association.get(GET, data_sets.study_query())] == [0]
    assert answers == [(0, None) if is_granted else (0x0122, NO_ROLE)]
