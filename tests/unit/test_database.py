"""The database: durable when write returns, one commit for many, a snapshot for each reader."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node import parking
from node.clock import Clock
from node.errors import ArchiveUnavailable, DatabaseFailure, OutOfSpace
from node.index import schema
from node.index.database import SCHEMA_VERSION, Database
from tests.support.waiting import wait_until

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE INDEX IF NOT EXISTS thing_name ON thing (name)",
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "x.sqlite", clock=Clock(), schema=SCHEMA)
    yield opened
    opened.close()


def insert(name: str):
    return lambda connection: connection.execute("INSERT INTO thing (name) VALUES (?)", (name,)).lastrowid


def names(database: Database) -> set[str]:
    with database.read() as connection:
        return {row["name"] for row in connection.execute("SELECT name FROM thing")}


def test_a_write_that_returned_is_seen_by_every_later_read(database: Database) -> None:
    for number in range(20):
        assert database.write(insert(f"n{number}")) == number + 1
        assert f"n{number}" in names(database)


def test_the_file_is_set_to_flush_before_a_write_returns(database: Database) -> None:
    settings = database.write(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]  # 2 is FULL


def test_calls_that_wait_together_share_one_commit(database: Database) -> None:
    commits = []
    gate, entered = threading.Event(), threading.Event()

    def first(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        entered.set()
        assert gate.wait(10)

    with ThreadPoolExecutor(9) as threads:
        blocking = threads.submit(database.write, first)
        assert entered.wait(10)
        waiting = [threads.submit(database.write, insert(f"n{number}")) for number in range(8)]
        wait_until(lambda: database._calls.qsize() == 8)
        gate.set()
        assert [future.result(10) for future in waiting] == sorted(future.result() for future in waiting)
        blocking.result(10)
    assert len(names(database)) == 8
    assert len(commits) == 2


def test_an_error_that_rests_on_another_call_is_told_when_that_one_is_committed(database: Database) -> None:
    """Who hears that a name is taken finds the row that has it."""
    entered, gate = threading.Event(), threading.Event()
    found: list[set[str]] = []

    def blocked(connection: sqlite3.Connection) -> None:
        entered.set()
        assert gate.wait(10)

    def second() -> None:
        with pytest.raises(DatabaseFailure):
            database.write(insert("taken"))
        found.append(names(database))

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(database.write, blocked)]
        assert entered.wait(10)
        running.append(threads.submit(database.write, insert("taken")))
        wait_until(lambda: database._calls.qsize() == 1, 10, "the first call to wait")
        running.append(threads.submit(second))
        wait_until(lambda: database._calls.qsize() == 2, 10, "the second call to wait")
        gate.set()
        for one in running:
            one.result(10)
    assert found == [{"taken"}]


def test_only_commits_of_what_can_be_replayed_are_not_flushed(database: Database) -> None:
    """One call that has to be durable flushes the commit, and with it all earlier ones."""
    levels: list[int] = []

    def work(connection: sqlite3.Connection) -> None:
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    database.write(work)
    database.write(work, can_be_replayed=True)
    database.write(work, can_be_replayed=True)
    database.flush()
    database.write(work)
    assert levels == [2, 1, 1, 2]


def test_a_flush_writes_something_to_flush(database: Database) -> None:
    """A commit without a change would not be flushed by SQLite."""
    wal = Path(f"{database._path}-wal")
    before = wal.stat().st_size
    database.flush()
    assert wal.stat().st_size > before


def test_a_raising_call_undoes_itself_alone(database: Database) -> None:
    gate, entered = threading.Event(), threading.Event()

    def first(connection: sqlite3.Connection) -> None:
        entered.set()
        assert gate.wait(10)

    def failing(connection: sqlite3.Connection) -> None:
        insert("lost")(connection)
        raise KeyError("of the caller")

    with ThreadPoolExecutor(4) as threads:
        blocking = threads.submit(database.write, first)
        assert entered.wait(10)
        before = threads.submit(database.write, insert("before"))
        wait_until(lambda: database._calls.qsize() == 1)
        bad = threads.submit(database.write, failing)
        wait_until(lambda: database._calls.qsize() == 2)
        after = threads.submit(database.write, insert("after"))
        wait_until(lambda: database._calls.qsize() == 3)
        gate.set()
        for future in (blocking, before, after):
            future.result(10)
        with pytest.raises(KeyError):
            bad.result(10)
    assert names(database) == {"before", "after"}


def test_a_call_within_a_call_is_part_of_it(database: Database) -> None:
    def outer(connection: sqlite3.Connection) -> None:
        database.write(insert("inner"))
        with pytest.raises(DatabaseFailure):
            database.write(insert("inner"))
        raise LookupError

    with pytest.raises(LookupError):
        database.write(outer)
    assert names(database) == set()
    database.write(lambda connection: database.write(insert("kept")))
    assert names(database) == {"kept"}


def test_a_reader_keeps_its_snapshot(database: Database) -> None:
    database.write(insert("first"))
    with database.read() as connection:
        count = "SELECT COUNT(*) FROM thing"
        assert connection.execute(count).fetchone()[0] == 1
        database.write(insert("second"))
        assert connection.execute(count).fetchone()[0] == 1
    assert len(names(database)) == 2


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseFailure), database.read() as connection:
        insert("never")(connection)


def test_a_full_disk_is_told_apart_and_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.sqlite", clock=Clock(), schema=SCHEMA)
    database.write(insert("kept"))
    pages = database.write(
        lambda connection: connection.execute(
            f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}"
        ).fetchone()[0]
    )
    assert pages
    with pytest.raises(OutOfSpace):
        database.write(insert("x" * 100_000))
    database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    database.write(insert("later"))
    assert names(database) == {"kept", "later"}
    database.close()


def test_a_failing_commit_fails_every_call_of_it(database: Database) -> None:
    database.write(
        lambda connection: connection.execute(
            "CREATE TABLE child (thing INTEGER REFERENCES thing (id) DEFERRABLE INITIALLY DEFERRED)"
        )
    )
    gate, entered = threading.Event(), threading.Event()

    def first(connection: sqlite3.Connection) -> None:
        entered.set()
        assert gate.wait(10)

    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO child VALUES (99)")

    with ThreadPoolExecutor(3) as threads:
        blocking = threads.submit(database.write, first)
        assert entered.wait(10)
        calls = [threads.submit(database.write, work) for work in (insert("innocent"), orphan)]
        wait_until(lambda: database._calls.qsize() == 2)
        gate.set()
        blocking.result(10)
        for call in calls:
            with pytest.raises(DatabaseFailure):
                call.result(10)
    assert names(database) == set()
    database.write(insert("innocent"))


def test_another_process_may_write_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with_both = Database(path, clock=Clock(), schema=SCHEMA)
    script = (
        "import sys; from pathlib import Path; from node.index.database import Database\n"
        "database = Database.open_read_only(Path(sys.argv[1]))\n"
        "for n in range(50): database.write(lambda c: c.execute("
        "'INSERT INTO thing (name) VALUES (?)', (f'other{n}',)))\n"
        "database.close()"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parents[2])
    for number in range(50):
        with_both.write(insert(f"own{number}"))
    assert other.wait(60) == 0
    assert len(names(with_both)) == 100
    with_both.close()


def test_columns_and_tables_that_are_new_are_added_to_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    older = Database(path, clock=Clock(), schema=SCHEMA)
    older.write(insert("kept"))
    older.close()
    newer = Database(
        path,
        clock=Clock(),
        schema=(
            "CREATE TABLE IF NOT EXISTS thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
            " Modality TEXT NOT NULL DEFAULT '', seen REAL)",
            "CREATE TABLE IF NOT EXISTS other (id INTEGER PRIMARY KEY)",
            "CREATE INDEX IF NOT EXISTS thing_modality ON thing (Modality)",
        ),
    )
    with newer.read() as connection:
        row = dict(connection.execute("SELECT * FROM thing").fetchone())
        assert row == {"id": 1, "name": "kept", "Modality": "", "seen": None}
        assert connection.execute("SELECT COUNT(*) FROM other").fetchone()[0] == 0
    newer.close()


def test_rows_that_are_there_take_a_new_column_that_has_no_default(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    older = Database(path, clock=Clock(), schema=SCHEMA)
    older.write(insert("kept"))
    older.close()
    wider = SCHEMA[0].replace("UNIQUE", "UNIQUE, kind TEXT NOT NULL, count INTEGER NOT NULL")
    assert wider != SCHEMA[0]
    newer = Database(path, clock=Clock(), schema=(wider,))
    with newer.read() as connection:
        row = dict(connection.execute("SELECT * FROM thing").fetchone())
    assert (row["name"], row["kind"], row["count"]) == ("kept", "", 0)
    newer.close()


def test_failures_that_an_older_anode_counted_keep_nobody_from_counting(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    counted = (
        "CREATE TABLE IF NOT EXISTS analysis_failure (analysis TEXT PRIMARY KEY, failures INTEGER NOT NULL,"
        " reason TEXT NOT NULL, parked_at REAL) WITHOUT ROWID"
    )
    older = Database(path, clock=Clock(), schema=(counted,))
    older.write(lambda connection: connection.execute("INSERT INTO analysis_failure VALUES ('a', 2, '', 0)"))
    older.close()
    newer = Database(path, clock=Clock(), schema=schema.STATEMENTS)
    is_parked = [
        newer.write(lambda connection, over=over: parking.crashed(connection, "a", over, "it crashed", 1.0))
        for over in map(str, range(parking.FAILURES_TO_PARK))
    ]
    newer.close()
    assert is_parked == [False, False, True]


def test_a_file_of_a_newer_anode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    database = Database(path, clock=Clock(), schema=SCHEMA)
    database.write(
        lambda connection: connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION + 1),)
        )
    )
    database.close()
    with pytest.raises(ArchiveUnavailable):
        Database(path, clock=Clock(), schema=SCHEMA)
    with pytest.raises(ArchiveUnavailable):
        Database.open_read_only(path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(DatabaseFailure, match=r"x\.sqlite"):
        Database(path, clock=Clock(), schema=SCHEMA)


def test_an_absent_file_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        Database.open_read_only(tmp_path / "x.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_database_says_so_and_closing_finishes_what_was_asked(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.sqlite", clock=Clock(), schema=SCHEMA)
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(database.write, insert(f"n{number}")) for number in range(50)]
        wait_until(lambda: futures[0].done())
        database.close()
        done = sum(future.exception(10) is None for future in futures)
        failed = {type(future.exception()) for future in futures if future.exception()}
    database.close()
    assert failed <= {DatabaseFailure}
    with pytest.raises(DatabaseFailure):
        database.write(insert("late"))
    with pytest.raises(DatabaseFailure), database.read():
        pass
    reopened = Database.open_read_only(tmp_path / "x.sqlite")
    assert len(names(reopened)) == done
    reopened.close()


def test_the_writer_outlives_whatever_it_meets(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be reached for a moment is a failure of that write alone."""
    database.write(insert("a"))
    assert database._writing is not None
    database._writing.close()
    database._writing = None
    with monkeypatch.context() as away:
        away.setattr(Path, "exists", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(DatabaseFailure, match="Input/output error"):
            database.write(insert("b"))
    database.write(insert("c"))
    assert names(database) == {"a", "c"}
