"""Makes the index again from the receive log and the archive alone.

A new file is filled beside the old one and takes its name at the end, so it may be stopped anywhere and
begun again. Nothing is sent, forwarded or analysed by it: the only jobs of the new index are those that
settle what still lies in the receive log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.errors import AnodeError, ArchiveUnavailable, IntegrityFailure
from node.index import database, replacement, schema
from node.index.database import Database
from node.index.index import Index, Provenance
from node.ingest.ingest import OF_A_RECORD, Ingest, accepted_once
from node.jobs.queue import Queue
from node.rebuild.held import Held, Quarantined, Reader, received_as
from node.rebuild.results import Results
from node.storage import archive, guard
from node.storage.guard import DataDirectory
from node.storage.location import Location
from node.storage.receive_log import ReplayedRecord
from node.storage.storage import Storage
from node.storage.tenure import Tenure
from node.verification import problem_of

T = TypeVar("T")

#: Studies of so long before the last arrival are looked at again for analyses that have left no result.
REARM_SECONDS = 24 * 3600.0
_ROWS_OF_A_COMMIT = 500


class LeftOut(NamedTuple):
    """A file of the data directory in which something could not be read, and why.

    Or a result that is there, where others of its run are not.
    """

    file: str
    reason: str


@dataclass
class Rebuilt:
    """What was found.

    Attributes
    ----------
    studies, instances, unsettled, own, quarantined : int
        Rows; ``own`` counts the instances that this software made.
    runs, rearmed : int
        Runs of analyses that are known again, and studies that are looked at once more.
    left_out : list of LeftOut
        What is in no row.
    set_aside : Path or None
        The old index.
    """

    studies: int = 0
    instances: int = 0
    unsettled: int = 0
    own: int = 0
    quarantined: int = 0
    runs: int = 0
    rearmed: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    set_aside: Path | None = None


class Progress(Protocol):
    """Shows how far the work is."""

    def over(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Give ``items`` back, one by one."""


class _Found(NamedTuple):
    """What is to be indexed, in the order in which it was received."""

    received_at: float
    is_record: bool
    number: int
    location: Location

    @classmethod
    def of(cls, location: Location, provenance: Provenance) -> _Found:
        number = provenance.run.number if provenance.run else 0
        return cls(provenance.received_at, location.kind == "log", number, location)


def rebuild(config: Config, clock: Clock, progress: Progress, *, is_log_lost: bool = False) -> Rebuilt:
    """Make the index of a data directory again; the old one is set aside.

    Without the receive log only where ``is_log_lost`` says that it is lost for good; it begins anew then.

    Raises
    ------
    ArchiveUnavailable
        A node runs on the directory, none ever did, or its archive or receive log is not there.
    DatabaseFailure, StorageFailure, OutOfSpace
        The new index could not be written. The old one is as it was.
    """
    data_dir = config.node.data_dir
    if not guard.inspect(data_dir, guard.state_file_of(config.source)):
        raise ArchiveUnavailable(f"no node has run on {data_dir} yet: there is nothing to rebuild")
    with ExitStack() as exits:
        directory = DataDirectory.beside(data_dir, config.source)
        directory.open()
        exits.callback(directory.close)
        directory.check_archive(holds_settled=True)
        directory.check_log_to_rebuild(is_lost=is_log_lost)
        # A settling process that has outlived its node writes nothing from now on.
        Tenure.begin(data_dir, folders=("archive",))
        path = data_dir / database.FILE_NAME
        lost = _in_log(path) if is_log_lost else {}
        new = replacement.path_of_new(path)
        rebuilt = _fill(new, config, clock, progress)
        rebuilt.left_out += [
            LeftOut(uid, f"it was in the receive log alone: ask {sender} to send it again")
            for uid, sender in lost.items()
        ]
        rebuilt.set_aside = replacement.put_in_place(new, path, clock.timestamp())
        return rebuilt


