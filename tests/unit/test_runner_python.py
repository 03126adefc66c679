"""A model runs in a process of its own; whatever it does there, the node is told what happened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.types import Findings, Inputs, InstanceView, Series, Volume
from node.errors import (
    ModelCrashed,
    ModelOutOfMemory,
    ModelTimedOut,
    ResultInvalid,
    UnfitInput,
)
from node.runners.job_folder import RESULT, JobFolder
from node.runners.python import PythonRunner, RunStopped
from tests.support.made_models import install
from tests.support.processes import is_gone
from tests.support.waiting import wait_until

Run = Callable[..., Findings]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    path = tmp_path / "run"
    path.mkdir()
    return JobFolder(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: JobFolder) -> Run:
    install(tmp_path / "package", monkeypatch)

    def run(
        model: str, inputs: Inputs | None = None, *, timeout_seconds: float = 60.0, memory_mb: int = 0
    ) -> Findings:
        runner = PythonRunner(timeout_seconds=timeout_seconds, memory_mb=memory_mb)
        return runner.run(model, inputs or volume(), folder)

    return run


def volume() -> Inputs:
    voxels = np.arange(3 * 5 * 7, dtype=np.int16).reshape(3, 5, 7)
    return Inputs(Volume(voxels, np.eye(4), (1.0, 2.0, 3.0), "[hnsf'U]", {"KVP": 120.0, "Type": ("A", "B")}))


def test_findings_come_back_as_the_model_made_them(run: Run) -> None:
    findings = run("brightness")
    voxels = volume().volume
    assert voxels is not None
    (segment,) = findings.segments
    assert np.array_equal(segment.mask, voxels.voxels > 52)
    assert segment.mask.dtype == np.bool_
    assert (segment.name, segment.label, segment.colour) == ("bright", "Bright", (1, 2, 3))
    assert findings.measurements == segment.measurements
    assert findings.measurements[0].value == 52.0
    assert findings.measurements[0].derivation == segment.laterality
    assert [one.value for one in findings.evaluations] == [segment.type, "words"]
    assert [(one.name, one.passed, one.reason) for one in findings.checks] == [
        ("one", True, ""),
        ("two", False, "why"),
    ]
    assert findings.summary == "done"


def test_a_series_reaches_the_model_and_the_process_is_kept_modest(run: Run) -> None:
    instances = (
        InstanceView(1, {"KVP": None, "At": (1.0, (2, "x"))}, np.array([[[7]]], np.uint8)),
        InstanceView(2, {}, None, "no codec"),
    )
    summary = run("counter", Inputs(series=Series(instances))).summary
    assert summary == (
        "2 {'KVP': None, 'At': (1.0, (2, 'x'))} [[[7]]] None no codec "
        "{'nice': 10, 'omp': '1', 'leader': True} False"
    ).replace("'nice': 10", f"'nice': {os.nice(0) + 10}")


def test_a_refusal_is_no_crash(run: Run) -> None:
    with pytest.raises(UnfitInput, match="model refuser refuses the series: too dark to see"):
        run("refuser")


def test_a_crash_is_told_with_its_last_lines(run: Run) -> None:
    with pytest.raises(ModelCrashed, match=r"exit status 1: .*KeyError: 'no such organ'"):
        run("crasher")


def test_a_segmentation_fault_is_a_crash(run: Run) -> None:
    with pytest.raises(ModelCrashed, match="Segmentation fault"):
        run("segfaulter")


def test_an_end_without_a_result_is_a_crash(run: Run) -> None:
    with pytest.raises(ModelCrashed, match="left no result"):
        run("quitter")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("liar", "returned str instead of Findings"),
        ("misshaper", "has the shape"),
        ("infinite", "Test is nan"),
    ],
)
def test_findings_that_are_none_are_a_crash(run: Run, model: str, message: str) -> None:
    with pytest.raises(ModelCrashed, match=message):
        run(model)


def test_too_much_memory_is_named(run: Run) -> None:
    with pytest.raises(ModelOutOfMemory, match="more than the 200 MB"):
        run("hoarder", memory_mb=200)


def test_a_model_within_its_memory_is_not_disturbed(run: Run) -> None:
    assert run("brightness", memory_mb=200).summary == "done"


def test_a_hang_is_ended_with_everything_it_started(run: Run, folder: JobFolder) -> None:
    with pytest.raises(ModelTimedOut, match="did not finish within 3 s"):
        run("sleeper", timeout_seconds=3.0)
    processes = [int(one) for one in (folder.path / "pids").read_text().split()]
    wait_until(lambda: all(is_gone(one) for one in processes), what="the end of the group")


def test_a_stop_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: JobFolder) -> None:
    install(tmp_path / "package", monkeypatch)
    runner = PythonRunner(timeout_seconds=60)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            runner.run("sleeper", volume(), folder)
        except RunStopped as stopped:
            raised.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until((folder.path / "pids").exists, what="the model's start")
    runner.stop()
    thread.join(10)
    assert len(raised) == 1
    with pytest.raises(RunStopped):
        runner.run("sleeper", volume(), folder)


def test_a_model_ends_with_the_node_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: JobFolder
) -> None:
    install(tmp_path / "package", monkeypatch)
    folder.write_job("sleeper", volume())
    script = (
        "import os, subprocess, sys, time\n"
        f"folder = {str(folder.path)!r}\n"
        "command = [sys.executable, '-m', 'node.runners.child', folder, str(os.getpid()), '0']\n"
        "subprocess.Popen(command, cwd=folder, start_new_session=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    pids = folder.path / "pids"
    try:
        wait_until(pids.exists, seconds=30, what="the model's start")
    finally:
        parent.kill()
        parent.wait()
    model, its_child = (int(one) for one in pids.read_text().split())
    try:
        wait_until(lambda: is_gone(model), what="the model's end")
    finally:
        # It is in nobody's group any more.
        os.kill(its_child, 9)


def test_an_array_that_lies_in_the_folder_is_not_written_twice(folder: JobFolder) -> None:
    voxels = folder.allocate((2, 3, 4), np.dtype(np.int16))
    voxels[:] = 5
    folder.write_job("any", Inputs(Volume(voxels, np.eye(4), (1, 1, 1), "1")))
    assert len(list(folder.path.glob("*.npy"))) == 1
    _, inputs = folder.read_job()
    assert inputs.volume is not None
    assert inputs.volume.voxels.tolist() == voxels.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"contract": 2}',
        '{"contract": 1, "findings": {}}',
        '{"contract": 1, "findings": {"segments": 3}}',
    ],
)
def test_a_broken_result_is_invalid(folder: JobFolder, text: str) -> None:
    (folder.path / RESULT).write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        folder.read_result()


def test_a_mask_outside_of_the_folder_is_refused(folder: JobFolder) -> None:
    segment = '{"shape": [1], "mask": "../../etc/passwd", "colour": [0, 0, 0]}'
    (folder.path / RESULT).write_text(f'{{"contract": 1, "findings": {{"segments": [{segment}]}}}}')
    with pytest.raises(ValueError, match="no name of a file"):
        folder.read_result()


def test_no_result_object_is_made_of_a_broken_result(
    monkeypatch: pytest.MonkeyPatch, run: Run, folder: JobFolder
) -> None:
    def broken(self: JobFolder) -> Findings:
        raise ValueError("truncated")

    monkeypatch.setattr(JobFolder, "read_result", broken)
    with pytest.raises(ResultInvalid, match="truncated"):
        run("brightness")
