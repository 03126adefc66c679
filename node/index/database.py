"""The SQLite file: one writer that shares commits, readers with a snapshot each, and the schema.

Durability: write-ahead log with ``synchronous=FULL``, so that what ``write`` has returned survives
a loss of power. Writers from other processes (the commands) wait for each other up to ten seconds.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlite_utils

from node.clock import Clock
from node.errors import AnodeError, ArchiveUnavailable, DatabaseFailure, OutOfSpace

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILE_NAME = "index.sqlite"
#: Raised by one when an older anode could no longer use the file. New columns and tables do not count.
SCHEMA_VERSION = 1

_META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
_BUSY_MILLISECONDS = 10_000
_MOST_CALLS_OF_A_COMMIT = 256
_MOST_IDLE_READERS = 16
_CHECKPOINT_PAGES = 4000
_WAL_BYTES = 256 * 1024**2
_FULL_BYTES = 1024**2


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
                _migrate(self._writer(), schema, clock)
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
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._idle: list[sqlite3.Connection] = []
        self._thread: threading.Thread | None = None
        self._writing: sqlite3.Connection | None = None

    # --- writing -------------------------------------------------------------

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction and return its result once that is durable.

        Calls that wait at the same time share one commit. What ``work`` raises undoes its own
        changes alone and is raised here. A call from within ``work`` runs inside its transaction.

        Raises
        ------
        OutOfSpace
            The disk is full. Nothing of this call is kept.
        DatabaseFailure
            The database failed, or is closed. Nothing of this call is kept.
        """
        if threading.current_thread() is self._thread and self._writing is not None:
            savepoint = _Savepoint(self._writing)
            with savepoint:
                result = work(self._writing)
            if savepoint.error is not None:
                raise _translation(savepoint.error, self._path)
            return result
        call = _Call(work)
        with self._lock:
            if self._is_closed:
                raise DatabaseFailure("the database is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="database writer", daemon=True)
                self._thread.start()
            self._calls.put(call)
        return call.outcome.result()

    def _writer(self) -> sqlite3.Connection:
        with translated(self._path):
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA cache_size = -65536")
                connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            except sqlite3.Error:
                connection.close()
                raise
        self._writing = connection
        return connection

    def _write(self) -> None:
        """Thread of the writer: commit what has come together, again and again."""
        is_open = True
        while is_open:
            call = self._calls.get()
            calls = []
            while call is not None:
                calls.append(call)
                if len(calls) == _MOST_CALLS_OF_A_COMMIT:
                    break
                try:
                    call = self._calls.get_nowait()
                except queue.Empty:
                    break
            is_open = call is not None
            while calls:
                calls = self._commit(calls)

    def _commit(self, calls: list[_Call]) -> list[_Call]:
        """Do ``calls`` in one transaction; return those that have to be done in another one."""
        finished: list[tuple[_Call, Any]] = []
        try:
            connection = self._writing or self._writer()
            connection.execute("BEGIN IMMEDIATE")
            for number, call in enumerate(calls, 1):
                savepoint = _Savepoint(connection)
                with savepoint:
                    finished.append((call, call.work(connection)))
                if savepoint.error is not None:
                    call.fail(_translation(savepoint.error, self._path))
                if not connection.in_transaction:
                    # SQLite gave the whole transaction up, as it does when the disk is full.
                    lost = _translation(savepoint.error, self._path)
                    for other, _ in finished:
                        other.fail(lost)
                    return calls[number:]
            connection.execute("COMMIT")
        except (sqlite3.Error, AnodeError) as error:
            if self._writing is not None and self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
            logger.error("transaction failed", extra={"calls": len(calls), "reason": type(error).__name__})
            for call in calls:
                call.fail(_translation(error, self._path))
            return []
        for call, result in finished:
            call.outcome.set_result(result)
        return []

    # --- reading -------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one snapshot: all that was written before, nothing later.

        Raises
        ------
        DatabaseFailure
            The database failed, in the block as well, or is closed.
        """
        with translated(self._path):
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._take_back(connection)

    def _reader(self) -> sqlite3.Connection:
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
        is_writable = os.access(self._path if self._path.exists() else self._path.parent, os.W_OK)
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

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.outcome: Future[Any] = Future()

    def fail(self, error: BaseException) -> None:
        """Tell the caller, once."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


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
        found = DatabaseFailure(f"another process held the database for {_BUSY_MILLISECONDS // 1000} s")
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        found = DatabaseFailure(f"{path} is damaged", action="restore it from a backup")
    else:
        found = DatabaseFailure(f"the index database failed: {error}")
    found.__cause__ = error
    return found


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL_BYTES
    except OSError:
        return False


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
                    default = "" if column.default_value is None else f"DEFAULT {column.default_value}"
                    not_null = "NOT NULL" if column.notnull else ""
                    connection.execute(
                        f'ALTER TABLE "{table}" ADD COLUMN "{column.name}" {column.type} {not_null} {default}'
                    )
    finally:
        wanted.close()
