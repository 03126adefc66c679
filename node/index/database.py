"""The SQLite file: one writer that shares commits, readers with a snapshot each, and the schema.

Durability: a write-ahead log that is flushed with each commit, so that what ``write`` has returned
survives a loss of power. Only what can be made again from elsewhere is not: commits all of whose calls
``can_be_replayed`` survive a crash of the process at once, and a loss of power from the next flush on;
rows of the ``deferral`` are committed a little later, but before anything that is read or written
after them. Commits never overtake each other. Writers from other processes (the commands) wait for
each other up to ten seconds.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlite_utils

from node.clock import Clock
from node.errors import AnodeError, ArchiveUnavailable, DatabaseFailure, IndexDamaged, OutOfSpace
from node.index.deferral import Deferral

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILE_NAME = "index.sqlite"
#: Raised by one when an older anode could no longer use the file. New columns and tables do not count.
SCHEMA_VERSION = 1

_META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
_BUSY_MILLISECONDS = 10_000
_MOST_CALLS_OF_A_COMMIT = 256
_MOST_IDLE_READERS = 16
# of the writer, each of a few pages, or so much that the log has grown by
_CHECKPOINT_COMMITS = 300
_CHECKPOINT_BYTES = 16 * 1024**2
_WAL_BYTES = 256 * 1024**2
_FULL_BYTES = 1024**2
# A start looks through so much in less than a second; the rest is for who asks.
_LOOKED_THROUGH_BYTES = 64 * 1024**2
_FAILED_FLUSHES = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
# What a transaction may meet outside of what it was asked to do; the writer's thread outlives it.
_FAILURES = (sqlite3.Error, AnodeError, OSError, MemoryError)


class Database:
    """The database of one data directory.

    Parameters
    ----------
    path : Path
        The file; it is created where it is absent.
    clock : Clock
        Notes when the file was made.
    schema : sequence of str
        CREATE TABLE and CREATE INDEX statements with IF NOT EXISTS. Columns that a table of the
        file lacks are added to it.

    Raises
    ------
    ArchiveUnavailable
        The file was written by a newer anode.
    DatabaseFailure, OutOfSpace
        The file cannot be opened or is damaged.
    """

    def __init__(self, path: Path, *, clock: Clock, schema: Sequence[str] = ()) -> None:
        self._prepare(path)
        with ExitStack() as undo:
            undo.callback(self.close)
            with translated(path):
                connection = self._writer()
                if path.stat().st_size <= _LOOKED_THROUGH_BYTES:
                    _look_through(connection, path)
                _migrate(connection, schema, clock)
            self._check_place()
            undo.pop_all()

    @classmethod
    def open_read_only(cls, path: Path) -> Database:
        """Open a file that a running node may be using; ``write`` works too, beside the node's own.

        Raises
        ------
        ArchiveUnavailable
            There is no such file, or a newer anode wrote it.
        DatabaseFailure
            It cannot be read.
        """
        if not path.exists():
            raise ArchiveUnavailable(f"there is no database at {path}")
        database = cls.__new__(cls)
        database._prepare(path)
        with ExitStack() as undo:
            undo.callback(database.close)
            with database.read() as connection:
                _check_version(connection)
            undo.pop_all()
        return database

    def _prepare(self, path: Path) -> None:
        self._path = path
        # None ends the writer's thread.
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._deferral: Deferral[Any] | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._idle: list[sqlite3.Connection] = []
        self._thread: threading.Thread | None = None
        self._writing: sqlite3.Connection | None = None
        self._is_flushing = True
        self._identity: tuple[int, int] | None = None
        self._is_log_in_doubt = False
        self._commits = self._checkpointed_bytes = 0

    # --- writing -------------------------------------------------------------

    def write(self, work: Callable[[sqlite3.Connection], T], *, can_be_replayed: bool = False) -> T:
        """Run ``work`` in a transaction and return its result once that is durable.

        Calls that wait at the same time share one commit. What ``work`` raises undoes its own
        changes alone and is raised here. A call from within ``work`` runs inside its transaction.

        Parameters
        ----------
        work : callable
            Given the connection.
        can_be_replayed : bool
            Whether what is written would be written again at the next start, if a loss of power took
            it; then its commit need not be flushed.

        Raises
        ------
        OutOfSpace
            The disk is full. Nothing of this call is kept.
        DatabaseFailure
            The database failed, or is closed. Nothing of this call is kept.
        """
        if self._is_writer() and self._writing is not None:
            savepoint = _Savepoint(self._writing)
            with savepoint:
                result = work(self._writing)
            if savepoint.error is not None:
                raise _translation(savepoint.error, self._path)
            return result
        call = _Call(work, can_be_replayed=can_be_replayed)
        self._put(call)
        return call.result()

    def deferral(
        self,
        add: Callable[[sqlite3.Connection, Sequence[T]], None],
        done: Callable[[Sequence[T], BaseException | None], None],
    ) -> Deferral[T]:
        """Make the deferral of this database, for its only owner; see ``Deferral`` for what it is given."""
        self._deferral = Deferral(add, done, catch_up=self._catch_up, wake=lambda: self._put(_WAKE))
        return self._deferral

    def flush(self) -> None:
        """Return when all that was committed survives a loss of power; raises as ``write`` does."""
        self.write(_touch)

    def _catch_up(self) -> None:
        """Return when all rows that were deferred are committed; raise why they cannot be."""
        deferral = self._deferral
        if not deferral or self._is_writer():
            return
        # asked by the writer, right after its pass: later, another pass may have begun
        self.write(lambda _connection: deferral.check(), can_be_replayed=True)

    def _is_writer(self) -> bool:
        return threading.current_thread() is self._thread

    def _put(self, call: _Call) -> None:
        """Hand a call to the writer's thread, which begins with the first one."""
        with self._lock:
            if self._is_closed:
                raise DatabaseFailure("the database is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._write, name="database writer", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise DatabaseFailure(f"the database cannot be written: {error}") from error
                self._thread = thread
            self._calls.put(call)

    def _writer(self) -> sqlite3.Connection:
        with translated(self._path):
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                self._is_flushing = True
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA cache_size = -65536")
                # SQLite's own would keep quiet about a flush that fails
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
                if self._is_log_in_doubt:
                    _begin_log_anew(connection)
                    self._is_log_in_doubt = False
            except (sqlite3.Error, DatabaseFailure):
                connection.close()
                raise
        self._writing = connection
        return connection

    def _write(self) -> None:
        """Thread of the writer: commit what has come together, again and again."""
        is_open = True
        while is_open:
            calls, is_open = self._next_calls()
            if self._deferral is not None:
                self._deferral.write(self._transact, partial(_translation, path=self._path))
            while calls:
                calls = self._commit(calls)
            self._checkpoint()
        if self._deferral:
            logger.error("rows are left to the next start", extra={"rows": len(self._deferral)})

    def _next_calls(self) -> tuple[list[_Call], bool]:
        """Wait for calls, or until what is deferred is due; whether the database is still open."""
        calls: list[_Call] = []
        try:
            call: _Call | None = _WAKE
            while call is _WAKE:
                call = self._calls.get(timeout=self._deferral.rest_seconds() if self._deferral else None)
            while call is not None:
                calls.append(call)
                if len(calls) == _MOST_CALLS_OF_A_COMMIT:
                    break
                call = self._calls.get_nowait()
        except queue.Empty:
            return calls, True
        return calls, call is not None

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> BaseException | None:
        """Do ``work`` in a transaction of its own that is not flushed; return what it or SQLite raised."""
        try:
            self._check_place()
            connection = self._writing or self._writer()
            self._flush_commits(connection, False)
            connection.execute("BEGIN IMMEDIATE")
            transaction = _Transaction(connection)
            with transaction:
                work(connection)
            if transaction.error is None:
                connection.execute("COMMIT")
        except _FAILURES as error:
            self._undo(error)
            return error
        return transaction.error

    def _commit(self, calls: list[_Call]) -> list[_Call]:
        """Do ``calls`` in one transaction; return those that have to be done in another one."""
        # What a call raises may rest on what others of this transaction did, so it is told after them.
        outcomes: list[tuple[_Call, Any, BaseException | None]] = []
        try:
            self._check_place()
            connection = self._writing or self._writer()
            self._flush_commits(connection, not all(call.can_be_replayed for call in calls))
            connection.execute("BEGIN IMMEDIATE")
            for number, call in enumerate(calls, 1):
                savepoint = _Savepoint(connection) if len(calls) > 1 else _Transaction(connection)
                with savepoint:
                    outcomes.append((call, call.work(connection), None))
                if savepoint.error is not None:
                    outcomes.append((call, None, _translation(savepoint.error, self._path)))
                if not connection.in_transaction:
                    # There was no other part, or SQLite gave all up, as it does when the disk is full.
                    lost = _translation(savepoint.error, self._path)
                    for other, _, failure in outcomes:
                        other.fail(failure or lost)
                    return calls[number:]
            connection.execute("COMMIT")
        except _FAILURES as error:
            self._undo(error)
            logger.error("transaction failed", extra={"calls": len(calls), "reason": type(error).__name__})
            for call in calls:
                call.fail(_translation(error, self._path))
            return []
        for call, result, failure in outcomes:
            if failure is None:
                call.succeed(result)
            else:
                call.fail(failure)
        return []

    def _checkpoint(self) -> None:
        """Now and then, bring what is in the log into the file itself, as far as its readers let it."""
        connection, log_bytes = self._writing, _log_bytes(self._path)
        self._commits += 1
        if connection is None or (
            self._commits < _CHECKPOINT_COMMITS and log_bytes - self._checkpointed_bytes < _CHECKPOINT_BYTES
        ):
            return
        self._commits, self._checkpointed_bytes = 0, log_bytes
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.error("the log of the index could not be flushed", extra={"reason": type(error).__name__})
            self._undo(error)

    def _undo(self, error: BaseException) -> None:
        """End a transaction that failed; a connection that cannot do that is given up for a new one.

        So is one whose flush failed. The system may have dropped what it could not write, commits before
        this one included, and would say of the next flush that it went well. What it still knows of them
        is written to the file itself before anything follows them.
        """
        connection = self._writing
        if connection is None:
            return
        has_flush_failed = getattr(error, "sqlite_errorcode", 0) in _FAILED_FLUSHES
        self._is_log_in_doubt = self._is_log_in_doubt or has_flush_failed
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            has_flush_failed = True
        if has_flush_failed:
            self._writing = None
            with suppress(sqlite3.Error):
                connection.close()

    def _flush_commits(self, connection: sqlite3.Connection, is_flushing: bool) -> None:
        """Have each commit from now on flushed, or not; in WAL mode a later flush brings the earlier ones."""
        if is_flushing != self._is_flushing:
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_flushing else 'NORMAL'}")
            self._is_flushing = is_flushing

    # --- reading -------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one snapshot: all that was written before, nothing later.

        Raises
        ------
        DatabaseFailure, OutOfSpace
            The database failed, in the block as well, or is closed; or rows were deferred that it
            cannot write now, so that what is read would not be all.
        """
        self._catch_up()
        with translated(self._path):
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._take_back(connection)

    @contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for a single statement, which does not see what is deferred.

        Raises as ``read``.
        """
        with translated(self._path):
            connection = self._reader()
            try:
                yield connection
            finally:
                self._take_back(connection)

    def look_through(self) -> None:
        """Look through the whole file for damage, which takes about a second for each 100 MB.

        Raises IndexDamaged where there is any, or as ``read``.
        """
        with self.look() as connection:
            _look_through(connection, self._path)

    def _check_place(self) -> None:
        """Raise IndexDamaged when the file that was opened is no longer there: nobody would find it again."""
        try:
            facts = os.stat(self._path)
            now: tuple[int, int] | None = (facts.st_dev, facts.st_ino)
        except OSError:
            now = None
        if self._identity is None:
            self._identity = now
        elif now != self._identity:
            raise IndexDamaged(f"the index is gone, or another file took its place: {self._path}")

    def _reader(self) -> sqlite3.Connection:
        self._check_place()
        with self._lock:
            if self._is_closed:
                raise DatabaseFailure("the database is closed")
            if self._idle:
                return self._idle.pop()
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _take_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._lock:
            is_kept = not self._is_closed and len(self._idle) < _MOST_IDLE_READERS
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        place: Path | str = self._path
        try:
            is_writable = os.access(self._path if self._path.exists() else self._path.parent, os.W_OK)
        except OSError as error:
            raise DatabaseFailure(f"the index database cannot be reached: {error.strerror}") from error
        connection = sqlite3.connect(
            place if is_writable else f"{self._path.absolute().as_uri()}?mode=ro",
            uri=not is_writable,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        return connection

    # --- the end -------------------------------------------------------------

    def close(self) -> None:
        """Finish what was asked for and let go of the file; harmless when done twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            idle, self._idle = self._idle, []
            self._calls.put(None)
        if self._thread is not None:
            self._thread.join()
        for connection in idle:
            connection.close()
        if self._writing is not None:
            self._writing.close()
            self._writing = None


class _Call:
    """One call of ``write`` on its way through the writer's thread."""

    def __init__(self, work: Callable[[sqlite3.Connection], Any], *, can_be_replayed: bool) -> None:
        self.work = work
        self.can_be_replayed = can_be_replayed
        self._done = threading.Lock()
        self._done.acquire()
        self._is_told = False
        self._result: Any = None
        self._error: BaseException | None = None

    def result(self) -> Any:
        """Wait for the outcome, in the caller's thread."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._result

    def succeed(self, result: Any) -> None:
        """Tell the caller that it is durable."""
        self._tell(result, None)

    def fail(self, error: BaseException) -> None:
        """Tell the caller, unless it has been told something already."""
        self._tell(None, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        if not self._is_told:
            self._is_told = True
            self._result, self._error = result, error
            self._done.release()


def _nothing(_: sqlite3.Connection) -> None:
    """For whom the place in the line is all that matters."""


#: Tells the writer's thread that something is deferred.
_WAKE = _Call(_nothing, can_be_replayed=True)


def _touch(connection: sqlite3.Connection) -> None:
    """Write something, as a commit of nothing is not flushed."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('flushes', '1')"
        " ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
    )


