"""One instance with pixels becomes an image as its object says, and what is none is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.errors import MalformedDataSet, NotAnImage, UnfitInput, UnsupportedPixelData
from node.sending.dicom_files import NotDicom
from node.series import image, source_series
from node.series.source_series import SourceInstance
from tests.support import made
from tests.support.data import require_data
from tests.support.made_series import ct_header, ct_series, enhanced_ct, source, undecoded

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def grey(pixels: Any, **attributes: Any) -> SourceInstance:
    return source(ct_header(1, (0, 0, 0), **attributes), pixels)


def radiograph(pixels: Any, **attributes: Any) -> SourceInstance:
    return grey(pixels, **{"Modality": "CR", "RescaleSlope": None, "RescaleIntercept": None, **attributes})


def file_of(folder: Path, data_set: Dataset, transfer_syntax_uid: str) -> Path:
    path = folder / "image.dcm"
    path.write_bytes(made.part10(data_set, transfer_syntax_uid))
    return path


def test_a_single_image_is_rescaled_and_has_one_frame() -> None:
    built = image.build([grey(np.full((4, 6), 1064, np.uint16))])
    assert built.image.pixels.shape == (1, 4, 6)
    assert built.image.pixels.dtype == np.int16
    assert (built.image.pixels == 40).all()
    assert (built.image.unit, built.image.spacing_mm) == ("[hnsf'U]", (0.8, 0.5))
    assert built.image.header["Modality"] == "CT"


@pytest.mark.parametrize(
    ("slope", "pixels", "dtype", "value"),
    [(1, 40000, np.int32, 40000), (0.5, 3, np.float32, 1.5)],
)
def test_values_are_in_the_narrowest_type_that_holds_them(
    slope: float, pixels: int, dtype: Any, value: float
) -> None:
    instance = radiograph(
        np.full((4, 6), pixels, np.uint16), BitsStored=16, HighBit=15, RescaleSlope=slope, RescaleIntercept=0
    )
    found = image.build([instance]).image.pixels
    assert found.dtype == dtype
    assert (found == value).all()


def test_monochrome1_is_not_inverted_and_its_padding_is_what_is_shown_black() -> None:
    pixels = np.full((4, 6), 100, np.uint16)
    pixels[0] = 0
    pixels[1] = 3000
    instance = radiograph(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    found = image.build([instance]).image.pixels[0]
    assert (found[0] == 3000).all()
    assert (found[2] == 100).all()


def test_the_spacing_of_a_radiograph_is_that_at_the_detector_or_unknown() -> None:
    pixels = np.zeros((4, 6), np.uint16)
    at_detector = radiograph(pixels, PixelSpacing=None, ImagerPixelSpacing=[0.1, 0.2])
    assert image.build([at_detector]).image.spacing_mm == (0.1, 0.2)
    assert image.build([radiograph(pixels, PixelSpacing=None)]).image.spacing_mm is None


@pytest.mark.parametrize(
    ("says", "spacing_mm"),
    [
        ({}, (0.14, 0.28)),
        ({"EstimatedRadiographicMagnificationFactor": ""}, (0.14, 0.28)),
        ({"EstimatedRadiographicMagnificationFactor": 1.4}, (0.1, 0.2)),
        ({"EstimatedRadiographicMagnificationFactor": 1}, (0.14, 0.28)),
        # What cannot be meant leaves the spacing unknown.
        ({"EstimatedRadiographicMagnificationFactor": 0.5}, None),
        ({"EstimatedRadiographicMagnificationFactor": [1, 2]}, None),
        # A spacing that is that of the detector is not calibrated; any other is, and is taken as it is.
        ({"EstimatedRadiographicMagnificationFactor": 1.4, "PixelSpacing": [0.14, 0.28]}, (0.1, 0.2)),
        ({"EstimatedRadiographicMagnificationFactor": 1.4, "PixelSpacing": [0.12, 0.24]}, (0.12, 0.24)),
        (
            {
                "EstimatedRadiographicMagnificationFactor": 1.4,
                "PixelSpacing": [0.14, 0.28],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            (0.14, 0.28),
        ),
    ],
)
def test_the_magnification_that_a_radiograph_tells_is_taken_off_its_spacing(
    says: dict[str, Any], spacing_mm: tuple[float, float] | None
) -> None:
    instance = radiograph(
        np.zeros((4, 6), np.uint16), **{"PixelSpacing": None, "ImagerPixelSpacing": [0.14, 0.28], **says}
    )
    found = image.build([instance]).image.spacing_mm
    assert found == (None if spacing_mm is None else pytest.approx(spacing_mm))


def test_values_are_looked_up_where_the_object_brings_a_table() -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table["LUTDescriptor"].VR = "US"
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [10, 20, 30, 40])
    instance = radiograph(np.array([[0, 1, 2, 3, 3, 3]] * 4, np.uint16), ModalityLUTSequence=Items([table]))
    assert image.build([instance]).image.pixels[0, 0].tolist() == [10, 20, 30, 40, 40, 40]


def test_each_frame_of_an_enhanced_object_is_rescaled_by_its_groups() -> None:
    built = image.build([enhanced_ct(3)])
    assert built.image.pixels[:, 0, 0].tolist() == [0, 1, 2]
    assert (built.image.unit, built.image.spacing_mm) == ("[hnsf'U]", (0.8, 0.5))


def test_frames_of_which_only_some_are_rescaled_are_no_image() -> None:
    instance = enhanced_ct(3)
    instance.header.Modality = "MR"
    shared = instance.header.SharedFunctionalGroupsSequence[0]
    groups = instance.header.PerFrameFunctionalGroupsSequence
    del shared.PixelValueTransformationSequence[0].RescaleType
    groups[0].PixelValueTransformationSequence = shared.PixelValueTransformationSequence
    del shared.PixelValueTransformationSequence
    with pytest.raises(NotAnImage, match="mixed rescaling: frame 2 is not rescaled as frame 1 is"):
        image.build([instance])


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_a_slope_that_is_no_number_is_not_taken_for_none() -> None:
    instance = radiograph(np.zeros((4, 6), np.uint16), RescaleIntercept=0)
    undecoded(instance.header, "RescaleSlope", b"1,5 ")
    with pytest.raises(NotAnImage, match="the image has a Rescale Slope that is not one number"):
        image.build([instance])


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_colour_is_rgb_whatever_encoded_it(tmp_path: Path, transfer_syntax_uid: str) -> None:
    path = file_of(tmp_path, made.colour_image(pixels=RGB), transfer_syntax_uid)
    built = image.build([source_series.from_file(path)])
    assert built.image.pixels.dtype == np.uint8
    assert np.array_equal(built.image.pixels[0], RGB)
    assert built.image.unit == "1"


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, RLELossless])
def test_luminance_and_chrominance_become_rgb(tmp_path: Path, transfer_syntax_uid: str) -> None:
    stored = np.full((4, 6, 3), (120, 90, 200), np.uint8)
    data_set = made.colour_image(pixels=stored, PhotometricInterpretation="YBR_FULL")
    built = image.build([source_series.from_file(file_of(tmp_path, data_set, transfer_syntax_uid))])
    expected = convert_color_space(stored, "YBR_FULL", "RGB")
    assert np.array_equal(built.image.pixels[0], expected)
    assert not np.array_equal(expected, stored)


@pytest.mark.parametrize(
    ("name", "frames", "tolerance"),
    [
        ("pydicom_pydicom-data/SC_ybr_full_uncompressed.dcm", 1, 0),
        ("nroduit_weasis-dicom-tools/ybrFull-RLE.dcm", 1, 0),
        ("pydicom_pydicom/SC_rgb_rle_2frame.dcm", 2, 0),
        ("pydicom_pydicom/ExplVR_BigEnd.dcm", 1, 0),
        ("pydicom_pydicom-data/US1_J2KI.dcm", 1, 2),
        # Lossy JPEG: the standard leaves the last digit to the decoder.
        ("grailbio_go-dicom/I_000007.dcm", 10, 6),
    ],
)
def test_real_colour_images_are_those_that_pydicom_makes(name: str, frames: int, tolerance: int) -> None:
    path = require_data(f"singles/{name}")
    found = image.build([source_series.from_file(path)]).image.pixels
    # pixel_array gives RGB of what is compressed; of the rest it leaves the colour space as it is.
    read = pydicom.dcmread(path)
    expected = read.pixel_array
    if read.PhotometricInterpretation.startswith("YBR_FULL") and (
        not read.file_meta.TransferSyntaxUID.is_compressed or read.file_meta.TransferSyntaxUID == RLELossless
    ):
        from pydicom.pixels import pixel_array

        expected = pixel_array(path, raw=False)
    assert found.shape[0] == frames
    assert np.abs(found.astype(int) - expected.reshape(found.shape).astype(int)).max() <= tolerance


def test_a_real_palette_image_is_in_its_colours() -> None:
    path = require_data("singles/pydicom_pydicom-data/OBXXXX1A_rle.dcm")
    found = image.build([source_series.from_file(path)]).image.pixels
    data_set = pydicom.dcmread(path)
    entries = pydicom.pixels.processing.apply_color_lut(data_set.pixel_array, data_set)
    assert found.shape == (1, 600, 800, 3)
    assert np.array_equal(found[0], entries >> 8)


def test_a_real_radiograph_of_monochrome1_keeps_its_values() -> None:
    path = require_data("singles/ImagingDataCommons_highdicom/dx_image.dcm")
    found = image.build([source_series.from_file(path)]).image
    assert np.array_equal(found.pixels[0], pydicom.dcmread(path).pixel_array)


def test_float_values_stay_as_they_are() -> None:
    path = require_data("singles/pydicom_pydicom-data/parametric_map_float.dcm")
    found = image.build([source_series.from_file(path)]).image.pixels
    assert found.dtype == np.float32
    assert np.array_equal(found[0], pydicom.dcmread(path).pixel_array)


def test_instances_without_pixels_are_passed_over() -> None:
    built = image.build([source(ct_header(2, (0, 0, 0)), None), grey(np.zeros((4, 6), np.uint16))])
    assert built.image.pixels.shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        (ct_series(3), "the series holds 3 images, and the model takes one"),
        ([source(ct_header(1, (0, 0, 0)), None)], "the series holds no image"),
        ([], "the series holds no image"),
        ([grey(np.zeros((4, 6), np.uint16), RescaleSlope=None)], "no Rescale Slope, so its values are no"),
        (
            [grey(np.zeros((4, 6), np.uint16), Modality="PT", RescaleSlope=None)],
            "no Rescale Slope, so its values are not in the unit",
        ),
        ([grey(np.zeros((4, 6), np.uint16), RescaleIntercept=None)], "has no Rescale Intercept, so its"),
        ([radiograph(np.zeros((4, 6), np.uint16), RescaleSlope="-1e30")], "a Rescale Slope of -1e+30"),
        ([radiograph(np.zeros((4, 6), np.uint16), RescaleSlope="0")], "a Rescale Slope of 0, which cannot"),
        ([grey(np.zeros((5, 6), np.uint16))], "decodes to (5, 6) pixels instead of (4, 6)"),
        ([grey(np.zeros((2, 4, 6), np.uint16), NumberOfFrames=3)], "2 of the 3 frames"),
        ([grey(np.zeros((4, 4, 6), np.uint16), NumberOfFrames=3)], "more frames than the 3"),
    ],
)
def test_what_is_not_one_image_is_refused_by_name(instances: list[SourceInstance], reason: str) -> None:
    with pytest.raises(NotAnImage) as caught:
        image.build(instances)
    assert reason in str(caught.value)
    assert caught.value.name == "not-an-image"


def test_a_video_is_refused_by_name() -> None:
    video = source_series.from_file(require_data("made/us_h264_hp41.dcm"))
    with pytest.raises(NotAnImage, match="video"):
        image.build([video])


def test_four_samples_a_pixel_are_refused_by_name() -> None:
    instance = source(
        ct_header(1, (0, 0, 0), SamplesPerPixel=4, PhotometricInterpretation="CMYK", BitsAllocated=8,
                  BitsStored=8, HighBit=7),
        np.zeros((1, 4, 6, 4), np.uint8),
    )  # fmt: skip
    with pytest.raises(UnsupportedPixelData, match="4 samples"):
        image.build([instance])


def test_nothing_is_decoded_when_what_is_declared_is_unfit() -> None:
    def frames() -> Any:
        raise AssertionError("decoded")

    def check(count: int, unit: str) -> None:
        raise UnfitInput(f"{count} {unit}")

    instance = SourceInstance(ct_header(1, (0, 0, 0)), True, frames)
    with pytest.raises(UnfitInput, match=r"1 \[hnsf'U\]"):
        image.build([instance], check=check)


# --- files -----------------------------------------------------------------


def test_files_are_read_as_stored_instances_are(tmp_path: Path) -> None:
    data_set = made.ct_image(pixels=np.arange(64, dtype=np.int16).reshape(8, 8))
    path = file_of(tmp_path, data_set, JPEGLSLossless)
    (instance,) = source_series.from_files([path])
    assert instance.header.SOPInstanceUID == data_set.SOPInstanceUID
    assert instance.has_pixels
    assert np.array_equal(next(iter(instance.frames())), np.arange(64).reshape(8, 8))


def test_what_is_no_dicom_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    with pytest.raises(NotDicom):
        source_series.from_file(path)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(made.part10(made.ct_image())[:-10])
    with pytest.raises(MalformedDataSet):
        source_series.from_file(cut)