def _in_log(index_file: Path) -> dict[str, str]:
    """What the old index says of instances in the receive log: their senders by SOP Instance UID."""
    index = Index(Clock())
    with suppress(AnodeError), closing(Database.open_read_only(index_file)) as old, old.read() as connection:
        return {
            one.sop_instance_uid: one.provenance.sender
            for segment in sorted(index.segments(connection))
            for one in index.of_segment(connection, segment)
        }
    return {}


def _fill(new: Path, config: Config, clock: Clock, progress: Progress) -> Rebuilt:
    with ExitStack() as exits:
        index_database = Database(new, clock=clock, schema=schema.STATEMENTS)
        exits.callback(index_database.close)
        storage = Storage(config.node.data_dir, config.storage, clock)
        exits.callback(storage.close)
        return _Rebuilding(config, clock, index_database, storage, progress).run()


class _Rebuilding:
    def __init__(
        self, config: Config, clock: Clock, index_database: Database, storage: Storage, progress: Progress
    ) -> None:
        self._clock = clock
        self._database = index_database
        self._storage = storage
        self._progress = progress
        self._index = Index(clock)
        self._completion = Completion(config, clock)
        self._ingest = Ingest(
            config=config,
            clock=clock,
            database=index_database,
            index=self._index,
            storage=storage,
            queue=Queue(clock, index_database),
            completion=self._completion,
        )
        self._reader = Reader(storage, accepted_once(config.limits))
        self._results = Results()
        self._rebuilt = Rebuilt()
        self._records: dict[Location, Held] = {}
        self._replaced: set[Location] = set()  # archive files that are damaged, and are in the log as well
        self._again: list[
            tuple[ReplayedRecord, str]
        ] = []  # other content, or so it seems, under a UID that is held

    def run(self) -> Rebuilt:
        self._read_log()
        found = self._read_archive()
        found += [_Found.of(at, one.stored.provenance) for at, one in self._records.items()]
        found.sort(key=lambda one: one[:3])
        batch: list[Held | Quarantined] = []
        for place in self._progress.over(found, "index", len(found)):
            if (one := self._read(place)) is not None:
                batch.append(one)
            if len(batch) == _ROWS_OF_A_COMMIT:
                self._add(batch)
                batch = []
        self._add(batch)
        for record, sop_instance_uid in self._again:
            self._compare(record, sop_instance_uid)
        for location, reason in self._results.incomplete():
            self._rebuilt.left_out.append(LeftOut(str(self._storage.path(location)), reason))
        self._database.write(self._finish)
        self._database.flush()
        return self._rebuilt

    def _leave_out(self, path: Path, error: Exception) -> None:
        # What is unforeseen may quote the object, and so a patient.
        reason = str(error) if isinstance(error, AnodeError) else type(error).__name__
        self._rebuilt.left_out.append(LeftOut(str(path), reason))

    # --- the receive log -------------------------------------------------------

    def _read_log(self) -> None:
        """Take what is in the log and in no sound archive file."""

        def report(segment: str, reason: str) -> None:
            self._leave_out(self._storage.path(Location("log", segment)), IntegrityFailure(reason))

        held: dict[str, Held] = {}
        for record in self._progress.over(self._storage.survey(report), "receive log"):
            try:
                one = self._recorded(record, held)
            except OF_A_RECORD as error:
                self._leave_out(self._storage.path(record.location), error)
            else:
                if one is not None:
                    held[one.stored.sop_instance_uid] = one
        self._records = {one.stored.location: one for one in held.values()}

    def _recorded(self, record: ReplayedRecord, held: dict[str, Held]) -> Held | None:
        """Read a record; None where nothing of it is missing elsewhere."""
        one = self._reader.recorded(record)
        uid = one.stored.sop_instance_uid
        if uid in held:
            if not _is_same(held[uid], one):
                self._again.append((record, uid))
            return None
        location = Location("archive", archive.relative_path(uid))
        if not self._storage.path(location).exists():
            return one
        try:
            settled = self._reader.archived(location)
            if isinstance(settled, Quarantined) or not _is_same(settled, one):
                self._again.append((record, uid))
                return None
            if not problem_of(self._storage, settled.stored):
                return None
            one = received_as(one, settled.stored.provenance)
        except OF_A_RECORD:
            pass  # it is damaged so that nobody can tell what it was
        self._replaced.add(location)
        return one

    def _compare(self, record: ReplayedRecord, sop_instance_uid: str) -> None:
        """Compare a record with what is indexed under its UID; other content goes to quarantine."""
        path = self._storage.path(record.location)
        with self._database.read() as connection:
            is_held = self._index.holds(connection, sop_instance_uid)
        if not is_held:
            self._leave_out(path, IntegrityFailure("what it is to be compared with cannot be read"))
            return
        try:
            self._ingest.replay_record(record)
        except OF_A_RECORD as error:
            self._leave_out(path, error)

    # --- the archive -----------------------------------------------------------

    def _read_archive(self) -> list[_Found]:
        found = []
        for location in self._progress.over(self._storage.archived(), "archive"):
            if location in self._replaced:
                continue
            try:
                provenance = self._reader.provenance(location)
            except OF_A_RECORD as error:
                self._leave_out(self._storage.path(location), error)
                continue
            found.append(_Found.of(location, provenance))
        return found

    def _read(self, found: _Found) -> Held | Quarantined | None:
        if found.is_record:
            return self._records[found.location]
        try:
            return self._reader.archived(found.location)
        except OF_A_RECORD as error:
            self._leave_out(self._storage.path(found.location), error)
            return None

    # --- rows ------------------------------------------------------------------

    def _add(self, batch: Sequence[Held | Quarantined]) -> None:
        # Nothing of the new file counts before all of it is there.
        self._database.write(lambda connection: self._add_rows(connection, batch), can_be_replayed=True)

    def _add_rows(self, connection: sqlite3.Connection, batch: Sequence[Held | Quarantined]) -> None:
        for one in batch:
            if isinstance(one, Quarantined):
                self._index.quarantine(
                    connection,
                    one.header,
                    location=one.location,
                    transfer_syntax_uid=one.transfer_syntax_uid,
                    data_set_sha256=one.data_set_sha256,
                    data_set_bytes=one.data_set_bytes,
                    provenance=one.provenance,
                    reason=one.reason,
                )
                continue
            if self._index.holds(connection, one.stored.sop_instance_uid):
                self._leave_out(self._storage.path(one.stored.location), IntegrityFailure("it is held twice"))
                continue
            above = self._index.add(connection, one.entry, one.stored)
            self._index.remember(one.entry, one.stored, above)
            self._results.add(one.stored)
            self._rebuilt.own += one.stored.is_own
            if not one.stored.is_settled:
                self._ingest.enqueue_settling(connection, [one.stored])

    def _finish(self, connection: sqlite3.Connection) -> None:
        """What follows from all rows together."""
        rebuilt = self._rebuilt
        self._index.note_rebuilt(connection)
        self._results.record(connection, at=self._clock.timestamp())
        self._completion.arrived_before(connection)
        if not rebuilt.left_out:
            # Otherwise a result may be among what is left out, and must not be made a second time.
            rebuilt.rearmed = self._completion.rearm(connection, seconds=REARM_SECONDS)
        counts = self._index.counts(connection)
        rebuilt.studies, rebuilt.instances = counts["studies"], counts["instances"]
        rebuilt.unsettled, rebuilt.quarantined = counts["unsettled"], counts["quarantined"]
        rebuilt.runs = len(self._results)


def _is_same(one: Held, other: Held) -> bool:
    return (one.stored.data_set_sha256, one.stored.received_transfer_syntax_uid) == (
        other.stored.data_set_sha256,
        other.stored.received_transfer_syntax_uid,
    )
