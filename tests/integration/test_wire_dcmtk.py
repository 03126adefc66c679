"""DCMTK's tools against the wire with small handlers."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from node import status
from node.wire import connection
from node.wire.association import Request, Response
from tests.support import data_sets
from tests.support.dcmtk import dcmtk
from tests.support.scripted_peer import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.support.toy_node import ToyNode, toy_node

STUDY = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")


@pytest.fixture(scope="module")
def node() -> Iterator[ToyNode]:
    with toy_node() as running:
        yield running


def ct(number: int, side: int = 64) -> Dataset:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT_IMAGE_STORAGE, f"1.2.3.4.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.PatientID, image.PatientName = "1", "Test^Wire"
    image.Rows = image.Columns = side
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = bytes([number % 256]) * (2 * side * side)
    image["PixelData"].VR = "OW"
    return image


def written(folder: Path, count: int, side: int = 64) -> list[Path]:
    paths = []
    for number in range(1, count + 1):
        image = ct(number, side)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
        paths.append(folder / f"{number:04}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_echoscu_is_answered(node: ToyNode) -> None:
    dcmtk("echoscu", "--repeat", 3, "-aec", "ANODE", "127.0.0.1", node.port)


def test_echoscu_under_another_called_ae_title_is_rejected(node: ToyNode) -> None:
    said = dcmtk("echoscu", "-aec", "WRONG", "127.0.0.1", node.port, check=False)
    assert "Called AE Title Not Recognized" in said


def test_echoscu_that_aborts_is_no_trouble(node: ToyNode) -> None:
    dcmtk("echoscu", "--abort", "-aec", "ANODE", "127.0.0.1", node.port)
    dcmtk("echoscu", "-aec", "ANODE", "127.0.0.1", node.port)


def test_echoscu_that_proposes_128_contexts_is_answered(node: ToyNode) -> None:
    dcmtk("echoscu", "-ppc", 128, "-pts", 16, "-aec", "ANODE", "127.0.0.1", node.port)


@pytest.mark.parametrize(
    ("option", "transfer_syntax_uid"),
    [("-x=", EXPLICIT_VR_LITTLE_ENDIAN), ("-xi", IMPLICIT_VR_LITTLE_ENDIAN)],
)
@pytest.mark.parametrize("max_pdu_bytes", [4096, 16384, 131072])
def test_storescu_stores_the_data_set_unchanged(
    node: ToyNode, tmp_path: Path, option: str, transfer_syntax_uid: str, max_pdu_bytes: int
) -> None:
    [path] = written(tmp_path, 1, side=512)
    before = len(node.stored)
    dcmtk("storescu", option, "--max-send-pdu", max_pdu_bytes, "-aec", "ANODE", "127.0.0.1", node.port, path)
    [stored] = node.stored[before:]
    assert stored.transfer_syntax_uid == transfer_syntax_uid
    encode = data_sets.explicit if transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN else data_sets.implicit
    # DCMTK turns OW of a 16-bit image over as it is, and its Implicit VR has no VR to differ in
    assert stored.length == len(encode(ct(1, 512)))
    assert stored.sha256 == hashlib.sha256(encode(ct(1, 512))).hexdigest()


def test_storescu_with_many_contexts_and_associations_at_once(node: ToyNode, tmp_path: Path) -> None:
    tool = shutil.which("storescu")
    if tool is None:
        pytest.skip("storescu is not installed (Debian: dcmtk)")
    paths = written(tmp_path, 20)
    before = len(node.stored)
    command = [tool, "-R", "-aec", "ANODE", "127.0.0.1", str(node.port), *map(str, paths)]
    senders = [subprocess.Popen(command) for _ in range(4)]
    assert [sender.wait(60) for sender in senders] == [0] * 4
    assert len(node.stored) - before == 80


def test_findscu_gets_every_answer(node: ToyNode) -> None:
    said = dcmtk("findscu", "-v", *STUDY, "-aec", "ANODE", "127.0.0.1", node.port)
    assert "1.2.3.1" in said
    assert "1.2.3.2" in said
    assert "Received Final Find Response (Success)" in said


def test_findscu_that_cancels_is_heard() -> None:
    def endless(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        found = data_sets.study_query()
        while not request.is_cancelled():
            yield Response(status.PENDING, identifier=found)
        yield Response(status.CANCEL)

    with toy_node(handlers={"C-FIND": endless}) as node:
        said = dcmtk("findscu", "-v", "--cancel", 3, *STUDY, "-aec", "ANODE", "127.0.0.1", node.port)
    assert "Received Final Find Response (Cancel" in said


def test_a_refusal_is_shown_with_its_comment(tmp_path: Path) -> None:
    def full(services: Any, request: Request) -> Iterator[Response]:
        yield Response(status.STORE_OUT_OF_RESOURCES, "the disk is full")

    [path] = written(tmp_path, 1)
    with toy_node(handlers={"C-STORE": full}) as node:
        said = dcmtk("storescu", "-d", "-aec", "ANODE", "127.0.0.1", node.port, path, check=False)
    assert "0xa700" in said
    assert "the disk is full" in said


def test_getscu_gets_an_instance_by_sub_operation(tmp_path: Path) -> None:
    def get(services: Any, request: Request) -> Iterator[Response]:
        request.identifier()
        context = request.association.context_for(CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,))
        assert context is not None
        answer = request.association.send_store(
            context,
            sop_class_uid=CT_IMAGE_STORAGE,
            sop_instance_uid="1.2.3.4.1",
            data_set=data_sets.explicit(ct(1)),
        )
        assert answer.status == 0
        yield Response(status.PENDING, remaining=0, completed=1, failed=0, warning=0)
        yield Response(status.SUCCESS, completed=1, failed=0, warning=0)

    with toy_node(handlers={"C-GET": get}) as node:
        dcmtk("getscu", "-od", tmp_path, *STUDY, "-aec", "ANODE", "127.0.0.1", node.port)
    [path] = tmp_path.iterdir()
    assert path.read_bytes().endswith(data_sets.explicit(ct(1)))


def seconds_to_send(folder: Path, port: int, **environment: str) -> float:
    tool = shutil.which("storescu")
    if tool is None:
        pytest.skip("storescu is not installed (Debian: dcmtk)")
    plain = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    begin = time.monotonic()
    subprocess.run(
        [tool, "-aec", "ANODE", "+sd", "127.0.0.1", str(port), str(folder)],
        check=True,
        env=plain | environment,
        timeout=60,
    )
    return time.monotonic() - begin


def test_a_sender_with_nagles_algorithm_is_not_throttled(node: ToyNode, tmp_path: Path) -> None:
    """Where the acknowledgement is delayed, each of these 60 instances takes 40 ms more."""
    written(tmp_path, 60)
    without_nagle = seconds_to_send(tmp_path, node.port, TCP_NODELAY="1")
    with_nagle = min(seconds_to_send(tmp_path, node.port) for _ in range(2))
    assert with_nagle < without_nagle + 1.2


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux delays acknowledgements so")
def test_the_throttle_would_be_noticed(
    node: ToyNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_QUICKACK", None)
    written(tmp_path, 60)
    assert seconds_to_send(tmp_path, node.port) > 1.5
