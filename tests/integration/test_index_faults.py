"""An index that is locked, damaged, gone, read-only or full says so, and nothing is acknowledged by it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.__main__ import main
from node.app import App
from node.clock import Clock
from node.config.settings import Config, NodeConfig, StorageConfig
from node.errors import AnodeError, ArchiveUnavailable, DatabaseFailure, IndexDamaged
from node.index import database, schema
from node.index.database import Database
from node.status import STORE_OUT_OF_RESOURCES, SUCCESS
from tests.support import made
from tests.support.file_systems import small_file_system
from tests.support.storing import answers, store
from tests.support.waiting import wait_until

IMAGES = [made.ct_image() for _ in range(3)]
REFUSED = [STORE_OUT_OF_RESOURCES]


def settings(folder: Path) -> Config:
    return Config(
        node=NodeConfig(port=0, data_dir=folder / "data"),
        storage=StorageConfig(segment_bytes=1 << 20, spare_segments=1, free_space_reserve_bytes=0),
    )


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    running = App(settings(tmp_path))
    running.start()
    running.engine.stop()
    try:
        assert store(running.server.port, *IMAGES[:2]) == [SUCCESS] * 2
        with running.services.database.read():
            pass
        yield running
    finally:
        running.stop()


def index_of(app: App) -> Path:
    return app.services.config.node.data_dir / database.FILE_NAME


def find(app: App) -> list[int]:
    """Statuses of a C-FIND for all studies, as a peer sees them."""
    from pynetdicom import AE
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = ""
    entity = AE("CT1")
    entity.add_requested_context(Find)
    association = entity.associate("127.0.0.1", app.server.port, ae_title="ANODE")
    assert association.is_established
    try:
        return [int(status.Status) for status, _ in association.send_c_find(query, Find)]
    finally:
        association.release()


def test_a_locked_index_refuses_and_all_goes_on_when_it_is_free(app):
    locking = sqlite3.connect(index_of(app), isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    try:
        fresh = made.ct_image()
        # its row waits, and what comes after it is not acknowledged
        store(app.server.port, fresh)
        wait_until(lambda: store(app.server.port, IMAGES[2]) == REFUSED, 30)
        assert all(status & 0xF000 in (0xA000, 0xC000) for status in find(app))
    finally:
        locking.execute("ROLLBACK")
        locking.close()
    wait_until(lambda: store(app.server.port, IMAGES[2]) == [SUCCESS], 30)
    assert find(app) == [0xFF00] * 4 + [SUCCESS]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_an_index_that_is_gone_while_the_node_runs_refuses_and_says_what_to_do(app, how):
    path = index_of(app)
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    if how == "replaced":
        shutil.copy(elsewhere, path)
    store(app.server.port, made.ct_image())
    wait_until(lambda: store(app.server.port, IMAGES[2]) == REFUSED, 30)
    (answer,) = answers(app.server.port, IMAGES[2])
    assert answer.status == STORE_OUT_OF_RESOURCES
    assert "gone, or another file" in answer.comment
    assert all(status & 0xF000 in (0xA000, 0xC000) for status in find(app))
    with pytest.raises(IndexDamaged) as failure, app.services.database.read():
        pass
    assert "anode rebuild" in failure.value.action
    if how == "replaced":
        path.unlink()
    elsewhere.rename(path)
    wait_until(lambda: store(app.server.port, IMAGES[2]) == [SUCCESS], 30)


def damage_random(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(size - 100))


def damage_truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def damage_page(path: Path) -> None:
    """Overwrite the first page of the table of instances."""
    connection = sqlite3.connect(path)
    page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'instance'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def damage_all(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize("damage", [damage_random, damage_truncated, damage_page, damage_all])
def test_a_start_on_a_damaged_index_is_refused_with_what_to_do(app, damage, tmp_path):
    app.stop()
    damage(index_of(app))
    before = index_of(app).read_bytes()
    with pytest.raises(IndexDamaged, match="is damaged") as refused:
        App(settings(tmp_path)).start()
    assert "anode rebuild" in refused.value.action
    assert index_of(app).read_bytes() == before


def test_pages_that_are_overwritten_while_the_node_runs_make_queries_fail_and_not_come_out_empty(app):
    path = index_of(app)
    flush = sqlite3.connect(path)
    flush.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    flush.close()
    damage_all(path)
    # what readers had in memory is no answer for who opens the file anew
    with pytest.raises(DatabaseFailure) as failure:
        Database.open_read_only(path).close()
    assert "anode rebuild" in failure.value.action
    statuses = find(app)
    assert statuses[-1] != SUCCESS or len(statuses) == 3


def test_an_index_on_a_read_only_disk_refuses_the_start_of_what_would_write(tmp_path):
    with small_file_system(tmp_path / "disk", megabytes=16) as disk:
        path = disk.path / database.FILE_NAME
        Database(path, clock=Clock(), schema=schema.STATEMENTS).close()
        disk.remount("ro")
        with pytest.raises(AnodeError) as refused:
            Database(path, clock=Clock(), schema=schema.STATEMENTS)
        assert isinstance(refused.value, DatabaseFailure)
        disk.remount("rw")


class LosesAFlush:
    """A connection that meets a failed flush at a statement."""

    def __init__(self, connection: sqlite3.Connection, at: str) -> None:
        self._connection = connection
        self._at = at

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement == self._at:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC  # type: ignore[misc]
            raise error
        return self._connection.execute(statement, *values)


def test_after_a_failed_flush_all_is_written_anew_before_anything_is_said_to_be_durable(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    index = Database(tmp_path / database.FILE_NAME, clock=Clock(), schema=schema.STATEMENTS)
    log = tmp_path / f"{database.FILE_NAME}-wal"

    def insert(name: str) -> None:
        index.write(lambda connection: connection.execute("INSERT INTO meta VALUES (?, '1')", (name,)))

    try:
        insert("a")
        before = log.stat().st_size
        assert before > 0
        with index.read() as connection:  # which stays open
            connection.execute("SELECT * FROM meta").fetchall()
        index._writing = LosesAFlush(index._writing, "COMMIT")  # type: ignore[assignment, arg-type]
        with pytest.raises(DatabaseFailure):
            insert("lost")
        with index.read() as connection:
            connection.execute("SELECT * FROM meta").fetchall()
            with pytest.raises(DatabaseFailure, match="could not be flushed"):
                insert("too early, as the log is still read")
        insert("b")
        assert log.stat().st_size < before
        with index.read() as connection:
            names = {row[0] for row in connection.execute("SELECT key FROM meta")}
        assert names & {"a", "b", "lost"} == {"a", "b"}
    finally:
        index.close()


def test_a_flush_that_fails_behind_the_commits_is_not_passed_over(tmp_path, monkeypatch):
    """It is used up then: the next one would go well, and what the first lost would be missing."""
    monkeypatch.setattr(database, "_CHECKPOINT_COMMITS", 3)
    index = Database(tmp_path / database.FILE_NAME, clock=Clock(), schema=schema.STATEMENTS)

    def insert(name: str) -> None:
        index.write(lambda connection: connection.execute("INSERT INTO meta VALUES (?, '1')", (name,)))

    try:
        insert("first")
        failing = LosesAFlush(index._writing, "PRAGMA wal_checkpoint(PASSIVE)")  # type: ignore[arg-type]
        index._writing = failing  # type: ignore[assignment]
        for number in range(5):
            insert(str(number))
        wait_until(lambda: index._writing is not failing, what="another connection")
        index.flush()
        with sqlite3.connect(f"file:{tmp_path / database.FILE_NAME}?immutable=1", uri=True) as alone:
            found = {row[0] for row in alone.execute("SELECT key FROM meta")}
        assert found >= {"first", "0", "1"}, "they are in the log alone, part of which may be lost"
    finally:
        index.close()


def test_the_log_of_the_index_is_taken_into_the_file_when_it_is_long(tmp_path):
    index = Database(
        tmp_path / database.FILE_NAME, clock=Clock(), schema=["CREATE TABLE IF NOT EXISTS t (x BLOB)"]
    )
    try:
        for _ in range(60):
            index.write(lambda connection: connection.execute("INSERT INTO t VALUES (zeroblob(1000000))"))
        assert (tmp_path / f"{database.FILE_NAME}-wal").stat().st_size < 40_000_000
    finally:
        index.close()


def test_an_index_that_is_lost_with_its_folder_is_refused_by_the_next_start(app, tmp_path):
    app.stop()
    index_of(app).unlink()
    with pytest.raises(ArchiveUnavailable, match="is gone") as refused:
        App(settings(tmp_path)).start()
    assert "anode rebuild" in refused.value.action


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: os.truncate(path, 0), "index.sqlite is empty"),
        (os.remove, "index.sqlite is gone"),
        (lambda path: Database(path.with_name("other"), clock=Clock(), schema=schema.STATEMENTS).close(), ""),
        (lambda path: path.write_bytes(b"x" * 4096), "the index is damaged"),
    ],
    ids=["emptied", "removed", "another", "overwritten"],
)
def test_a_start_and_a_check_refuse_an_index_that_is_not_that_of_the_archive(
    app: App, harm: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty index would let an image be overwritten, and call an archive whole that it does not know."""
    app.engine.run_until_idle(60)
    app.stop()
    index = index_of(app)
    harm(index)
    if index.with_name("other").exists():
        index.with_name("other").replace(index)
        words = "has files, but the index knows of no instance"
    for name in ("-wal", "-shm"):
        index.with_name(index.name + name).unlink(missing_ok=True)
    with pytest.raises(AnodeError, match=words) as refused:
        App(settings(tmp_path)).start()
    assert "'anode rebuild'" in refused.value.action
    configuration = tmp_path / "config.toml"
    configuration.write_text('[node]\nport = 0\ndata_dir = "data"\n')
    assert main(["check", "--config", str(configuration)]) == 1
    said = capsys.readouterr().out
    assert words in " ".join(said.split())
    assert "'anode rebuild'" in said
