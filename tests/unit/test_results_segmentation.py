"""A Segmentation lies exactly on its source, whatever way the source lies."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset

from models.types import Findings, Segment
from node.results.build import Source
from node.results.checks.check_report import content
from node.results.checks.check_segmentation import LABEL_MAP_SEGMENTATION_STORAGE, segmentation_problems
from tests.support.made_findings import (
    ANATOMY,
    LESION,
    LUNG,
    NODULE,
    all_built,
    built,
    card,
    everything,
    made_source,
    read,
    run_facts,
    source_of,
    two_lungs,
)
from tests.support.made_series import enhanced_ct

TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.3)), float(np.sin(0.3)))
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
SOURCES = {
    "axial": lambda: made_source(),
    "from head to feet": lambda: made_source(5, (0, 0, -2.5)),
    "gantry tilt": lambda: made_source(5, (0, 0, 2.5), ImageOrientationPatient=list(TILTED)),
    "oblique": lambda: made_source(5, (1.8, -2.4, 0), ImageOrientationPatient=list(OBLIQUE)),
    "flipped": lambda: made_source(5, (0, 0, 2.5), ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]),
    "multi-frame": lambda: source_of([enhanced_ct()]),
}
MARKED = ((0, 0, 0), (1, 2, 5), (3, 3, 1))


def points_of(segmentation: Dataset) -> set[tuple[float, ...]]:
    """Patient coordinates of all marked voxels, worked out from the file alone (PS3.3 C.7.6.2.1.1)."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    found = set()
    for frame, plane in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(plane.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            point = position + along[0] * spacing[1] * column + along[1] * spacing[0] * row
            found.add(tuple(np.round(point, 3) + 0.0))
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_marked_voxels_are_where_they_were_marked(name: str) -> None:
    source = SOURCES[name]()
    assert source.volume is not None
    mask = np.zeros(source.volume.voxels.shape, dtype=bool)
    for voxel in MARKED:
        mask[voxel] = True
    marked = Findings(segments=(Segment("mark", "Mark", mask, LESION, NODULE),))
    segmentation = read(built(marked, source, kinds=("seg",))["seg"])
    expected = {tuple(np.round(source.volume.affine @ (*voxel, 1), 3)[:3] + 0.0) for voxel in MARKED}
    assert points_of(segmentation) == expected
    assert len(segmentation.PerFrameFunctionalGroupsSequence) == 3


@pytest.mark.checklist("G3")
def test_each_frame_names_the_image_it_lies_on_and_the_series_names_them_all() -> None:
    source = made_source(5, (0, 0, -2.5))
    assert source.volume is not None
    segmentation = read(built(two_lungs(source.volume), source, kinds=("seg",))["seg"])
    place = {one.SOPInstanceUID: [float(v) for v in one.ImagePositionPatient] for one in source.data_sets}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        [item] = frame.DerivationImageSequence[0].SourceImageSequence
        assert place[item.ReferencedSOPInstanceUID] == [
            float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient
        ]
    [series] = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} == set(place)


def test_a_library_reads_the_segments_back_voxel_for_voxel() -> None:
    source = made_source()
    assert source.volume is not None
    findings = everything(source.volume)
    file = built(findings, source, kinds=("seg",))["seg"].part10
    segmentation = highdicom.seg.segread(io.BytesIO(file))
    assert segmentation.number_of_segments == 3
    masks = segmentation.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in source.data_sets],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    for number, segment in enumerate(findings.segments[:3]):
        assert np.array_equal(masks[..., number].astype(bool), segment.mask)


@pytest.mark.checklist("A2", "G4")
def test_segments_say_what_they_are_and_who_made_them() -> None:
    source = made_source()
    assert source.volume is not None
    run = run_facts(card=card(manufacturer="Somebody", weights_sha256="ef" * 32), parameters={"hu": -400})
    segmentation = read(built(everything(source.volume), source, run, ("seg",))["seg"])
    left, right, nodule = segmentation.SegmentSequence
    assert [s.SegmentNumber for s in (left, right, nodule)] == [1, 2, 3]
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == (
        LUNG.value,
        "7771000",
    )
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion, algorithm.AlgorithmSource) == (
        "lungs",
        "1.2.3",
        "Somebody",
    )
    assert "hu=-400" in algorithm.AlgorithmParameters
    assert "weights-sha256=efef" in algorithm.AlgorithmParameters
    assert left.SegmentAlgorithmType == "AUTOMATIC"
    assert nodule.SegmentLabel == "Nodule é"
    assert segmentation.SegmentsOverlap == "YES"
    assert segmentation.DeviceSerialNumber.strip("0")


