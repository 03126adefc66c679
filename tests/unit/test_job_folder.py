"""What passes between the node and a model's process is what was meant, or is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from models.types import Check, Code, Findings, Inputs, Measurement, Segment, Volume
from node.processes import foreign_array, job_folder
from node.processes.job_folder import RESULT, JobFolder
from tests.support.file_systems import small_file_system
from tests.support.model_runs import volume

CODE = Code("1", "99TEST", "Test")


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    for name in ("given", "made"):
        (tmp_path / name).mkdir()
    return JobFolder(tmp_path / "given", tmp_path / "made")


def segment(name: str = "s") -> Segment:
    return Segment(name, "S", np.ones((3, 5, 7), bool), CODE, CODE)


def test_an_array_that_lies_in_the_folder_is_not_written_twice(folder: JobFolder) -> None:
    voxels = folder.allocate((2, 3, 4), np.dtype(np.int16))
    voxels[:] = 5
    folder.write_job(Inputs({"volume": Volume(voxels, np.eye(4), (1, 1, 1), "1")}))
    large = [path for path in folder.path.glob("*.npy") if np.load(path).shape == (2, 3, 4)]
    assert len(large) == 1
    assert folder.read_job().volume.voxels.tolist() == voxels.tolist()


def test_a_part_of_an_array_in_the_folder_arrives_as_that_part(folder: JobFolder) -> None:
    voxels = folder.allocate((2, 3, 4), np.dtype(np.int16))
    voxels[:] = np.arange(24).reshape(2, 3, 4)
    folder.write_job(Inputs({"volume": Volume(voxels[::-1, :, 1:], np.eye(4), (1, 1, 1), "1")}))
    assert folder.read_job().volume.voxels.tolist() == voxels[::-1, :, 1:].tolist()


def test_results_lie_beside_the_inputs_and_never_among_them(folder: JobFolder) -> None:
    folder.write_job(volume())
    before = sorted(path.name for path in folder.path.iterdir())
    inputs = folder.read_job()
    folder.write_findings(Findings((segment(),)), inputs)
    assert sorted(path.name for path in folder.path.iterdir()) == before
    found = folder.read_result(inputs)
    assert isinstance(found, Findings)
    assert found.segments[0].mask.all()


def test_no_result_is_mapped_from_a_file_that_the_model_may_cut_short(folder: JobFolder) -> None:
    folder.write_findings(Findings((segment(),)), volume())
    found = folder.read_result(volume())
    for path in folder.results.glob("*.npy"):
        path.write_bytes(b"")
    assert isinstance(found, Findings)
    assert found.segments[0].mask.all()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"contract": 1, "findings": {}}',
        '{"contract": 2}',
        '{"contract": 2, "findings": {"segments": 3}}',
        '{"contract": 2, "findings": {"no_such_thing": []}}',
        '{"contract": 2, "findings": {"summary": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    ],
    ids=["cut", "list", "old", "empty", "type", "key", "deep"],
)
def test_a_broken_result_is_invalid(folder: JobFolder, text: str) -> None:
    (folder.results / RESULT).write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        folder.read_result(volume())


def with_mask(folder: JobFolder, name: object) -> None:
    """Write a result whose only mask is said to lie in ``name``."""
    folder.write_findings(Findings((segment(),)), volume())
    result = json.loads((folder.results / RESULT).read_text())
    result["findings"]["segments"][0]["mask"]["file"] = name
    (folder.results / RESULT).write_text(json.dumps(result))


@pytest.mark.parametrize("name", ["../given/array-00001.npy", "/etc/passwd", "..", 3, None, "link", "pipe"])
def test_a_mask_that_is_no_file_of_the_folder_is_refused(folder: JobFolder, name: object) -> None:
    (folder.results / "link").symlink_to(folder.path)
    os.mkfifo(folder.results / "pipe")
    with_mask(folder, name)
    with pytest.raises(ValueError, match=r"no name of a file|no plain file|not as agreed"):
        folder.read_result(volume())


def test_a_link_in_the_place_of_the_folder_of_results_is_not_followed(
    folder: JobFolder, tmp_path: Path
) -> None:
    folder.write_findings(Findings((segment(),)), volume())
    folder.results.rename(tmp_path / "another")
    folder.results.symlink_to(tmp_path / "another")
    with pytest.raises(OSError, match=r"made|Not a directory|symbolic"):
        folder.read_result(volume())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00\x10\x00cut"])
def test_an_array_that_is_none_is_refused(folder: JobFolder, content: bytes) -> None:
    with_mask(folder, "other.npy")
    (folder.results / "other.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        folder.read_result(volume())


@pytest.mark.parametrize("shape", [[1 << 40], [3, 5, 8], [-3, -5, 7], [3, 5, "x"], 7])
def test_a_mask_of_a_shape_that_its_bits_do_not_have_is_refused(folder: JobFolder, shape: object) -> None:
    folder.write_findings(Findings((segment(),)), volume())
    result = json.loads((folder.results / RESULT).read_text())
    result["findings"]["segments"][0]["mask"]["packed"] = shape
    (folder.results / RESULT).write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r".+"):
        folder.read_result(volume())


def test_a_bottomless_array_is_refused(folder: JobFolder) -> None:
    with_mask(folder, "other.npy")
    with (folder.results / "other.npy").open("wb") as file:
        file.truncate(foreign_array.MOST_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 8192 MB"):
        folder.read_result(volume())


def claiming(path: Path, shape: tuple[int, ...], descr: str = "|u1") -> None:
    """Write a file that is said to hold an array, and has no more than space for it."""
    with path.open("wb") as file:
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(descr).itemsize)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when an array is read into memory."""

    def read(*_: object, **__: object) -> None:
        pytest.fail("an array was read that could be known to be wrong before")

    monkeypatch.setattr(np, "fromfile", read)


