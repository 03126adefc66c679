"""Peers that ask and do not read: they end by the timeouts, and hold nothing that others need."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import status
from node.config.settings import Config, PeerConfig
from node.query import answers
from node.sending.memory import AHEAD_BYTES
from node.storage.segment import lock_unread
from node.wire import scu
from tests.support import made, retrieving, scripted_peer
from tests.support.data_sets import implicit
from tests.support.retrieving import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from tests.support.scripted_peer import ScriptedPeer, command_set, scripted_acceptor
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

IMPLICIT = scripted_peer.IMPLICIT_VR_LITTLE_ENDIAN
CT = made.CT_IMAGE_STORAGE
STUDY = "1.2.3"
CONTEXTS = {
    1: (scripted_peer.STUDY_ROOT_FIND, (IMPLICIT,)),
    3: (STUDY_ROOT_GET, (IMPLICIT,)),
    5: (CT, (IMPLICIT,)),
}
_COUNT = 60


def impatient(folder: Path, **settings: Any) -> Config:
    """The configuration of a node that waits a second for whoever takes nothing, or does not close."""
    made_so = config(folder, network_timeout_seconds=1.0, **settings)
    return replace(made_so, limits=replace(made_so.limits, artim_timeout_seconds=1.0))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    """A node that holds more than the buffers of a connection take, of images and of answers."""
    with small_node(impatient(tmp_path)) as running:
        pixels = np.arange(3_000_000).astype(np.int16).reshape(1500, 2000)
        running.receive(
            *(
                made.ct_image(pixels=pixels, study_instance_uid=STUDY, InstanceNumber=number)
                for number in (1, 2)
            ),
            *(
                made.instance(PatientID=f"P{number}", StudyDescription=["x" * 60] * 200)
                for number in range(_COUNT)
            ),
        )
        yield running


@contextmanager
def narrow(port: int) -> Iterator[ScriptedPeer]:
    """A peer whose system takes in little that it has not read."""
    with socket.socket() as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.connect(("127.0.0.1", port))
        yield ScriptedPeer(connected)


def find_all(peer: ScriptedPeer) -> None:
    peer.request(1, scripted_peer.find_rq(), implicit(retrieving.identifier("STUDY", StudyDescription="")))


def get_study(peer: ScriptedPeer) -> None:
    get_rq = command_set(e0002=STUDY_ROOT_GET, e0100=0x0010, e0110=1, e0700=0, e0800=1)
    peer.request(3, get_rq, implicit(retrieving.identifier("STUDY", StudyInstanceUID=STUDY)))


def narrowed(node: SmallNode) -> None:
    """Let the node's system hold little of what the only peer has not taken."""
    [connection] = node.server._connections.values()
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def is_stuck(node: SmallNode) -> bool:
    """Whether an association has waited in the same send for a while."""
    for connection in list(node.server._connections.values()):
        before = connection.sent_bytes
        if connection._sending.acquire(timeout=0.1):
            connection._sending.release()
        elif connection.sent_bytes == before:
            return True
    return False


