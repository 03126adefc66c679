"""Independent programs find no error in result objects, made of real images and of odd ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from models.types import Findings
from node.results.build import PredecessorReference, ResultObject
from node.results.check_report import concept_of
from tests.support import judges
from tests.support.data import require_data
from tests.support.dcmtk import dcmtk
from tests.support.made_findings import (
    STARTED_AT,
    built,
    card,
    everything,
    made_source,
    quality,
    read,
    real_source,
    run_facts,
    source_of,
    two_lungs,
)
from tests.support.made_series import enhanced_ct
from tests.support.orthanc import running_orthanc

Made = dict[str, ResultObject]


def chest() -> Made:
    """The common case: two lungs in a real chest CT (JPEG-LS)."""
    source = real_source(require_data("series/CT_chest_LIDC-0314"), 12)
    assert source.volume is not None
    return built(two_lungs(source.volume), source)


def brain() -> Made:
    """A real sagittal MR that only its quality was judged of."""
    source = real_source(require_data("series/MR_T1_brain_HFS"), 8)
    assert source.volume is not None
    middle = np.asarray(source.volume.voxels[4], np.float32)
    return built(quality(), replace(source, volume=None, picture_slice=middle, picture_instance=4))


def tumour() -> Made:
    """A real PET with all that a model of another maker can say, superseding an earlier result."""
    source = real_source(require_data("series/PT_wholebody_STS-001"), 8)
    assert source.volume is not None
    run = run_facts(
        card=card(manufacturer="Somebody Else", weights_sha256="ab" * 32, name="a-model-of-a-long-name" * 2),
        parameters={"threshold": 2.5, "mode": "fast"},
        predecessor=PredecessorReference("1.2.3", "1.2.9", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.9.1"),
    )
    return built(everything(source.volume), source, run)


def next_to_nothing() -> Made:
    """A source without most of what a header should have, and a name in Japanese."""
    source = made_source(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        PatientID="",
        FrameOfReferenceUID=None,
        BodyPartExamined="KNEE",
    )
    assert source.volume is not None
    return built(two_lungs(source.volume), source, run_facts(started_at=STARTED_AT.replace(tzinfo=None)))


def nothing_found() -> Made:
    source = made_source(AccessionNumber="A-1", TimezoneOffsetFromUTC="-0330", StudyDate="20260101")
    return built(Findings(), source)


def enhanced() -> Made:
    source = source_of([enhanced_ct()])
    assert source.volume is not None
    return built(two_lungs(source.volume), source)


CASES: dict[str, tuple[Callable[[], Made], list[str]]] = {
    "chest": (chest, ["sr", "seg", "sc"]),
    "brain": (brain, ["sr", "sc"]),
    "tumour": (tumour, ["sr", "seg", "sc"]),
    "next to nothing": (next_to_nothing, ["sr", "seg", "sc"]),
    "nothing found": (nothing_found, ["sr", "sc"]),
    "enhanced": (enhanced, ["sr", "seg", "sc"]),
}


def files(made: Made, folder: Path) -> dict[str, Path]:
    paths = {kind: folder / f"{kind}.dcm" for kind in made}
    for kind, path in paths.items():
        path.write_bytes(made[kind].part10)
    return paths


@pytest.mark.parametrize("case", CASES)
def test_validators_and_readers_find_no_error(case: str, tmp_path: Path) -> None:
    make, kinds = CASES[case]
    paths = files(make(), tmp_path)
    assert list(paths) == kinds
    with ThreadPoolExecutor(2) as threads:
        # The trees of the others are built as that of the chest is.
        has_other_tree = case not in ("next to nothing", "enhanced")
        template = threads.submit(judges.pixelmed_sr, paths["sr"]) if has_other_tree else None
        assert [judges.dciodvfy(path) for path in paths.values()] == [[]] * len(paths)
        assert judges.dsrdump(paths["sr"]) == []
        assert judges.dcm2pnm(paths["sc"], tmp_path / "sc.png") == []
        assert template is None or template.result() == []
    highdicom.sr.srread(paths["sr"]).content.get_image_measurement_groups()
    if "seg" in paths:
        assert highdicom.seg.segread(paths["seg"]).number_of_segments >= 2


def test_the_rendered_picture_is_the_drawn_one(tmp_path: Path) -> None:
    made = nothing_found()
    path = files(made, tmp_path)["sc"]
    assert judges.dcm2pnm(path, tmp_path / "sc.png") == []
    rendered = np.asarray(Image.open(tmp_path / "sc.png").convert("RGB"))
    assert np.array_equal(rendered, dcmread(path).pixel_array)


def test_the_judges_find_planted_errors(tmp_path: Path) -> None:
    made = nothing_found()
    report = read(made["sr"])
    del report.CompletionFlag
    [procedure] = [item for item in report.ContentSequence if concept_of(item) == "121058"]
    procedure.ConceptCodeSequence[0].CodeValue = "no procedure"
    report.save_as(tmp_path / "sr.dcm")
    assert any("CompletionFlag" in line for line in judges.dciodvfy(tmp_path / "sr.dcm"))
    assert any("not found in context group 100" in line for line in judges.pixelmed_sr(tmp_path / "sr.dcm"))
    (tmp_path / "no.dcm").write_bytes(made["sr"].part10[:400])
    assert judges.dsrdump(tmp_path / "no.dcm")
    assert judges.dcm2pnm(tmp_path / "no.dcm", tmp_path / "no.png")


def test_a_pacs_takes_the_results_into_the_study_of_their_source(tmp_path: Path) -> None:
    made = next_to_nothing()
    paths = files(made, tmp_path)
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        dcmtk("storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", orthanc.port, *paths.values())
        assert orthanc.modalities() == ["OT", "SEG", "SR"]
        [study] = orthanc.get("/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == "1.2.3"
        names = study["PatientMainDicomTags"]["PatientName"]
        assert "山田^太郎" in names
        held = {dcmread(path).SOPInstanceUID: path for path in orthanc.files(tmp_path / "held")}
        assert set(held) == {one.sop_instance_uid for one in made.values()}
        segmentation = dcmread(io.BytesIO(made["seg"].part10))
        assert dcmread(held[segmentation.SOPInstanceUID]).PixelData == segmentation.PixelData
