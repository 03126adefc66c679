"""Stored values to real-world ones, and what a model may see of a header."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.errors import NotAnImage, NotAVolume, UnsupportedPixelData
from node.series import geometry, image, series_view, source_series, volume
from node.series.source_series import SourceInstance
from tests.support.data import require_data
from tests.support.made_series import ct_header, ct_series, enhanced_ct, real_series, source


def two_slices(pixels: NDArray[Any], **attributes: Any) -> list[SourceInstance]:
    return [
        source(ct_header(index, (0, 0, index), **attributes), pixels if index else np.zeros_like(pixels))
        for index in range(2)
    ]


def last(instances: list[SourceInstance]) -> NDArray[Any]:
    found: NDArray[Any] = volume.build(instances).volume.voxels[1]
    return found


def test_whole_hounsfield_units_are_exact_and_16_bits_wide() -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
    voxels = last(two_slices(pixels))
    assert voxels.dtype == np.int16
    assert np.array_equal(voxels, pixels.astype(int) - 1024)


def test_values_beyond_16_bits_widen_the_volume_and_stay_exact() -> None:
    pixels = np.full((4, 6), 65535, np.uint16)
    voxels = last(two_slices(pixels, BitsStored=16, RescaleIntercept=0))
    assert voxels.dtype == np.int32
    assert voxels[0, 0] == 65535
    assert np.all(volume.build(two_slices(pixels, RescaleIntercept=0)).volume.voxels[0] == 0)


def test_a_slope_that_is_not_whole_gives_floats() -> None:
    voxels = last(two_slices(np.full((4, 6), 3, np.uint16), RescaleSlope=0.5, RescaleIntercept=1))
    assert voxels.dtype == np.float32
    assert voxels[0, 0] == 2.5


def test_float_pixels_give_floats() -> None:
    assert last(two_slices(np.full((4, 6), 0.25, np.float32), RescaleIntercept=0))[0, 0] == 0.25


def test_each_slice_is_rescaled_by_its_own_slope() -> None:
    instances = ct_series(3, Modality="PT", Units="BQML")
    for index, instance in enumerate(instances):
        instance.header.RescaleSlope, instance.header.RescaleIntercept = 0.5 * (index + 1), 0
    built = volume.build(instances).volume
    assert built.unit == "Bq/ml"
    assert built.voxels[:, 1, 1].tolist() == pytest.approx([512.0, 1025.0, 1539.0])


@pytest.mark.parametrize("padding", [63536, -2000])
def test_padding_of_a_ct_becomes_air_whatever_its_value_representation(padding: int) -> None:
    pixels = np.full((4, 6), 40, np.int16)
    pixels[0] = -2000
    voxels = last(two_slices(pixels, PixelRepresentation=1, PixelPaddingValue=padding, RescaleIntercept=0))
    assert voxels[0, 0] == -1024
    assert voxels[1, 0] == 40


def test_padding_that_came_undecoded_is_understood() -> None:
    header = ct_header(1, (0, 0, 0), PixelRepresentation=1)
    header.add_new("PixelPaddingValue", "OB", (-2000).to_bytes(2, "little", signed=True))
    assert series_view.stored_value(header, "PixelPaddingValue") == -2000


@pytest.mark.parametrize(
    ("written", "is_signed", "meant"),
    [
        (0x0800, 1, -2048),  # 12 bits, as they are stored
        (0xF800, 1, -2048),  # the sign carried on through 16
        (-2048, 1, -2048),
        (0x07FF, 1, 2047),
        (0x0800, 0, 2048),
        (-2000, 0, 63536),
    ],
)
def test_the_sign_of_padding_is_that_of_the_bits_stored(written: int, is_signed: int, meant: int) -> None:
    header = ct_header(1, (0, 0, 0), PixelRepresentation=is_signed)
    header.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    assert series_view.stored_value(header, "PixelPaddingValue") == meant


def test_a_range_of_padding_is_padding() -> None:
    pixels = np.full((4, 6), 40, np.int16)
    pixels[0], pixels[1] = -2000, -1900
    voxels = last(
        two_slices(
            pixels,
            PixelRepresentation=1,
            PixelPaddingValue=-2000,
            PixelPaddingRangeLimit=-1500,
            RescaleIntercept=0,
        )
    )
    assert voxels[:, 0].tolist() == [-1024, -1024, 40, 40]


@pytest.mark.parametrize(
    ("padding", "loss", "expected"),
    [
        # Beside padding below the scale of a CT, nothing that is below it too is an attenuation.
        (-2000, "01", [-1024, -1024, -1024, -1024, -1023, 40]),
        (-2000, "00", [-2010, -1024, -1990, -1030, -1023, 40]),
        (-2000, None, [-2010, -1024, -1990, -1030, -1023, 40]),
        # Padding that is on the scale says nothing of what is below it.
        (-1024, "01", [-2010, -2000, -1990, -1030, -1023, 40]),
        (None, "01", [-2010, -2000, -1990, -1030, -1023, 40]),
    ],
)
def test_padding_that_lossy_compression_spread_is_air(
    padding: int | None, loss: str | None, expected: list[int]
) -> None:
    pixels = np.array([[-2010, -2000, -1990, -1030, -1023, 40]] * 4, np.int16)
    found = two_slices(
        pixels,
        PixelRepresentation=1,
        RescaleIntercept=0,
        **{} if padding is None else {"PixelPaddingValue": padding},
        **{} if loss is None else {"LossyImageCompression": loss},
    )
    assert last(found)[0].tolist() == expected


@pytest.mark.parametrize(
    ("name", "share"),
    [("pydicom_pydicom/693_J2KI.dcm", 0.28), ("pydicom_pylibjpeg-data/CT1_JLSN.dcm", 0.21)],
)
def test_real_images_whose_padding_was_compressed_with_loss_go_no_lower_than_air(
    name: str, share: float
) -> None:
    instance = source_series.from_file(require_data(f"singles/{name}"))
    found = image.build([instance]).image.pixels
    assert found.min() == -1024
    assert (found == -1024).mean() > share


def test_high_padding_of_other_modalities_becomes_the_lowest_value() -> None:
    pixels = np.full((4, 6), 40, np.uint16)
    pixels[0], pixels[1] = 4095, 7
    voxels = last(two_slices(pixels, Modality="MR", PixelPaddingValue=4095, RescaleIntercept=0))
    assert voxels[:, 0].tolist() == [7, 7, 40, 40]


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({}, "[hnsf'U]"),
        ({"RescaleType": "HU"}, "[hnsf'U]"),
        ({"RescaleType": "US"}, "1"),
        ({"Modality": "MR"}, "1"),
        ({"Modality": "PT", "Units": "GML"}, "g/ml"),
        ({"Modality": "PT"}, "1"),
    ],
)
def test_the_unit_says_what_the_header_says(attributes: dict[str, str], unit: str) -> None:
    assert volume.build(ct_series(**attributes)).volume.unit == unit


@pytest.mark.parametrize("kind", ["Z_EFF", "MGML", ""])
def test_frames_in_several_units_are_refused(kind: str) -> None:
    instance = enhanced_ct()
    shared = instance.header.SharedFunctionalGroupsSequence[0]
    (of_all,) = shared.PixelValueTransformationSequence
    of_one = Dataset()
    of_one.RescaleSlope, of_one.RescaleIntercept, of_one.RescaleType = 0.01, 0, kind
    instance.header.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence = [of_one]
    with pytest.raises(NotAVolume, match="mixed units of the values"):
        volume.build([instance])
    with pytest.raises(NotAnImage, match="mixed units of the values"):
        image.build([instance])
    of_all.RescaleType = kind
    assert volume.build([instance]).volume.unit == ("1" if kind else "[hnsf'U]")


def test_pixels_of_another_size_than_declared_are_refused() -> None:
    instances = ct_series(3)
    instances[1] = source(instances[1].header, np.zeros((8, 8), np.uint16))
    with pytest.raises(NotAVolume, match="slice 2 decodes to"):
        volume.build(instances)


def test_frames_that_are_missing_or_too_many_are_refused() -> None:
    instance = enhanced_ct()
    with pytest.raises(NotAVolume, match="frame 4 has no pixels"):
        volume.build([source(instance.header, np.zeros((3, 4, 6), np.uint16))])
    with pytest.raises(NotAVolume, match="more frames"):
        volume.build([source(instance.header, np.zeros((5, 4, 6), np.uint16))])


def test_a_modality_lut_table_is_refused() -> None:
    instances = ct_series(3)
    instances[0].header.ModalityLUTSequence = []
    with pytest.raises(NotAVolume, match="Modality LUT table"):
        volume.build(instances)


def test_a_model_reads_numbers_and_codes_and_no_identity() -> None:
    instances = ct_series(2, StudyDescription="Chest of Phantom", InstitutionName="Here", KVP="120")
    instances[1].header.PatientID = "PHANTOM-2"
    one, two = (series_view.header_view(instance.header) for instance in instances)
    assert one["KVP"] == 120.0
    assert one["ImagePositionPatient"] == (10.0, 20.0, 30.0)
    assert one["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert one["StudyInstanceUID"] == two["StudyInstanceUID"]
    assert one["PatientID"] != two["PatientID"]
    shown = repr((one, two))
    for secret in ("PHANTOM", "Phantom", "Here", "1.2.3.4"):
        assert secret not in shown


def test_digests_cannot_be_linked_across_series() -> None:
    one, two = ct_series(2)
    two.header.SeriesInstanceUID = "1.2.3.5"
    assert (
        series_view.header_view(one.header)["PatientID"] != series_view.header_view(two.header)["PatientID"]
    )


def test_a_frame_of_reference_is_known_again_in_another_series_of_the_study_alone() -> None:
    def frame(header: Dataset) -> Any:
        return series_view.header_view(header)["FrameOfReferenceUID"]

    one, other, elsewhere, of_other_study = (instance.header for instance in ct_series(4))
    other.SeriesInstanceUID = "1.2.3.5"
    elsewhere.FrameOfReferenceUID = "1.2.3.99"
    of_other_study.StudyInstanceUID = "1.2.3.6"
    assert frame(one) == frame(other)
    assert frame(one) not in (frame(elsewhere), frame(of_other_study), one.FrameOfReferenceUID)


def test_a_volume_keeps_what_all_headers_agree_on() -> None:
    header = volume.build(ct_series(3, KVP="120")).volume.header
    assert header["KVP"] == 120.0
    assert "InstanceNumber" not in header


def test_a_series_is_shown_in_order_with_the_reason_where_pixels_cannot_be_decoded() -> None:
    def broken() -> Any:
        raise UnsupportedPixelData("no such codec")
        yield

    instances = ct_series(3)
    instances[1] = SourceInstance(instances[1].header, True, broken)
    series, ordered = series_view.view(instances[::-1], np.empty)
    assert [one.number for one in series.instances] == [1, 2, 3]
    assert [one.header.InstanceNumber for one in ordered] == [1, 2, 3]
    assert series.instances[1].pixels is None
    assert series.instances[1].pixels_error == "no such codec"
    pixels = series.instances[2].pixels
    assert pixels is not None
    assert pixels.shape == (1, 4, 6)


def test_video_is_not_decoded_and_no_fault() -> None:
    instances = ct_series(1)
    video = SourceInstance(instances[0].header, True, instances[0].frames, is_decodable=False)
    series, _ = series_view.view([video], np.empty)
    assert (series.instances[0].pixels, series.instances[0].pixels_error) == (None, "")


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_values_that_cannot_be_decoded_count_as_absent() -> None:
    header = ct_header(1, (0, 0, 0))
    for keyword, written in (("NumberOfFrames", b"1A"), ("KVP", b"many"), ("InstanceNumber", b"x")):
        tag = Tag(keyword)
        raw = RawDataElement(tag, None, len(written), written, 0, False, True)
        header._dict[tag] = raw
    series, _ = series_view.view([source(header, np.zeros((4, 6), np.uint16))], np.empty)
    (shown,) = series.instances
    assert shown.number == 1
    assert shown.header["KVP"] is None
    assert geometry.planes([header])[0].label == "instance 1 of 1"


def test_places_of_frames_are_shown() -> None:
    shown = series_view.header_view(enhanced_ct(2).header)
    assert shown["FramePositions"] == ((0.0, 0.0, 50.0), (0.0, 0.0, 47.0))
    assert shown["FramePixelSpacings"] == ((0.8, 0.5), (0.8, 0.5))


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    ("folder", "shape", "unit"),
    [
        ("series/CT_abdomen_CRLM-1004", (41, 512, 512), "[hnsf'U]"),
        ("series/MR_T1_brain_HFS", (35, 256, 256), "1"),
        ("series/PT_wholebody_STS-001", (267, 128, 128), "Bq/ml"),
        ("series/STS-003_PET", (51, 30, 29), "g/ml"),
        ("series/STS-003_CT", (51, 158, 154), "[hnsf'U]"),
    ],
)
def test_real_series_are_volumes(folder: str, shape: tuple[int, int, int], unit: str) -> None:
    built = volume.build(real_series(require_data(folder))).volume
    assert built.voxels.shape == shape
    assert built.unit == unit


def test_a_real_volume_holds_what_pydicom_decodes() -> None:
    instances = real_series(require_data("series/CT_abdomen_CRLM-1004"))
    built = volume.build(instances)
    middle = built.ordered[20]
    stored = next(middle.frames()).astype(int) - 1024
    stored[stored == -2000 - 1024] = -1024
    assert np.array_equal(built.volume.voxels[20], stored)
