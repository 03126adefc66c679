"""Ticks enqueue what is due, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config.settings import AnalysisConfig, Config, StudyConfig
from node.jobs.schedule import Schedule
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

CONFIG = Config(
    study=StudyConfig(quiet_seconds=60), analyses=(AnalysisConfig("one", "m"), AnalysisConfig("other", "m"))
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    with job_bench(tmp_path, clock, CONFIG) as made:
        yield made


def test_a_tick_enqueues_the_selection_and_marks_it_in_one_transaction(
    bench: Bench, clock: ManualClock
) -> None:
    schedule = Schedule(bench.services)
    bench.arrive()
    assert schedule.complete() == 0
    clock.advance(60)
    assert schedule.complete() == 2
    assert schedule.complete() == 0
    assert {job["key"]: job["payload"] for job in bench.jobs(kind="select")} == {
        f"1.2/{name}/1": {"study_instance_uid": "1.2", "analysis": name, "revision": 1}
        for name in ("one", "other")
    }
    assert all(job["study_instance_uid"] == "1.2" for job in bench.jobs())


def test_the_sweep_is_enqueued_by_its_tick_unless_it_waits_already(bench: Bench) -> None:
    schedule = Schedule(bench.services)
    schedule.sweep()
    schedule.sweep()
    (job,) = bench.lease("sweep", limit=5)
    bench.database.write(lambda connection: bench.queue.finish(connection, job))
    schedule.sweep()
    assert len(bench.lease("sweep", limit=5)) == 1


def test_the_scheduler_starts_and_stops(bench: Bench) -> None:
    schedule = Schedule(bench.services)
    schedule.start()
    schedule.stop()
    schedule.stop()
