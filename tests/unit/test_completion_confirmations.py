"""What a peer says about our results is believed only when it was asked, and written down once."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node import commitment, confirmations
from node.commitment import Reference, Report
from node.config.settings import Config, LimitsConfig
from node.errors import MalformedDataSet
from node.jobs.task import Retry
from node.tasks.commit import CommitTask
from node.wire import data_sets
from node.wire.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN


@contextmanager
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    try:
        for statement in confirmations.SCHEMA:
            connection.execute(statement)
        yield connection
    finally:
        connection.close()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with table() as made:
        for sop_instance_uid in ("5.1", "5.2"):
            confirmations.want(
                made,
                peer="PACS",
                sop_instance_uid=sop_instance_uid,
                sop_class_uid="1.2.840",
                study_instance_uid="1.2",
                at=1.0,
            )
        confirmations.ask(
            made,
            peer="PACS",
            study_instance_uid="1.2",
            transaction_uid="7.7",
            sop_instance_uids=["5.1", "5.2"],
            at=2.0,
        )
        yield made


def states(connection: sqlite3.Connection) -> dict[str, tuple[str, int | None, int]]:
    return {
        item.sop_instance_uid: (item.state, item.failure_reason, item.failures)
        for item in confirmations.of_study(connection, "1.2")
    }


def answer(connection: sqlite3.Connection, **changes: Any) -> str | None:
    values: dict[str, Any] = {"peer": "PACS", "transaction_uid": "7.7", "held": [], "failed": {}, "at": 3.0}
    return confirmations.answer(connection, **{**values, **changes})


def test_an_answer_sets_each_result_on_its_own(connection: sqlite3.Connection) -> None:
    assert answer(connection, held=["5.1"], failed={"5.2": 0x0112}) == "1.2"
    assert states(connection) == {"5.1": ("held", None, 0), "5.2": ("failed", 0x0112, 1)}


@pytest.mark.parametrize("wrong", [{"peer": "OTHER"}, {"transaction_uid": "7.8"}])
def test_an_answer_that_was_not_asked_for_changes_nothing(
    connection: sqlite3.Connection, wrong: dict[str, str]
) -> None:
    assert answer(connection, held=["5.1"], **wrong) is None
    assert states(connection)["5.1"] == ("asked", None, 0)


def test_a_repeated_answer_changes_nothing(connection: sqlite3.Connection) -> None:
    answer(connection, held=["5.1"], failed={"5.2": 0x0112})
    assert answer(connection, held=["5.2"], failed={"5.1": 0x0112}) == "1.2"
    assert states(connection) == {"5.1": ("held", None, 0), "5.2": ("failed", 0x0112, 1)}


def test_a_redelivered_result_is_asked_for_again_and_a_held_one_is_not(
    connection: sqlite3.Connection,
) -> None:
    answer(connection, held=["5.1"], failed={"5.2": 0x0112})
    for sop_instance_uid in ("5.1", "5.2"):
        confirmations.want(
            connection,
            peer="PACS",
            sop_instance_uid=sop_instance_uid,
            sop_class_uid="1.2.840",
            study_instance_uid="1.2",
            at=4.0,
        )
    assert states(connection) == {"5.1": ("held", None, 0), "5.2": ("wanted", 0x0112, 1)}


def test_results_of_one_peer_are_not_those_of_another(connection: sqlite3.Connection) -> None:
    assert confirmations.of_study(connection, "1.2", "OTHER") == []
    assert len(confirmations.of_study(connection, "1.2", "PACS")) == 2


def test_a_report_survives_its_encoding() -> None:
    report = Report("7.7", (Reference("1.1", "5.1"),), {Reference("1.1", "5.2"): 0x0119})
    assert report.event_type_id == 2
    assert commitment.read_event(commitment.event_information(report)) == report


def test_a_report_without_failures_has_no_empty_sequence() -> None:
    data_set = commitment.event_information(Report("7.7", (Reference("1.1", "5.1"),), {}))
    assert "FailedSOPSequence" not in data_set
    assert data_set.TransactionUID == "7.7"


def test_a_request_survives_its_encoding() -> None:
    references = [Reference("1.1", "5.1"), Reference("1.1", "5.2")]
    assert commitment.read_action(commitment.action_information("7.7", references)) == ("7.7", references)


def incomplete_requests() -> Iterator[tuple[str, Dataset]]:
    whole = commitment.action_information("7.7", [Reference("1.1", "5.1")])
    without_sequence = Dataset()
    without_sequence.TransactionUID = "7.7"
    yield "no sequence", without_sequence
    empty = commitment.action_information("7.7", [])
    yield "empty sequence", empty
    without_transaction = Dataset()
    without_transaction.ReferencedSOPSequence = whole.ReferencedSOPSequence
    yield "no transaction", without_transaction
    without_instance = commitment.action_information("7.7", [Reference("1.1", "5.1")])
    del without_instance.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    yield "no instance", without_instance


@pytest.mark.parametrize("data_set", [pytest.param(made, id=name) for name, made in incomplete_requests()])
def test_a_request_that_names_nothing_is_refused_and_never_means_everything(data_set: Dataset) -> None:
    with pytest.raises(MalformedDataSet):
        commitment.read_action(data_set)


def test_a_failure_without_a_reason_counts_as_one() -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.1", "5.1"
    data_set = Dataset()
    data_set.TransactionUID = "7.7"
    data_set.FailedSOPSequence = [item]
    assert commitment.read_event(data_set).failed == {Reference("1.1", "5.1"): 0x0110}


@pytest.mark.parametrize(
    ("sop_class_uid", "sop_instance_uid", "event_type_id", "expected"),
    [
        ("1.2.840.10008.1.1", "1.2.840.10008.1.20.1.1", 1, 0x0118),
        ("1.2.840.10008.1.20.1", "1.2.3", 1, 0x0112),
        ("1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 3, 0x0113),
    ],
)
def test_a_report_that_is_no_storage_commitment_is_refused(
    sop_class_uid: str, sop_instance_uid: str, event_type_id: int, expected: int
) -> None:
    request: Any = SimpleNamespace(
        command=SimpleNamespace(
            AffectedSOPClassUID=sop_class_uid,
            AffectedSOPInstanceUID=sop_instance_uid,
            EventTypeID=event_type_id,
        )
    )
    services: Any = None
    assert commitment.receive_report(services, request).status == expected


def garbled(vr: str, value: bytes, tag: tuple[int, int] = (0x0008, 0x1199)) -> Dataset:
    """What comes from the wire with an element that pydicom decodes later, and cannot."""
    elements = struct.pack("<HH2sH", 0x0008, 0x1195, b"UI", 4) + b"7.7\0"
    elements += struct.pack("<HH2sHI", *tag, vr.encode(), 0, len(value)) + value
    return data_sets.decode(elements, EXPLICIT_VR_LITTLE_ENDIAN, limit_bytes=1 << 10)


@pytest.mark.filterwarnings("ignore")  # pydicom's
def test_a_sequence_that_ends_too_early_is_refused() -> None:
    for read in (commitment.read_action, commitment.read_event):
        with pytest.raises(MalformedDataSet, match="cannot be read"):
            read(garbled("SQ", b"\xfe\xff\0\xe0"))


@pytest.mark.filterwarnings("ignore")  # pydicom's
def test_a_failure_reason_that_is_no_number_is_refused() -> None:
    item = struct.pack("<HH2sH", 0x0008, 0x1150, b"UI", 4) + b"1.1\0"
    item += struct.pack("<HH2sH", 0x0008, 0x1155, b"UI", 4) + b"5.1\0"
    item += struct.pack("<HH2sH", 0x0008, 0x1197, b"LO", 4) + b"many"
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    with pytest.raises(MalformedDataSet, match="cannot be read"):
        commitment.read_event(garbled("SQ", sequence, (0x0008, 0x1198)))


def test_what_is_asked_for_twice_is_looked_at_once() -> None:
    references = [Reference("1.1", "5.1"), Reference("1.1", "5.2"), Reference("1.1", "5.1")]
    assert commitment.read_action(commitment.action_information("7.7", references))[1] == references[:2]


@pytest.mark.filterwarnings("ignore")  # pydicom's
@pytest.mark.parametrize("uid", ["1" * 65, "1.2/3", "no UID"])
def test_what_is_no_uid_is_refused(uid: str) -> None:
    for request in (
        commitment.action_information(uid, [Reference("1.1", "5.1")]),
        commitment.action_information("7.7", [Reference("1.1", uid)]),
    ):
        with pytest.raises(MalformedDataSet, match="is no UID"):
            commitment.read_action(request)


def test_a_peer_that_takes_no_report_and_stays_holds_nobody_up() -> None:
    busy = SimpleNamespace(calling_ae_title="SCANNER", is_established=True, post=lambda work: True)
    services: Any = SimpleNamespace(
        peers=SimpleNamespace(open_association=lambda number: busy),
        config=Config(limits=LimitsConfig(network_timeout_seconds=0.2)),
    )
    job: Any = SimpleNamespace(payload={"peer": "SCANNER", "association": 1})
    outcome = CommitTask()._report(services, job, Report("7.7", (Reference("1.1", "5.1"),), {}))
    assert isinstance(outcome, Retry)
    assert "keeps its association open" in str(outcome.error)
