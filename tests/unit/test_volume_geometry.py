"""What is a volume, and what is refused by name."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from node.errors import NotAVolume
from node.series import volume
from node.series.source_series import SourceInstance
from tests.support.made_series import ct_header, ct_series, enhanced_ct, source, undecoded


def refusal(instances: list[SourceInstance]) -> str:
    with pytest.raises(NotAVolume) as refused:
        volume.build(instances)
    return str(refused.value)


def changed(index: int, **attributes: object) -> list[SourceInstance]:
    instances = ct_series()
    for keyword, value in attributes.items():
        setattr(instances[index].header, keyword, value)
    return instances


def test_slices_are_put_in_order_along_their_normal_whatever_the_order_of_arrival() -> None:
    instances = ct_series()
    random.Random(3).shuffle(instances)
    built = volume.build(instances)
    assert built.volume.voxels.shape == (5, 4, 6)
    assert built.volume.voxels[:, 0, 0].tolist() == [100, 200, 300, 400, 500]
    assert [one.header.InstanceNumber for one in built.ordered] == [1, 2, 3, 4, 5]


def test_the_affine_takes_slice_row_and_column_to_patient_coordinates() -> None:
    built = volume.build(ct_series()).volume
    assert built.spacing_mm == pytest.approx((2.5, 0.8, 0.5))
    assert (built.affine @ [2, 3, 4, 1]).tolist() == pytest.approx([10 + 4 * 0.5, 20 + 3 * 0.8, 35, 1])


def test_an_oblique_series_keeps_its_directions() -> None:
    turned = math.cos(0.3), math.sin(0.3)
    row, column = [turned[0], turned[1], 0.0], [0.0, 0.0, -1.0]
    normal = np.cross(row, column)
    instances = ct_series(step=(2 * normal).tolist(), ImageOrientationPatient=[*row, *column])
    built = volume.build(instances).volume
    assert built.affine[:3, 0] == pytest.approx(2 * normal)
    assert built.affine[:3, 1] == pytest.approx(np.multiply(column, 0.8))
    assert built.affine[:3, 2] == pytest.approx(np.multiply(row, 0.5))
    assert built.spacing_mm[0] == pytest.approx(2.0)


def test_a_tilted_gantry_makes_a_sheared_volume_with_the_true_distance_between_planes() -> None:
    built = volume.build(ct_series(step=(0.0, 1.0, 2.5))).volume
    assert built.affine[:3, 0] == pytest.approx([0.0, 1.0, 2.5])
    assert built.spacing_mm[0] == pytest.approx(2.5)
    assert built.voxel_ml == pytest.approx(abs(np.linalg.det(built.affine[:3, :3])) / 1000)


def test_frames_of_an_enhanced_object_become_slices() -> None:
    built = volume.build([enhanced_ct()])
    assert built.volume.voxels[:, 0, 0].tolist() == [3, 2, 1, 0]
    assert built.volume.affine[2, 3] == pytest.approx(41.0)
    assert built.volume.unit == "[hnsf'U]"
    assert [plane.frame for plane in built.planes] == [3, 2, 1, 0]
    assert len(built.ordered) == 1


def test_a_missing_slice_is_named_with_its_neighbours() -> None:
    instances = ct_series(7)
    del instances[3:5]
    assert refusal(instances) == (
        "missing slices: 2 of 7, at a spacing of 2.5 mm (2 between slice 3 and slice 6)"
    )


def test_uneven_spacing_is_named_with_the_gap() -> None:
    assert "uneven spacing: 2.5 mm, but 3.3 mm between slice 4 and slice 5" in refusal(
        changed(4, ImagePositionPatient=[10, 20, 40.8])
    )


def test_two_images_at_one_place_are_named() -> None:
    instances = ct_series()
    instances.append(source(ct_header(9, (10, 20, 35)), np.zeros((4, 6), np.uint16)))
    assert refusal(instances) == (
        "several images at one place: 6 slices lie at 5 places (slice 3 and slice 9)"
    )


def test_phases_at_each_place_are_no_volume() -> None:
    assert "10 slices lie at 5 places" in refusal([*ct_series(), *ct_series()])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
            "mixed orientation: 1 of 5 slices differ from the others (slice 3)",
        ),
        ({"PixelSpacing": [0.9, 0.5]}, "mixed pixel spacing: 1 of 5 slices differ from the others (slice 3)"),
        ({"Rows": 8}, "mixed size: 1 of 5 slices differ from the others (slice 3)"),
        ({"ImagePositionPatient": None}, "slice 3 has no Image Position (Patient)"),
        ({"ImagePositionPatient": [1, 2]}, "slice 3 has no Image Position (Patient)"),
        ({"ImageOrientationPatient": None}, "slice 3 has no Image Orientation (Patient)"),
        (
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            "the Image Orientation (Patient) of slice 3 is not two unit vectors at right angles",
        ),
        ({"PixelSpacing": None}, "slice 3 has no Pixel Spacing"),
        ({"PixelSpacing": [0, 0]}, "slice 3 has no Pixel Spacing"),
        ({"RescaleSlope": None}, "slice 3 has no Rescale Slope, so its values are no Hounsfield units"),
        (
            {"RescaleIntercept": None},
            "slice 3 has no Rescale Intercept, so its values are no Hounsfield units",
        ),
        ({"RescaleIntercept": ""}, "slice 3 has no Rescale Intercept, so its values are no Hounsfield units"),
        ({"RescaleSlope": "1e30"}, "slice 3 has a Rescale Slope of 1e+30, which cannot be meant"),
        ({"RescaleSlope": "0"}, "slice 3 has a Rescale Slope of 0, which cannot be meant"),
        ({"RescaleSlope": "-1"}, "slice 3 has a Rescale Slope of -1, which cannot be meant"),
        (
            {"FrameOfReferenceUID": "1.9"},
            "mixed Frames of Reference: 1 of 5 instances differ from the others,"
            " so their positions cannot be compared",
        ),
        (
            {"FrameOfReferenceUID": None},
            "mixed Frames of Reference: 1 of 5 instances differ from the others,"
            " so their positions cannot be compared",
        ),
        ({"StudyInstanceUID": "1.9"}, "mixed studies: 1 of 5 instances differ from the others"),
        (
            {"ImageType": ["DERIVED", "SECONDARY"]},
            "mixed original and derived images: 1 of 5 instances differ from the others",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "slice 3 is a localizer"),
        ({"SamplesPerPixel": 3}, "slice 3 is in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "slice 3 is in colour (palette)"),
        ({"NumberOfFrames": 12}, "the frames of slice 3 have no position of their own"),
        ({"Modality": "MR"}, "mixed modalities: CT, MR"),
    ],
)
def test_what_is_no_volume_is_refused_by_name(attributes: dict[str, object], message: str) -> None:
    assert refusal(changed(2, **attributes)) == message


@pytest.mark.parametrize("frames", [[None] * 5, [f"1.9.{number}" for number in range(5)]])
def test_frames_of_reference_that_say_nothing_are_no_fault(frames: list[str | None]) -> None:
    instances = ct_series()
    for instance, frame in zip(instances, frames, strict=True):
        instance.header.FrameOfReferenceUID = frame
    assert len(volume.build(instances).planes) == 5


def test_two_objects_of_many_frames_in_two_frames_of_reference_are_no_volume() -> None:
    instances = [enhanced_ct(), enhanced_ct(step=(0, 0, 3.0))]
    instances[1].header.FrameOfReferenceUID = "1.9"
    assert "mixed Frames of Reference: 1 of 2 instances" in refusal(instances)


def test_original_and_derived_frames_of_one_object_are_no_volume() -> None:
    instance = enhanced_ct()
    instance.header.ImageType = ["MIXED", "PRIMARY", "VOLUME", "NONE"]
    assert "frames are mixed" in refusal([instance])


@pytest.mark.parametrize(
    ("modality", "slope", "is_refused"),
    [("PT", 0, True), ("PT", -2, True), ("MR", 0, True), ("MR", -2, False)],
)
def test_a_slope_of_nothing_is_refused_and_a_negative_one_where_values_rise_by_definition(
    modality: str, slope: float, is_refused: bool
) -> None:
    instances = ct_series(Modality=modality, RescaleIntercept=0)
    for instance in instances:
        instance.header.RescaleSlope = 2
    instances[2].header.RescaleSlope = slope
    if is_refused:
        assert refusal(instances) == f"slice 3 has a Rescale Slope of {slope:g}, which cannot be meant"
    else:
        assert volume.build(instances).volume.voxels[2, 1, 1] == 1026 * slope


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize("modality", ["MR", "NM", "XA", "CT"])
@pytest.mark.parametrize("written", [b"1,5 ", b"2.5\\2.5 ", b"NaN "])
def test_a_slope_that_is_no_number_is_refused_and_not_taken_for_none(modality: str, written: bytes) -> None:
    instances = ct_series(Modality=modality, RescaleIntercept=0)
    for instance in instances:
        undecoded(instance.header, "RescaleSlope", written)
    assert refusal(instances) == "slice 1 has a Rescale Slope that is not one number"


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("is_there", [False, True])
def test_rescaling_that_only_some_slices_have_is_refused(keyword: str, is_there: bool) -> None:
    instances = ct_series(Modality="MR", RescaleSlope=2.5)
    del instances[2].header[keyword]
    if is_there:
        undecoded(instances[2].header, keyword, b"")
    assert refusal(instances) == "mixed rescaling: 1 of 5 slices differ from the others (slice 3)"


@pytest.mark.parametrize("value", [None, ""])
def test_values_that_are_not_rescaled_at_all_are_those_stored(value: str | None) -> None:
    instances = ct_series(Modality="MR", RescaleSlope=value, RescaleIntercept=value)
    assert volume.build(instances).volume.voxels[:, 1, 1].tolist() == [1024, 1025, 1026, 1027, 1028]


def test_frames_whose_groups_do_not_rescale_are_rescaled_by_the_header() -> None:
    instance = enhanced_ct()
    del instance.header.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    instance.header.Modality = "MR"
    instance.header.RescaleSlope, instance.header.RescaleIntercept = 2, 1
    assert volume.build([instance]).volume.voxels[:, 1, 1].tolist() == [2007, 2005, 2003, 2001]


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_the_largest_slope_that_may_be_meant_overflows_nothing(modality: str) -> None:
    instances = ct_series(2, Modality=modality, RescaleSlope=1e9, RescaleIntercept=-1e9)
    assert volume.build(instances).volume.voxels.max() == pytest.approx(1e9 * (1024 + 200 - 1))


def test_a_single_slice_is_refused() -> None:
    assert refusal(ct_series(1)) == "a single slice is no volume"


def test_a_series_without_instances_or_pixels_is_refused() -> None:
    assert refusal([]) == "the series has no instances"
    assert refusal([source(Dataset(), None)]) == "an instance of the series has no pixels"


def test_slices_that_jump_sideways_are_refused() -> None:
    assert "slices shift sideways: slice 3 by 4 mm" in refusal(changed(2, ImagePositionPatient=[14, 20, 35]))


def test_slices_stacked_along_their_own_plane_are_refused() -> None:
    assert "several images at one place" in refusal(ct_series(step=(2.5, 0, 0)))
    assert "stacked far from their normal" in refusal(ct_series(step=(5.0, 0, 1.0)))


def test_coordinates_rounded_to_a_tenth_are_still_even() -> None:
    instances = ct_series(9, step=(0, 0, 0.625))
    for index, instance in enumerate(instances):
        instance.header.ImagePositionPatient = [
            DSfloat("10.0"),
            DSfloat("20.0"),
            DSfloat(f"{30 + 0.625 * index:.1f}"),
        ]
    assert volume.build(instances).volume.spacing_mm[0] == pytest.approx(0.625, abs=0.01)


def test_the_same_unevenness_is_refused_where_coordinates_are_written_exactly() -> None:
    instances = ct_series(9, step=(0, 0, 0.625))
    instances[4].header.ImagePositionPatient = [DSfloat("10.000"), DSfloat("20.000"), DSfloat("32.550")]
    assert "uneven spacing" in refusal(instances)


def test_functional_groups_that_do_not_fit_the_frames_are_refused() -> None:
    instance = enhanced_ct()
    instance.header.NumberOfFrames = 9
    assert "4 functional groups describe 9 frames" in refusal([instance])


def test_no_identity_is_in_a_refusal() -> None:
    for attributes in ({"PixelSpacing": None}, {"Rows": 8}):
        assert "Phantom" not in refusal(changed(2, **attributes))
