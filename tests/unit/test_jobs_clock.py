"""Somebody sets the system's clock: pauses stay as long as they were meant to be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node import confirmations
from node.clock import Clock
from node.config.settings import AnalysisConfig, Config
from node.errors import DatabaseFailure, PeerUnreachable
from node.jobs import clock_watch
from node.jobs.clock_watch import ClockWatch
from node.jobs.policy import DeliveryPolicy
from node.jobs.task import Retry
from tests.support.job_bench import Bench, ScriptedTask, job_bench
from tests.support.manual_clock import ManualClock

DAY = 86400.0
STEPS = pytest.mark.parametrize("step", [400 * DAY, 3600.0, -3600.0, -400 * DAY])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    config = Config(analyses=(AnalysisConfig("one", "series-quality"),))
    with job_bench(tmp_path, clock, config) as made:
        yield made


def watch(bench: Bench, ticks: list[str] | None = None) -> ClockWatch:
    return ClockWatch(bench.services, lambda: (ticks if ticks is not None else []).append("begun anew"))


def test_a_step_shows_only_when_it_is_followed() -> None:
    wall, steady = [1000.0], [5.0]
    clock = Clock(wall=lambda: wall[0], steady=lambda: steady[0])
    wall[0] -= 100.0
    steady[0] += 2.0
    assert clock.timestamp() == 1002.0
    assert clock.step_seconds() == -102.0
    clock.follow(clock.step_seconds())
    assert (clock.timestamp(), clock.step_seconds()) == (900.0, 0.0)
    wall[0] += 0.5
    assert clock.step_seconds() == 0.0
    assert clock.timestamp() == 900.5


def test_the_real_clock_goes_on() -> None:
    clock = Clock()
    before = clock.timestamp()
    assert clock.step_seconds() == 0.0
    assert clock.timestamp() >= before


@STEPS
def test_a_job_that_waits_runs_after_its_pause_and_no_sooner(
    bench: Bench, clock: ManualClock, step: float
) -> None:
    bench.enqueue("work", "a", not_before=clock.timestamp() + 100)
    clock.advance(40)
    clock.set_by(step)
    assert bench.lease() == [], "before the step was seen"
    ticks: list[str] = []
    assert watch(bench, ticks).look() == step
    assert ticks == ["begun anew"]
    assert watch(bench, ticks).look() == 0.0
    assert bench.lease() == []
    clock.advance(59)
    assert bench.lease() == []
    clock.advance(1)
    assert [job.key for job in bench.lease()] == ["a"]
    assert bench.lease() == []


@STEPS
def test_a_leased_job_is_given_to_nobody_else(bench: Bench, clock: ManualClock, step: float) -> None:
    bench.enqueue("work", "a")
    (job,) = bench.lease(owner="me")
    clock.set_by(step)
    watch(bench).look()
    assert bench.lease(owner="another") == []
    bench.database.write(lambda connection: bench.queue.finish(connection, job))
    assert bench.states() == {"a": "done"}


@STEPS
def test_a_delivery_that_waits_for_its_peer_is_neither_given_up_nor_put_off(
    bench: Bench, clock: ManualClock, step: float
) -> None:
    bench.enqueue("deliver", "a", lane="PACS")

    def down(job: object) -> Retry:
        clock.set_by(step)  # while it runs
        watch(bench).look()
        return Retry(PeerUnreachable("refused"), is_for_lane=True)

    task = ScriptedTask("deliver", down)
    policy = DeliveryPolicy(first_seconds=10, max_seconds=10, days=7, vary=lambda: 1.0)
    engine = bench.engine(task, policy=policy, is_by_lane=True)
    engine.run_until_idle(10)
    assert bench.states() == {"a": "ready"}
    clock.set_by(step)
    watch(bench).look()
    engine.run_until_idle(10)
    assert len(task.batches) == 1
    clock.advance(10)
    engine.run_until_idle(10)
    assert len(task.batches) == 2
    assert bench.states() == {"a": "ready"}


@STEPS
def test_a_study_is_complete_after_its_quiet_period(bench: Bench, clock: ManualClock, step: float) -> None:
    bench.arrive()
    clock.advance(30)
    clock.set_by(step)
    watch(bench).look()
    clock.advance(29)
    assert bench.due() == []
    clock.advance(1)
    assert bench.due() == [("1.2", "one", 1)]


@STEPS
def test_a_report_is_awaited_for_as_long_as_before(bench: Bench, clock: ManualClock, step: float) -> None:
    asked_at = clock.timestamp()
    bench.database.write(
        lambda connection: confirmations.want(
            connection, peer="PACS", sop_instance_uid="1.2.3", sop_class_uid="1.2", study_instance_uid="1",
            at=asked_at,
        )
    )  # fmt: skip
    clock.set_by(step)
    watch(bench).look()
    with bench.database.read() as connection:
        (one,) = confirmations.of_study(connection, "1", "PACS")
    assert one.changed_at == asked_at + step == clock.timestamp()


def test_a_clock_that_was_put_back_while_no_node_ran_is_noticed_once_at_the_start(
    bench: Bench, clock: ManualClock
) -> None:
    bench.enqueue("sweep", "sweep")
    bench.enqueue("work", "a", not_before=clock.timestamp() + 100)
    clock.set_by(-3600)
    clock.follow(-3600)  # as a new process knows no other time
    for _ in range(2):
        clock_watch.make_up(bench.services)
    clock.advance(99)
    assert bench.lease() == []
    clock.advance(1)
    assert [job.key for job in bench.lease()] == ["a"]


def test_a_rest_is_no_step(bench: Bench, clock: ManualClock) -> None:
    bench.enqueue("sweep", "sweep")
    bench.enqueue("work", "a", not_before=clock.timestamp() + 100)
    clock.advance(3600)
    clock_watch.make_up(bench.services)
    assert [job.key for job in bench.lease()] == ["a"]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_what_shares_a_commit_with_a_step_has_the_new_time(
    bench: Bench, clock: ManualClock, step: float
) -> None:
    """Nothing between the moving of times and the new time runs early, or waits for the step."""
    bench.enqueue("work", "in half an hour", not_before=clock.timestamp() + 1800)
    clock.set_by(step)
    found: list[list[str]] = []

    def move_and_more(connection: sqlite3.Connection) -> None:
        watch(bench).look()  # joins this transaction
        found.append([job.key for job in bench.lease()])
        bench.queue.enqueue(connection, "work", key="now", payload={})

    bench.database.write(move_and_more)
    assert found == [[]]
    assert [job.key for job in bench.lease()] == ["now"]
    assert clock.step_seconds() == 0.0


def test_a_step_that_cannot_be_written_is_not_followed(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = clock.timestamp()
    clock.set_by(-3600)

    def fails_at_the_end(work: Any) -> None:
        with bench.database.read() as connection:
            work(connection)
        raise DatabaseFailure("the disk is gone")

    monkeypatch.setattr(clock_watch, "_move", lambda *arguments: None)
    with monkeypatch.context() as patched:
        patched.setattr(bench.database, "write", fails_at_the_end)
        with pytest.raises(DatabaseFailure):
            watch(bench).look()
    assert (clock.timestamp(), clock.step_seconds()) == (before, -3600.0)
