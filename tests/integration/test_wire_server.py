"""The listening side as a whole: limits, who may come, stopping, and that nothing is left behind."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from node import status
from node.config.settings import PeerConfig
from node.errors import PortInUse
from node.wire import acceptor
from node.wire.association import Request, Response
from tests.support import data_sets, scripted_peer
from tests.support.scripted_peer import A_ASSOCIATE_RJ, COMMAND, LAST, ScriptedPeer
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

STORE_ONLY = PeerConfig("SCANNER", "127.0.0.1", 104, allow=("store",))
QUERY_ONLY = PeerConfig("READER", "localhost", 104, allow=("query",))
BUSY = ("127.0.0.2", 0)
VERIFICATION = {1: ("1.2.840.10008.1.1", ("1.2.840.10008.1.2",))}
ELSEWHERE = PeerConfig("FARAWAY", "192.0.2.77", 104)


def rejected(port: int, **changes: Any) -> tuple[int, ...]:
    with ScriptedPeer.to(port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS, **changes))
        kind, body = peer.read_pdu()
        assert kind == A_ASSOCIATE_RJ
        return tuple(body[1:])


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_associations_over_the_limit_are_rejected_as_transient_until_one_ends() -> None:
    with toy_node(associations=2) as node, ScriptedPeer.to(node.port) as one:
        one.associate()
        with ScriptedPeer.to(node.port) as two:
            two.associate()
            assert rejected(node.port) == (2, 3, 2)
            assert rejected(node.port) == (2, 3, 2)
            two.release()
        wait_until(lambda: node.server.association_count == 1)
        with ScriptedPeer.to(node.port) as three:
            three.associate()
            three.release()
        one.release()


def test_connections_that_ask_for_nothing_cannot_use_up_the_node() -> None:
    with toy_node(associations=1) as node:
        idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(33)]
        try:
            with ScriptedPeer.to(node.port) as late:
                late.expect_end()
        finally:
            for connection in idle:
                connection.close()
        wait_until(lambda: not node.server._connections)
        with ScriptedPeer.to(node.port) as peer:
            peer.associate()
            peer.release()


def test_connections_of_one_address_that_ask_for_nothing_leave_room_for_others() -> None:
    with toy_node(associations=8) as node, ExitStack() as opened:
        for _ in range(20):  # half of 8 associations and 32 more connections
            opened.enter_context(socket.create_connection(("127.0.0.1", node.port), source_address=BUSY))
        late = socket.create_connection(("127.0.0.1", node.port), source_address=BUSY)
        ScriptedPeer(opened.enter_context(late)).expect_end()
        with ScriptedPeer.to(node.port) as other:
            other.associate()
            other.release()
        [refused] = node.services.refusals.refused_so_far()
        assert refused.reason == "too many connections of one address without an association"
        assert refused.peer_address == BUSY[0]


def test_rejected_connections_that_are_not_closed_leave_room_for_others() -> None:
    with toy_node(associations=8) as node, ExitStack() as opened:
        for _ in range(20):
            connected = socket.create_connection(("127.0.0.1", node.port), source_address=BUSY)
            peer = ScriptedPeer(opened.enter_context(connected))
            peer.send(
                scripted_peer.associate_rq(
                    {1: ("1.2.840.10008.1.1", ("1.2.840.10008.1.2",))}, called="NOBODY"
                )
            )
            assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RJ
        # a thread gives its place back a moment after its rejection was read
        wait_until(lambda: len(node.server._waiting) == 20, what="twenty without an association")
        late = socket.create_connection(("127.0.0.1", node.port), source_address=BUSY)
        ScriptedPeer(opened.enter_context(late)).expect_end()
        with ScriptedPeer.to(node.port) as other:
            other.associate()
            other.release()


def test_unknown_calling_ae_titles_are_rejected_unless_they_are_accepted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known_only = {"accept_unknown_peers": False}
    with toy_node(node=known_only, peers=(STORE_ONLY, ELSEWHERE)) as node:
        assert rejected(node.port, calling="STRANGER") == (1, 1, 3)
        assert rejected(node.port, calling="FARAWAY") == (1, 1, 3)
        of_a_stranger, from_elsewhere = (vars(record)["reason"] for record in caplog.records)
        assert of_a_stranger == "calling AE title is not configured"
        assert "configured with other addresses" in from_elsewhere
        with ScriptedPeer.to(node.port) as peer:
            peer.associate(calling="SCANNER")
            peer.release()


def test_a_known_ae_title_from_another_address_is_rejected_even_where_strangers_are_welcome() -> None:
    with toy_node(peers=(ELSEWHERE,)) as node:
        assert rejected(node.port, calling="FARAWAY") == (1, 1, 3)
        with ScriptedPeer.to(node.port) as peer:
            peer.associate(calling="STRANGER")
            peer.release()


def test_any_called_ae_title_is_accepted_when_it_is_not_checked() -> None:
    with toy_node(node={"check_called_ae_title": False}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate(called="WHATEVER")
        peer.release()


def test_what_a_peer_is_not_allowed_is_refused_with_a_comment() -> None:
    identifier = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
    with toy_node(peers=(STORE_ONLY, QUERY_ONLY)) as node:
        with ScriptedPeer.to(node.port) as peer:
            peer.associate(calling="SCANNER")
            peer.request(5, scripted_peer.find_rq(), identifier)
            answer, _ = peer.read_message()
            assert answer[0x0900] == status.NOT_AUTHORISED
            assert answer[0x0902] == "SCANNER is not allowed to query here"
            peer.request(1, scripted_peer.echo_rq())
            assert peer.read_message()[0][0x0900] == 0
            peer.release()
        with ScriptedPeer.to(node.port) as peer:
            results = scripted_peer.results_of(peer.associate(calling="READER"))
            assert [results[number][0] for number in (1, 3, 5)] == [0, 1, 0]
            peer.release()


def test_a_handler_that_fails_answers_with_a_failure_and_logs_no_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(services: Any, request: Request) -> Iterator[Response]:
        raise KeyError(b"".join(next(request.fragments())).decode())
        yield

    with toy_node(handlers={"C-STORE": broken}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        with caplog.at_level(logging.INFO):
            peer.request(3, scripted_peer.store_rq(), b"Doe^John")
            answer, _ = peer.read_message()
        assert answer[0x0900] == status.PROCESSING_FAILURE
        assert answer[0x0902] == "unforeseen failure: KeyError"
        peer.request(1, scripted_peer.echo_rq())
        assert peer.read_message()[0][0x0900] == 0
        peer.release()
    [record] = [record for record in caplog.records if record.message == "handler failed"]
    assert "in broken" in record.frames
    assert not any("Doe" in str(vars(record)) for record in caplog.records)


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}") as caught, toy_node(port=port):
            pass
        assert "port" in caught.value.action


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1"), toy_node(node={"host": "192.0.2.1"}):
        pass


def test_a_node_stops_and_starts_again_on_the_same_port() -> None:
    with toy_node() as node:
        port = node.port
        with ScriptedPeer.to(port) as peer:
            peer.associate()
            stopping = threading.Thread(target=node.server.stop, args=(5.0,))
            stopping.start()
            peer.confirm_release()
            stopping.join(10.0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    with toy_node(port=port) as again, ScriptedPeer.to(again.port) as peer:
        assert again.port == port
        peer.associate()
        peer.release()


def test_stopping_lets_a_message_finish_and_then_ends_the_association() -> None:
    reading, may_finish = threading.Event(), threading.Event()

    def slow(services: Any, request: Request) -> Iterator[Response]:
        reading.set()
        list(request.fragments())
        assert may_finish.wait(10.0)
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-STORE": slow}) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        assert reading.wait(10.0)
        stopping = threading.Thread(target=node.server.stop, args=(10.0,))
        stopping.start()
        wait_until(lambda: node.server._is_stopping)
        peer.send_pdv(3, LAST, b"the rest")
        may_finish.set()
        assert peer.read_message()[0][0x0900] == 0
        peer.confirm_release()
        stopping.join(10.0)
        assert not stopping.is_alive()


def test_a_busy_association_goes_on_for_the_time_of_grace_and_no_other_begins() -> None:
    with toy_node() as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        node.server.begin_stop(600.0)
        for number in range(20):
            peer.request(3, scripted_peer.store_rq(number + 1), b"data")
            assert peer.read_message()[0][0x0900] == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port))
        assert len(node.stored) == 20
        peer.confirm_release()  # a second after the last of them


def test_an_association_that_is_never_quiet_ends_after_the_time_of_grace() -> None:
    """It is released between two messages: what was sent is answered."""
    with toy_node() as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        stopping = threading.Thread(target=node.server.stop, args=(0.3,))
        stopping.start()
        sent = 0
        while True:
            sent += 1
            peer.request(3, scripted_peer.store_rq(sent), b"data")
            kind, _ = peer.read_pdu()
            if kind == scripted_peer.A_RELEASE_RQ:
                break
        peer.send(scripted_peer.pdu(scripted_peer.A_RELEASE_RP, bytes(4)))
        stopping.join(10.0)
        assert not stopping.is_alive()
        assert sent - 1 <= len(node.stored) <= sent
        assert sent > 1


def test_stopping_aborts_what_does_not_finish_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as what it is: ended by us, and no fault of the peer or the network."""
    reading = threading.Event()

    def endless(services: Any, request: Request) -> Iterator[Response]:
        reading.set()
        list(request.fragments())
        yield Response(status.SUCCESS)

    with (
        toy_node(handlers={"C-STORE": endless}, network_timeout_seconds=600.0) as node,
        ScriptedPeer.to(node.port) as peer,
    ):
        peer.associate()
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        peer.send_pdv(3, 0, b"never finished")
        assert reading.wait(10.0)
        with caplog.at_level(logging.INFO):
            node.server.stop(0.1)
        assert peer.read_abort() == (0, 0)
        assert node.server.association_count == 0
    [end] = [record for record in caplog.records if record.message.startswith("association a")]
    assert (end.message, end.levelno, end.reason) == (
        "association aborted by us",
        logging.INFO,
        "the node stops",
    )


