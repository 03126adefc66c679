"""SIGKILL in the middle of each stage: nothing acknowledged is missing, results arrive once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt

from node.config.settings import PeerConfig
from node.demo.chest_ct import write_chest_ct
from node.demo.phantom import ChestPhantom
from node.sending import dicom_files
from node.sending.recoding import uncompressed
from node.sending.sending import Sender, Sent
from tests.support.anode_process import AnodeProcess
from tests.support.processes import descendants, is_gone
from tests.support.retrieving import find
from tests.support.waiting import ANALYSES_SECONDS, wait_until

pytestmark = pytest.mark.timeout(2 * ANALYSES_SECONDS)

# JPEG 2000 is slow enough that settling lags behind receiving
CONFIGURATION = """
[transcode]
to = "jpeg2000"
[study]
quiet_seconds = 2
[jobs]
delivery_retry_first_seconds = 0.5
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
[[analyses]]
name = "lungs"
model = "lungs"
when = {{ Modality = "CT" }}
send_to = ["PACS"]
"""
KINDS = {"SR", "SEG", "OT"}


class Pacs:
    """Counts what arrives; ``gate`` closed lets an object arrive but never answers it."""

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.modality: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.has_something = threading.Event()
        entity = AE(ae_title="PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(context.transfer_syntax))
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.socket.getsockname()[1]

    def _store(self, event: evt.Event) -> int:
        self.has_something.set()
        self.gate.wait(60)
        uid = str(event.request.AffectedSOPInstanceUID)
        self.modality[uid] = str(event.dataset.Modality)
        self.arrived[uid] += 1
        return 0x0000

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[dicom_files.DicomFile]:
    """A chest phantom of 60 slices."""
    phantom = ChestPhantom(size=(60, 256, 256), spacing_mm=(5.0, 1.5, 1.5))
    folder = tmp_path_factory.mktemp("phantom")
    return [dicom_files.read(path) for path in write_chest_ct(phantom, folder, datetime(2024, 2, 29, 10, 15))]


@pytest.fixture
def node(tmp_path: Path, pacs: Pacs) -> Iterator[AnodeProcess]:
    node = AnodeProcess(tmp_path / "node", CONFIGURATION.format(port=pacs.port))
    node.start()
    yield node
    if node.process is not None and node.process.poll() is None:
        node.stop()


def send(node: AnodeProcess, study: list[dicom_files.DicomFile]) -> Iterator[Sent]:
    sender = Sender(
        PeerConfig("ANODE", "127.0.0.1", node.port),
        calling_ae_title="SCANNER",
        timeout_seconds=10,
        max_pdu_bytes=131072,
        recode=uncompressed,
    )
    return sender.send(study)


def in_state(node: AnodeProcess, kind: str, *states: str) -> int:
    jobs = node.json("jobs", "--kind", kind, "--limit", "100000")
    return sum(job["state"] in states for job in jobs)


def everything_is_there_once(node: AnodeProcess, study: list[dicom_files.DicomFile], pacs: Pacs) -> None:
    study_uid = dcmread(study[0].path, stop_before_pixels=True).StudyInstanceUID
    wait_until(lambda: set(pacs.modality.values()) == KINDS, ANALYSES_SECONDS, "the results at the PACS")
    wait_until(lambda: in_state(node, "deliver", "ready", "running") == 0, 60, "the end of delivery")
    assert Counter(pacs.modality.values()) == Counter(KINDS), "each result has one SOP Instance UID"
    [series] = [
        one
        for one in find(node.port, "SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="", Modality="")
        if one.Modality == "CT"
    ]
    images = find(
        node.port,
        "IMAGE",
        StudyInstanceUID=study_uid,
        SeriesInstanceUID=series.SeriesInstanceUID,
        SOPInstanceUID="",
    )
    assert {image.SOPInstanceUID for image in images} == {file.sop_instance_uid for file in study}
    assert node.run("verify").returncode == 0


def test_killed_while_receiving_the_node_has_all_that_it_acknowledged(
    node: AnodeProcess, study: list[dicom_files.DicomFile], pacs: Pacs
) -> None:
    acknowledged = []
    sending = send(node, study)
    for one in sending:
        if one.is_stored:
            acknowledged.append(one.file.sop_instance_uid)
        if len(acknowledged) == 25:
            node.kill()
            break
    sending.close()  # type: ignore[attr-defined]
    node.start()
    study_uid = dcmread(study[0].path, stop_before_pixels=True).StudyInstanceUID
    [found] = find(node.port, "STUDY", StudyInstanceUID=study_uid, NumberOfStudyRelatedInstances="")
    assert int(found.NumberOfStudyRelatedInstances) >= 25
    for uid in acknowledged:
        assert find_image(node, study_uid, uid)
    assert all(one.is_stored for one in send(node, study))
    everything_is_there_once(node, study, pacs)


def find_image(node: AnodeProcess, study_uid: str, sop_instance_uid: str) -> bool:
    [series] = find(node.port, "SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="")
    return bool(
        find(
            node.port,
            "IMAGE",
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=series.SeriesInstanceUID,
            SOPInstanceUID=sop_instance_uid,
        )
    )


def test_killed_while_settling_the_node_settles_the_rest(
    node: AnodeProcess, study: list[dicom_files.DicomFile], pacs: Pacs
) -> None:
    assert all(one.is_stored for one in send(node, study))
    archive = node.folder / "data" / "archive"
    wait_until(lambda: any(archive.rglob("*.dcm")), 60, "the first instance to be settled")
    assert node.process is not None
    helpers = descendants(node.process.pid)
    assert helpers
    node.kill()
    wait_until(lambda: all(map(is_gone, helpers)), 10, "the processes that settle to end with the node")
    assert list((archive / "partial").iterdir()) == []
    settled = in_state(node, "settle", "done")
    assert settled < len(study), "the kill came too late to be in the middle of settling"
    node.start()
    everything_is_there_once(node, study, pacs)


def test_killed_while_analysing_the_node_analyses_again(
    node: AnodeProcess, study: list[dicom_files.DicomFile], pacs: Pacs
) -> None:
    assert all(one.is_stored for one in send(node, study))
    wait_until(lambda: in_state(node, "analyze", "running"), 60, "an analysis that runs")
    node.kill()
    assert in_state(node, "analyze", "running") == 1
    assert not pacs.arrived
    node.start()
    everything_is_there_once(node, study, pacs)


def test_killed_while_delivering_the_node_delivers_the_same_objects(
    node: AnodeProcess, study: list[dicom_files.DicomFile], pacs: Pacs
) -> None:
    pacs.gate.clear()
    assert all(one.is_stored for one in send(node, study))
    assert pacs.has_something.wait(90), "nothing was delivered"
    node.kill()
    assert in_state(node, "deliver", "running") >= 1
    pacs.gate.set()
    node.start()
    everything_is_there_once(node, study, pacs)
