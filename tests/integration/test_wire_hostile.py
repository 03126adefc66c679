"""Hostile and broken peers, each beside one that goes on storing: what ends, how, and who notices."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from node.config.settings import PeerConfig
from tests.support import hostile_peers, scripted_peer
from tests.support.hostile_peers import BY_USER, FOUR_GIGABYTES, UNRECOGNISED, VIOLATIONS, Attack
from tests.support.scripted_peer import (
    A_ABORT,
    A_ASSOCIATE_RQ,
    COMMAND,
    LAST,
    P_DATA_TF,
    ScriptedPeer,
    pdu,
    pdv,
)
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

_SETUP_SECONDS = 60.0
_STALL_SECONDS = 5.0  # a busy machine takes long between two calls
_MANY = {"associations": 1000, "associations_per_peer": 1000}


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    """A node on which an association stores instance after instance while the others misbehave."""
    with toy_node(**_MANY) as running, storing(running):
        yield running


@contextmanager
def storing(node: ToyNode) -> Iterator[None]:
    """Store one instance after the other; at the end each that was acknowledged is there."""
    stop = threading.Event()
    acknowledged: list[str] = []
    failures: list[BaseException] = []

    def store() -> None:
        try:
            with ScriptedPeer.to(node.port) as peer:
                peer.associate(calling="STEADY")
                while not stop.is_set():
                    instance = f"1.2.{len(acknowledged)}"
                    peer.request(3, scripted_peer.store_rq(len(acknowledged) % 60000 + 1, instance), b"data")
                    answer, _ = peer.read_message()
                    assert (answer[0x0900], answer[0x1000]) == (0, instance)
                    acknowledged.append(instance)
                    stop.wait(0.005)
                peer.release()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=store, name="steady")
    thread.start()
    try:
        wait_until(lambda: acknowledged or failures, what="the first instance")
        yield
    finally:
        stop.set()
        thread.join(30.0)
    if failures:
        raise failures[0]
    stored = [one.sop_instance_uid for one in node.stored if one.calling_ae_title == "STEADY"]
    assert stored == acknowledged


def ending(peer: ScriptedPeer) -> tuple[int, int] | None:
    """How the node ends it: source and reason of its A-ABORT, or None where it closes without a word."""
    try:
        return peer.read_abort()
    except EOFError:
        return None


# --- what breaks the rules --------------------------------------------------------------


@pytest.mark.parametrize("attack", VIOLATIONS, ids=lambda attack: attack.name)
def test_who_breaks_the_rules_is_aborted_with_the_reason(node: ToyNode, attack: Attack) -> None:
    """PS3.8 table 9-10: AA-8 with its reason, AA-3 for an A-ABORT; nothing of it is stored."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="HOSTILE")
        peer.send(attack.sent)
        assert ending(peer) == attack.answer
    assert not [one for one in node.stored if one.calling_ae_title == "HOSTILE"]


def test_every_pdu_type_that_is_none_is_unrecognised(node: ToyNode) -> None:
    """All of 00 and 08 to FF, whatever their length says."""
    for kind in (0, *range(8, 256)):
        with ScriptedPeer.to(node.port) as peer:
            peer.associate(calling="HOSTILE")
            peer.send(pdu(kind, b"", (0, 4, FOUR_GIGABYTES)[kind % 3]))
            assert ending(peer) == UNRECOGNISED, kind


@pytest.mark.parametrize("name", hostile_peers.INCOMPLETE)
def test_a_request_that_lacks_an_element_is_refused_and_the_association_goes_on(
    node: ToyNode, name: str
) -> None:
    """PS3.7 section C.5.14: Mistyped Argument (0212); the data set is read over."""
    context_id, command = hostile_peers.INCOMPLETE[name]
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="HOSTILE")
        for _ in range(2):
            peer.request(context_id, command, b"its data set")
            answer, _ = peer.read_message()
            assert answer[0x0900] == 0x0212
            assert str(answer[0x0902]).startswith("the command set has no Affected")
        peer.release()


