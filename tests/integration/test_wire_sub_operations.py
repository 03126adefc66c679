"""C-CANCEL, A-ABORT and A-P-ABORT in the middle of C-FIND, C-MOVE and C-GET, against scripted peers."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import generate_uid

from node import status
from node.errors import AssociationAborted, PeerError
from node.wire import scu
from node.wire.association import Request, Response
from node.wire.scu import ProposedContext, RequestedAssociation
from tests.support import made, scripted_peer
from tests.support.data_sets import implicit, study_identifier, study_query
from tests.support.dcmtk import dcmtk
from tests.support.scripted_pacs import ScriptedPacs, scripted_pacs
from tests.support.scripted_peer import ScriptedPeer, pdu, scripted_acceptor
from tests.support.small_node import SmallNode, config, small_node
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

CT, IMPLICIT = scripted_peer.CT_IMAGE_STORAGE, scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN
FIND = scripted_peer.STUDY_ROOT_FIND
GET, MOVE = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.2"
CONTEXTS = {1: (GET, (IMPLICIT,)), 3: (CT, (IMPLICIT,)), 5: (FIND, (IMPLICIT,)), 7: (MOVE, (IMPLICIT,))}
FIELDS = {"C-GET": (1, 0x0010), "C-FIND": (5, 0x0020), "C-MOVE": (7, 0x0021)}
INSTANCES = 50


class Handlers:
    """Small handlers of the three operations, which say how they ended."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.ended: list[str] = []
        self.is_over = threading.Event()

    def get(self, services: Any, request: Request) -> Iterator[Response]:
        context = request.association.context_for(CT)
        assert context is not None

        def store(number: int) -> None:
            answer = request.association.send_store(
                context, sop_class_uid=CT, sop_instance_uid=f"1.2.{number}", data_set=b"data"
            )
            assert answer.status == 0
            self.stored.append(number)

        yield from self._pending(request, store)

    def find(self, services: Any, request: Request) -> Iterator[Response]:
        yield from self._pending(request, lambda number: None)

    def _pending(self, request: Request, work: Callable[[int], None]) -> Iterator[Response]:
        request.identifier()
        ended = "closed"
        try:
            is_find = request.operation != "C-GET"
            for number in itertools.count(1) if is_find else range(1, INSTANCES + 1):
                if request.is_cancelled():
                    ended = "cancelled"
                    left = max(INSTANCES - number + 1, 0)
                    yield Response(status.CANCEL, remaining=left, completed=number - 1, failed=0, warning=0)
                    return
                work(number)
                yield Response(
                    status.PENDING,
                    identifier=study_identifier() if is_find else None,
                    **({} if is_find else {"remaining": max(INSTANCES - number, 0), "completed": number}),  # type: ignore[arg-type]
                )
            ended = "done"
            yield Response(status.SUCCESS)
        except PeerError as error:
            ended = type(error).__name__
            raise
        finally:
            self.ended.append(ended)
            self.is_over.set()


@contextmanager
def asking(operation: str) -> Iterator[tuple[ScriptedPeer, Handlers, ToyNode]]:
    """A peer that has sent a request of ``operation`` with Message ID 9."""
    toys = Handlers()
    handlers = {"C-GET": toys.get, "C-FIND": toys.find, "C-MOVE": toys.find}
    with toy_node(handlers=handlers) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts=CONTEXTS, more_user_items=scripted_peer.role(CT, 0, 1))
        context_id, field = FIELDS[operation]
        uid = CONTEXTS[context_id][0]
        more = {"e0600": "DEST"} if operation == "C-MOVE" else {}
        peer.request(
            context_id,
            scripted_peer.command_set(e0002=uid, e0100=field, e0110=9, e0700=0, e0800=1, **more),
            study_identifier(),
        )
        yield peer, toys, node


def store_response(command: dict[int, int | str]) -> bytes:
    return scripted_peer.command_set(
        e0002=CT,
        e0100=0x8001,
        e0120=int(command[0x0110]),
        e0800=0x0101,
        e0900=0,
        e1000=str(command[0x1000]),
    )


def read_until_final(peer: ScriptedPeer) -> tuple[list[int], dict[int, int | str]]:
    """Answer every sub-operation; return the statuses of the responses and the last of them."""
    statuses = []
    while True:
        command, _ = peer.read_message()
        if command[0x0100] == 0x0001:
            peer.request(3, store_response(command))
            continue
        assert command[0x0120] == 9
        statuses.append(int(command[0x0900]))
        if command[0x0900] not in (0xFF00, 0xFF01):
            return statuses, command


