"""What passes between the node and a model's process is what was meant, or is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from models.types import Code, Findings, Inputs, Segment, Volume
from node.processes import job_folder
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
        file.truncate(job_folder.MOST_ARRAY_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 4096 MB"):
        folder.read_result(volume())


def test_an_array_for_which_there_is_no_space_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", megabytes=4) as disk:
        folder = JobFolder(disk.path)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            folder.allocate((8, 1024, 1024), np.dtype(np.int16))
