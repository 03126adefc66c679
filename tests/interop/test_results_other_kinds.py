"""Independent programs take derived images, maps, registrations, states and structure sets without error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from models.types import Code, DerivedImage, Findings, Mark, Segment, Transform
from node.config.settings import ResultKind
from node.results.build import ResultObject, Source
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
    all_built,
    block,
    read,
    real_source,
    source_of,
)
from tests.support.made_series import TILTED, ct_series, real_series
from tests.support.orthanc import running_orthanc

ADC, MM2_PER_S = Code("113041", "DCM", "Apparent Diffusion Coefficient"), Code("mm2/s", "UCUM", "mm2/s")
ONE = Code("1", "UCUM", "no units")
KINDS: tuple[ResultKind, ...] = ("image", "pm", "reg", "pr", "rtstruct")
Case = Callable[[], tuple[Findings, Source]]


def coarser(source: Source) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Every second voxel of the middle, with where it is."""
    assert source.volume is not None
    affine = source.volume.affine.copy()
    affine[:3, 1:3] *= 2
    affine[:3, 0] /= 2
    return source.volume.voxels[:4, ::2, ::2], affine


def everything(source: Source, unit: Code) -> Findings:
    """An image of each kind, a map, regions and marks on one volume."""
    assert source.volume is not None
    voxels = source.volume.voxels
    window = np.clip(voxels * (255 / max(1, float(voxels.max()))), 0, 255).astype(np.uint8)
    coarse, affine = coarser(source)
    middle = np.array(voxels.shape) // 2
    return Findings(
        segments=(
            Segment("part", "Part", block(source.volume, (0, 0.3, 0.3), (1, 0.6, 0.5)), ANATOMY, LUNG, LEFT),
            Segment("bright", "Bright", voxels > np.percentile(voxels, 99.9), LESION, NODULE),
        ),
        marks=(
            Mark("place", "Place", "point", middle[None].astype(float), LESION, NODULE, probability=0.5),
            Mark("box", "Box", "box", np.array([middle - 1, middle + 1], float), LESION, NODULE),
        ),
        images=(
            DerivedImage("same", "Same", voxels, unit),
            DerivedImage("scaled", "Scaled", (voxels * 0.37).astype(np.float32), unit),
            DerivedImage("coarse", "Coarse", coarse, unit, affine=affine),
            DerivedImage("colour", "Colour", np.stack([window, window // 2, window // 3], -1), unit),
            DerivedImage("map", "Map", (voxels * 1e-6).astype(np.float32), MM2_PER_S, "map", None, ADC),
        ),
    )


def chest() -> tuple[Findings, Source]:
    source = real_source(require_data("series/CT_chest_LIDC-0314"), 4)
    return everything(source, HOUNSFIELD), source


def brain() -> tuple[Findings, Source]:
    source = real_source(require_data("series/MR_T1_brain_HFS"), 4)
    return everything(source, ONE), source


def tumour() -> tuple[Findings, Source]:
    source = real_source(require_data("series/PT_wholebody_STS-001"), 4)
    return everything(source, Code("Bq/ml", "UCUM", "Becquerels/milliliter")), source


def enhanced() -> tuple[Findings, Source]:
    """A real multi-frame MR."""
    folder = require_data("singles/neurolabusc_dcm_qa_xa30")
    source = source_of(real_series(folder)[:1])
    return everything(source, ONE), source


def bare() -> tuple[Findings, Source]:
    """A gantry tilt, of a source without most of what a header should have, and a part that may be paired."""
    source = source_of(ct_series(4, ImageOrientationPatient=list(TILTED), BodyPartExamined="KNEE"))
    return everything(source, HOUNSFIELD), source


def follow_up() -> tuple[Findings, Source]:
    """Two studies of one patient, registered with and without displacements; a map of the earlier one."""
    now = real_source(require_data("series/MR_ADC_followup_2"), 4)
    before = real_source(require_data("series/MR_ADC_followup_1"), 4)
    assert now.volume is not None
    assert before.volume is not None
    source = replace(now, name="now", others={"before": replace(before, name="before", is_prior=True)})
    matrix = np.eye(4)
    matrix[:3, 3] = (1.5, -2.5, 0.5)
    grid = now.volume.affine.copy()
    grid[:3, 1:3] *= 32
    field = np.random.default_rng(7).normal(size=(4, 9, 8, 3)).astype(np.float32)
    earlier = (before.volume.voxels * 1e-6).astype(np.float32)
    return (
        Findings(
            transforms=(
                Transform("matrix", "Follow-up", "before", "now", matrix),
                Transform("grid", "Follow-up", "before", "now", matrix, "RIGID", field, grid),
                Transform("back", "Back", "now", "before", np.diag([1.1, 1.1, 1.1, 1.0]), "RIGID_SCALE"),
            ),
            images=(DerivedImage("old", "Old", earlier, MM2_PER_S, "map", None, ADC, "before"),),
        ),
        source,
    )


def one_image(path: str, unit: Code, factor: float = 1.0) -> Case:
    """Two slices of a real series, and what they become when each value is multiplied."""

    def make() -> tuple[Findings, Source]:
        source = real_source(require_data(path), 2)
        assert source.volume is not None
        voxels = source.volume.voxels
        times = voxels if factor == 1 else (voxels * factor).astype(np.float32)
        return Findings(images=(DerivedImage("times", "Times", times, unit),)), source

    return make


def single(path: str, **changes: Any) -> Case:
    """One real image: an image of whole numbers and a region on it."""

    def make() -> tuple[Findings, Source]:
        data_set = dcmread(require_data(path), stop_before_pixels=True)
        frames = int(data_set.get("NumberOfFrames") or 1)
        shape = (frames, data_set.Rows, data_set.Columns)
        ramp = (np.arange(np.prod(shape)) % 200).reshape(shape).astype(np.uint8)
        mask = np.zeros(shape, dtype=bool)
        mask[:, 20:40, 30:50] = True
        voxels = np.stack([ramp] * 3, -1) if data_set.SamplesPerPixel == 3 else ramp.astype(np.int16)
        findings = Findings(
            segments=(Segment("part", "Part", mask, ANATOMY, LUNG),),
            images=(DerivedImage("ramp", "Ramp", voxels, ONE),),
        )
        return findings, Source([data_set], None, "ab" * 32, name="image", **changes)

    return make


#: Real images with what they must not have, or without what they must: what is made but image and state.
ODD: dict[str, dict[str, int]] = {
    "neurolabusc_dcm_qa_frag/5001001.dcm": {"rtstruct": 1},
    "neurolabusc_dcm_qa_ge/0001.dcm": {"rtstruct": 1},
    "neurolabusc_dcm_qa_philips/201_EPI_asc_CLEAR_0001_01.dcm": {"rtstruct": 1},
    "icometrix_dicom2nifti/001~3.dcm": {"rtstruct": 1},
    "neurolabusc_dcm_qa_fmap/IM_0027_fMAP.dcm": {"pr": 2, "rtstruct": 1},
    "medcognetics_dicom-utils/jpeg2k_3d.dcm": {},
    "oncoray_mirp/1-1.dcm": {},
    # These hold no images of their own kind.
    "cornerstonejs_cornerstone3D/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": {"image": 0, "rtstruct": 1},
    "QIICR_dcmqi/mf.dcm": {"image": 0, "pr": 0},
    "neurolabusc_dcm_qa_uih/00000001.dcm": {"image": 0},
    "pydicom_pydicom-data/emri_small_RLE.dcm": {"image": 0},
}

#: What is made of each, and how much of it.
CASES: dict[str, tuple[Case, dict[str, int]]] = {
    "chest": (chest, {"image": 16, "pm": 1, "pr": 1, "rtstruct": 1}),
    "brain": (brain, {"image": 16, "pm": 1, "pr": 1, "rtstruct": 1}),
    "tumour": (tumour, {"image": 16, "pm": 1, "pr": 4, "rtstruct": 1}),
    "enhanced": (enhanced, {"image": 15, "pm": 1, "pr": 1, "rtstruct": 1}),
    "bare": (bare, {"image": 16, "pm": 1, "pr": 1, "rtstruct": 1}),
    "follow-up": (follow_up, {"pm": 1, "reg": 3}),
    "computed radiograph": (single("singles/pypi_pydicom-data/RG3_J2KR.dcm"), {"image": 1, "pr": 1}),
    "digital radiograph": (
        single("singles/ImagingDataCommons_highdicom/dx_image.dcm"),
        {"image": 1, "pr": 1},
    ),
    "angiogram": (single("singles/RadicalImaging_Static-DICOMWeb/jpeg8bit.dcm"), {"image": 1, "pr": 1}),
    "ultrasound film": (single("singles/grailbio_go-dicom/I_000007.dcm"), {"image": 1}),
    "times of a PET": (one_image("series/STS-003_PET", Code("g/ml", "UCUM", "g/ml"), 1e-4), {"image": 2}),
    "times of an MR": (one_image("series/STS-003_MR_T1", ONE), {"image": 2}),
    **{
        path.split("/")[0]: (single(f"singles/{path}"), {"image": 1, "pr": 1, **more})
        for path, more in ODD.items()
    },
}


def made(case: str) -> list[ResultObject]:
    make, _ = CASES[case]
    findings, source = make()
    # Where there is a report, what the source cannot hold is left out.
    return [one for one in all_built(findings, source, kinds=("sr", *KINDS)) if one.kind != "sr"]


def files(objects: list[ResultObject], folder: Path) -> list[tuple[ResultObject, Path]]:
    paths = [folder / f"{number}-{one.kind}.dcm" for number, one in enumerate(objects)]
    for one, path in zip(objects, paths, strict=True):
        path.write_bytes(one.part10)
    return list(zip(objects, paths, strict=True))


# Of real headers, some of whose values are too long.
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.checklist("A8")
def test_validators_and_readers_find_no_error(case: str, tmp_path: Path) -> None:
    found = files(made(case), tmp_path)
    counts = {kind: sum(one.kind == kind for one, _ in found) for kind in KINDS}
    assert counts == dict.fromkeys(KINDS, 0) | CASES[case][1]
    seen: set[str] = set()
    for one, path in found:
        # The instances of one series are alike.
        if one.series_instance_uid in seen and one.kind == "image":
            continue
        seen.add(one.series_instance_uid)
        assert judges.dciodvfy(path) == [], path
        dump = dcmtk("dcmdump", path)
        assert "E: " not in dump
        if one.kind == "image":
            assert judges.dcm2pnm(path, tmp_path / f"{path.stem}.png") == []
        elif one.kind == "pm":
            frames = highdicom.imread(path).get_frames(apply_real_world_transform=True)
            assert np.isfinite(frames).all()


@pytest.mark.checklist("I1")
def test_a_reader_of_series_puts_derived_images_where_their_source_is(tmp_path: Path) -> None:
    findings, source = chest()
    assert source.volume is not None
    objects = [one for one in all_built(findings, source, kinds=("image",)) if "Same" in description(one)]
    assert len(objects) == 4
    paths = [str(path) for _, path in files(objects, tmp_path)]
    read_back = SimpleITK.ReadImage(paths)
    assert np.array_equal(SimpleITK.GetArrayFromImage(read_back), source.volume.voxels)
    for index in ((0, 0, 0), (3, 100, 200), (1, 511, 7)):
        place = read_back.TransformIndexToPhysicalPoint(tuple(reversed(index)))
        assert np.abs(np.array(place) - (source.volume.affine @ (*index, 1))[:3]).max() < 1e-3


@pytest.mark.checklist("M2")
def test_a_reader_of_maps_finds_each_value_in_its_place(tmp_path: Path) -> None:
    findings, source = brain()
    assert source.volume is not None
    [(_, path)] = files(all_built(findings, source, kinds=("pm",)), tmp_path)
    volume = highdicom.imread(path).get_volume()
    wanted = source.volume.voxels * np.float32(1e-6)
    assert sorted(volume.array.ravel().tolist()) == pytest.approx(sorted(wanted.ravel().tolist()))
    for index in ((0, 0, 0), (3, 100, 120), (1, 30, 7)):
        place = (source.volume.affine @ (*index, 1))[:3]
        found = np.rint(volume.map_reference_to_indices(place[None])[0]).astype(int)
        assert volume.array[tuple(found)] == pytest.approx(wanted[index])


@pytest.mark.checklist("C2")
def test_a_renderer_shows_an_image_through_its_presentation_state(tmp_path: Path) -> None:
    folder = require_data("series/CT_abdomen_CRLM-1004")
    source = real_source(folder, 3)
    assert source.volume is not None
    mask = block(source.volume, (0, 0.3, 0.3), (1, 0.6, 0.5))
    findings = Findings(segments=(Segment("part", "Part", mask, ANATOMY, LUNG),))
    [(_, state)] = files(all_built(findings, source, kinds=("pr",)), tmp_path)
    by_uid = {
        dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: path for path in folder.iterdir()
    }
    picture = tmp_path / "drawn.pgm"
    dcmtk("dcmp2pgm", "-p", state, by_uid[source.data_sets[1].SOPInstanceUID], picture)
    drawn = np.asarray(Image.open(picture))
    # Of a window of 400 about 40, which is that of the source.
    values = source.volume.voxels[1].astype(float)
    assert (source.data_sets[1].WindowCenter, source.data_sets[1].WindowWidth) == (40, 400)
    expected = np.clip((values - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(drawn - expected).max() <= 2


def test_a_pacs_takes_all_kinds_into_the_study_of_their_source(tmp_path: Path) -> None:
    objects = made("chest") + made("follow-up")
    paths = [path for _, path in files(objects, tmp_path)]
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        dcmtk("storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", orthanc.port, *paths)
        assert len(orthanc.instances()) == len(objects)
        assert {"CT", "OT", "PR", "REG", "RTSTRUCT"} <= set(orthanc.modalities())
        assert len(orthanc.get("/studies?expand")) == 2
        own_names = orthanc.instances()
        image = next(one for one in objects if one.kind == "image")
        preview = orthanc.get_bytes(f"/instances/{own_names[image.sop_instance_uid]}/preview")
        assert preview.startswith(b"\x89PNG")


def test_the_judges_find_planted_errors(tmp_path: Path) -> None:
    for one, path in files(made("follow-up"), tmp_path):
        data_set = read(one)
        del data_set.FrameOfReferenceUID
        data_set.save_as(path)
        assert any("FrameOfReferenceUID" in line for line in judges.dciodvfy(path))


def description(one: ResultObject) -> str:
    return str(read(one).SeriesDescription)
