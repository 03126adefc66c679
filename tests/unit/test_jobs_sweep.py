"""The sweep frees segments that nothing needs, and forgets jobs that were done long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from node import alarms
from node.config.settings import Config, JobsConfig, NodeConfig, TlsConfig
from node.tasks import sweep
from node.tasks.sweep import SweepTask
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock


class FakeStorage:
    """Three segments; it asks about each as the receive log does."""

    def __init__(self) -> None:
        self.live: list[str] = []

    def check_folders(self) -> None:
        """Both are there."""

    def suspects(self) -> list[str]:
        return []

    def reclaim(self, is_live: Callable[[str], bool]) -> int:
        self.live = [segment for segment in ("1", "2", "3") if is_live(segment)]
        return 3 - len(self.live)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    with job_bench(tmp_path, clock, Config(jobs=JobsConfig(keep_done_days=30))) as made:
        records = {"2": 4}
        made.services.storage = FakeStorage()
        made.services.index = SimpleNamespace(in_segment=lambda connection, segment: records.get(segment, 0))
        made.services.ingest = SimpleNamespace(holds_unindexed=lambda segment: segment == "3")
        yield made


def run_sweep(bench: Bench) -> None:
    bench.enqueue("sweep", "sweep", again=True)
    bench.engine(SweepTask()).run_until_idle(10)
    assert bench.states()["sweep"] == "done"


def test_only_segments_with_records_that_are_needed_are_kept(bench: Bench) -> None:
    run_sweep(bench)
    assert bench.services.storage.live == ["2", "3"]


def test_done_jobs_are_forgotten_after_their_days_and_others_never(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "JOBS_AT_ONCE", 2)
    for number in range(5):
        bench.enqueue("work", str(number))
    bench.enqueue("other", "waits")

    for job in bench.lease(limit=5):
        bench.database.write(lambda connection, job=job: bench.queue.finish(connection, job))
    run_sweep(bench)
    assert len(bench.jobs()) == 7
    clock.advance(30 * 86400 + 1)
    run_sweep(bench)
    assert sorted(bench.states()) == ["sweep", "waits"]


def test_it_looks_at_the_files_of_tls(bench: Bench, tmp_path: Path) -> None:
    """A file that is missing while the node runs is an alarm after the next sweep."""
    tls = TlsConfig(ca=tmp_path / "absent.crt")
    bench.services.config = Config(node=NodeConfig(data_dir=tmp_path, tls=tls))
    run_sweep(bench)
    (alarm,) = alarms.standing(tmp_path)
    assert alarm.name == alarms.TLS_FILES
    assert "[node.tls] ca: " in alarm.message
