"""A number that a failed check withholds is in no result, and every result says why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.types import (
    Check,
    Code,
    DerivedImage,
    Evaluation,
    Findings,
    Mark,
    Measurement,
    Picture,
    Segment,
    Transform,
)
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
        ("Malignant", {3, 5}),
        ("Volume", {0, 1, 2}),
        ("118565006", {0, 1, 2}),
        ("lesion.Volume", {0}),
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
    whats = ("lesion", "plot", "summary")
    assert reasons(found.checks) == [f"{what} withheld: {WHY}" for what in whats]
    assert [one.name for one in withheld(said(source, "*", passed=True)).pictures] == ["plot"]


@pytest.mark.checklist("A10")
def test_a_name_that_nothing_has_withholds_everything_and_says_so(source: Any) -> None:
    text = everywhere(said(source, "whole", "lesoin.volume"), source)
    assert not any(one in text for ways in WRITTEN for one in ways)
    assert "solid" not in text
    assert f"every number and every answer withheld: {WHY} (nothing is called lesoin.volume)" in text


def test_a_number_that_a_region_has_not_withholds_those_of_the_region(source: Any) -> None:
    found = withheld(said(source, "lesion.volme"))
    assert found.segments[0].measurements == ()
    assert found.marks[0].measurements
    assert reasons(found.checks)[0] == f"lesion withheld: {WHY} (nothing is called lesion.volme)"


def test_a_name_that_nothing_has_changes_nothing_where_there_is_nothing_to_withhold() -> None:
    found = withheld(Findings(checks=(Check("range", False, WHY, ("Volume",)),)))
    assert reasons(found.checks) == [f"Volume withheld: {WHY}"]


def test_an_answer_without_a_number_takes_the_pictures_and_the_summary_with_it(source: Any) -> None:
    answer = Evaluation(MALIGNANT, Code("yes", "99ANODE", "Surely so"), name="cancer")
    findings = said(source, "cancer", evaluations=(answer,), summary="It is malignant.")
    found = withheld(findings)
    assert found.evaluations == found.pictures == ()
    assert found.summary == ""
    assert f"summary withheld: {WHY}" in reasons(found.checks)
    text = everywhere(findings, source)
    assert "It is malignant." not in text
    assert "Surely so" not in text


def test_every_sort_of_words_loses_the_number(source: Any) -> None:
    voxels = np.ones(source.volume.voxels.shape, np.float32)
    said_so = "1,234.6ml"
    findings = said(
        source,
        "lesion.volume",
        images=(DerivedImage("image", f"Of {said_so}", voxels, MILLILITRE),),
        transforms=(Transform("moved", f"By {said_so}", "", "", np.eye(4)),),
        evaluations=(Evaluation(MALIGNANT, Code("c-1234.6", "99ANODE", f"Large: {said_so}")),),
        checks=(
            Check("motion", False, WHY, ("lesion.volume",)),
            Check(f"below {said_so}", True, f"{said_so} it is"),
        ),
        marks=tuple(replace(said(source).marks[0], name=name) for name in ("spot-1234", "spot-1235")),
    )
    found = withheld(findings)
    assert not re.search(r"1,?23[45]", repr(replace(found, segments=(), images=(), measurements=())))
    assert found.images[0].label == "Of (withheld)ml"
    assert found.evaluations[0].value == "Large: (withheld)ml"
    assert [one.name for one in found.marks] == ["spot-(withheld)", "spot-(withheld) 2"]


def test_names_that_only_count_stay(source: Any) -> None:
    marks = tuple(
        replace(
            said(source).marks[0], name=f"spot-{number}", measurements=(Measurement(VOLUME, 1.2, MILLILITRE),)
        )
        for number in (1, 2)
    )
    found = withheld(said(source, "Volume", marks=marks))
    assert [one.name for one in found.marks] == ["spot-1", "spot-2"]


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
        ("12.34ml", "(withheld)ml"),
        ("D=12mm, 30x12mm", "D=(withheld)mm, 30x(withheld)mm"),
        ("12,35 ml", "(withheld) ml"),
        ("1.23e1 ml", "(withheld) ml"),
        ("it is 10-12 ml", "it is 10-(withheld) ml"),
        ("v12.3", "v(withheld)"),
        ("13 ml of 123 in 12.5", "13 ml of 123 in 12.5"),
        ("version 12.3.1, slice v12", "version 12.3.1, slice v12"),
        ("0 ml", "0 ml"),
    ],
)
def test_words_lose_the_number_however_it_is_rounded(text: str, kept: str) -> None:
    assert summary_without(12.3456, text) == kept


@pytest.mark.parametrize(
    "written",
    [
        "1,234.5", "1.234,5", "1 234.5", "1\u00a0234,5", "1\u202f234.5", "1'234.5", "1234,5", "1 234",
        "1,234", "1200", "1230", "1.2345e3", "1.23 x 10^3", "1234",
    ],
)  # fmt: skip
def test_words_lose_the_number_however_its_digits_are_grouped(written: str) -> None:
    assert summary_without(1234.5, f"of {written} ml, 7 of 5,000.") == "of (withheld) ml, 7 of 5,000."


@pytest.mark.parametrize("written", ["0", "0.0", "0 ml", "-0", "0,00", "0%"])
def test_words_lose_a_withheld_zero(written: str) -> None:
    assert "0" not in summary_without(0.0, f"Score {written}: no calcium.")
    assert "0" not in summary_without(0.003, f"Score {written}: no calcium.")
    assert written in summary_without(12.3, f"Score {written}: no calcium.")


def test_a_zero_that_is_withheld_is_in_no_object(source: Any) -> None:
    findings = said(
        source,
        "calcium",
        measurements=(Measurement(VOLUME, 0.0, MILLILITRE, name="calcium"),),
        summary="Agatston score 0: no calcium.",
    )
    [made] = all_built(findings, source, run_facts(), ("sr",))
    said_so = [one.TextValue for one in content(read(made)) if "TextValue" in one]
    assert "Agatston score (withheld): no calcium." in said_so
    assert b"score 0" not in made.part10


@pytest.mark.parametrize(
    "written",
    [
        "V853", "T853ml", "vol853", "V 853", "8 5 3 ml", "8-5-3", "8_5_3", "8 5 3 . 3", "85 3", "85\u200b3",
        "8\u00ad53 ml", "８５３ ml", "٨٥٣", "at 8 5 3 2 times",
    ],
)  # fmt: skip
def test_words_lose_the_number_whatever_it_hangs_on_and_whatever_is_between_its_digits(written: str) -> None:
    text = summary_without(853.27, f"It is {written}.")
    assert "(withheld)" in text
    assert not re.search("[853٨٥٣８５３]", text)


@pytest.mark.parametrize(
    "text",
    ["T8, v12 and L5 of 2024-11-28", "slices 1 2 4 5, at 1.2.840", "1,2,3 or 85 and 3", "30 x 20 x 10"],
)
def test_names_dates_and_lists_stay(text: str) -> None:
    assert summary_without(853.27, text) == text


def test_a_unit_behind_it_makes_a_number_of_what_would_be_a_name() -> None:
    assert summary_without(12.0, "T12ml at T12") == "T(withheld)ml at T12"


def test_a_long_text_of_single_digits_is_gone_through_in_no_time() -> None:
    text = "1 2 4 " * 20_000
    assert summary_without(853.27, text) == text


def test_a_long_text_with_many_numbers_is_gone_through_in_no_time() -> None:
    text = "12 of 1,2,3 " * 3000 + "9" * 20_000
    assert summary_without(12.0, text).startswith("(withheld) of 1,2,3 ")


def summary_without(number: float, text: str) -> str:
    findings = Findings(
        measurements=(Measurement(VOLUME, number, MILLILITRE),),
        checks=(Check("range", False, "implausible", ("Volume",)),),
        summary=text,
    )
    return withheld(findings).summary


def test_a_check_that_passed_or_names_nothing_withholds_nothing(source: Any) -> None:
    for findings in (said(source, "*", passed=True), said(source)):
        assert withheld(findings) is findings
