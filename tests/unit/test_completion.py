"""A study is complete when it was quiet, and that is known after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config.settings import AnalysisConfig, Config, StudyConfig
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

CONFIG = Config(
    study=StudyConfig(quiet_seconds=60),
    analyses=(AnalysisConfig("slow", "m"), AnalysisConfig("quick", "m", quiet_seconds=5)),
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    with job_bench(tmp_path, clock, CONFIG) as made:
        yield made


def test_each_arrival_begins_the_quiet_period_anew(bench: Bench, clock: ManualClock) -> None:
    for _ in range(3):
        bench.arrive()
        clock.advance(4)
        assert bench.due() == []
    clock.advance(1)
    assert bench.due() == [("1.2", "quick", 3)]
    clock.advance(55)
    assert bench.due() == [("1.2", "slow", 3), ("1.2", "quick", 3)]


def test_an_analysis_fires_once_for_a_revision_and_again_for_late_instances(
    bench: Bench, clock: ManualClock
) -> None:
    bench.arrive()
    clock.advance(5)
    bench.fire(("1.2", "quick", 1))
    assert bench.due() == []
    bench.arrive()
    clock.advance(5)
    assert bench.due() == [("1.2", "quick", 2)]


def test_a_study_is_closed_when_every_analysis_fired_and_opened_by_the_next_arrival(
    bench: Bench, clock: ManualClock
) -> None:
    bench.arrive()
    clock.advance(60)
    for one in bench.due():
        assert bench.is_open()
        bench.fire(one)
    assert not bench.is_open()
    bench.arrive()
    assert bench.is_open()


def test_an_arrival_between_the_look_and_the_firing_keeps_the_study_open(
    bench: Bench, clock: ManualClock
) -> None:
    bench.arrive()
    clock.advance(60)
    looked = bench.due()
    bench.arrive()
    bench.fire(*looked)
    clock.advance(60)
    assert bench.due() == [("1.2", "slow", 2), ("1.2", "quick", 2)]


def test_what_has_changed_since_the_look_is_not_due_any_more(bench: Bench, clock: ManualClock) -> None:
    bench.arrive()
    clock.advance(5)
    looked = bench.due()
    assert looked == [("1.2", "quick", 1)]
    with bench.database.read() as connection:
        assert bench.completion.still_due(connection, looked) == looked
    bench.arrive()
    with bench.database.read() as connection:
        assert bench.completion.still_due(connection, looked) == []


def test_the_state_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    with job_bench(tmp_path, clock, CONFIG) as before:
        before.arrive()
    clock.advance(5)
    with job_bench(tmp_path, clock, CONFIG) as after:
        assert after.due() == [("1.2", "quick", 1)]


def test_what_waits_for_quiet_says_until_when(bench: Bench, clock: ManualClock) -> None:
    bench.arrive()
    arrived_at = clock.timestamp()
    bench.fire(("1.2", "quick", 1))
    assert bench.waiting() == [
        {
            "analysis": "slow",
            "revision": 1,
            "last_arrival": arrived_at,
            "quiet_seconds": 60,
            "due_at": arrived_at + 60,
            "waits_for": [],
        }
    ]
    assert bench.waiting("9.9") == []


def test_without_analyses_no_study_stays_open(tmp_path: Path, clock: ManualClock) -> None:
    with job_bench(tmp_path, clock, Config()) as bench:
        bench.arrive()
        assert not bench.is_open()
        assert bench.due() == []


def test_idle_studies_cost_nothing(bench: Bench) -> None:
    _, plans = bench.plans(bench.completion.due)
    looks = [plan for plan in plans if "study_arrival" in plan]
    assert looks
    assert all("USING INDEX study_arrival_open" in plan for plan in looks)
