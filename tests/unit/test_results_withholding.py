"""A number that a failed check withholds is in no result, and every result says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.types import Check, Code, DerivedImage, Evaluation, Findings, Mark, Measurement, Picture, Segment
from node.results.checks.check_report import concept_of, content
from node.results.pictures.picture_words import words
from node.results.pictures.secondary_capture import picture
from node.results.source_header import SourceHeader
from node.results.withholding import reasons, withheld
from tests.support.made_findings import (
    LEFT,
    LESION,
    MILLILITRE,
    NODULE,
    VOLUME,
    all_built,
    made_source,
    read,
    run_facts,
)

MALIGNANT = Code("malignant", "99ANODE", "Malignant")
WHY = "the patient breathed"
SECRETS = (1234.5678, 912.3465, 555.4321, 0.87654, 0.76543, 0.65432)


@pytest.fixture(scope="module")
def source() -> Any:
    return made_source()


def said(source: Any, *withholds: str, passed: bool = False, **changes: Any) -> Findings:
    """Numbers of every sort, each of them one of ``SECRETS``."""
    mask = np.zeros(source.volume.voxels.shape, dtype=bool)
    mask[1:4, 1:3, 1:4] = True
    probability = np.where(mask, np.float32(0.5), np.float32(0))
    findings = Findings(
        segments=(
            Segment(
                "lesion", "Lesion of 1234.57 ml", mask, LESION, NODULE,
                measurements=(Measurement(VOLUME, SECRETS[0], MILLILITRE, name="volume"),),
                evaluations=(
                    Evaluation(MALIGNANT, "certainly, at 88 %", SECRETS[3]), Evaluation(NODULE, "solid"),
                ),
                probability=probability,
            ),
        ),
        marks=(
            Mark(
                "spot", "Spot", "point", np.array([(2, 1, 1)], float), LESION, NODULE, laterality=LEFT,
                probability=SECRETS[4],
                measurements=(Measurement(VOLUME, SECRETS[1], MILLILITRE, name="volume"),),
            ),
        ),
        measurements=(Measurement(VOLUME, SECRETS[2], MILLILITRE, name="whole"),),
        evaluations=(Evaluation(MALIGNANT, Code("yes", "99ANODE", "Present"), SECRETS[5], name="cancer"),),
        checks=(Check("motion", passed, WHY, withholds),),
        summary="Found 1234.57 ml, 912.3 ml and 555 ml, malignant at 65.4 %, spot at 77 %.",
        pictures=(Picture("plot", "Plot", np.zeros((8, 8, 3), np.uint8)),),
    )  # fmt: skip
    return replace(findings, **changes)


def everywhere(findings: Findings, source: Any) -> str:
    """All that any object of the run says, also in the panel of its picture."""
    objects = all_built(findings, source, run_facts(), ("sr", "seg", "labelmap", "sc"))
    panel = words(withheld(findings), SourceHeader.of(source), run_facts(), None)
    return "\n".join([*(str(read(one)) for one in objects), repr(panel)])


WRITTEN = (
    ("1234.5", "1234.6", "1234.57"),
    ("912.3",),
    ("555.4", "555 ml"),
    ("87.65", "88 %"),
    ("76.5", "77 %"),
    ("65.4", "65 %"),
)


def test_without_a_failed_check_every_number_is_said(source: Any) -> None:
    text = everywhere(said(source, "*", passed=True), source)
    assert all(any(one in text for one in ways) for ways in WRITTEN)


@pytest.mark.checklist("A10")
def test_a_check_that_withholds_everything_leaves_no_number_in_any_object(source: Any) -> None:
    text = everywhere(said(source, "*"), source)
    assert not any(one in text for ways in WRITTEN for one in ways)
    assert f"every number withheld: {WHY}" in text


@pytest.mark.parametrize(
    ("withholds", "gone"),
    [
        ("whole", {2}),
        ("volume", {0, 1}),
        ("lesion.volume", {0}),
        ("lesion", {0, 3}),
        ("spot", {1, 4}),
        ("cancer", {5}),
        ("Malignant", {3}),
    ],
)
def test_what_is_named_is_withheld_and_nothing_else(source: Any, withholds: str, gone: set[int]) -> None:
    text = everywhere(said(source, withholds), source)
    assert {index for index, ways in enumerate(WRITTEN) if not any(one in text for one in ways)} == gone
    assert f"{withholds} withheld: {WHY}" in text


@pytest.mark.checklist("A10")
def test_the_report_says_that_the_check_failed_and_what_it_withholds(source: Any) -> None:
    [made] = all_built(said(source, "lesion", "whole"), source, run_facts(), ("sr",))
    report = read(made)
    [verdict] = [one for one in content(report) if one.get("ConceptCodeSequence") and _code(one) == "111224"]
    assert verdict.ConceptNameCodeSequence[0].CodeMeaning == "motion"
    comments = [one.TextValue for one in content(report) if concept_of(one) == "121106"]
    assert comments[:2] == [f"lesion withheld: {WHY}", f"whole withheld: {WHY}"]


def _code(item: Any) -> str:
    return str(item.ConceptCodeSequence[0].get("CodeValue", ""))


def test_what_is_withheld_is_still_where_it_was_found(source: Any) -> None:
    made = all_built(said(source, "*"), source, run_facts(), ("sr", "seg"))
    report, segmentation = (read(one) for one in made)
    assert segmentation.SegmentationType == "BINARY"
    assert int(segmentation.pixel_array.sum()) == 18
    tracked = [one.TextValue for one in content(report) if concept_of(one) == "112039"]
    assert tracked == ["lesion", "spot"]


def test_answers_without_a_number_stay(source: Any) -> None:
    found = withheld(said(source, "*"))
    assert [one.value for one in found.segments[0].evaluations] == ["solid"]
    assert found.evaluations == ()


def test_pictures_that_may_show_a_withheld_number_are_withheld_too(source: Any) -> None:
    found = withheld(said(source, "lesion"))
    assert found.pictures == ()
    assert reasons(found.checks) == [f"lesion withheld: {WHY}", f"plot withheld: {WHY}"]
    assert [one.name for one in withheld(said(source, "no such thing")).pictures] == ["plot"]


def test_maps_are_numbers_and_images_are_not(source: Any) -> None:
    voxels = np.ones(source.volume.voxels.shape, np.float32)
    images = tuple(
        DerivedImage(kind, kind, voxels, MILLILITRE, kind=kind, quantity=VOLUME)  # type: ignore[arg-type]
        for kind in ("image", "map")
    )
    found = withheld(said(source, "*", images=images))
    assert [one.name for one in found.images] == ["image"]
    assert f"map withheld: {WHY}" in reasons(found.checks)
    assert [one.name for one in withheld(said(source, "image", images=images)).images] == ["map"]


def test_the_picture_is_drawn_of_what_is_not_withheld(source: Any) -> None:
    def pixels(findings: Findings) -> Any:
        return np.asarray(picture(all_built(findings, source, run_facts(), ("sc",))[0].part10))

    assert np.array_equal(pixels(said(source, "*")), pixels(withheld(said(source, "*"))))
    assert not np.array_equal(pixels(said(source, "*")), pixels(said(source, "whole")))


def test_withholding_twice_changes_nothing(source: Any) -> None:
    once = withheld(said(source, "lesion", "cancer"))
    again = withheld(once)
    assert again.checks == once.checks
    assert again.summary == once.summary
    assert repr(again) == repr(once)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("it is 12.3456 ml", "it is (withheld) ml"),
        ("about 12.35 or 12.3 ml", "about (withheld) or (withheld) ml"),
        ("12 ml", "(withheld) ml"),
        ("-12.35", "(withheld)"),
        ("13 ml of 123 in 12.5", "13 ml of 123 in 12.5"),
        ("version 12.3.1, slice v12", "version 12.3.1, slice v12"),
        ("0 ml", "0 ml"),
    ],
)
def test_words_lose_the_number_however_it_is_rounded(text: str, kept: str) -> None:
    findings = Findings(
        measurements=(Measurement(VOLUME, 12.3456, MILLILITRE),),
        checks=(Check("range", False, "implausible", ("Volume",)),),
        summary=text,
    )
    assert withheld(findings).summary == kept


def test_a_check_that_passed_or_names_nothing_withholds_nothing(source: Any) -> None:
    for findings in (said(source, "*", passed=True), said(source)):
        assert withheld(findings) is findings
