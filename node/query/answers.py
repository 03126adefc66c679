"""The responses to a C-FIND: read page by page, so that nothing is held while they are sent."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.index.database import Database
from node.query.query import Query, columns_of, conditions_of, constants_of, source_of
from node.query.query_matching import ANY_VALUE_MATCHES, any_value_matches
from node.query.query_response import ResponseWriter

# A peer reads at its own pace, and a snapshot that is kept for it lets the database's log grow.
_PAGE_ROWS = 500


class Answers:
    """The Identifiers of the matches of one query.

    Which they are is that of one moment, when the first is asked for. What does not fit a first page is
    remembered by its row (8 bytes each), and read when its turn comes.

    Parameters
    ----------
    database : Database
        Nothing of it is lent between two answers.
    query : Query
        What ``parse_identifier`` made.
    ae_title : str
        Of this node, from which the matches can be retrieved.
    """

    def __init__(self, database: Database, query: Query, *, ae_title: str) -> None:
        self._database = database
        self._row_id, self._source = source_of(query)
        columns, returned = columns_of(query)
        self._select = f"SELECT {', '.join([*columns, self._row_id])} FROM {self._source}"
        self._where = conditions_of(query, ae_title)
        self._writer = ResponseWriter(returned, constants_of(query, ae_title), query.character_set)

    def data_sets(self) -> Iterator[Dataset]:
        """Yield the Identifiers.

        Raises
        ------
        DatabaseFailure
            The index cannot be read.
        """
        for row in self._rows():
            yield self._writer.response(row)

    def encoded(self, *, is_implicit_vr: bool) -> Iterator[bytes]:
        """Yield the Identifiers encoded in Little Endian, many times faster; raises as ``data_sets``."""
        for row in self._rows():
            yield self._writer.encoded(row, is_implicit_vr=is_implicit_vr)

    def _rows(self) -> Iterator[sqlite3.Row]:
        with self._database.read() as connection:
            page, others = self._first_page(connection)
        yield from page
        for begin in range(0, len(others), _PAGE_ROWS):
            wanted = json.dumps(others[begin : begin + _PAGE_ROWS].tolist())
            with self._database.look() as connection:
                page = connection.execute(
                    f"{self._select} WHERE {self._row_id} IN (SELECT value FROM json_each(?))", (wanted,)
                ).fetchall()
            yield from page

    def _first_page(self, connection: sqlite3.Connection) -> tuple[list[sqlite3.Row], array[int]]:
        """Read the first matches, and only the row ids of the others, in one snapshot."""
        _teach(connection)
        where = f" WHERE {self._where.sql}" if self._where.sql else ""
        found = connection.execute(f"{self._select}{where}", self._where.values)
        page = found.fetchmany(_PAGE_ROWS)
        found.close()
        others = array("q")
        if len(page) == _PAGE_ROWS:
            known = {row[-1] for row in page}
            ids = f"SELECT {self._row_id} FROM {self._source}{where}"
            others.extend(
                number for (number,) in connection.execute(ids, self._where.values) if number not in known
            )
        return page, others


def _teach(connection: sqlite3.Connection) -> None:
    """Make our function known to the connection, once: it cannot be replaced while it is in use."""
    known = connection.execute("SELECT 1 FROM pragma_function_list WHERE name = ?", (ANY_VALUE_MATCHES,))
    if known.fetchone() is None:
        connection.create_function(ANY_VALUE_MATCHES, 3, any_value_matches, deterministic=True)
