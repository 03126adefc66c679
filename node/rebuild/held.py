"""What the archive and the receive log say of an instance, read back as its row in the index had it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from node.config.settings import LimitsConfig
from node.errors import IntegrityFailure
from node.index.entry import Entry
from node.index.index import Provenance, StoredInstance
from node.ingest.duplicates import CONFLICTS
from node.ingest.header import Header, HeaderReader
from node.ingest.header_memory import HeaderMemory
from node.ingest.made_here import carries_our_marks
from node.storage import archive
from node.storage.location import Location
from node.storage.receive_log import ReplayedRecord
from node.storage.storage import Storage
from node.transcode.restoring import noted, received_start

# Nearly every header ends before.
_ENOUGH_FOR_A_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Held:
    """An instance to be indexed."""

    entry: Entry
    stored: StoredInstance


@dataclass(frozen=True)
class Quarantined:
    """Something in quarantine to be listed, as ``Index.quarantine`` takes it."""

    header: Header
    location: Location
    transfer_syntax_uid: str
    data_set_sha256: str
    data_set_bytes: int
    provenance: Provenance
    reason: str


class Reader:
    """Reads one instance after the other; those of a series in a row are read faster.

    Whatever it raises is one of ``ingest.OF_A_RECORD``: what is wrong with the one file or record.
    """

    def __init__(self, storage: Storage, limits: LimitsConfig) -> None:
        self._storage = storage
        self._limits = limits
        self._memory = HeaderMemory()

    def provenance(self, location: Location) -> Provenance:
        """Where the instance of an archive file came from."""
        return _provenance(self._private(location))

    def archived(self, location: Location) -> Held | Quarantined:
        """Read an archive file: its proof, and the header of what was received."""
        private = self._private(location)
        provenance, received, stored = _provenance(private), private["received"], private["stored"]
        syntax, digest = str(received["transfer_syntax_uid"]), str(received["sha256"])
        with self._storage.open(location) as data_set:
            if "frames" in stored:
                header = self._header_of_start(received_start(data_set, private), syntax)
            else:
                header = self._header(data_set, str(stored["transfer_syntax_uid"]))
        if location.path == archive.quarantine_path(header.sop_instance_uid, digest):
            reason = str(private["kept_reason"]).removeprefix(CONFLICTS)
            return Quarantined(header, location, syntax, digest, int(received["length"]), provenance, reason)
        if location.path != archive.relative_path(header.sop_instance_uid):
            raise IntegrityFailure("the file is not named after the instance that is in it")
        proof = noted(private)
        proof["received"] = {key: value for key, value in received.items() if key != "provenance"}
        return self._held(
            header,
            location,
            digest,
            int(received["length"]),
            provenance,
            received_transfer_syntax_uid=syntax,
            stored_transfer_syntax_uid=str(stored["transfer_syntax_uid"]),
            kept_reason=str(private["kept_reason"]),
            proof=proof,
        )

    def recorded(self, record: ReplayedRecord) -> Held:
        """Read a record of the receive log."""
        with self._storage.open(record.location) as data_set:
            header = self._header(data_set, record.transfer_syntax_uid)
        return self._held(
            header,
            record.location,
            record.data_set_sha256,
            record.data_set_bytes,
            Provenance.from_json(record.provenance),
        )

    def _private(self, location: Location) -> dict[str, Any]:
        return archive.read_private(self._storage.path(location))

    def _header(self, data_set: BinaryIO, transfer_syntax_uid: str) -> Header:
        reader = HeaderReader(transfer_syntax_uid, self._limits, self._memory)
        if not reader.read_start(data_set.read(_ENOUGH_FOR_A_HEADER_BYTES)):
            reader.check_rest(data_set)
        return reader.header

    def _header_of_start(self, start: bytes, transfer_syntax_uid: str) -> Header:
        reader = HeaderReader(transfer_syntax_uid, self._limits, self._memory)
        if not reader.read_start(start):
            raise IntegrityFailure("the received header of an instance is damaged")
        return reader.header

    def _held(
        self,
        header: Header,
        location: Location,
        data_set_sha256: str,
        data_set_bytes: int,
        provenance: Provenance,
        *,
        received_transfer_syntax_uid: str = "",
        stored_transfer_syntax_uid: str = "",
        kept_reason: str = "",
        proof: dict[str, Any] | None = None,
    ) -> Held:
        stored = StoredInstance(
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            received_transfer_syntax_uid=received_transfer_syntax_uid or header.transfer_syntax_uid,
            stored_transfer_syntax_uid=stored_transfer_syntax_uid or header.transfer_syntax_uid,
            data_set_sha256=data_set_sha256,
            data_set_bytes=data_set_bytes,
            location=location,
            is_settled=proof is not None,
            kept_reason=kept_reason,
            proof=proof,
            is_own=provenance.own or carries_our_marks(header),
            provenance=provenance,
        )
        return Held(Entry.of(header), stored)


def received_as(held: Held, provenance: Provenance) -> Held:
    """The same with the provenance of who sent it first."""
    return replace(held, stored=replace(held.stored, provenance=provenance))


def _provenance(private: dict[str, Any]) -> Provenance:
    facts = private["received"]["provenance"]
    if not isinstance(facts["received_at"], int | float):
        raise IntegrityFailure("the proof in an archive file is damaged")
    return Provenance.from_facts(facts)
