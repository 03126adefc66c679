"""PS3.8 table 9-10 on real sockets: what each state answers to what a peer should not send."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from node import status
from node.errors import AssociationAborted, PeerError, ProtocolViolation
from node.wire import acceptor, scu, upper_layer
from node.wire.association import Request, Response
from node.wire.scu import ProposedContext, RequestedAssociation
from tests.support import data_sets, scripted_peer
from tests.support.scripted_peer import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    COMMAND,
    LAST,
    P_DATA_TF,
    ScriptedPeer,
    pdu,
    pdv,
    scripted_acceptor,
)
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

BY_USER = (0, 0)
UNRECOGNISED, UNEXPECTED = (2, 1), (2, 2)
PUSH = "1.2.840.10008.1.20.1"
IMPLICIT = scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN
ECHO_RQ = pdu(P_DATA_TF, pdv(1, COMMAND | LAST, scripted_peer.echo_rq()))
RELEASE_RQ, RELEASE_RP = pdu(A_RELEASE_RQ, bytes(4)), pdu(A_RELEASE_RP, bytes(4))
ABORT = pdu(A_ABORT, bytes(4))
PDUS = {
    "A-ASSOCIATE-RQ": scripted_peer.associate_rq(scripted_peer.CONTEXTS),
    "A-ASSOCIATE-AC": scripted_peer.associate_ac({1: (0, IMPLICIT)}),
    "A-ASSOCIATE-RJ": pdu(A_ASSOCIATE_RJ, bytes([0, 1, 1, 1])),
    "P-DATA-TF": ECHO_RQ,
    "A-RELEASE-RQ": RELEASE_RQ,
    "A-RELEASE-RP": RELEASE_RP,
    "of unknown type": pdu(0x42, b"abcd"),
}


def unexpected(*expected: str) -> Any:
    """Every PDU but A-ABORT and ``expected``, with the source and reason of the A-ABORT it earns."""
    return pytest.mark.parametrize(
        ("sent", "answer"),
        [
            pytest.param(encoded, UNRECOGNISED if name == "of unknown type" else UNEXPECTED, id=name)
            for name, encoded in PDUS.items()
            if name not in expected
        ],
    )


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    with toy_node() as running:
        yield running


def opened(node: ToyNode, calling: str) -> Any:
    """The association that the node has with ``calling``, once it is registered."""
    found: list[Any] = []

    def look() -> bool:
        with node.services.peers._lock:
            found[:] = [one for one in node.services.peers._open.values() if one.calling_ae_title == calling]
        return bool(found)

    wait_until(look, what="the association")
    return found[0]


# --- Sta2 and Sta3: before the association ------------------------------------------


@unexpected("A-ASSOCIATE-RQ")
def test_before_the_request_the_user_aborts(node: ToyNode, sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta2 whatever is no A-ASSOCIATE-RQ is answered with the service user's A-ABORT (AA-1)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.send(sent)
        assert peer.read_abort() == BY_USER


def test_an_abort_before_the_request_is_not_answered(node: ToyNode) -> None:
    """In Sta2 an A-ABORT closes the connection, and nothing is sent (AA-2)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.send(ABORT)
        peer.expect_end()