# --- as SCP --------------------------------------------------------------------------


def test_a_c_get_whose_cancel_comes_before_the_sub_operations_response_stops() -> None:
    """A C-CANCEL-RQ between C-STORE-RQ and its response ends the C-GET after that one sub-operation."""
    with asking("C-GET") as (peer, toys, _):
        command, _ = peer.read_message()
        peer.request(1, scripted_peer.cancel_rq(9))
        peer.request(3, store_response(command))
        statuses, final = read_until_final(peer)
        assert statuses == [0xFF00, 0xFE00]
        assert (final[0x1020], final[0x1021]) == (INSTANCES - 1, 1)
        assert toys.stored == [1]
        peer.release()
    assert toys.ended == ["cancelled"]


@pytest.mark.parametrize("operation", ["C-GET", "C-FIND", "C-MOVE"])
def test_each_operation_is_cancelled_between_its_responses(operation: str) -> None:
    """A C-CANCEL-RQ is answered with status FE00, and the association goes on."""
    with asking(operation) as (peer, toys, _):
        if operation == "C-GET":
            command, _ = peer.read_message()
            peer.request(3, store_response(command))
        peer.read_message()
        peer.request(FIELDS[operation][0], scripted_peer.cancel_rq(9))
        statuses, _ = read_until_final(peer)
        assert statuses[-1] == 0xFE00
        peer.release()
    assert toys.ended == ["cancelled"]


def test_a_cancel_of_another_message_cancels_nothing() -> None:
    """A C-CANCEL-RQ names the request by its Message ID; one of another is passed over."""
    with asking("C-GET") as (peer, toys, _):
        peer.request(1, scripted_peer.cancel_rq(8))
        statuses, _ = read_until_final(peer)
        assert statuses == [0xFF00] * INSTANCES + [0]
        peer.release()
    assert toys.ended == ["done"]


@pytest.mark.parametrize("source", [0, 2], ids=["A-ABORT", "A-P-ABORT"])
@pytest.mark.parametrize("operation", ["C-GET", "C-FIND", "C-MOVE"])
def test_an_abort_in_the_middle_ends_the_operation(operation: str, source: int) -> None:
    """After A-ABORT or A-P-ABORT nothing more is sent, the handler ends, and nothing of it is left."""
    with asking(operation) as (peer, toys, node):
        peer.read_message()
        peer.send(pdu(scripted_peer.A_ABORT, bytes([0, 0, source, 0])))
        assert toys.is_over.wait(10.0)
        wait_until(lambda: node.server.association_count == 0, what="the association's end")
    assert toys.ended != ["cancelled"]
    assert toys.stored == []


def test_a_lost_connection_in_the_middle_ends_the_operation() -> None:
    """A connection that breaks between a sub-operation and its response ends the C-GET."""
    with asking("C-GET") as (peer, toys, node):
        peer.read_message()
        peer.socket.close()
        assert toys.is_over.wait(10.0)
        wait_until(lambda: node.server.association_count == 0, what="the association's end")
    assert toys.ended == ["ConnectionLost"]


@pytest.mark.parametrize(
    "response",
    [
        scripted_peer.command_set(e0002=CT, e0100=0x8001, e0120=77, e0800=0x0101, e0900=0),
        scripted_peer.command_set(e0002=CT, e0100=0x8030, e0120=1, e0800=0x0101, e0900=0),
        scripted_peer.command_set(e0002=CT, e0100=0x8001, e0120=1, e0800=0x0101),
        scripted_peer.command_set(e0002=CT, e0100=0x8001, e0120=1, e0800=0x0101, e0900=0, e1000="9.9"),
    ],
    ids=["another message", "another operation", "without a status", "another instance"],
)
def test_a_sub_operations_response_that_is_none_is_aborted(response: bytes) -> None:
    """What does not answer the C-STORE-RQ of a C-GET ends the association by A-P-ABORT."""
    with asking("C-GET") as (peer, toys, _):
        peer.read_message()
        peer.request(3, response)
        assert peer.read_abort() == (2, 5)
        assert toys.is_over.wait(10.0)
    assert toys.ended == ["Violation"]
    assert toys.stored == []


def test_a_sub_operation_counts_up_its_own_message_ids() -> None:
    """The C-STORE-RQs of a C-GET have Message IDs of their own, each another (PS3.7 section 9.3.1.1)."""
    with asking("C-GET") as (peer, _, _):
        seen = []
        for _ in range(3):
            command, data_set = peer.read_message()
            seen.append((command[0x0110], command[0x1000], data_set))
            peer.request(3, store_response(command))
            assert peer.read_message()[0][0x0900] == 0xFF00
        peer.send(pdu(scripted_peer.A_ABORT, bytes(4)))
    assert seen == [(number, f"1.2.{number}", b"data") for number in (1, 2, 3)]


