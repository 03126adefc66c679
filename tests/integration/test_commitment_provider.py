"""A peer that asks for storage commitment is told what is held, after it was read back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from handlers import storage_commitment
from node.config.settings import PeerConfig
from node.errors import OutOfSpace
from tests.support import made
from tests.support.scripted_pacs import listening
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

UNCOMPRESSED = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


class Modality:
    """A scanner that asks for storage commitment, and listens for the report."""

    def __init__(self, exits: ExitStack) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self.answers = [0x0000]
        self.lock = threading.Lock()
        self.ae = AE("SCANNER")
        self.ae.add_supported_context(StorageCommitmentPushModel, UNCOMPRESSED, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._report)]
        self._port = exits.enter_context(listening(self.ae, 0, handlers))

    @property
    def peer(self) -> PeerConfig:
        return PeerConfig("SCANNER", "127.0.0.1", self._port)

    def _report(self, event: Any) -> tuple[int, None]:
        with self.lock:
            status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if status == 0:
                self.reports.append((event.event_type, event.event_information))
        return status, None

    @contextmanager
    def association(self, node: SmallNode) -> Iterator[Any]:
        ae = AE("SCANNER")
        ae.add_requested_context(StorageCommitmentPushModel, UNCOMPRESSED)
        association = ae.associate(
            "127.0.0.1",
            node.port,
            ae_title="ANODE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report)],
        )
        assert association.is_established
        try:
            yield association
        finally:
            association.release()

    def ask(self, association: Any, information: Dataset, action_type: int = 1) -> int:
        status, _ = association.send_n_action(
            information, action_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return int(status.Status)


def request(*references: tuple[str, str]) -> Dataset:
    information = Dataset()
    information.TransactionUID = uid.generate_uid()
    information.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information


def held(information: Dataset) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in information.get("ReferencedSOPSequence") or []]


def failed(information: Dataset) -> dict[str, int]:
    items = information.get("FailedSOPSequence") or []
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in items}


@pytest.fixture
def modality() -> Iterator[Modality]:
    with ExitStack() as exits:
        yield Modality(exits)


@pytest.fixture
def node(tmp_path: Path, modality: Modality) -> Iterator[SmallNode]:
    with small_node(config(tmp_path, peers=[modality.peer], delivery_retry_first_seconds=0.1)) as running:
        yield running


def test_the_report_comes_on_the_same_association_while_it_is_open(
    node: SmallNode, modality: Modality
) -> None:
    image = made.ct_image()
    node.receive(image)
    node.engine.start()
    with modality.association(node) as association:
        asked = request((image.SOPClassUID, image.SOPInstanceUID))
        assert modality.ask(association, asked) == 0
        # a release that overtakes the answer to the report would have it come again, on another association
        wait_until(lambda: node.jobs(kind="commit")[0]["state"] == "done", what="the job")
        assert association.is_established
    ((event_type, information),) = modality.reports
    assert (event_type, held(information), failed(information)) == (1, [image.SOPInstanceUID], {})
    assert information.TransactionUID == asked.TransactionUID


def test_the_report_comes_on_a_new_association_when_the_first_is_closed(
    node: SmallNode, modality: Modality
) -> None:
    image = made.ct_image()
    node.receive(image)
    with modality.association(node) as association:
        assert modality.ask(association, request((image.SOPClassUID, image.SOPInstanceUID))) == 0
    node.engine.run_until_idle(30)
    assert [(event_type, held(information)) for event_type, information in modality.reports] == [
        (1, [image.SOPInstanceUID])
    ]
    assert node.jobs(kind="commit")[0]["state"] == "done"


def test_the_report_names_what_is_unknown_of_another_class_or_damaged(
    node: SmallNode, modality: Modality
) -> None:
    good, other, damaged = (made.ct_image() for _ in range(3))
    node.receive(good, other, damaged)
    location = node.stored(damaged.SOPInstanceUID).location
    with node.services.storage.path(location).open("r+b") as file:
        file.seek(location.offset + location.length - 3)
        file.write(b"\xff\xff")
    unknown = uid.generate_uid()
    with modality.association(node) as association:
        asked = request(
            (good.SOPClassUID, good.SOPInstanceUID),
            (made.BASIC_TEXT_SR_STORAGE, other.SOPInstanceUID),
            (damaged.SOPClassUID, damaged.SOPInstanceUID),
            (good.SOPClassUID, unknown),
        )
        assert modality.ask(association, asked) == 0
    node.engine.run_until_idle(30)
    ((event_type, information),) = modality.reports
    assert event_type == 2
    assert held(information) == [good.SOPInstanceUID]
    assert failed(information) == {
        other.SOPInstanceUID: 0x0119,
        damaged.SOPInstanceUID: 0x0110,
        unknown: 0x0112,
    }


def test_an_empty_request_is_refused_and_never_means_everything(node: SmallNode, modality: Modality) -> None:
    with modality.association(node) as association:
        assert modality.ask(association, request()) == 0x0115
        no_transaction = request(("1.2", "1.3"))
        del no_transaction.TransactionUID
        assert modality.ask(association, no_transaction) == 0x0115
        assert modality.ask(association, request(("1.2", "1.3")), action_type=2) == 0x0123
    assert node.jobs() == []


def test_a_report_that_the_peer_refuses_is_sent_again(node: SmallNode, modality: Modality) -> None:
    image = made.ct_image()
    node.receive(image)
    modality.answers = [0x0110, 0x0000]
    with modality.association(node) as association:
        modality.ask(association, request((image.SOPClassUID, image.SOPInstanceUID)))
    node.engine.start()
    wait_until(lambda: modality.reports, what="the second report")
    wait_until(lambda: node.jobs(kind="commit")[0]["state"] == "done", what="the job")


def test_a_request_of_a_peer_without_an_address_is_set_aside_once_it_is_gone(
    node: SmallNode, tmp_path: Path, modality: Modality
) -> None:
    with small_node(config(tmp_path / "other")) as other:
        with modality.association(other) as association:
            modality.ask(association, request((made.CT_IMAGE_STORAGE, "1.2.3")))
        other.engine.run_until_idle(30)
        (job,) = other.jobs(kind="commit")
        assert (job["state"], job["error_name"]) == ("set_aside", "unknown-peer")


def test_too_many_open_requests_are_refused(
    node: SmallNode, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_commitment, "_MOST_OPEN_OF_A_PEER", 2)
    with modality.association(node) as association:
        asked = [modality.ask(association, request((made.CT_IMAGE_STORAGE, "1.2.3"))) for _ in range(3)]
    assert asked == [0x0000, 0x0000, 0x0213]
    node.engine.run_until_idle(30)
    assert len(modality.reports) == 2
    with modality.association(node) as association:
        assert modality.ask(association, request((made.CT_IMAGE_STORAGE, "1.2.3"))) == 0


def test_no_request_is_taken_when_the_disk_is_full(
    node: SmallNode, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full() -> None:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(node.services.storage, "check_free_space", is_full)
    with modality.association(node) as association:
        assert modality.ask(association, request((made.CT_IMAGE_STORAGE, "1.2.3"))) == 0x0213
    assert node.jobs(kind="commit") == []


def test_a_report_that_nobody_asked_for_is_refused(node: SmallNode) -> None:
    ae = AE("SCANNER")
    ae.add_requested_context(StorageCommitmentPushModel, UNCOMPRESSED)
    association = ae.associate(
        "127.0.0.1",
        node.port,
        ae_title="ANODE",
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
    )
    assert association.is_established
    try:
        status, _ = association.send_n_event_report(
            request(("1.2", "1.3")), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert status.Status == 0x0115
    finally:
        association.release()
