"""Contours of a structure set enclose the very voxels that were found, and lie in their slices."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from skimage.draw import polygon2mask

from models.types import Mark
from node.errors import ResultImpossible
from node.results.build import Source
from node.results.checks.check_report import content
from node.results.overlays.contours import contours
from tests.support.data import require_data
from tests.support.made_findings import (
    LEFT,
    LESION,
    NODULE,
    all_built,
    found,
    image_source,
    made_source,
    of_kind,
    read,
    real_source,
    region,
    source_of,
)
from tests.support.made_series import LYING, ct_series, numbered, places_mm, source

structure_sets = partial(of_kind, "rtstruct")


def contour_items(made: Dataset, number: int) -> list[Dataset]:
    [item] = [one for one in made.ROIContourSequence if one.ReferencedROINumber == number]
    return list(item.ContourSequence)


def wide(rows: int, columns: int) -> Source:
    """Two slices of as many rows and columns."""
    instances = []
    for one in ct_series(2):
        one.header.Rows, one.header.Columns = rows, columns
        one.header.PixelSpacing = [0.123, 0.4567]
        instances.append(source(one.header, np.zeros((rows, columns), np.uint16)))
    return source_of(instances)


def filled(made: Dataset, number: int, of: Source) -> NDArray[np.bool_]:
    """The voxels whose centres the contours of a region enclose: read by the file and the source alone."""
    by_uid = {str(one.SOPInstanceUID): index for index, one in enumerate(of.data_sets)}
    first = of.data_sets[0]
    mask = np.zeros((len(of.data_sets), first.Rows, first.Columns), dtype=bool)
    for contour in contour_items(made, number):
        [image] = contour.ContourImageSequence
        index = by_uid[str(image.ReferencedSOPInstanceUID)]
        header = of.data_sets[index]
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        spacing = np.array(header.PixelSpacing, float)
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        offset = points - np.array(header.ImagePositionPatient, float)
        assert np.abs(offset @ np.cross(axes[0], axes[1])).max() < 2e-3
        places = np.column_stack([offset @ axes[1] / spacing[0], offset @ axes[0] / spacing[1]])
        # A micrometre of rounding must not decide what lies inside.
        mask[index] ^= polygon2mask(mask.shape[1:], places.round(2))
    return mask


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


SHAPES = {
    "one voxel": [".....", "..#..", "....."],
    "a corner": ["#....", ".....", "....#"],
    "touching corners": [".#...", "..#..", ".#..."],
    "a hole": ["#####", "#...#", "#####"],
    "two holes": ["#######", "#.#.#.#", "#######", "##.##.#", "#######"],
    "a part in a hole": ["#######", "#.....#", "#..#..#", "#.....#", "#######"],
    "a hole that touches the outside": ["####", "#..#", "#.##", "###."],
    "a step": ["##...", ".##..", "..##."],
    "everything": ["###", "###"],
}


@pytest.mark.parametrize("name", SHAPES)
def test_contours_enclose_the_centres_and_the_area_of_their_voxels(name: str) -> None:
    mask = np.array([[one == "#" for one in row] for row in SHAPES[name]])
    inside, area = np.zeros_like(mask), 0.0
    for contour in contours(mask):
        inside ^= polygon2mask(mask.shape, contour)
        after = np.roll(contour, -1, axis=0)
        area += abs(float((contour[:, 0] * after[:, 1] - contour[:, 1] * after[:, 0]).sum())) / 2
        assert len({tuple(one) for one in contour}) >= 4
    assert np.array_equal(inside, mask)
    assert area == mask.sum()


def test_contours_of_any_region_enclose_it() -> None:
    random = np.random.default_rng(11)
    for _ in range(200):
        mask = random.random(random.integers(1, 12, 2)) < random.choice([0.2, 0.5, 0.8])
        inside = np.zeros_like(mask)
        for contour in contours(mask):
            inside ^= polygon2mask(mask.shape, contour)
        assert np.array_equal(inside, mask)


def test_the_contour_of_a_noisy_slice_encloses_it() -> None:
    # One part with hundreds of holes.
    mask = np.random.default_rng(5).random((160, 160)) < 0.85
    found = list(contours(mask))
    inside = np.zeros_like(mask)
    for contour in found:
        inside ^= polygon2mask(mask.shape, contour)
    assert np.array_equal(inside, mask)
    assert max(len(contour) for contour in found) > 5_000


@pytest.mark.parametrize(
    ("shape", "points", "kind"),
    [
        ("polygon", [(1, 1, 1)] * 4, "POINT"),
        ("polyline", [(1, 1, 1)] * 2, "POINT"),
        ("polygon", [(1, 1, 1), (1, 2, 3), (1, 2, 3), (1, 1, 1)], "OPEN_PLANAR"),
        ("polygon", [(1, 1, 1), (1, 1, 1), (1, 2, 3), (1, 3, 1)], "CLOSED_PLANAR"),
    ],
)
def test_a_mark_of_repeated_points_is_what_is_left_of_it(shape: Any, points: Any, kind: str) -> None:
    mark = Mark("m", "M", shape, np.array(points, float), LESION, NODULE)
    [made] = structure_sets(made_source(), mark)
    [contour] = made.ROIContourSequence[0].ContourSequence
    assert contour.ContourGeometricType == kind
    assert contour.NumberOfContourPoints == len({tuple(one) for one in points})


@pytest.mark.parametrize("name", [one for one in LYING if not one.startswith("multi-frame")])
@pytest.mark.checklist("R2")
def test_single_voxels_come_back_from_every_series(name: str) -> None:
    of = source_of(numbered(LYING[name]()))
    assert of.volume is not None
    mask = np.isin(of.volume.voxels, (3, 24, 41, 77, 90))
    [made] = structure_sets(of, region(mask))
    assert np.array_equal(filled(made, 1, of), mask)
    assert made.FrameOfReferenceUID == "1.2.3.4.0"


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("R2")
def test_the_corners_of_a_voxel_lie_around_it_where_its_image_has_it(name: str) -> None:
    instances = numbered(LYING[name]())
    of = source_of(instances)
    assert of.volume is not None
    [made] = structure_sets(of, region(of.volume.voxels == 41))
    [contour] = contour_items(made, 1)
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    place = places_mm(instances)[41]
    assert np.abs(points.mean(axis=0) - place).max() < 1e-3
    assert np.allclose(np.linalg.norm(points - place, axis=1), np.hypot(0.8, 0.5) / 2, atol=2e-3)
    [image] = contour.ContourImageSequence
    by_uid = {one.header.SOPInstanceUID: list(one.frames()) for one in instances}
    frame = by_uid[image.ReferencedSOPInstanceUID][int(image.get("ReferencedFrameNumber", 1)) - 1]
    assert 41 in frame.astype(int) - (1000 if len(by_uid) == 1 else 1024)


@pytest.mark.checklist("R2")
def test_real_lungs_come_back_whole() -> None:
    of = real_source(require_data("series/CT_chest_LIDC-0314"), 3)
    assert of.volume is not None
    mask = of.volume.voxels < -500
    [made] = structure_sets(of, region(mask))
    found = filled(made, 1, of)
    assert dice(found, mask) >= 0.9999
    assert np.array_equal(found, mask)


@pytest.mark.checklist("A2", "R1")
def test_regions_are_named_coloured_and_coded_and_say_what_made_them() -> None:
    of = made_source()
    assert of.volume is not None
    mask = of.volume.voxels >= 2
    [made] = structure_sets(
        of, region(mask, "left-lung", laterality=LEFT, colour=(1, 2, 3)), region(~mask, "rest")
    )
    assert [one.ROIName for one in made.StructureSetROISequence] == ["Left-Lung", "Rest"]
    assert list(made.ROIContourSequence[0].ROIDisplayColor) == [1, 2, 3]
    [algorithm] = made.StructureSetROISequence[0].ROIDerivationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lungs", "1.2.3")
    first = made.RTROIObservationsSequence[0]
    [code] = first.RTROIIdentificationCodeSequence
    assert code.CodeMeaning == "Lung"
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert (first.RTROIInterpretedType, made.ApprovalStatus) == ("ORGAN", "UNAPPROVED")
    assert "not for diagnosis" in made.StructureSetDescription


@pytest.mark.checklist("R1")
def test_the_chain_of_references_names_every_image_of_the_series() -> None:
    of = made_source(4)
    [made] = structure_sets(of, region(np.ones((4, 4, 6), dtype=bool)))
    [frame] = made.ReferencedFrameOfReferenceSequence
    [study] = frame.RTReferencedStudySequence
    [series] = study.RTReferencedSeriesSequence
    assert (frame.FrameOfReferenceUID, study.ReferencedSOPInstanceUID) == ("1.2.3.4.0", "1.2.3")
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert [one.ReferencedSOPInstanceUID for one in series.ContourImageSequence] == [
        one.SOPInstanceUID for one in of.data_sets
    ]


def test_marks_are_points_and_lines_in_the_patient() -> None:
    of = made_source(4)
    assert of.volume is not None
    marks = (
        Mark("place", "", "point", np.array([[1.5, 2.0, 3.0]]), LESION, NODULE),
        Mark("line", "", "polyline", np.array([[2, 0, 0], [2, 3, 5]], float), LESION, NODULE),
        Mark("box", "", "box", np.array([[1, 1, 1], [2, 2, 4]], float), LESION, NODULE),
    )
    [made] = structure_sets(of, *marks)
    [place] = contour_items(made, 1)
    assert place.ContourGeometricType == "POINT"
    assert np.allclose(np.array(place.ContourData, float), (of.volume.affine @ (1.5, 2, 3, 1))[:3], atol=1e-3)
    [line] = contour_items(made, 2)
    assert (line.ContourGeometricType, line.NumberOfContourPoints) == ("OPEN_PLANAR", 2)
    box = contour_items(made, 3)
    assert [one.NumberOfContourPoints for one in box] == [4, 4]
    mask = np.zeros((4, 4, 6), dtype=bool)
    mask[1:3, 1:3, 1:5] = True
    assert np.array_equal(filled(made, 3, of), mask)


def test_each_input_has_a_structure_set_and_one_without_a_place_has_none() -> None:
    other = made_source(3, SeriesInstanceUID="1.2.3.5")
    for index, one in enumerate(other.data_sets):
        one.SOPInstanceUID = f"1.2.3.5.{index}"
    of = replace(made_source(4), name="now", others={"t2": other, "film": image_source()})
    made = structure_sets(
        of,
        region(np.ones((4, 4, 6), dtype=bool), "a"),
        region(np.ones((3, 4, 6), dtype=bool), "b", on="t2"),
        region(np.ones((1, 4, 6), dtype=bool), "c", on="film"),
        region(np.zeros((4, 4, 6), dtype=bool), "nothing"),
    )
    assert [[roi.ROIDescription for roi in one.StructureSetROISequence] for one in made] == [["a"], ["b"]]
    assert len({one.SeriesInstanceUID for one in made}) == 2


def test_a_contour_too_long_for_explicit_lengths_is_written_whole() -> None:
    # A comb: each tooth adds four corners.
    for columns, syntax in ((100, ExplicitVRLittleEndian), (2600, ImplicitVRLittleEndian)):
        of = wide(2, columns)
        mask = np.zeros((2, 2, columns), dtype=bool)
        mask[0, 1] = True
        mask[0, 0, ::2] = True
        [made] = structure_sets(of, region(mask))
        assert made.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(filled(made, 1, of), mask)


def test_a_contour_of_as_many_points_as_a_mark_may_have_is_whole() -> None:
    points = np.ones((65_535, 3))
    points[:, 1:] = 1 + np.random.default_rng(1).random((65_535, 2))
    [made] = structure_sets(made_source(), Mark("m", "M", "polyline", points, LESION, NODULE))
    [contour] = contour_items(made, 1)
    assert contour.NumberOfContourPoints == 65_535


def test_a_region_of_more_contours_than_a_set_has_room_for_is_left_out_and_the_report_says_so() -> None:
    of = wide(200, 202)
    noise = np.indices((2, 200, 202)).sum(axis=0) % 2 == 0
    whole = np.zeros_like(noise)
    whole[0, 3:6, 3:6] = True
    things = found(region(noise, "noise"), region(whole, "whole"))
    made, report = (read(one) for one in all_built(things, of, kinds=("rtstruct", "sr")))
    assert [one.ROIDescription for one in made.StructureSetROISequence] == ["whole"]
    assert np.array_equal(filled(made, 1, of), whole)
    assert "noise is not in the RT Structure Set, which has room for 20,000 contours" in [
        one.TextValue for one in content(report) if "TextValue" in one
    ]
    with pytest.raises(ResultImpossible, match="noise is not in the RT Structure Set"):
        all_built(things, of, kinds=("rtstruct",))
