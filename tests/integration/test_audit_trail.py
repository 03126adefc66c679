"""Who did what to whose images is written down, and sent on, as PS3.15 section A.5 says."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import alarms
from node.app import App
from node.config.settings import AuditConfig, Config, RouteConfig, SyslogAddress
from node.errors import AssociationRejected
from node.wire import scu
from tests.support import made, retrieving
from tests.support.audit_messages import Audited, lines, read, trail
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.retrieving import STUDY_ROOT_MOVE, identifier
from tests.support.scripted_pacs import scripted_pacs
from tests.support.small_node import config
from tests.support.syslog_receiver import SyslogReceiver
from tests.support.waiting import wait_until

EXPLICIT = uid.ExplicitVRLittleEndian
CT = made.CT_IMAGE_STORAGE
TRANSFERRED, BEGIN = "DICOM Instances Transferred", "Begin Transferring DICOM Instances"


def image(study: str, number: int, **attributes: Any) -> Dataset:
    return made.ct_image(
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        sop_instance_uid=f"{study}.1.{number}",
        **{"PatientName": "Zebrowski^Zoé", "PatientID": f"Z-{study}", **attributes},
    )


def store(port: int, *images: Dataset, calling_ae_title: str = "SCANNER") -> list[int]:
    """Store images over one association."""
    with scu.connect(
        "127.0.0.1",
        port,
        calling_ae_title=calling_ae_title,
        called_ae_title="ANODE",
        contexts=[scu.ProposedContext(CT, (EXPLICIT,))],
        timeout_seconds=30.0,
        max_pdu_bytes=131072,
    ) as association:
        [context] = association.contexts.values()
        return [
            association.send_store(
                context,
                sop_class_uid=CT,
                sop_instance_uid=str(one.SOPInstanceUID),
                data_set=made.encoded(one, EXPLICIT),
            ).status
            for one in images
        ]


@contextmanager
def running(settings: Config) -> Iterator[App]:
    app = App(settings)
    app.start()
    try:
        yield app
    finally:
        app.stop()


def refuse(port: int) -> None:
    """Ask for an association with an AE title that is not there."""
    with pytest.raises(AssociationRejected):
        scu.connect(
            "127.0.0.1",
            port,
            calling_ae_title="INTRUDER",
            called_ae_title="OTHER",
            contexts=[scu.ProposedContext(CT, (EXPLICIT,))],
            timeout_seconds=10.0,
            max_pdu_bytes=131072,
        )


def only(messages: list[Audited], is_it: Callable[[Audited], bool]) -> Audited:
    [found] = [one for one in messages if is_it(one)]
    return found


@pytest.mark.checklist("N3")
def test_all_that_happens_over_the_wire_is_told_in_valid_messages_and_sent_in_order(tmp_path: Path) -> None:
    with scripted_pacs() as pacs, SyslogReceiver("tcp") as receiver:
        settings = replace(
            config(tmp_path, peers=[pacs.peer()]),
            routes=(RouteConfig(when={"BodyPartExamined": "HEAD"}, send_to=("PACS",)),),
            audit=AuditConfig(syslog=SyslogAddress("tcp", "127.0.0.1", receiver.port), site_id="Hospital"),
        )
        with running(settings) as app:
            port = app.server.port
            images = [image("1.2.3", number) for number in (1, 2, 3)]
            other = image("1.2.3", 1, PatientName="Zebrowski^Zac")
            assert store(port, *images, image("1.2.4", 1), images[0], other) == [0, 0, 0, 0, 0, 0xC001]
            assert store(port, image("1.2.5", 1, BodyPartExamined="HEAD")) == [0]
            assert len(retrieving.find(port, "STUDY", PatientID="Z-1.2.3")) == 1
            retrieving.get_digests(port, {CT: {EXPLICIT}}, "STUDY", StudyInstanceUID="1.2.3")
            move = scu.ProposedContext(STUDY_ROOT_MOVE, (EXPLICIT,))
            with retrieving.connect(port, [move]) as association:
                asked = identifier("STUDY", StudyInstanceUID="1.2.3")
                assert list(association.move(STUDY_ROOT_MOVE, asked, "PACS"))[-1][0] == 0
            refuse(port)
            wait_until(lambda: "1.2.5.1.1" in pacs.stored)
        wait_until(lambda: len(receiver.messages) >= len(lines(tmp_path)))
        assert receiver.messages == lines(tmp_path)
    messages = trail(tmp_path)
    assert all('AuditEnterpriseSiteID="Hospital" AuditSourceID="ANODE"' in one.xml for one in messages)

    first, last = messages[0], messages[-1]
    assert (first.event, first.event_type) == ("Application Activity", "Application Start")
    assert (last.event, last.event_type) == ("Application Activity", "Application Stop")
    assert first.participants == [("Application", "ANODE", False)]

    received = [("Source Role ID", "SCANNER", True), ("Destination Role ID", "ANODE", False)]
    whole = only(
        messages, lambda one: one.objects.get("Study Instance UID") == "1.2.3" and one.sop_classes == {CT: 3}
        and one.participants == received
    )  # fmt: skip
    assert (whole.event, whole.action, whole.outcome) == (TRANSFERRED, "C", "0")
    assert whole.objects["Patient Number"] == "Z-1.2.3"
    assert "Zebrowski^Zoé" in whole.xml
    assert whole.addresses == ["127.0.0.1"]
    again = only(messages, lambda one: one.action == "R" and one.participants == received)
    assert (again.objects["Study Instance UID"], again.sop_classes) == ("1.2.3", {CT: 1})
    second = only(
        messages,
        lambda one: one.objects.get("Study Instance UID") == "1.2.4" and one.participants == received,
    )
    assert second.sop_classes == {CT: 1}
    conflict = only(messages, lambda one: one.description == "conflicting-instance")
    assert (conflict.event, conflict.outcome) == (TRANSFERRED, "4")
    assert (conflict.sop_classes, 'Instance UID="1.2.3.1.1"' in conflict.xml) == ({CT: 1}, True)

    query = only(messages, lambda one: one.event == "Query")
    assert query.participants == [
        ("Source Role ID", "WORKSTATION", True),
        ("Destination Role ID", "ANODE", False),
    ]
    assert query.objects == {"SOP Class UID": retrieving.STUDY_ROOT_FIND}
    assert query.details == {"TransferSyntax": EXPLICIT.encode()}
    asked_for = made.encoded(identifier("STUDY", PatientID="Z-1.2.3"), EXPLICIT)
    assert query.query == asked_for

    got = [("Source Role ID", "ANODE", False), ("Destination Role ID", "WORKSTATION", True)]
    moved = [
        ("Source Role ID", "ANODE", False),
        ("Destination Role ID", "PACS", False),
        ("", "WORKSTATION", True),
    ]
    routed = [("Source Role ID", "ANODE", True), ("Destination Role ID", "PACS", False)]
    for participants, study, count in ((got, "1.2.3", 3), (moved, "1.2.3", 3), (routed, "1.2.5", 1)):
        told = [one for one in messages if one.participants == participants]
        assert [(one.event, one.action, one.outcome) for one in told] == [
            (BEGIN, "E", "0"),
            (TRANSFERRED, "C", "0"),
        ]
        for one in told:
            assert one.objects == {"Study Instance UID": study, "Patient Number": f"Z-{study}"}
            assert one.sop_classes == {CT: count}

    alert = only(messages, lambda one: one.event == "Security Alert")
    assert (alert.event_type, alert.outcome) == ("Node Authentication", "8")
    assert alert.objects == {"Node ID": "127.0.0.1"}
    assert alert.participants[1] == ("", "INTRUDER", True)
    assert alert.details["Alert Description"].decode() == alert.description != ""
    assert len(messages) == 2 + 4 + 1 + 1 + 6 + 1


def test_a_refused_operation_and_a_failed_query_are_told(tmp_path: Path) -> None:
    with scripted_pacs() as pacs:
        settings = config(tmp_path, peers=[pacs.peer(ae_title="WORKSTATION", allow=("query",))])
        with running(settings) as app:
            move = scu.ProposedContext(STUDY_ROOT_MOVE, (EXPLICIT,))
            find = scu.ProposedContext(retrieving.STUDY_ROOT_FIND, (EXPLICIT,))
            with retrieving.connect(app.server.port, [move, find]) as association:
                asked = identifier("STUDY", StudyInstanceUID="1.2.3")
                assert list(association.move(STUDY_ROOT_MOVE, asked, "PACS"))[-1][0] == 0x0124
                wrong = identifier("NONSENSE", PatientID="Z")
                assert list(association.find(retrieving.STUDY_ROOT_FIND, wrong))[-1][0] != 0
    messages = trail(tmp_path)
    alert = only(messages, lambda one: one.event == "Security Alert")
    assert alert.event_type == "Use of Restricted Function"
    query = only(messages, lambda one: one.event == "Query")
    assert (query.outcome, query.description) == ("4", "identifier-invalid")


def test_what_waited_for_the_receiver_is_sent_in_order_across_a_restart(tmp_path: Path) -> None:
    port = free_port()
    audit = AuditConfig(syslog=SyslogAddress("tcp", "127.0.0.1", port))
    settings = replace(config(tmp_path), audit=audit)
    with running(settings) as app:
        refuse(app.server.port)
        wait_until(lambda: any(one.name == "audit-not-sent" for one in alarms.standing(tmp_path)))
    waiting = lines(tmp_path)
    assert len(waiting) == 3
    with SyslogReceiver("tcp", port=port) as receiver, running(settings) as app:
        wait_until(lambda: len(receiver.messages) == 4)
        assert receiver.messages[:3] == waiting
        wait_until(lambda: not alarms.standing(tmp_path))
        # the receiver is started anew: the connection breaks, and a new one is made
        for connection in receiver._connections:
            connection.shutdown(socket.SHUT_RDWR)
        store(app.server.port, image("1.2.3", 1))
        wait_until(lambda: len(receiver.messages) >= 5)
    assert list(dict.fromkeys(receiver.messages)) == lines(tmp_path)[: len(dict.fromkeys(receiver.messages))]


def test_messages_go_by_datagrams(tmp_path: Path) -> None:
    with SyslogReceiver("udp") as receiver:
        audit = AuditConfig(syslog=SyslogAddress("udp", "127.0.0.1", receiver.port))
        with running(replace(config(tmp_path), audit=audit)) as app:
            refuse(app.server.port)
        wait_until(lambda: len(receiver.messages) == 3)
    assert receiver.messages == lines(tmp_path)
    assert [read(one).event for one in receiver.messages][1] == "Security Alert"


def test_messages_go_over_tls_to_a_receiver_that_both_sides_know(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "Stranger")
    ours, theirs = authority.issue("node"), authority.issue("logs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.certificate, theirs.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with SyslogReceiver("tls", context=context) as receiver:
        audit = AuditConfig(syslog=SyslogAddress("tls", "127.0.0.1", receiver.port))
        settings = config(tmp_path / "node")
        settings = replace(settings, node=replace(settings.node, tls=authority.config(ours)), audit=audit)
        with running(replace(settings, audit=replace(audit, ca=stranger.certificate))):
            wait_until(lambda: bool(alarms.standing(tmp_path / "node")))
            [alarm] = alarms.standing(tmp_path / "node")
            assert "certificate" in alarm.message
            assert receiver.messages == []
        with running(settings):
            wait_until(lambda: len(receiver.messages) >= 3)
        wait_until(lambda: len(receiver.messages) == 4)
    assert receiver.messages == lines(tmp_path / "node")
    assert set(receiver.peer_names) == {"node"}


def test_a_trail_that_cannot_be_written_raises_an_alarm_and_holds_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    with running(config(tmp_path)) as app:
        wait_until(lambda: any(one.name == "audit-not-written" for one in alarms.standing(tmp_path)))
        assert store(app.server.port, image("1.2.3", 1)) == [0]
        (tmp_path / "audit").unlink()
        wait_until(lambda: not alarms.standing(tmp_path))
        wait_until(lambda: len(lines(tmp_path)) >= 2)
    activity = "Application Activity"
    assert [one.event for one in trail(tmp_path)] == [activity, TRANSFERRED, activity]


def test_no_trail_is_kept_where_it_is_switched_off(tmp_path: Path) -> None:
    with running(replace(config(tmp_path), audit=AuditConfig(enabled=False))) as app:
        assert store(app.server.port, image("1.2.3", 1)) == [0]
    assert not (tmp_path / "audit").exists()
