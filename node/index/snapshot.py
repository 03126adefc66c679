"""The database as it was at one moment, for who copies a data directory while its node goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from node.errors import DatabaseFailure
from node.index.database import translated
from node.storage.location import Location


@dataclass(frozen=True)
class ArchivedFile:
    """What a row says of an archive file: its place below the archive folder, and what it must give back.

    ``data_set_sha256`` is that of the data set as received.
    """

    relative: str
    sop_instance_uid: str
    data_set_sha256: str


def freeze(connection: sqlite3.Connection) -> None:
    """Make a connection of ``Database.read`` see this moment, and no later one."""
    connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """Write what ``connection`` sees to a new database file, whole, by SQLite's online backup.

    Raises
    ------
    DatabaseFailure, OutOfSpace
        It could not be written, or the database is damaged. The file is not to be used.
    """
    with translated(target), closing(sqlite3.connect(target, isolation_level=None)) as copied:
        connection.backup(copied)
        copied.execute("PRAGMA journal_mode = DELETE")
        problem = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise DatabaseFailure(
            f"the index is damaged: {problem}", action="stop the node and run 'anode rebuild', then try again"
        )


def in_log(connection: sqlite3.Connection) -> dict[Location, str]:
    """Where rows say that something lies in the receive log, and its SOP Instance UID."""
    rows = connection.execute(
        "SELECT location, SOPInstanceUID FROM instance WHERE segment <> ''"
        " UNION ALL SELECT location, sop_instance_uid FROM quarantine WHERE segment <> ''"
    )
    return {Location.parse(row[0]): row[1] for row in rows}


def archived(connection: sqlite3.Connection) -> Iterator[ArchivedFile]:
    """Yield the files of the archive that rows name, quarantine included, in the order of their places."""
    rows = connection.execute(
        "SELECT substr(location, 9), SOPInstanceUID, data_set_sha256 FROM instance WHERE segment = ''"
        " UNION ALL SELECT substr(location, 9), sop_instance_uid, data_set_sha256 FROM quarantine"
        " WHERE segment = '' ORDER BY 1"
    )
    return (ArchivedFile(*row) for row in rows)
