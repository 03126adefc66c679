"""Verification: every difference is named, nothing hides another, and a part is looked at by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node import alarms
from node.config.settings import VerifyConfig
from node.errors import StorageFailure
from node.jobs.task import Job
from node.storage.storage import Storage
from node.tasks.verify import VerifyTask
from node.verifying import child, pool
from node.verifying.verdict import Verdict
from node.verifying.verifying import Verifying
from tests.support import made
from tests.support.made_pixels import multi_frame, segments
from tests.support.manual_clock import ManualClock
from tests.support.settling import settle
from tests.support.small_node import SmallNode, config, small_node

_serve = child.main
DAY = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[SmallNode]:
    settings = replace(config(tmp_path / "data"), verify=VerifyConfig(every_days=7.0, sample_percent=50.0))
    with small_node(settings, clock) as running:
        yield running


def verify(node: SmallNode, *sop_instance_uids: str, processes: int = 2) -> dict[str, Verdict]:
    services = node.services
    verifying = Verifying(services.config, services.database, services.index, services.clock)
    return dict(verifying.verify(sop_instance_uids, processes=processes))


def damage(node: SmallNode, sop_instance_uid: str, *frames: int) -> None:
    """Flip a bit in the middle of stored frames, counted from 1."""
    path = node.services.storage.path(node.stored(sop_instance_uid).location)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff") + 12
    for number in range(max(frames) + 1):  # the first item is the offset table
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if number in frames:
            content[place + 8 + length // 2] ^= 0x04
        place += 8 + length
    path.write_bytes(content)


def problem(node: SmallNode, sop_instance_uid: str) -> Any:
    with node.services.database.read() as connection:
        found = connection.execute(
            "SELECT problem, verified_at FROM instance WHERE SOPInstanceUID = ?", (sop_instance_uid,)
        ).fetchone()
        return tuple(found)


def test_the_frames_that_differ_are_named_and_the_others_do_not_hide_them(node: SmallNode) -> None:
    frames, bits, whole = node.receive(multi_frame(), segments(), made.instance())
    settle(node.services, frames, bits, whole)
    assert verify(node, frames, bits, whole) == dict.fromkeys((frames, bits, whole), Verdict(""))
    damage(node, frames, 2, 5)
    damage(node, bits, 3)
    found = verify(node, frames, bits, whole)
    assert "of 5 frames, 2 give other pixels or none: 2, 5" in found[frames].problem
    assert "of 3 frames, 1 give other pixels or none: 3" in found[bits].problem
    assert found[whole] == Verdict("")
    assert problem(node, frames)[0] == found[frames].problem
    assert problem(node, whole)[0] == ""


def test_a_header_that_differs_is_told_from_pixels_that_do(node: SmallNode) -> None:
    (sop_instance_uid,) = node.receive(multi_frame())
    settle(node.services, sop_instance_uid)
    path = node.services.storage.path(node.stored(sop_instance_uid).location)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"Doe^Jane") if b"Doe^Jane" in content else content.rindex(b"PN")
    content[place + 2] ^= 0x01
    path.write_bytes(content)
    found = verify(node, sop_instance_uid)[sop_instance_uid].problem
    assert found.startswith("damaged: ")
    assert found.endswith("every frame gives the pixels that were received")


def inject(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], *facts: object) -> None:
    """Have every verifying process that is started from now on show ``fault`` before an instance."""
    monkeypatch.setattr(child, "main", partial(_faulty, partial(fault, *facts)))


def _faulty(fault: Callable[[str], None], *arguments: Any) -> None:
    honest = child.problem_of

    def problem_of(storage: Storage, stored: Any) -> str:
        fault(stored.sop_instance_uid)
        return honest(storage, stored)

    child.problem_of = problem_of  # type: ignore[assignment]
    _serve(*arguments)


def dies_of(poison: str, sop_instance_uid: str) -> None:
    """Crash in the codec, of one instance alone."""
    if sop_instance_uid == poison:
        os.kill(os.getpid(), signal.SIGSEGV)


def is_killed_once(marker: Path, poison: str, number: int, sop_instance_uid: str) -> None:
    """Be ended by somebody, once, over one instance."""
    if sop_instance_uid == poison and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), number)


def sleeps_over(poison: str, sop_instance_uid: str) -> None:
    """Wait for ever over one instance, without computing."""
    while sop_instance_uid == poison:
        time.sleep(1)


def test_an_instance_that_ends_its_process_is_told_and_the_rest_is_verified(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = node.receive(*(made.ct_image() for _ in range(12)))
    poison = instances[5]
    inject(monkeypatch, dies_of, poison)
    for processes in (1, 3):
        found = verify(node, *instances, processes=processes)
        assert set(found) == set(instances)
        assert found.pop(poison).problem == "damaged: verifying it ended 2 processes: Segmentation fault"
        assert set(found.values()) == {Verdict("")}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_ended_from_outside_is_no_fault_of_its_instance(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    instances = node.receive(*(made.ct_image() for _ in range(6)))
    inject(monkeypatch, is_killed_once, tmp_path / "x", instances[2], int(number))
    assert verify(node, *instances, processes=1) == dict.fromkeys(instances, Verdict(""))


def ends(*_: Any) -> None:
    """A process that cannot begin."""


def test_processes_that_do_not_stay_are_told_and_mark_nothing(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = node.receive(*(made.ct_image() for _ in range(3)))
    monkeypatch.setattr(child, "main", ends)
    with pytest.raises(StorageFailure, match="the processes that verify end: exit status 0"):
        verify(node, *instances, processes=2)
    assert [problem(node, one) for one in instances] == [("", None)] * 3


def test_of_an_instance_over_which_a_process_hangs_nothing_is_known(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = node.receive(*(made.ct_image() for _ in range(4)))
    monkeypatch.setattr(pool, "_PATIENCE", 0.02)
    monkeypatch.setattr(pool, "_LOOK_SECONDS", 0.1)
    inject(monkeypatch, sleeps_over, instances[1])
    found = verify(node, *instances, processes=1)
    assert found.pop(instances[1]) == Verdict("cannot be verified for now: it took too long", is_known=False)
    assert set(found.values()) == {Verdict("")}
    assert problem(node, instances[1]) == ("", None)


def test_what_was_repaired_while_it_was_verified_is_not_marked(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sop_instance_uid,) = node.receive(multi_frame())
    settle(node.services, sop_instance_uid)
    damage(node, sop_instance_uid, 2)
    mark = node.services.database.write

    def repaired_before(work: Any) -> Any:
        def move(connection: Any) -> None:
            connection.execute("UPDATE instance SET location = 'archive:elsewhere.dcm:0:1'")

        monkeypatch.setattr(node.services.database, "write", mark)
        mark(move)
        return mark(work)

    monkeypatch.setattr(node.services.database, "write", repaired_before)
    assert verify(node, sop_instance_uid)[sop_instance_uid].problem
    assert problem(node, sop_instance_uid)[0] == ""


def test_an_instance_that_was_settled_meanwhile_is_verified_where_it_is_now(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sop_instance_uid,) = node.receive(multi_frame())
    get = node.services.index.get
    before = node.stored(sop_instance_uid)
    settle(node.services, sop_instance_uid)
    path = node.services.storage.path(before.location)
    path.write_bytes(bytes(path.stat().st_size))  # its place in the log is used again
    answers = [before]
    monkeypatch.setattr(node.services.index, "get", lambda *asked: answers.pop() if answers else get(*asked))
    assert verify(node, sop_instance_uid) == {sop_instance_uid: Verdict("")}


def run(node: SmallNode, task: VerifyTask) -> list[Any]:
    job = Job(1, "verify", "verify", "", {}, "", 1, 0.0)
    return list(task.run(node.services, [job]))


def test_a_sample_is_what_was_not_looked_at_for_the_longest_time(node: SmallNode, clock: ManualClock) -> None:
    instances = node.receive(*(made.ct_image() for _ in range(6)))
    task = VerifyTask()
    seen: list[set[str]] = []
    for _ in range(3):
        clock.advance(DAY)
        assert len(run(node, task)) == 1
        now = clock.timestamp()
        seen.append({one for one in instances if problem(node, one)[1] == now})
    assert seen == [set(instances[:3]), set(instances[3:]), set(instances[:3])]


def test_damage_that_a_sample_finds_is_an_alarm_until_a_later_one_finds_none(
    node: SmallNode, clock: ManualClock, tmp_path: Path
) -> None:
    one, other = node.receive(multi_frame(), multi_frame())
    settle(node.services, one, other)
    task = VerifyTask()

    def looked_at() -> None:
        for _ in range(2):  # the half that was not looked at for longer, then the other
            clock.advance(DAY)
            run(node, task)

    looked_at()
    path = node.services.storage.path(node.stored(other).location)
    good = path.read_bytes()
    damage(node, other, 1)
    looked_at()
    (alarm,) = alarms.standing(tmp_path / "data")
    assert alarm.name == "damage-found"
    assert alarm.message.startswith("1 of the instances held here")
    path.write_bytes(good)
    looked_at()
    assert alarms.standing(tmp_path / "data") == []


def test_a_task_that_is_cancelled_leaves_its_job_for_the_next_start(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.receive(*(made.ct_image() for _ in range(8)))
    task = VerifyTask()
    monkeypatch.setattr(child, "main", partial(never_answers))
    outcomes: list[Any] = []
    mark = node.services.index.longest_unverified

    def cancelled(*asked: Any) -> list[str]:
        task.cancel()
        return mark(*asked)

    monkeypatch.setattr(node.services.index, "longest_unverified", cancelled)
    outcomes += run(node, task)
    assert outcomes == []


def never_answers(connection: Any, *_: Any) -> None:
    while True:
        connection.recv()


def test_verification_is_due_every_week_and_never_where_that_is_configured(
    node: SmallNode, clock: ManualClock, tmp_path: Path
) -> None:
    assert node.schedule.verify()
    assert not node.schedule.verify()
    assert [job["kind"] for job in node.jobs(kind="verify")] == ["verify"]
    (job,) = node.services.queue.lease({"verify": 1}, seconds=60, owner="test")
    assert job.key == "verify"
    clock.advance(6 * DAY)
    assert not node.schedule.verify()
    clock.advance(1.1 * DAY)
    node.schedule.verify()  # it still runs: it is run once more
    for never in (VerifyConfig(every_days=0), VerifyConfig(sample_percent=0)):
        settings = replace(config(tmp_path / f"{never}"), verify=never)
        with small_node(settings, clock) as other:
            assert not other.schedule.verify()
            assert other.jobs(kind="verify") == []


def test_a_clock_that_was_far_ahead_does_not_put_the_next_verification_off(
    node: SmallNode, clock: ManualClock
) -> None:
    clock.advance(400 * DAY)
    assert node.schedule.verify()
    (job,) = node.services.queue.lease({"verify": 1}, seconds=60, owner="test")
    node.services.database.write(lambda connection: node.services.queue.finish(connection, job))
    clock.advance(-400 * DAY)
    assert node.schedule.verify()


def test_a_verification_that_is_done_is_not_forgotten_before_the_next(
    node: SmallNode, clock: ManualClock
) -> None:
    assert node.schedule.verify()
    (job,) = node.services.queue.lease({"verify": 1}, seconds=60, owner="test")
    node.services.database.write(lambda connection: node.services.queue.finish(connection, job))
    clock.advance(DAY)
    later = clock.timestamp() + DAY
    node.services.database.write(lambda connection: node.services.queue.delete_done(connection, before=later))
    assert not node.schedule.verify()
