"""The model ``series-quality``: each fault planted is found, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models import series_faults as faulty
from models import series_quality as quality
from models.series_quality import SeriesQuality
from models.types import Code, Findings, Inputs, InstanceView, Series
from node.series import series_view
from tests.support.data import require_data
from tests.support.made_series import enhanced_ct, real_series


def image(number: int, z: float | None = None, **header: Any) -> InstanceView:
    rng = np.random.default_rng(number)
    facts = {
        "PatientID": "aa",
        "StudyInstanceUID": "bb",
        "Modality": "CT",
        "Rows": 8,
        "Columns": 8,
        "SamplesPerPixel": 1,
        "BitsStored": 12,
        "PixelRepresentation": 0,
        "PixelSpacing": (0.7, 0.7),
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "ImagePositionPatient": (0.0, 0.0, 2.5 * number if z is None else z),
        **header,
    }
    pixels = rng.integers(0, 2000, (1, 8, 8)).astype(np.uint16)
    return InstanceView(number, {key: value for key, value in facts.items() if value is not None}, pixels)


def with_pixels(
    number: int, pixels: np.ndarray[Any, Any] | None, error: str = "", **header: Any
) -> InstanceView:
    made = image(number, **header)
    return InstanceView(made.number, made.header, pixels, error)


def stack(count: int = 6) -> list[InstanceView]:
    return [image(number) for number in range(1, count + 1)]


def predict(instances: list[InstanceView]) -> Findings:
    return SeriesQuality().predict(Inputs({"series": Series(tuple(instances))}))


def verdict(findings: Findings) -> Code | str:
    assert findings.evaluations[0].concept == quality.VERDICT
    return findings.evaluations[0].value


def faults(instances: list[InstanceView]) -> list[tuple[Code, Code | str]]:
    findings = predict(instances)
    found = [(one.concept, one.value) for one in findings.evaluations[1:]]
    assert verdict(findings) == (quality.FAIL if found else quality.PASS)
    return found


def test_a_whole_stack_passes_with_its_numbers() -> None:
    findings = predict(stack())
    assert verdict(findings) == quality.PASS
    assert [(one.concept.meaning, one.value) for one in findings.measurements] == [
        ("Number of instances", 6),
        ("Number of slices", 6),
        ("Spacing between slices", 2.5),
    ]
    assert findings.summary == "Series quality: pass."


def test_missing_slices_are_counted_and_placed() -> None:
    instances = [one for one in stack(9) if one.number not in (4, 5)]
    assert faults(instances) == [(faulty.MISSING, "2 slices are missing between instance 3 and instance 6")]


def test_uneven_spacing_is_measured() -> None:
    instances = [*stack(5), image(6, z=16.1)]
    assert faults(instances) == [
        (faulty.UNEVEN, "3.60 mm instead of 2.50 mm between instance 5 and instance 6")
    ]


def test_two_slices_at_one_place_are_duplicates() -> None:
    (concept, text) = faults([*stack(), image(9, z=5.0)])[0]
    assert concept == faulty.DUPLICATE
    assert text == "7 images lie at 6 places: instance 2 and instance 9"


def test_phases_at_every_place_are_told_from_single_duplicates() -> None:
    again = [image(number + 100, z=2.5 * number) for number in range(1, 7)]
    ((_, text),) = faults([*stack(), *again])
    assert "12 images lie at 6 places, 2 at each (phases or echoes in one series?)" in str(text)


def test_the_same_pixels_twice_are_duplicates() -> None:
    twin = with_pixels(7, image(3).pixels)
    assert faults([*stack(), twin]) == [
        (faulty.DUPLICATE, "1 images are duplicates: instance 7 shows the same pixels as instance 3")
    ]


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("Rows", 16, "Mixed image size: 6 and 1 instances; the fewer are instance 7"),
        ("PixelSpacing", (0.8, 0.8), "Mixed pixel spacing: 6 and 1 instances; the fewer are instance 7"),
        ("BitsStored", 16, "Mixed bits stored: 6 and 1 instances; the fewer are instance 7"),
        (
            "ImageOrientationPatient",
            (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
            "Mixed orientation: 6 and 1 instances; the fewer are instance 7",
        ),
    ],
)
def test_mixed_geometry_is_named(keyword: str, value: object, text: str) -> None:
    assert (faulty.MIXED, text) in faults([*stack(), image(7, **{keyword: value})])


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "Modality", "AccessionNumber"])
def test_attributes_that_must_agree_are_named_without_their_values(keyword: str) -> None:
    assert faults([*stack(), image(7, **{keyword: "secret"})]) == [
        (faulty.MISMATCH, f"{keyword} has 2 values in one series (6 and 1 instances)")
    ]


def test_constant_images_are_named() -> None:
    assert faults([*stack(), with_pixels(7, np.zeros((1, 8, 8), np.uint16))]) == [
        (faulty.CONSTANT, "1 images have one value everywhere: instance 7")
    ]


def clipped(share: float, top: int = 4095) -> np.ndarray[Any, Any]:
    pixels = np.arange(6400, dtype=np.uint16).reshape(1, 80, 80) % top
    pixels.ravel()[: int(6400 * share)] = top
    return pixels


def test_clipping_at_the_upper_end_is_found() -> None:
    ((concept, text),) = faults([*stack(), with_pixels(7, clipped(0.05))])
    assert concept == faulty.CLIPPED
    assert "up to 5.0 % of instance 7" in str(text)


def test_a_few_bright_pixels_or_padding_are_no_clipping() -> None:
    assert not faults([*stack(), with_pixels(7, clipped(0.005))])
    assert not faults([*stack(), with_pixels(7, clipped(0.05), PixelPaddingValue=4095)])
    assert not faults([*stack(), with_pixels(7, clipped(0.05, top=3000))])


def test_a_detector_of_fewer_bits_than_stored_is_clipped_at_its_own_end() -> None:
    ((concept, _),) = faults([with_pixels(1, clipped(0.05), BitsStored=16, ImagePositionPatient=None)])
    assert concept == faulty.CLIPPED


def test_pixels_that_cannot_be_decoded_are_named_with_the_reason() -> None:
    assert faults([*stack(), with_pixels(7, None, error="no such codec")]) == [
        (faulty.UNREADABLE, "Pixels of 1 instances cannot be decoded: instance 7 (no such codec)")
    ]


def test_a_projection_image_has_no_slices_and_passes() -> None:
    findings = predict([image(1, ImagePositionPatient=None, ImageOrientationPatient=None, Modality="DX")])
    assert verdict(findings) == quality.PASS
    assert len(findings.measurements) == 1
    assert findings.checks[1].reason == "no stack of parallel slices, so spacing was not checked"


def test_colour_frames_and_floats_are_looked_at_without_complaint() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    assert not faults([with_pixels(1, colour, SamplesPerPixel=3, NumberOfFrames=3, BitsStored=8)])
    assert not faults([with_pixels(1, np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8))])


def test_frames_of_an_enhanced_object_are_slices() -> None:
    series, _ = series_view.view([enhanced_ct(5)], np.empty)
    findings = SeriesQuality().predict(Inputs({"series": series}))
    assert verdict(findings) == quality.PASS
    assert [one.value for one in findings.measurements] == [1, 5, 3.0]


def test_coordinates_rounded_to_a_tenth_are_even() -> None:
    assert not faults([image(number, z=round(0.625 * number, 1)) for number in range(1, 20)])


def test_video_is_no_fault_but_is_said_not_to_be_looked_at() -> None:
    findings = predict([with_pixels(1, None, ImagePositionPatient=None, NumberOfFrames=90)])
    assert verdict(findings) == quality.PASS
    assert findings.checks[0].reason == "1 images were not looked at: nothing here decodes them"


def test_many_different_values_are_not_listed_one_by_one() -> None:
    instances = [image(number, FrameOfReferenceUID=str(number)) for number in range(1, 9)]
    assert faults(instances) == [
        (
            faulty.MISMATCH,
            "FrameOfReferenceUID has 8 values in one series (1 and 1 and 1 and 5 others instances)",
        )
    ]


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(ValueError, match="no instances"):
        predict([])


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    "folder", ["series/CT_abdomen_CRLM-1004", "series/MR_T1_brain_HFS", "series/STS-003_CT"]
)
def test_real_series_pass(folder: str) -> None:
    series, _ = series_view.view(real_series(require_data(folder)), np.empty)
    assert SeriesQuality().predict(Inputs({"series": series})).summary == "Series quality: pass."