@unexpected()
def test_while_the_node_decides_the_provider_aborts(
    node: ToyNode, sent: bytes, answer: tuple[int, int]
) -> None:
    """What comes in Sta3, before the A-ASSOCIATE-AC, is answered with A-P-ABORT in its place (AA-8)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS), sent)
        assert peer.read_abort() == answer


def test_an_abort_while_the_node_decides_ends_it_without_a_word(
    node: ToyNode, caplog: pytest.LogCaptureFixture
) -> None:
    """An A-ABORT in Sta3 leaves no association, and nothing is sent (AA-3); it is no fault of ours."""
    with ScriptedPeer.to(node.port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS), ABORT)
        peer.expect_end()
    wait_until(lambda: not node.server._connections, what="its end")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- Sta6: data transfer -----------------------------------------------------------


@unexpected("P-DATA-TF", "A-RELEASE-RQ")
def test_in_data_transfer_the_provider_aborts(node: ToyNode, sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta6 all but P-DATA-TF, A-RELEASE-RQ and A-ABORT is answered with A-P-ABORT (AA-8)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(sent)
        assert peer.read_abort() == answer


def test_an_abort_in_data_transfer_ends_it_without_a_word(node: ToyNode) -> None:
    """An A-ABORT in Sta6 ends the association, and nothing is sent (AA-3)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(ABORT)
        peer.expect_end()


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_release_of_another_length_is_an_invalid_pdu(node: ToyNode, length: int) -> None:
    """An A-RELEASE-RQ whose body is not four bytes is invalid (Evt19)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(pdu(A_RELEASE_RQ, bytes(length)))
        assert peer.read_abort() == (2, 6)


def test_a_release_inside_a_message_is_aborted_by_the_user(node: ToyNode) -> None:
    """The table allows the A-RELEASE-RQ, but half a message is left: the service user aborts (Sta8, AA-1)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        peer.send_pdv(3, 0, b"half of it")
        peer.send(RELEASE_RQ)
        assert peer.read_abort() == BY_USER


# --- Sta8: the peer wants to release -------------------------------------------------