def checkpoint(folder: Path) -> tuple[int, int]:
    """Whether a reader kept the log of the database from being emptied, and how long it is then."""
    connection = sqlite3.connect(folder / "index.sqlite", timeout=0.0, isolation_level=None)
    with contextlib.closing(connection):
        (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return is_busy, (folder / "index.sqlite-wal").stat().st_size


def store_and_find(port: int, number: int) -> None:
    """Another association, which notices nothing."""
    image = made.ct_image(study_instance_uid=f"1.9.{number}")
    contexts = [scu.ProposedContext(CT, (IMPLICIT,))]
    with retrieving.connect(port, contexts) as association:
        answer = association.send_store(
            association.contexts[1],
            sop_class_uid=CT,
            sop_instance_uid=str(image.SOPInstanceUID),
            data_set=made.encoded(image, IMPLICIT),
        )
    assert answer.status == status.SUCCESS
    assert len(retrieving.find(port, "STUDY", StudyInstanceUID=f"1.9.{number}")) == 1


def nothing_is_held(node: SmallNode, folder: Path) -> bool:
    locks = [lock_unread(path) for path in (folder / "log").iterdir() if path.is_file()]
    for lock in locks:
        if lock is not None:
            os.close(lock)
    return (
        None not in locks
        and node.services.sending_memory.ahead.left_bytes == AHEAD_BYTES
        and not [one for one in threading.enumerate() if one.name.startswith(("read-ahead", "association"))]
    )


def trickle(peer: ScriptedPeer, ended: threading.Event) -> None:
    """Read a byte now and then, until the connection ends."""
    with contextlib.suppress(OSError):
        while peer.socket.recv(65536 if ended.is_set() else 1):
            ended.wait(0.02)


@pytest.mark.parametrize("is_trickling", [False, True], ids=["reads nothing", "reads a byte now and then"])
@pytest.mark.parametrize("ask", [find_all, get_study], ids=["C-FIND", "C-GET"])
def test_who_asks_and_does_not_read_is_ended_and_holds_nothing_up(
    node: SmallNode, tmp_path: Path, ask: object, is_trickling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile instances are stored and found, and the database's log can be emptied."""
    monkeypatch.setattr(answers, "_PAGE_ROWS", 20)
    ended = threading.Event()
    with narrow(node.port) as peer:
        peer.associate(contexts=CONTEXTS, more_user_items=scripted_peer.role(CT, 0, 1))
        narrowed(node)
        reading = threading.Thread(target=trickle, args=(peer, ended))
        assert callable(ask)
        ask(peer)
        wait_until(lambda: is_stuck(node), what="full buffers")
        if is_trickling:
            reading.start()
        store_and_find(node.port, 1)
        assert checkpoint(tmp_path) == (0, 0)
        wait_until(lambda: node.server.association_count == 0, what="the end of the association")
        ended.set()
        store_and_find(node.port, 2)
        wait_until(lambda: nothing_is_held(node, tmp_path), what="all that it held")
        if is_trickling:
            reading.join(10.0)
            assert not reading.is_alive()


def test_a_destination_that_stalls_fails_its_sub_operations_and_not_who_asked(tmp_path: Path) -> None:
    """The C-MOVE is answered with what failed, its association goes on, and nothing stays open."""
    stalled = threading.Event()

    def script(peer: ScriptedPeer) -> None:
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RQ
        peer.send(scripted_peer.associate_ac({1: (0, IMPLICIT)}))
        stalled.wait(30.0)

    pixels = np.arange(6_000_000).astype(np.int16).reshape(3000, 2000)
    image = made.ct_image(pixels=pixels, study_instance_uid=STUDY)
    with scripted_acceptor(script) as port:
        sink = PeerConfig("SINK", "127.0.0.1", port)
        with small_node(impatient(tmp_path, peers=[sink])) as node:
            node.receive(image, transfer_syntax_uid=IMPLICIT)
            contexts = [
                scu.ProposedContext(model, (IMPLICIT,))
                for model in (STUDY_ROOT_MOVE, scripted_peer.VERIFICATION)
            ]
            with retrieving.connect(node.port, contexts) as association:
                wanted = retrieving.identifier("STUDY", StudyInstanceUID=STUDY)
                responses = list(association.move(STUDY_ROOT_MOVE, wanted, "SINK"))
                store_and_find(node.port, 1)
                assert association.echo().status == 0
            stalled.set()
            final = responses[-1][1]
            assert (final.status, final.completed, final.failed) == (status.RETRIEVE_CANNOT_PERFORM, 0, 1)
            assert "took nothing for 1 s" in final.comment
            wait_until(lambda: nothing_is_held(node, tmp_path), what="all that it held")


def test_the_answers_of_a_long_query_are_those_of_one_moment_and_each_comes_once(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read by pages; what comes in between two of them is for the next query."""
    monkeypatch.setattr(answers, "_PAGE_ROWS", 7)
    context = scu.ProposedContext(scripted_peer.STUDY_ROOT_FIND, (IMPLICIT,))
    found: list[str] = []
    with retrieving.connect(node.port, [context]) as association:
        wanted = retrieving.identifier("STUDY", StudyInstanceUID="")
        for code, one in association.find(scripted_peer.STUDY_ROOT_FIND, wanted):
            if isinstance(one, Dataset):
                found.append(str(one.StudyInstanceUID))
                if len(found) == 3:
                    node.receive(made.instance(study_instance_uid="1.999"))
            else:
                assert code == status.SUCCESS
    assert len(found) == len(set(found)) == _COUNT + 1
    assert "1.999" not in found
    assert uid.UID(found[0]).is_valid
