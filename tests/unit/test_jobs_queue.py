"""The queue is durable, gives each job to one worker at a time, and forgets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.errors import LeaseLost, PeerUnreachable, StorageFailure
from node.jobs import listing
from node.jobs.queue import MOST_CRASHES
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Iterator[Bench]:
    with job_bench(tmp_path, clock) as made:
        yield made


def finish(bench: Bench, job: object) -> None:
    bench.database.write(lambda connection: bench.queue.finish(connection, job))  # type: ignore[arg-type]


def test_a_job_is_enqueued_once_for_each_kind_and_key(bench: Bench) -> None:
    assert bench.enqueue("work", "a")
    assert not bench.enqueue("work", "a")
    assert bench.enqueue("other", "a")
    assert len(bench.jobs()) == 2


def test_a_transaction_that_fails_enqueues_nothing(bench: Bench) -> None:
    def work(connection: object) -> None:
        bench.queue.enqueue(connection, "work", key="a", payload={})  # type: ignore[arg-type]
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        bench.database.write(work)
    assert bench.jobs() == []


def test_the_oldest_due_job_is_leased_first_and_no_job_twice(bench: Bench, clock: ManualClock) -> None:
    bench.enqueue("work", "first", payload={"number": 1}, study_instance_uid="1.2")
    clock.advance(1)
    bench.enqueue("work", "second")
    (job,) = bench.lease()
    assert (job.key, job.payload, job.study_instance_uid, job.attempts) == ("first", {"number": 1}, "1.2", 1)
    assert [job.key for job in bench.lease(limit=5)] == ["second"]
    assert bench.lease() == []


def test_a_job_is_not_leased_before_its_time(bench: Bench, clock: ManualClock) -> None:
    bench.enqueue("work", "later", not_before=clock.timestamp() + 10)
    assert bench.lease() == []
    assert bench.queue.next_due_at(["work"]) == clock.timestamp() + 10
    clock.advance(10)
    assert [job.key for job in bench.lease()] == ["later"]


def test_the_first_kind_that_has_a_due_job_wins(bench: Bench, clock: ManualClock) -> None:
    bench.enqueue("settle", "old")
    clock.advance(5)
    bench.enqueue("select", "new")
    limits = {"select": 1, "settle": 16}
    taken = [bench.queue.lease(limits, seconds=60, owner="me")[0].kind for _ in range(2)]
    assert taken == ["select", "settle"]


def test_a_batch_holds_jobs_of_one_lane(bench: Bench) -> None:
    for key, lane in (("a1", "A"), ("b1", "B"), ("a2", "A")):
        bench.enqueue("deliver", key, lane=lane)
    assert [job.key for job in bench.lease("deliver", limit=10, lane="A")] == ["a1", "a2"]
    assert [job.key for job in bench.lease("deliver", limit=10, lane="B")] == ["b1"]


def test_no_two_jobs_of_a_named_lane_run_at_once(bench: Bench) -> None:
    for key in ("one", "two"):
        bench.enqueue("analyze", key, lane="lungs/1.2")
    (job,) = bench.lease("analyze")
    assert bench.lease("analyze") == []
    finish(bench, job)
    assert [job.key for job in bench.lease("analyze")] == ["two"]


def test_a_done_job_is_enqueued_again_only_on_request(bench: Bench) -> None:
    bench.enqueue("sweep", "sweep")
    finish(bench, bench.lease("sweep")[0])
    assert not bench.enqueue("sweep", "sweep")
    assert bench.enqueue("sweep", "sweep", again=True)
    assert [job.attempts for job in bench.lease("sweep")] == [1]


def test_a_running_job_that_is_wanted_again_runs_once_more(bench: Bench) -> None:
    bench.enqueue("confirm", "x")
    (job,) = bench.lease("confirm")
    bench.enqueue("confirm", "x", again=True)
    finish(bench, job)
    (second,) = bench.lease("confirm")
    finish(bench, second)
    assert bench.states() == {"x": "done"}


def test_what_is_wanted_again_is_done_with_what_was_said_last(bench: Bench) -> None:
    bench.enqueue("commit", "runs", payload={"items": ["old"]})
    (running,) = bench.lease("commit")
    bench.enqueue("commit", "waits", payload={"items": ["old"]})
    for key in ("waits", "runs"):
        bench.enqueue("commit", key, payload={"items": ["new"]}, again=True)
    assert running.payload == {"items": ["old"]}
    finish(bench, running)
    left = {job.key: job.payload for job in bench.lease("commit", limit=2)}
    assert left == {"waits": {"items": ["new"]}, "runs": {"items": ["new"]}}


def test_a_job_that_is_set_aside_while_it_is_wanted_again_runs_once_more(bench: Bench) -> None:
    """What it failed at may have been mended meanwhile: an instance that was sent again, say."""
    bench.enqueue("settle", "x")
    (job,) = bench.lease("settle")
    bench.enqueue("settle", "x", again=True)
    error = StorageFailure("the first copy cannot be read")
    bench.database.write(lambda connection: bench.queue.set_aside(connection, job, error))
    (second,) = bench.lease("settle")
    assert second.attempts == 1
    bench.database.write(lambda connection: bench.queue.set_aside(connection, second, error))
    assert bench.states() == {"x": "set_aside"}


def test_an_outcome_after_the_lease_was_lost_is_refused_and_undone(bench: Bench) -> None:
    bench.enqueue("work", "a")
    (job,) = bench.lease()
    bench.database.write(lambda connection: bench.queue.release(connection, job))
    (again,) = bench.lease()

    def late(connection: object) -> None:
        bench.queue.enqueue(connection, "work", key="twice", payload={})  # type: ignore[arg-type]
        bench.queue.finish(connection, job)  # type: ignore[arg-type]

    with pytest.raises(LeaseLost):
        bench.database.write(late)
    finish(bench, again)
    assert bench.states() == {"a": "done"}


def test_released_jobs_lose_no_try(bench: Bench) -> None:
    bench.enqueue("work", "a")
    for _ in range(4):
        (job,) = bench.lease()
        assert job.attempts == 1
        bench.database.write(lambda connection, job=job: bench.queue.release(connection, job))


def test_a_job_that_comes_back_while_the_unfinished_are_counted_is_counted(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.enqueue("work", "a")
    (job,) = bench.lease()
    timestamp = clock.timestamp
    read: list[float] = []

    def come_back() -> None:
        with ThreadPoolExecutor(1) as pool:
            error = StorageFailure("no")
            pool.submit(
                bench.database.write,
                lambda connection: bench.queue.retry(connection, job, error, not_before=timestamp()),
            ).result(10)

    def first_read_is_early() -> float:
        now = timestamp()
        read.append(now)
        if len(read) == 1:
            clock.advance(0.001)
            come_back()
        return now

    monkeypatch.setattr(clock, "timestamp", first_read_is_early)
    assert bench.queue.unfinished(["work"]) == 1
    assert bench.states() == {"a": "ready"}


def test_leases_of_a_process_that_is_gone_are_freed_at_once(bench: Bench) -> None:
    for key in "abc":
        bench.enqueue("work", key)
    bench.lease(limit=3, owner="gone")
    assert bench.lease() == []
    assert bench.queue.release_leases_of(None) == 3
    assert [job.key for job in bench.lease(limit=3)] == ["a", "b", "c"]


def test_a_lease_of_another_owner_expires(bench: Bench, clock: ManualClock) -> None:
    bench.enqueue("work", "a")
    bench.lease(owner="other", seconds=60)
    clock.advance(59)
    bench.queue.renew([1], seconds=60, owner="other")
    clock.advance(59)
    assert bench.lease(owner="me") == []
    clock.advance(2)
    assert [job.key for job in bench.lease(owner="me")] == ["a"]


def test_a_job_during_which_the_node_dies_again_and_again_comes_alone_and_is_set_aside(
    bench: Bench, clock: ManualClock
) -> None:
    bench.enqueue("settle", "poison")
    bench.enqueue("settle", "good")
    assert len(bench.lease("settle", limit=16, owner="gone")) == 2
    bench.queue.release_leases_of(None)
    assert len(bench.lease("settle", limit=16, owner="gone")) == 2
    for _ in range(MOST_CRASHES - 2):
        bench.queue.release_leases_of(None)
        clock.advance(60)
        (job,) = bench.lease("settle", limit=16, owner="gone")
        if job.key == "good":
            finish(bench, job)
            (job,) = bench.lease("settle", limit=16, owner="gone")
    bench.queue.release_leases_of(None)
    assert bench.states() == {"poison": "set_aside", "good": "done"}
    assert bench.job("poison")["error_name"] == "node-died"


def test_a_blocked_lane_waits_as_a_whole_and_shows_why(bench: Bench, clock: ManualClock) -> None:
    for key in ("a", "b"):
        bench.enqueue("deliver", key, lane="PACS")
    (job,) = bench.lease("deliver", lane="PACS")
    error = PeerUnreachable("no connection to PACS")
    until = clock.timestamp() + 5

    def fail(connection: object) -> None:
        bench.queue.block_lane(connection, "deliver", "PACS", error, until=until)  # type: ignore[arg-type]
        bench.queue.retry(connection, job, error, not_before=clock.timestamp())  # type: ignore[arg-type]

    bench.database.write(fail)
    assert bench.lease("deliver", lane="PACS") == []
    assert bench.queue.lanes("deliver") == [("PACS", until)]
    assert bench.queue.unfinished(["deliver"]) == 0
    assert {job["next_try_at"] for job in bench.jobs()} == {until}
    assert {job["error"] for job in bench.jobs()} == {"no connection to PACS"}
    clock.advance(5)
    (job,) = bench.lease("deliver", lane="PACS")
    finish(bench, job)
    assert bench.job("b")["error"] == ""


def test_lanes_lists_each_lane_with_its_next_time(bench: Bench, clock: ManualClock) -> None:
    now = clock.timestamp()
    for number in range(5):
        bench.enqueue("deliver", f"a{number}", lane="A", not_before=now + number)
    bench.enqueue("deliver", "b", lane="B", not_before=now + 7)
    bench.enqueue("confirm", "c", lane="C")
    assert bench.queue.lanes("deliver") == [("A", now), ("B", now + 7)]
    assert bench.queue.lanes("nothing") == []


def test_retry_by_a_person_starts_afresh_and_unblocks_the_lane(bench: Bench, clock: ManualClock) -> None:
    for key in ("set-aside", "waits"):
        bench.enqueue("deliver", key, lane="PACS", study_instance_uid="1.2")
    jobs = bench.lease("deliver", limit=2, lane="PACS")
    error = PeerUnreachable("down")

    def fail(connection: object) -> None:
        bench.queue.set_aside(connection, jobs[0], error)  # type: ignore[arg-type]
        bench.queue.retry(connection, jobs[1], error, not_before=clock.timestamp())  # type: ignore[arg-type]
        bench.queue.block_lane(connection, "deliver", "PACS", error, until=clock.timestamp() + 900)  # type: ignore[arg-type]

    bench.database.write(fail)
    clock.advance(1)
    requeued = bench.database.write(
        lambda connection: bench.queue.requeue(connection, study_instance_uid="1.2")
    )
    assert len(requeued) == 2
    again = bench.lease("deliver", limit=2, lane="PACS")
    assert [(job.attempts, job.since) for job in again] == [(1, clock.timestamp())] * 2


def test_retry_by_a_person_leaves_done_and_running_jobs_alone(bench: Bench) -> None:
    for key in ("done", "runs"):
        bench.enqueue("work", key)
    done, _ = bench.lease(limit=2)
    finish(bench, done)
    assert bench.database.write(bench.queue.requeue) == []


def test_old_done_jobs_are_forgotten_and_others_kept(bench: Bench, clock: ManualClock) -> None:
    for key in ("old", "new", "waits"):
        bench.enqueue("work", key)
    old, new = bench.lease(limit=2)
    finish(bench, old)
    clock.advance(100)
    finish(bench, new)
    before = clock.timestamp() - 50
    assert bench.database.write(lambda connection: bench.queue.delete_done(connection, before=before)) == 1
    assert sorted(bench.states()) == ["new", "waits"]


def test_counts_leave_out_what_is_done(bench: Bench) -> None:
    for key in "abc":
        bench.enqueue("work", key)
    first, _ = bench.lease(limit=2)
    finish(bench, first)
    with bench.database.read() as connection:
        counts = listing.counts(connection)
    assert counts == {"ready": {"work": 1}, "leased": {"work": 1}, "set_aside": {}}


def test_what_runs_every_tick_never_scans_the_table(bench: Bench) -> None:
    """Each statement of leasing and waiting is answered from a partial index of unfinished jobs."""
    seen: list[str] = []
    bench.enqueue("work", "a")
    with bench.database.read() as connection:
        connection.set_trace_callback(seen.append)
    bench.queue.next_due_at(["work"])
    bench.queue.unfinished(["work"])
    bench.queue.lanes("work")

    def lease_traced(connection: object) -> None:
        connection.set_trace_callback(seen.append)  # type: ignore[attr-defined]
        bench.lease()
        connection.set_trace_callback(None)  # type: ignore[attr-defined]

    bench.database.write(lease_traced)
    statements = [statement for statement in seen if "job" in statement and "INSERT" not in statement]
    assert len(statements) > 4
    with bench.database.read() as connection:
        for statement in statements:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            scans = [step for step in plan if step.startswith("SCAN job") and "USING" not in step]
            assert scans == [], statement
