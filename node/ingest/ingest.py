"""The one way in: durable bytes first, then the index row and its jobs in one transaction.

Instances from peers do not wait for that transaction: see ``arrivals.py``.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Literal

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config, LimitsConfig
from node.errors import (
    CommandMismatch,
    ConflictingInstance,
    IntegrityFailure,
    NodeError,
    ObjectError,
    OutOfSpace,
    StorageFailure,
)
from node.index.database import Database
from node.index.entry import Entry
from node.index.index import Index, Provenance, Run, StoredInstance
from node.ingest.arrivals import Arrival, Arrivals
from node.ingest.duplicates import Duplicates
from node.ingest.header import Header, HeaderReader, read_header
from node.ingest.header_memory import HeaderMemory
from node.ingest.made_here import carries_our_marks
from node.ingest.pace import Pace
from node.jobs.queue import Queue
from node.repairs import Repairs
from node.storage import archive
from node.storage.location import Location
from node.storage.receive_log import ReplayedRecord
from node.storage.reception import Reception
from node.storage.storage import Storage
from node.undecodable import UNDECODABLE

logger = logging.getLogger(__name__)

# Nearly every header ends before.
_ENOUGH_FOR_A_HEADER_BYTES = 32 * 1024
_UNLIMITED = 1 << 62
_RESCUED_AT_ONCE_BYTES = 1 << 20
#: What one record of the log, or one file of the archive, may meet when it is read to be indexed.
OF_A_RECORD = (ObjectError, IntegrityFailure, StorageFailure, OutOfSpace, *UNDECODABLE)


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


class _Memory(threading.local):
    """What each thread remembers; it serves one association at a time."""

    def __init__(self) -> None:
        self.headers = HeaderMemory()


class Ingest:
    """Takes instances in, from peers and from the node's own analyses.

    ``pace`` says how fast they come from peers.
    """

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
        self.pace = Pace(clock)
        self._duplicates = Duplicates(config, clock, database, index, storage)
        self._memory = _Memory()
        self._arrivals = Arrivals(
            config=config,
            clock=clock,
            database=database,
            index=index,
            queue=queue,
            completion=completion,
        )

    # --- from peers ----------------------------------------------------------

    def receive(
        self,
        fragments: Iterable[Sequence[bytes | memoryview]],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        provenance: Provenance,
    ) -> Receipt:
        """Take in one instance. When this returns, the instance is durable and can be found.

        Parameters
        ----------
        fragments : iterable of sequences of bytes
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
        command = (sop_class_uid, sop_instance_uid)
        self.pace.count()
        reader = HeaderReader(transfer_syntax_uid, self._config.limits, self._memory.headers)
        entry: Entry | None = None
        has_looked = False
        with self._storage.begin(self._config.limits.instance_bytes) as reception:
            for together in fragments:
                reception.write(together)
                if not has_looked and reception.length >= _ENOUGH_FOR_A_HEADER_BYTES:
                    # While this is done, the kernel takes in what the peer sends next.
                    has_looked = True
                    if reader.read_start(bytes(reception.start_bytes)):
                        entry = _checked_entry(reader.header, command)
            reader.check_rest(reception.data_set())
            header = reader.header
            entry = entry or _checked_entry(header, command)
            with self._arrivals.claimed(sop_instance_uid) as claim:
                if self._duplicates.is_held(sop_instance_uid):
                    return self._receive_again(reception, header, provenance)
                self._arrivals.check()
                is_own = carries_our_marks(header)  # reads what may be anything, so before it is durable
                location = reception.commit(header.transfer_syntax_uid, provenance.to_json())
                stored = _stored(
                    header, location, reception.sha256, reception.length, provenance, is_own=is_own
                )
                claim.hand_over(Arrival(entry, stored))
                return _receipt("stored", header, reception.length)

    def _receive_again(self, reception: Reception, header: Header, provenance: Provenance) -> Receipt:
        """Compare an instance whose UID is held; raises as ``receive`` does."""
        held = self._held(header.sop_instance_uid)
        data_set, digest = reception.data_set(), reception.sha256
        comparison = self._duplicates.check(data_set, digest, header, held, provenance)
        if not comparison.is_repair:
            return _receipt("same", header, reception.length)
        location = reception.commit(header.transfer_syntax_uid, provenance.to_json())
        self._repair(comparison.held, location)
        return _receipt("repaired", header, reception.length)

    def _held(self, sop_instance_uid: str) -> StoredInstance:
        held = self._duplicates.held(sop_instance_uid)
        if held is None:
            raise StorageFailure("an instance was indexed and is gone from the index")
        return held

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
            self._arrivals.enqueue_settling(connection, [damaged])
        return is_repaired

    def enqueue_settling(self, connection: sqlite3.Connection, instances: Sequence[StoredInstance]) -> None:
        """Have instances settled, which lie in the receive log."""
        self._arrivals.enqueue_settling(connection, instances)

    def holds_unindexed(self, segment: str) -> bool:
        """Whether a segment of the receive log holds a record that the next start has to index."""
        return self._arrivals.holds_unindexed(segment)

    # --- on a failing disk ---------------------------------------------------

    def rescue(self, segment: str) -> None:
        """Write what a segment holds to another one, because a flush of it failed.

        What was acknowledged in it was flushed before, but a disk that lost one write is not trusted
        with the others. Each data set is compared with its digest; one that does not fit is noted as
        damaged, and stays.

        Raises
        ------
        OutOfSpace, StorageFailure, DatabaseFailure
            Not all could be written; it is to be tried again.
        """
        with self._database.read() as connection:
            instances = self._index.of_segment(connection, segment)
        failure: NodeError | None = None
        for stored in instances:
            try:
                self._write_once_more(stored)
            except IntegrityFailure:
                self._note_damaged(stored)
            except NodeError as error:
                failure = error
        if failure is not None:
            raise failure
        self._storage.clear(segment)

    def _write_once_more(self, stored: StoredInstance) -> None:
        with self._storage.open(stored.location) as file, self._storage.begin() as reception:
            while chunk := file.read(_RESCUED_AT_ONCE_BYTES):
                reception.write([chunk])
            if reception.sha256 != stored.data_set_sha256:
                raise IntegrityFailure("what was received is not what is read back")
            provenance = stored.provenance.to_json()
            location = reception.commit(stored.received_transfer_syntax_uid, provenance)
            self._database.write(partial(self._move, stored=stored, location=location))

    def _move(self, connection: sqlite3.Connection, *, stored: StoredInstance, location: Location) -> None:
        self._index.move(connection, stored.sop_instance_uid, held_at=stored.location, location=location)

    def _note_damaged(self, stored: StoredInstance) -> None:
        now, problem = self._clock.timestamp(), "damaged: its SHA-256 is another after a failed flush"
        self._database.write(
            lambda connection: self._index.mark_verified(connection, stored.sop_instance_uid, now, problem)
        )

    # --- made here -----------------------------------------------------------

    def own(
        self,
        part10_objects: Sequence[bytes],
        *,
        then: Callable[[sqlite3.Connection], object],
        runs: Sequence[Run] = (),
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
        runs : sequence of Run
            For each object, where an analysis made them, the run as it is to be kept with it.

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
        made_in: Sequence[Run | None] = runs or [None] * len(part10_objects)
        read = [
            (*self._read_own(part10), replace(provenance, run=run))
            for part10, run in zip(part10_objects, made_in, strict=True)
        ]
        with ExitStack() as claims:
            # in the order of the UIDs, so that two of these never wait for each other
            for sop_instance_uid in sorted({header.sop_instance_uid for _, header, _ in read}):
                claims.enter_context(self._arrivals.claimed(sop_instance_uid))
            return self._index_own(read, provenance.received_at, then)

    def _index_own(
        self,
        read: Sequence[tuple[memoryview, Header, Provenance]],
        made_at: float,
        then: Callable[[sqlite3.Connection], object],
    ) -> list[StoredInstance]:
        """Make what this node made durable and index it, in one transaction."""
        with self._storage.without_reclaiming():
            made = [self._make_durable(*one) for one in read]

            def index(connection: sqlite3.Connection) -> list[StoredInstance]:
                held = []
                for header, stored, damaged in made:
                    if not self._index.holds(connection, stored.sop_instance_uid):
                        self._index.add(connection, Entry.of(header), stored)
                        self._arrivals.add_jobs(connection, [stored], made_at)
                    if damaged is not None:
                        self._add_repair(connection, damaged, stored.location)
                    held.append(self._index.get(connection, stored.sop_instance_uid) or stored)
                then(connection)
                return held

            return self._database.write(index)

    def _read_own(self, part10: bytes) -> tuple[memoryview, Header]:
        """The data set of a Part 10 file, and its header."""
        file = BytesIO(part10)
        data_set = memoryview(part10)[archive.data_set_offset(file) :]
        return data_set, read_header(data_set, archive.transfer_syntax_uid(file), self._config.limits)

    def _make_durable(
        self, data_set: memoryview, header: Header, provenance: Provenance
    ) -> tuple[Header, StoredInstance, StoredInstance | None]:
        """Write one object of our own to the receive log, unless it is held already.

        The last of what it returns is the row that is to be repaired with it.
        """
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
            reception.write([data_set])
            location = reception.commit(header.transfer_syntax_uid, provenance.to_json())
        stored = _stored(header, location, reception.sha256, reception.length, provenance, is_own=True)
        return header, stored, held

    # --- after a stop --------------------------------------------------------

    def replay(self, repairs: Repairs | None = None) -> int:
        """Index what the receive log holds and the index does not know; return how many instances.

        ``repairs`` counts them, and what else was found.

        Called once at start, before anything is received. Such records were made durable, but the
        node stopped before their transaction, or the index is older than the log. A record that
        cannot be dealt with now stays in the log until the next start.
        """
        repairs = repairs or Repairs()
        with self._database.read() as connection:
            rebuilt_at = self._index.rebuilt_at(connection)
        for record in self._storage.replay(self._is_known, repairs, self._has_records):
            try:
                repairs.instances_indexed += self.replay_record(record, rebuilt_at)
            except OF_A_RECORD as error:
                # One record must not keep the node from starting. Its sender may have been told
                # Success by an index that is lost, so it is kept. What is wrong may quote the object.
                self._storage.keep(record.location)
                repairs.records_kept += 1
                logger.error(
                    "record left out", extra={"error": type(error).__name__, "segment": record.location.path}
                )
                logger.debug("record left out: detail", extra={"reason": str(error)})
        return repairs.instances_indexed

    def _is_known(self, location: Location) -> bool:
        with self._database.read() as connection:
            return self._index.is_known_location(connection, location)

    def _has_records(self, segment: str) -> bool:
        with self._database.read() as connection:
            return self._index.in_segment(connection, segment) > 0

    def replay_record(self, record: ReplayedRecord, rebuilt_at: float | None = None) -> bool:
        """Index a record of the receive log, or compare it with what is held; whether it was new.

        What was received before ``rebuilt_at``, and could not be read then, starts nothing: routes and
        analyses of it may have been done. Raises what reading and keeping it may meet.
        """
        provenance = Provenance.from_json(record.provenance)
        if rebuilt_at is not None and provenance.received_at <= rebuilt_at:
            provenance = replace(provenance, starts_nothing=True)
        if provenance.own:
            # Its row was never committed, or it would be known: so its job makes it again, and all of it.
            return False
        digest, length = record.data_set_sha256, record.data_set_bytes
        with self._storage.open(record.location) as file:
            header = read_header(file, record.transfer_syntax_uid, accepted_once(self._config.limits))
            is_own = carries_our_marks(header)
            stored = _stored(header, record.location, digest, length, provenance, is_own=is_own)
            arrival = Arrival(Entry.of(header), stored)
            with self._arrivals.claimed(header.sop_instance_uid) as claim:
                if not self._duplicates.is_held(header.sop_instance_uid):
                    claim.hand_over(arrival)
                    return True
            held = self._held(header.sop_instance_uid)
            try:
                comparison = self._duplicates.check(file, digest, header, held, provenance)
            except ConflictingInstance:
                logger.warning("a replayed record conflicts with what is held")
                return False
            if comparison.is_repair:
                self._repair(comparison.held, record.location)
            return False


def accepted_once(limits: LimitsConfig) -> LimitsConfig:
    """Limits for what was accepted once: one that was lowered since does not take it away."""
    return replace(limits, header_bytes=_UNLIMITED, instance_bytes=_UNLIMITED, element_bytes=_UNLIMITED)


def _checked_entry(header: Header, command: tuple[str, str]) -> Entry:
    """Read the header, after comparing it with the command (PS3.4 section B.2.3: A900 when they differ)."""
    sop_class_uid, sop_instance_uid = command
    if header.sop_class_uid != sop_class_uid:
        raise CommandMismatch("the SOP Class UID of the data set is not that of the command")
    if header.sop_instance_uid != sop_instance_uid:
        raise CommandMismatch("the SOP Instance UID of the data set is not that of the command")
    return Entry.of(header)


def _receipt(outcome: Literal["stored", "same", "repaired"], header: Header, data_set_bytes: int) -> Receipt:
    return Receipt(
        outcome,
        header.sop_instance_uid,
        header.study_instance_uid,
        header.series_instance_uid,
        data_set_bytes,
    )


def _stored(
    header: Header,
    location: Location,
    data_set_sha256: str,
    data_set_bytes: int,
    provenance: Provenance,
    *,
    is_own: bool,
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
        is_own=is_own,
        provenance=provenance,
    )
