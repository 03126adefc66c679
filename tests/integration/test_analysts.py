"""The processes that read series and make results: what becomes of them costs no result and not the node."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.analysis.analyst import LEAST_CONCLUDING_SECONDS
from node.analysis.analysts import Analysts, Chosen, RemoteMaking, Reported
from node.analysis.order import Order
from node.analysis.performing import perform
from node.catalogue import catalogue
from node.errors import (
    AnodeError,
    IntegrityFailure,
    ModelCrashed,
    ModelReplaced,
    NotAVolume,
    ProcessDied,
    ResultInvalid,
    UnexpectedFailure,
)
from node.index.index import StoredInstance
from node.processes.job_folder import JobFolder
from node.processes.workers import RunStopped, Workers
from node.verification import look_again
from tests.support import made, made_folders
from tests.support.made_models import install
from tests.support.manual_clock import ManualClock
from tests.support.processes import is_gone
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

SLICES = [
    made.ct_image(
        study_instance_uid="1.2.5",
        series_instance_uid="1.2.3",
        sop_instance_uid=f"1.2.3.{number}",
        ImagePositionPatient=[0, 0, 2.0 * number],
        FrameOfReferenceUID="1.2.4",
    )
    for number in range(4)
]


def analyst_processes() -> list[int]:
    return [one.pid or 0 for one in multiprocessing.active_children() if one.name == "analyses"]


def order(model: str = "brightness") -> Order:
    started_at = datetime(2024, 2, 29, tzinfo=UTC)
    return Order("test", catalogue.describe(model), {}, ("sr", "sc"), started_at, timeout_seconds=120)


class Bench:
    """A node that holds one series, and what its analyses are done by."""

    def __init__(self, node: SmallNode) -> None:
        self.node = node
        self.workers = Workers(node.services.config.node.data_dir)
        self.analysts = Analysts(node.services.config)
        self.asked: list[str] = []
        self.stored = [node.stored(uid) for uid in node.receive(*SLICES)]

    def chosen(
        self,
        *stored: StoredInstance,
        then: Callable[[], None] = lambda: None,
    ) -> Chosen:
        """What the analysis is to see; ``then`` is done when an instance is not where it should be."""

        def look(one: StoredInstance, problem: str) -> StoredInstance | None:
            self.asked.append(one.sop_instance_uid)
            then()
            return look_again(self.node.services, one, problem)

        return Chosen({"volume": stored or tuple(self.stored)}, "0" * 64, look)

    def run(self, chosen: Chosen | None = None, ordered: Order | None = None) -> Reported:
        ordered = ordered or order()
        with self.analysts.making(ordered, chosen or self.chosen()) as making:
            return perform(self.workers, ordered, making)

    def moved(self, number: int = 0) -> list[StoredInstance]:
        """The series, of which one instance is not where it is said to be."""
        settled = self.node.stored(self.stored[number].sop_instance_uid)
        nowhere = replace(settled.location, offset=settled.location.offset + 1)
        return [
            replace(one, location=nowhere) if index == number else one
            for index, one in enumerate(self.stored)
        ]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    install(tmp_path / "package", monkeypatch)
    with small_node(config(tmp_path / "data"), ManualClock()) as node:
        bench = Bench(node)
        yield bench
        bench.workers.stop()
        bench.analysts.stop()


def test_one_process_makes_run_after_run(bench: Bench) -> None:
    first = bench.run()
    (process,) = analyst_processes()
    second = bench.run()
    assert analyst_processes() == [process]
    assert [one.part10 for one in first.objects] == [one.part10 for one in second.objects]
    assert [one.kind for one in first.objects] == ["sr", "sc"]
    assert first.facts == second.facts
    assert first.facts


def test_an_instance_that_has_moved_is_found_by_the_node(bench: Bench) -> None:
    reported = bench.run(bench.chosen(*bench.moved()))
    assert set(bench.asked) == {"1.2.3.0"}
    assert [one.part10 for one in reported.objects] == [one.part10 for one in bench.run().objects]


def test_an_instance_that_is_nowhere_is_an_error_of_its_own_name(bench: Bench) -> None:
    gone = replace(bench.stored[0], sop_instance_uid="1.2.3.99", location=bench.moved()[0].location)
    with pytest.raises(IntegrityFailure, match="SHA-256"):
        bench.run(bench.chosen(gone, *bench.stored[1:]))
    assert bench.run().objects, "the next run is not harmed"


def test_a_process_that_is_killed_fails_one_run(bench: Bench) -> None:
    def kill() -> None:
        for process in analyst_processes():
            os.kill(process, signal.SIGKILL)

    with pytest.raises(ProcessDied, match="killed, most likely for lack of memory"):
        bench.run(bench.chosen(*bench.moved(), then=kill))
    assert bench.run().objects
    assert len(analyst_processes()) == 1


def test_a_stop_ends_a_run_that_is_being_prepared(bench: Bench) -> None:
    with pytest.raises(RunStopped):
        bench.run(bench.chosen(*bench.moved(), then=bench.analysts.stop))
    assert analyst_processes() == []
    with pytest.raises(RunStopped):
        bench.run()
    bench.analysts.resume()
    assert bench.run().objects


def test_a_result_never_names_another_model_than_the_one_that_ran(bench: Bench, tmp_path: Path) -> None:
    """The folder is replaced by another one, whole and pinned, after the run was ordered."""
    folder = tmp_path / "threshold"
    folder.mkdir()
    made_folders.identity(folder / "model.onnx")
    output = f'[[output]]\nname = "said"\nas = "segmentation"\n{made_folders.LABEL}\n'
    made_folders.folder(folder, '[[input]]\nas = "volume"\n' + output)
    ordered = order(str(folder))
    stated = folder / "analysis.toml"
    before = stated.read_text()
    stated.write_text(before.replace('version = "1"', 'version = "2"'))
    assert stated.read_text() != before
    with pytest.raises(ModelReplaced, match=r"1 \(\w+\) was replaced by .* 2 \(\w+\) before it was loaded"):
        bench.run(ordered=ordered)
    with pytest.raises(ModelCrashed, match="is no probability"):
        # It is loaded, and runs.
        bench.run(ordered=order(str(folder)))


def test_a_fault_of_anode_itself_is_told_with_its_place(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    broken: StoredInstance = replace(bench.stored[0], location=None)  # type: ignore[arg-type]
    with pytest.raises(UnexpectedFailure, match="AttributeError"):
        bench.run(bench.chosen(broken, *bench.stored[1:]))
    (told,) = [one for one in caplog.records if one.message == "task failed"]
    assert "source_series.py" in vars(told)["frames"]
    assert bench.run().objects


def test_a_refusal_keeps_its_name(bench: Bench) -> None:
    with pytest.raises(NotAVolume, match="uneven spacing"):
        bench.run(bench.chosen(bench.stored[0], bench.stored[3], bench.stored[1]))


@pytest.mark.parametrize(
    ("number", "refusal", "why"),
    [
        (signal.SIGXCPU, ResultInvalid, "the findings of brightness take too long"),
        (signal.SIGKILL, ProcessDied, "killed"),
    ],
)
def test_findings_that_take_too_long_are_the_models_fault(
    bench: Bench, number: signal.Signals, refusal: type[AnodeError], why: str
) -> None:
    ordered = order()
    with (
        bench.analysts.making(ordered, bench.chosen()) as making,
        bench.workers.lease(ordered.spec) as worker,
        worker.job_folder() as folder,
    ):
        making.prepare(folder)
        worker.run(folder, 120)
        (process,) = analyst_processes()
        # Stopped, so that it is in the middle of its work when the signal comes.
        os.kill(process, signal.SIGSTOP)
        threading.Timer(0.2, lambda: (os.kill(process, number), os.kill(process, signal.SIGCONT))).start()
        with pytest.raises(refusal, match=why):
            making.conclude(folder)
    assert bench.run().objects


def test_the_time_to_make_results_is_limited(bench: Bench) -> None:
    bench.run()
    (process,) = analyst_processes()
    soft, _ = resource.prlimit(process, resource.RLIMIT_CPU)
    assert 0 < soft <= LEAST_CONCLUDING_SECONDS + 60


def test_files_of_a_run_are_let_go_of_when_the_model_fails(bench: Bench) -> None:
    with pytest.raises(ModelCrashed):
        bench.run(ordered=order("crasher"))
    (process,) = analyst_processes()
    assert ".npy" not in Path(f"/proc/{process}/maps").read_text()


def test_what_is_interrupted_in_the_middle_of_an_answer_is_not_used_again(bench: Bench) -> None:
    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        bench.run(bench.chosen(*bench.moved(), then=interrupt))
    assert analyst_processes() == []
    assert bench.run().objects


def test_two_runs_at_the_same_time_have_a_process_each(bench: Bench) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert go_on.wait(60)

    made_first: list[Reported] = []
    chosen = bench.chosen(*bench.moved(), then=wait)
    first = threading.Thread(target=lambda: made_first.append(bench.run(chosen)))
    first.start()
    assert reached.wait(60)
    try:
        second = bench.run()
        assert len(analyst_processes()) == 2
    finally:
        go_on.set()
        first.join()
    assert [one.part10 for one in second.objects] == [one.part10 for one in made_first[0].objects]


def test_one_that_nobody_uses_ends(bench: Bench, tmp_path: Path) -> None:
    analysts = Analysts(bench.node.services.config, most_idle_seconds=0.0)
    wanted = order()
    with analysts.making(wanted, bench.chosen()) as making:
        assert isinstance(making, RemoteMaking)
        making.prepare(_folder(tmp_path))
        (process,) = analyst_processes()
        analysts.end_idle()
        assert not is_gone(process), "it is not idle"
    analysts.end_idle()
    wait_until(lambda: is_gone(process), 10)


def test_it_ends_with_the_node(tmp_path: Path) -> None:
    """Whoever started it and is killed leaves no process behind."""
    script = (
        "import multiprocessing, os, signal, sys\n"
        "from pathlib import Path\n"
        "from node.analysis.analysts import Analysts\n"
        "from node.config.settings import Config, NodeConfig\n"
        "if __name__ == '__main__':\n"
        "    analysts = Analysts(Config(node=NodeConfig(data_dir=Path(sys.argv[1]))))\n"
        "    with analysts.making(None, None):\n"
        "        print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "starts.py"
    path.write_text(script)
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    process = int(done.stdout)
    try:
        wait_until(lambda: is_gone(process), 30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_the_node_itself_loads_nothing_that_makes_results() -> None:
    """Garbage collection stops all threads, and for the longer the more there is."""
    code = "import sys, node.app; print(*(name for name in sys.modules if name in sys.argv[1:]))"
    heavy = (
        "highdicom",
        "node.results.build",
        "node.series.volume",
        "scipy",
        "skimage",
        "SimpleITK",
        "torch",
    )
    told = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


def _folder(path: Path) -> JobFolder:
    given, made_here = path / "given", path / "made"
    given.mkdir()
    made_here.mkdir()
    return JobFolder(given, made_here)