@pytest.mark.parametrize("name", hostile_peers.TOLERATED)
def test_what_can_be_understood_all_the_same_is_answered(node: ToyNode, name: str) -> None:
    """A command set ends where its last fragment does, whatever its group length claims."""
    context_id, command, data_set = hostile_peers.TOLERATED[name]
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="HOSTILE")
        peer.request(context_id, command, data_set)
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


@pytest.mark.parametrize(
    ("announces", "identifier"),
    [(0x0101, None), (1, b""), (1, hostile_peers.LONG_IDENTIFIER)],
    ids=["none announced", "an empty one", "one that claims 4 GB"],
)
def test_a_query_without_an_identifier_is_answered_with_a_failure(
    node: ToyNode, announces: int, identifier: bytes | None
) -> None:
    """Unable to process (C000), and the association goes on."""
    command = scripted_peer.command_set(
        e0002=scripted_peer.STUDY_ROOT_FIND, e0100=0x0020, e0110=1, e0700=0, e0800=announces
    )
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="HOSTILE")
        for _ in range(2):
            peer.request(5, command, identifier)
            answer, _ = peer.read_message()
            assert answer[0x0900] in (0xC000, 0x0110)
        peer.release()


def test_fragments_of_no_length_are_passed_over(node: ToyNode) -> None:
    """A message is whole with its last fragment, however many empty ones come before it."""
    command = scripted_peer.store_rq(1, "1.2.3.0")
    empty = {control: pdu(P_DATA_TF, pdv(3, control, b"") * 100) for control in (0, COMMAND)}
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="EMPTY")
        peer.send(empty[COMMAND], pdu(P_DATA_TF, pdv(3, COMMAND, command)), empty[COMMAND])
        peer.send_pdv(3, COMMAND | LAST, b"")
        peer.send(empty[0], pdu(P_DATA_TF, pdv(3, 0, b"data")), empty[0])
        peer.send_pdv(3, LAST, b"")
        assert peer.read_message()[0][0x0900] == 0
        peer.release()
    [stored] = [one for one in node.stored if one.calling_ae_title == "EMPTY"]
    assert stored.length == 4


# --- who stalls -----------------------------------------------------------------------


def prefixes(before: bytes, stalling: bytes) -> list[bytes]:
    """``before`` and every beginning of ``stalling`` that is neither empty nor whole."""
    return [before + stalling[:end] for end in range(1, len(stalling))]


# an A-ABORT whose first bytes alone have come is none yet
STALLS = {
    "P-DATA-TF with a command": prefixes(b"", hostile_peers.ECHO),
    "P-DATA-TF with a data set": prefixes(hostile_peers.STORE, pdu(P_DATA_TF, pdv(3, LAST, b"data"))),
    "P-DATA-TF of an Identifier": prefixes(
        hostile_peers.FIND, pdu(P_DATA_TF, pdv(5, LAST, hostile_peers.IDENTIFIER))
    ),
    "A-RELEASE-RQ": prefixes(b"", hostile_peers.RELEASE_RQ),
    "A-ABORT": prefixes(b"", hostile_peers.ABORT),
    "between command and data set": [hostile_peers.STORE],
    "between two fragments": [hostile_peers.STORE + pdu(P_DATA_TF, pdv(3, 0, b"half"))],
}


