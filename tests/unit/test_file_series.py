"""Series in files are given to a model together only where a node would do so."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

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


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, RLELossless])
def test_a_file_that_is_there_twice_counts_once_however_it_is_encoded(
    tmp_path: Path, transfer_syntax_uid: str
) -> None:
    image = made.ct_image(**SAYS)
    (tmp_path / "a.dcm").write_bytes(made.part10(image))
    (tmp_path / "b.dcm").write_bytes(made.part10(image, transfer_syntax_uid))
    one = file_series.only([tmp_path], "test")
    assert [path.name for path in one.paths] == ["a.dcm"]
    file_series.refuse_strangers(NEEDS[:1], {"now": one})


@pytest.mark.parametrize("keyword", ["PixelData", "ImagePositionPatient", "SeriesInstanceUID"])
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_files_of_one_instance_that_differ_are_refused(
    tmp_path: Path, keyword: str, order: tuple[str, str]
) -> None:
    series_uid = generate_uid()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            values = {**SAYS, "SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": "1.2.3"}
            image = made.ct_image(**values, SeriesInstanceUID=series_uid, ImagePositionPatient=[0, 0, number])
            if (name, number) == ("b", 1):
                changed = {
                    "PixelData": bytes(len(image.PixelData)),
                    "ImagePositionPatient": [0, 0, 7],
                    "SeriesInstanceUID": "1.2.4",
                }
                image[keyword].value = changed[keyword]
            (tmp_path / name / f"{number}.dcm").write_bytes(made.part10(image))
    found = file_series.find([tmp_path / name for name in order])
    # Of the changed one both series know, where it comes first and so makes one of its own.
    assert len(found.series) == (2 if (keyword, order[0]) == ("SeriesInstanceUID", "b") else 1)
    for one in found.series:
        with pytest.raises(UnfitInput, match=r"1.dcm and .*1.dcm have one SOP Instance UID, but") as refused:
            file_series.refuse_strangers(NEEDS[:1], {"now": one})
        assert refused.value.action == "leave out the files that are not meant"
