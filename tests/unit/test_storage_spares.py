"""A spare segment is ready before anybody needs it, and no sender waits until one is written."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from node.config.settings import StorageConfig
from node.errors import OutOfSpace, StorageFailure
from node.storage import disk, segment, spares
from node.storage.record import BLOCK_BYTES
from node.storage.storage import Storage
from tests.support.manual_clock import ManualClock
from tests.support.waiting import wait_until

SEGMENT_BYTES = 16 * BLOCK_BYTES


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(tmp_path: Path, clock: ManualClock):
    """Make storages on one data directory; the one before is closed, as at a restart."""
    made: list[Storage] = []

    def storage() -> Storage:
        for one in made:
            one.close()
        config = StorageConfig(segment_bytes=SEGMENT_BYTES, spare_segments=8, free_space_reserve_bytes=0)
        made.append(Storage(tmp_path, config, clock, reclaim_grace_seconds=10.0))
        return made[-1]

    yield storage
    for one in made:
        one.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def start(storage: Storage) -> None:
    """Begin as the node does: replay, and make ready; nothing is needed."""
    list(storage.replay())
    storage.prepare(lambda name: False)


def put(storage: Storage, data: bytes) -> str:
    with storage.begin() as reception:
        reception.write([data])
        return reception.commit("1.2.840.10008.1.2.1", "{}").path


def is_written(path: Path) -> bool:
    """Whether the file system has nothing to note when the file is written again."""
    with path.open("rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) == SEGMENT_BYTES


def written(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.seg") if is_written(path)}


def test_the_first_spare_segment_is_written_and_durable_before_the_first_reception(make, folder, monkeypatch):
    synced: list[int] = []
    real = os.fdatasync

    def fdatasync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    start(make())
    assert synced == [SEGMENT_BYTES] * 2  # the zeros, and the block that makes it a segment
    assert written(folder) == {"00000001"}


def test_making_ready_again_makes_nothing(make, folder):
    storage = make()
    start(storage)
    storage.prepare(lambda name: False)
    assert len(list(folder.glob("*.seg"))) == 1


def test_a_segment_of_an_earlier_run_that_nobody_needs_is_the_first_spare_one(make, folder):
    start(make())
    start(make())
    assert len(list(folder.glob("*.seg"))) == 1
    assert len(written(folder)) == 1


def test_a_spare_segment_follows_the_one_that_is_taken(make, folder):
    storage = make()
    start(storage)
    taken = put(storage, b"data")
    wait_until(lambda: len(written(folder) - {taken}) == 1, 10, "a spare segment")


def test_each_segment_in_use_that_fills_up_has_a_spare_one(make, folder):
    storage = make()
    start(storage)
    with storage.begin() as one, storage.begin() as other:
        for reception in (one, other):
            reception.write([bytes(SEGMENT_BYTES // 2)])
            reception.commit("1.2.840.10008.1.2.1", "{}")
    with storage.begin(), storage.begin():
        put(storage, b"data")
        used = 3
        wait_until(lambda: len(written(folder)) - used >= 2, 10, "a spare segment for each, and one more")


def test_no_sender_waits_until_a_segment_is_written(make, folder, monkeypatch):
    """Filling a segment never happens in the thread of a reception."""
    fillers: set[int] = set()
    real = segment._fill

    def fill(*arguments: int) -> None:
        fillers.add(threading.get_ident())
        real(*arguments)

    monkeypatch.setattr(segment, "_fill", fill)
    storage = make()
    for _ in range(20):
        put(storage, os.urandom(SEGMENT_BYTES // 3))
    put(storage, os.urandom(5 * SEGMENT_BYTES))
    storage.close()
    assert fillers
    assert threading.get_ident() not in fillers


def test_a_segment_that_was_only_allocated_is_written_when_it_is_used_again(make, folder, clock):
    storage = make()
    name = put(storage, b"data")
    assert name not in written(folder)
    for _ in range(2):
        storage.reclaim(lambda name: False)
        clock.advance(10.0)
    storage.close()
    assert {path.stem for path in folder.glob("*.seg")} == written(folder)


def test_the_node_starts_on_a_full_disk(make, monkeypatch):
    storage = make()
    with monkeypatch.context() as full:
        full.setattr(disk, "free_bytes", lambda path: -1)
        start(storage)
        with pytest.raises(OutOfSpace):
            storage.begin()
    put(storage, b"works again by itself")


def test_after_a_spare_segment_could_not_be_made_it_is_tried_again_later(make, folder, monkeypatch, clock):
    storage = make()
    start(storage)
    attempts: list[int] = []

    def full(*arguments: object, **options: object) -> None:
        attempts.append(1)
        raise OutOfSpace("full")

    with monkeypatch.context() as failing:
        failing.setattr(spares, "create", full)
        taken = put(storage, b"data")
        wait_until(lambda: attempts, 10, "an attempt")
        wait_until(lambda: storage._log._spares._maker is None, 10, "its end")
        for _ in range(5):
            put(storage, b"data")
        assert len(attempts) == 1
    clock.advance(10.0)
    put(storage, b"data")
    wait_until(lambda: len(written(folder) - {taken}) == 1, 10, "a spare segment")


def test_no_segment_is_lost_while_the_free_space_is_unknown(make, folder, monkeypatch):
    storage = make()
    start(storage)

    def unknown(*arguments: object) -> int:
        raise StorageFailure("the disk cannot be asked")

    with monkeypatch.context() as failing:
        failing.setattr(storage._log.free_space, "spare_segments", unknown)
        with storage.begin() as reception:
            reception.write([b"data"])
            location = reception.commit("1.2.840.10008.1.2.1", "{}")
    put(storage, b"more")
    with storage.open(location) as file:
        assert file.read() == b"data"
    assert storage._log._open, "the segment is used on"


def test_the_pool_fills_while_nobody_receives(make, folder, monkeypatch):
    """One segment after each rest, until there are as many as configured."""
    monkeypatch.setattr(spares, "_REST_SECONDS", 0.01)
    storage = make()
    start(storage)
    wait_until(lambda: len(written(folder)) == 8, 10, "the pool to be full")
    wait_until(lambda: storage._log._spares._maker is None, 10, "its maker to end")
    assert len(written(folder)) == 8


def test_the_pool_does_not_fill_while_somebody_receives_slowly(make, folder, monkeypatch):
    """What was begun in each of five rests kept segments from being written; then nobody receives."""
    monkeypatch.setattr(spares, "_REST_SECONDS", 0.01)
    storage = make()
    counts: list[int] = []

    class Nudge(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if len(counts) < 5:
                counts.append(len(written(folder)))
                with storage.begin():
                    return False
            return super().wait(timeout)

    storage._log._spares._nudge = Nudge()
    start(storage)
    wait_until(lambda: len(written(folder)) == 8, 10, "the pool to be full")
    assert counts == [1] * 5


def test_few_spare_segments_are_kept(make, folder, clock):
    storage = make()
    put(storage, os.urandom(30 * SEGMENT_BYTES))
    for _ in range(2):
        storage.reclaim(lambda name: False)
        clock.advance(10.0)
    storage.close()
    assert len(list(folder.glob("*.seg"))) <= 9


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_in_the_middle_of_a_segment_leaves_no_file(make, folder, monkeypatch, call):
    storage = make()
    start(storage)
    real = getattr(os, call)
    calls = iter(range(100))

    def full(*arguments: object) -> object:
        if next(calls) >= 1:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)

    with storage.begin() as reception, monkeypatch.context() as failing:
        failing.setattr(os, call, full)
        with pytest.raises(OutOfSpace):
            reception.write([os.urandom(40 * SEGMENT_BYTES)])
    storage.close()
    assert not list(folder.glob("*.part"))