@contextmanager
def releasing_peer(**limits: Any) -> Iterator[tuple[ScriptedPeer, threading.Event]]:
    """A peer that has sent A-RELEASE-RQ while its C-FIND is answered, and what lets the answers go on."""
    go_on = threading.Event()

    def patient(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        yield Response(status.PENDING, identifier=data_sets.study_identifier())
        assert not request.is_cancelled()
        wait_until(lambda: request.is_cancelled() or request.association._is_releasing, what="the release")
        while not go_on.is_set() and not request.is_cancelled():
            go_on.wait(0.01)
        yield Response(status.PENDING, identifier=data_sets.study_identifier())
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-FIND": patient}, **limits) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), data_sets.study_identifier())
        assert peer.read_message()[0][0x0900] == 0xFF00
        peer.send(RELEASE_RQ)
        yield peer, go_on


def test_responses_are_still_sent_after_the_peer_has_asked_for_release() -> None:
    """In Sta8 the request is answered to its end (AR-7), and the release is confirmed after that (AR-4)."""
    with releasing_peer() as (peer, go_on):
        go_on.set()
        assert [peer.read_message()[0][0x0900] for _ in range(2)] == [0xFF00, 0]
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.close()


@unexpected()
def test_after_its_release_request_a_peer_may_send_nothing(sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta8 every PDU but A-ABORT is answered with A-P-ABORT, P-DATA-TF too (AA-8)."""
    with releasing_peer() as (peer, _):
        peer.send(sent)
        assert peer.read_abort() == answer


def test_an_abort_after_the_release_request_ends_it_without_a_word() -> None:
    """An A-ABORT in Sta8 ends the association, and no A-RELEASE-RP is sent (AA-3)."""
    with releasing_peer() as (peer, _):
        peer.send(ABORT)
        peer.expect_end()


def test_no_request_of_ours_goes_to_a_peer_that_releases() -> None:
    """A sub-operation in Sta8 is refused here, as its response could not come; the final response can."""
    refused: list[str] = []

    def get(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        yield Response(status.PENDING, remaining=1, completed=0, failed=0, warning=0)
        wait_until(lambda: request.is_cancelled() or request.association._is_releasing, what="the release")
        [context] = [c for c in request.association.contexts.values() if c.requestor_is_scp]
        try:
            request.association.send_store(
                context, sop_class_uid=context.abstract_syntax_uid, sop_instance_uid="1.2", data_set=b"ab"
            )
        except PeerError as error:
            refused.append(str(error))
        yield Response(status.RETRIEVE_CANNOT_PERFORM, completed=0, failed=1, warning=0)

    study_root_get = "1.2.840.10008.5.1.4.1.2.2.3"
    ct = scripted_peer.CT_IMAGE_STORAGE
    with toy_node(handlers={"C-GET": get}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(
            contexts={1: (study_root_get, (IMPLICIT,)), 3: (ct, (IMPLICIT,))},
            more_user_items=scripted_peer.role(ct, 0, 1),
        )
        get_rq = scripted_peer.command_set(e0002=study_root_get, e0100=0x10, e0110=1, e0700=0, e0800=1)
        peer.request(1, get_rq, data_sets.study_identifier())
        assert peer.read_message()[0][0x0900] == 0xFF00
        peer.send(RELEASE_RQ)
        assert peer.read_message()[0][0x0900] == 0xA702
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.close()
    assert "requested release" in refused[0]


# --- Sta7, Sta10 and Sta12: the accepting node releases -----------------------------------


@contextmanager
def released_peer(node: ToyNode, calling: str, **changes: Any) -> Iterator[ScriptedPeer]:
    """A peer that the node has sent A-RELEASE-RQ, as it does when it stops."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling=calling, **changes)
        opened(node, calling).finish(time.monotonic())
        assert peer.read_pdu() == (A_RELEASE_RQ, bytes(4))
        yield peer


def test_the_accepting_node_releases_and_closes(node: ToyNode) -> None:
    """The A-RELEASE-RP ends the association, and the node closes the connection (AR-3)."""
    with released_peer(node, "CONFIRMS") as peer:
        peer.send(RELEASE_RP)
        peer.expect_end()


@unexpected("P-DATA-TF", "A-RELEASE-RQ", "A-RELEASE-RP")
def test_while_the_node_releases_the_provider_aborts(
    node: ToyNode, sent: bytes, answer: tuple[int, int]
) -> None:
    """In Sta7 what is neither data nor release is answered with A-P-ABORT (AA-8)."""
    with released_peer(node, "RELEASED") as peer:
        peer.send(sent)
        assert peer.read_abort() == answer


def test_what_comes_while_the_node_releases_is_delivered_and_not_answered(node: ToyNode) -> None:
    """In Sta7 an instance reaches its handler (AR-6); no response is sent, so the peer will send it again."""
    before = len(node.stored)
    with released_peer(node, "LATE") as peer:
        peer.request(3, scripted_peer.store_rq(1, "1.2.77"), b"late data")
        peer.send(RELEASE_RP)
        peer.expect_end()
    assert [stored.sop_instance_uid for stored in node.stored[before:]] == ["1.2.77"]


def test_in_a_release_collision_the_acceptor_is_confirmed_first(node: ToyNode) -> None:
    """The association-acceptor waits for A-RELEASE-RP (Sta10, AR-10) and only then sends its own (AR-4)."""
    with released_peer(node, "COLLIDES") as peer:
        peer.send(RELEASE_RQ)
        peer.send(RELEASE_RP)
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.close()


@unexpected("A-RELEASE-RP")
def test_in_a_release_collision_the_accepting_provider_aborts(
    node: ToyNode, sent: bytes, answer: tuple[int, int]
) -> None:
    """In Sta10 all but A-RELEASE-RP and A-ABORT is answered with A-P-ABORT, P-DATA-TF too (AA-8)."""
    with released_peer(node, "COLLIDED") as peer:
        peer.send(RELEASE_RQ, sent)
        assert peer.read_abort() == answer


@pytest.mark.parametrize("before", [b"", RELEASE_RQ])
def test_an_abort_while_the_node_releases_ends_it_without_a_word(node: ToyNode, before: bytes) -> None:
    """An A-ABORT in Sta7 or Sta10 ends the association, and nothing is sent (AA-3)."""
    with released_peer(node, "ABORTS") as peer:
        peer.send(before, ABORT)
        peer.expect_end()


def test_a_release_that_is_not_confirmed_becomes_an_abort(
    node: ToyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sta7 has no timer: the service user loses patience and aborts (AA-1)."""
    monkeypatch.setattr(acceptor, "_RELEASE_SECONDS", 0.1)
    with released_peer(node, "SILENT") as peer:
        assert peer.read_abort() == BY_USER


# --- Sta13: the association is no more -----------------------------------------------------


@contextmanager
def ended_peer(node: ToyNode) -> Iterator[ScriptedPeer]:
    """A peer whose association the node has aborted, and that has not closed the connection."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(PDUS["of unknown type"])
        assert peer.read_pdu() == (A_ABORT, bytes([0, 0, 2, 1]))
        yield peer


@pytest.mark.parametrize(
    "name", ["A-ASSOCIATE-AC", "A-ASSOCIATE-RJ", "P-DATA-TF", "A-RELEASE-RQ", "A-RELEASE-RP"]
)
def test_late_pdus_are_ignored(node: ToyNode, name: str) -> None:
    """In Sta13 late PDUs are read over (AA-6): the connection ends when the peer closes it."""
    with ended_peer(node) as peer:
        peer.send(PDUS[name], PDUS[name])
        peer.close()


@pytest.mark.parametrize(
    ("name", "reason"), [("A-ASSOCIATE-RQ", 2), ("of unknown type", 1)], ids=["request", "unknown"]
)
def test_a_late_request_or_unknown_pdu_is_answered_with_an_abort(
    node: ToyNode, name: str, reason: int
) -> None:
    """In Sta13 an A-ASSOCIATE-RQ and an unknown PDU are each answered with A-ABORT (AA-7)."""
    with ended_peer(node) as peer:
        for _ in range(2):
            peer.send(PDUS[name])
            assert peer.read_pdu() == (A_ABORT, bytes([0, 0, 2, reason]))
        peer.close()


def test_a_late_abort_closes_the_connection(node: ToyNode) -> None:
    """In Sta13 an A-ABORT closes the connection at once (AA-2)."""
    with ended_peer(node) as peer:
        peer.send(ABORT)
        peer.expect_end()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            pdu(P_DATA_TF, pdv(1, 3, b"ab", length=500) + bytes(200)), id="a PDV longer than its PDU"
        ),
        pytest.param(pdu(P_DATA_TF, pdv(99, 3, b"ab") + bytes(200)), id="a context that was not accepted"),
        pytest.param(pdu(P_DATA_TF, bytes(300000)), id="a PDU that is too long"),
        pytest.param(pdu(0x42, bytes(70000)), id="a long PDU of unknown type"),
    ],
)
def test_what_is_left_of_a_broken_pdu_is_not_taken_for_another_one(node: ToyNode, sent: bytes) -> None:
    """After an invalid PDU the node knows where the next one begins, and answers that one in Sta13."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(sent)
        assert peer.read_pdu()[0] == A_ABORT
        peer.send(PDUS["A-ASSOCIATE-AC"], PDUS["A-ASSOCIATE-RQ"])
        assert peer.read_pdu() == (A_ABORT, bytes([0, 0, 2, 2]))
        peer.close()


def test_a_peer_that_does_not_close_is_closed_when_artim_expires() -> None:
    """In Sta13 the node closes the connection when ARTIM expires (AA-2)."""
    with toy_node(artim_timeout_seconds=0.2) as node, ended_peer(node) as peer:
        peer.expect_end()


def test_late_pdus_without_end_do_not_hold_the_connection(
    node: ToyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that goes on sending in Sta13 is cut off."""
    monkeypatch.setattr(upper_layer, "_MOST_LATE_BYTES", 10000)

    def send_without_end(peer: ScriptedPeer) -> None:
        while True:
            peer.send(ECHO_RQ * 1000)

    with ended_peer(node) as peer, pytest.raises(ConnectionError):
        send_without_end(peer)