@pytest.mark.parametrize("fault", ["reversed", "shifted", "missing", "flipped rows", "no orientation"])
def test_masks_are_never_laid_on_images_that_they_do_not_fit(fault: str) -> None:
    source = made_source()
    volume = source.volume
    assert volume is not None
    findings = two_lungs(volume)
    affine = volume.affine.copy()
    data_sets: list[Any] = list(source.data_sets)
    if fault == "shifted":
        affine[2, 3] += 1.25
    elif fault == "missing":
        data_sets = data_sets[:-1]
    elif fault == "flipped rows":
        affine[:3, 1] *= -1
    elif fault == "no orientation":
        for data_set in data_sets:
            del data_set.ImageOrientationPatient
    else:
        data_sets = data_sets[::-1]
    changed = Source(data_sets, replace(volume, affine=affine), source.input_digest)
    objects = built(findings, changed)
    if fault == "reversed":
        # The order alone is no harm: each mask finds its image by its place.
        expected = points_of(read(built(findings, source, kinds=("seg",))["seg"]))
        assert points_of(read(objects["seg"])) == expected
    else:
        assert list(objects) == ["sr", "sc"]
        assert b"no Segmentation was made: " in objects["sr"].part10


def test_many_segments_that_do_not_overlap_are_kept_apart() -> None:
    source = made_source()
    assert source.volume is not None
    masks = [np.zeros(source.volume.voxels.shape, dtype=bool) for _ in range(20)]
    for number, mask in enumerate(masks):
        mask[number % 5, number // 6, number % 6] = True
    segments = tuple(
        Segment(f"s{number}", f"S {number}", mask, ANATOMY, LUNG) for number, mask in enumerate(masks)
    )
    segmentation = read(built(Findings(segments=segments), source, kinds=("seg",))["seg"])
    assert segmentation.SegmentsOverlap == "NO"
    assert segmentation.NumberOfFrames == 20
    assert int(segmentation.pixel_array.sum()) == 20


def test_directions_that_a_scanner_has_rounded_become_unit_vectors_and_others_stay() -> None:
    for down, expected in (((0.0, 0.98796, -0.151524), 1.0), ((0.0, 0.99999, 0.0), 0.99999)):
        source = made_source(5, (0, 0, 2.5), ImageOrientationPatient=[1, 0, 0, *down])
        assert source.volume is not None
        segmentation = read(built(two_lungs(source.volume), source, kinds=("seg",))["seg"])
        plane = segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        length = np.linalg.norm([float(one) for one in plane.ImageOrientationPatient[3:]])
        assert length == pytest.approx(expected, abs=1e-9)


# --- fractional and label maps -----------------------------------------------


def sure_and_unsure(source: Source) -> Findings:
    """A segment with a probability for each voxel beside two that have none."""
    assert source.volume is not None
    findings = two_lungs(source.volume)
    shape = source.volume.voxels.shape
    probability = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    unsure = Segment("unsure", "Unsure", probability > 0.5, LESION, NODULE, probability=probability)
    return replace(findings, segments=(findings.segments[0], unsure, findings.segments[1]))


def test_segments_with_a_probability_are_in_a_fractional_segmentation_beside_the_binary_one() -> None:
    source = made_source()
    findings = sure_and_unsure(source)
    binary, fractional = (read(one) for one in all_built(findings, source, kinds=("seg",)))
    assert (binary.SegmentationType, fractional.SegmentationType) == ("BINARY", "FRACTIONAL")
    assert [one.TrackingID for one in binary.SegmentSequence] == ["left-lung", "right-lung"]
    assert [one.TrackingID for one in fractional.SegmentSequence] == ["unsure"]
    assert (fractional.SegmentationFractionalType, fractional.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert binary.SeriesInstanceUID == fractional.SeriesInstanceUID
    assert binary.SOPInstanceUID != fractional.SOPInstanceUID
    assert (binary.InstanceNumber, fractional.InstanceNumber) == (1, 2)


@pytest.mark.checklist("G5")
def test_probabilities_come_back_to_half_a_step() -> None:
    source = made_source()
    findings = sure_and_unsure(source)
    file = all_built(findings, source, kinds=("seg",))[1].part10
    segmentation = highdicom.seg.segread(io.BytesIO(file))
    found = segmentation.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in source.data_sets], ignore_spatial_locations=True
    )
    expected = findings.segments[1].probability
    assert expected is not None
    assert np.abs(found[..., 0] - expected).max() <= 0.5 / 255 + 1e-6


