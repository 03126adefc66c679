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

from models.types import Check, DerivedImage, Evaluation, Findings, Picture, Segment
from node.results.build import PredecessorReference, ResultObject
from node.results.checks.check_report import concept_of
from node.series import source_series
from tests.support import judges
from tests.support.data import require_data
from tests.support.dcmtk import dcmtk
from tests.support.made_findings import (
    ANATOMY,
    HOUNSFIELD,
    LEFT,
    LESION,
    LUNG,
    NODULE,
    STARTED_AT,
    all_built,
    block,
    card,
    every_mark,
    everything,
    made_source,
    numbers,
    quality,
    read,
    real_image,
    real_source,
    run_facts,
    source_of,
    two_lungs,
)
from tests.support.orthanc import running_orthanc

Made = list[ResultObject]


def chest() -> Made:
    """The common case: two lungs in a real chest CT (JPEG-LS)."""
    source = real_source(require_data("series/CT_chest_LIDC-0314"), 12)
    assert source.volume is not None
    return all_built(two_lungs(source.volume), source)


def brain() -> Made:
    """A real sagittal MR that only its quality was judged of."""
    source = real_source(require_data("series/MR_T1_brain_HFS"), 8)
    assert source.volume is not None
    middle = np.asarray(source.volume.voxels[4], np.float32)
    return all_built(quality(), replace(source, volume=None, picture_slice=middle, picture_instance=4))


