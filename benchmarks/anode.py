"""anode as its users start it: ``anode run`` with a TOML file, in a folder of its own."""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.peers import ROOT, Receiver
from benchmarks.processes import BenchmarkFailure, Program, environment, wait_until
from node.clock import Clock
from node.config.settings import StorageConfig
from node.index import database
from node.index.database import Database
from node.index.deferral import DELAY_SECONDS
from node.index.index import Index
from node.jobs import listing
from node.jobs.queue import Queue

_STARTS_WITHIN_SECONDS = 120.0
_SETTLES_WITHIN_SECONDS = 900.0
_LOOK_SECONDS = 0.005
_WORK = ("settle", "select", "analyze")


class Anode(Receiver):
    """``anode run``. ``name`` tells contestants apart; ``configuration`` is TOML beside ``[node]``.

    Only the port and the data directory are set; whatever else differs from the defaults is in
    ``configuration``.
    """

    ae_title = "ANODE"
    #: So many segments of the receive log are written ahead before anything is timed.
    segments_ahead = StorageConfig().spare_segments

    def __init__(self, folder: Path, configuration: str = "", name: str = "anode") -> None:
        super().__init__(folder)
        self.name = name
        self.makes_results = "[[analyses]]" in configuration
        self._configuration = configuration
        self._starts = 0

    @property
    def data_dir(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    def start(self) -> None:
        """Start it and wait for its one line."""
        self._starts += 1
        config = self.folder / "config.toml"
        config.write_text(f'[node]\nport = {self.port}\ndata_dir = "data"\n{self._configuration}\n')
        self._program = program = Program(
            [sys.executable, "-m", "node", "run", "--config", str(config)],
            folder=ROOT,
            log=self.folder / f"anode-{self._starts}.log",
            variables=environment(no_delay=False),
        )
        program.wait_until(
            lambda: re.search(r"anode ready: ", program.output) is not None, _STARTS_WITHIN_SECONDS
        )

    def received(self) -> int:
        """What its index holds, when no more rows follow: the last are committed a moment after Success."""
        count, before = self._count(), -1
        while count != before:
            time.sleep(4 * DELAY_SECONDS)
            before, count = count, self._count()
        return count

    def _count(self) -> int:
        with self._index() as (_, connection):
            return int(Index(Clock()).counts(connection)["instances"])

    def stored_bytes(self) -> tuple[int, int]:
        """Bytes of all data sets as received, and as stored."""
        with self._index() as (_, connection):
            counts = Index(Clock()).counts(connection)
            return int(counts["received_bytes"]), int(counts["stored_bytes"])

    def rest(self) -> None:
        """Wait until everything is settled and analysed, and no segment is written ahead any more."""
        wait_until(lambda: self.unfinished() == 0, _SETTLES_WITHIN_SECONDS, f"{self.name} to settle")
        wait_until(self._is_pool_full, _SETTLES_WITHIN_SECONDS, f"{self.name} to write its segments ahead")
        with self._index() as (_, connection):
            set_aside = listing.counts(connection)["set_aside"]
        if set_aside:
            raise BenchmarkFailure(f"{self.name} has set jobs aside: {set_aside}")

    def _is_pool_full(self) -> bool:
        return len(list((self.data_dir / "log").glob("*.seg"))) >= self.segments_ahead

    def unsettled(self) -> int:
        """How many instances are not settled, those included whose rows follow in a moment."""
        with self._index() as (_, connection):
            return int(Index(Clock()).counts(connection)["unsettled"])

    def wait_until_settled(self) -> None:
        """Return when every instance is settled; asks often, for what costs little."""
        with closing(Database.open_read_only(self.data_dir / database.FILE_NAME)) as index_database:
            queue = Queue(Clock(), index_database)

            def is_settled() -> bool:
                return queue.unfinished(("settle",)) == 0 and self.unsettled() == 0

            wait_until(is_settled, _SETTLES_WITHIN_SECONDS, f"{self.name} to settle", every=_LOOK_SECONDS)

    def unfinished(self, *kinds: str) -> int:
        """How many jobs of these kinds, or of any that is background work, are due or running."""
        with self._index() as (index_database, _):
            return Queue(Clock(), index_database).unfinished(kinds or _WORK)

    @contextmanager
    def _index(self) -> Iterator[tuple[Database, sqlite3.Connection]]:
        index_database = Database.open_read_only(self.data_dir / database.FILE_NAME)
        try:
            with index_database.read() as connection:
                yield index_database, connection
        finally:
            index_database.close()
