"""Files reach a peer byte for byte, and each has an outcome whatever the peer does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid

from node.config.settings import PeerConfig
from node.errors import AssociationAborted
from node.sending import dicom_files, recoding
from node.sending.dicom_files import DicomFile
from node.sending.sending import Sender
from node.wire.association import Request, Response
from tests.support import made
from tests.support.ports import free_port
from tests.support.toy_node import toy_node


def sender(port: int, **changes: Any) -> Sender:
    settings = {
        "calling_ae_title": "SCANNER",
        "timeout_seconds": 10.0,
        "max_pdu_bytes": 16384,
        "recode": recoding.uncompressed,
    }
    return Sender(PeerConfig("ANODE", "127.0.0.1", port), **{**settings, **changes})


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    found = []
    for number, syntax in enumerate((*made.NATIVE_TRANSFER_SYNTAXES, *made.COMPRESSED_TRANSFER_SYNTAXES)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(made.part10(made.ct_image(sop_instance_uid=f"1.2.3.{number}"), syntax))
        found.append(dicom_files.read(path))
    return found


def test_the_data_sets_arrive_byte_for_byte_in_their_transfer_syntax(files: list[DicomFile]) -> None:
    with toy_node() as node:
        sent = list(sender(node.port).send(files))
    assert [(one.status, one.problem) for one in sent] == [(0, "")] * len(files)
    assert len(node.stored) == len(files)
    for file, stored in zip(files, node.stored, strict=True):
        with dicom_files.open_data_set(file) as data_set:
            assert stored.sha256 == hashlib.sha256(data_set.read()).hexdigest()
        assert stored.transfer_syntax_uid == file.transfer_syntax_uid
        assert stored.calling_ae_title == "SCANNER"


def test_a_peer_that_cannot_be_reached_fails_every_file(files: list[DicomFile]) -> None:
    sent = list(sender(free_port()).send(files))
    assert len(sent) == len(files)
    assert all(one.status is None and "no connection" in one.problem for one in sent)
    assert not any(one.is_stored for one in sent)


def test_a_status_of_the_peer_is_told_with_its_comment(files: list[DicomFile]) -> None:
    def refuse(services: Any, request: Request) -> Iterator[Response]:
        for _ in request.fragments():
            pass
        full = request.command.AffectedSOPInstanceUID.endswith(".1")
        yield Response(0xA700, "the disk is full") if full else Response(0xB000)

    with toy_node(handlers={"C-STORE": refuse}) as node:
        sent = list(sender(node.port).send(files[:3]))
    assert [(one.status, one.comment, one.is_stored) for one in sent] == [
        (0xB000, "", True),
        (0xA700, "the disk is full", False),
        (0xB000, "", True),
    ]


def test_one_file_that_breaks_the_association_does_not_take_the_others_with_it(
    files: list[DicomFile],
) -> None:
    tries: list[str] = []

    def break_down(services: Any, request: Request) -> Iterator[Response]:
        instance = str(request.command.AffectedSOPInstanceUID)
        tries.append(instance)
        for _ in request.fragments():
            pass
        if instance == "1.2.3.2":
            request.association.abort()
            raise AssociationAborted("for the test")
        yield Response(0)

    with toy_node(handlers={"C-STORE": break_down}) as node:
        sent = list(sender(node.port).send(files))
    assert [one.is_stored for one in sent] == [one.sop_instance_uid != "1.2.3.2" for one in files]
    assert tries.count("1.2.3.2") == 2
    assert all(tries.count(one.sop_instance_uid) == 1 for one in files if one.sop_instance_uid != "1.2.3.2")


def test_a_file_that_is_gone_meanwhile_is_told(files: list[DicomFile]) -> None:
    files[1].path.unlink()
    with toy_node() as node:
        sent = list(sender(node.port).send(files))
    assert [one.is_stored for one in sent].count(False) == 1
    assert sent[1].problem == "cannot be read: No such file or directory"


def test_a_peer_that_wants_it_uncompressed_gets_it_uncompressed(files: list[DicomFile]) -> None:
    pynetdicom = pytest.importorskip("pynetdicom")
    entity = pynetdicom.AE("PACS")
    entity.add_supported_context(made.CT_IMAGE_STORAGE, [uid.ImplicitVRLittleEndian])
    pixels: dict[str, bytes] = {}

    def store(event: Any) -> int:
        pixels[event.dataset.SOPInstanceUID] = bytes(event.dataset.PixelData)
        return 0

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, store)]
    )
    try:
        sent = list(sender(server.socket.getsockname()[1]).send(files))
    finally:
        server.shutdown()
    assert [one.problem for one in sent] == [""] * len(files)
    assert {one.transfer_syntax_uid for one in sent} == {uid.ImplicitVRLittleEndian}
    assert set(pixels.values()) == {made.ct_image().PixelData}
