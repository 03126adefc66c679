"""A model is given what it needs, by name; what is unfit is refused by name and gives no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import NEEDS_IMAGE, NEEDS_SERIES, NEEDS_VOLUME, Need
from node.errors import AnodeError, NotAnImage, NotAVolume, OutOfSpace, UnfitInput
from node.processes.job_folder import JobFolder
from node.series import model_inputs, source_series
from node.series.model_inputs import Material
from node.series.source_series import SourceInstance
from tests.support.data import require_data
from tests.support.made_series import AXIAL, ct_header, ct_series, enhanced_ct, source

CT_AND_PRIOR = (Need("ct"), Need("mask", comes_from="study"), Need("before", "series", "prior", True))


def material(
    folder: Path,
    given: Mapping[str, Sequence[SourceInstance]],
    needs: Sequence[Need] = NEEDS_VOLUME,
    **parameters: Any,
) -> Material:
    return model_inputs.of_sources(given, needs, "digest", parameters, JobFolder(folder))


def test_each_input_comes_by_its_name_with_the_primary_first(tmp_path: Path) -> None:
    found = material(
        tmp_path,
        {"ct": ct_series(5), "mask": ct_series(4), "before": ct_series(3)},
        CT_AND_PRIOR,
        limit=3,
    )
    assert list(found.inputs.given) == ["ct", "mask", "before"]
    assert found.inputs.volume.voxels.shape == (5, 4, 6)
    assert len(found.inputs.given["before"].instances) == 3  # type: ignore[union-attr]
    assert found.inputs.parameters == {"limit": 3}
    source_of = found.source
    assert (source_of.name, source_of.input_digest, len(source_of.data_sets)) == ("ct", "digest", 5)
    assert source_of.lacks_prior is False
    assert {name: (one.name, one.is_prior) for name, one in source_of.others.items()} == {
        "mask": ("mask", False),
        "before": ("before", True),
    }
    assert not source_of.others["mask"].others
    assert source_of.of("mask").volume is found.inputs.given["mask"]


def test_an_optional_input_may_lack_and_another_may_not(tmp_path: Path) -> None:
    found = material(tmp_path, {"ct": ct_series(), "mask": ct_series()}, CT_AND_PRIOR)
    assert list(found.inputs.given) == [found.source.name, *found.source.others] == ["ct", "mask"]
    assert found.source.lacks_prior
    with pytest.raises(UnfitInput, match="the input 'mask' is missing"):
        material(tmp_path, {"ct": ct_series()}, CT_AND_PRIOR)


def test_the_order_is_that_of_the_needs_and_not_of_what_is_given(tmp_path: Path) -> None:
    found = material(tmp_path, {"mask": ct_series(4), "ct": ct_series(5)}, CT_AND_PRIOR)
    assert found.inputs.volume.voxels.shape[0] == 5


def test_an_image_lies_in_the_folder_and_shows_its_middle_frame(tmp_path: Path) -> None:
    found = material(tmp_path, {"image": [enhanced_ct(3)]}, NEEDS_IMAGE)
    assert isinstance(found.inputs.image.pixels, np.memmap)
    assert found.source.picture_slice is not None
    assert (found.source.picture_slice == 1).all()
    assert found.source.volume is None


def test_a_series_is_given_as_it_is(tmp_path: Path) -> None:
    found = material(tmp_path, {"series": ct_series(3)}, NEEDS_SERIES)
    assert [one.number for one in found.inputs.series.instances] == [1, 2, 3]
    assert found.source.picture_slice is not None


# --- what is refused ---------------------------------------------------------


def position(index: int) -> tuple[float, float, float]:
    return 0.0, 0.0, 2.5 * index


def slices(*headers: Any) -> list[SourceInstance]:
    return [source(header, np.zeros((4, 6), np.uint16)) for header in headers]


def tilted(index: int, **attributes: Any) -> Any:
    return ct_header(index + 1, position(index), **attributes)


REFUSED: dict[str, tuple[list[SourceInstance], type[AnodeError], str]] = {
    "a localizer": (
        slices(*(tilted(i, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) for i in range(3))),
        NotAVolume,
        "is a localizer",
    ),
    "a single slice": (ct_series(1), NotAVolume, "a single slice is no volume"),
    "a gap": (slices(*(tilted(i) for i in (0, 1, 2, 4, 5))), NotAVolume, "missing slices: 1 of 6"),
    "mixed orientations": (
        slices(
            *(tilted(i) for i in range(3)),
            tilted(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        ),
        NotAVolume,
        "mixed orientation",
    ),
    "colour": (
        slices(*(tilted(i, SamplesPerPixel=3, PhotometricInterpretation="RGB") for i in range(3))),
        NotAVolume,
        "is in colour",
    ),
    "a missing rescale": (
        slices(*(tilted(i, RescaleSlope=None) for i in range(3))),
        NotAVolume,
        "no Rescale Slope",
    ),
    "a missing rescale of a PET": (
        slices(*(tilted(i, Modality="PT", Units="BQML", RescaleSlope=None) for i in range(3))),
        NotAVolume,
        "no Rescale Slope, so its values are not in the unit that it names",
    ),
    "no position": (
        slices(*(tilted(i, ImagePositionPatient=None) for i in range(3))),
        NotAVolume,
        "no Image Position",
    ),
    "no orientation": (
        slices(*(tilted(i, ImageOrientationPatient=[*AXIAL[:3], *AXIAL[:3]]) for i in range(3))),
        NotAVolume,
        "not two unit vectors",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_geometry_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    instances, error, reason = REFUSED[kind]
    with pytest.raises(error) as caught:
        material(tmp_path, {"volume": instances})
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("need", "given", "reason"),
    [
        (
            Need("ct", modalities=("CT",)),
            ct_series(3, Modality="MR"),
            "the input 'ct' has to be CT, and is MR",
        ),
        (Need("x", modalities=("CR", "DX")), ct_series(3), "the input 'x' has to be CR or DX, and is CT"),
        (
            Need("ct", modalities=("CT",)),
            ct_series(3, Modality=None),
            "the input 'ct' has to be CT, and is without a modality",
        ),
        (Need("pet", unit="Bq/ml"), ct_series(3), "the unit of the input 'pet' is [hnsf'U]"),
        (
            Need("ct", unit="[hnsf'U]"),
            ct_series(3, Modality="MR"),
            "the unit of the input 'ct' is 1, and the model needs [hnsf'U]",
        ),
        (Need("ct", min_slices=9), ct_series(3), "the input 'ct' has 3 slices, and the model needs 9"),
        (Need("ct", "series", min_slices=2), ct_series(1), "has 1 instance, and the model needs 2"),
        (Need("cine", "image", min_slices=5), [enhanced_ct(3)], "has 3 frames, and the model needs 5"),
    ],
)
def test_what_a_need_asks_for_is_demanded_by_name_before_anything_is_decoded(
    tmp_path: Path, need: Need, given: list[SourceInstance], reason: str
) -> None:
    with pytest.raises(UnfitInput) as caught:
        material(tmp_path, {need.name: given}, [need])
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_need_that_is_met_is_not_refused(tmp_path: Path) -> None:
    need = Need("ct", modalities=("PT", "CT"), unit="[hnsf'U]", min_slices=3)
    assert material(tmp_path, {"ct": ct_series(3)}, [need]).inputs.volume.unit == "[hnsf'U]"


def test_a_series_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(NotAnImage, match="holds 5 images"):
        material(tmp_path, {"image": ct_series()}, NEEDS_IMAGE)


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace, match="the decoded series needs"):
        model_inputs.of_sources(
            {"volume": ct_series()}, NEEDS_VOLUME, "", {}, JobFolder(tmp_path), reserve_bytes=1 << 60
        )
    assert list(tmp_path.iterdir()) == []


# --- real images -----------------------------------------------------------


def real(folder: str, every: int = 1, start: int = 0, count: int | None = None) -> list[SourceInstance]:
    paths = sorted(require_data(folder).iterdir())[start::every][:count]
    return source_series.from_files(paths)


def test_a_real_series_with_a_slice_taken_out_gives_no_volume(tmp_path: Path) -> None:
    instances = real("series/MR_T1_brain_HFS")
    whole = material(tmp_path, {"volume": instances}).inputs.volume
    assert whole.voxels.shape[0] == len(instances) == 35
    del instances[17]
    with pytest.raises(NotAVolume, match="missing slices: 1 of 35"):
        material(tmp_path, {"volume": instances})


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # pydicom, of a text that is too long
def test_two_real_series_of_one_study_are_given_side_by_side(tmp_path: Path) -> None:
    needs = (Need("pet", modalities=("PT",), unit="g/ml"), Need("ct", comes_from="study", unit="[hnsf'U]"))
    found = material(
        tmp_path, {"pet": real("series/STS-003_PET"), "ct": real("series/STS-003_CT")}, needs
    ).inputs.given
    assert {name: (one.unit, one.voxels.shape[0]) for name, one in found.items()} == {  # type: ignore[union-attr]
        "pet": ("g/ml", 51),
        "ct": ("[hnsf'U]", 51),
    }


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("series/STS-003_CT_rtstruct", "has no pixels"),
        ("singles/ImagingDataCommons_highdicom/dx_image.dcm", "no Image Position"),
        ("singles/pydicom_pydicom/ExplVR_BigEnd.dcm", "is in colour"),
    ],
)
def test_real_objects_that_are_no_volume_are_refused_by_name(
    tmp_path: Path, folder: str, reason: str
) -> None:
    path = require_data(folder)
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    with pytest.raises(NotAVolume, match=reason):
        material(tmp_path, {"volume": source_series.from_files(paths)})


def test_a_real_radiograph_is_an_image_and_no_ct(tmp_path: Path) -> None:
    path = require_data("singles/ImagingDataCommons_highdicom/dx_image.dcm")
    given = {"image": source_series.from_files([path])}
    assert material(tmp_path, given, NEEDS_IMAGE).inputs.image.pixels.ndim == 3
    with pytest.raises(UnfitInput, match="has to be CT, and is DX"):
        material(tmp_path, given, [Need("image", "image", modalities=("CT",))])