def test_stopping_aborts_a_peer_that_does_not_confirm_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that leaves the A-RELEASE-RQ of a stopping node unanswered is told by A-ABORT."""
    monkeypatch.setattr(acceptor, "_RELEASE_SECONDS", 0.1)
    with toy_node() as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        wait_until(lambda: node.server.association_count == 1)
        node.server.stop(5.0)
        assert peer.read_pdu() == (scripted_peer.A_RELEASE_RQ, bytes(4))
        assert peer.read_abort() == (0, 0)


def test_stopping_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    def endless(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        while True:
            yield Response(status.PENDING, identifier=bytes(100000))

    with (
        toy_node(handlers={"C-FIND": endless}, network_timeout_seconds=600.0) as node,
        ScriptedPeer.to(node.port) as peer,
    ):
        peer.associate()
        peer.request(5, scripted_peer.find_rq(), data_sets.study_identifier())
        wait_until(lambda: _is_stuck(node), what="full buffers")
        begin = time.monotonic()
        node.server.stop(0.2)
        assert time.monotonic() - begin < 5.0
        assert not node.server._connections


def _is_stuck(node: ToyNode) -> bool:
    """Whether the only association has waited in the same send for a while."""
    connections = list(node.server._connections.values())
    before = [connection.sent_bytes for connection in connections]
    for connection in connections:
        if connection._sending.acquire(timeout=0.1):
            connection._sending.release()
            return False
    return bool(before) and before == [connection.sent_bytes for connection in connections]


def test_stopping_ends_connections_that_have_no_association_yet() -> None:
    with toy_node(artim_timeout_seconds=600.0) as node, ScriptedPeer.to(node.port) as peer:
        wait_until(lambda: node.server._connections)
        node.server.stop(5.0)
        peer.expect_end()


def test_many_associations_leave_no_thread_and_no_file_open() -> None:
    with toy_node() as node:
        files, threads = open_files(), set(threading.enumerate())
        for number in range(200):
            with ScriptedPeer.to(node.port) as peer:
                peer.associate()
                peer.request(1, scripted_peer.echo_rq())
                assert peer.read_message()[0][0x0900] == 0
                if number % 3:
                    peer.release()
        wait_until(lambda: not node.server._connections)
        wait_until(lambda: set(threading.enumerate()) <= threads, what="the threads' end")
        assert open_files() == files


def test_association_numbers_only_grow_and_name_the_threads() -> None:
    seen: list[tuple[int, str]] = []

    def note(services: Any, request: Request) -> Iterator[Response]:
        seen.append((request.association.number, threading.current_thread().name))
        yield Response(status.SUCCESS)

    with toy_node(handlers={"C-ECHO": note}) as node:
        for _ in range(3):
            with ScriptedPeer.to(node.port) as peer:
                peer.associate()
                peer.request(1, scripted_peer.echo_rq())
                peer.read_message()
                peer.release()
    assert [name for _, name in seen] == [f"association-{number}" for number, _ in seen]
    assert seen == sorted(set(seen))


def test_an_associations_life_is_logged_with_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), toy_node() as node:
        with ScriptedPeer.to(node.port) as peer:
            peer.associate()
            peer.request(3, scripted_peer.store_rq(), bytes(5000))
            peer.read_message()
            peer.release()
        wait_until(lambda: node.server.association_count == 0)
    [begin] = [record for record in caplog.records if record.message == "association accepted"]
    [end] = [record for record in caplog.records if record.message == "association released"]
    assert begin.association == end.association
    assert begin.calling_ae_title == "SCRIPTED"
    assert begin.accepted_contexts == 3
    assert end.requests == {"C-STORE": 1}
    assert end.received_bytes > 5000
    assert "1.2.3.4" not in str([vars(record) for record in caplog.records])


def test_a_known_peer_over_ipv6_is_let_in() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    peer_at_home = PeerConfig("SIX", "::1", 104)
    try:
        with (
            toy_node(node={"host": "::1", "accept_unknown_peers": False}, peers=(peer_at_home,)) as node,
            socket.create_connection(("::1", node.port)) as connected,
        ):
            peer = ScriptedPeer(connected)
            peer.associate(calling="SIX")
            peer.release()
    except PortInUse as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
