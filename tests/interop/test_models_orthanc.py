"""Anyone's model runs from a stanza of the configuration alone, and its results are at a real PACS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread

from tests.support import example_models, judges
from tests.support.anode_process import AnodeProcess
from tests.support.data import require_data
from tests.support.orthanc import running_orthanc
from tests.support.waiting import ANALYSES_SECONDS, wait_until

SERIES = "series/STS-003_CT"
CONFIGURATION = """
[study]
quiet_seconds = 3
[[peers]]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
"""
STANZA = """
[[analyses]]
name = "{name}"
model = "{model}"
when = {{ Modality = "CT" }}
send_to = ["ORTHANC"]
"""
#: Kinds of result that each example is to leave beside its report and its picture.
WITHOUT_TORCH = {"onnx": {"SEG"}, "python": set(), "command": {"SEG"}, "entry_point_package": set()}
WITH_TORCH = {"torch_export": {"SEG"}, "monai_bundle": {"SEG"}}


def reference(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the stanza says of an example: a folder, or the name that an installed package gives."""
    if kind != example_models.PACKAGE:
        return str(example_models.made(kind, tmp_path))
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")
    return example_models.install_package(tmp_path / "site", monkeypatch)


def by_model(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Results by the model that made them and by modality; the source is left out."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        header = dcmread(path, stop_before_pixels=True)
        if "ContributingEquipmentSequence" in header and header.Manufacturer == "anode":
            found[header.ManufacturerModelName][header.Modality] = path
    return found


def judged(path: Path, modality: str) -> list[str]:
    problems = judges.dciodvfy(path)
    if modality == "SR":
        problems += judges.pixelmed_sr(path) + judges.dsrdump(path)
    return problems


def returned(kinds: dict[str, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the examples on a real CT, one stanza each; judge what Orthanc then holds."""
    source = require_data(SERIES)
    references = {kind: reference(kind, tmp_path, monkeypatch) for kind in kinds}
    stanzas = "".join(STANZA.format(name=kind, model=model) for kind, model in references.items())
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        with AnodeProcess(tmp_path / "node", CONFIGURATION.format(port=orthanc.port) + stanzas) as node:
            node.run("send", str(source), "--to", f"127.0.0.1:{node.port}/ANODE")
            expected = sorted(modality for more in kinds.values() for modality in ({"SR", "OT"} | more))
            wait_until(
                lambda: sorted(orthanc.modalities()) == expected,
                ANALYSES_SECONDS,
                f"{expected} in Orthanc",
            )
            assert node.stop() == 0
        models = by_model(orthanc.files(tmp_path / "results"))
    assert len(models) == len(kinds)
    first = dcmread(min(source.iterdir()), stop_before_pixels=True)
    results = [(path, modality) for made in models.values() for modality, path in made.items()]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda one: judged(*one), results)) == [[]] * len(results)
    for path, modality in results:
        result = dcmread(path)
        assert (result.PatientID, result.StudyInstanceUID) == (first.PatientID, first.StudyInstanceUID)
        _names_what_made_it(result)
        if modality == "SEG":
            assert highdicom.seg.segread(path).number_of_segments >= 1
        if modality == "SR":
            assert highdicom.sr.srread(path).content


def _names_what_made_it(result: Dataset) -> None:
    """Model, version, weights, parameters and input, in every object."""
    [algorithm, *_] = result.ContributingEquipmentSequence
    assert algorithm.ManufacturerModelName == result.ManufacturerModelName
    assert algorithm.SoftwareVersions == result.SoftwareVersions
    assert "input-sha256=" in algorithm.ContributionDescription


@pytest.mark.timeout(2 * ANALYSES_SECONDS)
def test_a_network_a_program_a_file_and_a_package_run_from_their_stanzas_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned(WITHOUT_TORCH, tmp_path, monkeypatch)


@pytest.mark.torch
@pytest.mark.timeout(2 * ANALYSES_SECONDS)
def test_an_exported_program_and_a_bundle_run_from_their_stanzas_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned(WITH_TORCH, tmp_path, monkeypatch)