# --- the requestor ------------------------------------------------------------------


def connect(port: int, **changes: Any) -> RequestedAssociation:
    wanted: dict[str, Any] = {
        "contexts": [ProposedContext(scripted_peer.VERIFICATION, (IMPLICIT,))],
        "timeout_seconds": 10.0,
        "max_pdu_bytes": 16384,
    }
    return scu.connect(
        "127.0.0.1", port, calling_ae_title="TESTER", called_ae_title="PEER", **{**wanted, **changes}
    )


def accept(peer: ScriptedPeer) -> None:
    assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RQ
    peer.send(PDUS["A-ASSOCIATE-AC"])


@unexpected("A-ASSOCIATE-AC", "A-ASSOCIATE-RJ")
def test_an_answer_that_is_none_is_aborted_by_the_provider(sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta5 all but A-ASSOCIATE-AC, -RJ and A-ABORT is answered with A-P-ABORT (AA-8)."""

    def script(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        peer.send(sent)
        assert peer.read_abort() == answer

    with scripted_acceptor(script) as port, pytest.raises(ProtocolViolation):
        connect(port)


@pytest.mark.parametrize("name", ["A-ASSOCIATE-RJ", "A-ABORT"])
def test_a_rejected_or_aborted_requestor_closes_without_a_word(name: str) -> None:
    """A-ASSOCIATE-RJ (AE-4) and A-ABORT (AA-3) in Sta5 end in a closed connection."""

    def script(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        peer.send(PDUS.get(name, ABORT))
        peer.expect_end()

    with scripted_acceptor(script) as port, pytest.raises(PeerError):
        connect(port)


@unexpected("P-DATA-TF", "A-RELEASE-RQ")
def test_the_requestors_provider_aborts_in_data_transfer(sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta6 the requestor answers the unexpected with A-P-ABORT (AA-8)."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        peer.read_message()
        peer.send(sent)
        assert peer.read_abort() == answer

    with (
        scripted_acceptor(script) as port,
        pytest.raises(ProtocolViolation),
        connect(port) as association,
    ):
        association.echo()


@unexpected("P-DATA-TF", "A-RELEASE-RQ", "A-RELEASE-RP")
def test_the_requestors_provider_aborts_while_it_releases(sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta7 the requestor answers what is neither data nor release with A-P-ABORT (AA-8)."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        assert peer.read_pdu()[0] == A_RELEASE_RQ
        peer.send(sent)
        assert peer.read_abort() == answer

    with scripted_acceptor(script) as port, connect(port) as association:
        pass
    assert isinstance(association.failure, ProtocolViolation)


@unexpected("A-RELEASE-RP")
def test_in_a_release_collision_the_requesting_provider_aborts(sent: bytes, answer: tuple[int, int]) -> None:
    """In Sta11, its A-RELEASE-RP sent, the requestor takes A-RELEASE-RP alone (AA-8 for the rest)."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        assert peer.read_pdu()[0] == A_RELEASE_RQ
        peer.send(RELEASE_RQ)
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.send(sent)
        assert peer.read_abort() == answer

    with scripted_acceptor(script) as port, connect(port) as association:
        pass
    assert isinstance(association.failure, ProtocolViolation)


@pytest.mark.parametrize("before", [b"", RELEASE_RQ])
def test_an_abort_while_the_requestor_releases_ends_it_without_a_word(before: bytes) -> None:
    """An A-ABORT in Sta7 or Sta11 ends the association, and nothing more is sent (AA-3)."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        assert peer.read_pdu()[0] == A_RELEASE_RQ
        if before:
            peer.send(before)
            assert peer.read_pdu()[0] == A_RELEASE_RP
        peer.send(ABORT)
        peer.expect_end()

    with scripted_acceptor(script) as port, connect(port) as association:
        pass
    assert isinstance(association.failure, AssociationAborted)


def test_a_report_that_comes_while_the_requestor_releases_is_delivered() -> None:
    """In Sta7 an N-EVENT-REPORT reaches its handler, and is not answered (AR-6)."""
    event_report = scripted_peer.command_set(
        e0002=PUSH, e0100=0x0100, e0110=9, e0800=1, e1000="1.2.840.10008.1.20.1.1", e1002=1
    )

    def script(peer: ScriptedPeer) -> None:
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RQ
        peer.send(scripted_peer.associate_ac({1: (0, IMPLICIT)}))
        assert peer.read_pdu()[0] == A_RELEASE_RQ
        peer.request(1, event_report, data_sets.study_identifier())
        peer.send(RELEASE_RP)
        peer.expect_end()

    heeded: list[int] = []

    def heed(request: Request) -> Iterator[Response]:
        request.identifier()
        heeded.append(request.command.EventTypeID)
        yield Response(status.SUCCESS)

    contexts = [ProposedContext(PUSH, (IMPLICIT,))]
    with (
        scripted_acceptor(script) as port,
        connect(port, contexts=contexts, handlers={"N-EVENT-REPORT": heed}) as association,
    ):
        pass
    assert heeded == [1]
    assert association.failure is None


def test_a_requestor_whose_peer_does_not_close_closes_when_artim_expires() -> None:
    """After its A-ABORT the requestor waits in Sta13 for ARTIM, and closes then (AA-2)."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        assert peer.read_pdu() == (A_ABORT, bytes(4))
        peer.expect_end()

    with scripted_acceptor(script) as port:
        association = connect(port, timeout_seconds=0.3)
        association.close()
    assert not association.is_established


def test_a_requestor_that_is_released_confirms_and_waits_for_the_peer_to_close() -> None:
    """Sta8 and Sta13 in the requestor: A-RELEASE-RP, late PDUs ignored, closed by the peer."""

    def script(peer: ScriptedPeer) -> None:
        accept(peer)
        peer.read_message()
        peer.send(RELEASE_RQ)
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.send(ECHO_RQ, RELEASE_RQ)
        peer.close()

    with (
        scripted_acceptor(script) as port,
        pytest.raises(AssociationAborted, match="released"),
        connect(port) as association,
    ):
        association.echo()


def test_a_requestor_that_is_released_inside_a_sub_operation_answers_that_first() -> None:
    """Sta8 in the requestor: its C-STORE response is still sent (AR-7), then A-RELEASE-RP (AR-4)."""
    study_root_get, ct = "1.2.840.10008.5.1.4.1.2.2.3", scripted_peer.CT_IMAGE_STORAGE

    def script(peer: ScriptedPeer) -> None:
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RQ
        roles = scripted_peer.role(ct, 0, 1)
        peer.send(scripted_peer.associate_ac({1: (0, IMPLICIT), 3: (0, IMPLICIT)}, more_user_items=roles))
        peer.read_message()
        peer.request(3, scripted_peer.store_rq(5), b"data")
        peer.send(RELEASE_RQ)
        command, _ = peer.read_message()
        assert (command[0x0100], command[0x0120], command[0x0900]) == (0x8001, 5, 0)
        assert peer.read_pdu() == (A_RELEASE_RP, bytes(4))
        peer.close()

    def store(request: Request) -> Iterator[Response]:
        assert b"".join(bytes(view) for views in request.fragments() for view in views) == b"data"
        wait_until(lambda: request.is_cancelled() or request.association._is_releasing, what="the release")
        yield Response(status.SUCCESS)

    contexts = [
        ProposedContext(study_root_get, (IMPLICIT,)),
        ProposedContext(ct, (IMPLICIT,), scp_role=True),
    ]
    with (
        scripted_acceptor(script) as port,
        pytest.raises(AssociationAborted, match="released"),
        connect(port, contexts=contexts, handlers={"C-STORE": store}) as association,
    ):
        list(association.get(study_root_get, data_sets.study_query()))


def test_every_pdu_type_is_tried() -> None:
    """The table of PDUs above holds every type but A-ABORT, and an unknown one."""
    assert sorted(encoded[0] for encoded in PDUS.values()) == [1, A_ASSOCIATE_AC, 3, 4, 5, 6, 0x42]
