"""Settling happens in processes of its own: what becomes of them costs no instance and not the node."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import uid

from node import subordinate
from node.app import App
from node.config.settings import Config, JobsConfig, NodeConfig, StorageConfig
from node.errors import StorageFailure, UnexpectedFailure
from node.index.index import Provenance
from node.jobs.task import Done, Job, Outcome, Retry
from node.settling import pool
from node.tasks import settle
from node.tasks.settle import SettleTask
from node.verification import verify
from tests.support import faulty_settling, made
from tests.support.manual_clock import ManualClock
from tests.support.processes import is_gone
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

PIXELS = (np.arange(64 * 50).reshape(64, 50) // 9 - 100).astype(np.int16)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    with small_node(config(tmp_path / "data"), ManualClock()) as running:
        yield running


@pytest.fixture
def task() -> Iterator[SettleTask]:
    made_here = SettleTask()
    yield made_here
    made_here.cancel()


def received(node: SmallNode, count: int = 1) -> list[str]:
    return node.receive(*(made.ct_image(pixels=PIXELS) for _ in range(count)))


def run(task: SettleTask, node: SmallNode, *sop_instance_uids: str) -> list[Outcome]:
    """Run the task as the engine does, and apply what it says."""
    now = node.services.clock.timestamp()
    jobs = [
        Job(number, "settle", one, "", {"sop_instance_uid": one}, "1.2", 1, now)
        for number, one in enumerate(sop_instance_uids)
    ]
    outcomes = []
    for _, outcome in task.run(node.services, jobs):
        if isinstance(outcome, Done) and outcome.apply is not None:
            node.services.database.write(outcome.apply)
        outcomes.append(outcome)
    return outcomes


def settling_processes() -> list[int]:
    return [process.pid or 0 for process in multiprocessing.active_children() if process.name == "settles"]


def test_a_process_that_is_killed_in_the_middle_loses_nothing(node, task, tmp_path, monkeypatch):
    """Another process settles the instance whose process was killed while it wrote the file."""
    faulty_settling.inject(monkeypatch, faulty_settling.stalls_once, tmp_path)
    (tmp_path / "stall").touch()
    instances = received(node, 3)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.extend(run(task, node, *instances)))
    thread.start()
    wait_until((tmp_path / "stalled").exists, 60, "a file that is half written")
    os.kill(int((tmp_path / "stalled").read_text()), signal.SIGKILL)
    thread.join(60)
    assert [type(outcome) for outcome in outcomes] == [Done] * 3
    for one in instances:
        assert node.stored(one).kept_reason == ""
        assert verify(node.services, node.stored(one)) == ""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=lambda one: one.name)
def test_an_instance_that_kills_its_process_twice_is_kept_as_received(
    node, task, tmp_path, monkeypatch, number
):
    """Its neighbours are compressed and proven, and it is settled with the reason after two deaths."""
    before, poison, after = received(node, 3)
    tries = tmp_path / "tries"
    faulty_settling.inject(monkeypatch, faulty_settling.dies_of, [poison], int(number), tries)
    outcomes = run(task, node, before, poison, after)
    assert [type(outcome) for outcome in outcomes] == [Done] * 3
    assert tries.read_text() == "xx"
    stored = node.stored(poison)
    assert stored.kept_reason.startswith("settling it ended 2 processes")
    assert stored.stored_transfer_syntax_uid == uid.ExplicitVRLittleEndian
    assert verify(node.services, stored) == ""
    assert [node.stored(one).kept_reason for one in (before, after)] == ["", ""]


def test_each_of_several_that_kill_their_processes_is_kept_and_no_other_is(node, task, tmp_path, monkeypatch):
    """Files of a batch are made durable together, and yet it is found whose fault a death is."""
    instances = received(node, 4)
    poisons = instances[1:3]
    tries = tmp_path / "tries"
    faulty_settling.inject(monkeypatch, faulty_settling.dies_of, poisons, int(signal.SIGSEGV), tries)
    assert [type(outcome) for outcome in run(task, node, *instances)] == [Done] * 4
    assert tries.read_text() == "x" * 4
    assert not list((tmp_path / "data" / "archive" / "partial").glob("*.part"))
    for one in instances:
        assert node.stored(one).kept_reason.startswith("settling it ended 2" if one in poisons else "")
        assert bool(node.stored(one).kept_reason) == (one in poisons)
        assert verify(node.services, node.stored(one)) == ""


def test_a_death_that_was_another_ones_fault_is_not_put_down_to_an_instance(
    node, task, tmp_path, monkeypatch
):
    """Each of two loses its process once, in one batch: both are compressed."""
    instances = received(node, 4)
    faulty_settling.inject(monkeypatch, faulty_settling.dies_once_of, instances[1:3], tmp_path)
    assert [type(outcome) for outcome in run(task, node, *instances)] == [Done] * 4
    assert len(list(tmp_path.glob("died-*"))) == 2
    assert [node.stored(one).kept_reason for one in instances] == [""] * 4


def test_a_codec_that_sleeps_is_ended_in_the_time_of_its_instance_and_not_of_the_batch(
    node, task, monkeypatch
):
    instances = received(node, 4)
    monkeypatch.setattr(subordinate, "CPU_SECONDS", 0.1)
    seconds: list[float] = []

    class Noted:
        def __init__(self):
            self._poll = select.poll()
            self.register = self._poll.register

        def poll(self, milliseconds):
            seconds.append(milliseconds / 1000)
            return self._poll.poll(milliseconds)

    monkeypatch.setattr(pool, "select", SimpleNamespace(poll=Noted, POLLIN=select.POLLIN))
    faulty_settling.inject(monkeypatch, faulty_settling.hangs_in, instances[2], False)
    assert [type(outcome) for outcome in run(task, node, *instances)] == [Done] * 4
    assert [bool(node.stored(one).kept_reason) for one in instances] == [False, False, True, False]
    assert max(seconds) < 10.0


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "asleep"])
def test_an_instance_that_hangs_its_process_is_kept_as_received(node, task, monkeypatch, is_busy):
    """A codec that never comes back is ended, whether it takes the processor or not."""
    (poison,) = received(node)
    if not is_busy:
        monkeypatch.setattr(subordinate, "CPU_SECONDS", 0.1)
    faulty_settling.inject(monkeypatch, faulty_settling.hangs_in, poison, is_busy)
    assert [type(outcome) for outcome in run(task, node, poison)] == [Done]
    assert node.stored(poison).kept_reason == "settling it ended 2 processes: it took too long"


def test_a_process_that_ends_by_itself_is_no_fault_of_the_instance(node, task, monkeypatch):
    """The instance is tried again later, and is not kept as received."""
    (instance,) = received(node)
    faulty_settling.inject(monkeypatch, faulty_settling.exits)
    (outcome,) = run(task, node, instance)
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, StorageFailure)
    assert "exit status 3" in str(outcome.error)
    monkeypatch.undo()
    run(task, node, instance)
    assert node.stored(instance).kept_reason == ""


def test_an_unforeseen_error_is_tried_again_and_logged_without_its_message(node, task, monkeypatch, caplog):
    """Where it arose is logged; what it says may be of a patient, and is not."""
    (instance,) = received(node)
    faulty_settling.inject(monkeypatch, faulty_settling.raises, "Doe^Jane")
    (outcome,) = run(task, node, instance)
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, UnexpectedFailure)
    (record,) = [record for record in caplog.records if record.message == "task failed"]
    assert "faulty_settling.py" in record.frames
    assert "Doe" not in str(vars(record))


def test_settling_stands_back_behind_the_node(node, task):
    """Its processes have a lower priority than the node."""
    run(task, node, *received(node))
    (process,) = settling_processes()
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + pool.NICENESS)  # there is no more
    assert os.getpriority(os.PRIO_PROCESS, process) == niceness


def test_an_instance_that_has_waited_long_is_settled_at_the_priority_of_the_node(node, task):
    """The receive log does not grow for ever on a node that receives all the time."""
    first, second = received(node, 2)
    run(task, node, first)
    (patient,) = settling_processes()
    long_ago = node.services.clock.timestamp() - settle.PATIENCE_SECONDS - 1
    job = Job(1, "settle", second, "", {"sop_instance_uid": second}, "1.2", 1, long_ago)
    assert [type(outcome) for _, outcome in task.run(node.services, [job])] == [Done]
    (process,) = settling_processes()
    assert os.getpriority(os.PRIO_PROCESS, process) == os.getpriority(os.PRIO_PROCESS, 0)
    assert is_gone(patient)


def test_one_process_serves_batch_after_batch(node, task):
    """A process is kept for the next instances."""
    run(task, node, *received(node, 2))
    before = settling_processes()
    run(task, node, *received(node, 2))
    assert settling_processes() == before


def test_a_stop_in_the_middle_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    """What the node was settling when it was stopped is settled after its next start."""
    faulty_settling.inject(monkeypatch, faulty_settling.stalls_once, tmp_path)
    (tmp_path / "stall").touch()
    settings = Config(
        node=NodeConfig(port=0, data_dir=tmp_path / "data"),
        storage=StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=0),
        jobs=JobsConfig(workers=1),
        source=tmp_path / "config.toml",
    )
    image = made.ct_image(pixels=PIXELS)
    app = App(settings)
    app.start()
    try:
        app.services.ingest.receive(
            [[made.encoded(image, uid.ExplicitVRLittleEndian)]],
            sop_class_uid=image.SOPClassUID,
            sop_instance_uid=image.SOPInstanceUID,
            transfer_syntax_uid=uid.ExplicitVRLittleEndian,
            provenance=Provenance("SCANNER", "ANODE", "127.0.0.1", 0, 0.0),
        )
        wait_until((tmp_path / "stalled").exists, 60, "a file that is half written")
        partial = tmp_path / "data" / "archive" / "partial"
        assert len(list(partial.iterdir())) == 1
    finally:
        app.stop()
    assert is_gone(int((tmp_path / "stalled").read_text()))
    assert settling_processes() == []
    assert list(partial.iterdir()) == []
    app.start()
    try:
        app.engine.run_until_idle(60)
        with app.services.database.read() as connection:
            stored = app.services.index.get(connection, image.SOPInstanceUID)
        assert stored.is_settled
        assert verify(app.services, stored) == ""
    finally:
        app.stop()


def test_a_process_that_was_given_back_is_not_ended_under_the_next_thread(node, task, monkeypatch):
    """Between giving back and returning another thread may have taken it."""
    first, second = received(node, 2)
    run(task, node, first)
    settlers = task._settlers
    give_back = settlers._give_back
    taken: list[object] = []

    def and_taken(settler: object) -> bool:
        kept = give_back(settler)
        taken.append(settlers._take(pool.NICENESS))
        return kept

    monkeypatch.setattr(settlers, "_give_back", and_taken)
    assert isinstance(run(task, node, second)[0], Done)
    monkeypatch.undo()
    (settler,) = taken
    assert settler.process._process.is_alive()
    settlers._give_back(settler)


def test_what_waits_for_a_burst_to_pass_ends_when_the_node_stops(node, task, monkeypatch):
    """No process is started any more by then."""
    (one,) = received(node)
    is_asked = threading.Event()

    def fast(**_: bool) -> float:
        is_asked.set()
        return 1000.0

    monkeypatch.setattr(node.services.ingest.pace, "per_second", fast)
    outcomes: list[list[Outcome]] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(task, node, one)))
    thread.start()
    assert is_asked.wait(10)
    task.cancel()
    thread.join(10)
    assert outcomes == [[]]
    assert not settling_processes()
