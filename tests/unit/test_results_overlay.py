"""What is found lies exactly where it was found on its source, whatever way the source lies.

Voxels are told by values that no other has; where each lies is worked out from the source's headers, and
where it was marked from the result alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.types import Findings, Mark, Segment
from node.results.build import Source
from node.results.checks.check_report import concept_of, content
from node.series.source_series import SourceInstance
from tests.support.made_findings import LESION, NODULE, all_built, image_source, read, run_facts, source_of
from tests.support.made_series import LYING, ct_series, enhanced_ct, numbered, places_mm

MARKED = (3, 24, 41, 77, 90)


def marked_series(name: str) -> tuple[list[SourceInstance], Source, dict[int, tuple[int, int, int]]]:
    """A series, its source, and for each value of ``MARKED`` the voxel that a model sees it in."""
    instances = numbered(LYING[name]())
    source = source_of(instances)
    assert source.volume is not None
    voxels = {}
    for value in MARKED:
        [place] = np.argwhere(source.volume.voxels == value).tolist()
        voxels[value] = tuple(place)
    return instances, source, voxels


def points_of(segmentation: Dataset, number: int) -> NDArray[np.float64]:
    """Where the pixels of a segment lie, by the file alone (PS3.3 sections C.7.6.16.2.3 and 2.4)."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    found = []
    for frame, plane in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if segmentation.SegmentationType == "LABELMAP":
            wanted = frame == number
        else:
            named = plane if "SegmentIdentificationSequence" in plane else shared
            is_it = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
            wanted = (frame > 0) & is_it
        position = np.array(plane.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(wanted):
            found.append(position + along[0] * spacing[1] * column + along[1] * spacing[0] * row)
    return np.array(found).reshape(-1, 3)


def same_points(one: NDArray[np.float64], other: Sequence[NDArray[np.float64]]) -> None:
    assert one.shape == np.array(other).shape
    distances = np.linalg.norm(one[:, None] - np.array(other)[None], axis=-1)
    assert distances.min(axis=1).max() < 1e-6
    assert distances.min(axis=0).max() < 1e-6


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("G2")
def test_voxels_of_every_form_of_segmentation_lie_where_their_images_have_them(name: str) -> None:
    instances, source, voxels = marked_series(name)
    assert source.volume is not None
    shape = source.volume.voxels.shape
    first, second = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for value, voxel in voxels.items():
        (first if value < 50 else second)[voxel] = True
    probability = np.where(second, np.float32(0.7), np.float32(0))
    findings = Findings(
        segments=(
            Segment("first", "First", first, LESION, NODULE),
            Segment("second", "Second", second, LESION, NODULE, probability=probability),
        )
    )
    made = [read(one) for one in all_built(findings, source, kinds=("seg", "labelmap"))]
    assert [one.SegmentationType for one in made] == ["BINARY", "FRACTIONAL", "LABELMAP"]
    places = places_mm(instances)
    low = [places[value] for value in MARKED if value < 50]
    high = [places[value] for value in MARKED if value >= 50]
    for segmentation, number, expected in (
        (made[0], 1, low),
        (made[1], 1, high),
        (made[2], 1, low),
        (made[2], 2, high),
    ):
        same_points(points_of(segmentation, number), expected)
        assert segmentation.FrameOfReferenceUID == instances[0].header.FrameOfReferenceUID


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("G3")
def test_each_frame_of_a_segmentation_names_the_very_frame_that_it_lies_on(name: str) -> None:
    instances, source, voxels = marked_series(name)
    assert source.volume is not None
    mask = np.zeros(source.volume.voxels.shape, dtype=bool)
    for voxel in voxels.values():
        mask[voxel] = True
    [made] = all_built(
        Findings(segments=(Segment("it", "It", mask, LESION, NODULE),)), source, kinds=("seg",)
    )
    segmentation = read(made)
    by_uid = {one.header.SOPInstanceUID: one for one in instances}
    seen = set()
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, group in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        [named] = group.DerivationImageSequence[0].SourceImageSequence
        of_source = list(by_uid[named.ReferencedSOPInstanceUID].frames())
        values = of_source[int(named.get("ReferencedFrameNumber", 1)) - 1].astype(int)
        intercept = 1000 if len(of_source) > 1 else 1024
        seen |= set((values[frame > 0] - intercept).tolist())
    assert seen == set(MARKED)


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("T7")
def test_marks_lie_in_space_where_their_images_have_them(name: str) -> None:
    instances, source, voxels = marked_series(name)
    marks = [
        Mark(f"point-{value}", "", "point", np.array([voxel], float), LESION, NODULE)
        for value, voxel in voxels.items()
    ]
    [made] = all_built(Findings(marks=tuple(marks)), source, kinds=("sr",))
    places = places_mm(instances)
    found = points_by_name(read(made), instances[0].header.FrameOfReferenceUID)
    for value in MARKED:
        assert np.abs(found[f"point-{value}"][0] - places[value]).max() < 2e-5


@pytest.mark.parametrize("name", LYING)
def test_the_outline_of_a_box_runs_along_the_outer_edges_of_its_voxels_in_each_of_its_slices(
    name: str,
) -> None:
    instances, source, _ = marked_series(name)
    assert source.volume is not None
    corners = np.array([(1, 1, 2), (3, 2, 4)], float)
    [made] = all_built(
        Findings(marks=(Mark("box", "", "box", corners, LESION, NODULE),)), source, kinds=("sr",)
    )
    places = places_mm(instances)
    outlines = points_by_name(read(made), instances[0].header.FrameOfReferenceUID)["box"]
    assert len(outlines) == 3
    for index, outline in enumerate(outlines.reshape(3, 5, 3), 1):
        here = source.volume.voxels[index]
        right = places[int(here[0, 1])] - places[int(here[0, 0])]
        down = places[int(here[1, 0])] - places[int(here[0, 0])]
        first, last = places[int(here[1, 2])], places[int(here[2, 4])]
        expected = [
            first - (right + down) / 2,
            last - (right * 5 - down) / 2,
            last + (right + down) / 2,
            first + (right * 5 - down) / 2,
        ]
        same_points(outline[:4].round(3), [one.round(3) for one in expected])
        assert np.array_equal(outline[0], outline[4])


def points_by_name(report: Dataset, frame_of_reference_uid: str) -> dict[str, NDArray[np.float64]]:
    """The coordinates of each group by its Tracking Identifier: (n, 3), or (region, n, 3) flattened."""
    found = {}
    for group in content(report):
        if concept_of(group) != "125007":
            continue
        [name] = [item.TextValue for item in group.ContentSequence if concept_of(item) == "112039"]
        shapes = [item for item in group.ContentSequence if item.ValueType == "SCOORD3D"]
        assert {item.ReferencedFrameOfReferenceUID for item in shapes} == {frame_of_reference_uid}
        points = [np.array(item.GraphicData, float).reshape(-1, 3) for item in shapes]
        found[name] = np.array(points) if len(points) > 1 else points[0]
    return found


# --- images without a place --------------------------------------------------


def image_regions(report: Dataset) -> dict[str, list[tuple[str, int, NDArray[np.float64]]]]:
    found: dict[str, list[tuple[str, int, NDArray[np.float64]]]] = {}
    for group in content(report):
        shapes = [item for item in group.get("ContentSequence", []) if item.ValueType == "SCOORD"]
        for item in shapes:
            [name] = [one.TextValue for one in group.ContentSequence if concept_of(one) == "112039"]
            [image] = item.ContentSequence
            assert image.RelationshipType == "SELECTED FROM"
            [named] = image.ReferencedSOPSequence
            frame = int(named.get("ReferencedFrameNumber", 0))
            points = np.array(item.GraphicData, float).reshape(-1, 2)
            found.setdefault(name, []).append((named.ReferencedSOPInstanceUID, frame, points))
    return found


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.checklist("T7")
def test_marks_on_an_image_without_a_place_are_on_its_pixels_counted_from_their_corner(frames: int) -> None:
    source = image_source(frames)
    last = frames - 1
    marks = (
        Mark("point", "", "point", np.array([(last, 1, 2)], float), LESION, NODULE),
        Mark("box", "", "box", np.array([(0, 1, 2), (last, 2, 4)], float), LESION, NODULE),
        Mark("line", "", "polyline", np.array([(last, 0, 0), (last, 3, 5)], float), LESION, NODULE),
    )
    [made] = all_built(Findings(marks=marks), source, kinds=("sr",))
    regions = image_regions(read(made))
    uid = source.data_sets[0].SOPInstanceUID
    frame = frames if frames > 1 else 0
    assert [(one[0], one[1], one[2].tolist()) for one in regions["point"]] == [(uid, frame, [[2.5, 1.5]])]
    assert [one[2].tolist() for one in regions["line"]] == [[[0.5, 0.5], [5.5, 3.5]]]
    assert [one[1] for one in regions["box"]] == (list(range(1, frames + 1)) if frames > 1 else [0])
    for _, _, points in regions["box"]:
        assert points.tolist() == [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]


def test_marks_on_a_volume_that_names_no_frame_of_reference_are_on_its_images() -> None:
    instances = ct_series(5, (0, 0, -2.5), FrameOfReferenceUID=None)
    source = source_of(numbered(instances))
    assert source.volume is not None
    [voxel] = np.argwhere(source.volume.voxels == 41)
    mark = Mark("it", "", "point", voxel[None].astype(float), LESION, NODULE)
    [made] = all_built(Findings(marks=(mark,)), source, kinds=("sr",))
    [(uid, _, points)] = image_regions(read(made))["it"]
    # The 41st value is the 17th pixel of the second instance.
    assert uid == instances[1].header.SOPInstanceUID
    assert points.tolist() == [[4.5, 2.5]]


def test_a_segment_on_a_single_image_without_a_place_is_its_very_pixels() -> None:
    source = image_source(1)
    mask = np.zeros((1, 4, 6), dtype=bool)
    mask[0, 1, 2:5] = True
    [made] = all_built(
        Findings(segments=(Segment("it", "It", mask, LESION, NODULE),)), source, kinds=("seg",)
    )
    segmentation = read(made)
    assert "FrameOfReferenceUID" not in segmentation
    assert np.array_equal(segmentation.pixel_array.reshape(1, 4, 6).astype(bool), mask)
    [named] = segmentation.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    assert named.ReferencedSOPInstanceUID == source.data_sets[0].SOPInstanceUID
    assert named.ReferencedSOPClassUID == source.data_sets[0].SOPClassUID


def test_an_image_that_says_where_it_lies_places_its_segments() -> None:
    [instance] = numbered([enhanced_ct(3)])
    source = image_source(3, header=instance.header)
    mask = np.zeros((3, 4, 6), dtype=bool)
    mask[2, 1, 3] = True
    [made] = all_built(
        Findings(segments=(Segment("it", "It", mask, LESION, NODULE),)), source, kinds=("seg",)
    )
    same_points(points_of(read(made), 1), [places_mm([instance])[2 * 24 + 6 + 3 + 1]])


def test_frames_that_do_not_say_where_they_lie_get_no_segmentation_and_the_report_says_why() -> None:
    source = image_source(4)
    mask = np.ones((4, 4, 6), dtype=bool)
    findings = Findings(segments=(Segment("it", "It", mask, LESION, NODULE),))
    made = all_built(findings, source, run_facts(), ("sr", "seg"))
    assert [one.kind for one in made] == ["sr"]
    words = [item.TextValue for item in content(read(made[0])) if item.ValueType == "TEXT"]
    why = "the frames of the source do not lie in one stack, or do not say where they lie"
    assert f"no Segmentation was made: {why}" in words