@pytest.mark.usefixtures("unread")
def test_an_array_that_does_not_fit_the_input_is_refused_before_it_is_read(folder: JobFolder) -> None:
    folder.write_findings(Findings((segment(),)), volume())
    result = json.loads((folder.results / RESULT).read_text())
    result["findings"]["segments"][0]["mask"] = {"file": "other.npy", "packed": [1, 1, 1 << 33]}
    (folder.results / RESULT).write_text(json.dumps(result))
    claiming(folder.results / "other.npy", (1 << 30,))
    with pytest.raises(ValueError, match=r"take more than|has the shape \(1, 1, 8589934592\)"):
        folder.read_result(volume())


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("descr", ["|u1", "<f8"])
def test_an_array_of_another_type_is_refused_before_it_is_read(folder: JobFolder, descr: str) -> None:
    folder.write_findings(Findings((segment(),)), volume())
    result = json.loads((folder.results / RESULT).read_text())
    result["findings"]["segments"][0]["mask"] = {"file": "other.npy"}
    (folder.results / RESULT).write_text(json.dumps(result))
    claiming(folder.results / "other.npy", (3, 5, 7), descr)
    with pytest.raises(ValueError, match="no array of bool"):
        folder.read_result(volume())


@pytest.mark.usefixtures("unread")
def test_arrays_that_are_too_much_together_are_refused_before_they_are_read(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_findings(Findings((segment("a"), segment("b"), segment("c"))), volume())
    monkeypatch.setattr(foreign_array, "MOST_RESULT_BYTES", 2 * 3 * 5 * 7)
    with pytest.raises(ValueError, match="take more than the 0 MB"):
        folder.read_result(volume())


@pytest.mark.usefixtures("unread")
def test_one_file_is_no_two_arrays(folder: JobFolder) -> None:
    folder.write_findings(Findings((segment("a"), segment("b"))), volume())
    result = json.loads((folder.results / RESULT).read_text())
    first, second = result["findings"]["segments"]
    second["mask"] = first["mask"]
    (folder.results / RESULT).write_text(json.dumps(result))
    with pytest.raises(ValueError, match="named for two arrays"):
        folder.read_result(volume())


def test_a_result_of_more_words_than_the_node_can_hold_is_refused(folder: JobFolder) -> None:
    many = b"{}," * (job_folder.MOST_JSON_BYTES // 3)
    (folder.results / RESULT).write_bytes(b'{"contract": 2, "findings": {"segments": [' + many + b"{}]}}")
    with pytest.raises(ValueError, match="larger than 8 MB"):
        folder.read_result(volume())


@pytest.mark.parametrize(
    ("findings", "wrong"),
    [
        ({"summary": [1]}, "Findings.summary is no text"),
        ({"summary": "\x1b[2J"}, "cannot be printed"),
        ({"summary": "a" * 10_001}, "10001 characters"),
        ({"checks": [{"name": "a", "passed": "no"}]}, "Check.passed is no truth value"),
        ({"checks": [{"name": ["a"], "passed": True}]}, "Check.name is no text"),
        ({"checks": [{"name": "a", "passed": False, "withholds": "*"}]}, "is no list"),
        (
            {"evaluations": [{"concept": {"value": 1, "scheme": "S", "meaning": "m"}, "value": "x"}]},
            "Code.value",
        ),
        (
            {"evaluations": [{"concept": {"value": "1", "scheme": "S", "meaning": "m"}, "value": 7}]},
            "none of",
        ),
        (
            {"measurements": [{"concept": CODE.__dict__, "value": "3", "unit": CODE.__dict__}]},
            "Measurement.value is no number",
        ),
        (
            {"measurements": [{"concept": CODE.__dict__, "value": True, "unit": CODE.__dict__}]},
            "Measurement.value is no number",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(
    folder: JobFolder, findings: dict[str, object], wrong: str
) -> None:
    (folder.results / RESULT).write_text(json.dumps({"contract": 2, "findings": findings}))
    with pytest.raises(ValueError, match=wrong):
        folder.read_result(volume())


def test_what_numpy_has_for_a_number_or_a_truth_value_is_as_good(folder: JobFolder) -> None:
    made = Findings(
        measurements=(Measurement(CODE, np.float32(2.5), CODE),),  # type: ignore[arg-type]
        checks=(Check("a", np.bool_(True)),),  # type: ignore[arg-type]
    )
    folder.write_findings(made, volume())
    found = folder.read_result(volume())
    assert isinstance(found, Findings)
    assert (found.measurements[0].value, found.checks[0].passed) == (2.5, True)


@pytest.mark.parametrize("is_honest", [True, False])
def test_the_reason_of_a_refusal_is_one_line_that_can_be_printed(folder: JobFolder, is_honest: bool) -> None:
    said = "a\n2026-01-01 ERROR not of the node \x1b[2J" + "very " * 1_000_000
    if is_honest:
        folder.write_refusal(said)
    else:
        (folder.results / RESULT).write_text(json.dumps({"contract": 2, "refused": said}))
    reason = folder.read_result(volume())
    assert isinstance(reason, str)
    assert reason.startswith("a 2026-01-01 ERROR not of the node [2Jvery very")
    assert len(reason) <= 1000
    assert reason.isprintable()


def test_an_array_for_which_there_is_no_space_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", megabytes=4) as disk:
        folder = JobFolder(disk.path)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            folder.allocate((8, 1024, 1024), np.dtype(np.int16))
