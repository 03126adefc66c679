"""The one way in: durable bytes first, then the index row and its jobs in one transaction."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.errors import (
    AlreadyIndexed,
    CommandMismatch,
    ConflictingInstance,
    IntegrityFailure,
    ObjectError,
    OutOfSpace,
    StorageFailure,
)
from node.index import matching_rules
from node.index.database import Database
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.duplicates import Duplicates
from node.ingest.header import Header, read_header
from node.ingest.made_here import carries_our_marks
from node.jobs.queue import Queue
from node.storage import archive
from node.storage.location import Location
from node.storage.receive_log import ReplayedRecord
from node.storage.storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """What became of a received instance that is now held.

    ``outcome``: stored; held already and the same; or held already, but damaged, and repaired with
    what was received.
    """

    outcome: Literal["stored", "same", "repaired"]
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    data_set_bytes: int


class Ingest:
    """Takes instances in, from peers and from the node's own analyses."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        database: Database,
        index: Index,
        storage: Storage,
        queue: Queue,
        completion: Completion,
    ) -> None:
        self._config = config
        self._clock = clock
        self._database = database
        self._index = index
        self._storage = storage
        self._queue = queue
        self._completion = completion
        self._duplicates = Duplicates(config, clock, database, index, storage)

    # --- from peers ----------------------------------------------------------

    def receive(
        self,
        fragments: Iterable[bytes | memoryview],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        provenance: Provenance,
    ) -> Receipt:
        """Take in one instance. When this returns, the instance is durable and can be found.

        Parameters
        ----------
        fragments : iterable of bytes
            The data set as it streams in. What it raises goes through, and nothing is left behind.
        sop_class_uid, sop_instance_uid : str
            Those of the C-STORE command (PS3.7 section 9.3.1).
        transfer_syntax_uid : str
            That of the presentation context.
        provenance : Provenance
            Who sent it, when.

        Raises
        ------
        MalformedDataSet, InvalidUid, LimitExceeded, CommandMismatch
            The object cannot be accepted; nothing is left behind.
        ConflictingInstance
            Other content is held under this SOP Instance UID, or a copy so damaged that nobody can
            tell. That stays as it is; the new bytes are durable in quarantine.
        OutOfSpace, StorageFailure, DatabaseFailure
            The node cannot keep it. Where only the database failed, the bytes may be durable, and
            are then indexed at the next start.
        """
        limits = self._config.limits
        with self._storage.begin(limits.instance_bytes) as reception:
            for fragment in fragments:
                reception.write(fragment)
            header = read_header(reception.data_set(), transfer_syntax_uid, limits)
            _check_command(header, sop_class_uid, sop_instance_uid)
            held = self._duplicates.held(header.sop_instance_uid)
            if held is None:
                location = reception.commit(transfer_syntax_uid, provenance.to_json())
                stored = self._stored(header, location, reception.sha256, reception.length, provenance)
                if self._index_new(header, stored):
                    return _receipt("stored", header, reception.length)
                # Another association brought the same UID between the look and the transaction.
                reception.revoke()
                held = self._duplicates.held(header.sop_instance_uid)
            if held is None:
                raise StorageFailure("an instance was indexed and is gone from the index")
            data_set, digest = reception.data_set(), reception.sha256
            comparison = self._duplicates.check(data_set, digest, header, held, provenance)
            if not comparison.is_repair:
                return _receipt("same", header, reception.length)
            location = reception.commit(transfer_syntax_uid, provenance.to_json())
            self._repair(comparison.held, location)
            return _receipt("repaired", header, reception.length)

    def _repair(self, damaged: StoredInstance, location: Location) -> None:
        """Replace what is damaged with the same bytes, which are durable at ``location``."""
        is_repaired = self._database.write(lambda connection: self._add_repair(connection, damaged, location))
        # Else somebody has repaired it meanwhile, with the same bytes.
        if is_repaired:
            logger.warning("a damaged instance was repaired", extra={"segment": location.path})

    def _add_repair(
        self, connection: sqlite3.Connection, damaged: StoredInstance, location: Location
    ) -> bool:
        """Point the row of a damaged instance to ``location`` and have it settled, where it still is so."""
        sop_instance_uid = damaged.sop_instance_uid
        is_repaired = self._index.repair(
            connection, sop_instance_uid, damaged=damaged.location, location=location
        )
        if is_repaired:
            self._enqueue_settling(connection, damaged)
        return is_repaired

    def _enqueue_settling(self, connection: sqlite3.Connection, stored: StoredInstance) -> None:
        self._queue.enqueue(
            connection,
            "settle",
            key=stored.sop_instance_uid,
            payload={"sop_instance_uid": stored.sop_instance_uid},
            study_instance_uid=stored.study_instance_uid,
            again=True,
        )

    def _index_new(self, header: Header, stored: StoredInstance) -> bool:
        """Index an instance in a transaction of its own; False when its UID is held already."""
        try:
            return self._database.write(lambda connection: self._add(connection, header, stored))
        except AlreadyIndexed:
            return False

    def _stored(
        self,
        header: Header,
        location: Location,
        data_set_sha256: str,
        data_set_bytes: int,
        provenance: Provenance,
    ) -> StoredInstance:
        return StoredInstance(
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            received_transfer_syntax_uid=header.transfer_syntax_uid,
            stored_transfer_syntax_uid=header.transfer_syntax_uid,
            data_set_sha256=data_set_sha256,
            data_set_bytes=data_set_bytes,
            location=location,
            is_settled=False,
            kept_reason="",
            proof=None,
            is_own=provenance.own or carries_our_marks(header.data_set),
            provenance=provenance,
        )

    def _add(self, connection: sqlite3.Connection, header: Header, stored: StoredInstance) -> bool:
        """Index an instance and enqueue its jobs, in the caller's transaction.

        Returns whether it was new; when not, nothing has been done.
        """
        if self._index.get(connection, stored.sop_instance_uid) is not None:
            return False
        self._index.add(connection, header, stored)
        self._enqueue_settling(connection, stored)
        # What anode made is neither routed nor a reason to analyse, also when a PACS sends it back.
        if not stored.is_own:
            self._route(connection, stored)
            self._completion.arrived(connection, stored.study_instance_uid)
        return True

    def _route(self, connection: sqlite3.Connection, stored: StoredInstance) -> None:
        if not self._config.routes:
            return
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

    # --- made here -----------------------------------------------------------

    def own(
        self, part10_objects: Sequence[bytes], *, then: Callable[[sqlite3.Connection], object]
    ) -> list[StoredInstance]:
        """Take in what this node made: all of it and what follows from it, or nothing.

        Doing it again with the same objects changes nothing but does ``then`` again.

        Parameters
        ----------
        part10_objects : sequence of bytes
            Whole Part 10 files.
        then : callable
            Called in the transaction that indexes them, to enqueue their delivery and to record
            the run.

        Returns
        -------
        list of StoredInstance
            As they are held now, in the order given.

        Raises
        ------
        ConflictingInstance
            Other content is held under one of the UIDs.
        ObjectError, NodeError
            Nothing was indexed.
        """
        ae_title = self._config.node.ae_title
        provenance = Provenance(
            calling_ae_title=ae_title,
            called_ae_title=ae_title,
            peer_address="",
            association=0,
            received_at=self._clock.timestamp(),
            own=True,
        )
        with self._storage.without_reclaiming():
            made = [self._make_durable(part10, provenance) for part10 in part10_objects]

            def index(connection: sqlite3.Connection) -> list[StoredInstance]:
                held = []
                for header, stored, damaged in made:
                    self._add(connection, header, stored)
                    if damaged is not None:
                        self._add_repair(connection, damaged, stored.location)
                    held.append(self._index.get(connection, stored.sop_instance_uid) or stored)
                then(connection)
                return held

            return self._database.write(index)

    def _make_durable(
        self, part10: bytes, provenance: Provenance
    ) -> tuple[Header, StoredInstance, StoredInstance | None]:
        """Write one object of our own to the receive log, unless it is held already.

        The last of what it returns is the row that is to be repaired with it.
        """
        file = BytesIO(part10)
        data_set = memoryview(part10)[archive.data_set_offset(file) :]
        header = read_header(data_set, archive.transfer_syntax_uid(file), self._config.limits)
        held = self._duplicates.held(header.sop_instance_uid)
        if held is not None:
            digest = hashlib.sha256(data_set).hexdigest()
            comparison = self._duplicates.compare(BytesIO(data_set), digest, header, held)
            if comparison.difference:
                raise ConflictingInstance(
                    f"other content is held under the UID of a result: {comparison.difference}"
                )
            if comparison.damage and not comparison.is_repair:
                raise IntegrityFailure(f"a held result is damaged: {comparison.damage}")
            held = comparison.held
            if not comparison.is_repair:
                return header, held, None
        with self._storage.begin() as reception:
            reception.write(data_set)
            location = reception.commit(header.transfer_syntax_uid, provenance.to_json())
        stored = self._stored(header, location, reception.sha256, reception.length, provenance)
        return header, stored, held

    # --- after a stop --------------------------------------------------------

    def replay(self) -> int:
        """Index what the receive log holds and the index does not know; return how many instances.

        Called once at start, before anything is received. Such records were made durable, but the
        node stopped before their transaction, or the index is older than the log. A record that
        cannot be dealt with now stays in the log until the next start.
        """
        count = 0
        for record in self._storage.replay(self._is_known):
            try:
                count += self._replay(record)
            except (ObjectError, IntegrityFailure, StorageFailure, OutOfSpace) as error:
                # One record must not keep the node from starting. Its sender may have been told
                # Success by an index that is lost, so it is kept. What is wrong may quote the object.
                self._storage.keep(record.location)
                logger.error("record left out", extra={"error": error.name, "segment": record.location.path})
                logger.debug("record left out: detail", extra={"reason": str(error)})
        return count

    def _is_known(self, location: Location) -> bool:
        with self._database.read() as connection:
            return self._index.is_known_location(connection, location)

    def _replay(self, record: ReplayedRecord) -> bool:
        provenance = Provenance.from_json(record.provenance)
        digest, length = record.data_set_sha256, record.data_set_bytes
        with self._storage.open(record.location) as file:
            header = read_header(file, record.transfer_syntax_uid, self._config.limits)
            held = self._duplicates.held(header.sop_instance_uid)
            if held is None:
                stored = self._stored(header, record.location, digest, length, provenance)
                return self._index_new(header, stored)
            try:
                comparison = self._duplicates.check(file, digest, header, held, provenance)
            except ConflictingInstance:
                logger.warning("a replayed record conflicts with what is held")
                return False
            if comparison.is_repair:
                self._repair(comparison.held, record.location)
            return False


def _check_command(header: Header, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Compare the data set with the command (PS3.4 section B.2.3: A900 when they differ)."""
    if header.sop_class_uid != sop_class_uid:
        raise CommandMismatch("the SOP Class UID of the data set is not that of the command")
    if header.sop_instance_uid != sop_instance_uid:
        raise CommandMismatch("the SOP Instance UID of the data set is not that of the command")


def _receipt(outcome: Literal["stored", "same", "repaired"], header: Header, data_set_bytes: int) -> Receipt:
    return Receipt(
        outcome,
        header.sop_instance_uid,
        header.study_instance_uid,
        header.series_instance_uid,
        data_set_bytes,
    )
