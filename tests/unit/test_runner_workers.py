"""A model runs in a process that stays for the next run; whatever it does, the node is told what happened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from models.types import Findings, Inputs, InstanceView, Series, Volume
from node.catalogue import catalogue
from node.errors import (
    ModelCrashed,
    ModelOutOfMemory,
    ModelTimedOut,
    ModelUnusable,
    OutOfSpace,
    ResultInvalid,
    UnfitInput,
)
from node.processes import watching, worker
from node.processes.job_folder import JobFolder
from node.processes.traces import Traces
from node.processes.workers import RunStopped, WorkerSpec
from tests.support import made_folders
from tests.support.file_systems import small_file_system
from tests.support.made_models import install
from tests.support.model_runs import PATIENCE_SECONDS, ModelRuns, model_runs, processes_of, run, volume
from tests.support.processes import is_gone
from tests.support.waiting import wait_until

#: What the interpreter itself takes does not count to this much.
SMALL_MB = 200


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRuns]:
    with model_runs(tmp_path, monkeypatch) as runs:
        yield runs


# --- what comes back ---------------------------------------------------------


def test_findings_come_back_as_the_model_made_them(runs: ModelRuns) -> None:
    findings = runs.run("brightness")
    (segment,) = findings.segments
    assert np.array_equal(segment.mask, volume().volume.voxels > 52)
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


def test_a_series_reaches_the_model_and_the_process_is_kept_modest(runs: ModelRuns) -> None:
    instances = (
        InstanceView(1, {"KVP": None, "At": (1.0, (2, "x"))}, np.array([[[7]]], np.uint8)),
        InstanceView(2, {}, None, "no codec"),
    )
    summary = runs.run("counter", Inputs({"series": Series(instances)}), threads=3).summary
    assert summary == (
        "2 {'KVP': None, 'At': (1.0, (2, 'x'))} [[[7]]] None no codec "
        f"{{'nice': {min(19, os.nice(0) + 10)}, 'omp': '3'}} False"
    )


def test_the_first_to_be_ended_for_want_of_memory_is_the_model(runs: ModelRuns) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(runs.told("said = open('/proc/self/oom_score_adj').read()")) >= max(own, 500)


def test_a_refusal_is_no_crash_and_the_process_stays(runs: ModelRuns) -> None:
    first = runs.told("said = model.name")
    with pytest.raises(UnfitInput, match="model told refuses the series: too dark to see"):
        runs.told("raise ValueError('too dark\\nto see')")
    assert runs.told("said = model.name") == first


@pytest.mark.parametrize(
    "code",
    [
        "import numpy; numpy.zeros((3, 4)) @ numpy.zeros((3, 4))",
        "import numpy; numpy.stack([])",
        "int('seven')",
    ],
    ids=["an-operation", "a-library", "a-type"],
)
def test_a_mistake_of_the_model_is_no_refusal(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelCrashed, match=r"exit status 1: .*ValueError"):
        runs.told(code)


# --- what goes wrong ---------------------------------------------------------


def test_a_crash_is_told_with_its_last_lines(runs: ModelRuns) -> None:
    with pytest.raises(ModelCrashed, match=r"exit status 1: .*KeyError: 'no such organ'") as raised:
        runs.run("crasher")
    assert "/" not in str(raised.value)


def test_a_segmentation_fault_is_a_crash(runs: ModelRuns) -> None:
    with pytest.raises(ModelCrashed, match="Segmentation fault"):
        runs.run("segfaulter")


def test_an_abort_is_a_crash(runs: ModelRuns) -> None:
    with pytest.raises(ModelCrashed, match="Aborted"):
        runs.told("import os; os.abort()")


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "raise SystemExit"])
def test_an_end_without_a_result_is_a_crash(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelCrashed, match="left no result"):
        runs.told(code)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("liar", "predict returned str instead of Findings"),
        ("misshaper", "the mask of s has the shape (1, 1, 1), its input (3, 5, 7)"),
        ("infinite", "Test is nan"),
    ],
)
def test_findings_that_are_none_are_a_crash(runs: ModelRuns, model: str, message: str) -> None:
    with pytest.raises(ModelCrashed) as caught:
        runs.run(model)
    assert str(caught.value) == f"model {model} failed: {message}"


def test_what_a_crash_quotes_of_its_source_is_as_it_is_written_there(runs: ModelRuns, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    opens = 'open("/nowhere/there/config.toml")'
    (path / "model.py").write_text(f"class Model:\n    def predict(self, inputs):\n        return {opens}\n")
    made_folders.folder(path, "[[input]]", runner='kind = "python"\nentry = "model.py:Model"')
    with pytest.raises(ModelCrashed) as caught:
        runs.run(str(path), folder=path)
    told = str(caught.value)
    assert f'File "model.py", line 3, in predict | return {opens}' in told
    assert "No such file or directory: '/nowhere/there/config.toml'" in told


def test_a_crash_is_not_held_up_by_a_thread_that_the_model_began(runs: ModelRuns) -> None:
    with pytest.raises(ModelCrashed, match="ZeroDivisionError"):
        runs.told("import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); 1 / 0")


def test_a_model_that_cannot_be_loaded_says_why(runs: ModelRuns) -> None:
    with pytest.raises(ModelUnusable, match="cannot be loaded: LookupError: the weights are of another"):
        runs.run("unloadable")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("class Other: ...", "{} has no Model"),
        ("class Model: ...", "{}: Model has no predict(inputs)"),
        (
            "import absent_package",
            "{}: Model cannot be made: ModuleNotFoundError: No module named 'absent_package'",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_told_in_words_alone(
    runs: ModelRuns, tmp_path: Path, source: str, why: str
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "model.py").write_text(source)
    made_folders.folder(path, "[[input]]", runner='kind = "python"\nentry = "model.py:Model"')
    with pytest.raises(ModelUnusable) as caught:
        runs.run(str(path), folder=path)
    assert str(caught.value) == f"model made cannot be loaded: {why.format(path / 'model.py')}"
    assert "mend its folder or package" in caught.value.action


def test_a_model_is_loaded_before_there_is_a_run(runs: ModelRuns) -> None:
    spec = WorkerSpec(catalogue.describe("brightness"))
    with runs.workers.lease(spec) as process:
        for _ in range(2):
            with process.job_folder() as folder:
                process.load(folder, PATIENCE_SECONDS)
        with process.job_folder() as folder:
            assert run(process, volume(), folder, PATIENCE_SECONDS).summary == "done"
    with (
        runs.workers.lease(WorkerSpec(catalogue.describe("brightness"), threads=2)) as process,
        process.job_folder() as folder,
        pytest.raises(ModelTimedOut, match="model brightness was not loaded within 0 s and was ended"),
    ):
        process.load(folder, 0.0)


def test_what_a_model_prints_is_no_answer(runs: ModelRuns) -> None:
    code = "import os; print('[\"done\", \"\"]', flush=True); os.write(1, b'{}'); said = 'whole'"
    assert runs.told(code) == "whole"


def test_an_answer_that_is_none_is_not_believed(runs: ModelRuns) -> None:
    with pytest.raises(ResultInvalid, match="out of step"):
        runs.told(
            "import os\nfor one in range(3, 1024):\n try: os.write(one, b'nonsense\\n')\n except OSError: 0"
        )


def test_no_result_object_is_made_of_a_broken_result(
    monkeypatch: pytest.MonkeyPatch, runs: ModelRuns
) -> None:
    def broken(self: JobFolder, inputs: Inputs) -> Findings:
        raise ValueError("truncated")

    monkeypatch.setattr(JobFolder, "read_result", broken)
    with pytest.raises(ResultInvalid, match="truncated"):
        runs.run("brightness")


def test_a_hang_is_ended_with_everything_it_started(runs: ModelRuns) -> None:
    ended: list[int] = []
    seen = threading.Event()

    def look() -> None:
        # The two that stand beside the model, the model, and what it started.
        with suppress(AssertionError):
            wait_until(lambda: len(runs.processes()) >= 4, PATIENCE_SECONDS)
        ended.extend(runs.processes())
        seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    with pytest.raises(ModelTimedOut, match="did not finish within 4 s"):
        runs.run("sleeper", timeout_seconds=4.0)
    thread.join()
    assert len(ended) >= 4
    assert all(map(is_gone, ended))


@pytest.mark.parametrize(
    "code",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ],
    ids=["stops-itself", "ignores-signals"],
)
def test_a_model_that_answers_to_nothing_is_ended_in_time(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelTimedOut):
        runs.told(code, timeout_seconds=2.0)
    assert runs.processes() == []


# --- memory ------------------------------------------------------------------


def test_too_much_memory_is_named(runs: ModelRuns) -> None:
    with pytest.raises(ModelOutOfMemory, match=f"more than the {SMALL_MB} MB"):
        runs.run("hoarder", memory_mb=SMALL_MB)


def test_what_a_model_starts_counts_to_its_memory(runs: ModelRuns) -> None:
    script = "import time; kept = b'1' * (300 << 20); time.sleep(600)"
    with pytest.raises(ModelOutOfMemory, match=f"more than the {SMALL_MB} MB"):
        runs.told(
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])", memory_mb=SMALL_MB
        )


@pytest.mark.parametrize(
    "code",
    [
        "import os; f = os.memfd_create('x'); [os.write(f, b'1' * (1 << 20)) for _ in range(300)]",
        "f = open('/dev/shm/x', 'wb'); [f.write(b'1' * (1 << 20)) for _ in range(220)]",
    ],
    ids=["without-a-name", "shared-memory"],
)
def test_files_that_lie_in_memory_count_to_its_memory(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelOutOfMemory, match=f"more than the {SMALL_MB} MB"):
        runs.told(f"{code}; import time; time.sleep(600)", memory_mb=SMALL_MB)


def test_segments_of_memory_that_nobody_has_attached_are_not_overlooked(runs: ModelRuns) -> None:
    code = (
        "import ctypes, time\nl = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p\n"
        "for _ in range(3):\n"
        "    at = l.shmat(l.shmget(0, 100 << 20, 0o1600), None, 0)\n"
        "    ctypes.memset(at, 1, 100 << 20); l.shmdt(ctypes.c_void_p(at))\n"
        "time.sleep(600)"
    )
    with pytest.raises(ModelOutOfMemory, match="MB of shared memory segments"):
        runs.told(code)


def test_memory_counts_from_the_beginning_before_any_run(runs: ModelRuns) -> None:
    spec = WorkerSpec(catalogue.describe("weighty"), memory_mb=SMALL_MB)
    with runs.workers.lease(spec) as leased, leased.job_folder() as folder:
        wait_until(lambda: not leased.is_usable, PATIENCE_SECONDS, "the end of a model that takes too much")
        wait_until(lambda: not runs.processes(), PATIENCE_SECONDS, "the end of all its processes")
        with pytest.raises(ModelOutOfMemory, match=f"more than the {SMALL_MB} MB"):
            run(leased, volume(), folder, PATIENCE_SECONDS)


def test_a_model_that_takes_memory_between_runs_fails_none(runs: ModelRuns) -> None:
    taking = (
        "import os, threading, time\n"
        "def take(sign=os.environ['HOME'] + '/sign'):\n"
        "    while not os.path.exists(sign): time.sleep(0.01)\n"
        "    model.kept = b'1' * (300 << 20)\n"
        "threading.Thread(target=take, daemon=True).start()\n"
        "said = model.name"
    )
    first = runs.told(taking, memory_mb=SMALL_MB)
    (folder,) = runs.left()
    assert processes_of(folder)
    (folder / "made" / "home" / "sign").touch()
    wait_until(lambda: not processes_of(folder), PATIENCE_SECONDS, "the end of an idle model")
    assert runs.told("said = model.name", memory_mb=SMALL_MB) != first


def test_a_model_within_its_memory_is_not_disturbed(runs: ModelRuns) -> None:
    assert runs.run("brightness", memory_mb=SMALL_MB).summary == "done"


def test_large_inputs_do_not_count_to_its_memory(runs: ModelRuns) -> None:
    spec = WorkerSpec(catalogue.describe("told"), memory_mb=100)
    with runs.workers.lease(spec) as leased, leased.job_folder() as folder:
        voxels = folder.allocate((160, 512, 1024), np.dtype(np.int16))
        voxels[:, ::2, ::2] = 1
        inputs = Inputs(
            {"volume": Volume(voxels, np.eye(4), (1, 1, 1), "1")},
            {"code": "said = inputs.volume.voxels.max()"},
        )
        assert run(leased, inputs, folder, PATIENCE_SECONDS).summary == "1"


@pytest.mark.parametrize(
    "code",
    [
        "raise MemoryError",
        "raise RuntimeError('std::bad_alloc')",
        "raise OSError(12, 'Cannot allocate memory')",
        "import numpy; numpy.empty(1 << 50)",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
def test_memory_that_is_not_to_be_had_is_told_from_a_crash(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelOutOfMemory, match="memory"):
        runs.told(code)


def test_a_machine_without_memory_ends_idle_workers_first_and_then_the_model(
    monkeypatch: pytest.MonkeyPatch, runs: ModelRuns
) -> None:
    runs.run("brightness")
    (idle,) = runs.left()
    monkeypatch.setattr(watching, "FLOOR_BYTES", 1 << 60)
    with pytest.raises(ModelOutOfMemory, match="MB left, and was ended"):
        runs.told("import time; time.sleep(600)")
    assert not idle.exists()


@pytest.mark.parametrize(
    "starting",
    [
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "os.fork() or time.sleep(600)",
    ],
    ids=["threads", "processes"],
)
def test_a_model_that_starts_without_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, runs: ModelRuns, starting: str
) -> None:
    monkeypatch.setattr(watching, "MOST_THREADS", 40)
    code = f"import os, threading, time\nfor _ in range(60): {starting}\ntime.sleep(600)"
    with pytest.raises(ModelCrashed, match="more than 40 processes and threads"):
        runs.told(code)
    assert runs.processes() == []


# --- disk --------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path / "package", monkeypatch)
    with small_file_system(tmp_path / "small", megabytes=16) as disk:
        yield disk.path


FILLING = "file = open('big', 'wb')\nwhile True: file.write(b'1' * 65536); file.flush()"


def test_a_disk_that_a_model_fills_is_no_fault_of_the_next_run(small_disk: Path) -> None:
    runs = ModelRuns(small_disk)
    with pytest.raises(OutOfSpace, match="model told"):
        runs.told(FILLING)
    assert runs.left() == []
    assert runs.told("said = len(open('big', 'wb').write(b'1' * (4 << 20)) * 'x')") == str(4 << 20)
    runs.workers.stop()


def test_a_model_is_ended_before_it_takes_what_is_held_in_reserve(small_disk: Path) -> None:
    runs = ModelRuns(small_disk, reserve_bytes=8 << 20)
    with pytest.raises(OutOfSpace, match="held in reserve; model told was ended"):
        runs.told("open('big', 'wb').write(b'1' * (12 << 20)); import time; time.sleep(600)")
    assert runs.left() == []
    runs.workers.stop()


def test_a_model_is_ended_before_the_disk_can_name_no_more_files(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=2000", small_disk], check=True)
    runs = ModelRuns(small_disk)
    names = os.statvfs(small_disk).f_favail
    code = f"import time\nfor n in range({names - 30}): open(str(n), 'w').close()\ntime.sleep(600)"
    with pytest.raises(ModelCrashed, match=r"in \d+ files .* was ended: there is space for \d+ more files"):
        runs.told(code)
    assert runs.left() == []
    runs.workers.stop()


def test_a_disk_that_is_full_before_is_named(small_disk: Path) -> None:
    runs = ModelRuns(small_disk)
    with (small_disk / "other").open("wb") as file, suppress(OSError):
        while True:
            file.write(b"1" * 65536)
            file.flush()
    with pytest.raises(OutOfSpace):
        runs.run("brightness")
    runs.workers.stop()


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.makedirs('closed/within/it'); os.chmod('closed/within', 0); os.chmod('closed', 0)",
        "import os\nfor _ in range(1200): os.mkdir('deep'); os.chdir('deep')",
        "import os; os.symlink('..', 'link'); os.mkfifo('pipe')",
    ],
    ids=["closed", "deep", "odd"],
)
def test_whatever_a_model_leaves_is_removed_with_the_folder_of_its_run(runs: ModelRuns, code: str) -> None:
    runs.told(code)
    (folder,) = runs.left()
    assert list((folder / "given").iterdir()) == []
    assert sorted(one.name for one in (folder / "made").iterdir()) == ["home", "stderr.txt", "tmp"]


# --- a process for many runs -------------------------------------------------


def test_runs_of_one_kind_share_a_process_and_load_the_model_once(runs: ModelRuns) -> None:
    names = {runs.told("said = model.name") for _ in range(3)}
    assert len(names) == 1
    assert len(runs.left()) == 1
    assert runs.told("said = model.name", threads=2) not in names


def test_runs_at_the_same_time_have_a_process_each(runs: ModelRuns) -> None:
    spec = WorkerSpec(catalogue.describe("told"))
    inputs = volume({"code": "said = model.name"})
    with (
        runs.workers.lease(spec) as one,
        one.job_folder() as mine,
        runs.workers.lease(spec) as other,
        other.job_folder() as theirs,
    ):
        first = run(one, inputs, mine, PATIENCE_SECONDS).summary
        assert run(other, inputs, theirs, PATIENCE_SECONDS).summary != first


@pytest.mark.parametrize("code", ["1 / 0", "import os; os._exit(0)"])
def test_a_process_that_failed_is_not_used_again(runs: ModelRuns, code: str) -> None:
    first = runs.told("said = model.name")
    with pytest.raises(ModelCrashed):
        runs.told(code)
    assert runs.told("said = model.name") != first


def test_a_process_that_ended_while_it_was_idle_is_not_used_again(runs: ModelRuns) -> None:
    ending = (
        "import os, threading, time\n"
        "def end(sign=os.environ['HOME'] + '/sign'):\n"
        "    while not os.path.exists(sign): time.sleep(0.01)\n"
        "    os._exit(1)\n"
        "threading.Thread(target=end).start()\n"
        "said = model.name"
    )
    first = runs.told(ending)
    (folder,) = runs.left()
    assert processes_of(folder)
    (folder / "made" / "home" / "sign").touch()
    wait_until(lambda: not processes_of(folder), PATIENCE_SECONDS)
    assert runs.told("said = model.name") != first


def test_a_process_is_replaced_after_many_jobs(monkeypatch: pytest.MonkeyPatch, runs: ModelRuns) -> None:
    monkeypatch.setattr(worker, "MOST_JOBS", 2)
    names = [runs.told("said = model.name") for _ in range(4)]
    assert names[0] == names[1] != names[2] == names[3]


def test_a_process_that_keeps_ever_more_memory_is_replaced(
    monkeypatch: pytest.MonkeyPatch, runs: ModelRuns
) -> None:
    monkeypatch.setattr(worker, "MOST_GROWTH_BYTES", 1 << 20)
    first = runs.told("said = model.name")
    assert runs.told("model.kept = b'1' * (200 << 20); said = model.name") == first
    assert runs.told("said = model.name") != first


def test_a_process_in_which_a_model_left_another_is_replaced(runs: ModelRuns) -> None:
    first = runs.told("import subprocess; model.kept = subprocess.Popen(['sleep', '600']); said = model.name")
    assert runs.processes() == []
    assert runs.told("said = model.name") != first


def test_a_run_finds_nothing_of_the_one_before(runs: ModelRuns) -> None:
    runs.told("import tempfile; open('here', 'w'); tempfile.mkstemp()")
    assert runs.told("import os, tempfile; said = os.listdir('.') + os.listdir(tempfile.gettempdir())") == (
        "['stderr.txt', 'tmp']"
    )


def test_a_run_finds_nothing_that_the_one_before_left_elsewhere(runs: ModelRuns) -> None:
    leaving = (
        "import os\n"
        "places = ['/dev/shm', os.environ['HOME'], os.environ['HOME'] + '/.cache', '../tmp', '..']\n"
        "os.makedirs(places[2], exist_ok=True)\n"
        "for one in places: open(one + '/Doe^Jane', 'w').close()\n"
        "said = model.name"
    )
    first = runs.told(leaving)
    looking = (
        "import os\n"
        "def listed(place): return [n for _, d, f in os.walk(place) for n in d + f]\n"
        "said = [model.name, *(n for p in ('/dev/shm', '..') for n in listed(p))]"
    )
    said = runs.told(looking)
    assert first in said
    assert "Doe^Jane" not in said
    assert ".cache" not in said


def test_what_was_there_before_a_run_and_has_changed_is_noticed(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (tmp_path / "kept").write_text("1")
    traces = Traces([tmp_path], but=job)
    (job / "own").write_text("1")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert traces.remove(but=job)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["job", "kept"]
    assert (job / "own").exists()
    (tmp_path / "kept").write_text("1 Doe^Jane")
    assert not traces.remove(but=job)


def test_idle_processes_are_ended(runs: ModelRuns) -> None:
    runs.run("brightness")
    processes = runs.processes()
    assert processes
    runs.workers.end_idle()
    assert all(map(is_gone, processes))
    assert runs.left() == []


def test_a_stop_ends_the_run_and_every_process(runs: ModelRuns) -> None:
    raised: list[BaseException] = []
    runs.run("brightness")

    def work() -> None:
        try:
            runs.run("sleeper")
        except RunStopped as stopped:
            raised.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: list(runs.data_dir.glob("work/*/made/*/pids")), PATIENCE_SECONDS, "the model's start")
    processes = runs.processes()
    runs.workers.stop()
    thread.join(PATIENCE_SECONDS)
    assert len(raised) == 1
    assert all(map(is_gone, processes))
    with pytest.raises(RunStopped):
        runs.run("brightness")
    runs.workers.resume()
    assert runs.run("brightness").summary == "done"


def test_a_stop_between_lease_and_run_is_noticed(runs: ModelRuns) -> None:
    spec = WorkerSpec(catalogue.describe("brightness"))
    with runs.workers.lease(spec) as leased, leased.job_folder() as folder:
        runs.workers.stop()
        with pytest.raises(RunStopped):
            run(leased, volume(), folder, PATIENCE_SECONDS)


def test_a_model_ends_with_the_node_however_that_ends(runs: ModelRuns) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.model_runs import ModelRuns\n"
        "ModelRuns(Path(sys.argv[1])).run('sleeper')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, runs.data_dir],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: list(runs.data_dir.glob("work/*/made/*/pids")), PATIENCE_SECONDS, "the model's start"
        )
        processes = runs.processes()
    finally:
        parent.kill()
        parent.wait()
    assert len(processes) >= 4
    wait_until(lambda: all(map(is_gone, processes)), PATIENCE_SECONDS, "the model's end")
    for folder in runs.left():
        subprocess.run(["rm", "-r", folder], check=True)
