"""The ``when`` of routes and analyses."""

from __future__ import annotations

import pytest

from node.index.matching_rules import differs

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
    ],
)
def test_every_line_matches(when: dict[str, str]) -> None:
    assert differs(when, HEADER) is None


@pytest.mark.parametrize(
    ("when", "difference"),
    [
        ({"Modality": "MR"}, ("Modality", "MR", "CT")),
        ({"Modality": "C"}, ("Modality", "C", "CT")),
        ({"Modality": "CT", "Laterality": "L"}, ("Laterality", "L", "")),
        ({"ImageType": "LOCALIZER"}, ("ImageType", "LOCALIZER", "ORIGINAL\\PRIMARY\\AXIAL")),
        ({"SeriesDescription": "Thorax [15]*"}, ("SeriesDescription", "Thorax [15]*", "Thorax [1.5] (B30f)")),
    ],
)
def test_the_first_line_that_differs_is_named(when: dict[str, str], difference: tuple[str, str, str]) -> None:
    assert differs(when, HEADER) == difference
