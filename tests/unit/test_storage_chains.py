"""A record that is longer than a segment goes on in the next, and is kept or free as a whole."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import IntegrityFailure, OutOfSpace, StorageFailure
from node.storage import archive, disk
from node.storage import reception as reception_module
from node.storage.chain import ChainWindow, Link, read_link
from node.storage.location import Location
from node.storage.reception import Reception
from node.storage.record import BLOCK_BYTES, Life
from node.storage.segment import read_life
from node.storage.storage import Storage
from node.wire.message_writer import InFiles
from tests.support.manual_clock import ManualClock

SYNTAX = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 16 * BLOCK_BYTES
CONTINUATION_BYTES = SEGMENT_BYTES - 2 * BLOCK_BYTES
#: Takes four segments, the first of which begins with another record.
LONG = 3 * SEGMENT_BYTES + 77


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Let little wait in memory, and little be moved, as it is with segments of the usual size."""
    monkeypatch.setattr(reception_module, "START_BYTES", 2 * BLOCK_BYTES)
    monkeypatch.setattr(reception_module, "_WORTH_WRITING_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(reception_module, "_MOVE_BYTES", BLOCK_BYTES)


@pytest.fixture
def make(tmp_path: Path):
    """Make storages on one data directory; the one before is closed, as at a restart."""
    made: list[Storage] = []

    def storage(clock: Clock | None = None, grace_seconds: float = 0.0) -> Storage:
        for one in made:
            one.close()
        config = StorageConfig(segment_bytes=SEGMENT_BYTES, spare_segments=8, free_space_reserve_bytes=0)
        made.append(Storage(tmp_path, config, clock or Clock(), reclaim_grace_seconds=grace_seconds))
        return made[-1]

    yield storage
    for one in made:
        one.close()


def write(reception: Reception, data: bytes) -> None:
    for start in range(0, len(data), 10_000):
        reception.write([data[start : start + 10_000]])


def put(storage: Storage, data: bytes) -> Location:
    with storage.begin() as reception:
        write(reception, data)
        return reception.commit(SYNTAX, "{}")


def read(storage: Storage, location: Location) -> bytes:
    with storage.open(location) as file:
        return file.read()


def names(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "log").glob("*.seg")}


def chain_of(storage: Storage, location: Location) -> list[str]:
    """Names of the segments of a record, the first one first."""
    with storage.open(location) as file:
        if isinstance(file, ChainWindow):
            return [part.path.stem for part in file._chain]
        return [Path(os.readlink(f"/proc/self/fd/{file._file}")).stem]


def replayed(storage: Storage) -> set[Location]:
    return {record.location for record in storage.replay()}


def free_all(storage: Storage, live: set[str] = frozenset()) -> None:
    storage.reclaim(lambda segment: segment in live)


def test_a_long_record_goes_on_in_further_segments_and_no_file_grows(make, tmp_path):
    storage = make()
    before = put(storage, b"something first")
    data = os.urandom(LONG)
    location = put(storage, data)
    assert location.path == before.path, "what is left of a segment is used"
    assert read(storage, location) == data
    assert len(chain_of(storage, location)) == 4
    assert {path.stat().st_size for path in (tmp_path / "log").glob("*.seg")} == {SEGMENT_BYTES}


def test_a_record_follows_a_long_one(make):
    storage = make()
    long, after = put(storage, os.urandom(LONG)), put(storage, b"after")
    assert after.path not in chain_of(storage, long)
    assert read(storage, after) == b"after"


def test_a_long_record_is_replayed_with_its_digest(make):
    data = os.urandom(LONG)
    location = put(make(), data)
    storage = make()
    (record,) = storage.replay()
    assert record.location == location
    assert record.data_set_sha256 == hashlib.sha256(data).hexdigest()
    assert record.data_set_bytes == LONG
    assert read(storage, location) == data


def test_a_record_is_flushed_with_all_its_parts_before_it_is_replayed(make, monkeypatch):
    """Its reception may have been killed before the flush, and the same instance is not flushed again."""
    storage = make()
    put(storage, b"known")
    location = put(storage, os.urandom(LONG))
    parts = {storage.path(location).name, *(f"{name}.seg" for name in chain_of(storage, location))}
    flushed: list[str] = []
    monkeypatch.setattr(
        disk, "sync_data", lambda file: flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))
    )
    replay = make().replay(lambda place: place != location)
    assert next(replay).location == location
    assert sorted(flushed) == sorted(parts)


def test_a_record_that_cannot_be_flushed_is_kept_for_the_next_start(make, monkeypatch):
    location = put(make(), b"not flushed")

    def fail(file: int) -> None:
        raise StorageFailure("the disk failed")

    with monkeypatch.context() as failing:
        failing.setattr(disk, "sync_data", fail)
        storage = make()
        assert list(storage.replay()) == []
        assert storage.reclaim(lambda segment: False) == 0
    assert replayed(make()) == {location}


