"""The receive log keeps what was committed, and only that."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import LimitExceeded, OutOfSpace, StorageFailure
from node.storage import disk, segment
from node.storage import reception as reception_module
from node.storage.held_log import HeldLog
from node.storage.location import Location
from node.storage.record import BLOCK_BYTES, Head
from node.storage.storage import Storage
from tests.support.manual_clock import ManualClock
from tests.support.waiting import wait_until

SYNTAX = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 16 * BLOCK_BYTES


@pytest.fixture
def make(tmp_path: Path):
    """Make storages on one data directory, as a node makes one at each start."""
    made: list[Storage] = []

    def storage(*, reserve_bytes: int = 0, clock: Clock | None = None, grace_seconds: float = 0.0) -> Storage:
        config = StorageConfig(
            segment_bytes=SEGMENT_BYTES, spare_segments=8, free_space_reserve_bytes=reserve_bytes
        )
        made.append(Storage(tmp_path, config, clock or Clock(), reclaim_grace_seconds=grace_seconds))
        return made[-1]

    yield storage
    for one in made:
        one.close()


def put(storage: Storage, data: bytes, provenance: str = "{}") -> Location:
    with storage.begin() as reception:
        for start in range(0, len(data), 1000):
            reception.write([memoryview(data)[start : start + 1000]])
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
        reception.write([b"x" * 9000])
    location = put(storage, b"kept")
    assert location.offset == 2 * BLOCK_BYTES, "the next record takes the same place"
    assert [record.location for record in make().replay()] == [location]


def test_a_sender_that_fails_in_the_middle_leaves_nothing_behind(make):
    storage = make()

    def receive() -> None:
        with storage.begin() as reception:
            reception.write([b"x" * 9000])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        receive()
    assert list(make().replay()) == []


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


def test_a_damaged_head_hides_no_record_behind_it_and_its_segment_is_kept(make, tmp_path):
    storage = make()
    first, damaged, _, behind = (put(storage, data * 6000) for data in (b"a", b"b", b"c", b"d"))
    storage.close()
    with (tmp_path / "log" / f"{first.path}.seg").open("r+b") as file:
        file.seek(damaged.offset - BLOCK_BYTES)
        file.write(bytes(BLOCK_BYTES))
    again = make()
    found = [record.location for record in again.replay()]
    assert (len(found), found[0], found[-1]) == (3, first, behind)
    again.reclaim(lambda _: False)
    assert read(again, behind) == b"d" * 6000


def test_a_record_that_is_written_while_a_segment_is_searched_is_no_damage(make, tmp_path, monkeypatch):
    storage = make()
    first = put(storage, b"a")
    whole = [first]
    look = segment._next_head

    def write_then_look(*arguments):
        if len(whole) == 1:
            whole.extend(put(storage, data) for data in (b"b", b"c"))
            later = whole[-1]
            return later.offset, segment.read_head(arguments[0], later.offset, arguments[2])
        return look(*arguments)

    monkeypatch.setattr(segment, "_next_head", write_then_look)
    problems = []
    with HeldLog(tmp_path / "log") as log:
        log.hold()
        found = log.records(first.path, lambda *problem: problems.append(problem))
    assert [location for location, _ in found] == whole
    assert problems == []


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
        reception.write([forged * 8])
    put(storage, b"")
    assert sorted(record.data_set_bytes for record in make().replay()) == [0, 5]


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
    assert {record.location for record in make().replay()} == {first, second}


def test_memory_does_not_grow_with_the_object(make):
    storage = make()
    fragment = bytes(128 * 1024)
    with storage.begin() as reception:
        tracemalloc.start()
        for _ in range(128):
            reception.write([fragment])
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 4 * 1024**2


def test_an_object_over_the_limit_is_refused_and_leaves_nothing(make):
    storage = make()
    with pytest.raises(LimitExceeded), storage.begin(limit_bytes=1000) as reception:
        reception.write([bytes(1001)])
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


def test_fragments_that_are_written_together_lie_behind_each_other(make):
    storage = make()
    data = os.urandom(2 * SEGMENT_BYTES)
    ends = [0, 1, 4096, 4097, 30_000, 30_000, 90_000, len(data)]
    fragments = [memoryview(data)[start:end] for start, end in itertools.pairwise(ends)]
    with storage.begin() as reception:
        reception.write(fragments[:3])
        reception.write([])
        reception.write(fragments[3:])
        location = reception.commit(SYNTAX, "{}")
    assert reception.sha256 == hashlib.sha256(data).hexdigest()
    assert read(storage, location) == data


def test_more_fragments_than_the_system_takes_in_one_call_are_written(make):
    storage = make()
    data = os.urandom(5000)
    with storage.begin() as reception:
        reception.write([data[place : place + 1] for place in range(len(data))])
        reception.write([data] * 1500)
        location = reception.commit(SYNTAX, "{}")
    assert read(storage, location) == data * 1501


def test_the_start_of_a_data_set_is_read_without_the_disk(make, monkeypatch):
    storage = make()
    data = os.urandom(reception_module.START_BYTES + 5000)
    with storage.begin() as reception:
        for start in range(0, len(data), 3000):
            reception.write([data[start : start + 3000]])
        assert reception.start_bytes == data[: reception_module.START_BYTES]
        with reception.data_set() as file:
            with monkeypatch.context() as unreadable:
                unreadable.setattr(os, "pread", fail(errno.EIO)(os.pread))
                assert file.read(100) + file.read(8000) == data[:8100]
            file.seek(reception_module.START_BYTES - 10)
            assert file.read() == data[-5010:]


def test_a_data_set_is_read_while_more_of_it_follows(make):
    storage = make()
    data = os.urandom(5 * SEGMENT_BYTES)
    with storage.begin() as reception:
        for start in range(0, len(data), 33_333):
            reception.write([data[start : start + 33_333]])
            with reception.data_set() as file:
                assert file.read() == data[: start + 33_333]
        location = reception.commit(SYNTAX, "{}")
    assert read(storage, location) == data


def test_the_end_of_a_data_set_waits_for_one_write(make, monkeypatch):
    """Little fragments behind a long start are read from memory, and written when the record is sealed."""
    storage = make()
    monkeypatch.setattr(reception_module, "START_BYTES", 2 * BLOCK_BYTES)
    data, long = os.urandom(30_000), 17_000
    written: list[int] = []
    real = disk.write_all_at

    def write_all_at(file, fragments, offset):
        written.append(sum(map(len, fragments)))
        real(file, fragments, offset)

    monkeypatch.setattr(disk, "write_all_at", write_all_at)
    with storage.begin() as reception:
        reception.write([data[:long]])
        first = list(written)
        for start in range(long, len(data), 3000):
            reception.write([data[start : start + 3000]])
        with reception.data_set() as file:
            for begin, end in itertools.combinations(range(0, len(data), 2003), 2):
                file.seek(begin)
                assert file.read(end - begin) == data[begin:end]
        assert written == first
        location = reception.commit(SYNTAX, "{}")
    assert len(written) == len(first) + 1
    assert read(storage, location) == data


def test_a_sealed_record_is_flushed_by_sync_alone(make, monkeypatch):
    storage = make()
    put(storage, b"first, which makes the segment")
    calls: list[int] = []
    here, real = threading.get_ident(), os.fdatasync

    def fdatasync(file: int) -> None:
        if threading.get_ident() == here:  # others of this process may have work of their own
            calls.append(file)
        real(file)

    with monkeypatch.context() as counted, storage.begin() as reception:
        counted.setattr(os, "fdatasync", fdatasync)
        reception.write([b"data"])
        location = reception.seal(SYNTAX, "{}")
        assert calls == []
        reception.sync()
        assert len(calls) == 1
    assert read(storage, location) == b"data"


def test_no_block_is_written_in_part(make, monkeypatch):
    storage = make()
    storage.prepare(lambda segment: True)
    written: list[tuple[int, int]] = []
    real = disk.write_all_at

    def write_all_at(file, fragments, offset):
        written.append((offset, sum(map(len, fragments))))
        real(file, fragments, offset)

    monkeypatch.setattr(disk, "write_all_at", write_all_at)
    put(storage, os.urandom(300_001))
    put(storage, os.urandom(777))
    assert written
    assert all(offset % BLOCK_BYTES == 0 and count % BLOCK_BYTES == 0 for offset, count in written)


# --- reclaiming --------------------------------------------------------------


def test_a_segment_with_a_needed_record_stays(make):
    storage = make()
    location = put(storage, b"needed")
    assert storage.reclaim(lambda segment: segment == location.path) == 0
    assert read(storage, location) == b"needed"


def test_a_segment_that_holds_a_reception_is_not_reclaimed(make):
    storage = make()
    with storage.begin() as reception:
        reception.write([b"data"])
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
    before = make()
    needed = put(before, b"data")
    before.close()
    storage = make()
    assert storage.reclaim(lambda segment: False) == 0
    for _ in storage.replay():
        storage.reclaim(lambda segment: False)
        assert read(storage, needed) == b"data", "the record is still being looked at"
    storage.reclaim(lambda segment: False)
    with pytest.raises(StorageFailure):
        storage.open(needed)


def test_a_reclaimed_segment_is_used_again_under_a_number_that_never_was(make, tmp_path):
    storage = make()
    names = set()
    for number in range(12):
        location = put(storage, bytes([number]))
        assert location.path not in names
        names.add(location.path)
        storage.reclaim(lambda segment: False)
    storage.close()
    assert len(segments(tmp_path)) == 2, "the one in use and a spare one"
    assert put(make(), b"after a restart").path not in names


def test_so_many_spare_segments_are_wanted_as_may_be_full_at_one_time(make):
    log = make()._log
    wanted = []
    for _ in range(2):  # the second time they are more than a quarter full
        together = [log.take() for _ in range(4)]
        for one in together:
            one.position = SEGMENT_BYTES // 2
        for one in together:
            log.release(one)
            wanted.append(log._spares._wanted)
    for _ in range(3):  # one sender is left; the segments of the others are there for it
        log.release(log.take())
        wanted.append(log._spares._wanted)
    assert wanted == [1, 1, 1, 1, 5, 4, 3, 2, 2, 2, 2]


def test_a_new_segment_goes_to_the_disk_a_little_at_a_time(tmp_path, monkeypatch):
    done: list[str] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (done.append("flush"), real(file)))
    made = segment.create(tmp_path, 1, 3 << 20, pause=lambda: done.append("pause"))
    made.close()
    # and one for the block that makes it a segment
    assert done == ["flush", "pause"] * 3 + ["flush"]


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
@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
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
    storage.prepare(lambda name: False)  # or the spare one, made meanwhile, may have the lower number
    broken = put(storage, b"kept")
    real, here = os.fdatasync, threading.current_thread()
    with monkeypatch.context() as failing:
        # not those of spare segments, which another thread makes
        failing.setattr(
            os,
            "fdatasync",
            lambda file: fail(errno.EIO)(real)(file) if threading.current_thread() is here else real(file),
        )
        with pytest.raises(StorageFailure):
            put(storage, b"lost")
    after = put(storage, b"after")
    assert storage.reclaim(lambda segment: segment == after.path) == 1
    assert f"{broken.path}.seg" not in segments(tmp_path)


@pytest.mark.parametrize("unreadable", ["life", "head", "data set"])
def test_a_segment_that_cannot_be_read_bars_no_start_and_is_kept(make, monkeypatch, tmp_path, unreadable):
    """The other segments are replayed; at the next start the disk may be well again."""
    storage = make()
    first = put(storage, b"a" * SEGMENT_BYTES)  # so that the second lies in another segment
    second = put(storage, b"b" * 10)
    assert first.path != second.path
    offset = {"life": 0, "head": second.offset - BLOCK_BYTES, "data set": second.offset}[unreadable]
    bad = os.stat(tmp_path / "log" / f"{second.path}.seg").st_ino
    real = os.pread

    def pread(file, count, position):
        if os.fstat(file).st_ino == bad and position <= offset < position + count:
            raise OSError(errno.EIO, "Input/output error")
        return real(file, count, position)

    another = make()
    with monkeypatch.context() as failing:
        failing.setattr(os, "pread", pread)
        assert [record.location for record in another.replay()] == [first]
    another.reclaim(lambda segment: segment == first.path)
    assert f"{second.path}.seg" in segments(tmp_path)
    assert {record.location for record in make().replay()} == {first, second}


@pytest.mark.parametrize("call", ["rename", "fsync", "unlink"])
def test_a_segment_that_cannot_be_freed_is_not_forgotten(make, monkeypatch, tmp_path, call):
    """Else it would be on the disk, and unknown, until the next start; and nobody waits for its lock."""
    storage = make()
    unneeded = put(storage, b"unneeded")
    needed = put(storage, b"x" * (SEGMENT_BYTES - 2 * BLOCK_BYTES))
    assert needed.path != unneeded.path
    log = storage._log
    if call == "unlink":
        monkeypatch.setattr(type(log._spares), "are_enough", True)
    owner = os if call == "fsync" else Path
    with monkeypatch.context() as failing:
        failing.setattr(owner, call, fail(errno.EIO)(getattr(owner, call)))
        assert storage.reclaim(lambda segment: segment == needed.path) == 0

    def known() -> set[int]:
        return {*log._closed, *(one.number for one in [*log._open, *log._spares._ready])}

    wait_until(lambda: {f"{number:08d}.seg" for number in known()} == {*segments(tmp_path)})
    for path in (tmp_path / "log").iterdir():
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert read(storage, needed) == b"x" * (SEGMENT_BYTES - 2 * BLOCK_BYTES)


@pytest.mark.parametrize(
    ("call", "is_written"),
    [("posix_fallocate", False), ("pwrite", True), ("pwrite", False), ("fdatasync", True), ("fsync", True)],
)
def test_a_segment_that_cannot_be_made_leaves_no_file(monkeypatch, tmp_path, call, is_written):
    monkeypatch.setattr(os, call, fail(errno.ENOSPC)(getattr(os, call)))
    with pytest.raises(OutOfSpace):
        segment.create(tmp_path, 1, SEGMENT_BYTES, is_written=is_written)
    assert list(tmp_path.iterdir()) == []


def test_a_reception_that_finds_no_space_for_a_segment_is_refused(make, monkeypatch):
    storage = make()
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", fail(errno.ENOSPC)(os.posix_fallocate))
        with pytest.raises(OutOfSpace):
            storage.begin()
    put(storage, b"works again by itself")


def test_below_the_reserve_nothing_is_written(make, tmp_path):
    with pytest.raises(OutOfSpace):
        make(reserve_bytes=1 << 62).begin()
    assert segments(tmp_path) == []


def test_the_free_space_is_not_asked_for_each_object(make, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(disk, "check_free_space", lambda path, reserve_bytes: asked.append(reserve_bytes))
    storage = make(clock=ManualClock(), reserve_bytes=12)
    for _ in range(50):
        put(storage, b"data")
    assert asked.count(12) == 1, "asking for a new segment asks for more than the reserve"


def test_the_free_space_is_asked_again_after_a_second(make, monkeypatch):
    clock = ManualClock()
    storage = make(clock=clock)
    put(storage, b"while there is space")
    monkeypatch.setattr(disk, "free_bytes", lambda path: -1)
    put(storage, b"not noticed yet")
    clock.advance(1.0)
    with pytest.raises(OutOfSpace):
        storage.begin()
    with pytest.raises(OutOfSpace):
        storage.begin()
    monkeypatch.undo()
    put(storage, b"noticed at once")


def test_a_long_reception_asks_for_the_free_space_on_its_way(make, monkeypatch):
    clock = ManualClock()
    storage = make(clock=clock)
    put(storage, b"while there is space")
    with storage.begin() as reception:
        reception.write([bytes(1000)])
        monkeypatch.setattr(disk, "free_bytes", lambda path: -1)
        clock.advance(1.0)
        with pytest.raises(OutOfSpace):
            reception.write([bytes(1000)])


def test_many_bytes_from_many_receptions_are_a_reason_to_ask_again(make, monkeypatch):
    monkeypatch.setattr("node.storage.free_space._ASK_AGAIN_BYTES", 10_000)
    storage = make(clock=ManualClock())
    put(storage, b"while there is space")
    monkeypatch.setattr(disk, "free_bytes", lambda path: -1)

    def receive() -> None:
        for _ in range(11):
            put(storage, bytes(1000))

    with pytest.raises(OutOfSpace):
        receive()


def test_a_short_write_is_continued(make, monkeypatch):
    real = os.pwrite
    storage = make()
    put(storage, b"first")
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:999], offset))
    monkeypatch.setattr(os, "pwritev", lambda file, data, offset: real(file, data[0][:999], offset))
    data = os.urandom(10_000)
    assert read(storage, put(storage, data)) == data
    large = os.urandom(3 * SEGMENT_BYTES)
    assert read(storage, put(storage, large)) == large