def test_who_stalls_at_any_byte_is_ended_by_the_timeout() -> None:
    """In Sta2 by ARTIM, without a word (AA-2); in data transfer by the local user's A-ABORT (AA-1)."""
    requests = prefixes(b"", hostile_peers.ASSOCIATE_RQ)
    stalls = [sent for each in STALLS.values() for sent in each]
    # the steady one, which does not stall, has the longer timeout of the others
    stalling = PeerConfig(
        "STALLS", "127.0.0.1", 104, associations=1000, network_timeout_seconds=_STALL_SECONDS
    )
    limits = {"artim_timeout_seconds": _STALL_SECONDS, "network_timeout_seconds": _SETUP_SECONDS}
    with toy_node(peers=(stalling,), **_MANY, **limits) as node, storing(node), ExitStack() as opened:
        peers = []
        for sent in requests:
            peer = opened.enter_context(ScriptedPeer.to(node.port))
            peer.send(sent)  # at once: its time runs since it was connected
            peer.socket.settimeout(_SETUP_SECONDS)
            peers.append(peer)
        established = []
        for sent in stalls:
            peer = opened.enter_context(ScriptedPeer.to(node.port))
            peer.socket.settimeout(_SETUP_SECONDS)
            peer.associate(calling="STALLS")
            peer.send(sent)
            established.append(peer)
        assert {ending(peer) for peer in peers} == {None}
        assert {ending(peer) for peer in established} == {BY_USER}
        assert len(established) == len(stalls)
        wait_until(lambda: node.server.association_count == 1, what="all but the steady one")
        assert not [one for one in node.stored if one.calling_ae_title == "STALLS"]


# --- what is claimed --------------------------------------------------------------------


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def claims() -> list[Callable[[ScriptedPeer], None]]:
    """Peers that claim as much as they may before they are found out, and send none of it."""

    def associating(peer: ScriptedPeer) -> None:
        peer.send(pdu(A_ASSOCIATE_RQ, hostile_peers.ASSOCIATE_RQ[6:80], 1024**2))

    def storing_much(peer: ScriptedPeer) -> None:
        peer.associate(calling="CLAIMS")
        peer.send(hostile_peers.STORE, pdu(P_DATA_TF, pdv(3, 0, b"x", 131066), 131072))

    def commanding(peer: ScriptedPeer) -> None:
        peer.associate(calling="CLAIMS")
        peer.send(pdu(P_DATA_TF, pdv(1, COMMAND, b"x", 16384), 131072))

    def asking(peer: ScriptedPeer) -> None:
        peer.associate(calling="CLAIMS")
        peer.send(
            hostile_peers.FIND, pdu(P_DATA_TF, pdv(5, 0, hostile_peers.LONG_IDENTIFIER, 131066), 131072)
        )

    return [associating, storing_much, commanding, asking]


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.__name__)
def test_memory_does_not_follow_what_is_claimed(node: ToyNode, claim: Callable[[ScriptedPeer], None]) -> None:
    """A hundred peers that claim a megabyte each, or what a PDU may be, cost what they sent.

    A data set in the middle of its way has a receive buffer of 256 KiB of its own.
    """

    def connect(opened: ExitStack, count: int) -> None:
        before = len(node.server._connections)
        for _ in range(count):
            claim(opened.enter_context(ScriptedPeer.to(node.port)))
        wait_until(lambda: len(node.server._connections) >= before + count)

    wait_until(lambda: len(node.server._connections) == 1)
    with ExitStack() as warming_up:
        connect(warming_up, 30)
    wait_until(lambda: len(node.server._connections) == 1)
    with ExitStack() as opened:
        before = resident_bytes()
        connect(opened, 100)
        grown = resident_bytes() - before
    wait_until(lambda: len(node.server._connections) == 1)
    assert grown < 100 * 1024**2 // 3, f"{grown} bytes"


def test_an_abort_is_heard_in_the_middle_of_a_message(node: ToyNode) -> None:
    """A peer that gives up inside a data set leaves nothing, and is not answered (AA-3)."""
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling="GIVES-UP")
        peer.send(hostile_peers.STORE, pdu(P_DATA_TF, pdv(3, 0, b"half")), pdu(A_ABORT, bytes(4)))
        assert ending(peer) is None
    assert not [one for one in node.stored if one.calling_ae_title == "GIVES-UP"]
