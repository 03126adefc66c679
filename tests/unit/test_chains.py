"""An analysis that comes after others waits until these are over, and is not forgotten."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node import chains, parking
from node.config.settings import AnalysisConfig, Config, StudyConfig
from node.errors import AnalysisParked, JobError, ModelCrashed
from node.jobs.schedule import Schedule, follow_up
from node.jobs.task import Job
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

LAST = AnalysisConfig("last", "m", after=("middle", "first"))
FIRST = AnalysisConfig("first", "m")
MIDDLE = AnalysisConfig("middle", "m", after=("first",), quiet_seconds=5)
CONFIG = Config(study=StudyConfig(quiet_seconds=60), analyses=(LAST, FIRST, MIDDLE))

CRASH = ModelCrashed("out of luck")


class Chain:
    """A study whose analyses come one after the other, and the steps of each."""

    def __init__(self, bench: Bench, clock: ManualClock) -> None:
        self.bench = bench
        self.clock = clock
        self.tick = Schedule(bench.services).complete

    def write(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.bench.database.write(work)

    def begin(self, *series: str) -> None:
        """Let the study come and be quiet; where series are named, the first analysis is to see them."""
        self.bench.arrive()
        self.clock.advance(60)
        assert self.tick() == 1
        assert self.selections() == ["first"]
        if series:
            assert self.select(*series) == "first"

    def lease(self, kind: str) -> Job:
        (job,) = self.bench.lease(kind)
        return job

    def select(self, *series: str) -> str:
        """Do the selection that waits, with an analysis of each series; return for which analysis it was."""
        bench, job = self.bench, self.lease("select")
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

        self.write(work)
        return analysis

    def run(self, error: JobError | None = None) -> None:
        """End the analysis that waits: well, or set aside with ``error``."""
        bench, job = self.bench, self.lease("analyze")

        def work(connection: sqlite3.Connection) -> None:
            follow_up(bench.services, connection, job)
            if error is None:
                bench.queue.finish(connection, job)
            else:
                bench.queue.set_aside(connection, job, error)

        self.write(work)

    def park(self) -> None:
        """Park the first analysis."""
        for over in map(str, range(parking.FAILURES_TO_PARK)):
            self.write(partial(parking.crashed, analysis="first", over=over, reason="it crashed", now=1.0))

    def requeue(self, **which: str) -> None:
        self.write(lambda connection: self.bench.queue.requeue(connection, **which))

    def selections(self) -> list[str]:
        """The analyses whose selection waits."""
        return [job["payload"]["analysis"] for job in self.bench.jobs(kind="select", state="ready")]

    def waits_for(self) -> dict[str, list[str]]:
        return {one["analysis"]: one["waits_for"] for one in self.bench.waiting()}


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    clock = ManualClock()
    with job_bench(tmp_path, clock, CONFIG) as bench:
        yield Chain(bench, clock)


def test_an_analysis_waits_until_those_before_it_are_over(chain: Chain) -> None:
    chain.begin()
    assert chain.waits_for() == {"last": ["middle", "first"], "middle": ["first"]}
    assert chain.select("1.2.1", "1.2.2") == "first"
    assert chain.selections() == []
    chain.run()
    assert chain.selections() == []
    assert chain.tick() == 0
    chain.run()
    assert chain.selections() == ["middle"]
    assert chain.waits_for() == {"last": ["middle"]}
    # One that no series matches is over as well.
    assert chain.select() == "middle"
    assert chain.selections() == ["last"]
    assert chain.waits_for() == {}
    assert not chain.bench.is_open()


def test_an_analysis_that_failed_for_good_is_over_and_one_that_is_tried_again_is_not(chain: Chain) -> None:
    chain.begin("1.2.1", "1.2.2")
    job = chain.lease("analyze")
    later = chain.clock.timestamp() + 100
    chain.write(lambda connection: chain.bench.queue.retry(connection, job, CRASH, not_before=later))
    chain.run(CRASH)
    assert chain.selections() == []
    assert chain.tick() == 0
    chain.clock.advance(100)
    chain.run(CRASH)
    assert chain.selections() == ["middle"]


def test_what_waits_for_a_parked_analysis_goes_on_when_that_has_run(chain: Chain) -> None:
    chain.begin("1.2.1", "1.2.2")
    chain.park()
    chain.run(CRASH)
    chain.run(AnalysisParked("the analysis first is parked"))
    assert chain.tick() == 0
    assert chain.waits_for()["middle"] == ["first"]
    chain.write(lambda connection: parking.unpark(connection, "first"))
    chain.requeue(analysis="first")
    chain.run()
    assert chain.selections() == []
    chain.run()
    assert chain.selections() == ["middle"]


def test_what_waits_goes_on_when_the_failure_that_parks_an_analysis_is_its_last_job(chain: Chain) -> None:
    chain.begin("1.2.1")
    chain.park()
    chain.run(CRASH)
    assert chain.tick() == 1
    assert chain.selections() == ["middle"]


def test_a_tick_finds_what_nobody_followed_up(chain: Chain) -> None:
    chain.begin()
    job = chain.lease("select")
    assert chain.tick() == 0
    chain.write(lambda connection: chain.bench.queue.finish(connection, job))
    assert chain.tick() == 1
    assert chain.selections() == ["middle"]


def test_a_late_image_makes_all_of_a_chain_wait_for_its_turn_again(chain: Chain) -> None:
    chain.begin()
    assert chain.select() == "first"
    chain.bench.arrive()
    assert chain.select() == "middle"
    # Those of the revision before are not those that count.
    assert chain.selections() == []
    assert chain.waits_for() == {"last": ["middle", "first"], "first": [], "middle": ["first"]}
    chain.clock.advance(60)
    chain.tick()
    assert chain.select() == "first"
    assert chain.selections() == ["middle"]


def test_a_run_that_is_repeated_lets_those_behind_it_look_again(chain: Chain) -> None:
    chain.begin("1.2.1")
    chain.run(CRASH)
    assert [chain.select(), chain.select()] == ["middle", "last"]
    assert chain.selections() == []
    chain.requeue(kind="analyze")
    chain.run()
    assert chain.selections() == ["middle"]
    chain.select()
    assert chain.selections() == ["last"]


def test_the_wait_survives_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    with job_bench(tmp_path, clock, CONFIG) as bench:
        before = Chain(bench, clock)
        before.begin("1.2.1")
        before.lease("analyze")
    with job_bench(tmp_path, clock, CONFIG) as bench:
        after = Chain(bench, clock)
        bench.queue.release_leases_of(None)
        assert after.tick() == 0
        after.run()
        assert after.selections() == ["middle"]


def test_studies_that_wait_for_others_cost_one_look_each_in_an_index(chain: Chain) -> None:
    for study in ("1.2", "1.3", "1.4"):
        chain.bench.arrive(study)
    chain.clock.advance(60)
    assert chain.tick() == 3
    assert chain.bench.due() == []
    statements, plans = chain.bench.plans(chain.bench.completion.due)
    assert len(statements) == len(CONFIG.analyses)
    assert [plan for plan in plans if " job " in plan] == [
        "SEARCH job USING INDEX job_analysis (study_instance_uid=? AND <expr>=?)"
    ] * 3
    assert [plan for plan in plans if plan.startswith("SCAN")] == []


def test_a_restored_node_counts_all_as_due_whatever_waits(chain: Chain) -> None:
    chain.bench.arrive()
    with chain.bench.database.read() as connection:
        found = chain.bench.completion.due(connection, now=math.inf)
    assert {name for _, name, _ in found} == {"first", "middle", "last"}


@pytest.mark.parametrize(
    ("ready", "those"),
    [
        ((LAST, MIDDLE), ["middle"]),
        ((LAST,), ["last"]),
        # Not by what it names itself, but by what that waits for.
        ((AnalysisConfig("end", "m", after=("last",)), MIDDLE), ["middle"]),
        ((FIRST, AnalysisConfig("other", "m")), ["first", "other"]),
    ],
)
def test_whose_turn_is_next(ready: Sequence[AnalysisConfig], those: list[str]) -> None:
    assert [one.name for one in chains.next_of(ready, CONFIG.analyses)] == those
