"""What is acknowledged is durable, findable and unaltered; what is not leaves nothing behind."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node.config.settings import Config, LimitsConfig, RouteConfig, StorageConfig
from node.errors import (
    AnodeError,
    CommandMismatch,
    ConflictingInstance,
    DatabaseFailure,
    InvalidUid,
    LimitExceeded,
    MalformedDataSet,
    OutOfSpace,
    PeerUnreachable,
    StorageFailure,
)
from node.index.index import Index
from node.ingest.duplicates import Duplicates
from node.ingest.ingest import Receipt
from node.storage import archive
from node.storage.reception import Reception
from node.tasks.sweep import is_needed
from node.transcode import choosing, lossless
from tests.support import made
from tests.support.ingest_bench import EXPLICIT, Bench, ingest_bench
from tests.support.waiting import wait_until

STORAGE = StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ingest_bench(tmp_path / "data") as one:
        yield one


def receive(bench: Bench, data_set: Dataset, syntax: str = EXPLICIT, **arguments) -> Receipt:
    return bench.receive(
        made.encoded(data_set, syntax),
        sop_class_uid=data_set.SOPClassUID,
        sop_instance_uid=data_set.SOPInstanceUID,
        transfer_syntax_uid=syntax,
        **arguments,
    )


def assert_nothing_is_left(bench: Bench) -> None:
    with bench.database.read() as connection:
        assert list(bench.index.instances(connection)) == []
    assert bench.jobs("settle") == []
    assert bench.quarantined() == []
    with bench.restarted() as restarted:
        assert restarted.ingest.replay() == 0


def test_a_received_instance_is_indexed_with_its_job_and_its_exact_bytes(bench):
    image = made.ct_image()
    receipt = receive(bench, image)
    assert receipt.outcome == "stored"
    stored = bench.held(image.SOPInstanceUID)
    assert bench.bytes_of(stored) == made.encoded(image)
    assert stored.data_set_bytes == receipt.data_set_bytes == len(made.encoded(image))
    assert stored.received_transfer_syntax_uid == stored.stored_transfer_syntax_uid == EXPLICIT
    assert (stored.is_settled, stored.is_own, stored.kept_reason) == (False, False, "")
    assert stored.provenance.calling_ae_title == "CT1"
    (job,) = bench.jobs("settle")
    assert job["payload"] == {"sop_instance_uid": image.SOPInstanceUID}
    assert revision(bench, image.StudyInstanceUID) == 1


def revision(bench: Bench, study_instance_uid: str) -> int:
    with bench.database.read() as connection:
        row = connection.execute(
            "SELECT revision FROM study_arrival WHERE study_instance_uid = ?", (study_instance_uid,)
        ).fetchone()
    return row["revision"] if row else 0


@pytest.mark.parametrize("syntax", made.NATIVE_TRANSFER_SYNTAXES + made.COMPRESSED_TRANSFER_SYNTAXES)
def test_the_bytes_are_those_that_came_in_every_transfer_syntax(bench, syntax):
    image = made.ct_image()
    receive(bench, image, syntax)
    stored = bench.held(image.SOPInstanceUID)
    assert bench.bytes_of(stored) == made.encoded(image, syntax)
    assert stored.received_transfer_syntax_uid == syntax


def test_what_was_received_is_there_after_a_restart(bench):
    image = made.ct_image()
    receive(bench, image)
    with bench.restarted() as restarted:
        assert restarted.ingest.replay() == 0
        assert restarted.bytes_of(restarted.held(image.SOPInstanceUID)) == made.encoded(image)


# --- once more ---------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [EXPLICIT, uid.ImplicitVRLittleEndian, uid.JPEGLSLossless, uid.RLELossless]
)
def test_the_same_instance_again_is_success_and_no_work(bench, tmp_path, syntax):
    image = made.ct_image()
    receive(bench, image)
    receipt = receive(bench, image, syntax)
    assert receipt.outcome == "same"
    assert len(bench.jobs("settle")) == 1
    assert revision(bench, image.StudyInstanceUID) == 1
    assert bench.quarantined() == []
    assert len(bench.records()) == 1


def test_other_content_under_the_same_uid_is_kept_apart_and_refused(bench, tmp_path):
    image = made.ct_image()
    other = made.ct_image(sop_instance_uid=image.SOPInstanceUID, PatientID="PHANTOM-2")
    receive(bench, image)
    with pytest.raises(ConflictingInstance):
        receive(bench, other)
    assert bench.bytes_of(bench.held(image.SOPInstanceUID)) == made.encoded(image)
    (row,) = bench.quarantined()
    assert row["sop_instance_uid"] == image.SOPInstanceUID
    path = next((tmp_path / "data" / "archive" / "quarantine").glob("*.dcm"))
    assert pydicom.dcmread(path).PatientID == "PHANTOM-2"
    assert path.read_bytes().endswith(made.encoded(other))
    assert archive.read_private(path)["received"]["sha256"] == row["data_set_sha256"]


def test_conflicting_content_is_kept_once_however_often_it_is_sent(bench):
    image = made.ct_image()
    receive(bench, image)
    other = made.ct_image(sop_instance_uid=image.SOPInstanceUID)
    for _ in range(3):
        with pytest.raises(ConflictingInstance):
            receive(bench, other)
    assert len(bench.quarantined()) == 1


@pytest.mark.parametrize("is_same", [True, False])
def test_of_many_senders_at_the_same_moment_one_is_first(bench, is_same):
    count = 6
    images = [made.ct_image(sop_instance_uid="1.2.3", study_instance_uid="1.4", series_instance_uid="1.5")]
    for number in range(1, count):
        image = made.ct_image(
            sop_instance_uid="1.2.3", study_instance_uid="1.4", series_instance_uid="1.5",
            InstanceNumber=1 if is_same else number + 1,
        )  # fmt: skip
        images.append(image)
    outcomes: list[str] = []
    barrier = threading.Barrier(count)

    def fragments(encoded: bytes) -> Iterator[bytes]:
        yield encoded[:100]
        barrier.wait(10)
        yield encoded[100:]

    def send(image: Dataset) -> None:
        try:
            receipt = bench.receive(
                fragments(made.encoded(image)), sop_class_uid=image.SOPClassUID, sop_instance_uid="1.2.3"
            )
            outcomes.append(receipt.outcome)
        except ConflictingInstance:
            outcomes.append("conflict")

    threads = [threading.Thread(target=send, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == sorted(["stored", *(["same"] if is_same else ["conflict"]) * (count - 1)])
    assert len(bench.quarantined()) == (0 if is_same else count - 1)
    assert len(bench.jobs("settle")) == 1
    assert revision(bench, "1.4") == 1


def test_of_two_that_bring_the_same_instance_at_once_the_second_waits_and_is_the_same(bench, monkeypatch):
    image = made.ct_image()
    is_flushing, may_end = threading.Event(), threading.Event()
    sync = Reception.sync

    def slow(reception: Reception) -> None:
        is_flushing.set()
        assert may_end.wait(10)
        sync(reception)

    monkeypatch.setattr(Reception, "sync", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(receive, bench, image)
        assert is_flushing.wait(10)
        second = threads.submit(receive, bench, image)
        assert not second.done()
        may_end.set()
        assert (first.result(10).outcome, second.result(10).outcome) == ("stored", "same")
    assert len(bench.records()) == 1


def test_after_a_failed_flush_the_same_instance_is_taken_in(bench, monkeypatch):
    image = made.ct_image()

    def fails(reception: Reception) -> None:
        raise StorageFailure("the disk")

    with monkeypatch.context() as failing:
        failing.setattr(Reception, "sync", fails)
        with pytest.raises(StorageFailure):
            receive(bench, image)
    assert bench.held(image.SOPInstanceUID) is None
    assert receive(bench, image).outcome == "stored"


def test_while_the_index_cannot_be_written_nothing_is_acknowledged_and_nothing_is_lost(bench, monkeypatch):
    """What was acknowledged before is indexed as soon as that is possible again."""
    first, second = made.ct_image(), made.ct_image()

    def fails(*arguments, **keywords):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as failing:
        failing.setattr(Index, "add", fails)
        assert receive(bench, first).outcome == "stored"
        with pytest.raises(DatabaseFailure):
            bench.held(first.SOPInstanceUID)
        with pytest.raises(DatabaseFailure):
            receive(bench, second)
    wait_until(lambda: not len(bench.ingest._arrivals), what="the rows to be written")
    assert bench.held(first.SOPInstanceUID) is not None
    assert bench.held(second.SOPInstanceUID) is None
    assert receive(bench, second).outcome == "stored"


# --- what is not accepted ----------------------------------------------------


def broken(image: Dataset, what: str) -> tuple[bytes, type[AnodeError]]:
    encoded = made.encoded(image)
    return {
        "empty": (b"", MalformedDataSet),
        "truncated": (encoded[:-100], MalformedDataSet),
        "rubbish": (b"\xffrubbish" * 100, MalformedDataSet),
        "a path for a UID": (
            encoded.replace(image.SOPInstanceUID.encode()[:12], b"../../../etc"),
            InvalidUid,
        ),
        "too long": (encoded + b"\xfc\xff\xfc\xffOB\0\0\0\0\2\0" + bytes(1 << 17), LimitExceeded),
    }[what]


@pytest.mark.parametrize("what", ["empty", "truncated", "rubbish", "a path for a UID", "too long"])
def test_what_cannot_be_accepted_leaves_nothing_behind(tmp_path, what):
    config = Config(storage=STORAGE, limits=LimitsConfig(instance_bytes=1 << 17))
    with ingest_bench(tmp_path / "data", config) as bench:
        image = made.ct_image()
        encoded, error = broken(image, what)
        with pytest.raises(error):
            bench.receive(encoded, sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID)
        assert_nothing_is_left(bench)


@pytest.mark.parametrize("keyword", ["sop_class_uid", "sop_instance_uid"])
def test_a_data_set_that_is_not_what_the_command_says_is_refused(bench, keyword):
    image = made.ct_image()
    uids = {"sop_class_uid": image.SOPClassUID, "sop_instance_uid": image.SOPInstanceUID, keyword: "1.2.3.4"}
    with pytest.raises(CommandMismatch):
        bench.receive(made.encoded(image), **uids)
    assert_nothing_is_left(bench)


def test_an_empty_patient_id_is_accepted(bench):
    assert receive(bench, made.ct_image(PatientID="")).outcome == "stored"
    assert receive(bench, made.ct_image(PatientID=None)).outcome == "stored"


def test_a_peer_that_goes_away_in_the_middle_leaves_nothing_behind(bench):
    image = made.ct_image()

    def fragments() -> Iterator[bytes]:
        yield made.encoded(image)[:500]
        raise PeerUnreachable("the connection was lost")

    with pytest.raises(PeerUnreachable):
        bench.receive(fragments(), sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID)
    assert_nothing_is_left(bench)


# --- failing disks and databases ---------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, OutOfSpace), (errno.EIO, StorageFailure), (errno.EROFS, StorageFailure)],
)
@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_failing_disk_is_never_success(bench, monkeypatch, code, error, call):
    receive(bench, made.ct_image())
    image = made.ct_image()

    def fails(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as failing:
        failing.setattr(os, call, fails)
        with pytest.raises(error):
            receive(bench, image)
    assert bench.held(image.SOPInstanceUID) is None
    assert receive(bench, image).outcome == "stored"
    assert bench.bytes_of(bench.held(image.SOPInstanceUID)) == made.encoded(image)


def test_below_the_reserve_nothing_is_received(tmp_path):
    config = Config(storage=StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=1 << 62))
    with ingest_bench(tmp_path / "data", config) as bench:
        with pytest.raises(OutOfSpace):
            receive(bench, made.ct_image())
        assert_nothing_is_left(bench)


def receive_without_row(bench, image, monkeypatch):
    """Receive an instance whose row cannot be written, for a fault of its own."""

    def fails(*arguments, **keywords):
        raise OverflowError("a value that SQLite does not take")

    with monkeypatch.context() as failing:
        failing.setattr(Index, "add", fails)
        receive(bench, image)
        assert bench.held(image.SOPInstanceUID) is None


def test_an_instance_that_cannot_be_indexed_is_kept_and_indexed_at_the_next_start(bench, monkeypatch):
    image = made.ct_image()
    receive_without_row(bench, image, monkeypatch)
    other = made.ct_image()
    other.SOPInstanceUID = image.SOPInstanceUID
    with pytest.raises(StorageFailure):  # else two would be acknowledged under one UID
        receive(bench, other)
    for _ in range(2):
        bench.storage.reclaim(partial(is_needed, bench))
    with bench.restarted() as restarted:
        assert restarted.ingest.replay() == 1
        stored = restarted.held(image.SOPInstanceUID)
        assert restarted.bytes_of(stored) == made.encoded(image)
        assert stored.provenance.calling_ae_title == "CT1"
        assert len(restarted.jobs("settle")) == 1
        assert revision(restarted, image.StudyInstanceUID) == 1
        with restarted.restarted() as again:
            assert again.ingest.replay() == 0


def test_a_record_that_cannot_be_replayed_now_bars_nobody(bench, monkeypatch):
    """Its claim is given up, whatever is in the way; the instance may be sent again meanwhile."""
    image = made.ct_image()
    receive_without_row(bench, image, monkeypatch)

    def is_full(self, sop_instance_uid):
        raise OutOfSpace("there is no space left for the index database")

    with bench.restarted() as restarted:
        with monkeypatch.context() as full:
            full.setattr(Duplicates, "is_held", is_full)
            assert restarted.ingest.replay() == 0
        receive(restarted, image)
        assert restarted.held(image.SOPInstanceUID) is not None


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
def test_marks_of_ours_that_cannot_be_decoded_are_somebody_else_s_and_bar_no_start(bench, monkeypatch):
    """A value that a peer made up must not leave a record that no start can replay."""
    purpose = Dataset()
    purpose.CodeValue = "Infinity"
    equipment = Dataset()
    equipment.Manufacturer = "anode"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    image = made.ct_image()
    image.Manufacturer = "anode"
    image.ContributingEquipmentSequence = [equipment]
    sent = made.encoded(image)
    code_value = b"\x08\x00\x00\x01SH\x08\x00Infinity"
    assert sent.count(code_value) == 1
    sent = sent.replace(code_value, code_value.replace(b"SH", b"IS"))
    names = {"sop_class_uid": image.SOPClassUID, "sop_instance_uid": image.SOPInstanceUID}

    def fails(*arguments, **keywords):
        raise OverflowError("a value that SQLite does not take")

    with monkeypatch.context() as failing:
        failing.setattr(Index, "add", fails)
        assert bench.receive(sent, **names).outcome == "stored"
        assert bench.held(image.SOPInstanceUID) is None
    with bench.restarted() as restarted:
        assert restarted.ingest.replay() == 1
        stored = restarted.held(image.SOPInstanceUID)
        assert not stored.is_own
        assert restarted.bytes_of(stored) == sent


@pytest.mark.parametrize("error", [OverflowError, KeyError, RecursionError])
def test_a_fault_in_replaying_one_record_bars_no_start(bench, monkeypatch, error):
    """It is left in the log, and the others are indexed."""
    first, second = made.ct_image(), made.ct_image()
    for image in (first, second):
        receive_without_row(bench, image, monkeypatch)
    real = Duplicates.is_held

    def is_held(self, sop_instance_uid):
        if sop_instance_uid == first.SOPInstanceUID:
            raise error("a fault of ours")
        return real(self, sop_instance_uid)

    with bench.restarted() as restarted:
        with monkeypatch.context() as failing:
            failing.setattr(Duplicates, "is_held", is_held)
            assert restarted.ingest.replay() == 1
        assert restarted.held(second.SOPInstanceUID) is not None
        for _ in range(2):
            restarted.storage.reclaim(partial(is_needed, restarted))
        with restarted.restarted() as again:
            assert again.ingest.replay() == 1
            assert again.held(first.SOPInstanceUID) is not None


def test_an_index_that_is_lost_is_made_again_from_the_log(tmp_path):
    images = [made.ct_image() for _ in range(5)]
    with ingest_bench(tmp_path / "data") as bench:
        for image in images:
            receive(bench, image)
    for path in (tmp_path / "data").iterdir():
        if path.is_file():
            path.unlink()
    with ingest_bench(tmp_path / "data") as bench:
        assert bench.ingest.replay() == 5
        for image in images:
            assert bench.bytes_of(bench.held(image.SOPInstanceUID)) == made.encoded(image)


def test_segments_with_unsettled_instances_are_never_reclaimed(bench):
    image = made.ct_image()
    receive(bench, image)

    def is_live(segment: str) -> bool:
        with bench.database.read() as connection:
            return bench.index.in_segment(connection, segment) > 0

    assert bench.storage.reclaim(is_live) == 0
    settle(bench, image.SOPInstanceUID, "keep")
    assert bench.storage.reclaim(is_live) == 1
    assert bench.bytes_of(bench.held(image.SOPInstanceUID)) == made.encoded(image)


def settle(bench: Bench, sop_instance_uid: str, choice: str) -> None:
    """Do what the settle job does."""
    held = bench.held(sop_instance_uid)
    with bench.storage.open(held.location) as data_set:
        syntax, digest = held.received_transfer_syntax_uid, held.data_set_sha256
        choices = choosing.named(choice)
        with lossless.settle(data_set, syntax, choices, data_set_sha256=digest) as settlement:
            meta = archive.part10(
                held.sop_class_uid,
                sop_instance_uid,
                settlement.stored_transfer_syntax_uid,
                settlement.private,
                held.provenance,
            )
            location = bench.storage.settle(sop_instance_uid, chain([meta], settlement.chunks()))
    bench.database.write(
        lambda connection: bench.index.settle(
            connection,
            sop_instance_uid,
            location=location,
            stored_transfer_syntax_uid=settlement.stored_transfer_syntax_uid,
            kept_reason=settlement.kept_reason,
            proof=settlement.proof,
        )
    )


@pytest.mark.parametrize("choice", ["keep", "rle", "jpeg-ls", "jpeg2000"])
@pytest.mark.parametrize("received", [EXPLICIT, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("overlay", [0, 0x7000])
def test_a_settled_instance_is_known_again_by_all_its_bits(bench, choice, received, overlay):
    pixels = (np.arange(4096, dtype="<i2") % 300).reshape(64, 64)
    pixels[5, 5] |= overlay  # in the unused bits
    image = made.ct_image(pixels=pixels, BitsStored=12, HighBit=11, PixelRepresentation=0)
    receive(bench, image, received)
    settle(bench, image.SOPInstanceUID, choice)
    if not overlay:
        assert bool(bench.held(image.SOPInstanceUID).kept_reason) == (choice == "keep")
    for syntax in (EXPLICIT, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        assert receive(bench, image, syntax).outcome == "same"
    pixels[5, 5] ^= 0x1000
    image.PixelData = pixels.tobytes()
    with pytest.raises(ConflictingInstance):
        receive(bench, image)


# --- routes ------------------------------------------------------------------


def test_matching_instances_are_routed_but_not_back_to_their_sender(tmp_path):
    routes = (
        RouteConfig(when={"Modality": "CT"}, send_to=("PACS", "CT1")),
        RouteConfig(when={"Modality": "MG"}, send_to=("MAMMO",)),
    )
    with ingest_bench(tmp_path / "data", Config(storage=STORAGE, routes=routes)) as bench:
        image = made.ct_image()
        receive(bench, image)
        (job,) = bench.jobs("deliver")
        assert job["payload"] == {"sop_instance_uid": image.SOPInstanceUID, "peer": "PACS", "reason": "route"}
        assert job["lane"] == "PACS"
        receive(bench, made.instance())
        assert len(bench.jobs("deliver")) == 1
        receive(bench, image)
        assert len(bench.jobs("deliver")) == 1
