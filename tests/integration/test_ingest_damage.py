"""Success is never said of bytes that are gone: what is held is proven, and repaired where it can be."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node.app import App
from node.config.settings import Config, NodeConfig, StorageConfig
from node.errors import ConflictingInstance, IntegrityFailure, OutOfSpace
from node.index.index import Index, Provenance
from node.jobs import listing
from node.jobs.task import Done, Job, Retry
from node.settling.pool import Settlers
from node.status import STORE_OUT_OF_RESOURCES, SUCCESS
from node.storage import disk
from node.tasks.settle import SettleTask
from node.verification import verify
from node.wire.scu import ProposedContext, connect
from tests.support import made
from tests.support.small_node import SmallNode, config, small_node

EXPLICIT = str(uid.ExplicitVRLittleEndian)
IMPLICIT = str(uid.ImplicitVRLittleEndian)
IMAGE = made.ct_image(pixels=(np.arange(64 * 50).reshape(64, 50) // 9 - 100).astype(np.int16))
UID = str(IMAGE.SOPInstanceUID)
PROVENANCE = Provenance("CT1", "ANODE", "192.0.2.1", 7, 1.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    with small_node(config(tmp_path / "data")) as running:
        running.receive(IMAGE)
        yield running


def settle(node: SmallNode) -> object:
    job = Job(1, "settle", UID, "", {"sop_instance_uid": UID}, "1.2", 1, 0.0)
    task = SettleTask()
    ((_, outcome),) = task.run(node.services, [job])
    task.cancel()
    if isinstance(outcome, Done) and outcome.apply is not None:
        node.services.database.write(outcome.apply)
    return outcome


def damage(node: SmallNode, how: str) -> None:
    """Damage what is held, in the receive log or in the archive."""
    if how.startswith("archive"):
        settle(node)
    stored = node.stored(UID)
    path = node.services.storage.path(stored.location)
    if how.endswith("gone"):
        path.unlink()
        return
    place = stored.location.offset + 200 if stored.location.kind == "log" else path.stat().st_size - 20
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff\xfe\xfd")


def receive(node: SmallNode, data_set: Dataset, syntax: str = EXPLICIT) -> str:
    encoded = made.encoded(data_set, syntax)
    receipt = node.services.ingest.receive(
        [[encoded]],
        sop_class_uid=str(data_set.SOPClassUID),
        sop_instance_uid=str(data_set.SOPInstanceUID),
        transfer_syntax_uid=syntax,
        provenance=PROVENANCE,
    )
    return receipt.outcome


def quarantined(node: SmallNode) -> list[dict]:
    with node.services.database.read() as connection:
        return node.services.index.quarantined(connection)


def damaged(node: SmallNode) -> int:
    with node.services.database.read() as connection:
        return node.services.index.counts(connection)["damaged"]


DAMAGE = ["log record changed", "archive file changed", "archive file gone"]


@pytest.mark.parametrize("how", DAMAGE)
def test_the_same_bytes_again_repair_what_is_damaged(node, how, caplog):
    damage(node, how)
    now = node.services.clock.timestamp()
    node.services.database.write(
        lambda connection: node.services.index.mark_verified(connection, UID, now, "damaged")
    )
    with caplog.at_level(logging.WARNING):
        assert receive(node, IMAGE) == "repaired"
    assert "a damaged instance was repaired" in caplog.messages
    assert UID not in caplog.text
    stored = node.stored(UID)
    assert (stored.is_settled, stored.kept_reason, stored.proof) == (False, "", None)
    assert stored.stored_transfer_syntax_uid == EXPLICIT
    assert verify(node.services, stored) == ""
    assert damaged(node) == 0
    (job,) = node.jobs(kind="settle")
    assert job["state"] == "ready"
    settle(node)
    assert verify(node.services, node.stored(UID)) == ""
    assert node.stored(UID).is_settled
    assert receive(node, IMAGE) == "same"
    assert quarantined(node) == []


@pytest.mark.parametrize("how", DAMAGE)
def test_another_encoding_is_kept_and_refused_when_what_is_held_is_damaged(node, how):
    damage(node, how)
    for _ in range(2):
        with pytest.raises(ConflictingInstance, match="the held copy is damaged"):
            receive(node, IMAGE, IMPLICIT)
    (row,) = quarantined(node)
    assert row["transfer_syntax_uid"] == IMPLICIT
    assert "damaged" in row["reason"]
    assert damaged(node) == 1
    assert receive(node, IMAGE) == "repaired"
    assert receive(node, IMAGE, IMPLICIT) == "same"


def test_a_settled_instance_whose_job_was_done_is_settled_again_after_repair(node):
    damage(node, "archive file changed")
    with node.services.database.read() as connection:
        (job,) = listing.jobs(connection, kind="settle", limit=1)
    (leased,) = node.services.queue.lease({"settle": 1}, seconds=60, owner="test")
    assert leased.id == job["id"]
    node.services.database.write(lambda connection: node.services.queue.finish(connection, leased))
    receive(node, IMAGE)
    assert [one["state"] for one in node.jobs(kind="settle")] == ["ready"]


def test_settling_that_reads_damaged_bytes_while_they_are_repaired_is_tried_again(node, monkeypatch):
    damage(node, "log record changed")
    kept = Settlers.settle

    def meanwhile(*arguments, **keywords):
        monkeypatch.setattr(Settlers, "settle", kept)
        assert receive(node, IMAGE) == "repaired"
        return kept(*arguments, **keywords)

    monkeypatch.setattr(Settlers, "settle", meanwhile)
    assert isinstance(settle(node), Retry)
    assert isinstance(settle(node), Done)
    assert verify(node.services, node.stored(UID)) == ""


def test_of_several_that_repair_at_once_all_are_right(node):
    damage(node, "archive file changed")
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(receive(node, IMAGE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 4
    assert set(outcomes) <= {"repaired", "same"}
    assert verify(node.services, node.stored(UID)) == ""


def test_an_instance_that_settling_has_moved_is_not_damaged(node, monkeypatch):
    before = node.stored(UID)
    settle(node)
    node.services.storage.path(before.location).unlink()
    held = Index.get
    looks: list[int] = []

    def too_early(self, connection, sop_instance_uid):
        looks.append(1)
        return before if len(looks) == 1 else held(self, connection, sop_instance_uid)

    monkeypatch.setattr(Index, "get", too_early)
    found = made.encoded(IMAGE, IMPLICIT)
    receipt = node.services.ingest.receive(
        [[found]],
        sop_class_uid=str(IMAGE.SOPClassUID),
        sop_instance_uid=UID,
        transfer_syntax_uid=IMPLICIT,
        provenance=PROVENANCE,
    )
    assert receipt.outcome == "same"
    assert len(looks) > 1
    assert damaged(node) == 0


def test_a_result_that_is_made_again_repairs_its_damaged_copy(tmp_path):
    result = made.instance()
    with small_node(config(tmp_path / "data")) as node:
        own = node.services.ingest.own
        (stored,) = own([made.part10(result)], then=lambda connection: None)
        path = node.services.storage.path(stored.location)
        with path.open("r+b") as file:
            file.seek(stored.location.offset + 40)
            file.write(b"\xff\xfe")
        (repaired,) = own([made.part10(result)], then=lambda connection: None)
        assert repaired.location != stored.location
        assert verify(node.services, repaired) == ""
        node.services.storage.path(repaired.location).unlink()
        with pytest.raises(IntegrityFailure, match="a held result is damaged"):
            own([made.part10(result, IMPLICIT)], then=lambda connection: None)


# --- at start ----------------------------------------------------------------


def leave_a_record(node: SmallNode, monkeypatch: pytest.MonkeyPatch, syntax: str) -> None:
    """Leave a durable copy in the receive log that the index does not know, and no other record."""
    node.services.storage.reclaim(lambda segment: False)

    def fails(*arguments, **keywords):
        raise OverflowError("stopped here")

    with monkeypatch.context() as failing:
        failing.setattr(Index, "add", fails)
        failing.setattr(Index, "holds", lambda *_: False)
        node.services.ingest.receive(
            [[made.encoded(IMAGE, syntax)]],
            sop_class_uid=str(IMAGE.SOPClassUID),
            sop_instance_uid=UID,
            transfer_syntax_uid=syntax,
            provenance=PROVENANCE,
        )
        with node.services.database.read():
            pass  # the row was tried


def segments(folder: Path) -> set[str]:
    return {path.name for path in (folder / "log").glob("*.seg")}


@pytest.mark.parametrize("error", [IntegrityFailure, OutOfSpace])
def test_a_record_that_cannot_be_compared_keeps_its_segment_and_not_the_node_from_starting(
    tmp_path, monkeypatch, error, caplog
):
    settings = config(tmp_path / "data")
    with small_node(settings) as node:
        node.receive(IMAGE)
        damage(node, "archive file changed")
        leave_a_record(node, monkeypatch, IMPLICIT)

    def fails(*arguments):
        raise error("not now")

    with monkeypatch.context() as failing:
        failing.setattr("node.storage.storage.Storage.settle_quarantine", fails)
        with small_node(settings) as node:
            (left_out,) = [each for each in caplog.records if each.message == "record left out"]
            used = f"{left_out.segment}.seg"
            assert UID not in caplog.text
            for _ in range(2):
                node.services.storage.reclaim(lambda segment: False)
            assert used in segments(tmp_path / "data")
    with small_node(settings) as node:
        assert [row["transfer_syntax_uid"] for row in quarantined(node)] == [IMPLICIT]
        node.services.storage.reclaim(lambda segment: False)
        assert used not in segments(tmp_path / "data")


def test_a_damaged_archive_file_is_repaired_from_the_receive_log_at_start(tmp_path, monkeypatch):
    settings = config(tmp_path / "data")
    with small_node(settings) as node:
        node.receive(IMAGE)
        damage(node, "archive file changed")
        leave_a_record(node, monkeypatch, EXPLICIT)
    with small_node(settings) as node:
        assert node.stored(UID).location.kind == "log"
        assert verify(node.services, node.stored(UID)) == ""


def statuses(port: int, encoded: bytes) -> list[int]:
    """What a node answers to the same instance, sent twice."""
    context = ProposedContext(str(IMAGE.SOPClassUID), (EXPLICIT,))
    with connect(
        "127.0.0.1",
        port,
        calling_ae_title="CT1",
        called_ae_title="ANODE",
        contexts=[context],
        timeout_seconds=10,
        max_pdu_bytes=1 << 16,
    ) as association:
        accepted = association.context_for(context.abstract_syntax_uid, (EXPLICIT,))
        assert accepted is not None
        return [
            association.send_store(
                accepted, sop_class_uid=context.abstract_syntax_uid, sop_instance_uid=UID, data_set=encoded
            ).status
            for _ in range(2)
        ]


def test_a_node_starts_below_the_reserve_but_receives_only_when_there_is_space(tmp_path, monkeypatch):
    settings = Config(
        node=NodeConfig(port=0, data_dir=tmp_path / "data"),
        storage=StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=1 << 62),
    )
    (tmp_path / "data").mkdir()
    app = App(settings)
    app.start()
    try:
        encoded = made.encoded(IMAGE)
        assert statuses(app.server.port, encoded) == [STORE_OUT_OF_RESOURCES] * 2
        monkeypatch.setattr(disk, "free_bytes", lambda path: (1 << 62) + (1 << 30))
        assert statuses(app.server.port, encoded) == [SUCCESS] * 2
    finally:
        app.stop()
