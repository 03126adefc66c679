"""The receive log keeps what was committed, and only that."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import LimitExceeded, OutOfSpace, StorageFailure
from node.storage import disk
from node.storage.location import Location
from node.storage.record import BLOCK_BYTES, Head
from node.storage.storage import Storage
from tests.support.manual_clock import ManualClock

SYNTAX = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 16 * BLOCK_BYTES


@pytest.fixture
def make(tmp_path: Path):
    """Make storages on one data directory, as a node makes one at each start."""
    made: list[Storage] = []

    def storage(*, reserve_bytes: int = 0, clock: Clock | None = None, grace_seconds: float = 0.0) -> Storage:
        config = StorageConfig(segment_bytes=SEGMENT_BYTES, free_space_reserve_bytes=reserve_bytes)
        made.append(Storage(tmp_path, config, clock or Clock(), reclaim_grace_seconds=grace_seconds))
        return made[-1]

    yield storage
    for one in made:
        one.close()


def put(storage: Storage, data: bytes, provenance: str = "{}") -> Location:
    with storage.begin() as reception:
        for start in range(0, len(data), 1000):
            reception.write(memoryview(data)[start : start + 1000])
        return reception.commit(SYNTAX, provenance)


def read(storage: Storage, location: Location) -> bytes:
    with storage.open(location) as file:
        return file.read()


def segments(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "log").iterdir())


def test_a_committed_record_is_read_back(make):
    storage = make()
    data = os.urandom(5000)
    location = put(storage, data)
    assert read(storage, location) == data
    assert storage.size(location) == 5000
    assert Location.parse(str(location)) == location


def test_a_committed_record_is_replayed_after_a_restart_with_all_its_facts(make):
    data = os.urandom(3000)
    location = put(make(), data, '{"calling_ae_title": "CT1"}')
    (record,) = make().replay()
    assert record.location == location
    assert record.transfer_syntax_uid == SYNTAX
    assert record.provenance == '{"calling_ae_title": "CT1"}'
    assert record.data_set_sha256 == hashlib.sha256(data).hexdigest()
    assert record.data_set_bytes == 3000
    assert read(make(), record.location) == data


def test_replay_leaves_out_what_is_known(make):
    storage = make()
    known, unknown = put(storage, b"a" * 10), put(storage, b"b" * 10)
    assert [record.location for record in make().replay(lambda place: place == known)] == [unknown]


def test_leaving_without_commit_leaves_nothing_behind(make):
    storage = make()
    with storage.begin() as reception:
        reception.write(b"x" * 9000)
    location = put(storage, b"kept")
    assert location.offset == 2 * BLOCK_BYTES, "the next record takes the same place"
    assert [record.location for record in make().replay()] == [location]


def test_a_sender_that_fails_in_the_middle_leaves_nothing_behind(make):
    storage = make()

    def receive() -> None:
        with storage.begin() as reception:
            reception.write(b"x" * 9000)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        receive()
    assert list(make().replay()) == []


def test_a_revoked_record_is_not_replayed_and_its_place_is_used_again(make):
    storage = make()
    with storage.begin() as reception:
        reception.write(b"not needed")
        first = reception.commit(SYNTAX, "{}")
        reception.revoke()
    second = put(storage, b"needed")
    assert first.offset == second.offset
    assert [record.data_set_bytes for record in make().replay()] == [6]


@pytest.mark.parametrize("byte", [0, 9, 30, 60, 100])
def test_a_torn_head_is_no_record(make, tmp_path, byte):
    location = put(make(), b"data")
    path = tmp_path / "log" / f"{location.path}.seg"
    content = bytearray(path.read_bytes())
    content[location.offset - BLOCK_BYTES + byte] ^= 0xFF
    path.write_bytes(content)
    assert list(make().replay()) == []


def test_a_head_over_bytes_that_never_arrived_is_no_record_and_hides_no_other(make, tmp_path):
    storage = make()
    torn, whole = put(storage, b"t" * 6000), put(storage, b"w" * 6000)
    path = tmp_path / "log" / f"{torn.path}.seg"
    content = bytearray(path.read_bytes())
    content[torn.offset + 4000 : torn.offset + 6000] = bytes(2000)
    path.write_bytes(content)
    assert [record.location for record in make().replay()] == [whole]


def test_a_segment_whose_first_block_is_damaged_has_no_records(make, tmp_path):
    location = put(make(), b"data")
    path = tmp_path / "log" / f"{location.path}.seg"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    assert list(make().replay()) == []


def test_records_of_an_earlier_life_of_a_segment_are_never_replayed(make):
    storage = make()
    for number in range(3):
        put(storage, bytes([number]) * 100)
    assert storage.reclaim(lambda segment: False) == 1
    new = put(storage, b"new")
    assert [record.location for record in make().replay()] == [new]


def test_a_record_forged_inside_a_data_set_is_never_replayed(make):
    storage = make()
    forged = Head(4, hashlib.sha256(b"evil").hexdigest(), SYNTAX, "{}").encode(b"guess")
    put(storage, b"first")
    with storage.begin() as reception:  # aborted: its bytes stay where the next head would stand
        reception.write(forged * 8)
    put(storage, b"")
    assert sorted(record.data_set_bytes for record in make().replay()) == [0, 5]


def test_segments_are_really_written_and_durable_before_their_first_use(make, tmp_path, monkeypatch):
    synced: list[int] = []
    real = os.fdatasync

    def fdatasync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    storage = make()
    with storage.begin():
        assert synced == [SEGMENT_BYTES]
        (path,) = (tmp_path / "log").iterdir()
        assert path.stat().st_blocks * 512 >= SEGMENT_BYTES


def test_one_flush_makes_a_record_durable(make, monkeypatch):
    storage = make()
    put(storage, b"first, which makes the segment")
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    put(storage, b"second")
    assert len(calls) == 1


def test_an_object_larger_than_the_rest_of_a_segment_goes_whole_to_another(make):
    storage = make()
    first = put(storage, os.urandom(10 * BLOCK_BYTES))
    data = os.urandom(8 * BLOCK_BYTES + 5)
    second = put(storage, data)
    assert second.path != first.path
    assert read(storage, second) == data
    assert [record.location for record in make().replay()] == [first, second]


def test_an_object_larger_than_a_segment_makes_it_grow(make, monkeypatch):
    monkeypatch.setattr("node.storage.reception._COPY_BYTES", BLOCK_BYTES)
    storage = make()
    put(storage, b"something first")
    data = os.urandom(5 * SEGMENT_BYTES + 77)
    location = put(storage, data)
    assert read(storage, location) == data
    after = put(storage, b"after")
    assert read(storage, after) == b"after"
    assert len(list(make().replay())) == 3


def test_memory_does_not_grow_with_the_object(make):
    storage = make()
    fragment = bytes(128 * 1024)
    with storage.begin() as reception:
        tracemalloc.start()
        for _ in range(128):
            reception.write(fragment)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 4 * 1024**2


def test_an_object_over_the_limit_is_refused_and_leaves_nothing(make):
    storage = make()
    with pytest.raises(LimitExceeded), storage.begin(limit_bytes=1000) as reception:
        reception.write(bytes(1001))
    assert list(make().replay()) == []


def test_concurrent_receptions_never_share_a_segment(make):
    storage = make()
    expected: set[str] = set()
    lock = threading.Lock()

    def receive(number: int) -> None:
        for _ in range(20):
            data = os.urandom(3000 + number)
            put(storage, data)
            with lock:
                expected.add(hashlib.sha256(data).hexdigest())

    threads = [threading.Thread(target=receive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.close()
    assert {record.data_set_sha256 for record in make().replay()} == expected


# --- reclaiming --------------------------------------------------------------


def test_a_segment_with_a_needed_record_stays(make):
    storage = make()
    location = put(storage, b"needed")
    assert storage.reclaim(lambda segment: segment == location.path) == 0
    assert read(storage, location) == b"needed"


def test_a_segment_that_holds_a_reception_is_not_reclaimed(make):
    storage = make()
    with storage.begin() as reception:
        reception.write(b"data")
        location = reception.commit(SYNTAX, "{}")
        assert storage.reclaim(lambda segment: False) == 0
        assert read(storage, location) == b"data"
    assert storage.reclaim(lambda segment: False) == 1


def test_a_segment_that_is_being_read_is_not_reclaimed(make):
    storage = make()
    location = put(storage, b"data")
    with storage.open(location) as file:
        assert storage.reclaim(lambda segment: False) == 0
        assert file.read() == b"data"
    assert storage.reclaim(lambda segment: False) == 1
    with pytest.raises(StorageFailure):
        storage.open(location)


def test_a_segment_is_reclaimed_only_after_its_grace(make):
    clock = ManualClock()
    storage = make(clock=clock, grace_seconds=10.0)
    location = put(storage, b"data")
    assert storage.reclaim(lambda segment: False) == 0
    clock.advance(9.0)
    assert storage.reclaim(lambda segment: False) == 0
    assert read(storage, location) == b"data"
    clock.advance(1.0)
    assert storage.reclaim(lambda segment: False) == 1


def test_nothing_is_reclaimed_while_own_results_are_taken_in(make):
    storage = make()
    location = put(storage, b"data")
    done = threading.Event()

    def reclaim() -> None:
        storage.reclaim(lambda segment: False)
        done.set()

    with storage.without_reclaiming():
        thread = threading.Thread(target=reclaim)
        thread.start()
        assert not done.wait(0.05)
        assert read(storage, location) == b"data"
    thread.join()


def test_segments_of_an_earlier_run_wait_for_their_replay(make):
    put(make(), b"data")
    storage = make()
    assert storage.reclaim(lambda segment: False) == 0
    for record in storage.replay():
        assert storage.reclaim(lambda segment: False) == 0, "the record is still being looked at"
        assert read(storage, record.location) == b"data"
    assert storage.reclaim(lambda segment: False) == 1


def test_a_reclaimed_segment_is_used_again_under_a_number_that_never_was(make, tmp_path):
    storage = make()
    names = set()
    for number in range(12):
        location = put(storage, bytes([number]))
        assert location.path not in names
        names.add(location.path)
        storage.reclaim(lambda segment: False)
    assert len(segments(tmp_path)) == 1
    assert put(make(), b"after a restart").path not in names


def test_a_grown_segment_shrinks_when_it_is_used_again(make, tmp_path):
    storage = make()
    put(storage, bytes(5 * SEGMENT_BYTES))
    storage.reclaim(lambda segment: False)
    put(storage, b"small")
    assert {path.stat().st_size for path in (tmp_path / "log").iterdir()} == {SEGMENT_BYTES}


def test_a_failing_question_loses_no_segment(make):
    storage = make()
    location = put(storage, b"data")

    def is_live(segment: str) -> bool:
        raise StorageFailure("the database is away")

    with pytest.raises(StorageFailure):
        storage.reclaim(is_live)
    assert put(storage, b"more").path == location.path


# --- failing disks -----------------------------------------------------------


def fail(code: int, after: int = 0):
    """A function that raises OSError(code), after letting ``after`` calls through to ``real``."""

    def wrapped(real):
        calls = iter(range(1 << 30))

        def call(*arguments):
            if next(calls) >= after:
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        return call

    return wrapped


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, StorageFailure)],
)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_disk_that_fails_is_named_and_its_segment_is_never_written_again(
    make, monkeypatch, code, error, call
):
    storage = make()
    kept = put(storage, b"kept")
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail(code)(getattr(os, call)))
        with pytest.raises(error):
            put(storage, b"lost")
    after = put(storage, b"after")
    assert after.path != kept.path
    assert read(storage, kept) == b"kept"
    found = {read(storage, record.location) for record in make().replay()}
    assert {b"kept", b"after"} <= found


def test_a_broken_segment_is_removed_and_not_used_again(make, monkeypatch, tmp_path):
    storage = make()
    broken = put(storage, b"kept")
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", fail(errno.EIO)(os.fdatasync))
        with pytest.raises(StorageFailure):
            put(storage, b"lost")
    assert storage.reclaim(lambda segment: False) == 1
    assert f"{broken.path}.seg" not in segments(tmp_path)


@pytest.mark.parametrize("after", [0, 1])
def test_a_segment_that_cannot_be_made_leaves_no_file(make, monkeypatch, tmp_path, after):
    storage = make()
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", fail(errno.ENOSPC, after)(os.pwrite))
        with pytest.raises(OutOfSpace):
            storage.begin()
    assert segments(tmp_path) == []
    put(storage, b"works again by itself")


def test_below_the_reserve_nothing_is_written(make, tmp_path):
    with pytest.raises(OutOfSpace):
        make(reserve_bytes=1 << 62).begin()
    assert segments(tmp_path) == []


def test_the_reserve_is_asked_for_each_object(make, monkeypatch):
    storage = make()
    put(storage, b"while there is space")

    def none_left(path: Path, reserve_bytes: int) -> None:
        raise OutOfSpace("full")

    monkeypatch.setattr(disk, "check_free_space", none_left)
    with pytest.raises(OutOfSpace):
        storage.begin()


def test_a_short_write_is_continued(make, monkeypatch):
    real = os.pwrite
    storage = make()
    put(storage, b"first")
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:999], offset))
    data = os.urandom(10_000)
    assert read(storage, put(storage, data)) == data
