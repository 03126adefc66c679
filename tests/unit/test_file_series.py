"""Series in files are given to a model together only where a node would do so."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.base import Need
from node.errors import AnodeError, TwoPatients, UnfitInput
from node.series import file_series
from node.series.file_series import FileSeries
from tests.support import made

NEEDS = (Need("now", "volume"), Need("before", "volume", comes_from="prior"))
SAYS = {
    "PatientID": "P",
    "PatientName": "Roe^Ann",
    "PatientSex": "F",
    "PatientBirthDate": "",
    "StudyDate": "20240229",
    "StudyTime": "101500",
}


def series(folder: Path, **values: str) -> FileSeries:
    folder.mkdir()
    (folder / "one.dcm").write_bytes(made.part10(made.ct_image(**{**SAYS, **values})))
    return file_series.only([folder], "test")


@pytest.mark.parametrize(
    ("before", "refusal", "why"),
    [
        ({"StudyDate": "20230229"}, None, ""),
        ({"StudyTime": "0900"}, None, ""),
        ({"StudyTime": "10"}, UnfitInput, "known to be earlier"),
        ({"StudyDate": ""}, UnfitInput, "known to be earlier"),
        ({"StudyDate": "20240301"}, UnfitInput, "known to be earlier"),
        ({"StudyDate": "20230228", "PatientSex": "M"}, TwoPatients, "another patient"),
        ({"StudyDate": "20230228", "PatientName": "Doe^Ann"}, TwoPatients, "another patient"),
        ({"StudyDate": "20230228", "PatientSex": ""}, None, ""),
        ({"StudyDate": "20230228", "PatientID": "Q"}, TwoPatients, "2 patients"),
    ],
)
def test_a_prior_is_earlier_and_of_the_same_person(
    tmp_path: Path, before: dict[str, str], refusal: type[AnodeError] | None, why: str
) -> None:
    given = {"now": series(tmp_path / "now"), "before": series(tmp_path / "before", **before)}
    if refusal is None:
        file_series.refuse_strangers(NEEDS, given)
        return
    with pytest.raises(refusal, match=why):
        file_series.refuse_strangers(NEEDS, given)