@pytest.mark.parametrize("count", [1, 3, 5000])
def test_a_long_record_is_read_in_any_order(make, count):
    storage = make()
    data = os.urandom(LONG)
    with storage.open(put(storage, data)) as file:
        for position in (LONG - 3, 0, 2 * SEGMENT_BYTES, CONTINUATION_BYTES - 1, SEGMENT_BYTES - 4096):
            file.seek(position)
            assert file.read(count) == data[position : position + count]
            assert file.tell() == min(LONG, position + count)
        file.seek(0)
        assert file.read() == data


@pytest.mark.parametrize("length", [0, 5, 1000, LONG])
def test_a_record_is_never_sent_from_its_segment_without_a_copy(make, length):
    """What the system still holds for a slow peer would change when the segment is used again."""
    storage = make()
    put(storage, b"something first")
    with storage.open(put(storage, os.urandom(length))) as file:
        assert not isinstance(file, InFiles)


def test_the_pieces_of_an_archive_file_are_its_data_set(make):
    storage = make()
    meta = archive.part10("1.2.3", "1.2.3.4", SYNTAX, {})
    with storage.open(storage.settle("1.2.3.4", [meta, b"data set"])) as file:
        assert isinstance(file, InFiles)
        [(piece, offset, count)] = file.pieces()
        assert os.pread(piece, count, offset) == b"data set"


def test_a_long_record_needs_few_open_files(make):
    storage = make()
    data = os.urandom(40 * SEGMENT_BYTES)
    before = len(os.listdir("/proc/self/fd"))
    with storage.begin() as reception:
        write(reception, data)
        assert len(os.listdir("/proc/self/fd")) <= before + 6
        location = reception.commit(SYNTAX, "{}")
    with storage.open(location) as file:
        assert file.read() == data
        assert len(os.listdir("/proc/self/fd")) <= before + 6


# --- what is torn ------------------------------------------------------------


@pytest.mark.parametrize("part", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "place",
    [0, 12, 30, BLOCK_BYTES, BLOCK_BYTES + 9, BLOCK_BYTES + 40, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 50],
)
def test_an_altered_part_makes_no_record_and_hides_no_other(make, tmp_path, part, place):
    storage = make()
    location, after = put(storage, os.urandom(LONG)), put(storage, b"after")
    path = tmp_path / "log" / f"{chain_of(storage, location)[part]}.seg"
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    assert replayed(make()) == {after}


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_missing_part_makes_no_record_and_hides_no_other(make, tmp_path, part):
    storage = make()
    location, after = put(storage, os.urandom(LONG)), put(storage, b"after")
    (tmp_path / "log" / f"{chain_of(storage, location)[part]}.seg").unlink()
    storage = make()
    assert replayed(storage) == {after}
    with pytest.raises(StorageFailure if part == 0 else IntegrityFailure):
        storage.open(location)


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_part_of_another_record_is_never_taken_for_its_own(make, tmp_path, part):
    storage = make()
    one, other = put(storage, b"1" * LONG), put(storage, b"1" * LONG)
    mine = tmp_path / "log" / f"{chain_of(storage, one)[part]}.seg"
    mine.write_bytes((tmp_path / "log" / f"{chain_of(storage, other)[part]}.seg").read_bytes())
    assert replayed(make()) == {other}


def test_the_segments_of_a_torn_record_become_free(make, tmp_path):
    storage = make()
    location, after = put(storage, os.urandom(LONG)), put(storage, b"after")
    chain = set(chain_of(storage, location))
    path = tmp_path / "log" / f"{location.path}.seg"
    content = bytearray(path.read_bytes())
    content[location.offset - BLOCK_BYTES] ^= 0xFF
    path.write_bytes(content)
    storage = make()
    assert replayed(storage) == {after}
    free_all(storage, {after.path})
    assert not chain & names(tmp_path)
    assert read(storage, after) == b"after"


def test_a_part_that_belongs_to_another_record_is_refused(make, tmp_path):
    storage = make()
    location = put(storage, os.urandom(LONG))
    with (tmp_path / "log" / f"{chain_of(storage, location)[2]}.seg").open("r+b") as part:
        life = read_life(part.fileno())
        link = read_link(part.fileno(), life.key)
        os.pwrite(part.fileno(), Link(Life(999, life.key), link.next).encode(life.key), BLOCK_BYTES)
    with pytest.raises(IntegrityFailure):
        storage.open(location)


