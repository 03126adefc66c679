"""A study is complete when it was quiet, and that is known after a restart."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from node import parking
from node.completion import COMPLETED, NO_MATCH, QUEUED, SUPERSEDED, input_digest
from node.config.settings import AnalysisConfig, Config, StudyConfig
from node.errors import AnalysisParked, JobError, ModelCrashed
from node.jobs.schedule import Schedule, follow_up
from node.jobs.task import Job
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

T = TypeVar("T")

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


def write(bench: Bench, work: Callable[[sqlite3.Connection], T]) -> T:
    return bench.database.write(work)


def arrive(bench: Bench, study: str = "1.2") -> None:
    write(bench, lambda connection: bench.completion.arrived(connection, study, bench.clock.timestamp()))


def due(bench: Bench) -> list[tuple[str, str, int]]:
    with bench.database.read() as connection:
        return bench.completion.due(connection)


def is_open(bench: Bench, study: str = "1.2") -> bool:
    with bench.database.read() as connection:
        return bool(connection.execute("SELECT is_open FROM study_arrival").fetchone()[0])


def test_each_arrival_begins_the_quiet_period_anew(bench: Bench, clock: ManualClock) -> None:
    for _ in range(3):
        arrive(bench)
        clock.advance(4)
        assert due(bench) == []
    clock.advance(1)
    assert due(bench) == [("1.2", "quick", 3)]
    clock.advance(55)
    assert due(bench) == [("1.2", "slow", 3), ("1.2", "quick", 3)]


def test_an_analysis_fires_once_for_a_revision_and_again_for_late_instances(
    bench: Bench, clock: ManualClock
) -> None:
    arrive(bench)
    clock.advance(5)
    write(bench, lambda connection: bench.completion.fired(connection, "1.2", "quick", 1))
    assert due(bench) == []
    arrive(bench)
    clock.advance(5)
    assert due(bench) == [("1.2", "quick", 2)]


def test_a_study_is_closed_when_every_analysis_fired_and_opened_by_the_next_arrival(
    bench: Bench, clock: ManualClock
) -> None:
    arrive(bench)
    clock.advance(60)
    for study, analysis, revision in due(bench):
        assert is_open(bench)
        write(
            bench,
            lambda connection, study=study, analysis=analysis, revision=revision: bench.completion.fired(
                connection, study, analysis, revision
            ),
        )
    assert not is_open(bench)
    arrive(bench)
    assert is_open(bench)


def test_an_arrival_between_the_look_and_the_firing_keeps_the_study_open(
    bench: Bench, clock: ManualClock
) -> None:
    arrive(bench)
    clock.advance(60)
    looked = due(bench)
    arrive(bench)
    for study, analysis, revision in looked:
        write(
            bench,
            lambda connection, study=study, analysis=analysis, revision=revision: bench.completion.fired(
                connection, study, analysis, revision
            ),
        )
    clock.advance(60)
    assert due(bench) == [("1.2", "slow", 2), ("1.2", "quick", 2)]


def test_the_state_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    with job_bench(tmp_path, clock, CONFIG) as before:
        arrive(before)
    clock.advance(5)
    with job_bench(tmp_path, clock, CONFIG) as after:
        assert due(after) == [("1.2", "quick", 1)]


def test_what_waits_for_quiet_says_until_when(bench: Bench, clock: ManualClock) -> None:
    arrive(bench)
    arrived_at = clock.timestamp()
    write(bench, lambda connection: bench.completion.fired(connection, "1.2", "quick", 1))
    with bench.database.read() as connection:
        assert bench.completion.waiting(connection, "1.2") == [
            {
                "analysis": "slow",
                "revision": 1,
                "last_arrival": arrived_at,
                "quiet_seconds": 60,
                "due_at": arrived_at + 60,
                "waits_for": [],
            }
        ]
        assert bench.completion.waiting(connection, "9.9") == []


def test_without_analyses_no_study_stays_open(tmp_path: Path, clock: ManualClock) -> None:
    with job_bench(tmp_path, clock, Config()) as bench:
        arrive(bench)
        assert not is_open(bench)
        assert due(bench) == []


def test_idle_studies_cost_nothing(bench: Bench) -> None:
    with bench.database.read() as connection:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        bench.completion.due(connection)
        connection.set_trace_callback(None)
        plans = [
            row[3]
            for statement in statements
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
            if "study_arrival" in row[3]
        ]
    assert plans
    assert all("USING INDEX study_arrival_open" in plan for plan in plans)


def test_a_tick_enqueues_the_selection_and_marks_it_in_one_transaction(
    bench: Bench, clock: ManualClock
) -> None:
    schedule = Schedule(bench.services)
    arrive(bench)
    assert schedule.complete() == 0
    clock.advance(60)
    assert schedule.complete() == 2
    assert schedule.complete() == 0
    assert {job["key"]: job["payload"] for job in bench.jobs(kind="select")} == {
        f"1.2/{name}/1": {"study_instance_uid": "1.2", "analysis": name, "revision": 1}
        for name in ("slow", "quick")
    }
    assert all(job["study_instance_uid"] == "1.2" for job in bench.jobs())


def test_the_sweep_is_enqueued_by_its_tick_unless_it_waits_already(bench: Bench) -> None:
    schedule = Schedule(bench.services)
    schedule.sweep()
    schedule.sweep()
    (job,) = bench.lease("sweep", limit=5)
    write(bench, lambda connection: bench.queue.finish(connection, job))
    schedule.sweep()
    assert len(bench.lease("sweep", limit=5)) == 1


def test_the_scheduler_starts_and_stops(bench: Bench) -> None:
    schedule = Schedule(bench.services)
    schedule.start()
    schedule.stop()
    schedule.stop()


def test_a_digest_depends_on_what_is_in_a_series_and_not_on_its_order() -> None:
    pairs = [("1.2", "aa"), ("1.10", "bb")]
    assert input_digest(pairs) == input_digest(reversed(pairs))
    assert len(input_digest(pairs)) == 64
    assert len({input_digest(x) for x in (pairs, pairs[:1], [("1.2", "bb"), ("1.10", "aa")])}) == 3


def record(bench: Bench, revision: int, state: str, sr: str = "", series: str = "1.2.1") -> None:
    write(
        bench,
        lambda connection: bench.completion.record_run(
            connection,
            study_instance_uid="1.2",
            series_instance_uid=series,
            analysis="slow",
            revision=revision,
            state=state,
            reason="because",
            input_digest="d",
            sr_sop_class_uid="1.2.840" if sr else "",
            sr_sop_instance_uid=sr,
            sr_series_instance_uid="1.2.9" if sr else "",
            result_sop_instance_uids=[sr, "9.9"] if sr else [],
        ),
    )


def test_a_run_is_listed_with_its_results(bench: Bench, clock: ManualClock) -> None:
    record(bench, 1, COMPLETED, "5.5")
    record(bench, 2, NO_MATCH, series="")
    with bench.database.read() as connection:
        first, second = bench.completion.runs(connection, "1.2")
    assert first["result_sop_instance_uids"] == ["5.5", "9.9"]
    assert (first["state"], first["reason"], first["recorded_at"]) == (
        COMPLETED,
        "because",
        clock.timestamp(),
    )
    assert (second["state"], second["series_instance_uid"]) == (NO_MATCH, "")


def test_a_repeated_run_replaces_its_record(bench: Bench) -> None:
    record(bench, 1, "failed")
    record(bench, 1, COMPLETED, "5.5")
    with bench.database.read() as connection:
        assert [run["state"] for run in bench.completion.runs(connection, "1.2")] == [COMPLETED]


def test_completed_runs_are_those_of_the_series_with_and_without_a_report(bench: Bench) -> None:
    def completed() -> list[tuple[int, str]]:
        with bench.database.read() as connection:
            runs = bench.completion.completed_runs(connection, "1.2", "1.2.1", "slow")
        return [(run["revision"], run["sr_sop_instance_uid"]) for run in runs]

    assert completed() == []
    record(bench, 1, COMPLETED, "5.1")
    record(bench, 2, COMPLETED)
    record(bench, 3, "not-a-volume")
    record(bench, 4, COMPLETED, "8.8", series="1.2.2")
    record(bench, 5, COMPLETED, "5.5")
    assert completed() == [(5, "5.5"), (2, ""), (1, "5.1")]


def test_a_selection_is_kept_when_its_run_is_recorded(bench: Bench, clock: ManualClock) -> None:
    def select(revision: int) -> None:
        write(
            bench,
            lambda connection: bench.completion.record_selection(
                connection,
                study_instance_uid="1.2",
                series_instance_uid="1.2.1",
                analysis="slow",
                revision=revision,
                selected_digest=f"digest-{revision}",
                started_at=7.0,
            ),
        )

    def last() -> tuple[str, str, float]:
        with bench.database.read() as connection:
            run = bench.completion.last_selection(connection, "1.2", "1.2.1", "slow")
        assert run is not None
        return run["state"], run["selected_digest"], run["started_at"]

    select(1)
    assert last() == (QUEUED, "digest-1", 7.0)
    record(bench, 1, COMPLETED, "5.1")
    assert last() == (COMPLETED, "digest-1", 7.0)
    select(2)
    write(
        bench,
        lambda connection: bench.completion.supersede(connection, "1.2", "slow", [("1.2.1", 2)]),
    )
    assert last() == (SUPERSEDED, "digest-2", 7.0)


# --- analyses that come after others -------------------------------------------

CHAIN = Config(
    study=StudyConfig(quiet_seconds=60),
    analyses=(
        AnalysisConfig("last", "m", after=("middle", "first")),
        AnalysisConfig("first", "m"),
        AnalysisConfig("middle", "m", after=("first",), quiet_seconds=5),
    ),
)


@pytest.fixture
def chain(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    with job_bench(tmp_path, clock, CHAIN) as opened:
        yield opened


def lease(bench: Bench, kind: str) -> Job:
    (job,) = bench.lease(kind)
    return job


def select(bench: Bench, *series: str) -> str:
    """Do the selection that waits, with an analysis of each series; return for which analysis it was."""
    job = lease(bench, "select")
    analysis = str(job.payload["analysis"])

    def work(connection: sqlite3.Connection) -> None:
        for one in series:
            bench.queue.enqueue(
                connection,
                "analyze",
                key=f"{analysis}/{one}/{job.payload['revision']}",
                payload={**job.payload, "series_instance_uid": one},
                lane=f"{analysis}/{one}",
                study_instance_uid="1.2",
            )
        follow_up(bench.services, connection, job)
        bench.queue.finish(connection, job)

    write(bench, work)
    return analysis


def run(bench: Bench, error: JobError | None = None) -> None:
    """End the analysis that waits: well, or set aside with ``error``."""
    job = lease(bench, "analyze")

    def work(connection: sqlite3.Connection) -> None:
        follow_up(bench.services, connection, job)
        if error is None:
            bench.queue.finish(connection, job)
        else:
            bench.queue.set_aside(connection, job, error)

    write(bench, work)


def selections(bench: Bench) -> list[str]:
    """The analyses whose selection waits."""
    return [job["payload"]["analysis"] for job in bench.jobs(kind="select", state="ready")]


def waits_for(bench: Bench) -> dict[str, list[str]]:
    with bench.database.read() as connection:
        return {one["analysis"]: one["waits_for"] for one in bench.completion.waiting(connection, "1.2")}


def test_an_analysis_waits_until_those_before_it_are_over(chain: Bench, clock: ManualClock) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    assert selections(chain) == ["first"]
    assert waits_for(chain) == {"last": ["middle", "first"], "middle": ["first"]}
    assert select(chain, "1.2.1", "1.2.2") == "first"
    assert selections(chain) == []
    run(chain)
    assert selections(chain) == []
    assert schedule.complete() == 0
    run(chain)
    assert selections(chain) == ["middle"]
    assert waits_for(chain) == {"last": ["middle"]}
    # One that no series matches is over as well.
    assert select(chain) == "middle"
    assert selections(chain) == ["last"]
    assert waits_for(chain) == {}
    assert not is_open(chain)


def test_an_analysis_that_failed_for_good_is_over_and_one_that_is_tried_again_is_not(
    chain: Bench, clock: ManualClock
) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    select(chain, "1.2.1", "1.2.2")
    job = lease(chain, "analyze")
    error = ModelCrashed("out of luck")
    write(
        chain,
        lambda connection: chain.queue.retry(connection, job, error, not_before=clock.timestamp() + 100),
    )
    run(chain, error)
    assert selections(chain) == []
    assert schedule.complete() == 0
    clock.advance(100)
    run(chain, error)
    assert selections(chain) == ["middle"]


def test_what_waits_for_a_parked_analysis_goes_on_when_that_has_run(chain: Bench, clock: ManualClock) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    select(chain, "1.2.1", "1.2.2")
    for over in map(str, range(parking.FAILURES_TO_PARK)):
        write(chain, partial(parking.crashed, analysis="first", over=over, reason="it crashed", now=1.0))
    run(chain, ModelCrashed("out of luck"))
    run(chain, AnalysisParked("the analysis first is parked"))
    assert schedule.complete() == 0
    assert waits_for(chain)["middle"] == ["first"]
    write(chain, lambda connection: parking.unpark(connection, "first"))
    write(chain, lambda connection: chain.queue.requeue(connection, analysis="first"))
    run(chain)
    assert selections(chain) == []
    run(chain)
    assert selections(chain) == ["middle"]


def test_what_waits_goes_on_when_the_failure_that_parks_an_analysis_is_its_last_job(
    chain: Bench, clock: ManualClock
) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    select(chain, "1.2.1")
    for over in map(str, range(parking.FAILURES_TO_PARK)):
        write(chain, partial(parking.crashed, analysis="first", over=over, reason="it crashed", now=1.0))
    run(chain, ModelCrashed("out of luck"))
    assert schedule.complete() == 1
    assert selections(chain) == ["middle"]


def test_a_tick_finds_what_nobody_followed_up(chain: Bench, clock: ManualClock) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    job = lease(chain, "select")
    assert schedule.complete() == 0
    write(chain, lambda connection: chain.queue.finish(connection, job))
    assert schedule.complete() == 1
    assert selections(chain) == ["middle"]


def test_a_late_image_makes_all_of_a_chain_wait_for_its_turn_again(chain: Bench, clock: ManualClock) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    select(chain)
    arrive(chain)
    assert select(chain) == "middle"
    # Those of the revision before are not those that count.
    assert selections(chain) == []
    assert waits_for(chain) == {"last": ["middle", "first"], "first": [], "middle": ["first"]}
    clock.advance(60)
    schedule.complete()
    assert select(chain) == "first"
    assert selections(chain) == ["middle"]


def test_a_run_that_is_repeated_lets_those_behind_it_look_again(chain: Bench, clock: ManualClock) -> None:
    schedule = Schedule(chain.services)
    arrive(chain)
    clock.advance(60)
    schedule.complete()
    select(chain, "1.2.1")
    run(chain, ModelCrashed("out of luck"))
    select(chain)
    select(chain)
    assert selections(chain) == []
    write(chain, lambda connection: chain.queue.requeue(connection, kind="analyze"))
    run(chain)
    assert selections(chain) == ["middle"]
    select(chain)
    assert selections(chain) == ["last"]


def test_the_wait_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    with job_bench(tmp_path, clock, CHAIN) as before:
        arrive(before)
        clock.advance(60)
        Schedule(before.services).complete()
        select(before, "1.2.1")
        lease(before, "analyze")
    with job_bench(tmp_path, clock, CHAIN) as after:
        after.queue.release_leases_of(None)
        assert Schedule(after.services).complete() == 0
        run(after)
        assert selections(after) == ["middle"]


def test_what_has_changed_since_the_look_is_not_fired(chain: Bench, clock: ManualClock) -> None:
    arrive(chain)
    clock.advance(60)
    looked = due(chain)
    assert looked == [("1.2", "first", 1)]
    with chain.database.read() as connection:
        assert chain.completion.still_due(connection, looked) == looked
    arrive(chain)
    with chain.database.read() as connection:
        assert chain.completion.still_due(connection, looked) == []


def test_studies_that_wait_for_others_cost_one_look_each_in_an_index(
    chain: Bench, clock: ManualClock
) -> None:
    for study in ("1.2", "1.3", "1.4"):
        arrive(chain, study)
    clock.advance(60)
    Schedule(chain.services).complete()
    with chain.database.read() as connection:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        assert chain.completion.due(connection) == []
        connection.set_trace_callback(None)
        plans = [
            row[3]
            for statement in statements
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]
    assert len(statements) == len(CHAIN.analyses)
    assert [plan for plan in plans if " job " in plan] == [
        "SEARCH job USING INDEX job_analysis (study_instance_uid=? AND <expr>=?)"
    ] * 3
    assert [plan for plan in plans if plan.startswith("SCAN")] == []


def test_a_restored_node_counts_all_as_due_whatever_waits(chain: Bench, clock: ManualClock) -> None:
    arrive(chain)
    with chain.database.read() as connection:
        found = chain.completion.due(connection, now=math.inf)
    assert {name for _, name, _ in found} == {"first", "middle", "last"}


# --- what an analysis found ------------------------------------------------------


def found(bench: Bench) -> dict[str, tuple[str, ...]] | str:
    with bench.database.read() as connection:
        return bench.completion.found(connection, "1.2", "1.2.1", "slow")


def record_found(bench: Bench, revision: int, state: str, **facts: tuple[str, ...]) -> None:
    write(
        bench,
        lambda connection: bench.completion.record_run(
            connection,
            study_instance_uid="1.2",
            series_instance_uid="1.2.1",
            analysis="slow",
            revision=revision,
            state=state,
            facts=facts,
        ),
    )


def test_what_the_latest_run_found_counts(bench: Bench) -> None:
    assert found(bench) == "does not see this series"
    record_found(bench, 1, COMPLETED, kind=("T1", "t1w"))
    assert found(bench) == {"kind": ("T1", "t1w")}
    record_found(bench, 2, "unchanged")
    assert found(bench) == {"kind": ("T1", "t1w")}
    record_found(bench, 3, "not-a-volume")
    assert found(bench) == "has no result for this series (not-a-volume)"
    record_found(bench, 4, COMPLETED, kind=("T2",))
    assert found(bench) == {"kind": ("T2",)}


def test_a_selection_takes_the_place_of_a_run_that_left_nothing_and_of_no_other(bench: Bench) -> None:
    def select_series(series: str) -> None:
        write(
            bench,
            lambda connection: bench.completion.record_selection(
                connection,
                study_instance_uid="1.2",
                series_instance_uid=series,
                analysis="slow",
                revision=1,
                selected_digest="new",
                started_at=1.0,
            ),
        )

    record(bench, 1, "unfit-input", series="1.2.1")
    record(bench, 1, COMPLETED, "5.5", series="1.2.2")
    for series in ("1.2.1", "1.2.2"):
        select_series(series)
    with bench.database.read() as connection:
        runs = {one["series_instance_uid"]: one for one in bench.completion.runs(connection, "1.2")}
    assert (runs["1.2.1"]["state"], runs["1.2.1"]["reason"]) == (QUEUED, "")
    assert runs["1.2.1"]["selected_digest"] == "new"
    assert (runs["1.2.2"]["state"], runs["1.2.2"]["selected_digest"]) == (COMPLETED, "")
