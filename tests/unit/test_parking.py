"""An analysis whose model fails again and again is parked until an operator has looked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node import alarms, parking
from node.config.settings import AnalysisConfig, Config, NodeConfig
from node.errors import ModelCrashed
from node.jobs.schedule import Schedule
from node.parking import FAILURES_TO_PARK, Parked
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

SERIES = itertools.count()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    analyses = (AnalysisConfig("lungs", "m"), AnalysisConfig("other", "m"))
    config = Config(node=NodeConfig(data_dir=tmp_path), analyses=analyses)
    with job_bench(tmp_path, ManualClock(), config) as opened:
        yield opened


def crash(
    bench: Bench, analysis: str = "lungs", reason: str = "segmentation fault", over: str | None = None
) -> bool:
    """Fail over a series of its own, or over the one that is named."""
    now, series = bench.clock.timestamp(), over or str(next(SERIES))
    return bench.database.write(lambda connection: parking.crashed(connection, analysis, series, reason, now))


def write(bench: Bench, work: Callable[..., Any]) -> None:
    bench.database.write(lambda connection: work(connection, "lungs"))


def parked(bench: Bench) -> dict[str, Parked]:
    with bench.database.read() as connection:
        return parking.parked(connection)


def test_three_failures_in_a_row_park_an_analysis_and_no_other(bench: Bench) -> None:
    assert [crash(bench) for _ in range(FAILURES_TO_PARK)] == [False, False, True]
    crash(bench, "other")
    assert parked(bench) == {"lungs": Parked("segmentation fault", bench.clock.timestamp())}


def test_one_series_parks_nothing_however_often_it_fails(bench: Bench) -> None:
    assert not any(crash(bench, over="1.2/1.2.3") for _ in range(2 * FAILURES_TO_PARK))
    assert parked(bench) == {}


def test_a_success_between_them_counts_anew(bench: Bench) -> None:
    for _ in range(FAILURES_TO_PARK - 1):
        crash(bench)
    write(bench, parking.succeeded)
    assert [crash(bench) for _ in range(FAILURES_TO_PARK)] == [False, False, True]


def test_a_job_that_was_running_does_not_unpark_it_nor_change_why(bench: Bench) -> None:
    for _ in range(FAILURES_TO_PARK):
        crash(bench)
    before = parked(bench)
    write(bench, parking.succeeded)
    assert crash(bench, reason="another")
    assert parked(bench) == before


def test_an_operator_unparks_it_with_no_failure_counted(bench: Bench) -> None:
    for _ in range(FAILURES_TO_PARK):
        crash(bench)
    write(bench, parking.unpark)
    assert parked(bench) == {}
    assert not crash(bench)


def test_it_stays_parked_over_a_start(bench: Bench, tmp_path: Path) -> None:
    for _ in range(FAILURES_TO_PARK):
        crash(bench)
    bench.database.close()
    with job_bench(tmp_path, bench.clock, bench.config) as again:
        assert list(parked(again)) == ["lungs"]


def test_the_alarm_stands_as_long_as_it_lasts(bench: Bench, tmp_path: Path) -> None:
    schedule = Schedule(bench.services)
    schedule.tell_of_parked()
    assert alarms.standing(tmp_path) == []
    for _ in range(FAILURES_TO_PARK):
        crash(bench)
    schedule.tell_of_parked()
    schedule.tell_of_parked()
    (alarm,) = alarms.standing(tmp_path)
    assert (alarm.name, alarm.times) == (alarms.ANALYSIS_PARKED, 1)
    assert alarm.message == (
        "analysis lungs is parked; 'anode retry --analysis lungs' lets it run again. Its model failed over 3 "
        "series in a row, the last time: segmentation fault"
    )
    # A start begins without alarms, and finds this one again.
    alarms.reset(tmp_path)
    schedule = Schedule(bench.services)
    schedule.tell_of_parked()
    assert [one.name for one in alarms.standing(tmp_path)] == [alarms.ANALYSIS_PARKED]
    write(bench, parking.unpark)
    schedule.tell_of_parked()
    assert alarms.standing(tmp_path) == []


def test_each_parked_analysis_has_an_alarm_of_its_own_that_keeps_its_time(
    bench: Bench, tmp_path: Path
) -> None:
    trace = "Traceback (most recent call last):\n" + "  File x, line 1\n" * 100 + "ValueError: no such organ"
    since = bench.clock.timestamp()
    for name in ("lungs", "other"):
        for _ in range(FAILURES_TO_PARK):
            crash(bench, name, reason=trace)
    bench.clock.advance(1000)
    # Nobody misses one that is not configured any more.
    for _ in range(FAILURES_TO_PARK):
        crash(bench, "removed")
    schedule = Schedule(bench.services)
    alarms.reset(tmp_path)
    schedule.tell_of_parked()
    found = {alarm.about: alarm for alarm in alarms.standing(tmp_path)}
    assert sorted(found) == ["lungs", "other"]
    assert {alarm.since for alarm in found.values()} == {since}
    for name, alarm in found.items():
        assert alarm.message.startswith(f"analysis {name} is parked; 'anode retry --analysis {name}'")
        assert alarm.message.endswith("ValueError: no such organ")
    write(bench, parking.unpark)
    schedule.tell_of_parked()
    assert [alarm.about for alarm in alarms.standing(tmp_path)] == ["other"]


def test_an_alarm_that_was_raised_and_is_past_between_two_looks_is_cleared(
    bench: Bench, tmp_path: Path
) -> None:
    schedule = Schedule(bench.services)
    schedule.tell_of_parked()
    parking.tell(tmp_path, {"lungs": Parked("why", 1.0)}, 1.0)
    schedule.tell_of_parked()
    assert alarms.standing(tmp_path) == []


def test_who_unparks_while_no_node_runs_clears_the_alarm_of_the_last_one(tmp_path: Path) -> None:
    found = {"lungs": Parked("why", 1.0)}
    parking.tell(tmp_path, found, 2.0)
    alarms._raised.clear()  # as in another process
    parking.tell(tmp_path, {}, 3.0)
    assert len(alarms.standing(tmp_path)) == 1
    parking.tell(tmp_path, {}, 3.0, of_anyone=True)
    assert alarms.standing(tmp_path) == []


def test_a_database_that_fails_is_no_reason_to_stop_looking(bench: Bench) -> None:
    schedule = Schedule(bench.services)
    bench.database.close()
    schedule.tell_of_parked()


def test_a_retry_says_of_which_analyses_the_jobs_are(bench: Bench) -> None:
    for analysis in ("lungs", "other"):
        for number in range(2):
            bench.enqueue("analyze", f"{analysis}/{number}", payload={"analysis": analysis})
    for job in [bench.lease("analyze")[0] for _ in range(4)]:
        bench.database.write(
            lambda connection, job=job: bench.queue.set_aside(connection, job, ModelCrashed("out of luck"))
        )
    found = bench.database.write(lambda connection: bench.queue.requeue(connection, analysis="lungs"))
    assert [(one.kind, one.analysis) for one in found] == [("analyze", "lungs")] * 2
    assert {key: state for key, state in bench.states().items() if key.startswith("other")} == {
        "other/0": "set_aside",
        "other/1": "set_aside",
    }
