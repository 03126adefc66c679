"""An object that is longer than 32 bits can say: received, kept, proven and given back; ``make large``."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path

import pytest
from pydicom import uid

from node.config.settings import PeerConfig
from node.sending import dicom_files
from node.sending.recoding import uncompressed
from node.sending.sending import Sender
from node.storage import archive
from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.retrieving import get_digests
from tests.support.waiting import wait_until

#: Bytes of its frames; ``make large`` takes 4.5 GB.
SIZE = int(os.environ.get("ANODE_LARGE_BYTES", str(96 << 20)))
FRAME_BYTES = 8 << 20
MOST_GROWN_BYTES = 64 << 20
MPEG2 = "1.2.840.10008.1.2.4.100"


def write(path: Path) -> tuple[str, str, str]:
    """A file with so many fragments; returns SOP class, study, and the SHA-256 of the data set."""
    data_set = made.ct_image()
    data_set.SOPClassUID = uid.VideoEndoscopicImageStorage
    del data_set.PixelData
    digest = hashlib.sha256()
    chance = random.Random(4)
    with path.open("wb") as file:
        file.write(archive.part10(str(data_set.SOPClassUID), str(data_set.SOPInstanceUID), MPEG2, {}))

        def put(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        put(made.encoded(data_set) + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0")
        block = chance.randbytes(FRAME_BYTES)
        for number in range(-(-SIZE // FRAME_BYTES)):
            put(struct.pack("<HHLL", 0xFFFE, 0xE000, FRAME_BYTES, number))
            put(block[4:])
        put(b"\xfe\xff\xdd\xe0\0\0\0\0")
    return str(data_set.SOPClassUID), str(data_set.StudyInstanceUID), digest.hexdigest()


def memory_bytes(process_id: int) -> int:
    """Its own memory, without what the system keeps of files."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process is gone")


@pytest.mark.timeout(1800)
def test_an_object_of_any_length_comes_back_byte_for_byte_and_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    sop_class_uid, study, expected = write(path)
    with AnodeProcess(tmp_path / "node", "[limits]\ninstance_bytes = 10000000000\n") as node:
        assert node.process is not None
        before = memory_bytes(node.process.pid)
        sender = Sender(
            PeerConfig("ANODE", "127.0.0.1", node.port),
            calling_ae_title="SCANNER",
            timeout_seconds=300,
            max_pdu_bytes=131072,
            recode=uncompressed,
        )
        (sent,) = sender.send([dicom_files.read(path)])
        assert (sent.status, sent.problem) == (0, "")
        path.unlink()
        wait_until(lambda: node.json("status")["instances_not_settled"] == 0, 600, "settling")
        got = get_digests(node.port, {sop_class_uid: {MPEG2}}, "STUDY", StudyInstanceUID=study)
        assert list(got.values()) == [(MPEG2, expected)]
        assert "0 damaged" in node.run("verify").stdout
        assert memory_bytes(node.process.pid) - before < MOST_GROWN_BYTES
