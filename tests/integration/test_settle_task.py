"""Settling in a node: the archive takes over from the log, and everything still goes out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node.config.settings import StorageConfig, TranscodeConfig, TranscodeRule
from node.errors import IntegrityFailure, OutOfSpace
from node.jobs.task import Done, Job, Retry, SetAside
from node.storage import archive
from node.transcode.outgoing import Outgoing
from node.verification import verify
from tests.support import made, made_pixels
from tests.support.settling import run, settle
from tests.support.small_node import SmallNode, config, small_node

EXPLICIT = str(uid.ExplicitVRLittleEndian)
IMPLICIT = str(uid.ImplicitVRLittleEndian)
PIXELS = (np.arange(64 * 50).reshape(64, 50) // 9 - 100).astype(np.int16)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    with small_node(config(tmp_path / "data")) as running:
        yield running


def outgoing(node: SmallNode, sop_instance_uid: str) -> Outgoing:
    return Outgoing(node.services.storage, node.stored(sop_instance_uid))


def sent(node: SmallNode, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    data_set = outgoing(node, sop_instance_uid).data_set(transfer_syntax_uid)
    return data_set if isinstance(data_set, bytes) else data_set.read()


def archive_file(node: SmallNode, sop_instance_uid: str) -> Path:
    return node.services.storage.path(node.stored(sop_instance_uid).location)


@pytest.mark.parametrize("received", made.NATIVE_TRANSFER_SYNTAXES, ids=lambda one: one.name)
def test_before_and_after_settling_the_received_bytes_go_out(node, received):
    data_set = made.ct_image(pixels=PIXELS)
    (sop_instance_uid,) = node.receive(data_set, transfer_syntax_uid=received)
    expected = made.encoded(data_set, received)
    assert sent(node, sop_instance_uid, str(received)) == expected
    assert [type(one) for one in settle(node.services, sop_instance_uid)] == [Done]
    stored = node.stored(sop_instance_uid)
    assert stored.is_settled
    assert stored.location.kind == "archive"
    assert verify(node.services, stored) == ""
    assert sent(node, sop_instance_uid, str(received)) == expected
    syntaxes = outgoing(node, sop_instance_uid).transfer_syntaxes()
    first = dict.fromkeys((stored.stored_transfer_syntax_uid, str(received)))
    assert syntaxes[: len(first)] == tuple(first)
    assert set(syntaxes) == {received, stored.stored_transfer_syntax_uid, EXPLICIT, IMPLICIT}
    for transfer_syntax_uid in (EXPLICIT, IMPLICIT):
        encoded = sent(node, sop_instance_uid, transfer_syntax_uid)
        if received != uid.ImplicitVRLittleEndian or transfer_syntax_uid == IMPLICIT:
            assert encoded == made.encoded(data_set, transfer_syntax_uid)


def test_the_archive_file_is_an_ordinary_part_10_file_that_carries_its_proof(node):
    (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS), transfer_syntax_uid=IMPLICIT)
    settle(node.services, sop_instance_uid)
    stored = node.stored(sop_instance_uid)
    path = archive_file(node, sop_instance_uid)
    file = pydicom.dcmread(path)
    assert file.file_meta.TransferSyntaxUID == uid.JPEGLSLossless == stored.stored_transfer_syntax_uid
    assert np.array_equal(file.pixel_array, PIXELS)
    private = archive.read_private(path)
    assert private["received"]["sha256"] == stored.data_set_sha256
    assert private["received"]["provenance"]["calling_ae_title"] == "SCANNER"
    assert private["stored"] == stored.proof["stored"]
    assert stored.kept_reason == ""
    assert stored.proof["stored"]["ratio"] > 2
    as_stored = sent(node, sop_instance_uid, stored.stored_transfer_syntax_uid)
    assert path.read_bytes().endswith(as_stored)


def test_what_is_kept_says_why_and_lies_in_the_archive_as_it_came(node):
    report = made.instance()
    (sop_instance_uid,) = node.receive(report, transfer_syntax_uid=IMPLICIT)
    settle(node.services, sop_instance_uid)
    stored = node.stored(sop_instance_uid)
    assert (stored.kept_reason, stored.stored_transfer_syntax_uid) == ("no pixels", IMPLICIT)
    assert archive_file(node, sop_instance_uid).read_bytes().endswith(made.encoded(report, IMPLICIT))
    assert verify(node.services, stored) == ""


def test_settling_again_changes_nothing(node):
    (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS))
    settle(node.services, sop_instance_uid)
    before = archive_file(node, sop_instance_uid).stat()
    assert settle(node.services, sop_instance_uid) == [Done()]
    assert archive_file(node, sop_instance_uid).stat() == before


def test_a_crash_between_the_file_and_the_row_is_mended_by_doing_it_again(node):
    (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS))
    job = Job(1, "settle", sop_instance_uid, "", {"sop_instance_uid": sop_instance_uid}, "1.2", 1, 0.0)
    run(node.services, job)  # the outcome is never applied
    assert not node.stored(sop_instance_uid).is_settled
    assert verify(node.services, node.stored(sop_instance_uid)) == ""
    settle(node.services, sop_instance_uid)
    assert verify(node.services, node.stored(sop_instance_uid)) == ""


def test_each_choice_of_the_configuration_is_followed(tmp_path):
    expected = {
        "keep": EXPLICIT,
        "rle": uid.RLELossless,
        "jpeg-ls": uid.JPEGLSLossless,
        "jpeg2000": uid.JPEG2000Lossless,
        "jpeg-lossless": uid.JPEGLosslessSV1,
        "jpeg-lossless-p14": uid.JPEGLossless,
        "htj2k": uid.HTJ2KLossless,
        "htj2k-rpcl": uid.HTJ2KLosslessRPCL,
        "jpeg-xl": "1.2.840.10008.1.2.4.110",
    }
    for choice, transfer_syntax_uid in expected.items():
        settings = replace(config(tmp_path / choice), transcode=TranscodeConfig(to=choice))
        with small_node(settings) as node:
            (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS))
            settle(node.services, sop_instance_uid)
            assert node.stored(sop_instance_uid).stored_transfer_syntax_uid == transfer_syntax_uid
            assert verify(node.services, node.stored(sop_instance_uid)) == ""


def test_the_first_rule_that_matches_counts_in_place_of_the_rest(tmp_path):
    rules = (
        TranscodeRule("rle", {"Modality": "CT", "SeriesDescription": "THIN*"}),
        TranscodeRule("keep", {"Modality": "CT", "SeriesDescription": "SCOUT"}),
        TranscodeRule("jpeg2000", {"SeriesDescription": "SCOUT"}),
    )
    expected = {"thin 1 mm": uid.RLELossless, "scout": EXPLICIT, "thick": uid.HTJ2KLossless}
    settings = replace(config(tmp_path), transcode=TranscodeConfig(to="htj2k", rules=rules))
    with small_node(settings) as node:
        for description, transfer_syntax_uid in expected.items():
            (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS, SeriesDescription=description))
            settle(node.services, sop_instance_uid)
            assert node.stored(sop_instance_uid).stored_transfer_syntax_uid == transfer_syntax_uid


def test_the_best_codec_is_measured_once_for_a_series_and_counts_for_all_of_it(tmp_path):
    settings = replace(config(tmp_path), transcode=TranscodeConfig(to="best", codecs=("rle", "htj2k")))
    series, other = uid.generate_uid(), uid.generate_uid()
    with small_node(settings) as node:
        own = [made.ct_image(pixels=PIXELS, SeriesInstanceUID=series) for _ in range(4)]
        bits = made_pixels.segments()
        bits.SeriesInstanceUID = other
        instances = node.receive(*own, bits)
        settle(node.services, *instances)
        proofs = [node.stored(one).proof for one in instances]
        assert [proof["stored"].get("codec") for proof in proofs] == ["htj2k"] * 4 + [None]
        assert [proof.get("measured", {}).keys() for proof in proofs].count({"rle", "htj2k"}) == 1
        assert node.stored(instances[-1]).kept_reason == "no codec makes it smaller"
        for one in instances:
            assert verify(node.services, node.stored(one)) == ""


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("data_set", [made.ct_image(pixels=PIXELS), made.instance()], ids=["coded", "kept"])
@pytest.mark.parametrize("where", ["pixels", "header", "proof"])
def test_damage_on_disk_is_found_and_never_sent(node, data_set, where):
    (sop_instance_uid,) = node.receive(data_set)
    settle(node.services, sop_instance_uid)
    path = archive_file(node, sop_instance_uid)
    size = path.stat().st_size
    length = node.stored(sop_instance_uid).proof["stored"]["length"]
    flip(path, {"pixels": size - 20, "header": size - length + 20, "proof": size - length - 9}[where])
    stored = node.stored(sop_instance_uid)
    assert verify(node.services, stored).startswith("damaged")
    if where == "proof":  # which has no part in what is stored
        as_stored = sent(node, sop_instance_uid, stored.stored_transfer_syntax_uid)
        assert path.read_bytes()[-length:] == as_stored
    else:
        with pytest.raises(IntegrityFailure):
            sent(node, sop_instance_uid, stored.stored_transfer_syntax_uid)
    for transfer_syntax_uid in outgoing(node, sop_instance_uid).transfer_syntaxes():
        if transfer_syntax_uid == uid.JPEGLSLossless:
            continue
        try:
            encoded = sent(node, sop_instance_uid, transfer_syntax_uid)
        except IntegrityFailure:
            continue
        assert encoded == made.encoded(data_set, transfer_syntax_uid)


def test_a_lost_or_exchanged_file_is_found(node):
    first, second = node.receive(made.ct_image(pixels=PIXELS), made.ct_image(pixels=PIXELS))
    settle(node.services, first, second)
    archive_file(node, first).write_bytes(archive_file(node, second).read_bytes())
    assert verify(node.services, node.stored(first)).startswith("damaged")
    archive_file(node, first).unlink()
    assert verify(node.services, node.stored(first)).startswith("cannot be read")


def test_a_damaged_log_record_is_set_aside_and_not_archived(node):
    (sop_instance_uid,) = node.receive(made.instance())
    stored = node.stored(sop_instance_uid)
    path = node.services.storage.path(stored.location)
    with path.open("r+b") as segment:
        segment.seek(stored.location.offset + 40)
        segment.write(b"\xff\xfe")
    assert verify(node.services, stored).startswith("damaged")
    (outcome,) = settle(node.services, sop_instance_uid)
    assert isinstance(outcome, SetAside)
    assert isinstance(outcome.error, IntegrityFailure)
    assert not node.stored(sop_instance_uid).is_settled


def test_a_full_disk_means_later_not_never(node):
    (sop_instance_uid,) = node.receive(made.ct_image(pixels=PIXELS))
    job = Job(1, "settle", sop_instance_uid, "", {"sop_instance_uid": sop_instance_uid}, "1.2", 1, 0.0)
    nothing_is_free = StorageConfig(free_space_reserve_bytes=2**60)
    full = replace(node.services, config=replace(node.services.config, storage=nothing_is_free))
    [(_, outcome)] = run(full, job)
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, OutOfSpace)
    assert not node.stored(sop_instance_uid).is_settled


def test_a_job_for_an_instance_that_is_gone_is_set_aside(node):
    (outcome,) = settle(node.services, "1.2.3")
    assert isinstance(outcome, SetAside)


def test_video_goes_out_only_as_it_came(node):
    data_set = made.ct_image(pixels=PIXELS)
    data_set.add_new(0x7FE00010, "OB", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\4\0\0\0film")
    data_set["PixelData"].is_undefined_length = True
    (sop_instance_uid,) = node.receive(data_set, transfer_syntax_uid=uid.MPEG2MPML)
    settle(node.services, sop_instance_uid)
    assert node.stored(sop_instance_uid).kept_reason == "already compressed"
    assert outgoing(node, sop_instance_uid).transfer_syntaxes() == (str(uid.MPEG2MPML),)
    assert sent(node, sop_instance_uid, str(uid.MPEG2MPML)) == made.encoded(data_set, uid.MPEG2MPML)


def test_large_objects_go_out_as_files(node, monkeypatch):
    monkeypatch.setattr("node.transcode.outgoing.IN_MEMORY_BYTES", 1000)
    data_set: Dataset = made.ct_image(pixels=PIXELS)
    (sop_instance_uid,) = node.receive(data_set)
    settle(node.services, sop_instance_uid)
    file = outgoing(node, sop_instance_uid).data_set(EXPLICIT)
    assert not isinstance(file, bytes)
    with file:
        assert file.seek(0, io.SEEK_CUR) == 0
        assert file.read() == made.encoded(data_set, EXPLICIT)
