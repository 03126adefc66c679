"""Derived images are images of the source's own kind, with their values and their place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from models.types import Code
from node.errors import ResultImpossible
from node.results.build import Source
from tests.support.made_findings import (
    all_built,
    found,
    image_source,
    made_source,
    of_kind,
    smooth,
    source_of,
)
from tests.support.made_series import LYING, enhanced_ct, numbered, places_mm
from tests.support.result_places import planes, real_values, values_and_places

ONE = Code("1", "UCUM", "no units")

derived = partial(of_kind, "image")


def voxels_of(source: Source) -> NDArray[Any]:
    assert source.volume is not None
    return source.volume.voxels


# --- place -------------------------------------------------------------------


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("I1")
def test_voxels_on_the_grid_of_the_source_lie_where_their_images_have_them(name: str) -> None:
    instances = numbered(LYING[name]())
    source = source_of(instances)
    made = derived(source, smooth(voxels_of(source)))
    expected = places_mm(instances)
    found = values_and_places(made)
    assert found.keys() == {float(value) for value in expected}
    assert max(np.abs(found[float(value)] - place).max() for value, place in expected.items()) < 1e-9
    assert {one.FrameOfReferenceUID for one in made} == {instances[0].header.FrameOfReferenceUID}


@pytest.mark.parametrize("name", LYING)
def test_each_image_names_the_very_image_that_it_was_made_of(name: str) -> None:
    instances = numbered(LYING[name]())
    source = source_of(instances)
    by_uid = {one.header.SOPInstanceUID: list(one.frames()) for one in instances}
    for made in derived(source, smooth(voxels_of(source))):
        for values, (*_, item) in zip(real_values(made), planes(made), strict=True):
            if "DerivationImageSequence" in item:
                item = item.DerivationImageSequence[0]
            [named] = item.SourceImageSequence
            frame = by_uid[named.ReferencedSOPInstanceUID][int(named.get("ReferencedFrameNumber", 1)) - 1]
            intercept = 1000 if len(by_uid) == 1 else 1024
            assert np.array_equal(frame.astype(int) - intercept, values)


@pytest.mark.parametrize("name", ["axial", "oblique", "gantry tilt", "all flipped", "multi-frame"])
@pytest.mark.checklist("I1")
def test_voxels_on_a_grid_of_their_own_lie_where_its_affine_says(name: str) -> None:
    source = source_of(LYING[name]())
    assert source.volume is not None
    affine = source.volume.affine.copy()
    affine[:3, 1] *= 0.5
    affine[:3, 2] *= 1.5
    affine[:3, 3] += (1.25, -2.5, 0.75)
    voxels = np.arange(3 * 8 * 4, dtype=np.int16).reshape(3, 8, 4)
    made = derived(source, smooth(voxels, affine=affine))
    found = values_and_places(made)
    for index in np.ndindex(voxels.shape):
        wanted = (affine @ (*index, 1))[:3]
        assert np.abs(found[float(voxels[index])] - wanted).max() < 1e-6
    [classes] = {one.SOPClassUID for one in made}
    assert classes == source.data_sets[0].SOPClassUID


def test_a_grid_of_its_own_names_the_slices_between_which_it_lies() -> None:
    source = made_source(5)
    assert source.volume is not None
    affine = source.volume.affine.copy()
    affine[:3, 3] += 1.5 * affine[:3, 0]
    [made] = derived(source, smooth(np.zeros((1, 4, 6), np.int16), affine=affine))
    named = {one.ReferencedSOPInstanceUID for one in made.SourceImageSequence}
    assert named == {source.data_sets[index].SOPInstanceUID for index in (1, 2)}
    assert made.DerivationCodeSequence[0].CodeMeaning == "Spatial resampling"
    assert "SliceLocation" not in made
    assert made.SliceThickness == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.__setitem__((slice(3), 2), a[:3, 2] + 0.2 * a[:3, 1]), "not perpendicular"),
        (lambda a: a.__setitem__((slice(3), 0), a[:3, 1] + a[:3, 2]), "lie in one plane"),
        (lambda a: a.__setitem__((slice(3), 1), 0), "no length"),
    ],
)
def test_a_grid_that_no_image_can_have_is_refused_with_the_reason(change: Any, reason: str) -> None:
    source = made_source()
    assert source.volume is not None
    affine = source.volume.affine.copy()
    change(affine)
    with pytest.raises(ValueError, match=reason):
        derived(source, smooth(np.zeros((2, 4, 6), np.int16), affine=affine))


def test_a_place_in_the_patient_is_refused_where_the_source_has_none() -> None:
    with pytest.raises(ResultImpossible, match="its source has none"):
        derived(image_source(), smooth(np.zeros((1, 4, 6), np.int16), affine=np.eye(4)))


# --- values ------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.array([-1024, 3071], np.int16),
        np.array([0, 40000], np.int32),
        np.array([-30000, 35000], np.int32),
        np.array([-5.0, 7.0], np.float32),
        np.array([7, 7], np.uint8),
    ],
    ids=str,
)
@pytest.mark.checklist("I2")
def test_whole_numbers_come_back_exactly(values: NDArray[Any]) -> None:
    source = made_source(2)
    voxels = np.resize(values, (2, 4, 6))
    made = derived(source, smooth(voxels))
    assert np.array_equal(np.concatenate([real_values(one) for one in made]), voxels)
    assert all("values exact" in one.DerivationDescription for one in made)


@pytest.mark.parametrize("scale", [1e-7, 0.001, 1.0, 123456.0])
@pytest.mark.checklist("I2")
def test_other_numbers_come_back_within_half_of_the_step_that_is_stated(scale: float) -> None:
    source = made_source(2)
    voxels = (np.random.default_rng(3).normal(size=(2, 4, 6)) * scale).astype(np.float32)
    made = derived(source, smooth(voxels))
    error = np.abs(np.concatenate([real_values(one) for one in made]) - voxels).max()
    said = made[0].DerivationDescription
    step = float(said.split("steps of ")[1].split(",")[0])
    assert error <= step / 2 * (1 + 1e-6)
    assert step <= 2.0001 * np.ptp(voxels) / 65533
    assert made[0].RescaleSlope == pytest.approx(step, rel=1e-5)


def test_a_number_of_pet_has_no_intercept() -> None:
    source = made_source(
        2, SOPClassUID=PositronEmissionTomographyImageStorage, Modality="PT", RescaleIntercept=0
    )
    voxels = np.linspace(0.0, 12.3, 48, dtype=np.float32).reshape(2, 4, 6)
    made = derived(source, smooth(voxels, unit=Code("g/ml", "UCUM", "SUV")))
    assert {float(one.RescaleIntercept) for one in made} == {0.0}
    assert [(one.NumberOfSlices, one.ImageIndex) for one in made] == [(2, 1), (2, 2)]
    assert np.abs(np.concatenate([real_values(one) for one in made]) - voxels).max() <= 12.3 / 65534


def test_what_a_radiograph_cannot_hold_is_refused_by_name() -> None:
    source = image_source(SOPClassUID=DigitalXRayImageStorageForPresentation, Modality="DX")
    with pytest.raises(ResultImpossible, match="smooth has values from -1 to 5"):
        derived(source, smooth(np.resize(np.array([-1, 5], np.int16), (1, 4, 6)), unit=ONE))
    [made] = derived(source, smooth(np.full((1, 4, 6), 9, np.int16), unit=ONE))
    assert (made.RescaleSlope, made.RescaleIntercept, made.RescaleType) == (1, 0, "US")


def test_high_values_stay_dark_where_they_were() -> None:
    source = image_source(PhotometricInterpretation="MONOCHROME1")
    [made] = derived(source, smooth(np.full((1, 4, 6), 9, np.int16), unit=ONE))
    assert made.PhotometricInterpretation == "MONOCHROME1"


def test_the_window_of_the_source_stays_where_it_fits_and_is_chosen_anew_where_not() -> None:
    source = made_source(2, WindowCenter=40, WindowWidth=400)
    voxels = np.arange(48, dtype=np.int16).reshape(2, 4, 6)
    assert (derived(source, smooth(voxels))[0].WindowCenter, 400) == (40, 400)
    far = derived(source, smooth(voxels + 9000))[0]
    assert 9000 < far.WindowCenter < 9048
    narrow = derived(source, smooth((voxels / 1000 + 900).astype(np.float32)))[0]
    assert narrow.WindowWidth < 1
    assert narrow.VOILUTFunction == "LINEAR_EXACT"


# --- what is inherited -------------------------------------------------------


def test_acquisition_stays_and_what_was_of_the_instance_goes() -> None:
    source = made_source(
        2, KVP=120, ConvolutionKernel="B30f", PixelPaddingValue=-2000, SmallestImagePixelValue=0,
        StationName="CT-1", Manufacturer="Scanners Inc", ManufacturerModelName="S 1",
        RequestAttributesSequence=[], ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    )  # fmt: skip
    for data_set in source.data_sets:
        data_set.add_new(0x00091001, "LO", "private")
        data_set.add_new(0x60000010, "US", 4)
    for one in derived(source, smooth(voxels_of(source))):
        assert (one.KVP, one.ConvolutionKernel) == (120, "B30f")
        assert list(one.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI"]
        for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "RequestAttributesSequence"):
            assert keyword not in one
        assert not any(tag.is_private or tag.group == 0x6000 for tag in one.keys())  # noqa: SIM118
        assert one.Manufacturer == "anode"
        scanner = one.ContributingEquipmentSequence[-1]
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
        assert (scanner.Manufacturer, scanner.StationName) == ("Scanners Inc", "CT-1")


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_values_that_break_their_representation_are_left_out_and_what_must_be_there_is_repaired() -> None:
    source = made_source(2)
    for data_set in source.data_sets:
        data_set.KVP = None
        data_set.ConvolutionKernel = "k" * 17
        data_set.ImageType = ["ORIGINAL", "PRIMARY"]
    for one in derived(source, smooth(voxels_of(source))):
        assert one.KVP is None
        assert "ConvolutionKernel" not in one
        assert "AcquisitionNumber" in one
        assert one.ImageType[2] == "AXIAL"


@pytest.mark.checklist("I2")
def test_loss_is_never_shed() -> None:
    lossy: dict[str, Any] = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 12.5,
        "LossyImageCompressionMethod": "ISO_15444_1",
    }
    source = made_source(2, **lossy)
    for one in derived(source, smooth(voxels_of(source))):
        assert {keyword: one[keyword].value for keyword in lossy} == lossy
    assert {one.LossyImageCompression for one in derived(made_source(2), smooth(voxels_of(source)))} == {"00"}


@pytest.mark.checklist("I1")
def test_each_image_is_a_series_and_no_instance_or_series_is_that_of_the_source() -> None:
    source = made_source(3)
    voxels = voxels_of(source)
    made = derived(source, smooth(voxels), smooth(voxels, name="sharp", label="Sharpened"))
    assert len(made) == 6
    series = {one.SeriesInstanceUID: one.SeriesDescription for one in made}
    assert [text.split(" - ")[0] for text in series.values()] == [
        "lungs 1.2.3 Smoothed",
        "lungs 1.2.3 Sharpened",
    ]
    assert len({one.SOPInstanceUID for one in made}) == 6
    assert not {one.SOPInstanceUID for one in made} & {one.SOPInstanceUID for one in source.data_sets}
    assert source.data_sets[0].SeriesInstanceUID not in series
    assert [one.InstanceNumber for one in made] == [1, 2, 3] * 2
    assert len({one.SeriesNumber for one in made}) == 2
    assert {one.StudyInstanceUID for one in made} == {"1.2.3"}


@pytest.mark.checklist("A5")
def test_an_image_of_an_earlier_study_lies_in_the_study_of_the_analysis() -> None:
    prior = made_source(2, StudyInstanceUID="1.2.9", PatientName="Other^Name", StudyDescription="before")
    source = replace(made_source(3), name="now", others={"before": replace(prior, is_prior=True)})
    made = derived(source, smooth(voxels_of(prior), on="before"))
    assert {one.StudyInstanceUID for one in made} == {"1.2.3"}
    assert {str(one.PatientName) for one in made} == {"Phantom^Test"}
    assert all("StudyDescription" not in one for one in made)
    assert [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in made] == [
        one.SOPInstanceUID for one in prior.data_sets
    ]


# --- other kinds of source ---------------------------------------------------


def test_a_multi_frame_source_gives_one_instance_of_its_class_with_its_functional_groups() -> None:
    instance = enhanced_ct()
    content = Dataset()
    content.StackID = "7"
    for group in instance.header.PerFrameFunctionalGroupsSequence:
        group.FrameContentSequence = [content]
    source = source_of([instance])
    [made] = derived(source, smooth(voxels_of(source) * 2))
    assert made.SOPClassUID == EnhancedCTImageStorage
    assert made.ImageType[:2] == ["DERIVED", "PRIMARY"]
    assert made.NumberOfFrames == 4
    assert {one.FrameContentSequence[0].StackID for one in made.PerFrameFunctionalGroupsSequence} == {"7"}
    # The frames keep the order of the source, which runs from head to feet.
    assert [int(frame[0, 0]) for frame in real_values(made)] == [0, 2, 4, 6]
    [study] = made.SourceImageEvidenceSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.2"


def test_frames_without_a_place_stay_frames_of_one_instance() -> None:
    source = image_source(3)
    voxels = np.arange(72, dtype=np.uint8).reshape(3, 4, 6)
    [made] = derived(source, smooth(voxels, unit=ONE))
    assert (made.SOPClassUID, made.NumberOfFrames) == (UltrasoundMultiFrameImageStorage, 3)
    assert made.BitsAllocated == 8
    assert np.array_equal(made.pixel_array, voxels)
    # All frames are meant, and then none has a number (PS3.3 table 10-3).
    assert "ReferencedFrameNumber" not in made.SourceImageSequence[0]


def test_colour_on_a_source_without_is_a_secondary_capture_for_each_slice_in_its_place() -> None:
    source = made_source(3)
    colour = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    made = derived(source, smooth(colour))
    assert {one.SOPClassUID for one in made} == {SecondaryCaptureImageStorage}
    for index, one in enumerate(made):
        assert np.array_equal(one.pixel_array, colour[index])
        of_source = source.data_sets[index]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert list(one[keyword].value) == list(of_source[keyword].value)
        assert one.FrameOfReferenceUID == of_source.FrameOfReferenceUID
        assert "KVP" not in one


def test_colour_on_a_source_with_colour_keeps_its_class() -> None:
    source = image_source(2, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    colour = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    [made] = derived(source, smooth(colour, unit=ONE))
    assert made.SOPClassUID == source.data_sets[0].SOPClassUID
    assert made.PhotometricInterpretation == "RGB"
    assert np.array_equal(made.pixel_array, colour)


def test_the_same_run_gives_the_same_bytes() -> None:
    def run() -> list[bytes]:
        source = made_source(2)
        made = all_built(found(smooth(voxels_of(source))), source, kinds=("image",))
        assert {one.sop_class_uid for one in made} == {CTImageStorage}
        return [one.part10 for one in made]

    assert run() == run()
