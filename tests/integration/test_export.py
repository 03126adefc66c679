"""``anode export``: a study as a File-set that others read, its data sets byte for byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from node.sending import dicom_files
from tests.support import made
from tests.support.dcmtk import dcmtk
from tests.support.stopped_node import StoppedNode

Capture = pytest.CaptureFixture[str]
STUDY = "1.2.3"


def study() -> list[Dataset]:
    images = [
        made.ct_image(
            pixels=np.full((64, 64), 100 * number, "<i2"),
            study_instance_uid=STUDY,
            series_instance_uid=f"{STUDY}.{series}",
            sop_instance_uid=f"{STUDY}.{series}.{number}",
            SeriesNumber=series,
            InstanceNumber=number,
        )
        for series in (1, 2)
        for number in (1, 2, 3)
    ]
    names = {"study_instance_uid": STUDY, "series_instance_uid": f"{STUDY}.3"}
    # says nothing of what a directory must say of a report
    report = made.instance(
        sop_instance_uid=f"{STUDY}.3.1",
        Modality="SR",
        StudyDate=None,
        StudyID="",
        InstanceNumber=None,
        **names,
    )
    unknown = made.instance("1.2.3.4.5.6.7", sop_instance_uid=f"{STUDY}.3.2", PatientID="", **names)
    return [*images, report, unknown]


@pytest.fixture
def node(tmp_path: Path) -> StoppedNode:
    node = StoppedNode(tmp_path / "node")
    data_sets = study()
    node.receive(*data_sets[:4], is_settled=True)
    node.receive(*data_sets[4:], made.ct_image(study_instance_uid="1.9"))
    return node


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each data set, by SOP Instance UID."""
    found = {}
    for path in dicom_files.find([folder]):
        if path.name != "DICOMDIR":
            file = dicom_files.read(path)
            with dicom_files.open_data_set(file) as data_set:
                found[file.sop_instance_uid] = hashlib.sha256(data_set.read()).hexdigest()
    return found


def held(node: StoppedNode) -> dict[str, str]:
    return {name: digest for name, digest in node.digests().items() if name.startswith(f"{STUDY}.")}


def test_the_exported_data_sets_are_those_that_were_received(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    told = node.run(capsys, "export", STUDY, str(tmp_path / "cd"))
    assert "8 instances" in told
    assert len(held(node)) == 8
    assert digests(tmp_path / "cd") == held(node)
    assert [path for path in tmp_path.iterdir() if path.name not in {"cd", "node"}] == []


def test_the_names_are_those_of_a_file_set(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    node.run(capsys, "export", STUDY, str(tmp_path / "cd"))
    for path in (tmp_path / "cd").rglob("*"):
        parts = path.relative_to(tmp_path / "cd").parts
        assert len(parts) <= 8
        assert all(re.fullmatch("[A-Z0-9_]{1,8}", part) for part in parts)


def test_the_directory_names_every_file_and_pydicom_reads_it(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    node.run(capsys, "export", STUDY, str(tmp_path / "cd"), "--as", "stored")
    file_set = FileSet(tmp_path / "cd" / "DICOMDIR")
    assert {instance.SOPInstanceUID for instance in file_set} == held(node).keys()
    for instance in file_set:
        file = dcmread(instance.path)
        assert file.SOPInstanceUID == instance.SOPInstanceUID
        assert instance["ReferencedTransferSyntaxUIDInFile"].value == file.file_meta.TransferSyntaxUID
    syntaxes = {instance.SOPInstanceUID: instance.TransferSyntaxUID for instance in file_set}
    file_set._stage["t"].cleanup()  # pydicom would warn of it
    assert syntaxes[f"{STUDY}.1.1"] == uid.RLELossless


def test_dcmtk_reads_the_directory_and_makes_one_of_the_files(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    cd = tmp_path / "cd"
    node.run(capsys, "export", STUDY, str(cd))
    dumped = dcmtk("dcmdump", "+P", "ReferencedFileID", cd / "DICOMDIR")
    named = {cd.joinpath(*found.split("\\")) for found in re.findall(r"\[(.+?)\]", dumped)}
    assert named == {path for path in cd.rglob("*") if path.is_file()} - {cd / "DICOMDIR"}
    for path in named:
        assert "warning" not in dcmtk("dcmdump", "-q", path).lower()
    images = sorted(path.relative_to(cd) for path in named if dcmread(path).Modality == "CT")
    assert len(images) == 6
    dcmtk("dcmmkdir", "+D", tmp_path / "theirs", "+id", cd, "--invent", *images)
    theirs = dcmtk("dcmdump", "+P", "ReferencedSOPInstanceUIDInFile", tmp_path / "theirs")
    assert len(re.findall(r"\[1\.2\.3\.", theirs)) == 6


def test_nothing_is_overwritten(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cd").mkdir()
    (tmp_path / "cd" / "note.txt").write_text("mine")
    assert "is there already" in node.run(capsys, "export", STUDY, str(tmp_path / "cd"), status=2)
    assert [path.name for path in (tmp_path / "cd").iterdir()] == ["note.txt"]


def test_what_is_damaged_is_left_out_and_named(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    path = node.archive_file(f"{STUDY}.1.2")
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content)
    found = node.json(capsys, "export", STUDY, str(tmp_path / "cd"), status=1)
    assert [problem["sop_instance_uid"] for problem in found["problems"]] == [f"{STUDY}.1.2"]
    assert digests(tmp_path / "cd").keys() == held(node).keys() - {f"{STUDY}.1.2"}
