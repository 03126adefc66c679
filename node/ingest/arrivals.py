"""Instances that are durable and whose rows are still to be written, with the jobs that follow from them.

The record in the receive log is the journal of the index: what stands in it is indexed, now or by the
replay of the next start. So the rows of instances from peers are written by the deferral of the
database, many in one transaction, before anybody looks.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.errors import StorageFailure
from node.index import matching_rules
from node.index.database import Database
from node.index.entry import Entry
from node.index.index import Index, StoredInstance
from node.ingest.claims import Claims
from node.jobs.queue import Queue

logger = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A durable instance whose row is to be written."""

    entry: Entry
    stored: StoredInstance


class Claim:
    """A SOP Instance UID that nobody else takes in, until its holder or its row ends it."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self.is_handed_over = False

    def hand_over(self, arrival: Arrival) -> None:
        """Have the row of the instance written; the claim ends when it is there.

        Raises
        ------
        DatabaseFailure
            The database is closed; the record is indexed at the next start.
        """
        self._arrivals.put(arrival)
        self.is_handed_over = True


class Arrivals:
    """The rows that wait, and what they bring with them."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        database: Database,
        index: Index,
        queue: Queue,
        completion: Completion,
    ) -> None:
        self._config = config
        self._clock = clock
        self._index = index
        self._queue = queue
        self._completion = completion
        self._claims = Claims()
        self._unindexed: set[str] = set()  # segments with records that could not be indexed
        self._unindexed_uids: set[str] = set()
        self._is_in_doubt = False  # whether what the index remembers was committed
        self._rows = database.deferral(self._add, self._done)

    def __len__(self) -> int:
        return len(self._rows)

    @contextmanager
    def claimed(self, sop_instance_uid: str) -> Iterator[Claim]:
        """Claim a UID once nobody else does, until the end of the block, or of the row that is handed over.

        Raises
        ------
        StorageFailure
            A record of this UID could not be indexed.
        AnodeError
            As ``check``, where another's row has to wait.
        """
        self._claims.take(sop_instance_uid, check=self.check)
        claim = Claim(self)
        try:
            if sop_instance_uid in self._unindexed_uids:
                raise StorageFailure(
                    "an instance of this UID is held and could not be indexed; restart the node"
                )
            yield claim
        finally:
            if not claim.is_handed_over:
                self._claims.release((sop_instance_uid,))

    def check(self) -> None:
        """Raise what ``Database.write`` raises, while rows have to wait because the database fails."""
        self._rows.check()

    def put(self, arrival: Arrival) -> None:
        """Hand in a row; for ``Claim``."""
        self._rows.put(arrival)

    def holds_unindexed(self, segment: str) -> bool:
        """Whether a segment of the receive log holds a record that the next start has to index."""
        return segment in self._unindexed

    # --- what follows from an instance -------------------------------------------

    def add_jobs(
        self, connection: sqlite3.Connection, instances: Sequence[StoredInstance], last_arrival: float
    ) -> None:
        """Enqueue what follows from instances that are new in the index."""
        self.enqueue_settling(connection, instances)
        # What anode made is neither routed nor a reason to analyse, also when a PACS sends it back.
        foreign = [stored for stored in instances if not (stored.is_own or stored.provenance.starts_nothing)]
        for study_instance_uid, count in Counter(stored.study_instance_uid for stored in foreign).items():
            self._completion.arrived(connection, study_instance_uid, last_arrival, count)
        if self._config.routes:
            for stored in foreign:
                self._route(connection, stored)

    def enqueue_settling(self, connection: sqlite3.Connection, instances: Sequence[StoredInstance]) -> None:
        """Have instances settled, which lie in the receive log."""
        self._queue.enqueue_all(
            connection,
            "settle",
            [
                (
                    stored.sop_instance_uid,
                    {"sop_instance_uid": stored.sop_instance_uid},
                    stored.study_instance_uid,
                )
                for stored in instances
            ],
        )

    def _route(self, connection: sqlite3.Connection, stored: StoredInstance) -> None:
        header = self._index.header_of(connection, stored.sop_instance_uid)
        for route in self._config.routes:
            if matching_rules.differs(route.when, header) is not None:
                continue
            for peer in route.send_to:
                if peer == stored.provenance.calling_ae_title:
                    continue
                self._queue.enqueue(
                    connection,
                    "deliver",
                    key=f"{peer}/{stored.sop_instance_uid}/route",
                    payload={
                        "sop_instance_uid": stored.sop_instance_uid,
                        "peer": peer,
                        "reason": "route",
                    },
                    lane=peer,
                    study_instance_uid=stored.study_instance_uid,
                )

    # --- the writer's thread -----------------------------------------------------

    def _add(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
        """Index instances, in the transaction of the deferral."""
        if self._is_in_doubt:
            # the last transaction failed
            self._index.forget()
        self._is_in_doubt = True
        for entry, stored in arrivals:
            above = self._index.add(connection, entry, stored)
            self._index.remember(entry, stored, above)
        # the time of this transaction, in which the clock may be followed as well
        self.add_jobs(connection, [arrival.stored for arrival in arrivals], self._clock.timestamp())

    def _done(self, arrivals: Sequence[Arrival], error: BaseException | None) -> None:
        """Deal with what became of the rows of arrivals; their records are durable in any case."""
        if error is None:
            self._is_in_doubt = False
        else:
            for _, stored in arrivals:
                self._unindexed.add(stored.location.path)
                self._unindexed_uids.add(stored.sop_instance_uid)
                logger.error(
                    "an instance could not be indexed; its record is kept, and the next start tries again",
                    extra={"segment": stored.location.path, "error": type(error).__name__},
                )
                logger.debug("not indexed: detail", extra={"reason": str(error)})
        self._claims.release(arrival.stored.sop_instance_uid for arrival in arrivals)
