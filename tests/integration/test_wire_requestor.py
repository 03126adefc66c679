"""Associations that this node requests: against itself, pynetdicom, and raw PDUs."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from node import status
from node.errors import (
    AssociationAborted,
    AssociationRejected,
    DatabaseFailure,
    IntegrityFailure,
    NoAcceptedContext,
    ObjectError,
    PeerError,
    PeerUnreachable,
    ProtocolViolation,
)
from node.wire import scu
from node.wire.association import Request, Response
from node.wire.connection import ConnectionLost
from node.wire.pdu import AbortReason, Violation
from node.wire.scu import ProposedContext, RequestedAssociation
from tests.support import scripted_peer
from tests.support.data_sets import explicit, study_query
from tests.support.scripted_peer import ScriptedPeer, pdu, scripted_acceptor
from tests.support.toy_node import toy_node
from tests.support.waiting import wait_until

VERIFICATION = scripted_peer.VERIFICATION
CT = scripted_peer.CT_IMAGE_STORAGE
FIND = scripted_peer.STUDY_ROOT_FIND
GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PUSH = "1.2.840.10008.1.20.1"
PUSH_INSTANCE = "1.2.840.10008.1.20.1.1"
EXPLICIT = scripted_peer.EXPLICIT_VR_LITTLE_ENDIAN
IMPLICIT = scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN
PLAIN = (EXPLICIT, IMPLICIT)
ALL = [ProposedContext(uid, PLAIN) for uid in (VERIFICATION, CT, FIND, GET, MOVE, PUSH)]


def connect(port: int, contexts: Sequence[ProposedContext] = ALL, **changes: Any) -> RequestedAssociation:
    wanted: dict[str, Any] = {
        "calling_ae_title": "TESTER",
        "called_ae_title": "ANODE",
        "timeout_seconds": 10.0,
        "max_pdu_bytes": 131072,
    }
    return scu.connect("127.0.0.1", port, contexts=contexts, **{**wanted, **changes})


def at_rest(association: Association) -> Association:
    """pynetdicom's association, once its other thread has gone on after the last operation.

    Until then that thread can take a response of the next operation for a request, and drop it.
    """
    wait_until(lambda: not association._is_paused, what="pynetdicom")
    return association


def accepting(peer: ScriptedPeer, **changes: Any) -> None:
    """Read an A-ASSOCIATE-RQ and accept its first context."""
    kind, _ = peer.read_pdu()
    assert kind == scripted_peer.A_ASSOCIATE_RQ
    peer.send(scripted_peer.associate_ac({1: (0, EXPLICIT)}, **changes))


@contextmanager
def pynetdicom_server(handlers: list[tuple[Any, Any]], *contexts: str, roles: bool = False) -> Iterator[int]:
    entity = AE("ANODE")
    for uid in contexts:
        both = {"scu_role": True, "scp_role": True} if roles and uid == CT else {}
        entity.add_supported_context(uid, list(PLAIN), **both)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def file_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = EXPLICIT
    return meta


# --- a node of our own as the peer -------------------------------------------------


def test_echo_store_and_find_on_one_association() -> None:
    content = bytes(range(256)) * 5000
    with toy_node() as node:
        with connect(node.port) as association:
            assert association.echo().status == 0
            context = association.context_for(CT, (IMPLICIT, EXPLICIT))
            assert context is not None
            for data_set in (content, io.BytesIO(content), content[:7], b""):
                answer = association.send_store(
                    context, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=data_set
                )
                assert answer.status == 0
            found = list(association.find(FIND, study_query()))
        assert [stored.length for stored in node.stored] == [len(content), len(content), 7, 0]
        assert node.stored[1].sha256 == hashlib.sha256(content).hexdigest()
    assert [code for code, _ in found] == [0xFF00, 0xFF00, 0]
    assert [data_set.StudyInstanceUID for _, data_set in found[:2] if data_set] == ["1.2.3.1", "1.2.3.2"]
    assert found[2][1] is None


def test_a_stream_that_reads_in_small_pieces_arrives_whole() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 1000, 1000))

    content = bytes(range(256)) * 3000
    with toy_node() as node:
        with connect(node.port) as association:
            context = association.context_for(CT)
            assert context is not None
            association.send_store(
                context, sop_class_uid=CT, sop_instance_uid="1.2", data_set=Trickle(content)
            )
        assert node.stored[0].sha256 == hashlib.sha256(content).hexdigest()


class Breaking(io.RawIOBase):
    """Gives ``good`` bytes and then fails as a damaged archive does."""

    def __init__(self, good: int) -> None:
        self.left = good

    def read(self, size: int = -1) -> bytes:
        if self.left <= 0:
            raise IntegrityFailure("damaged")
        self.left -= size
        return bytes(size)


def test_a_data_set_that_cannot_be_read_spoils_the_association_only_once_part_was_sent() -> None:
    with toy_node() as node:
        with connect(node.port) as association:
            context = association.context_for(CT)
            assert context is not None

            def store(data_set: Any) -> Any:
                stream: BinaryIO = data_set
                return association.send_store(
                    context, sop_class_uid=CT, sop_instance_uid="1.2", data_set=stream
                )

            with pytest.raises(IntegrityFailure):
                store(Breaking(100))
            assert association.is_established
            assert store(io.BytesIO(b"good")).status == 0
            with pytest.raises(IntegrityFailure):
                store(Breaking(100_000_000))
            assert not association.is_established
            with pytest.raises(PeerError):
                association.echo()
        assert [stored.length for stored in node.stored] == [4]


def test_contexts_are_found_by_transfer_syntax_in_the_callers_order() -> None:
    contexts = [ProposedContext(CT, (IMPLICIT,)), ProposedContext(CT, (EXPLICIT,))]
    with toy_node() as node, connect(node.port, contexts) as association:
        for wanted in (EXPLICIT, IMPLICIT):
            found = association.context_for(CT, (wanted,))
            assert found is not None
            assert found.transfer_syntax_uid == wanted
        assert association.context_for(CT, ("1.2.840.10008.1.2.4.80",)) is None
        assert association.context_for(FIND) is None
        with pytest.raises(NoAcceptedContext):
            list(association.find(FIND, study_query()))
        with pytest.raises(NoAcceptedContext):
            association.echo()


def test_a_c_get_brings_the_instances_on_the_same_association() -> None:
    contents = {f"1.2.3.{number}": bytes([number]) * 300000 for number in range(5)}
    orders: list[tuple[str, str]] = []

    def get(services: Any, request: Request) -> Iterator[Response]:
        assert request.identifier().QueryRetrieveLevel == "STUDY"
        context = request.association.context_for(CT)
        assert context is not None
        for number, (instance, content) in enumerate(contents.items()):
            answer = request.association.send_store(
                context, sop_class_uid=CT, sop_instance_uid=instance, data_set=content
            )
            assert answer.status == 0
            yield Response(status.PENDING, remaining=4 - number, completed=number + 1, failed=0, warning=0)
        yield Response(status.SUCCESS, completed=5, failed=0, warning=0)

    def store(request: Request) -> Iterator[Response]:
        received = b"".join(map(b"".join, request.fragments()))
        instance = request.command.AffectedSOPInstanceUID
        orders.append((instance, "same" if received == contents[instance] else "differs"))
        yield Response(status.SUCCESS)

    contexts = [ProposedContext(GET, PLAIN), ProposedContext(CT, PLAIN, scp_role=True)]
    with (
        toy_node(handlers={"C-GET": get}) as node,
        connect(node.port, contexts, handlers={"C-STORE": store}) as association,
    ):
        responses = list(association.get(GET, study_query()))
    assert [code for code, _ in responses] == [0xFF00] * 5 + [0]
    assert responses[0][1].remaining == 4
    assert responses[-1][1].completed == 5
    assert orders == [(instance, "same") for instance in contents]


def test_a_c_get_is_cancelled_between_its_sub_operations() -> None:
    sent = []

    def get(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        context = request.association.context_for(CT)
        assert context is not None
        while not request.is_cancelled():
            request.association.send_store(
                context, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=bytes(100)
            )
            sent.append(1)
            yield Response(status.PENDING, remaining=1, completed=len(sent), failed=0, warning=0)
        yield Response(status.CANCEL, remaining=1, completed=len(sent), failed=0, warning=0)

    def store(request: Request) -> Iterator[Response]:
        yield Response(status.SUCCESS)

    contexts = [
        ProposedContext(GET, PLAIN),
        ProposedContext(CT, PLAIN, scp_role=True),
        ProposedContext(VERIFICATION, PLAIN),
    ]
    with (
        toy_node(handlers={"C-GET": get}) as node,
        connect(node.port, contexts, handlers={"C-STORE": store}) as association,
    ):
        responses = association.get(GET, study_query())
        next(responses)
        next(responses)
        responses.close()  # type: ignore[attr-defined]
        assert association.echo().status == 0
    assert len(sent) >= 2


def test_a_c_get_without_a_handler_for_its_instances_hears_of_each_failure() -> None:
    statuses = []

    def get(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        context = request.association.context_for(CT)
        assert context is not None
        answer = request.association.send_store(
            context, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=b"abcd"
        )
        statuses.append(answer.status)
        yield Response(status.RETRIEVE_CANNOT_PERFORM, failed=1)

    contexts = [ProposedContext(GET, PLAIN), ProposedContext(CT, PLAIN, scp_role=True)]
    with toy_node(handlers={"C-GET": get}) as node, connect(node.port, contexts) as association:
        [(code, response)] = list(association.get(GET, study_query()))
    assert statuses == [status.UNRECOGNISED_OPERATION]
    assert (code, response.failed) == (status.RETRIEVE_CANNOT_PERFORM, 1)


def test_a_c_move_tells_destination_numbers_and_failed_list() -> None:
    def move(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        assert request.command.MoveDestination == "ELSEWHERE"
        yield Response(status.PENDING, remaining=1, completed=1, failed=0, warning=0)
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = ["1.2", "1.3"]
        yield Response(status.SUB_OPERATIONS_WARNING, "two failed", failed, completed=1, failed=2, warning=0)

    with toy_node(handlers={"C-MOVE": move}) as node, connect(node.port) as association:
        responses = list(association.move(MOVE, study_query(), "ELSEWHERE"))
    assert [code for code, _ in responses] == [0xFF00, 0xB000]
    last = responses[-1][1]
    assert (last.comment, last.completed, last.failed, last.warning) == ("two failed", 1, 2, 0)
    assert isinstance(last.identifier, Dataset)
    assert list(last.identifier.FailedSOPInstanceUIDList) == ["1.2", "1.3"]


def test_an_event_report_comes_back_on_the_association_of_its_action() -> None:
    transaction = Dataset()
    transaction.TransactionUID = "1.2.3.4"
    reports: list[tuple[int, str]] = []
    answers: list[int] = []

    def commit(services: Any, request: Request) -> Iterator[Response]:
        asked = request.identifier()

        def report(association: Any) -> None:
            answer = association.event_report(
                sop_class_uid=PUSH, sop_instance_uid=PUSH_INSTANCE, event_type_id=1, information=asked
            )
            answers.append(answer.status)

        yield Response(status.SUCCESS)
        assert services.peers.open_association(request.association.number).post(report)

    def heed(request: Request) -> Iterator[Response]:
        reports.append((request.command.EventTypeID, request.identifier().TransactionUID))
        yield Response(status.SUCCESS)

    with (
        toy_node(handlers={"N-ACTION": commit}) as node,
        connect(node.port, handlers={"N-EVENT-REPORT": heed}) as association,
    ):
        answer = association.action(
            sop_class_uid=PUSH, sop_instance_uid=PUSH_INSTANCE, action_type_id=1, information=transaction
        )
        assert answer.status == 0
        assert not association.serve(0.0, until=lambda: False)
        assert association.serve(10.0, until=lambda: bool(reports))
        assert association.echo().status == 0
    assert reports == [(1, "1.2.3.4")]
    assert answers == [0]


def test_an_event_report_comes_on_an_association_of_its_own() -> None:
    reports = []

    def heed(services: Any, request: Request) -> Iterator[Response]:
        reports.append(request.identifier().TransactionUID)
        yield Response(status.SUCCESS)

    information = Dataset()
    information.TransactionUID = "1.2.3.5"
    contexts = [ProposedContext(PUSH, PLAIN, scp_role=True)]
    with toy_node(handlers={"N-EVENT-REPORT": heed}) as node, connect(node.port, contexts) as association:
        [context] = association.contexts.values()
        assert (context.requestor_is_scu, context.requestor_is_scp) == (False, True)
        answer = association.event_report(
            sop_class_uid=PUSH, sop_instance_uid=PUSH_INSTANCE, event_type_id=2, information=information
        )
    assert answer.status == 0
    assert reports == ["1.2.3.5"]


def test_an_error_aborts_instead_of_releasing() -> None:
    with toy_node() as node:
        with pytest.raises(RuntimeError), connect(node.port) as association:
            raise RuntimeError("ours")
        assert not association.is_established
        with pytest.raises(AssociationAborted):
            association.echo()


# --- pynetdicom as the peer --------------------------------------------------------


def test_pynetdicom_stores_what_we_send_unchanged() -> None:
    received = []

    def store(event: evt.Event) -> int:
        received.append((event.request.DataSet.getvalue(), event.request.MoveOriginatorMessageID))
        return 0x0000

    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT, "1.2.3.4"
    image.PixelData = bytes(500000)
    image["PixelData"].VR = "OW"
    content = explicit(image)
    with (
        pynetdicom_server([(evt.EVT_C_STORE, store)], CT, VERIFICATION) as port,
        connect(port) as association,
    ):
        assert association.echo().status == 0
        context = association.context_for(CT, (EXPLICIT,))
        assert context is not None
        answer = association.send_store(
            context,
            sop_class_uid=CT,
            sop_instance_uid="1.2.3.4",
            data_set=content,
            move_originator_ae_title="ORIGIN",
            move_originator_message_id=7,
        )
    assert answer.status == 0
    assert received == [(content, 7)]


def test_pynetdicom_answers_our_find_and_hears_our_cancel() -> None:
    cancelled = []

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(100):
            found = Dataset()
            found.StudyInstanceUID = f"1.2.{number}"
            yield 0xFF00, found
        # pynetdicom does not look at what comes while it has something to send
        wait_until(lambda: event.is_cancelled, what="the cancel")
        cancelled.append(True)
        yield 0xFE00, None

    with (
        pynetdicom_server([(evt.EVT_C_FIND, find)], FIND, VERIFICATION) as port,
        connect(port) as association,
    ):
        for number, (code, found) in enumerate(association.find(FIND, study_query())):
            assert code == 0xFF00
            assert found is not None
            if number == 3:
                break
        assert association.echo().status == 0
    assert len(cancelled) == 1


def test_pynetdicom_serves_our_c_get() -> None:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID, image.PatientID = CT, "1.2.3.4", "P"
    image.file_meta = file_meta()
    received = []

    def get(event: evt.Event) -> Iterator[Any]:
        yield 1
        yield 0xFF00, image

    def store(request: Request) -> Iterator[Response]:
        received.append(b"".join(map(b"".join, request.fragments())))
        yield Response(status.SUCCESS)

    contexts = [ProposedContext(GET, PLAIN), ProposedContext(CT, (EXPLICIT,), scp_role=True)]
    with (
        pynetdicom_server([(evt.EVT_C_GET, get)], GET, CT, roles=True) as port,
        connect(port, contexts, handlers={"C-STORE": store}) as association,
    ):
        responses = list(association.get(GET, study_query()))
    assert responses[-1][0] == 0
    assert responses[-1][1].completed == 1
    assert received == [explicit(image)]


def test_pynetdicom_as_a_scanner_stores_finds_and_gets() -> None:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID, image.PatientID = CT, "1.2.3.4", "P"

    def get(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        context = request.association.context_for(CT)
        assert context is not None
        answer = request.association.send_store(
            context, sop_class_uid=CT, sop_instance_uid="1.2.3.4", data_set=explicit(image)
        )
        yield Response(answer.status, completed=1, failed=0, warning=0)

    received = []

    def store(event: evt.Event) -> int:
        received.append(event.dataset.PatientID)
        return 0x0000

    entity = AE("PYNETDICOM")
    for uid in (VERIFICATION, FIND, GET, CT):
        entity.add_requested_context(uid, EXPLICIT)
    with toy_node(handlers={"C-GET": get}) as node:
        association = entity.associate(
            "127.0.0.1",
            node.port,
            ae_title="ANODE",
            ext_neg=[build_role(CT, scu_role=True, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, store)],
        )
        assert association.is_established
        image.file_meta = file_meta()
        assert association.send_c_echo().Status == 0
        assert at_rest(association).send_c_store(image).Status == 0
        found = at_rest(association).send_c_find(study_query(), FIND)
        assert [answer.Status for answer, _ in found] == [0xFF00, 0xFF00, 0]
        got = at_rest(association).send_c_get(study_query(), GET)
        assert [answer.Status for answer, _ in got] == [0]
        at_rest(association).release()
        assert association.is_released
        assert [stored.transfer_syntax_uid for stored in node.stored] == [EXPLICIT]
    assert received == ["P"]


# --- peers that fail ---------------------------------------------------------------


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(PeerUnreachable, match="no connection to ANODE at 127"):
            connect(unused.getsockname()[1])


def test_a_host_without_an_address_is_unreachable() -> None:
    with pytest.raises(PeerUnreachable, match="no connection to B at host"):
        scu.connect(
            "host.invalid",
            104,
            calling_ae_title="A",
            called_ae_title="B",
            contexts=ALL,
            timeout_seconds=5.0,
            max_pdu_bytes=0,
        )


@pytest.mark.parametrize(("result", "is_transient"), [(1, False), (2, True)])
def test_a_rejection_says_whether_to_try_again(result: int, is_transient: bool) -> None:
    def script(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        peer.send(pdu(scripted_peer.A_ASSOCIATE_RJ, bytes([0, result, 3 if result == 2 else 1, 2])))

    with scripted_acceptor(script) as port, pytest.raises(AssociationRejected) as caught:
        connect(port)
    assert caught.value.transient is is_transient


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (pdu(7, bytes([0, 0, 2, 1])), AssociationAborted),
        (pdu(2, b"rubbish"), ProtocolViolation),
        (pdu(4, b"early"), ProtocolViolation),
        (pdu(0x99, b""), ProtocolViolation),
        (pdu(2, b"", length=2**31), ProtocolViolation),
        (b"", PeerUnreachable),
    ],
)
def test_an_answer_that_is_none_is_named(answer: bytes, error: type[Exception]) -> None:
    def script(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        peer.send(answer)

    with scripted_acceptor(script) as port, pytest.raises(error):
        connect(port)


def test_a_peer_that_does_not_answer_is_given_up_in_time() -> None:
    def script(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        assert peer.read_abort() == (0, 0)

    with scripted_acceptor(script) as port, pytest.raises(PeerUnreachable, match="in time"):
        connect(port, timeout_seconds=0.2)


def test_a_peer_that_stalls_in_an_association_is_given_up_in_time() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        assert peer.read_abort() == (0, 0)

    with (
        scripted_acceptor(script) as port,
        pytest.raises(PeerUnreachable, match="sent nothing"),
        connect(port, [ProposedContext(VERIFICATION, PLAIN)], timeout_seconds=0.2) as association,
    ):
        association.echo()


def test_a_peer_that_aborts_is_named() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        peer.send(pdu(7, bytes([0, 0, 2, 6])))

    with (
        scripted_acceptor(script) as port,
        pytest.raises(AssociationAborted, match="invalid pdu parameter"),
        connect(port, [ProposedContext(VERIFICATION, PLAIN)]) as association,
    ):
        association.echo()


@pytest.mark.parametrize(
    "error", [ConnectionLost("another"), Violation("another", AbortReason.NOT_SPECIFIED)]
)
def test_the_failure_of_another_association_is_not_this_one_s(error: Exception) -> None:
    """Where who asked for a C-MOVE goes away, its destination is told of an abort by the user."""
    heard = []

    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        heard.append(peer.read_pdu())

    with (
        scripted_acceptor(script) as port,
        pytest.raises(type(error), match="another"),
        connect(port, [ProposedContext(CT, PLAIN)]),
    ):
        raise error
    assert heard == [(7, bytes([0, 0, 0, 0]))]


def test_a_final_response_that_cannot_be_read_is_final_all_the_same() -> None:
    """Nothing is cancelled that has come to its end, and nobody waits for another response."""
    heard = []

    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        final = scripted_peer.command_set(e0100=0x8021, e0120=1, e0800=1, e0900=0xB000)
        peer.request(1, final, b"\x08\x00\x58\x00UI\xff\x00ab")
        heard.append(peer.read_pdu()[0])

    with (
        scripted_acceptor(script) as port,
        pytest.raises(ObjectError),
        connect(port, [ProposedContext(MOVE, PLAIN)]) as association,
    ):
        list(association.move(MOVE, study_query(), "STORE"))
    assert heard == [7], "A-ABORT, as the caller was left by an error, and no C-CANCEL before"


def test_nothing_is_asked_for_once_we_have_asked_for_release() -> None:
    """PS3.8 table 9-10: no P-DATA in Sta7, also not for a C-GET that was under way to us."""
    refused = []

    def c_get(_: object, request: Request) -> Iterator[Response]:
        context = request.association.context_for(CT)
        assert context is not None
        with pytest.raises(AssociationAborted, match="released"):
            request.association.send_store(
                context, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=b"abcd"
            )
        refused.append(True)
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-GET": c_get}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(
            contexts={1: (GET, (IMPLICIT,)), 3: (CT, (IMPLICIT,))},
            more_user_items=scripted_peer.role(CT, 0, 1),
        )
        wait_until(lambda: node.server.association_count == 1, what="the association")
        stopping = threading.Thread(target=node.server.stop)
        stopping.start()
        assert peer.read_pdu()[0] == 5
        peer.request(1, scripted_peer.command_set(e0002=GET, e0100=0x10, e0110=1, e0700=0, e0800=0x101))
        peer.send(pdu(6, bytes(4)))
        peer.expect_end()
        stopping.join()
    assert refused == [True]


def test_a_peer_that_releases_instead_of_answering_is_named_and_answered() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        peer.release()

    with (
        scripted_acceptor(script) as port,
        pytest.raises(AssociationAborted, match="released"),
        connect(port, [ProposedContext(VERIFICATION, PLAIN)]) as association,
    ):
        association.echo()


def test_a_release_collision_is_survived() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        assert peer.read_pdu() == (5, bytes(4))
        peer.send(pdu(5, bytes(4)))
        assert peer.read_pdu() == (6, bytes(4))
        peer.send(pdu(6, bytes(4)))
        peer.expect_end()

    with (
        scripted_acceptor(script) as port,
        connect(port, [ProposedContext(VERIFICATION, PLAIN)]) as association,
    ):
        pass
    assert association.failure is None


def test_a_handler_that_fails_while_we_release_leaves_nothing_open() -> None:
    """The caller hears of it, and the peer of the end."""
    heard = []

    def script(peer: ScriptedPeer) -> None:
        accepting(peer, more_user_items=scripted_peer.role(VERIFICATION, 0, 1))
        assert peer.read_pdu()[0] == 5
        peer.send_pdv(1, 3, scripted_peer.echo_rq())
        heard.append(peer.read_pdu()[0])

    def fails(_: Request) -> Iterator[Response]:
        raise DatabaseFailure("the disk is gone")

    with (
        scripted_acceptor(script) as port,
        pytest.raises(DatabaseFailure),
        connect(port, [ProposedContext(VERIFICATION, PLAIN, scp_role=True)], handlers={"C-ECHO": fails}),
    ):
        pass
    assert heard == [7]


def test_data_that_comes_while_releasing_is_read_over() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        assert peer.read_pdu()[0] == 5
        peer.send_pdv(1, 3, scripted_peer.echo_rq())
        peer.send(pdu(6, bytes(4)))

    with (
        scripted_acceptor(script) as port,
        connect(port, [ProposedContext(VERIFICATION, PLAIN)]) as association,
    ):
        pass
    assert association.failure is None


@pytest.mark.parametrize("max_pdu_bytes", [0, 20, 16384, 2**32 - 1])
def test_the_peers_maximum_pdu_length_is_kept_in_sending(max_pdu_bytes: int) -> None:
    content = bytes(range(250)) * 4000
    content = content[:5000] if max_pdu_bytes == 20 else content
    lengths = []
    received = []

    def script(peer: ScriptedPeer) -> None:
        accepting(peer, max_pdu_bytes=max_pdu_bytes)
        read_pdu = peer.read_pdu

        def measured() -> tuple[int, bytes]:
            kind, body = read_pdu()
            lengths.append(len(body))
            return kind, body

        peer.read_pdu = measured  # type: ignore[method-assign]
        command, data_set = peer.read_message()
        received.append(data_set)
        peer.request(
            1,
            scripted_peer.command_set(
                e0002=CT, e0100=0x8001, e0120=command[0x0110], e0800=0x0101, e0900=0xB000
            ),
        )
        assert read_pdu()[0] == 5
        peer.send(pdu(6, bytes(4)))

    with scripted_acceptor(script) as port, connect(port, [ProposedContext(CT, PLAIN)]) as association:
        context = association.context_for(CT)
        assert context is not None
        answer = association.send_store(
            context, sop_class_uid=CT, sop_instance_uid="1.2", data_set=io.BytesIO(content)
        )
    assert answer.status == 0xB000
    assert received == [content]
    assert max(lengths) <= (max_pdu_bytes or 2**32)


def test_another_thread_can_abort_a_waiting_association() -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        association.abort()
        assert peer.read_abort() == (0, 0)

    with scripted_acceptor(script) as port:
        association = connect(port, [ProposedContext(VERIFICATION, PLAIN)])
        with pytest.raises(PeerError), association:
            association.echo()
    assert not association.is_established


def store_response(message_id: int, *, instance: str, field: int = 0x8001) -> bytes:
    elements: dict[str, int | str] = {"e1000": instance} if instance else {}
    return scripted_peer.command_set(
        e0002=CT, e0100=field, e0120=message_id, e0800=0x0101, e0900=0, **elements
    )


def store_twice(port: int) -> list[int]:
    statuses = []
    with connect(port, [ProposedContext(CT, (EXPLICIT,))]) as association:
        [context] = association.contexts.values()
        for _ in range(2):
            answer = association.send_store(
                context, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=b"content!"
            )
            statuses.append(answer.status)
    return statuses


@pytest.mark.parametrize("instance", ["1.2.3", ""])
def test_a_store_response_names_the_instance_or_none(instance: str) -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        for message_id in (1, 2):
            peer.read_message()
            peer.send_pdv(1, 3, store_response(message_id, instance=instance))
        assert peer.read_pdu()[0] == scripted_peer.A_RELEASE_RQ
        peer.send(pdu(scripted_peer.A_RELEASE_RP, bytes(4)))

    with scripted_acceptor(script) as port:
        assert store_twice(port) == [0, 0]


@pytest.mark.parametrize(
    "responses",
    [
        (store_response(1, instance="9.9.9"),),
        (store_response(1, instance="1.2.3", field=0x8030),),
        # the second one is there before its request
        (store_response(1, instance="1.2.3"), store_response(2, instance="1.2.3")),
    ],
)
def test_a_response_that_is_not_to_this_request_aborts(responses: tuple[bytes, ...]) -> None:
    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        peer.send(b"".join(pdu(4, scripted_peer.pdv(1, 3, one)) for one in responses))
        assert peer.read_abort() == (2, 5)

    with scripted_acceptor(script) as port, pytest.raises(ProtocolViolation):
        store_twice(port)


def test_a_find_response_of_another_operation_aborts() -> None:
    """The command field of every response is looked at, not the Message ID alone."""

    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.read_message()
        peer.request(1, scripted_peer.command_set(e0100=0x8021, e0120=1, e0800=0x0101, e0900=0))
        assert peer.read_abort() == (2, 5)

    with (
        scripted_acceptor(script) as port,
        pytest.raises(ProtocolViolation, match="another operation"),
        connect(port, [ProposedContext(FIND, PLAIN)]) as association,
    ):
        list(association.find(FIND, study_query()))


def test_a_cancel_with_a_data_set_does_not_end_the_wait_for_a_report() -> None:
    """A C-CANCEL-RQ has no data set; where one comes it is read over, and the report is heard."""
    cancel = scripted_peer.command_set(e0100=0x0FFF, e0120=1, e0800=1)
    event_report = scripted_peer.command_set(
        e0002=PUSH, e0100=0x0100, e0110=9, e0800=1, e1000=PUSH_INSTANCE, e1002=1
    )

    def script(peer: ScriptedPeer) -> None:
        accepting(peer)
        peer.request(1, cancel, b"what no cancel has")
        peer.request(1, event_report, explicit(study_query()))
        assert peer.read_message()[0][0x0900] == 0
        assert peer.read_pdu()[0] == scripted_peer.A_RELEASE_RQ
        peer.send(pdu(scripted_peer.A_RELEASE_RP, bytes(4)))

    heard: list[int] = []

    def heed(request: Request) -> Iterator[Response]:
        request.identifier()
        heard.append(request.command.EventTypeID)
        yield Response(status.SUCCESS)

    with (
        scripted_acceptor(script) as port,
        connect(port, [ProposedContext(PUSH, PLAIN)], handlers={"N-EVENT-REPORT": heed}) as association,
    ):
        assert association.serve(10.0, until=lambda: bool(heard))
    assert heard == [1]