# --- as SCU --------------------------------------------------------------------------


def ask(association: RequestedAssociation, operation: str) -> Iterator[tuple[int, Any]]:
    if operation == "C-FIND":
        return association.find(FIND, study_query())
    if operation == "C-MOVE":
        return association.move(MOVE, study_query(), "DEST")
    return association.get(GET, study_query())


@contextmanager
def association_with(
    script: Callable[[ScriptedPeer, SimpleNamespace], None], operation: str
) -> Iterator[RequestedAssociation]:
    """Associate with a peer that reads the request, and then follows ``script``."""
    uid = {"C-FIND": FIND, "C-MOVE": MOVE, "C-GET": GET}[operation]

    def whole(peer: ScriptedPeer) -> None:
        peer.read_pdu()
        peer.send(scripted_peer.associate_ac({1: (0, IMPLICIT), 3: (0, IMPLICIT)}))
        command, _ = peer.read_message()
        field = int(command[0x0100])

        def respond(code: int) -> None:
            peer.request(
                1,
                scripted_peer.command_set(
                    e0002=uid, e0100=field | 0x8000, e0120=int(command[0x0110]), e0800=0x0101, e0900=code
                ),
            )

        script(peer, SimpleNamespace(respond=respond, message_id=command[0x0110]))

    with (
        scripted_acceptor(whole) as port,
        scu.connect(
            "127.0.0.1",
            port,
            calling_ae_title="TESTER",
            called_ae_title="PEER",
            contexts=[ProposedContext(uid, (IMPLICIT,)), ProposedContext(CT, (IMPLICIT,), scp_role=True)],
            timeout_seconds=10.0,
            max_pdu_bytes=16384,
        ) as association,
    ):
        yield association


@pytest.mark.parametrize("operation", ["C-FIND", "C-MOVE", "C-GET"])
def test_leaving_the_responses_early_cancels_and_reads_on_to_the_final_one(operation: str) -> None:
    """Our C-CANCEL-RQ names our request; the responses that are on their way are read over."""

    def script(peer: ScriptedPeer, request: SimpleNamespace) -> None:
        request.respond(0xFF00)
        cancel, _ = peer.read_message()
        assert (cancel[0x0100], cancel[0x0120], cancel[0x0800]) == (0x0FFF, request.message_id, 0x0101)
        request.respond(0xFF00)
        request.respond(0xFE00)
        assert peer.read_pdu()[0] == scripted_peer.A_RELEASE_RQ
        peer.send(pdu(scripted_peer.A_RELEASE_RP, bytes(4)))

    with association_with(script, operation) as association:
        responses = ask(association, operation)
        assert next(responses)[0] == 0xFF00
        responses.close()  # type: ignore[attr-defined]
    assert association.failure is None


@pytest.mark.parametrize(("source", "said"), [(0, "A-ABORT"), (2, "A-P-ABORT")])
@pytest.mark.parametrize("operation", ["C-FIND", "C-MOVE", "C-GET"])
def test_an_abort_between_responses_is_named(operation: str, source: int, said: str) -> None:
    """A peer that aborts in the middle ends the iteration with an error that says who did it."""

    def script(peer: ScriptedPeer, request: SimpleNamespace) -> None:
        request.respond(0xFF00)
        peer.send(pdu(scripted_peer.A_ABORT, bytes([0, 0, source, 0])))
        peer.expect_end()

    statuses: list[int] = []
    with (
        pytest.raises(AssociationAborted, match=f"\\({said}\\)"),
        association_with(script, operation) as association,
    ):
        statuses.extend(code for code, _ in ask(association, operation))
    assert association.failure is not None


# --- the handlers of the node ------------------------------------------------------------


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[tuple[SmallNode, ScriptedPacs, str]]:
    """A node with a study of 60 images, and a PACS that it knows."""
    with scripted_pacs() as pacs, small_node(config(tmp_path / "node", peers=[pacs.peer()])) as node:
        study, series = generate_uid(), generate_uid()
        node.receive(
            *(made.ct_image(study_instance_uid=study, series_instance_uid=series) for _ in range(60))
        )
        yield node, pacs, study


