"""What came of an analysis is on record, by series and revision."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from node import analysis_runs
from node.analysis_runs import COMPLETED, FAILED, NO_MATCH, QUEUED, SUPERSEDED, UNCHANGED
from node.clock import Clock
from node.index import schema
from node.index.database import Database

T = TypeVar("T")

OF = ("1.2", "1.2.1", "slow")


class Runs:
    """The runs of an analysis of one study, in a database of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, work: Callable[..., T], *arguments: Any) -> T:
        with self._database.read() as connection:
            return work(connection, *arguments)

    def write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._database.write(work)

    def select(self, revision: int, series: str = "1.2.1") -> None:
        self.write(
            lambda connection: analysis_runs.record_selection(
                connection,
                study_instance_uid="1.2",
                series_instance_uid=series,
                analysis="slow",
                revision=revision,
                selected_digest=f"digest-{revision}",
                started_at=7.0,
                at=8.0,
            )
        )

    def record(self, revision: int, state: str, sr: str = "", series: str = "1.2.1", **facts: Any) -> None:
        self.write(
            lambda connection: analysis_runs.record(
                connection,
                study_instance_uid="1.2",
                series_instance_uid=series,
                analysis="slow",
                revision=revision,
                state=state,
                at=9.0,
                reason="because",
                input_digest="d",
                sr_sop_class_uid="1.2.840" if sr else "",
                sr_sop_instance_uid=sr,
                sr_series_instance_uid="1.2.9" if sr else "",
                result_sop_instance_uids=[sr, "9.9"] if sr else [],
                facts=facts,
            )
        )

    def all(self) -> list[dict[str, Any]]:
        return self.read(analysis_runs.of_study, "1.2")

    def states(self) -> dict[str, str]:
        return {run["series_instance_uid"]: run["state"] for run in self.all()}

    def found(self) -> dict[str, tuple[str, ...]] | str:
        return self.read(analysis_runs.found, *OF)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    database = Database(tmp_path / "index.sqlite", clock=Clock(), schema=schema.STATEMENTS)
    yield Runs(database)
    database.close()


def test_a_run_is_listed_with_its_results(runs: Runs) -> None:
    runs.record(1, COMPLETED, "5.5")
    runs.record(2, NO_MATCH, series="")
    first, second = runs.all()
    assert first["result_sop_instance_uids"] == ["5.5", "9.9"]
    assert (first["state"], first["reason"], first["recorded_at"]) == (COMPLETED, "because", 9.0)
    assert (second["state"], second["series_instance_uid"]) == (NO_MATCH, "")


def test_a_repeated_run_replaces_its_record(runs: Runs) -> None:
    runs.record(1, FAILED)
    runs.record(1, COMPLETED, "5.5")
    assert [run["state"] for run in runs.all()] == [COMPLETED]


def test_completed_runs_are_those_of_the_series_with_and_without_a_report(runs: Runs) -> None:
    def completed() -> list[tuple[int, str]]:
        found = runs.read(analysis_runs.completed, *OF)
        return [(run["revision"], run["sr_sop_instance_uid"]) for run in found]

    assert completed() == []
    runs.record(1, COMPLETED, "5.1")
    runs.record(2, COMPLETED)
    runs.record(3, "not-a-volume")
    runs.record(4, COMPLETED, "8.8", series="1.2.2")
    runs.record(5, COMPLETED, "5.5")
    assert completed() == [(5, "5.5"), (2, ""), (1, "5.1")]


def test_a_selection_is_kept_when_its_run_is_recorded(runs: Runs) -> None:
    def latest() -> tuple[str, str, float]:
        run = runs.read(analysis_runs.latest, *OF)
        assert run is not None
        return run["state"], run["selected_digest"], run["started_at"]

    runs.select(1)
    assert latest() == (QUEUED, "digest-1", 7.0)
    runs.record(1, COMPLETED, "5.1")
    assert latest() == (COMPLETED, "digest-1", 7.0)
    runs.select(2)
    runs.write(lambda connection: analysis_runs.supersede(connection, "1.2", "slow", [("1.2.1", 2)], at=9.0))
    assert latest() == (SUPERSEDED, "digest-2", 7.0)


def test_a_selection_takes_the_place_of_a_run_that_left_nothing_and_of_no_other(runs: Runs) -> None:
    runs.record(1, "unfit-input", series="1.2.1")
    runs.record(1, COMPLETED, "5.5", series="1.2.2")
    for series in ("1.2.1", "1.2.2"):
        runs.select(1, series)
    of_series = {one["series_instance_uid"]: one for one in runs.all()}
    assert (of_series["1.2.1"]["state"], of_series["1.2.1"]["reason"]) == (QUEUED, "")
    assert of_series["1.2.1"]["selected_digest"] == "digest-1"
    assert (of_series["1.2.2"]["state"], of_series["1.2.2"]["selected_digest"]) == (COMPLETED, "")


def test_what_the_latest_run_found_counts(runs: Runs) -> None:
    assert runs.found() == "does not see this series"
    runs.record(1, COMPLETED, kind=("T1", "t1w"))
    assert runs.found() == {"kind": ("T1", "t1w")}
    runs.record(2, UNCHANGED)
    assert runs.found() == {"kind": ("T1", "t1w")}
    runs.record(3, "not-a-volume")
    assert runs.found() == "has no result for this series (not-a-volume)"
    runs.record(4, COMPLETED, kind=("T2",))
    assert runs.found() == {"kind": ("T2",)}


def test_what_a_run_left_stands_when_its_series_is_seen_no_more(runs: Runs) -> None:
    for series, state in {"1": COMPLETED, "2": FAILED, "3": "not-a-volume", "4": FAILED}.items():
        runs.record(1, state, series=series)
    runs.write(lambda connection: analysis_runs.drop_unseen(connection, "1.2", "slow", ["4"], at=9.0))
    assert runs.states() == {"1": COMPLETED, "2": SUPERSEDED, "3": SUPERSEDED, "4": FAILED}
