"""The engine runs each job to an outcome, once, and no job holds up another for long."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from node import logs
from node.errors import DatabaseFailure, ModelCrashed, OutOfSpace, PeerUnreachable
from node.index.database import Database
from node.jobs.policy import DeliveryPolicy, WorkPolicy
from node.jobs.queue import Queue
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from tests.support.job_bench import Bench, ScriptedTask, job_bench
from tests.support.manual_clock import ManualClock
from tests.support.waiting import wait_until

AT_ONCE = WorkPolicy(tries=3, window_seconds=0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with job_bench(tmp_path) as made:
        yield made


def test_an_outcome_is_applied_in_the_transaction_that_ends_the_job(bench: Bench) -> None:
    def follow(job: Job) -> Outcome:
        def apply(connection: sqlite3.Connection) -> None:
            if job.key == "first":
                bench.queue.enqueue(connection, "work", key="second", payload={})

        return Done(apply)

    bench.enqueue("work", "first")
    bench.engine(ScriptedTask("work", follow)).run_until_idle(10)
    assert bench.states() == {"first": "done", "second": "done"}


def test_an_outcome_that_cannot_be_applied_leaves_nothing_behind_and_is_tried_again(bench: Bench) -> None:
    tries: list[int] = []

    def apply(connection: sqlite3.Connection) -> None:
        bench.queue.enqueue(connection, "other", key=f"from-{len(tries)}", payload={})
        tries.append(1)
        if len(tries) == 1:
            raise DatabaseFailure("no")

    bench.enqueue("work", "a")
    bench.engine(ScriptedTask("work", lambda job: Done(apply)), policy=AT_ONCE).run_until_idle(10)
    assert bench.states() == {"a": "done", "from-1": "ready"}


def test_a_task_that_raises_is_tried_again_and_then_set_aside_with_its_error(bench: Bench) -> None:
    def fail(job: Job) -> Outcome:
        raise ZeroDivisionError("by zero")

    task = ScriptedTask("work", fail)
    bench.enqueue("work", "a")
    bench.engine(task, policy=AT_ONCE).run_until_idle(10)
    job = bench.job("a")
    assert (job["state"], job["attempts"], job["error_name"]) == ("set_aside", 3, "unexpected-failure")
    assert "ZeroDivisionError: by zero" in job["error"]
    assert task.keys == ["a"] * 3


def test_the_jobs_of_a_batch_that_failed_are_tried_alone_so_the_bad_one_is_found(bench: Bench) -> None:
    def fail_on_bad(job: Job) -> Outcome:
        if job.key == "bad":
            raise ModelCrashed("cannot")
        return Done()

    task = ScriptedTask("work", fail_on_bad, batch=8)
    for key in ("bad", "x", "y"):
        bench.enqueue("work", key)
    bench.engine(task, policy=AT_ONCE).run_until_idle(10)
    assert bench.states() == {"bad": "set_aside", "x": "done", "y": "done"}
    assert all(len(batch) == 1 for batch in task.batches[1:])


def test_a_job_that_its_task_forgets_is_tried_again(bench: Bench) -> None:
    class Forgetful(ScriptedTask):
        def run(self, services: Any, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            self.batches.append([job.key for job in jobs])
            yield from ((job, Done()) for job in jobs if job.key != "lost" or job.attempts > 1)

    for key in ("lost", "kept"):
        bench.enqueue("work", key)
    task = Forgetful("work", batch=2)
    bench.engine(task, policy=AT_ONCE).run_until_idle(10)
    assert bench.states() == {"lost": "done", "kept": "done"}
    assert task.keys == ["lost", "kept", "lost"]


def test_set_aside_is_final_and_shows_its_error(bench: Bench) -> None:
    error = ModelCrashed("it died", action="look at the log")
    bench.enqueue("work", "a")
    task = ScriptedTask("work", lambda job: SetAside(error))
    bench.engine(task).run_until_idle(10)
    job = bench.job("a")
    assert (job["state"], job["error_name"], job["error"], job["action"]) == (
        "set_aside",
        "model-crashed",
        "it died",
        "look at the log",
    )
    assert task.keys == ["a"]


def test_a_failed_job_waits_for_its_next_try(tmp_path: Path) -> None:
    clock = ManualClock()
    with job_bench(tmp_path, clock) as bench:
        bench.enqueue("work", "a")
        outcomes: list[Outcome] = [Retry(ModelCrashed("once")), Done()]
        engine = bench.engine(ScriptedTask("work", lambda job: outcomes.pop(0)))
        engine.run_until_idle(10)
        job = bench.job("a")
        assert (job["state"], job["error_name"]) == ("ready", "model-crashed")
        assert job["next_try_at"] > clock.timestamp()
        clock.advance(job["next_try_at"] - clock.timestamp() + 0.001)
        engine.run_until_idle(10)
        assert bench.states() == {"a": "done"}


def test_a_full_disk_never_sets_a_job_aside(bench: Bench) -> None:
    failures = [OutOfSpace("full")] * 6
    task = ScriptedTask("work", lambda job: Retry(failures.pop()) if failures else Done())
    bench.enqueue("work", "a")
    bench.engine(task, policy=AT_ONCE).run_until_idle(10)
    assert bench.states() == {"a": "done"}


def test_a_lane_that_is_down_is_tried_as_a_whole_and_delays_no_other(tmp_path: Path) -> None:
    clock = ManualClock()
    with job_bench(tmp_path, clock) as bench:
        for number in range(10):
            bench.enqueue("deliver", f"down-{number}", lane="DOWN")
            bench.enqueue("deliver", f"up-{number}", lane="UP")
        down = Retry(PeerUnreachable("refused"), is_for_lane=True)
        task = ScriptedTask("deliver", lambda job: down if job.lane == "DOWN" else Done(), batch=4)
        policy = DeliveryPolicy(first_seconds=5, max_seconds=900, days=7, vary=lambda: 1.0)
        engine = bench.engine(task, threads=8, policy=policy, is_by_lane=True)
        engine.run_until_idle(10)
        assert sum(1 for batch in task.batches if batch[0].startswith("down")) == 1
        assert all(job["state"] == "done" for job in bench.jobs() if job["lane"] == "UP")
        waiting = [job for job in bench.jobs() if job["lane"] == "DOWN"]
        assert {job["next_try_at"] for job in waiting} == {clock.timestamp() + 5}
        clock.advance(5)
        engine.run_until_idle(10)
        assert bench.job("down-9")["next_try_at"] == clock.timestamp() + 10
        clock.advance(7 * 86400)
        engine.run_until_idle(10)
        assert {job["state"] for job in bench.jobs() if job["lane"] == "DOWN"} == {"set_aside"}


def test_a_lane_that_stalls_delays_no_other_lane(bench: Bench) -> None:
    is_free, has_begun = threading.Event(), threading.Event()

    def stall(job: Job) -> Outcome:
        if job.lane == "SLOW":
            has_begun.set()
            is_free.wait(20)
        return Done()

    engine = bench.engine(ScriptedTask("deliver", stall), threads=8, is_by_lane=True)
    engine.start()
    try:
        bench.enqueue("deliver", "slow", lane="SLOW")
        assert has_begun.wait(10)
        for number in range(3):
            bench.enqueue("deliver", f"fast-{number}", lane=f"FAST{number}")
        wait_until(lambda: list(bench.states().values()).count("done") == 3, what="the fast lanes")
        assert bench.states()["slow"] == "leased"
    finally:
        is_free.set()
        assert engine.stop(10)
    assert bench.states()["slow"] == "done"


def test_a_sleeping_worker_is_woken_by_what_is_enqueued(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.jobs.worker.POLL_SECONDS", 60.0)
    engine = bench.engine(ScriptedTask("work"))
    engine.start()
    try:
        for number in range(5):
            bench.enqueue("work", str(number))
            wait_until(lambda number=number: bench.states()[str(number)] == "done", what="the worker")
    finally:
        assert engine.stop(10)


def test_a_worker_wakes_when_a_job_becomes_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.jobs.worker.POLL_SECONDS", 60.0)
    engine = bench.engine(ScriptedTask("work"))
    bench.enqueue("work", "soon", not_before=bench.clock.timestamp() + 0.2)
    engine.start()
    try:
        wait_until(lambda: bench.states() == {"soon": "done"}, what="the due time")
    finally:
        assert engine.stop(10)


def test_what_another_process_enqueues_is_seen(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.jobs.worker.POLL_SECONDS", 0.05)
    engine = bench.engine(ScriptedTask("work"))
    engine.start()
    try:
        elsewhere = Database.open_read_only(tmp_path / "index.sqlite")
        try:
            queue = Queue(bench.clock, elsewhere)
            elsewhere.write(lambda connection: queue.enqueue(connection, "work", key="foreign", payload={}))
        finally:
            elsewhere.close()
        wait_until(lambda: bench.states() == {"foreign": "done"}, what="the poll")
    finally:
        assert engine.stop(10)


def test_stop_lets_the_present_job_finish_and_gives_back_the_rest(bench: Bench) -> None:
    is_free, has_begun = threading.Event(), threading.Event()
    closed: list[bool] = []

    class Slow(ScriptedTask):
        def run(self, services: Any, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            try:
                for job in jobs:
                    has_begun.set()
                    is_free.wait(20)
                    yield job, Done()
            finally:
                closed.append(True)

    for key in "abc":
        bench.enqueue("work", key)
    engine = bench.engine(Slow("work", batch=3))
    engine.start()
    assert has_begun.wait(10)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    wait_until(lambda: not engine.is_running(), what="the engine to be stopping")
    is_free.set()
    stopper.join(10)
    assert bench.states() == {"a": "done", "b": "ready", "c": "ready"}
    assert bench.job("b")["attempts"] == 0
    assert closed == [True]


def test_the_outcome_of_a_task_that_outlasts_the_stop_is_refused(bench: Bench) -> None:
    is_free, has_begun = threading.Event(), threading.Event()
    applied: list[str] = []

    def stall(job: Job) -> Outcome:
        has_begun.set()
        is_free.wait(20)
        return Done(lambda connection: applied.append(job.key))

    task = ScriptedTask("work", stall)
    bench.enqueue("work", "a")
    engine = bench.engine(task)
    engine.start()
    assert has_begun.wait(10)
    assert not engine.stop(0.05)
    assert bench.states() == {"a": "ready"}
    (job,) = bench.lease()
    is_free.set()
    wait_until(lambda: applied, what="the late outcome")
    assert engine.stop(10)
    assert bench.states() == {"a": "leased"}
    bench.database.write(lambda connection: bench.queue.finish(connection, job))


def test_a_task_that_can_be_cancelled_is_cancelled_on_stop(bench: Bench) -> None:
    has_begun = threading.Event()

    class Patient(ScriptedTask):
        def __init__(self) -> None:
            super().__init__("work")
            self.is_cancelled = threading.Event()

        def cancel(self) -> None:
            self.is_cancelled.set()

        def run(self, services: Any, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            has_begun.set()
            assert self.is_cancelled.wait(20)
            return
            yield

    bench.enqueue("work", "a")
    engine = bench.engine(Patient())
    engine.start()
    assert has_begun.wait(10)
    assert engine.stop(10)
    assert (bench.states(), bench.job("a")["attempts"]) == ({"a": "ready"}, 0)


def test_a_start_takes_up_what_a_killed_process_had_leased(bench: Bench) -> None:
    for key in "ab":
        bench.enqueue("work", key)
    assert len(bench.lease(limit=2, owner="killed")) == 2
    bench.engine(ScriptedTask("work")).run_until_idle(10)
    assert bench.states() == {"a": "done", "b": "done"}


def test_leases_are_renewed_while_a_task_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.jobs.worker.LEASE_SECONDS", 0.06)
    is_free, has_begun = threading.Event(), threading.Event()

    def stall(job: Job) -> Outcome:
        has_begun.set()
        is_free.wait(20)
        return Done()

    def lease_until() -> float:
        with bench.database.read() as connection:
            return float(connection.execute("SELECT lease_until FROM job").fetchone()[0])

    bench.enqueue("work", "a")
    engine = bench.engine(ScriptedTask("work", stall))
    engine.start()
    try:
        assert has_begun.wait(10)
        first = lease_until()
        wait_until(lambda: lease_until() > first, what="a renewal")
    finally:
        is_free.set()
        assert engine.stop(10)


def test_a_job_whose_failure_cannot_be_written_down_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.jobs.worker.LEASE_SECONDS", 0.06)
    outcomes: list[Outcome] = [Retry(ModelCrashed("once")), Done()]
    write = bench.database.write
    failures = 2

    def failing_write(work: Any, **how: Any) -> Any:
        nonlocal failures
        # The first write that could end the job, and the one that records its failure, fail.
        if failures and len(outcomes) == 1:
            failures -= 1
            raise DatabaseFailure("disk I/O error")
        return write(work, **how)

    bench.enqueue("work", "a")
    monkeypatch.setattr(bench.database, "write", failing_write)
    bench.engine(ScriptedTask("work", lambda job: outcomes.pop(0)), policy=AT_ONCE).run_until_idle(10)
    assert bench.states() == {"a": "done"}
    assert failures == 0


def test_many_workers_do_each_job_once(bench: Bench) -> None:
    task = ScriptedTask("work", batch=3)
    for number in range(200):
        bench.enqueue("work", str(number))
    bench.engine(task, threads=6).run_until_idle(30)
    assert sorted(task.keys, key=int) == [str(number) for number in range(200)]


def test_the_log_of_a_failure_shows_no_study(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.enqueue(
        "work", "1.2.3.4.5", study_instance_uid="1.2.3.4.5", payload={"sop_instance_uid": "1.2.3.4.5"}
    )
    with caplog.at_level(logging.INFO):
        bench.engine(ScriptedTask("work", lambda job: SetAside(ModelCrashed("x")))).run_until_idle(10)
    assert [record.message for record in caplog.records] == ["job set aside"]
    assert all("1.2.3.4.5" not in str(vars(record)) for record in caplog.records)


def test_an_unforeseen_error_is_logged_by_where_it_arose_and_quoted_at_debug_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(job: Job) -> Outcome:
        raise KeyError("DOE^JOHN")

    def refuse(connection: sqlite3.Connection) -> None:
        raise KeyError("DOE^JOHN")

    bench.enqueue("work", "in the task")
    bench.enqueue("other", "in its outcome")
    with caplog.at_level(logging.DEBUG):
        bench.engine(ScriptedTask("work", stumble), policy=AT_ONCE).run_until_idle(10)
        bench.engine(ScriptedTask("other", lambda job: Done(refuse)), policy=AT_ONCE).run_until_idle(10)
    lines = dict.fromkeys((logging.DEBUG, logging.ERROR), "")
    for record in caplog.records:
        line = logs.TextFormatter().format(record)
        assert record.levelno == logging.DEBUG or "DOE" not in line
        lines[record.levelno] = lines.get(record.levelno, "") + line
    assert "error=KeyError" in lines[logging.ERROR]
    for function in ("stumble", "refuse"):
        assert f" {function}" in lines[logging.ERROR]
    assert "test_jobs_worker.py:" in lines[logging.ERROR]
    assert "KeyError: 'DOE^JOHN'" in lines[logging.DEBUG]


def commits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every transaction from now on that ends a job, whether it need not be flushed."""
    found: list[bool] = []
    write, finish = bench.database.write, bench.queue.finish
    ending = threading.local()

    def noting_finish(connection: sqlite3.Connection, job: Job) -> None:
        found.append(ending.is_replayable)
        finish(connection, job)

    def noting_write(work: Any, **how: Any) -> Any:
        def noting_work(connection: sqlite3.Connection) -> Any:
            # In the thread of the writer, where the end of a job is written.
            ending.is_replayable = how.get("can_be_replayed", False)
            before = len(found)
            result = work(connection)
            del found[before + 1 :]
            return result

        return write(noting_work, **how)

    monkeypatch.setattr(bench.database, "write", noting_write)
    monkeypatch.setattr(bench.queue, "finish", noting_finish)
    return found