def test_dcmtk_cancels_a_c_move(moving: tuple[SmallNode, ScriptedPacs, str]) -> None:
    """``movescu --cancel`` gets status FE00, and the numbers of its last response are those of the PACS."""
    node, pacs, study = moving
    said = dcmtk(
        "movescu", "-d", "-S", "--cancel", 2, "-aec", "ANODE", "-aem", "PACS",
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "127.0.0.1", node.port,
        check=False,
    )  # fmt: skip
    assert "0xfe00" in said
    completed = [int(number) for number in re.findall(r"Completed Suboperations\s*: (\d+)", said)]
    assert 2 <= completed[-1] == len(pacs.stored) < 60


@pytest.mark.parametrize("source", [0, 2], ids=["A-ABORT", "A-P-ABORT"])
def test_a_c_move_whose_requestor_aborts_stops_its_sub_operations(
    moving: tuple[SmallNode, ScriptedPacs, str], source: int
) -> None:
    """An aborted C-MOVE ends its association with the destination too, after the instance under way."""
    node, pacs, study = moving
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts={7: (MOVE, (IMPLICIT,))})
        peer.request(
            7,
            scripted_peer.command_set(e0002=MOVE, e0100=0x21, e0110=9, e0600="PACS", e0700=0, e0800=1),
            study_of(study),
        )
        assert peer.read_message()[0][0x0900] == 0xFF00
        peer.send(pdu(scripted_peer.A_ABORT, bytes([0, 0, source, 0])))
        wait_until(lambda: node.server.association_count == 0, what="the association's end")
    assert 0 < len(pacs.stored) < 60


def test_a_c_move_goes_on_when_its_requestor_releases(moving: tuple[SmallNode, ScriptedPacs, str]) -> None:
    """A requestor that asks for release at once has its C-MOVE done and answered before it is released."""
    node, pacs, study = moving
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(contexts={7: (MOVE, (IMPLICIT,))})
        move_rq = scripted_peer.command_set(e0002=MOVE, e0100=0x21, e0110=9, e0600="PACS", e0700=0, e0800=1)
        peer.request(7, move_rq, study_of(study))
        peer.send(pdu(scripted_peer.A_RELEASE_RQ, bytes(4)))
        statuses, final = read_until_final(peer)
        assert (statuses[-1], final[0x1021]) == (0, 60)
        assert peer.read_pdu() == (scripted_peer.A_RELEASE_RP, bytes(4))
        peer.close()
    assert len(pacs.stored) == 60


def test_a_c_get_whose_requestor_releases_fails_what_is_left(
    moving: tuple[SmallNode, ScriptedPacs, str],
) -> None:
    """A requestor that releases between sub-operations hears that the rest has failed, then is released."""
    node, _, study = moving
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(
            contexts={1: (GET, (IMPLICIT,)), 3: (CT, (scripted_peer.EXPLICIT_VR_LITTLE_ENDIAN,))},
            more_user_items=scripted_peer.role(CT, 0, 1),
        )
        get_rq = scripted_peer.command_set(e0002=GET, e0100=0x10, e0110=9, e0700=0, e0800=1)
        peer.request(1, get_rq, study_of(study))
        command, _ = peer.read_message()
        peer.send(
            pdu(4, scripted_peer.pdv(3, 3, store_response(command))),
            pdu(scripted_peer.A_RELEASE_RQ, bytes(4)),
        )
        statuses, _ = read_until_final(peer)
        assert statuses[-1] == 0xA702
        assert peer.read_pdu() == (scripted_peer.A_RELEASE_RP, bytes(4))
        peer.close()


def study_of(study_instance_uid: str) -> bytes:
    asked = study_query()
    asked.StudyInstanceUID = study_instance_uid
    return implicit(asked)


def test_more_sub_operations_than_the_command_set_can_count_are_told_as_the_most() -> None:
    """A retrieval of 100,000 instances is answered: its numbers have 16 bits (PS3.7 section 9.3.4.2)."""

    def move(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        yield Response(status.PENDING, remaining=99_999, completed=1, failed=0, warning=0)
        yield Response(status.SUCCESS, completed=100_000, failed=0, warning=0)

    proposed = [ProposedContext(MOVE, (IMPLICIT,))]
    with (
        toy_node(handlers={"C-MOVE": move}) as node,
        scu.connect(
            "127.0.0.1",
            node.port,
            calling_ae_title="TEST",
            called_ae_title="ANODE",
            contexts=proposed,
            timeout_seconds=10.0,
            max_pdu_bytes=16384,
        ) as association,
    ):
        (_, pending), (_, last) = association.move(MOVE, study_query(), "ELSEWHERE")
    assert (pending.remaining, last.completed) == (0xFFFF, 0xFFFF)