def test_every_part_is_flushed_after_its_last_write(make, monkeypatch):
    storage = make()
    dirty: set[int] = set()
    real_sync, reals = disk.sync_data, {name: getattr(disk, name) for name in ("write_at", "write_all_at")}

    def sync_data(file: int) -> None:
        part = os.fstat(file).st_ino
        real_sync(file)
        dirty.discard(part)

    def writing(name: str):
        def write(file, data, offset) -> None:
            reals[name](file, data, offset)
            dirty.add(os.fstat(file).st_ino)

        return write

    with storage.begin() as reception:
        monkeypatch.setattr(disk, "sync_data", sync_data)
        for name in reals:
            monkeypatch.setattr(disk, name, writing(name))
        write(reception, os.urandom(LONG))
        reception.seal(SYNTAX, "{}")
        parts = {os.fstat(segment.file).st_ino for segment in (reception._first, reception._segment)}
        assert parts <= dirty
        reception.sync()
        storage.close()  # no other segment is being made any more
        assert not dirty


# --- what is given up --------------------------------------------------------


def test_a_reception_that_is_given_up_in_a_chain_leaves_nothing(make, tmp_path):
    storage = make()
    kept = put(storage, b"kept")
    with storage.begin() as reception:
        write(reception, os.urandom(LONG))
    used = names(tmp_path)
    again = put(storage, os.urandom(LONG))
    assert set(chain_of(storage, again)) <= used, "its segments are free at once"
    assert again.offset == kept.offset + 2 * BLOCK_BYTES
    assert replayed(make()) == {kept, again}


# --- using again -------------------------------------------------------------


def test_no_part_of_a_needed_record_is_reclaimed(make):
    storage = make()
    data = os.urandom(LONG)
    location = put(storage, data)
    for _ in range(3):
        free_all(storage, {location.path})
        put(storage, b"something else")
    assert read(storage, location) == data


def test_no_part_of_a_needed_record_is_reclaimed_after_a_restart(make):
    data = os.urandom(LONG)
    location = put(make(), data)
    storage = make()
    assert [record.location for record in storage.replay(lambda place: place == location)] == []
    for _ in range(3):
        free_all(storage, {location.path})
        put(storage, os.urandom(LONG))
    assert read(storage, location) == data


def test_no_part_is_reclaimed_while_the_record_is_replayed(make):
    data = os.urandom(LONG)
    put(make(), data)
    storage = make()
    for record in storage.replay():
        free_all(storage)
        assert read(storage, record.location) == data


def test_a_record_that_was_not_indexed_keeps_all_its_parts(make):
    data = os.urandom(LONG)
    put(make(), data)
    storage = make()
    for record in storage.replay():
        storage.keep(record.location)
    free_all(storage)
    assert read(storage, record.location) == data


def test_all_parts_are_reclaimed_together(make, tmp_path):
    storage = make()
    location = put(storage, os.urandom(LONG))
    chain = set(chain_of(storage, location))
    assert storage.reclaim(lambda segment: False) == 4
    assert not chain & names(tmp_path)
    with pytest.raises(StorageFailure):
        storage.open(location)
    free_all(storage)
    assert replayed(make()) == set()


def test_all_parts_are_reclaimed_together_after_a_restart(make, tmp_path):
    storage = make()
    chain = set(chain_of(storage, put(storage, os.urandom(LONG))))
    storage = make()
    list(storage.replay())
    free_all(storage)
    assert not chain & names(tmp_path)


def test_all_parts_have_the_grace_of_the_first(make):
    clock = ManualClock()
    storage = make(clock, grace_seconds=10.0)
    data = os.urandom(LONG)
    location = put(storage, data)
    assert storage.reclaim(lambda segment: False) == 0
    clock.advance(9.0)
    assert storage.reclaim(lambda segment: False) == 0
    assert read(storage, location) == data
    clock.advance(1.0)
    assert storage.reclaim(lambda segment: False) == 4


def test_a_reader_keeps_all_parts(make):
    storage = make()
    data = os.urandom(LONG)
    with storage.open(put(storage, data)) as file:
        assert storage.reclaim(lambda segment: False) == 0
        assert file.read() == data
    assert storage.reclaim(lambda segment: False) == 4


def test_a_reception_keeps_all_parts(make):
    storage = make()
    data = os.urandom(LONG)
    with storage.begin() as reception:
        write(reception, data)
        location = reception.commit(SYNTAX, "{}")
        assert storage.reclaim(lambda segment: False) == 0
        assert read(storage, location) == data
    assert storage.reclaim(lambda segment: False) == 4


