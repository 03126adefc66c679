"""Deliveries act on every answer of a peer as the standard means it, and none is lost or doubled."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pynetdicom.presentation import AllStoragePresentationContexts

from node.config.settings import PeerConfig
from tests.support import made, scripted_peer
from tests.support.manual_clock import ManualClock
from tests.support.ports import free_port
from tests.support.scripted_pacs import BASIC_TEXT_SR_STORAGE, CT_IMAGE_STORAGE, ScriptedPacs, scripted_pacs
from tests.support.scripted_peer import ScriptedPeer, scripted_acceptor
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


class Room:
    """A node and its PACS, made as a test wants them."""

    def __init__(self, exits: ExitStack, folder: Path) -> None:
        self._exits = exits
        self._folder = folder
        self.clock = ManualClock()

    def pacs(self, **script: Any) -> ScriptedPacs:
        return self._exits.enter_context(scripted_pacs(**script))

    def node(self, *peers: PeerConfig, **changes: Any) -> SmallNode:
        settings = config(self._folder, peers=peers, **changes)
        node: SmallNode = self._exits.enter_context(small_node(settings, self.clock))
        return node


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with ExitStack() as exits:
        yield Room(exits, tmp_path)


def images(count: int, **attributes: Any) -> list[Any]:
    study, series = uid.generate_uid(), uid.generate_uid()
    return [
        made.ct_image(
            study_instance_uid=study, series_instance_uid=series, InstanceNumber=number, **attributes
        )
        for number in range(1, count + 1)
    ]


def test_a_batch_goes_over_one_association_in_the_order_of_its_jobs(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    sent = node.receive(*images(5), made.instance())
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    assert pacs.stored == sent
    assert pacs.associations == 1
    assert {job["state"] for job in node.jobs(kind="deliver")} == {"done"}


def test_an_instance_arrives_byte_for_byte_where_the_peer_takes_its_transfer_syntax(room: Room) -> None:
    syntaxes = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.JPEGLSLossless, uid.RLELossless]
    pacs = room.pacs(contexts={CT_IMAGE_STORAGE: syntaxes})
    node = room.node(pacs.peer())
    expected = {}
    for syntax in syntaxes:
        (data_set,) = images(1)
        (sop_instance_uid,) = node.receive(data_set, transfer_syntax_uid=syntax)
        expected[sop_instance_uid] = (str(syntax), made.encoded(data_set, syntax))
        node.enqueue_delivery("PACS", sop_instance_uid)
    node.engine.run_until_idle(30)
    assert {
        sop_instance_uid: (pacs.transfer_syntaxes[sop_instance_uid], pacs.data_sets[sop_instance_uid])
        for sop_instance_uid in pacs.stored
    } == expected


def test_a_compressed_instance_is_decompressed_for_a_peer_that_needs_it(room: Room) -> None:
    pacs = room.pacs(contexts={CT_IMAGE_STORAGE: [uid.ImplicitVRLittleEndian]})
    node = room.node(pacs.peer())
    (data_set,) = images(1)
    (sent,) = node.receive(data_set, transfer_syntax_uid=uid.JPEGLSLossless)
    node.enqueue_delivery("PACS", sent)
    node.engine.run_until_idle(30)
    assert pacs.transfer_syntaxes == {sent: uid.ImplicitVRLittleEndian}
    assert bytes(data_set.PixelData) in pacs.data_sets[sent]


def test_a_peer_is_sent_only_what_it_can_show_whatever_it_accepts(room: Room) -> None:
    """Of what cannot be sent so, each instance is set aside by itself."""
    pacs = room.pacs(contexts={CT_IMAGE_STORAGE: [uid.JPEGLSLossless, *UNCOMPRESSED, uid.MPEG2MPML]})
    node = room.node(pacs.peer(send_transfer_syntaxes=UNCOMPRESSED))
    (data_set,) = images(1)
    (film,) = images(1)
    film.add_new(0x7FE00010, "OB", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\4\0\0\0film")
    film["PixelData"].is_undefined_length = True
    (image,) = node.receive(data_set, transfer_syntax_uid=uid.JPEGLSLossless)
    (video,) = node.receive(film, transfer_syntax_uid=uid.MPEG2MPML)
    node.enqueue_delivery("PACS", video, image)
    node.engine.run_until_idle(30)
    assert pacs.transfer_syntaxes == {image: uid.ExplicitVRLittleEndian}
    assert bytes(data_set.PixelData) in pacs.data_sets[image]
    job = node.deliveries()[video]
    assert (job["state"], job["error_name"]) == ("set_aside", "no-accepted-context")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0x0000, "done"),
        (0x0111, "done"),
        (0xB000, "done"),
        (0xB007, "done"),
        (0xA700, "ready"),
        (0xA7FF, "ready"),
        (0x0110, "ready"),
        (0x0213, "ready"),
        (0xA900, "set_aside"),
        (0xC000, "set_aside"),
        (0xC123, "set_aside"),
        (0x0122, "set_aside"),
        (0x0124, "set_aside"),
        (0x0001, "ready"),
        (0x0107, "ready"),
        (0x0116, "ready"),
        (0xFF00, "ready"),
        (0x0118, "set_aside"),
        (0x0119, "set_aside"),
        (0x0211, "set_aside"),
        (0x0212, "set_aside"),
    ],
)
@pytest.mark.checklist("W1")
def test_each_status_has_its_consequence(room: Room, status: int, state: str) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    (sent,) = node.receive(*images(1))
    pacs.statuses[sent] = [status]
    node.enqueue_delivery("PACS", sent)
    node.engine.run_until_idle(30)
    (job,) = node.jobs(kind="deliver")
    assert job["state"] == state
    if state != "done":
        assert job["error_name"] == "peer-refused"
        assert f"{status:04X}" in job["error"]
        assert "because of the script" in job["error"]


def test_one_refused_instance_holds_up_no_other(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    sent = node.receive(*images(4))
    pacs.statuses[sent[1]] = [0xC000]
    pacs.statuses[sent[2]] = [0xA700, 0]
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    assert pacs.stored == [sent[0], sent[3]]
    waiting = node.deliveries()[sent[2]]
    room.clock.advance(waiting["next_try_at"] - room.clock.timestamp() + 0.001)
    node.engine.run_until_idle(30)
    assert pacs.stored == [sent[0], sent[3], sent[2]]
    assert node.deliveries()[sent[1]]["state"] == "set_aside"


def test_a_full_peer_is_left_in_peace_after_a_few_instances(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    sent = node.receive(*images(10))
    pacs.statuses.update({one: [0xA700, 0] for one in sent})
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    assert sum(len(script) for script in pacs.statuses.values()) == 17
    for _ in range(4):
        room.clock.advance(3600)
        node.engine.run_until_idle(30)
    assert sorted(pacs.stored) == sorted(sent)


@pytest.mark.checklist("W1")
def test_a_peer_that_is_down_is_tried_again_until_it_is_back(room: Room) -> None:
    port = free_port()
    node = room.node(PeerConfig("PACS", "127.0.0.1", port))
    sent = node.receive(*images(3))
    node.enqueue_delivery("PACS", *sent)
    for _ in range(5):
        node.engine.run_until_idle(30)
        waits = {job["next_try_at"] - room.clock.timestamp() for job in node.jobs(kind="deliver")}
        assert len(waits) == 1
        assert 0 < max(waits) <= 900
        assert {job["error_name"] for job in node.jobs(kind="deliver")} == {"peer-unreachable"}
        room.clock.advance(max(waits) + 0.001)
    pacs = room.pacs(port=port)
    node.engine.run_until_idle(30)
    assert pacs.stored == sent


def test_a_peer_that_is_down_for_longer_than_the_limit_is_set_aside(room: Room) -> None:
    node = room.node(PeerConfig("PACS", "127.0.0.1", free_port()))
    sent = node.receive(*images(2))
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    room.clock.advance(7 * 86400)
    node.engine.run_until_idle(30)
    assert {(job["state"], job["error_name"]) for job in node.jobs(kind="deliver")} == {
        ("set_aside", "peer-unreachable")
    }


def test_a_peer_that_rejects_for_good_is_set_aside_with_its_reason(room: Room) -> None:
    pacs = room.pacs(require_called=True)
    node = room.node(pacs.peer())
    node.enqueue_delivery("PACS", *node.receive(*images(2)))
    node.engine.run_until_idle(30)
    jobs = node.jobs(kind="deliver")
    assert {(job["state"], job["error_name"]) for job in jobs} == {("set_aside", "association-rejected")}
    assert "permanent" in jobs[0]["error"]


def test_a_sop_class_that_the_peer_does_not_accept_is_set_aside_and_others_go(room: Room) -> None:
    pacs = room.pacs(contexts={CT_IMAGE_STORAGE: UNCOMPRESSED})
    node = room.node(pacs.peer())
    report, image = node.receive(made.instance(), *images(1))
    node.enqueue_delivery("PACS", report, image)
    node.engine.run_until_idle(30)
    assert pacs.stored == [image]
    assert node.deliveries()[report]["error_name"] == "no-accepted-context"
    assert BASIC_TEXT_SR_STORAGE in node.deliveries()[report]["error"]


def test_an_instance_that_makes_the_peer_abort_holds_up_no_other(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    sent = node.receive(*images(4))
    pacs.aborts_on.add(sent[1])
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    assert pacs.stored == [sent[0], sent[2], sent[3]]
    assert pacs.associations == 2
    bad = node.deliveries()[sent[1]]
    assert (bad["state"], bad["error_name"]) == ("ready", "association-aborted")


def test_an_answer_for_another_instance_is_no_delivery(room: Room) -> None:
    def script(peer: ScriptedPeer) -> None:
        _, body = peer.read_pdu()
        proposed = [value[0] for kind, value in scripted_peer.items_of(body[68:]) if kind == 0x20]
        peer.send(scripted_peer.associate_ac(dict.fromkeys(proposed, (0, UNCOMPRESSED[0]))))
        command, _ = peer.read_message()
        answer = scripted_peer.command_set(
            e0002=CT_IMAGE_STORAGE, e0100=0x8001, e0120=command[0x0110], e0800=0x0101, e0900=0, e1000="9.9.9"
        )
        peer.send_pdv(proposed[0], scripted_peer.COMMAND | scripted_peer.LAST, answer)
        assert peer.read_abort()[0] == 2

    with scripted_acceptor(script) as port:
        node = room.node(PeerConfig("PACS", "127.0.0.1", port))
        node.enqueue_delivery("PACS", *node.receive(*images(1)))
        node.engine.run_until_idle(30)
    (job,) = node.jobs(kind="deliver")
    assert (job["state"], job["attempts"]) == ("ready", 1)
    assert "another SOP instance" in job["error"]


def test_a_peer_that_stalls_delays_no_other(room: Room) -> None:
    pacs = room.pacs()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stalling = PeerConfig("STALL", "127.0.0.1", silent.getsockname()[1])
        node = room.node(pacs.peer(), stalling, network_timeout_seconds=1.0)
        sent = node.receive(*images(2))
        node.enqueue_delivery("STALL", *sent)
        node.enqueue_delivery("PACS", *sent)
        node.engine.start()
        wait_until(lambda: pacs.stored == sent, what="the healthy peer")
        assert all(job["state"] != "done" for job in node.jobs() if job["lane"] == "STALL")
        wait_until(
            lambda: all(
                job["error_name"] == "peer-unreachable" for job in node.jobs() if job["lane"] == "STALL"
            ),
            what="the time-out",
        )
        assert node.engine.stop(10)


def test_a_peer_that_is_not_configured_any_more_is_set_aside(room: Room) -> None:
    node = room.node()
    node.enqueue_delivery("GONE", *node.receive(*images(1)))
    node.engine.run_until_idle(30)
    assert node.jobs(kind="deliver")[0]["error_name"] == "unknown-peer"


def test_what_waits_for_a_peer_that_cannot_be_called_any_more_is_set_aside(room: Room) -> None:
    node = room.node(PeerConfig("CT", addresses=("127.0.0.1",)))
    node.enqueue_delivery("CT", *node.receive(*images(1)))
    node.engine.run_until_idle(30)
    [job] = node.jobs(kind="deliver")
    assert (job["state"], job["error"]) == ("set_aside", "the peer CT has no host and port here")


def test_two_jobs_for_one_instance_are_both_answered(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    (sent,) = node.receive(*images(1))
    node.enqueue_delivery("PACS", sent)
    node.enqueue_delivery("PACS", sent, reason="move")
    node.engine.run_until_idle(30)
    assert [job["state"] for job in node.jobs(kind="deliver")] == ["done", "done"]
    assert pacs.stored == [sent]


def test_a_crash_after_the_answer_repeats_one_instance_and_0111_counts_as_delivered(room: Room) -> None:
    pacs = room.pacs()
    node = room.node(pacs.peer())
    sent = node.receive(*images(3))
    node.enqueue_delivery("PACS", *sent)
    jobs = node.services.queue.lease({"deliver": 100}, seconds=60, owner="killed", lane="PACS")
    assert len(jobs) == 3
    pacs.stored.append(sent[0])
    pacs.statuses[sent[0]] = [0x0111]
    node.engine.run_until_idle(30)
    assert pacs.stored == sent
    assert {job["state"] for job in node.jobs(kind="deliver")} == {"done"}


def test_more_sop_classes_than_one_association_can_hold_go_over_several(room: Room) -> None:
    sop_classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:90]]
    pacs = room.pacs(contexts={one: [uid.ImplicitVRLittleEndian] for one in sop_classes})
    node = room.node(pacs.peer())
    study = uid.generate_uid()
    sent = node.receive(*(made.instance(one, study_instance_uid=study) for one in sop_classes))
    node.enqueue_delivery("PACS", *sent)
    node.engine.run_until_idle(30)
    assert pacs.stored == sent
    assert pacs.associations == 2
