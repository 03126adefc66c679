"""Rows that are written together a little later, and before anybody looks."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from node.clock import Clock
from node.errors import DatabaseFailure
from node.index.database import Database
from node.index.deferral import Deferral
from tests.support.waiting import wait_until

SCHEMA = ("CREATE TABLE IF NOT EXISTS thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",)


class Things:
    """The owner of a deferral; ``failure`` is what writing raises now."""

    def __init__(self, database: Database) -> None:
        self.batches: list[list[str]] = []
        self.outcomes: list[tuple[list[str], str]] = []
        self.failure: Exception | None = None
        self.deferral: Deferral[str] = database.deferral(self._add, self._done)

    def _add(self, connection: sqlite3.Connection, rows: Sequence[str]) -> None:
        if self.failure is not None:
            raise self.failure
        self.batches.append(list(rows))
        connection.executemany("INSERT INTO thing (name) VALUES (?)", [(row,) for row in rows])

    def _done(self, rows: Sequence[str], error: BaseException | None) -> None:
        self.outcomes.append((list(rows), "" if error is None else type(error).__name__))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "index.sqlite", clock=Clock(), schema=SCHEMA)
    yield opened
    opened.close()


@pytest.fixture
def things(database: Database) -> Things:
    return Things(database)


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return [row[0] for row in connection.execute("SELECT name FROM thing ORDER BY id")]


def test_a_reader_sees_what_was_handed_in_before(database: Database, things: Things) -> None:
    """Reading waits for the rows, so nobody can tell that they are written later."""
    things.deferral.put("a")
    assert names(database) == ["a"]


def test_a_writer_comes_after_what_was_handed_in_before(database: Database, things: Things) -> None:
    """A transaction that begins later finds the rows."""
    things.deferral.put("a")
    found = database.write(lambda connection: connection.execute("SELECT COUNT(*) FROM thing").fetchone()[0])
    assert found == 1


def test_rows_are_written_though_nobody_asks(things: Things) -> None:
    """A row waits a moment at most."""
    things.deferral.put("a")
    wait_until(lambda: things.outcomes == [(["a"], "")])


def test_rows_share_a_transaction(database: Database, things: Things) -> None:
    """What came while the writer was at work is written in one go, in its order."""
    entered, gate = threading.Event(), threading.Event()

    def blocked(connection: sqlite3.Connection) -> None:
        entered.set()
        assert gate.wait(10)

    thread = threading.Thread(target=database.write, args=(blocked,))
    thread.start()
    assert entered.wait(10)
    rows = [str(number) for number in range(100)]
    for row in rows:
        things.deferral.put(row)
    gate.set()
    thread.join()
    assert names(database) == rows
    assert things.batches == [rows]


def test_more_rows_than_may_wait_are_written_at_once(database: Database, things: Things) -> None:
    """However fast rows come, memory does not grow with them."""
    for number in range(3000):
        things.deferral.put(str(number))
        assert len(things.deferral) <= 1025
    assert len(names(database)) == 3000


def test_a_row_that_cannot_be_written_takes_no_other_with_it(database: Database, things: Things) -> None:
    """Its owner hears of it, and all others are written."""
    database.write(lambda connection: connection.execute("INSERT INTO thing (name) VALUES ('b')"))
    for row in "abc":
        things.deferral.put(row)
    assert names(database) == ["b", "a", "c"]
    assert things.outcomes[-3:] == [(["a"], ""), (["b"], "IntegrityError"), (["c"], "")]


def test_while_the_database_fails_rows_wait_and_nobody_reads_past_them(
    database: Database, things: Things
) -> None:
    """An answer without them would be wrong; once it works again, all are there in their order."""
    things.failure = sqlite3.OperationalError("disk I/O error")
    things.deferral.put("a")
    with pytest.raises(DatabaseFailure, match="disk I/O error"):
        names(database)
    with pytest.raises(DatabaseFailure, match="disk I/O error"):
        things.deferral.check()
    things.deferral.put("b")
    things.failure = None
    wait_until(lambda: len(things.deferral) == 0, what="the writer to try again")
    things.deferral.check()
    assert names(database) == ["a", "b"]


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """A stop in good order leaves nothing to be replayed."""
    database = Database(tmp_path / "index.sqlite", clock=Clock(), schema=SCHEMA)
    Things(database).deferral.put("a")
    database.close()
    again = Database(tmp_path / "index.sqlite", clock=Clock(), schema=SCHEMA)
    try:
        assert names(again) == ["a"]
    finally:
        again.close()


def test_whoever_reads_is_told_of_failures_by_the_writer_itself(database: Database, things: Things) -> None:
    """Asked a moment later, in another thread, another pass may be half done and the answer untrue."""
    asked_in = []
    check = things.deferral.check
    things.deferral.check = lambda: (asked_in.append(threading.current_thread().name), check())[1]  # type: ignore[method-assign]
    things.deferral.put("a")
    assert names(database) == ["a"]
    assert asked_in == ["database writer"]


def test_rows_fail_to_be_written_until_all_of_a_pass_are(database: Database, things: Things) -> None:
    """One row that could be written does not mean that those behind it are there."""
    found = []

    def add(connection: sqlite3.Connection, rows: Sequence[str]) -> None:
        if things.failure is not None and rows != ("a",):
            raise things.failure

    def done(rows: Sequence[str], error: BaseException | None) -> None:
        with pytest.raises(DatabaseFailure):
            deferral.check()
        found.extend(rows)

    things.failure = sqlite3.OperationalError("disk I/O error")
    deferral = database.deferral(add, lambda rows, error: None)
    deferral.put("x")
    with pytest.raises(DatabaseFailure):
        names(database)
    deferral._done = done
    deferral._rows.appendleft("a")
    with pytest.raises(DatabaseFailure):
        names(database)
    assert found == ["a"]
    things.failure = None
    deferral._done = lambda rows, error: None
    wait_until(lambda: not len(deferral))
    assert names(database) == []


def test_the_writer_outlives_what_its_owner_meets(database: Database, things: Things) -> None:
    """While that lasts nothing is taken for written, and afterwards all goes on."""
    meets = [MemoryError()]

    def done(rows: Sequence[str], error: BaseException | None) -> None:
        if meets:
            raise meets.pop()

    deferral = database.deferral(things._add, done)
    deferral.put("a")
    wait_until(lambda: deferral._failure is not None)
    with pytest.raises(DatabaseFailure):
        deferral.check()
    database.write(lambda connection: None)
    deferral.check()
    deferral.put("b")
    assert names(database) == ["a", "b"]


@pytest.mark.parametrize("failure", [MemoryError(), OSError(5, "Input/output error")])
def test_a_row_waits_for_what_is_no_fault_of_its_own(
    database: Database, things: Things, failure: Exception
) -> None:
    """The next try may find memory; a row that was given up would be found by nobody."""
    things.failure = failure
    things.deferral.put("a")
    with pytest.raises(DatabaseFailure):
        names(database)
    assert things.outcomes == []
    things.failure = None
    wait_until(lambda: things.outcomes == [(["a"], "")])
    assert names(database) == ["a"]