def test_concurrent_long_receptions_never_share_a_segment(make):
    storage = make()
    expected: dict[Location, bytes] = {}
    lock = threading.Lock()

    def receive(number: int) -> None:
        for turn in range(6):
            data = os.urandom(turn * SEGMENT_BYTES // 2 + number)
            location = put(storage, data)
            with lock:
                expected[location] = data

    threads = [threading.Thread(target=receive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage = make()
    assert replayed(storage) == set(expected)
    assert all(read(storage, location) == data for location, data in expected.items())


# --- failing disks -----------------------------------------------------------


class FailingDisk:
    """Lets ``after`` calls of the system through, then fails each of them, in whatever thread.

    ``count`` says how many calls there were.
    """

    CALLS = ("pwrite", "pwritev", "fdatasync", "fsync", "posix_fallocate")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, after: int) -> None:
        self.count = 0
        self._code, self._after = code, after
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, real):
        def call(*arguments):
            self.count += 1
            if self.count > self._after:
                raise OSError(self._code, os.strerror(self._code))
            return real(*arguments)

        return call


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, OutOfSpace), (errno.EIO, StorageFailure)])
def test_a_fault_at_any_step_of_a_long_record_loses_nothing_that_was_acknowledged(
    make, tmp_path, monkeypatch, code, error
):
    step = failures = 0
    while True:
        storage = make()
        list(storage.replay())
        free_all(storage)
        storage.prepare(lambda segment: True)
        kept_data, data = os.urandom(20_000), os.urandom(LONG)
        kept = put(storage, kept_data)
        with monkeypatch.context() as broken:
            failing = FailingDisk(broken, code, step)
            try:
                location = put(storage, data)
            except error:
                failures += 1
                location = None
        assert read(storage, kept) == kept_data
        after_data = os.urandom(LONG)
        after = put(storage, after_data)
        storage = make()
        found = replayed(storage)
        assert {kept, after} <= found, f"step {step}"
        assert read(storage, kept) == kept_data
        assert read(storage, after) == after_data
        if location is not None:
            assert read(storage, location) == data
            if failing.count <= step:
                break
        step += 1
    assert failures >= 15


@pytest.mark.parametrize("length", [3000, LONG])
def test_a_record_whose_flush_failed_is_written_anew_when_it_is_found(make, monkeypatch, length):
    """The system counts it as written, and a second flush of the same pages would do nothing."""

    def fail(file: int) -> None:
        raise StorageFailure("Input/output error while making an instance durable")

    data = os.urandom(length)
    storage = make()
    with monkeypatch.context() as failing:
        failing.setattr(disk, "sync_data", fail)
        with pytest.raises(StorageFailure):
            put(storage, data)
    storage.close()
    real, real_sync = disk.write_at, disk.sync_data
    done: list[tuple[str, str, int]] = []

    def write_at(file: int, piece: bytes, offset: int) -> None:
        done.append(("write", os.path.basename(os.readlink(f"/proc/self/fd/{file}")), len(piece)))
        real(file, piece, offset)

    def sync_data(file: int) -> None:
        done.append(("flush", os.path.basename(os.readlink(f"/proc/self/fd/{file}")), 0))
        real_sync(file)

    monkeypatch.setattr(disk, "write_at", write_at)
    monkeypatch.setattr(disk, "sync_data", sync_data)
    storage = make()
    records = list(storage.replay())
    for record in records:
        assert read(storage, record.location) == data
    flushed = {name for what, name, _ in done if what == "flush"}
    for name in flushed:
        assert sum(count for what, one, count in done if (what, one) == ("write", name)) >= SEGMENT_BYTES
        assert [what for what, one, _ in done if one == name][-1] == "flush"
    assert len(records) == bool(flushed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("failure", [StorageFailure("once"), MemoryError()])
def test_a_failed_flush_behind_a_long_reception_is_never_forgotten(make, monkeypatch, failure):
    storage = make()
    real = disk.sync_data
    failed = threading.Event()

    def fails_once(file: int) -> None:
        if threading.current_thread().name == "write-behind" and not failed.is_set():
            failed.set()
            raise failure
        real(file)

    monkeypatch.setattr(disk, "sync_data", fails_once)
    with storage.begin() as reception:
        write(reception, os.urandom(SEGMENT_BYTES + 1000))
        assert failed.wait(10)
        reception.seal(SYNTAX, "{}")
        for _ in range(2):
            with pytest.raises(StorageFailure, match=r"once|no end"):
                reception.sync()


def test_short_writes_of_a_long_record_are_continued(make, monkeypatch):
    real, real_many = os.pwrite, os.pwritev
    storage = make()
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:777], offset))
    monkeypatch.setattr(
        os, "pwritev", lambda file, data, offset: real_many(file, [memoryview(data[0])[:777]], offset)
    )
    data = os.urandom(LONG)
    assert read(storage, put(storage, data)) == data
