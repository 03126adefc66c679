"""The upper layer against a peer that sends raw PDUs: PS3.8 section 9.2 and what goes wrong."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node import status
from node.wire.association import Request, Response
from tests.support import data_sets, scripted_peer
from tests.support.scripted_peer import COMMAND, LAST, P_DATA_TF, ScriptedPeer, pdu, pdv
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

SERVICE_USER, SERVICE_PROVIDER = 0, 2
UNRECOGNISED_PDU, UNEXPECTED_PDU, UNEXPECTED_PARAMETER, INVALID_VALUE = 1, 2, 5, 6
ECHO_RSP = scripted_peer.command_set(e0100=0x8030, e0120=1, e0800=0x0101, e0900=0)
IDENTIFIER = data_sets.study_identifier()


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    with toy_node() as running:
        yield running


def test_an_association_is_accepted_answered_and_released(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        acceptance = peer.associate()
        assert scripted_peer.results_of(acceptance) == {
            1: (0, scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN),
            3: (0, scripted_peer.EXPLICIT_VR_LITTLE_ENDIAN),
            5: (0, scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN),
        }
        peer.request(1, scripted_peer.echo_rq(7))
        command, data_set = peer.read_message()
        assert command == {
            0x0000: command[0x0000],
            0x0002: scripted_peer.VERIFICATION,
            0x0100: 0x8030,
            0x0120: 7,
            0x0800: 0x0101,
            0x0900: 0,
        }
        assert data_set == b""
        peer.release()
        peer.socket.shutdown(1)
        peer.expect_end()


def test_a_data_set_in_any_fragmentation_arrives_whole(node: ToyNode) -> None:
    content = bytes(range(256)) * 2000
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        command = scripted_peer.store_rq(1, "1.2.9.1")
        # command in two fragments, several PDVs in one PDU, empty fragments, one byte alone
        peer.send_pdv(3, COMMAND, command[:10])
        peer.send_pdv(3, COMMAND | LAST, command[10:])
        several = pdv(3, 0, content[:5]) + pdv(3, 0, b"") + pdv(3, 0, content[5:70000])
        peer.send(pdu(P_DATA_TF, several))
        peer.send_pdv(3, 0, content[70000:70001])
        for begin in range(70001, len(content), 100000):
            peer.send_pdv(3, 0, content[begin : begin + 100000])
        peer.send_pdv(3, LAST, b"")
        answer, _ = peer.read_message()
        assert (answer[0x0100], answer[0x0900], answer[0x1000]) == (0x8001, 0, "1.2.9.1")
        peer.release()
    assert node.stored[-1].sha256 == hashlib.sha256(content).hexdigest()


def test_a_command_and_its_data_set_may_share_a_pdu(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        both = pdv(3, COMMAND | LAST, scripted_peer.store_rq(1, "1.2.9.2")) + pdv(3, LAST, b"abcd")
        peer.send(pdu(P_DATA_TF, both))
        assert peer.read_message()[0][0x0900] == 0
        peer.release()
    assert (node.stored[-1].sop_instance_uid, node.stored[-1].length) == ("1.2.9.2", 4)


def test_pdus_that_come_byte_by_byte_are_understood(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        for byte in scripted_peer.associate_rq(scripted_peer.CONTEXTS):
            peer.send(bytes([byte]))
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_AC
        for byte in pdu(P_DATA_TF, pdv(1, COMMAND | LAST, scripted_peer.echo_rq())):
            peer.send(bytes([byte]))
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def test_memory_for_a_large_object_does_not_grow(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq(1, "1.2.9.3"))
        piece = bytes(131066)
        for _ in range(200):
            peer.send_pdv(3, 0, piece)
        peer.send_pdv(3, LAST, b"")
        assert peer.read_message()[0][0x0900] == 0
        peer.release()
    assert node.stored[-1].length == 200 * 131066
    assert node.stored[-1].longest <= 131072


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(pdu(0x42, b"abcd"), UNRECOGNISED_PDU, id="an unknown PDU type"),
        pytest.param(pdu(0x42, b""), UNRECOGNISED_PDU, id="an unknown PDU type without a body"),
        pytest.param(
            scripted_peer.associate_rq(scripted_peer.CONTEXTS), UNEXPECTED_PDU, id="a second A-ASSOCIATE-RQ"
        ),
        pytest.param(pdu(6, bytes(4)), UNEXPECTED_PDU, id="an A-RELEASE-RP to nothing"),
        pytest.param(pdu(P_DATA_TF, b""), INVALID_VALUE, id="a P-DATA-TF without a PDV"),
        pytest.param(pdu(P_DATA_TF, b"", length=2**32 - 1), INVALID_VALUE, id="a PDU of 4 GB"),
        pytest.param(pdu(P_DATA_TF, pdv(1, 3, b"ab", length=1)), INVALID_VALUE, id="a PDV of 1 byte"),
        pytest.param(
            pdu(P_DATA_TF, pdv(1, 3, b"ab", length=500)), INVALID_VALUE, id="a PDV longer than its PDU"
        ),
        pytest.param(
            pdu(P_DATA_TF, pdv(1, 1, b"\0\0\0\0") + b"abc"), INVALID_VALUE, id="a PDU with a torn PDV"
        ),
        pytest.param(
            pdu(P_DATA_TF, pdv(99, 3, scripted_peer.echo_rq())), INVALID_VALUE, id="a context not accepted"
        ),
        pytest.param(pdu(P_DATA_TF, pdv(1, 3, b"rubbish!")), INVALID_VALUE, id="a command set that is none"),
        pytest.param(
            pdu(P_DATA_TF, pdv(3, LAST, b"data")), UNEXPECTED_PARAMETER, id="a data set without a command"
        ),
        pytest.param(
            pdu(P_DATA_TF, pdv(1, 1, bytes(10000)) * 2), INVALID_VALUE, id="a command set without end"
        ),
        pytest.param(
            pdu(P_DATA_TF, pdv(3, 3, scripted_peer.store_rq()) + pdv(1, 0, b"data")),
            UNEXPECTED_PARAMETER,
            id="a data set in another context than its command",
        ),
        pytest.param(
            pdu(P_DATA_TF, pdv(3, 3, scripted_peer.store_rq()) + pdv(3, 3, scripted_peer.store_rq(2))),
            UNEXPECTED_PARAMETER,
            id="a command inside a data set",
        ),
        pytest.param(
            pdu(
                P_DATA_TF, pdv(1, 3, scripted_peer.command_set(e0100=0x8030, e0120=1, e0800=0x0101, e0900=0))
            ),
            UNEXPECTED_PARAMETER,
            id="a response to nothing",
        ),
    ],
)
def test_the_provider_aborts_and_says_why(node: ToyNode, sent: bytes, reason: int) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(sent)
        assert peer.read_abort() == (SERVICE_PROVIDER, reason)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="a web browser"),
        pytest.param(pdu(P_DATA_TF, pdv(1, 3, b"")), id="P-DATA first"),
        pytest.param(pdu(1, b"short"), id="a short A-ASSOCIATE-RQ"),
        pytest.param(pdu(1, b"", length=2**31), id="an A-ASSOCIATE-RQ of 2 GB"),
        pytest.param(scripted_peer.associate_rq({2: scripted_peer.CONTEXTS[1]}), id="an even context ID"),
    ],
)
def test_what_is_no_association_request_is_aborted_by_the_user(node: ToyNode, sent: bytes) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.send(sent)
        assert peer.read_abort() == (SERVICE_USER, 0)


@pytest.mark.parametrize(
    ("changes", "rejection"),
    [
        ({"application_context": "1.2.3"}, (1, 1, 2)),
        ({"called": "OTHER"}, (1, 1, 7)),
        ({"protocol_version": 2}, (1, 2, 2)),
    ],
)
def test_a_request_that_does_not_fit_is_rejected(
    node: ToyNode, changes: dict[str, Any], rejection: tuple[int, int, int]
) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS, **changes))
        kind, body = peer.read_pdu()
        assert (kind, tuple(body[1:])) == (scripted_peer.A_ASSOCIATE_RJ, rejection)
        peer.close()


def test_a_peer_that_asks_for_nothing_is_dropped_when_artim_runs_out() -> None:
    with toy_node(artim_timeout_seconds=0.2) as node, ScriptedPeer.to(node.port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS)[:20])
        begin = time.monotonic()
        peer.expect_end()
        assert time.monotonic() - begin < 5.0


def test_a_stalling_peer_ends_its_own_association_alone() -> None:
    with (
        toy_node(network_timeout_seconds=0.5) as node,
        ScriptedPeer.to(node.port) as stalling,
        ScriptedPeer.to(node.port) as lively,
    ):
        stalling.associate()
        lively.associate()
        stalling.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        stalling.send_pdv(3, 0, b"half")
        ended = threading.Event()
        failures: list[BaseException] = []

        def watch() -> None:
            try:
                assert stalling.read_abort() == (SERVICE_USER, 0)
            except BaseException as error:
                failures.append(error)
            finally:
                ended.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        count = 0
        while not ended.is_set():
            lively.request(1, scripted_peer.echo_rq(count % 60000 + 1))
            assert lively.read_message()[0][0x0900] == 0
            count += 1
        watcher.join()
        lively.release()
        assert not failures
        assert count > 5
        assert node.stored == []


def test_an_idle_association_is_ended_after_the_network_timeout() -> None:
    with toy_node(network_timeout_seconds=0.2) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        assert peer.read_abort() == (SERVICE_USER, 0)


def test_a_peer_that_does_not_read_its_answers_is_dropped() -> None:
    def endless(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        found = Dataset()
        found.PatientComments = "x" * 60000
        while True:
            yield Response(status.PENDING, identifier=found)

    with (
        toy_node(handlers={"C-FIND": endless}, network_timeout_seconds=0.3) as node,
        ScriptedPeer.to(node.port) as peer,
    ):
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), IDENTIFIER)
        wait_until(lambda: node.server.association_count == 1)
        wait_until(lambda: node.server.association_count == 0, what="the association's end")


@pytest.mark.parametrize("is_clean", [True, False])
def test_an_abort_in_the_middle_of_a_store_leaves_no_instance(node: ToyNode, is_clean: bool) -> None:
    before = len(node.stored)
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        wait_until(lambda: node.server.association_count == 1)
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        peer.send_pdv(3, 0, b"half of it")
        if is_clean:
            peer.send(pdu(7, bytes(4)))
    wait_until(lambda: node.server.association_count == 0)
    assert len(node.stored) == before


def test_the_peers_maximum_pdu_length_is_kept() -> None:
    def long_answer(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        found = Dataset()
        found.PatientComments = "x" * 9000
        yield Response(status.PENDING, identifier=found)
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-FIND": long_answer}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(max_pdu_bytes=101)
        peer.request(5, scripted_peer.find_rq(), IDENTIFIER)
        lengths, received = [], b""
        while not received.endswith(b"x" * 9000):
            kind, body = peer.read_pdu()
            assert kind == P_DATA_TF
            lengths.append(len(body))
            received = (received + body[6:])[-9000:]
        assert max(lengths) <= 101
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def test_a_command_that_is_not_offered_is_answered_with_unrecognised_operation(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        n_get = scripted_peer.command_set(
            e0003=scripted_peer.CT_IMAGE_STORAGE, e0100=0x0110, e0110=9, e0800=0x0101, e1001="1.2"
        )
        peer.request(3, n_get)
        answer, _ = peer.read_message()
        assert (answer[0x0100], answer[0x0120], answer[0x0900]) == (0x8110, 9, 0x0211)
        peer.request(1, scripted_peer.echo_rq())
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def test_a_request_without_what_it_must_carry_is_answered_with_mistyped_argument(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        nameless = scripted_peer.command_set(
            e0002=scripted_peer.CT_IMAGE_STORAGE, e0100=1, e0110=1, e0700=0, e0800=1
        )
        peer.request(3, nameless, b"its data set is read over")
        assert peer.read_message()[0][0x0900] == 0x0212
        peer.release()


def test_what_a_handler_does_not_read_is_read_over_before_the_answer() -> None:
    def uninterested(services: Any, request: Request) -> Iterator[Response]:
        next(request.fragments())
        yield Response(status.STORE_OUT_OF_RESOURCES, "no space")

    with toy_node(handlers={"C-STORE": uninterested}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        for number in (1, 2):
            peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq(number))
            for _ in range(20):
                peer.send_pdv(3, 0, bytes(100000))
            peer.send_pdv(3, LAST, b"end")
            answer, _ = peer.read_message()
            assert (answer[0x0120], answer[0x0900], answer[0x0902]) == (number, 0xA700, "no space")
        peer.release()


def test_reading_over_ends_at_the_limit_for_an_instance() -> None:
    def uninterested(services: Any, request: Request) -> Iterator[Response]:
        yield Response(status.STORE_OUT_OF_RESOURCES)

    with (
        toy_node(handlers={"C-STORE": uninterested}, instance_bytes=1000) as node,
        ScriptedPeer.to(node.port) as peer,
    ):
        peer.associate()
        peer.request(3, scripted_peer.store_rq(), bytes(2000))
        assert peer.read_abort() == (SERVICE_PROVIDER, UNEXPECTED_PARAMETER)


def test_an_identifier_over_the_limit_is_refused_and_the_association_goes_on() -> None:
    with toy_node(identifier_bytes=100) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), bytes(5000))
        assert peer.read_message()[0][0x0900] == status.QUERY_OUT_OF_RESOURCES
        peer.request(5, scripted_peer.find_rq(), IDENTIFIER)
        assert [peer.read_message()[0][0x0900] for _ in range(3)] == [0xFF00, 0xFF00, 0]
        peer.release()


@pytest.mark.parametrize("identifier", [IDENTIFIER[:-3], b"\x08\x00\x52", b"\xff" * 30])
def test_a_malformed_identifier_is_answered_with_a_failure(node: ToyNode, identifier: bytes) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), identifier)
        answer, _ = peer.read_message()
        assert answer[0x0900] in (status.UNABLE_TO_PROCESS, status.PROCESSING_FAILURE)
        peer.release()


def test_a_cancel_is_seen_between_responses() -> None:
    started = threading.Event()

    def patient(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        assert not request.is_cancelled()
        yield Response(status.PENDING, identifier=b"")
        started.set()
        wait_until(request.is_cancelled, what="the C-CANCEL-RQ")
        yield Response(status.CANCEL)

    with toy_node(handlers={"C-FIND": patient}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(11), IDENTIFIER)
        assert started.wait(10.0)
        peer.request(5, scripted_peer.cancel_rq(11))
        assert [peer.read_message()[0][0x0900] for _ in range(2)] == [0xFF00, 0xFE00]
        peer.request(1, scripted_peer.echo_rq())
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def test_half_a_cancel_is_not_waited_for() -> None:
    """The handler goes on, and sees the C-CANCEL-RQ once the rest of it is there."""
    half_sent, went_on = threading.Event(), threading.Event()

    def patient(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        yield Response(status.PENDING, identifier=b"")
        assert half_sent.wait(10.0)
        wait_until(lambda: request.is_cancelled() or request._stream._input.available > 6, what="the half")
        assert not request.is_cancelled()
        went_on.set()
        wait_until(request.is_cancelled, what="the C-CANCEL-RQ")
        yield Response(status.CANCEL)

    cancel = pdu(P_DATA_TF, pdv(5, COMMAND | LAST, scripted_peer.cancel_rq(11)))
    with toy_node(handlers={"C-FIND": patient}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(11), IDENTIFIER)
        assert peer.read_message()[0][0x0900] == 0xFF00
        peer.socket.sendall(cancel[:20])
        half_sent.set()
        assert went_on.wait(10.0)
        peer.socket.sendall(cancel[20:])
        assert peer.read_message()[0][0x0900] == 0xFE00
        peer.release()


def test_a_cancel_of_nothing_is_passed_over_and_does_not_cancel_a_later_request(node: ToyNode) -> None:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.cancel_rq(1))
        peer.request(5, scripted_peer.find_rq(1), IDENTIFIER)
        assert [peer.read_message()[0][0x0900] for _ in range(3)] == [0xFF00, 0xFF00, 0]
        peer.release()


def test_a_request_that_comes_too_early_is_answered_after_the_one_before() -> None:
    def curious(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        assert not request.is_cancelled()
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-FIND": curious}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send(
            pdu(P_DATA_TF, pdv(5, 3, scripted_peer.find_rq(1)) + pdv(5, LAST, IDENTIFIER)),
            pdu(P_DATA_TF, pdv(3, 3, scripted_peer.store_rq(2)) + pdv(3, LAST, b"data")),
            pdu(P_DATA_TF, pdv(1, 3, scripted_peer.echo_rq(3))),
        )
        answers = [peer.read_message()[0] for _ in range(3)]
        assert [(a[0x0100], a[0x0120], a[0x0900]) for a in answers] == [
            (0x8020, 1, 0),
            (0x8001, 2, 0),
            (0x8030, 3, 0),
        ]
        peer.release()


def test_an_abort_while_a_handler_looks_for_a_cancel_ends_it() -> None:
    closed = threading.Event()

    def patient(services: Any, request: Request) -> Iterator[Response]:
        try:
            request.identifier()
            wait_until(request.is_cancelled, what="the C-CANCEL-RQ")
        finally:
            closed.set()
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-FIND": patient}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), IDENTIFIER)
        peer.send(pdu(7, bytes(4)))
        assert closed.wait(10.0)
        wait_until(lambda: node.server.association_count == 0)


def test_a_handler_without_a_final_response_is_answered_for() -> None:
    def forgetful(services: Any, request: Request) -> Iterator[Response]:
        yield Response(status.PENDING, identifier=IDENTIFIER)

    with toy_node(handlers={"C-FIND": forgetful}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), IDENTIFIER)
        assert [peer.read_message()[0][0x0900] for _ in range(2)] == [0xFF00, 0x0110]
        peer.release()


def test_an_n_action_is_answered_with_its_instance_and_action_type() -> None:
    def commit(services: Any, request: Request) -> Iterator[Response]:
        assert request.identifier().TransactionUID == "1.2.3"
        yield Response(status.SUCCESS, elements={"ErrorID": 5})

    push = "1.2.840.10008.1.20.1"
    contexts = {1: (push, (scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN,))}
    transaction = Dataset()
    transaction.TransactionUID = "1.2.3"
    with toy_node(handlers={"N-ACTION": commit}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts=contexts)
        peer.request(
            1,
            scripted_peer.command_set(
                e0003=push, e0100=0x0130, e0110=4, e0800=1, e1001="1.2.840.10008.1.20.1.1", e1008=1
            ),
            data_sets.implicit(transaction),
        )
        answer, _ = peer.read_message()
        assert answer[0x0100] == 0x8130
        assert (answer[0x0002], answer[0x1000], answer[0x1008]) == (push, "1.2.840.10008.1.20.1.1", 1)
        assert (answer[0x0900], answer[0x0903]) == (0, 5)
        peer.release()


def test_work_is_posted_into_an_idle_association(node: ToyNode) -> None:
    push = "1.2.840.10008.1.20.1"
    contexts = {1: (push, (scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN,))}
    answers = []
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts=contexts, calling="COMMITTER")
        wait_until(lambda: node.server.association_count == 1)
        peers = node.services.peers
        [association] = [a for n in range(10000) if (a := peers.open_association(n)) is not None]
        assert association.calling_ae_title == "COMMITTER"
        information = Dataset()
        information.TransactionUID = "1.2.3"

        def report(there: Any) -> None:
            answers.append(
                there.event_report(
                    sop_class_uid=push,
                    sop_instance_uid="1.2.840.10008.1.20.1.1",
                    event_type_id=1,
                    information=information,
                )
            )

        assert association.post(report)
        command, data_set = peer.read_message()
        assert (command[0x0100], command[0x1002], command[0x0002]) == (0x0100, 1, push)
        assert data_set == data_sets.implicit(information)
        response = scripted_peer.command_set(
            e0002=push, e0100=0x8100, e0120=command[0x0110], e0800=0x0101, e0900=0
        )
        peer.request(1, response)
        wait_until(lambda: answers)
        assert answers[0].status == 0
        assert peers.open_association(association.number) is association
        peer.release()
    wait_until(lambda: peers.open_association(association.number) is None)
    assert not association.post(report)
