"""The ``when`` of routes and analyses."""

from __future__ import annotations

import pytest

from node.config.settings import Pattern, Patterns
from node.index.matching_rules import Asked, attributes_of, comparison, differs, results_of, wanted

HEADER = {
    "Modality": "CT",
    "BodyPartExamined": "CHEST",
    "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
    "SeriesDescription": "Thorax [1.5] (B30f)",
    "PatientComments": "two\nlines",
}


@pytest.mark.parametrize(
    "when",
    [
        {},
        {"Modality": "CT"},
        {"Modality": "ct", "BodyPartExamined": "chest*"},
        {"ImageType": "AXIAL"},
        {"ImageType": "ORIGINAL\\PRIMARY\\*"},
        {"SeriesDescription": "thorax [1.5]*"},
        {"SeriesDescription": "*(B30?)"},
        {"Laterality": "*"},
        {"Laterality": ""},
        {"PatientComments": "two*"},
        {"Modality": ("MR", "CT")},
        {"ImageType": ("*LOCALIZER*", "AXIAL")},
    ],
)
def test_every_line_matches(when: Patterns) -> None:
    assert differs(when, HEADER) is None


@pytest.mark.parametrize(
    ("when", "difference"),
    [
        ({"Modality": "MR"}, ("Modality", "MR", "CT")),
        ({"Modality": "C"}, ("Modality", "C", "CT")),
        ({"Modality": "CT", "Laterality": "L"}, ("Laterality", "L", "")),
        ({"ImageType": "LOCALIZER"}, ("ImageType", "LOCALIZER", "ORIGINAL\\PRIMARY\\AXIAL")),
        ({"Modality": ("MR", "PT")}, ("Modality", ("MR", "PT"), "CT")),
        ({"SeriesDescription": "Thorax [15]*"}, ("SeriesDescription", "Thorax [15]*", "Thorax [1.5] (B30f)")),
    ],
)
def test_the_first_line_that_differs_is_named(when: Patterns, difference: tuple[str, Pattern, str]) -> None:
    assert differs(when, HEADER) == difference


@pytest.mark.parametrize(
    ("pattern", "words", "is_met"),
    [
        ("t1w", ("T1", "T1W"), True),
        ("t1*", ("T2", "t2w"), False),
        ("*", (), False),
        ("*", ("anything",), True),
        ("<5", ("4.9",), True),
        ("<5", ("5",), False),
        ("<= 5", ("5",), True),
        (">= 0.9", ("0.91",), True),
        (" > 0.9", ("0.9",), False),
        (">1e3", ("1200",), True),
        ("<5", ("few", "3"), True),
        ("<5", ("few",), False),
        ("5", ("5",), True),
        (("t1w", "<5"), ("T2", "4"), True),
        (("t1w", "<5"), ("T2", "6"), False),
        (("t1w",), (), False),
    ],
)
def test_a_result_is_met_by_a_word_or_a_number(
    pattern: Pattern, words: tuple[str, ...], is_met: bool
) -> None:
    assert Asked("a", "x", pattern).is_met_by(words) is is_met


def test_a_result_belongs_to_the_analysis_with_the_longest_name_that_fits() -> None:
    when = {"Modality": "CT", "mr.type.kind": "t1w", "mr.x": "1", "other.x": "2", "mr.": "3"}
    assert results_of(when, ("mr", "mr.type")) == [Asked("mr.type", "kind", "t1w"), Asked("mr", "x", "1")]
    assert results_of(when, ("mr",))[0] == Asked("mr", "type.kind", "t1w")
    assert attributes_of(when) == {"Modality": "CT"}
    assert Asked("mr.type", "kind", "").key == "mr.type.kind"


def test_of_several_patterns_all_are_shown() -> None:
    assert wanted("CT") == "'CT'"
    assert wanted(("CT", "MR")) == "'CT' or 'MR'"


def test_a_comparison_without_a_number_is_a_fault() -> None:
    for pattern in ("<", "<= few", "> nan"):
        with pytest.raises(ValueError, match="expected a number after"):
            comparison(pattern)
    assert comparison("t1w") is None