class _Savepoint:
    """A part of a transaction: undone when its block raises. The error is kept for the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        self._connection.execute("SAVEPOINT call")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.error = error
        if self._connection.in_transaction:
            if error is not None:
                self._connection.execute("ROLLBACK TO call")
            self._connection.execute("RELEASE call")
        return error is not None


class _Transaction(_Savepoint):
    """The whole transaction, where it has one part: undone when its block raises."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.error = error
        if error is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        return error is not None


# --- errors ------------------------------------------------------------------


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite as those of this project."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(error, path) from error


def _translation(error: BaseException | None, path: Path) -> BaseException:
    if error is None:
        return DatabaseFailure("the transaction was given up")
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        found: AnodeError = OutOfSpace("there is no space left for the index database")
    elif code == sqlite3.SQLITE_BUSY:
        found = DatabaseFailure(
            f"another process held the database for {_BUSY_MILLISECONDS // 1000} s",
            action=f"end the program that holds {path}; all goes on by itself then",
        )
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        found = IndexDamaged(f"the index is damaged: {path}")
    elif code == sqlite3.SQLITE_READONLY:
        found = DatabaseFailure(
            f"the index cannot be written, its file, folder or disk is read-only: {path}",
            action="give the user that runs anode the right to write there; all goes on by itself then",
        )
    else:
        found = DatabaseFailure(f"the index database failed: {error}")
    found.__cause__ = error
    return found


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL_BYTES
    except OSError:
        return False


