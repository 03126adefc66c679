"""A report says all that is found of a mark, and on which of several inputs everything was found."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from models.types import Code, DerivedImage, Evaluation, Findings, Mark, Segment
from node.results.build import Source
from node.results.checks.check_report import concept_of, content, report_problems
from tests.support.made_findings import (
    LEFT,
    LESION,
    LUNG,
    NODULE,
    PERCENT,
    RIGHT,
    all_built,
    block,
    every_mark,
    image_source,
    made_source,
    numbers,
    read,
    run_facts,
    two_lungs,
    with_prior,
)
from tests.support.made_series import ct_series

GROUP, TRACKING, MARK_GROUP = "125007", "112039", "MARK"
SOLIDITY = Code("solidity", "99ANODE", "Solidity")


@pytest.fixture(scope="module")
def source() -> Any:
    return made_source()


def report(findings: Findings, source: Source, kinds: Any = ("sr", "seg")) -> Dataset:
    return read(next(one for one in all_built(findings, source, kinds=kinds) if one.kind == "sr"))


def groups(document: Dataset) -> dict[str, Dataset]:
    """The groups of all concepts by their Tracking Identifier."""
    found = {}
    for item in content(document):
        names = [one.TextValue for one in item.get("ContentSequence", []) if concept_of(one) == TRACKING]
        if names:
            found[names[0]] = item
    return found


def values(group: Dataset, code: str) -> list[Any]:
    found = []
    for item in group.ContentSequence:
        if concept_of(item) == code:
            if item.ValueType == "CODE":
                found.append(item.ConceptCodeSequence[0].CodeMeaning)
            elif item.ValueType == "NUM":
                found.append(float(item.MeasuredValueSequence[0].NumericValue))
            else:
                found.append(item.get("TextValue") or item.get("UID"))
    return found


def spot(**changes: Any) -> Mark:
    facts: dict[str, Any] = {
        "name": "spot",
        "label": "A spot",
        "shape": "point",
        "points": np.array([(1, 2, 3)], float),
        "category": LESION,
        "type": NODULE,
    }
    return Mark(**(facts | changes))


@pytest.mark.checklist("T5")
def test_a_mark_is_reported_with_its_site_side_certainty_numbers_and_answers(source: Any) -> None:
    mark = spot(
        site=LUNG,
        laterality=LEFT,
        probability=0.93,
        measurements=numbers(),
        evaluations=(
            Evaluation(SOLIDITY, Code("part", "99ANODE", "Part solid"), 0.7),
            Evaluation(Code("shape", "99ANODE", "Shape"), "like a star"),
        ),
    )
    group = groups(report(Findings(marks=(mark,)), source))["spot"]
    assert concept_of(group) == GROUP
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    assert values(group, "121071") == ["Nodule"]
    assert values(group, "111012") == [93.0]
    assert values(group, "118565006") == [1234.5]
    assert values(group, "LABEL") == ["A spot"]
    [site] = [one for one in group.ContentSequence if concept_of(one) == "363698007"]
    assert site.ConceptCodeSequence[0].CodeMeaning == "Lung"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    assert values(group, "solidity") == ["Part solid"]
    assert values(group, "shape") == ["like a star"]
    [answer] = [one for one in group.ContentSequence if concept_of(one) == "solidity"]
    [certainty] = answer.ContentSequence
    assert certainty.RelationshipType == "HAS PROPERTIES"
    assert values(answer, "111012") == [70.0]
    unit = certainty.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == (PERCENT.value, "UCUM")


def test_the_side_of_a_mark_without_a_site_is_an_answer(source: Any) -> None:
    group = groups(report(Findings(marks=(spot(laterality=RIGHT),)), source))["spot"]
    assert values(group, "272741003") == ["Right"]


def test_the_certainty_of_a_classification_is_a_property_of_its_answer(source: Any) -> None:
    findings = Findings(
        evaluations=(
            Evaluation(SOLIDITY, Code("solid", "99ANODE", "Solid"), 0.125),
            Evaluation(Code("words", "99ANODE", "Words"), "in words", 1.0),
        )
    )
    document = report(findings, source)
    [solid] = [one for one in content(document) if concept_of(one) == "solidity"]
    [words] = [one for one in content(document) if concept_of(one) == "words"]
    assert values(solid, "111012") == [12.5]
    assert values(words, "111012") == [100.0]


def test_a_library_reads_marks_of_every_shape(source: Any) -> None:
    [made] = all_built(Findings(marks=every_mark()), source, kinds=("sr",))
    tree = highdicom.sr.srread(io.BytesIO(made.part10)).content
    planar = {one.tracking_identifier: one for one in tree.get_planar_roi_measurement_groups()}
    solid = {one.tracking_identifier: one for one in tree.get_volumetric_roi_measurement_groups()}
    assert set(planar) == {"point", "flat-box", "polygon", "line"}
    assert {name: one.roi.graphic_type.value for name, one in planar.items()} == {
        "point": "POINT",
        "flat-box": "POLYGON",
        "polygon": "POLYGON",
        "line": "POLYLINE",
    }
    assert len(solid["box"].roi.graphic_data) == 3
    assert planar["point"].tracking_uid == groups(read(made))["point"].ContentSequence[1].UID


def test_beside_segments_points_are_volumes_and_flat_marks_stand_apart(source: Any) -> None:
    findings = replace(two_lungs(source.volume), marks=every_mark())
    found = groups(report(findings, source))
    assert {name: concept_of(one) for name, one in found.items()} == {
        "left-lung": GROUP,
        "right-lung": GROUP,
        "point": GROUP,
        "box": GROUP,
        "flat-box": MARK_GROUP,
        "polygon": MARK_GROUP,
        "line": MARK_GROUP,
    }
    [point] = [one for one in found["point"].ContentSequence if one.ValueType == "SCOORD3D"]
    assert (concept_of(point), point.GraphicType) == ("121231", "POINT")
    assert values(found["point"], "121232") == ["1.2.3.4"]


def test_one_mark_on_an_image_sets_what_is_on_none_apart() -> None:
    found = groups(
        report(Findings(marks=(spot(points=np.zeros((1, 3))),), measurements=numbers()), image_source())
    )
    assert {name: concept_of(one) for name, one in found.items()} == {"spot": GROUP, "lungs": "NO-REGION"}


# --- several inputs ----------------------------------------------------------


def on_both() -> tuple[Findings, Source]:
    source = with_prior(made_source(StudyDate="20260102"))
    earlier = source.others["prior"].volume
    assert earlier is not None
    assert source.volume is not None
    now = two_lungs(source.volume)
    then = block(earlier, (0.2, 0.2, 0.1), (0.8, 0.7, 0.4))
    findings = replace(
        now,
        segments=(*now.segments, Segment("old", "Old", then, LESION, NODULE, on="prior")),
        marks=(spot(), spot(name="old spot", on="prior")),
    )
    return findings, source


def test_what_was_found_on_an_earlier_study_refers_to_its_images() -> None:
    findings, source = on_both()
    objects = all_built(findings, source)
    document = read(objects[0])
    found = groups(document)
    assert values(found["left-lung"], "121232") == ["1.2.3.4"]
    assert values(found["old"], "121232") == ["1.2.77.1"]
    frames = {
        name: one.ReferencedFrameOfReferenceUID
        for name in ("spot", "old spot")
        for one in found[name].ContentSequence
        if one.ValueType == "SCOORD3D"
    }
    assert frames == {"spot": "1.2.3.4.0", "old spot": "1.2.77.0"}
    assert values(found["spot"], "C2348792") == ["current study of 2026-01-02"]
    assert values(found["old"], "C2348792") == ["earlier study of 2024-03-04"]


@pytest.mark.checklist("S4", "T3")
def test_the_library_has_a_group_for_each_input_and_the_evidence_both_studies() -> None:
    findings, source = on_both()
    document = report(findings, source)
    library = [one for one in content(document) if concept_of(one) == "126200"]
    assert len(library) == 2
    listed = [
        {
            one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for one in group.ContentSequence
            if one.ValueType == "IMAGE"
        }
        for group in library
    ]
    assert listed[0] == {one.SOPInstanceUID for one in source.data_sets}
    assert listed[1] == {one.SOPInstanceUID for one in source.others["prior"].data_sets}
    [now] = document.CurrentRequestedProcedureEvidenceSequence
    [then] = document.PertinentOtherEvidenceSequence
    assert (now.StudyInstanceUID, then.StudyInstanceUID) == ("1.2.3", "1.2.77")
    others = {
        one.ReferencedSOPInstanceUID
        for series in then.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert others == listed[1]


def test_a_segmentation_of_an_earlier_study_lies_in_the_current_one_in_a_series_of_its_own() -> None:
    findings, source = on_both()
    now, then = [read(one) for one in all_built(findings, source, kinds=("seg",))]
    assert now.StudyInstanceUID == then.StudyInstanceUID == "1.2.3"
    assert now.SeriesInstanceUID != then.SeriesInstanceUID
    assert (now.FrameOfReferenceUID, then.FrameOfReferenceUID) == ("1.2.3.4.0", "1.2.77.0")
    assert "ReferencedSeriesSequence" not in then
    [study] = then.StudiesContainingOtherReferencedInstancesSequence
    assert study.StudyInstanceUID == "1.2.77"
    [series] = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.77.1"


def test_a_group_without_a_region_says_of_which_input_it_is() -> None:
    source = with_prior(made_source())
    assert source.others["prior"].volume is not None
    empty = np.zeros(source.others["prior"].volume.voxels.shape, dtype=bool)
    gone = Segment("gone", "Gone", empty, LESION, NODULE, on="prior")
    found = groups(report(Findings(segments=(gone,)), source))
    assert values(found["gone"], "112002") == ["1.2.77.1"]


def test_findings_on_an_input_that_was_not_given_are_refused(source: Any) -> None:
    with pytest.raises(ValueError, match="on an input 'pet', which was not given"):
        report(Findings(marks=(spot(on="pet"),)), source)


# --- other objects of the run ------------------------------------------------


@pytest.mark.checklist("S4")
def test_derived_images_are_referred_to_and_in_the_evidence(source: Any) -> None:
    image = DerivedImage("twice", "Twice", source.volume.voxels * 2, Code("[hnsf'U]", "UCUM", "HU"))
    objects = all_built(Findings(images=(image,)), source, kinds=("sr", "image"))
    made = {one.sop_instance_uid for one in objects if one.kind == "image"}
    assert made
    document = read(objects[0])
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in content(document)
        if concept_of(item) == "DERIVED-IMAGE"
    }
    assert named == made
    listed = {
        one.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert made <= listed


def test_a_label_map_is_referred_to_as_an_object_and_its_segments_have_groups(source: Any) -> None:
    objects = all_built(two_lungs(source.volume), source, kinds=("sr", "labelmap"))
    document, label_map = (read(one) for one in objects)
    [named] = [item for item in content(document) if concept_of(item) == "LABEL-MAP"]
    assert named.ValueType == "COMPOSITE"
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == label_map.SOPInstanceUID
    found = groups(document)
    tracked = {one.TrackingID: one.TrackingUID for one in label_map.SegmentSequence if "TrackingID" in one}
    assert {name: values(one, "112040")[0] for name, one in found.items()} == tracked


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"points": np.zeros((2, 3))}, "the mark spot is a point of 2 points"),
        ({"points": np.zeros((1, 2))}, "the points of the mark spot are no finite"),
        ({"points": np.full((1, 3), np.nan)}, "the points of the mark spot are no finite"),
        ({"points": np.array([(0, 0, 6.0)])}, "the mark spot lies outside its input"),
        ({"shape": "polygon", "points": np.zeros((2, 3))}, "the mark spot is a polygon of 2 points"),
    ],
)
def test_marks_that_are_none_are_refused_by_name(source: Any, changes: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        report(Findings(marks=(spot(**changes),)), source)


def test_a_mark_that_cannot_be_placed_is_reported_and_the_report_says_why() -> None:
    headers = [one.header for one in ct_series(FrameOfReferenceUID=None)]
    volume = made_source().volume
    source = Source(headers[:-1], volume, "ab" * 32)
    group = groups(report(Findings(marks=(spot(),)), source))["spot"]
    assert values(group, "121106") == [
        "where it lies is not said: the slices of the volume are not the images of the source"
    ]


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.3", "1.2.3.4.5.6"])
def test_marks_and_segments_on_retired_and_private_classes_name_them(sop_class: str) -> None:
    source = image_source()
    source.data_sets[0].SOPClassUID = sop_class
    mask = np.ones((1, 4, 6), dtype=bool)
    findings = Findings(
        segments=(Segment("all", "All", mask, LESION, NODULE),), marks=(spot(points=np.zeros((1, 3))),)
    )
    document, segmentation = (read(one) for one in all_built(findings, source, kinds=("sr", "seg")))
    [point] = [one for one in content(document) if one.ValueType == "SCOORD"]
    assert point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPClassUID == sop_class
    [series] = segmentation.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID == sop_class


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("point", lambda one: setattr(one, "GraphicType", "POLYLINE"), "a region is a POLYLINE of 1 points"),
        (
            "point",
            lambda one: setattr(one, "GraphicData", [1.0, 2.0]),
            "no whole number of points of 3 numbers",
        ),
        ("point", lambda one: delattr(one, "ReferencedFrameOfReferenceUID"), "names no frame of reference"),
        (
            "polygon",
            lambda one: setattr(one, "GraphicData", [0, 0, 0, 1, 0, 0, 1, 1, 0]),
            "a polygon is not closed",
        ),
        (
            "polygon",
            lambda one: setattr(one, "GraphicData", [0, 0, 0, 9, 0, 0, 9, 9, 0, 0, 9, 5, 0, 0, 0]),
            "a polygon does not lie in a plane",
        ),
        (
            "polygon",
            lambda one: one.add(DataElement("GraphicData", "UN", bytes(72_000))),
            "longer than their value representation has room for",
        ),
    ],
)
def test_regions_that_break_their_rules_are_refused(source: Any, name: str, spoil: Any, problem: str) -> None:
    document = report(Findings(marks=every_mark()), source)
    assert list(report_problems(document)) == []
    [region] = [one for one in groups(document)[name].ContentSequence if one.ValueType == "SCOORD3D"]
    spoil(region)
    assert any(problem in found for found in report_problems(document))


def test_a_region_on_no_image_is_refused() -> None:
    document = report(Findings(marks=(spot(points=np.zeros((1, 3))),)), image_source())
    assert list(report_problems(document)) == []
    [region] = [one for one in content(document) if one.ValueType == "SCOORD"]
    del region.ContentSequence
    assert "a region on an image does not say on which" in list(report_problems(document))


def test_the_same_findings_give_the_same_bytes(source: Any) -> None:
    findings, both = on_both()
    first = [one.part10 for one in all_built(findings, both, run_facts())]
    assert first == [one.part10 for one in all_built(findings, both, run_facts())]


def wave(count: int, shape: str = "polyline") -> Mark:
    """A mark of many points on the fourth row of the second slice."""
    points = np.ones((count, 3))
    points[:, 1:] = 2 + 0.5 * np.random.default_rng(1).random((count, 2))
    return spot(shape=shape, points=points)


@pytest.mark.parametrize(
    ("on_image", "shape", "most"),
    [
        (False, "polyline", 5461), (False, "polygon", 5460),
        (True, "polyline", 8191), (True, "polygon", 8190),
    ],
)  # fmt: skip
def test_an_outline_that_a_report_has_no_room_for_is_left_out_and_the_report_says_so(
    source: Any, on_image: bool, shape: str, most: int
) -> None:
    def places(count: int) -> tuple[list[Dataset], list[str]]:
        mark = wave(count, shape)
        if on_image:
            mark = replace(mark, points=mark.points * (0, 1, 1))
        document = report(Findings(marks=(mark,)), image_source() if on_image else source, ("sr",))
        items = [one for one in content(document) if one.ValueType in ("SCOORD", "SCOORD3D")]
        return items, [one.TextValue for one in content(document) if concept_of(one) == "121106"]

    [item], said = places(most)
    assert item["GraphicData"].VR == "FL"
    assert len(item.GraphicData) in (5461 * 3, 8191 * 2)
    assert said == []
    items, said = places(most + 1)
    assert items == []
    [why] = said
    assert why.startswith("where it lies is not said: a report has room for ")


def test_a_polygon_takes_no_memory_for_the_square_of_its_points() -> None:
    angle = np.linspace(0, 6.28, 5000)
    points = np.column_stack([np.ones(5000), 2 + np.cos(angle), 2 + np.sin(angle)])
    report(Findings(marks=(spot(shape="polygon", points=points[:50]),)), made_source(), ("sr",))
    tracemalloc.start()
    try:
        document = report(Findings(marks=(spot(shape="polygon", points=points),)), made_source(), ("sr",))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.GraphicType for one in content(document) if one.ValueType == "SCOORD3D"] == ["POLYGON"]
    assert peak < 50e6  # a matrix of 5000 x 5000 numbers alone is 200 MB