@pytest.mark.checklist("T6")
def test_the_report_refers_to_each_segment_in_the_segmentation_that_holds_it() -> None:
    source = made_source()
    objects = all_built(sure_and_unsure(source), source, kinds=("seg", "sr"))
    binary, fractional, report = objects
    tree = highdicom.sr.srread(io.BytesIO(report.part10)).content
    named = {
        group.tracking_identifier: (
            str(group.referenced_segment.referenced_sop_instance_uid),
            group.referenced_segment[0].referenced_segment_numbers,
        )
        for group in tree.get_volumetric_roi_measurement_groups()
    }
    assert named == {
        "left-lung": (binary.sop_instance_uid, [1]),
        "right-lung": (binary.sop_instance_uid, [2]),
        "unsure": (fractional.sop_instance_uid, [1]),
    }


@pytest.mark.checklist("G5")
def test_a_label_map_holds_every_segment_by_its_number() -> None:
    source = made_source()
    assert source.volume is not None
    findings = two_lungs(source.volume)
    [made] = all_built(findings, source, kinds=("labelmap",))
    assert made.sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE
    label_map = read(made)
    assert [one.SegmentNumber for one in label_map.SegmentSequence] == [0, 1, 2]
    labels = label_map.pixel_array
    for number, segment in enumerate(findings.segments, 1):
        assert np.count_nonzero(labels == number) == np.count_nonzero(segment.mask)


def test_more_segments_than_a_byte_counts_are_numbered_by_two() -> None:
    source = made_source(12)
    assert source.volume is not None
    shape = source.volume.voxels.shape
    segments = []
    for number in range(260):
        mask = np.zeros(shape, dtype=bool)
        mask.flat[number] = True
        segments.append(Segment(f"s{number}", f"S {number}", mask, ANATOMY, LUNG))
    [made] = all_built(Findings(segments=tuple(segments)), source, kinds=("labelmap",))
    label_map = read(made)
    assert label_map.BitsAllocated == 16
    assert set(np.unique(label_map.pixel_array).tolist()) == set(range(261))


@pytest.mark.parametrize("kinds", [("labelmap", "sr"), ("seg", "labelmap", "sr")])
def test_segments_that_overlap_make_no_label_map_and_the_report_names_them(kinds: Any) -> None:
    source = made_source()
    assert source.volume is not None
    objects = all_built(everything(source.volume), source, kinds=kinds)
    assert [one.kind for one in objects] == [kinds[0], "sr"]
    segmentation, report = (read(one) for one in objects)
    assert segmentation.SegmentationType == "BINARY"
    assert len(segmentation.SegmentSequence) == 3
    words = [item.get("TextValue") for item in content(report)]
    assert "no label map was made: left-lung and nodule-1 overlap" in words


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_probability_that_is_none_is_refused_by_name(value: float) -> None:
    source = made_source()
    findings = sure_and_unsure(source)
    probability = findings.segments[1].probability
    assert probability is not None
    probability.flat[3] = value
    with pytest.raises(ValueError, match="the probability of unsure is not within 0 and 1"):
        all_built(findings, source, kinds=("seg",))


# --- what is refused ---------------------------------------------------------

Break = Callable[[Dataset], object]


@pytest.mark.parametrize(
    ("kind", "spoil", "problem"),
    [
        (
            "FRACTIONAL",
            lambda d: d.__delattr__("MaximumFractionalValue"),
            "eight bits for each pixel, and their maximum",
        ),
        (
            "FRACTIONAL",
            lambda d: setattr(d, "SegmentationFractionalType", "X"),
            "neither PROBABILITY nor OCCUPANCY",
        ),
        ("LABELMAP", lambda d: setattr(d, "BitsStored", 4), "neither eight nor sixteen bits"),
        ("LABELMAP", lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "Pixel Data has not the length"),
        ("BINARY", lambda d: setattr(d, "SegmentationType", "OTHER"), "Segmentation Type is none of"),
        ("BINARY", lambda d: d.__delattr__("FrameOfReferenceUID"), "Frame of Reference UID is absent"),
    ],
)
@pytest.mark.checklist("G4", "G5")
def test_segmentations_that_break_their_rules_are_refused(kind: str, spoil: Break, problem: str) -> None:
    source = made_source()
    findings = sure_and_unsure(source)
    assert source.volume is not None
    made = [
        *all_built(findings, source, kinds=("seg",)),
        *all_built(two_lungs(source.volume), source, kinds=("labelmap",)),
    ]
    [data_set] = [one for one in map(read, made) if one.SegmentationType == kind]
    assert list(segmentation_problems(data_set)) == []
    spoil(data_set)
    assert any(problem in found for found in segmentation_problems(data_set))
