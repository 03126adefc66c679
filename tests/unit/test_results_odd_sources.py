"""Sources that cannot hold all that was found: each result is right, or is left out with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTDoseStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from models.types import Code, Findings, Mark, Transform
from node.errors import NotAnImage, ResultImpossible
from node.results.build import Source
from node.series import image as series_image
from tests.support.made_findings import (
    LESION,
    NODULE,
    all_built,
    found,
    image_source,
    made_source,
    read,
    region,
    smooth,
    source_of,
)
from tests.support.made_series import AXIAL, ct_header, enhanced_ct, numbered, places_mm, source

ONE = Code("1", "UCUM", "no units")
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def words(report: Dataset) -> str:
    """All texts of a report, each a line."""

    def texts(item: Dataset) -> list[str]:
        own = [item.TextValue] if item.get("ValueType") == "TEXT" else []
        return own + [one for child in item.get("ContentSequence", []) for one in texts(child)]

    return "\n".join(texts(report))


def built(findings: Findings, of: Source, *kinds: Any) -> tuple[dict[str, list[Dataset]], str]:
    """What was made, by kind, and the words of the report."""
    made: dict[str, list[Dataset]] = {}
    for one in all_built(findings, of, kinds=("sr", *kinds)):
        made.setdefault(one.kind, []).append(read(one))
    return made, words(made["sr"][0])


def two_stacks() -> Source:
    """One enhanced image whose third and fourth frames lie across the first two."""
    header = enhanced_ct(4, (0, 0, 3.0)).header
    del header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for index, group in enumerate(header.PerFrameFunctionalGroupsSequence):
        plane = Dataset()
        plane.ImageOrientationPatient = list(AXIAL if index < 2 else SAGITTAL)
        group.PlaneOrientationSequence = [plane]
    return image_source(4, header=header)


def in_one_place() -> Source:
    """One enhanced image that has three frames of one plane, as of three moments."""
    return image_source(3, header=enhanced_ct(3, (0, 0, 0)).header)


def several_enhanced(count: int, frames: int) -> list[Any]:
    """Neighbouring enhanced images of one series, each of some frames."""
    made = []
    for index in range(count):
        instance = enhanced_ct(frames, (0, 0, 3.0))
        instance.header.SOPInstanceUID = f"1.2.3.4.{index + 1}"
        for number, group in enumerate(instance.header.PerFrameFunctionalGroupsSequence):
            height = 3.0 * (index * frames + number)
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, height]
        made.append(instance)
    return numbered(made)


def named_frames(data_set: Dataset) -> set[int]:
    """All frames that an object refers to, at any depth."""
    found: set[int] = set()

    def look(_: Dataset, element: DataElement) -> None:
        if element.keyword == "ReferencedFrameNumber":
            found.update(element.value if element.VM > 1 else [element.value])

    data_set.walk(look)
    return found


# --- frames that are no stack ------------------------------------------------


def test_no_region_or_map_is_placed_on_frames_that_lie_each_in_a_way_of_its_own() -> None:
    stacks = two_stacks()
    made, said = built(found(region(np.ones((4, 4, 6), bool))), stacks, "rtstruct", "seg")
    assert set(made) == {"sr"}
    assert "do not lie in one stack" in said
    made, said = built(found(smooth(np.ones((4, 4, 6), np.float32), kind="map")), stacks, "pm")
    assert set(made) == {"sr"}
    assert "without one place in the patient" in said


@pytest.mark.parametrize(("frame", "letters"), [(0, ["L", "P"]), (3, ["P", "F"])])
def test_the_letters_of_a_picture_are_those_of_the_frame_that_it_shows(
    frame: int, letters: list[str]
) -> None:
    mark = Mark("p", "P", "point", np.array([[frame, 1, 1]], float), LESION, NODULE)
    made, _ = built(found(mark), two_stacks(), "sc")
    [picture] = made["sc"]
    assert picture.SourceImageSequence[0].ReferencedFrameNumber == frame + 1
    assert picture.PatientOrientation == letters


def test_frames_in_one_place_hold_no_segmentation_and_no_map_and_the_report_says_why() -> None:
    made, said = built(found(region(np.ones((3, 4, 6), bool))), in_one_place(), "seg", "labelmap")
    assert set(made) == {"sr"}
    assert "several frames of the source lie in one place" in said
    made, said = built(found(smooth(np.ones((3, 4, 6), np.float32), kind="map")), in_one_place(), "pm")
    assert set(made) == {"sr"}
    assert "several frames in one place" in said


def test_what_is_left_out_ends_the_run_where_no_report_could_say_so() -> None:
    with pytest.raises(ResultImpossible, match="several frames in one place"):
        all_built(found(smooth(np.ones((3, 4, 6), np.float32), kind="map")), in_one_place(), kinds=("pm",))


# --- several enhanced images of one series -----------------------------------


def test_regions_lie_on_the_frames_of_several_enhanced_images() -> None:
    instances = several_enhanced(2, 3)
    both = source_of(instances)
    assert both.volume is not None
    places = places_mm(instances)
    # The fifth frame of all is the second of the second image.
    value = 4 * 24 + 8
    made, said = built(found(region(both.volume.voxels == value)), both, "rtstruct", "seg")
    [structures] = made["rtstruct"]
    [contour] = structures.ROIContourSequence[0].ContourSequence
    [named] = contour.ContourImageSequence
    assert (named.ReferencedSOPInstanceUID, named.ReferencedFrameNumber) == ("1.2.3.4.2", 2)
    corners = np.array(contour.ContourData, float).reshape(-1, 3)
    assert np.abs(corners.mean(axis=0) - places[value]).max() < 1e-6
    assert "seg" not in made
    assert "in several multi-frame images" in said


@pytest.mark.parametrize(("count", "frames"), [(2, 3), (4, 1)])
def test_no_image_is_derived_of_several_enhanced_images_and_the_report_says_why(
    count: int, frames: int
) -> None:
    both = source_of(several_enhanced(count, frames))
    assert both.volume is not None
    made, said = built(found(smooth(both.volume.voxels)), both, "image", "pm")
    assert set(made) == {"sr"}
    assert f"the source is {count} of them" in said


@pytest.mark.parametrize(("count", "frames"), [(2, 3), (4, 1)])
def test_an_image_that_is_meant_as_a_whole_is_named_without_frames(count: int, frames: int) -> None:
    both = source_of(several_enhanced(count, frames))
    made, _ = built(found(region(np.ones((count * frames, 4, 6), bool))), both, "rtstruct", "pr")
    [series] = made["pr"][0].ReferencedSeriesSequence
    assert [named_frames(one) for one in series.ReferencedImageSequence] == [set()] * count
    of_contours = named_frames(made["rtstruct"][0])
    assert of_contours == (set(range(1, frames + 1)) if frames > 1 else set())


def test_the_frame_of_an_enhanced_image_of_one_has_no_number() -> None:
    one = image_source(1, header=enhanced_ct(1).header)
    ones = np.ones((1, 4, 6), np.float32)
    mark = Mark("p", "P", "point", np.array([[0, 1, 1]], float), LESION, NODULE)
    things = (region(ones > 0), mark, smooth(ones), smooth(ones, name="map", kind="map", quantity=ONE))
    made, _ = built(found(*things), one, "seg", "image", "pm", "rtstruct", "pr")
    assert set(made) == {"sr", "seg", "image", "pm", "rtstruct", "pr"}
    for kind in made:
        assert named_frames(made[kind][0]) == set(), kind


def test_nothing_is_laid_on_instances_that_are_no_grid() -> None:
    several = Source(made_source().data_sets, None, "00")
    mark = Mark("p", "P", "point", np.array([[0, 1, 1]], float), LESION, NODULE)
    things = (region(np.ones((1, 4, 6), bool)), mark, smooth(np.ones((1, 4, 6))))
    made, said = built(found(*things), several, "seg", "image", "pm", "rtstruct", "pr")
    assert set(made) == {"sr"}
    assert "cannot be laid on its source: it was given as instances" in said


# --- classes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "class_uid", [VLWholeSlideMicroscopyImageStorage, SegmentationStorage, RTDoseStorage, "1.3.9999.1"]
)
def test_no_image_is_derived_of_a_class_that_is_not_known_here_and_the_report_says_why(
    class_uid: str,
) -> None:
    made, said = built(
        found(smooth(np.ones((1, 4, 6), np.int16))), image_source(SOPClassUID=class_uid), "image"
    )
    assert set(made) == {"sr"}
    assert "derived images of that class are not made here" in said


def test_no_enhanced_image_is_derived_of_a_source_without_functional_groups() -> None:
    header = image_source(3).data_sets[0]
    header.SOPClassUID, header.Modality = EnhancedCTImageStorage, "CT"
    made, said = built(found(smooth(np.ones((3, 4, 6), np.int16))), image_source(3, header=header), "image")
    assert set(made) == {"sr"}
    assert "the source has none" in said


def test_an_enhanced_ct_holds_no_other_unit_than_its_own() -> None:
    source = source_of([enhanced_ct()])
    made, said = built(found(smooth(np.ones((4, 4, 6), np.int16), unit=ONE)), source, "image")
    assert set(made) == {"sr"}
    assert "such images hold Hounsfield units" in said


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_half_of_a_place_is_none(missing: str) -> None:
    of = ct_header(1, (0, 0, 0), **{missing: None})
    made, said = built(found(smooth(np.ones((1, 4, 6), np.int16))), image_source(header=of), "image", "seg")
    assert set(made) == {"sr"}
    assert "such images have a place in the patient" in said
    radiograph = image_source(ImageOrientationPatient=list(AXIAL))
    made, _ = built(found(smooth(np.ones((1, 4, 6), np.int16))), radiograph, "image")
    assert "ImageOrientationPatient" not in made["image"][0]


def test_a_dose_is_no_image() -> None:
    dose = ct_header(1, (0, 0, 0), SOPClassUID=RTDoseStorage, Modality="RTDOSE", DoseGridScaling="0.001")
    with pytest.raises(NotAnImage, match="RT Dose"):
        series_image.build([source(dose, np.zeros((4, 6), np.uint16))])


# --- elements ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "quantity", "written"),
    [
        ("Bq/ml", None, ("BQML", None)),
        ("g/ml", None, ("GML", "BW")),
        ("g/ml", Code("126402", "DCM", "SUVlbm"), ("GML", "LBM")),
        ("{SUVbsa}cm2/ml", None, ("CM2ML", "BSA")),
        ("1", None, ("NONE", None)),
        ("%", None, ("PCNT", None)),
    ],
)
def test_units_of_a_pet_are_those_of_the_image_itself(
    unit: str, quantity: Code | None, written: tuple[str, str | None]
) -> None:
    pet: dict[str, Any] = {"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT"}
    source = made_source(2, RescaleIntercept=0, Units="BQML", SUVType="LBMJAMES128", **pet)
    image = smooth(np.ones((2, 4, 6), np.float32), unit=Code(unit, "UCUM", unit), quantity=quantity)
    made, _ = built(found(image), source, "image")
    assert {(one.Units, one.get("SUVType")) for one in made["image"]} == {written}


def test_a_unit_that_a_pet_has_no_code_for_is_left_out_with_the_reason() -> None:
    pet: dict[str, Any] = {"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT"}
    source = made_source(2, RescaleIntercept=0, Units="BQML", **pet)
    made, said = built(
        found(smooth(np.ones((2, 4, 6), np.float32), unit=Code("mm", "UCUM", "mm"))), source, "image"
    )
    assert set(made) == {"sr"}
    assert "is in mm, for which images of a PET have no code" in said


@pytest.mark.parametrize(
    ("asking", "kept"),
    [
        ({"ScanningSequence": ["GR", "IR"], "ScanOptions": "PPG"}, {"InversionTime", "TriggerTime"}),
        ({"ScanningSequence": "GR", "ScanOptions": ["FS", "PER"]}, set()),
        ({}, set()),
    ],
)
def test_times_of_an_inversion_or_a_trigger_stay_where_there_was_one(
    asking: dict[str, Any], kept: set[str]
) -> None:
    source = made_source(
        2, SOPClassUID=MRImageStorage, Modality="MR", InversionTime=900, TriggerTime=12, **asking
    )
    made, _ = built(found(smooth(np.ones((2, 4, 6), np.int16), unit=ONE)), source, "image")
    for one in made["image"]:
        assert {keyword for keyword in ("InversionTime", "TriggerTime") if keyword in one} == kept


@pytest.mark.parametrize(("stated", "kept"), [(["A", "FL"], ["A", "FL"]), ("CC", None), (["A", "X"], None)])
def test_directions_that_are_none_are_not_taken_over(stated: Any, kept: list[str] | None) -> None:
    made, _ = built(
        found(smooth(np.ones((1, 4, 6), np.int16)), region(np.ones((1, 4, 6), bool))),
        image_source(PatientOrientation=stated),
        "image",
        "seg",
    )
    for one in (*made["image"], *made["seg"]):
        assert (one.PatientOrientation or None) == kept


def test_frames_whose_index_is_none_are_counted_anew_by_their_place() -> None:
    instance = enhanced_ct(3)
    for group in instance.header.PerFrameFunctionalGroupsSequence:
        content = Dataset()
        content.DimensionIndexValues = [1, 7]
        group.FrameContentSequence = [content]
    source = source_of([instance])
    made, _ = built(found(smooth(np.ones((3, 4, 6), np.int16))), source, "image")
    [one] = made["image"]
    assert len(one.DimensionIndexSequence) == 2
    # The frames run from head to feet, places from feet to head.
    counted = [group.FrameContentSequence[0] for group in one.PerFrameFunctionalGroupsSequence]
    assert [list(content.DimensionIndexValues) for content in counted] == [[1, 3], [1, 2], [1, 1]]


def test_an_index_that_counts_from_zero_counts_from_one() -> None:
    instance = enhanced_ct(3)
    pointers = [Dataset(), Dataset()]
    for pointer in pointers:
        pointer.DimensionIndexPointer = 0x00209057
    instance.header.DimensionIndexSequence = pointers
    for index, group in enumerate(instance.header.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.DimensionIndexValues = [1, index]
        group.FrameContentSequence = [content]
    made, _ = built(found(smooth(np.ones((3, 4, 6), np.int16))), source_of([instance]), "image")
    groups = made["image"][0].PerFrameFunctionalGroupsSequence
    indices = [list(group.FrameContentSequence[0].DimensionIndexValues) for group in groups]
    assert indices == [[1, 1], [1, 2], [1, 3]]


# --- registrations -----------------------------------------------------------


@pytest.mark.parametrize("without", ["fixed", "moving"])
def test_an_input_without_a_frame_of_reference_is_registered_in_one_of_its_own(without: str) -> None:
    def one(name: str, series: str) -> Source:
        frame = None if name == without else f"{series}.0"
        made = made_source(3, SeriesInstanceUID=series, FrameOfReferenceUID=frame)
        for number, data_set in enumerate(made.data_sets, 1):
            data_set.SOPInstanceUID = f"{series}.{number}"
        return replace(made, name=name)

    both = replace(one("fixed", "1.2.7"), others={"moving": one("moving", "1.2.8")})
    transform = Transform("match", "Match", "moving", "fixed", np.eye(4))
    made, _ = built(Findings(transforms=(transform,)), both, "reg")
    [registration] = made["reg"]
    fixed, moving = registration.RegistrationSequence
    assert fixed.FrameOfReferenceUID == registration.FrameOfReferenceUID
    assert moving.FrameOfReferenceUID != fixed.FrameOfReferenceUID
