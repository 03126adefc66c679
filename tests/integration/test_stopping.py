"""A node that is told to stop: who is sending may finish, and jobs are given back."""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.config.settings import PeerConfig
from node.sending import dicom_files
from node.sending.recoding import uncompressed
from node.sending.sending import Sender
from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.retrieving import find
from tests.support.waiting import wait_until

INSTANCES = 60

# JPEG 2000 is slow enough that jobs are left when the node stops.
CONFIGURATION = """
[transcode]
to = "jpeg2000"
"""


def images() -> Iterator[Dataset]:
    for number in range(INSTANCES):
        yield made.ct_image(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", InstanceNumber=number)


@pytest.fixture
def study(tmp_path: Path) -> list[dicom_files.DicomFile]:
    folder = tmp_path / "study"
    folder.mkdir()
    files = []
    for number, image in enumerate(images()):
        path = folder / f"{number:03}"
        path.write_bytes(made.part10(image))
        files.append(dicom_files.read(path))
    return files


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_told_to_stop_the_node_lets_a_sender_finish_and_gives_its_jobs_back(
    tmp_path: Path, study: list[dicom_files.DicomFile]
) -> None:
    node = AnodeProcess(tmp_path / "node", CONFIGURATION, node="stop_grace_seconds = 60.0")
    node.start()
    try:
        sender = Sender(
            PeerConfig("ANODE", "127.0.0.1", node.port),
            calling_ae_title="SCANNER",
            timeout_seconds=30,
            max_pdu_bytes=131072,
            recode=uncompressed,
        )
        stored = set()
        for number, one in enumerate(sender.send(study)):
            assert one.is_stored
            stored.add(one.file.sop_instance_uid)
            if number == 4:
                assert node.process is not None
                node.process.send_signal(signal.SIGTERM)
                wait_until(lambda: not is_listening(node.port), what="the port to close")
        assert len(stored) == INSTANCES, "all of the association, most of it after the signal"
        assert node.process is not None
        assert node.process.wait(60) == 0
        with closing(sqlite3.connect(node.folder / "data" / "index.sqlite")) as database:
            states = dict(database.execute("SELECT state, COUNT(*) FROM job GROUP BY state"))
            most_tries = database.execute("SELECT MAX(attempts) FROM job WHERE state = 'ready'").fetchone()[0]
        assert "leased" not in states
        assert most_tries == 0, "being given back costs no try"
        assert "Traceback" not in node.log.read_text()
        node.start()
        found = find(
            node.port, "IMAGE", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", SOPInstanceUID=""
        )
        assert {one.SOPInstanceUID for one in found} == stored
    finally:
        node.stop()
