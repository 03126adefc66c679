"""A scanner sends the chest CT in two encodings; its analysed results are at the PACS, the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from node.demo.report import numbers
from tests.support.anode_process import AnodeProcess
from tests.support.data import require_data
from tests.support.dcmtk import dcmtk
from tests.support.orthanc import running_orthanc
from tests.support.waiting import ANALYSES_SECONDS, wait_until

CHEST = "series/CT_chest_LIDC-0314"
CONFIGURATION = """
[study]
quiet_seconds = 4
[[peers]]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
[[analyses]]
name = "lungs"
model = "lungs"
when = {{ Modality = "CT" }}
send_to = ["ORTHANC"]
"""


@pytest.fixture(scope="module")
def chest() -> Path:
    return require_data(CHEST)


@pytest.fixture(scope="module")
def chest_implicit(chest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same series decompressed by DCMTK to Implicit VR Little Endian."""
    folder = tmp_path_factory.mktemp("implicit")
    with ThreadPoolExecutor(2) as threads:
        list(
            threads.map(
                lambda path: dcmtk("dcmdjpls", "+ti", path, folder / path.name), sorted(chest.glob("*"))
            )
        )
    return folder


@pytest.fixture(scope="module")
def chest_named(chest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same series, still JPEG-LS, with the VR of each element named.

    The originals say UN for every element, in which DCMTK's storescu does not find the UIDs.
    """
    folder = tmp_path_factory.mktemp("named")
    for path in sorted(chest.glob("*")):
        data_set = dcmread(path)
        for _ in data_set.iterall():
            pass
        data_set.save_as(folder / path.name)
    return folder


def send(folder: Path, port: int, *options: str) -> None:
    """Send as a scanner does, with DCMTK."""
    dcmtk("storescu", *options, "-aet", "SCANNER", "-aec", "ANODE", "+sd", "127.0.0.1", port, folder)


def volumes(report: Path) -> dict[tuple[str, str], float]:
    return {(n.region, n.concept): n.value for n in numbers(report)}


def return_of(folder: Path, tmp_path: Path, option: str) -> dict[tuple[str, str], float]:
    """Send the series to a fresh node with a fresh Orthanc; judge what Orthanc then holds."""
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        configuration = CONFIGURATION.format(port=orthanc.port)
        with AnodeProcess(tmp_path / "node", configuration) as node:
            if option == "as it is":
                node.run("send", str(folder), "--to", f"127.0.0.1:{node.port}/ANODE")
            else:
                send(folder, node.port, option)
            wait_until(
                lambda: orthanc.modalities() == ["OT", "SEG", "SR"],
                ANALYSES_SECONDS,
                "SR, SEG and SC in Orthanc",
            )
            studies = orthanc.get("/studies?expand")
            source = dcmread(next(iter(sorted(folder.glob("*")))), stop_before_pixels=True)
            assert [s["MainDicomTags"]["StudyInstanceUID"] for s in studies] == [source.StudyInstanceUID]
            assert [s["PatientMainDicomTags"].get("PatientID", "") for s in studies] == [source.PatientID]
            [report] = orthanc.files(tmp_path / "sr", "SR")
            [segmentation] = orthanc.files(tmp_path / "seg", "SEG")
            [capture] = orthanc.files(tmp_path / "sc", "OT")
            assert node.stop() == 0
    tree = dcmtk("dsrdump", report)
    assert "Imaging Measurement Report" in tree
    dcmtk("dcm2pnm", "+on", capture, tmp_path / "capture.png")
    assert highdicom.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    segments = highdicom.seg.segread(segmentation)
    assert segments.number_of_segments == 2
    assert np.count_nonzero(segments.pixel_array) > 100_000
    return volumes(report)


@pytest.mark.timeout(3 * ANALYSES_SECONDS)
def test_both_encodings_of_a_chest_ct_come_back_with_the_same_volumes(
    chest: Path, chest_implicit: Path, tmp_path: Path
) -> None:
    compressed = return_of(chest, tmp_path / "jpeg-ls", "as it is")
    native = return_of(chest_implicit, tmp_path / "implicit", "--propose-implicit")
    assert compressed == native
    litres = sorted(value / 1000 for (_, concept), value in native.items() if concept == "Volume")
    assert len(litres) == 2
    assert 2.5 < sum(litres) < 3.4


@pytest.mark.timeout(300)
def test_the_same_series_in_another_encoding_is_recognised_as_the_same(
    chest: Path, chest_implicit: Path, chest_named: Path, tmp_path: Path
) -> None:
    with AnodeProcess(tmp_path / "node") as node:
        node.run("send", str(chest), "--to", f"127.0.0.1:{node.port}/ANODE")
        before = node.json("status")
        send(chest_implicit, node.port, "--propose-implicit")
        send(chest_named, node.port, "--propose-jls-lossless")
        after = node.json("status")
    assert after["instances"] == before["instances"] == 275
    assert after["quarantined"] == 0
