"""Rows that are written together, a little later, by the thread of the database's writer.

For rows that can be made again from elsewhere: whoever hands one in does not wait for it, and one
transaction serves many. Nobody can tell the difference, since all that is read or written through the
same ``Database`` comes after what was handed in before.
"""

from __future__ import annotations

import copy
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from node.errors import AnodeError, DatabaseFailure, NodeError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long a row waits for others at most, unless somebody asks.
DELAY_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MOST_ROWS = 1024
# What SQLite says of a value, and not of its file.
_OF_THE_ROW = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)

# What a row meets by chance, and the next try may not.
_OF_THE_MACHINE = (NodeError, MemoryError, OSError)

Transact = Callable[[Callable[[sqlite3.Connection], None]], BaseException | None]


class Deferral(Generic[T]):
    """What waits to be written. Made by ``Database.deferral``.

    Parameters
    ----------
    add : callable
        Writes rows in the transaction that it is given; what it raises undoes it. Then each row is
        tried by itself.
    done : callable
        Told, after the commit, which rows were written and None, or the row that cannot be, and why.
        Where the database fails and not a row, all wait and are tried again. It must not raise.
    catch_up : callable
        Has all rows written now.
    wake : callable
        Tells the writer that there is a first row.
    """

    def __init__(
        self,
        add: Callable[[sqlite3.Connection, Sequence[T]], None],
        done: Callable[[Sequence[T], BaseException | None], None],
        *,
        catch_up: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._add = add
        self._done = done
        self._catch_up = catch_up
        self._wake = wake
        self._rows: deque[T] = deque()
        self._lock = threading.Lock()
        self._failure: AnodeError | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: T) -> None:
        """Hand in a row."""
        with self._lock:
            is_first = not self._rows
            self._rows.append(row)
        if is_first:
            self._wake()
        elif len(self._rows) > _MOST_ROWS:
            with suppress(AnodeError):  # it waits with the others
                self._catch_up()

    def check(self) -> None:
        """Raise what ``Database.write`` raises, while rows have to wait because the database fails."""
        if self._failure is not None:
            raise copy.copy(self._failure)

    # --- the writer's thread ---------------------------------------------------

    def rest_seconds(self) -> float | None:
        """How long the writer may rest; None without an end."""
        with self._lock:
            if not self._rows:
                return None
        return DELAY_SECONDS if self._failure is None else _RETRY_SECONDS

    def write(self, transact: Transact, translate: Callable[[BaseException], BaseException]) -> None:
        """Write all rows, in one transaction where that goes well; what it meets is told by ``check``."""
        try:
            self._write(transact, translate)
        except _OF_THE_MACHINE as error:
            # the writer's thread outlives it, and nothing more is acknowledged meanwhile
            self._fail(error, translate)

    def _write(self, transact: Transact, translate: Callable[[BaseException], BaseException]) -> None:
        with self._lock:
            rows = tuple(self._rows)
        if not rows:
            self._failure = None
            return
        if transact(lambda connection: self._add(connection, rows)) is None:
            self._end(rows, None)
            self._failure = None
            return
        for row in rows:
            error = transact(lambda connection, row=row: self._add(connection, (row,)))  # type: ignore[misc]
            if error is not None and not _is_of_the_row(error):
                self._fail(error, translate)
                return
            self._end((row,), error)
        # only now, as some of a pass may be written and others not
        self._failure = None

    def _fail(self, error: BaseException, translate: Callable[[BaseException], BaseException]) -> None:
        failure = translate(error)
        if not isinstance(failure, AnodeError):
            failure = DatabaseFailure(f"the index cannot be written: {type(error).__name__}")
        self._failure = failure
        logger.error("rows wait for the database", extra={"rows": len(self), "reason": str(failure)})

    def _end(self, rows: Sequence[T], error: BaseException | None) -> None:
        with self._lock:
            for _ in rows:
                self._rows.popleft()
        self._done(rows, error)


def _is_of_the_row(error: BaseException) -> bool:
    """Whether a row could not be written because of what it says, so that it never can be."""
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    if isinstance(cause, sqlite3.Error):
        return isinstance(cause, _OF_THE_ROW)
    return not isinstance(error, _OF_THE_MACHINE)
