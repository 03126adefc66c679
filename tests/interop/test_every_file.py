"""Every real file is stored or refused with a reason; what is stored comes back, byte for byte."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.config.settings import PeerConfig
from node.errors import MalformedDataSet
from node.sending import dicom_files
from node.sending.dicom_files import DicomFile
from node.sending.recoding import uncompressed
from node.sending.sending import Sender, Sent
from tests.support.anode_process import AnodeProcess
from tests.support.data import require_data
from tests.support.dcmtk import dcmtk
from tests.support.orthanc import Orthanc, running_orthanc
from tests.support.retrieving import find, get_digests
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("every-file")]


@dataclass
class Held:
    node: AnodeProcess
    orthanc: Orthanc
    sent: list[Sent]
    unreadable: list[tuple[Path, str]]
    stored: dict[str, DicomFile] = field(default_factory=dict)
    study_of: dict[str, str] = field(default_factory=dict)
    series_of: dict[str, str] = field(default_factory=dict)


def digest(file: DicomFile) -> str:
    """SHA-256 of the data set, padded to even where it is deflated (PS3.5 section A.5)."""
    with dicom_files.open_data_set(file) as data_set:
        sent = hashlib.file_digest(data_set, "sha256")
    if file.transfer_syntax_uid == DeflatedExplicitVRLittleEndian and file.data_set_bytes % 2:
        sent.update(b"\0")
    return sent.hexdigest()


def study_and_series_of(file: DicomFile) -> tuple[str, str]:
    """Their UIDs as pydicom reads them, whatever it thinks of the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = dcmread(file.path, stop_before_pixels=True, force=True)
        return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


def chosen(data: Path) -> list[Path]:
    """Everything with ANODE_EVERY_FILE set; else two of the many patients of the PET study."""
    if os.environ.get("ANODE_EVERY_FILE"):
        return [data]
    patients = sorted((data / "pet_sarcoma").iterdir())[:2]
    return [data / "series", data / "singles", data / "made", *patients]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """A node that was sent everything there is, settled, with an Orthanc beside it."""
    data = require_data()
    folder = tmp_path_factory.mktemp("every-file")
    # data sets of an odd length are not to its liking, and it tells only by ending the association
    with running_orthanc(folder / "orthanc", scp_seconds=5) as orthanc:
        peer = f'[[peers]]\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {orthanc.port}\n'
        with AnodeProcess(folder / "node", peer) as node:
            files: list[DicomFile] = []
            unreadable: list[tuple[Path, str]] = []
            for path in dicom_files.find(chosen(data)):
                try:
                    files.append(dicom_files.read(path))
                except MalformedDataSet as error:
                    unreadable.append((path, str(error)))
            sender = Sender(
                PeerConfig("ANODE", "127.0.0.1", node.port),
                calling_ae_title="SCANNER",
                timeout_seconds=60,
                max_pdu_bytes=131072,
                recode=uncompressed,
            )
            everything = Held(node, orthanc, list(sender.send(files)), unreadable)
            for one in everything.sent:
                if one.is_stored and one.file.sop_instance_uid not in everything.stored:
                    everything.stored[one.file.sop_instance_uid] = one.file
                    study, series = study_and_series_of(one.file)
                    everything.study_of[one.file.sop_instance_uid] = study
                    everything.series_of[one.file.sop_instance_uid] = series
            wait_until(lambda: node.json("status")["instances_not_settled"] == 0, 300, "settling")
            yield everything


def test_every_file_is_stored_or_refused_with_a_status_and_a_reason(held: Held) -> None:
    silent = [
        (one.file.path.name, one.status, one.comment, one.problem)
        for one in held.sent
        if not one.is_stored and not ((one.status and one.comment) or one.problem)
    ]
    assert silent == []
    assert all(reason for _, reason in held.unreadable)
    assert len(held.stored) > 900


def test_what_is_stored_comes_back_by_c_get_with_its_data_set_unchanged(held: Held) -> None:
    # each by a peer that takes the transfer syntax alone in which it came
    alike: dict[tuple[str, str, str, str], list[DicomFile]] = defaultdict(list)
    for uid, file in held.stored.items():
        kind = file.sop_class_uid, file.transfer_syntax_uid
        alike[held.study_of[uid], held.series_of[uid], *kind].append(file)
    changed, missing = [], []
    for (study, series, sop_class_uid, syntax), files in alike.items():
        got = get_digests(
            held.node.port,
            {sop_class_uid: {syntax}},
            "IMAGE",
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID=[file.sop_instance_uid for file in files],
        )
        for file in files:
            if file.sop_instance_uid not in got:
                missing.append(file.path.name)
            elif got[file.sop_instance_uid] != (file.transfer_syntax_uid, digest(file)):
                changed.append((file.path.name, got[file.sop_instance_uid][0]))
    assert missing == []
    assert changed == []


def test_what_is_stored_is_found_at_every_level(held: Held) -> None:
    port = held.node.port
    found = set()
    for study in find(port, "STUDY", StudyInstanceUID="", NumberOfStudyRelatedInstances=""):
        study_uid = study.StudyInstanceUID
        count = 0
        for series in find(port, "SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=""):
            images = find(
                port,
                "IMAGE",
                StudyInstanceUID=study_uid,
                SeriesInstanceUID=series.SeriesInstanceUID,
                SOPInstanceUID="",
            )
            found |= {(study_uid, image.SOPInstanceUID) for image in images}
            count += len(images)
        assert int(study.NumberOfStudyRelatedInstances) == count
    assert found == {(held.study_of[uid], uid) for uid in held.stored}


def test_what_is_stored_arrives_in_orthanc_by_c_move(held: Held) -> None:
    studies = sorted(set(held.study_of.values()))
    for study_instance_uid in studies:
        dcmtk(
            "movescu", "-S", "-aet", "WORKSTATION", "-aec", "ANODE", "-aem", "ORTHANC",
            "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_instance_uid}",
            "127.0.0.1", held.node.port, check=False,
        )  # fmt: skip
    arrived = set(held.orthanc.instances())
    absent = {uid: file for uid, file in held.stored.items() if uid not in arrived}
    # what Orthanc itself refuses from DCMTK, sent straight from the file, is not ours to lose
    refused = set()
    for uid, file in absent.items():
        sent = dcmtk(
            "storescu", "-aec", "ORTHANC", "-R", "--propose-lossless", "127.0.0.1", held.orthanc.port,
            file.path, check=False,
        )  # fmt: skip
        if uid not in held.orthanc.instances():
            refused.add((uid, sent[-200:]))
    assert not [file.path for file in absent.values() if "series" in file.path.parts]
    lost = set(absent) - {uid for uid, _ in refused}
    assert lost == set()
    assert len(arrived) > 800
