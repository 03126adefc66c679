"""``anode analyze``: a model on files, without a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.__main__ import main
from tests.support import made, made_folders
from tests.support.data import require_data
from tests.support.made_models import install

STUDY, SERIES = "1.2.826.0.1.7", "1.2.826.0.1.7.1"


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "package", monkeypatch)


def slices(folder: Path, series: str = SERIES, count: int = 4, **attributes: Any) -> Path:
    """A small CT series in files."""
    folder.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        pixels = np.random.default_rng(number).integers(-900, 300, (16, 16)).astype("<i2")
        facts: dict[str, Any] = {
            "study_instance_uid": STUDY,
            "series_instance_uid": series,
            "sop_instance_uid": f"{series}.{number}",
            "InstanceNumber": number,
            "ImagePositionPatient": [0, 0, 1.5 * number],
            "FrameOfReferenceUID": f"{STUDY}.9",
        }
        data_set = made.ct_image(pixels=pixels, **{**facts, **attributes})
        write(data_set, folder / f"{series}.{number}.dcm")
    return folder


def write(data_set: Dataset, path: Path) -> None:
    path.write_bytes(made.part10(data_set))


def results(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.rglob("*") if path.is_file()}


def test_results_numbers_and_a_picture_are_left_for_a_series_in_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["analyze", str(slices(tmp_path / "in")), "--model", "brightness", "-o", str(tmp_path / "out")])
        == 0
    )
    found = results(tmp_path / "out")
    assert sorted(found) == ["picture.png", "sc.dcm", "seg.dcm", "sr.dcm"]
    report = dcmread(found["sr.dcm"])
    assert report.StudyInstanceUID == STUDY
    assert report.ManufacturerModelName == "brightness"
    said = capsys.readouterr().out
    assert "series 1 (CT, 4 instances)" in said
    assert "bright: found" in said
    assert "two: why" in said
    assert "two.reason" not in said


def test_what_was_found_is_printed_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["analyze", str(slices(tmp_path / "in")), "--model", "brightness", "-o", str(tmp_path / "out")]
    assert main([*told, "--json", "--results", "sr"]) == 0
    [outcome] = json.loads(capsys.readouterr().out)
    assert outcome["series_instance_uid"] == SERIES
    assert [Path(path).name for path in outcome["files"]] == ["sr.dcm"]
    assert outcome["found"]["bright"] == ["found"]
    assert {"name": "two", "passed": False, "reason": "why"} in outcome["checks"]


def test_every_series_is_analysed_and_one_without_a_result_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = slices(tmp_path / "in", SeriesNumber=4)
    slices(folder, f"{STUDY}.2", count=1, SeriesNumber=5)
    (folder / "notes.txt").write_text("no image")
    assert main(["analyze", str(folder), "--model", "brightness", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "series 5 (CT, 1 instance)\n  no result: a single slice is no volume" in said
    assert [path.parent.name[:8] for path in results(tmp_path / "out").values()] == ["series-4"] * 4


@pytest.mark.parametrize(
    ("model", "why"),
    [("refuser", "too dark to see"), ("crasher", "no such organ"), ("segfaulter", "Segmentation fault")],
)
def test_a_model_that_gives_no_result_fails_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, why: str
) -> None:
    told = ["analyze", str(slices(tmp_path / "in")), "--model", model, "-o", str(tmp_path / "out")]
    assert main(told) == 1
    assert why in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--model", "brightnes"], "did you mean 'brightness'"),
        (["--model", "/nowhere/model"], "/nowhere/model"),
        (["--model", "brightness", "-p", "treshold=2"], "treshold"),
        (["--model", "brightness", "-p", "treshold"], "expected KEY=VALUE"),
        (["--model", "brightness", "--results", "sr,segs"], "did you mean 'seg'"),
        (["--model", "brightness", "--results", ","], "name at least one"),
        (["--model", "brightness", "--memory-mb", "-3"], "expected 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], wrong: str
) -> None:
    assert main(["analyze", str(tmp_path / "nothing"), *options, "-o", str(tmp_path / "out")]) == 2
    assert wrong in capsys.readouterr().err


def test_of_a_folder_that_cannot_be_used_the_command_names_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    made_folders.identity(folder / "model.onnx")
    output = f'[[output]]\nname = "said"\nas = "segmentation"\n{made_folders.LABEL}\n'
    made_folders.folder(folder, f"[[input]]\n{output}")
    (folder / "more.bin").write_bytes(b"more")
    told = ["analyze", str(tmp_path), "-o", str(tmp_path / "out"), "--model"]
    assert main([*told, str(folder)]) == 2
    said = capsys.readouterr().err
    assert "more.bin is not pinned" in said
    assert f"'anode models check {folder}' says all that is wrong" in said
    assert main([*told, "/nowhere/model"]) == 2
    assert main(["models", "/nowhere/model"]) == 2
    assert "lists all" not in said + capsys.readouterr().err
    assert main([*told, "brightnes"]) == 2
    assert "'anode models' lists all" in capsys.readouterr().err


def test_a_folder_without_images_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    told = ["analyze", str(tmp_path / "in"), "--model", "brightness", "-o", str(tmp_path / "out")]
    assert main(told) == 2
    assert "there is no DICOM image here" in capsys.readouterr().err


def test_files_of_two_patients_are_not_analysed_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = slices(tmp_path / "in", count=3)
    stranger = dcmread(folder / f"{SERIES}.2.dcm")
    stranger.PatientID = "SOMEBODY-ELSE"
    write(stranger, folder / f"{SERIES}.2.dcm")
    assert main(["analyze", str(folder), "--model", "brightness", "-o", str(tmp_path / "out")]) == 1
    assert "of 2 patients" in capsys.readouterr().out


def test_results_are_never_written_over_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["analyze", str(slices(tmp_path / "in")), "--model", "brightness", "-o", str(tmp_path / "out")]
    assert main(told) == 0
    before = {name: path.read_bytes() for name, path in results(tmp_path / "out").items()}
    assert main(told) == 2
    assert "is there already" in capsys.readouterr().err
    assert {name: path.read_bytes() for name, path in results(tmp_path / "out").items()} == before


def test_series_that_nearly_have_one_uid_have_folders_of_their_own(tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", "1.3.12.2.1107.5.2.30.3275.0.0.0", SeriesNumber=3)
    slices(folder, "1.3.12.2.1107.5.2.30.4475.0.0.0", SeriesNumber=3, PatientID="OTHER")
    slices(folder, "1.3.12.2.1107.5.2.30.4475.0.0.0", 1, study_instance_uid="1.2.9", sop_instance_uid="1.9")
    assert main(["analyze", str(folder), "--model", "series-quality", "-o", str(tmp_path / "out")]) == 0
    patients = sorted(str(dcmread(path).PatientID) for path in (tmp_path / "out").rglob("sr.dcm"))
    assert len(patients) == 3
    assert "OTHER" in patients


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"PatientID": "P", "PatientBirthDate": "19700101"}, "of 2 patients"),
        ({"PatientID": ""}, "have no Patient ID"),
        ({"PatientID": "P", "study_instance_uid": "1.2.3.4"}, "of another study"),
    ],
)
def test_a_further_input_is_of_the_same_patient_and_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, str], why: str
) -> None:
    primary = slices(tmp_path / "in", PatientID="P", PatientBirthDate="19800101")
    beside = slices(tmp_path / "beside", f"{STUDY}.5", **other)
    told = ["analyze", str(primary), "--model", "pair", "--input", f"other={beside}"]
    assert main([*told, "-o", str(tmp_path / "out")]) == 1
    assert why in capsys.readouterr().out


def test_the_built_in_model_measures_real_lungs_in_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["analyze", str(require_data("series/CT_chest_LIDC-0314")), "--model", "lungs", "--json"]
    assert main([*told, "-o", str(tmp_path / "out"), "--results", "sr"]) == 0
    [outcome] = json.loads(capsys.readouterr().out)
    assert 1.5 < float(outcome["found"]["left-lung.Volume"][0]) / 1000 < 2.3


def test_a_path_that_is_not_there_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "nothing"
    told = ["analyze", str(nothing), "--model", "brightness", "-o", str(tmp_path / "out")]
    assert main(told) == 2
    said = capsys.readouterr().err
    assert said.count(str(nothing)) == 1
    assert "there is no such file or folder" in said