def _log_bytes(path: Path) -> int:
    """How long the write-ahead log has become; never opened here: to close it would end SQLite's locks."""
    try:
        return os.stat(f"{path}-wal").st_size
    except OSError:
        return 0


def _begin_log_anew(connection: sqlite3.Connection) -> None:
    """Bring all commits into the file itself, flushed, so that the log begins anew behind them."""
    is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if is_busy:
        raise DatabaseFailure("the log of the index could not be flushed and cannot be begun anew for now")


def _look_through(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage; raise IndexDamaged, or sqlite3.Error where it cannot even be looked through."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise IndexDamaged(f"the index is damaged: {path}: {' '.join(found.split())}")


# --- schema ------------------------------------------------------------------


def _check_version(connection: sqlite3.Connection) -> None:
    has_meta = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
    row = has_meta and connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row and int(row[0]) > SCHEMA_VERSION:
        raise ArchiveUnavailable(
            f"the database has schema version {row[0]}, and this anode knows versions up to {SCHEMA_VERSION}",
            action="run the newer anode that wrote it",
        )


def _migrate(connection: sqlite3.Connection, schema: Sequence[str], clock: Clock) -> None:
    """Bring the file to ``schema`` in one transaction: new tables, new columns, new indexes."""
    _check_version(connection)
    database = sqlite_utils.Database(connection)
    with database.atomic():
        connection.execute(_META)
        tables = [statement for statement in schema if "CREATE TABLE" in statement]
        for statement in tables:
            connection.execute(statement)
        _add_columns(connection, database, tables)
        for statement in schema:
            if statement not in tables:
                connection.execute(statement)
        database["meta"].insert({"key": "created_at", "value": str(clock.timestamp())}, ignore=True)
        database["meta"].upsert({"key": "schema_version", "value": str(SCHEMA_VERSION)}, pk="key")


def _add_columns(
    connection: sqlite3.Connection, database: sqlite_utils.Database, tables: Sequence[str]
) -> None:
    """Add the columns that the tables of an older file lack."""
    wanted = sqlite_utils.Database(memory=True)
    try:
        for statement in tables:
            wanted.execute(statement)
        for table in wanted.table_names():
            present = {column.name for column in database[table].columns}
            for column in wanted[table].columns:
                if column.name not in present:
                    not_null = "NOT NULL" if column.notnull else ""
                    default = "" if column.default_value is None else f"DEFAULT {column.default_value}"
                    if not_null and not default:
                        # The rows that are there need a value.
                        default = "DEFAULT ''" if column.type == "TEXT" else "DEFAULT 0"
                    connection.execute(
                        f'ALTER TABLE "{table}" ADD COLUMN "{column.name}" {column.type} {not_null} {default}'
                    )
    finally:
        wanted.close()