def test_outcomes_that_can_be_replayed_share_a_transaction_that_is_not_flushed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small jobs cost few transactions, and none that the receiving of instances waits for."""
    for number in range(8):
        bench.enqueue("work", str(number))
    found = commits(bench, monkeypatch)
    bench.engine(ScriptedTask("work", lambda job: Done(can_be_replayed=True), batch=8)).run_until_idle(10)
    assert set(bench.states().values()) == {"done"}
    assert found == [True]


def test_outcomes_that_others_see_are_flushed_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a peer was sent is not forgotten by a loss of power."""
    for number in range(3):
        bench.enqueue("work", str(number))
    found = commits(bench, monkeypatch)
    bench.engine(ScriptedTask("work", batch=8)).run_until_idle(10)
    assert found == [False] * 3


def test_an_outcome_that_fails_does_not_take_those_that_shared_its_transaction(bench: Bench) -> None:
    """A job whose outcome cannot be applied is tried again, and its neighbours are done."""
    tries: list[str] = []

    def outcome(job: Job) -> Outcome:
        def apply(connection: sqlite3.Connection) -> None:
            tries.append(job.key)
            bench.queue.enqueue(connection, "other", key=job.key, payload={})
            if job.key == "bad" and tries.count("bad") < 3:
                raise DatabaseFailure("no")

        return Done(apply, can_be_replayed=True)

    for key in ("first", "bad", "last"):
        bench.enqueue("work", key)
    bench.engine(ScriptedTask("work", outcome, batch=3), policy=AT_ONCE).run_until_idle(10)
    done = [job["key"] for job in bench.jobs() if (job["kind"], job["state"]) == ("work", "done")]
    assert sorted(done) == ["bad", "first", "last"]
    assert tries.count("bad") == 3