def tumour() -> Made:
    """A real PET with all that a model of another maker can say, superseding an earlier result."""
    source = real_source(require_data("series/PT_wholebody_STS-001"), 8)
    assert source.volume is not None
    run = run_facts(
        card=card(manufacturer="Somebody Else", weights_sha256="ab" * 32, name="a-model-of-a-long-name" * 2),
        parameters={"threshold": 2.5, "mode": "fast"},
        predecessor=PredecessorReference("1.2.3", "1.2.9", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.9.1"),
    )
    return all_built(everything(source.volume), source, run)


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
    return all_built(two_lungs(source.volume), source, run_facts(started_at=STARTED_AT.replace(tzinfo=None)))


def nothing_found() -> Made:
    source = made_source(AccessionNumber="A-1", TimezoneOffsetFromUTC="-0330", StudyDate="20260101")
    return all_built(Findings(), source)


def enhanced() -> Made:
    """A real multi-frame CT, converted from single frames."""
    source = source_of([source_series.from_file(require_data("singles/QIICR_dcmqi/mf.dcm"))])
    assert source.volume is not None
    return all_built(two_lungs(source.volume), source)


def marked() -> Made:
    """All that a model may find beside each other, on a real sagittal MR: a mark of each shape, too."""
    source = real_source(require_data("series/MR_T1_brain_HFS"), 8)
    assert source.volume is not None
    findings = everything(source.volume)
    probability = np.zeros(source.volume.voxels.shape, np.float32)
    probability[2:6, 40:90, 50:120] = np.linspace(0.1, 1, 70, dtype=np.float32)
    unsure = Segment("unsure", "Unsure", probability > 0.5, LESION, NODULE, probability=probability)
    generator = np.random.default_rng(1)
    pictures = (
        Picture("plot", "A plot", generator.integers(0, 255, (33, 41, 3), np.uint8)),
        Picture("film", "A film", generator.integers(0, 255, (3, 33, 41, 3), np.uint8)),
    )
    failed = Check("motion", False, "the patient moved, so a number was left out")
    findings = replace(
        findings,
        segments=(*findings.segments, unsure),
        marks=every_mark(),
        checks=(*findings.checks, failed),
        pictures=pictures,
        evaluations=(*findings.evaluations, Evaluation(NODULE, LESION, 0.875)),
    )
    return all_built(findings, source, kinds=("sr", "seg", "sc"))


def labelled() -> Made:
    """Marks beside a label map and a derived image of a real CT, and a classification with a probability."""
    source = real_source(require_data("series/CT_abdomen_CRLM-1004"), 4)
    assert source.volume is not None
    findings = replace(
        two_lungs(source.volume),
        marks=every_mark(),
        evaluations=(Evaluation(NODULE, LESION, 0.25),),
        images=(DerivedImage("half", "Half", source.volume.voxels // 2, HOUNSFIELD),),
    )
    return all_built(findings, source, kinds=("sr", "labelmap", "image"))


def radiograph() -> Made:
    """A real radiograph: a segment and marks on its pixels."""
    source = real_image("singles/ImagingDataCommons_highdicom/dx_image.dcm")
    assert source.image is not None
    mask = np.zeros(source.image.pixels.shape, dtype=bool)
    mask[0, 60:90, 100:140] = True
    on_it = tuple(replace(one, points=one.points * (0, 20, 20)) for one in every_mark())
    segment = Segment("lung", "Lung", mask, ANATOMY, LUNG, LEFT, numbers())
    return all_built(Findings(segments=(segment,), marks=on_it), source)


def one_mark_on_a_film() -> Made:
    """A real ultrasound film in colour, without a place in the patient: one mark on one of its frames."""
    source = real_image("singles/grailbio_go-dicom/I_000007.dcm")
    mark = replace(every_mark()[1], shape="point", points=np.array([(4, 100, 150)], float))
    mask = np.ones(source.image.pixels.shape[:3], dtype=bool) if source.image is not None else None
    assert mask is not None
    segment = Segment("all", "All", mask, ANATOMY, LUNG)
    return all_built(Findings(marks=(mark,), segments=(segment,), measurements=numbers()), source)


def follow_up() -> Made:
    """A real ADC map and that of an earlier study: something was found on each."""
    source = real_source(require_data("series/MR_ADC_followup_2"), 6)
    earlier = real_source(require_data("series/MR_ADC_followup_1"), 6)
    prior = replace(earlier, name="prior", is_prior=True)
    source = replace(source, name="adc", others={"prior": prior})
    assert source.volume is not None
    assert earlier.volume is not None
    then = Segment(
        "old", "Old", block(earlier.volume, (0, 0.3, 0.3), (1, 0.6, 0.6)), LESION, NODULE, on="prior"
    )
    findings = two_lungs(source.volume)
    return all_built(
        replace(findings, segments=(*findings.segments, then), marks=every_mark("prior")), source
    )


#: What is made of each, and whether its report is a tree that no other case has.
CASES: dict[str, tuple[Callable[[], Made], list[str], bool]] = {
    "chest": (chest, ["sr", "seg", "sc"], False),
    "brain": (brain, ["sr", "sc"], True),
    "tumour": (tumour, ["sr", "seg", "sc"], False),
    "next to nothing": (next_to_nothing, ["sr", "seg", "sc"], False),
    "nothing found": (nothing_found, ["sr", "sc"], True),
    "enhanced": (enhanced, ["sr", "seg", "sc"], False),
    "marked": (marked, ["sr", "seg", "seg", "sc", "sc", "sc"], True),
    "radiograph": (radiograph, ["sr", "seg", "sc"], True),
    "film": (one_mark_on_a_film, ["sr", "sc"], True),
    "follow-up": (follow_up, ["sr", "seg", "seg", "sc"], True),
    "labelled": (labelled, ["sr", "labelmap", *["image"] * 4], True),
}
#: The validator of 2022 does not know Label Map Segmentations, nor that their background is number 0.
UNKNOWN_TO_DCIODVFY = [
    "Error - SegmentNumber not monotonically increasing from one by one - "
    "have SegmentSequence item number 1 (from one) with SegmentNumber of 0",
    "Error - Information Object Not found",
]


def files(made: Made, folder: Path) -> list[tuple[str, Path]]:
    """Write the objects, and return their kinds with their paths."""
    paths = [(one.kind, folder / f"{number}-{one.kind}.dcm") for number, one in enumerate(made)]
    for one, (_, path) in zip(made, paths, strict=True):
        path.write_bytes(one.part10)
    return list(paths)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.checklist("A8")
def test_validators_and_readers_find_no_error(case: str, tmp_path: Path) -> None:
    make, kinds, has_tree_of_its_own = CASES[case]
    made = files(make(), tmp_path)
    assert [kind for kind, _ in made] == kinds
    report = made[0][1]
    with ThreadPoolExecutor(2) as threads:
        template = threads.submit(judges.pixelmed_sr, report) if has_tree_of_its_own else None
        for kind, path in made:
            assert judges.dciodvfy(path) == (UNKNOWN_TO_DCIODVFY if kind == "labelmap" else []), path
            if kind == "sc":
                assert judges.dcm2pnm(path, tmp_path / f"{path.stem}.png") == []
        assert judges.dsrdump(report) == []
        assert template is None or template.result() == []
    tree = highdicom.sr.srread(report).content
    tree.get_image_measurement_groups()
    tree.get_planar_roi_measurement_groups()
    tree.get_volumetric_roi_measurement_groups()
    for kind, path in made:
        if kind in ("seg", "labelmap"):
            assert highdicom.seg.segread(path).number_of_segments >= 1


def test_the_rendered_picture_is_the_drawn_one(tmp_path: Path) -> None:
    path = dict(files(nothing_found(), tmp_path))["sc"]
    assert judges.dcm2pnm(path, tmp_path / "sc.png") == []
    rendered = np.asarray(Image.open(tmp_path / "sc.png").convert("RGB"))
    assert np.array_equal(rendered, dcmread(path).pixel_array)


def test_the_judges_find_planted_errors(tmp_path: Path) -> None:
    made = nothing_found()[0]
    report = read(made)
    del report.CompletionFlag
    [procedure] = [item for item in report.ContentSequence if concept_of(item) == "121058"]
    procedure.ConceptCodeSequence[0].CodeValue = "no procedure"
    report.save_as(tmp_path / "sr.dcm")
    assert any("CompletionFlag" in line for line in judges.dciodvfy(tmp_path / "sr.dcm"))
    assert any("not found in context group 100" in line for line in judges.pixelmed_sr(tmp_path / "sr.dcm"))
    (tmp_path / "no.dcm").write_bytes(made.part10[:400])
    assert judges.dsrdump(tmp_path / "no.dcm")
    assert judges.dcm2pnm(tmp_path / "no.dcm", tmp_path / "no.png")


def test_a_pacs_takes_the_results_into_the_study_of_their_source(tmp_path: Path) -> None:
    made = next_to_nothing()
    paths = [path for _, path in files(made, tmp_path)]
    others = [*marked(), *labelled()]
    (tmp_path / "others").mkdir()
    of_others = [path for _, path in files(others, tmp_path / "others")]
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        dcmtk("storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", orthanc.port, *paths)
        assert orthanc.modalities() == ["OT", "SEG", "SR"]
        [study] = orthanc.get("/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == "1.2.3"
        names = study["PatientMainDicomTags"]["PatientName"]
        assert "山田^太郎" in names
        held = {dcmread(path).SOPInstanceUID: path for path in orthanc.files(tmp_path / "held")}
        assert set(held) == {one.sop_instance_uid for one in made}
        for path in of_others:
            # storescu of 2022 sends no label maps.
            orthanc.post_bytes("/instances", path.read_bytes())
        held |= {dcmread(path).SOPInstanceUID: path for path in orthanc.files(tmp_path / "others held")}
        assert set(held) == {one.sop_instance_uid for one in (*made, *others)}
        segmentation = dcmread(io.BytesIO(made[1].part10))
        assert dcmread(held[segmentation.SOPInstanceUID]).PixelData == segmentation.PixelData
