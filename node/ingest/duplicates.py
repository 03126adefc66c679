"""A SOP Instance UID that is held already: the same instance again, or other content."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import BinaryIO

from node.clock import Clock
from node.config.settings import Config
from node.errors import ConflictingInstance, IntegrityFailure, StorageFailure, TransientFailure
from node.index.database import Database
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.header import Header
from node.ingest.sameness import Copy, difference
from node.storage import archive, disk
from node.storage.storage import Storage
from node.transcode.outgoing import Outgoing
from node.verification import problem_of

logger = logging.getLogger(__name__)

#: Begins what the archive file of something in quarantine says of why it is there.
CONFLICTS = "conflicts with the instance that is held: "
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """What came of comparing a copy with the instance that is held.

    Attributes
    ----------
    held : StoredInstance
        The row that was compared, as it was then.
    difference : str
        In what the contents differ; empty when they are the same.
    damage : str
        Why what is held is not proven to be what was acknowledged; empty when it is.
    is_repair : bool
        What is held is damaged, and the copy is byte for byte what was acknowledged.
    """

    held: StoredInstance
    difference: str = ""
    damage: str = ""
    is_repair: bool = False


class Duplicates:
    """Compares copies with what is held, and keeps what conflicts with it."""

    def __init__(
        self, config: Config, clock: Clock, database: Database, index: Index, storage: Storage
    ) -> None:
        self._limits = config.limits
        self._clock = clock
        self._database = database
        self._index = index
        self._storage = storage

    def is_held(self, sop_instance_uid: str) -> bool:
        """Whether an instance is held under this UID now."""
        with self._database.look() as connection:
            return self._index.holds(connection, sop_instance_uid)

    def held(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance that is held under this UID now."""
        with self._database.read() as connection:
            return self._index.get(connection, sop_instance_uid)

    def check(
        self,
        data_set: BinaryIO,
        data_set_sha256: str,
        header: Header,
        held: StoredInstance,
        provenance: Provenance,
    ) -> Comparison:
        """Compare a copy with what is held; return when it is the same, or can repair what is held.

        Raises
        ------
        ConflictingInstance
            It is not the same, or what is held is damaged so that nobody can tell. What is held
            stays as it is, and the copy is durable in quarantine.
        NodeError
            It could not be compared or kept.
        """
        comparison = self.compare(data_set, data_set_sha256, header, held)
        if comparison.is_repair:
            return comparison
        if comparison.damage:
            self._note_damage(comparison)
            reason = f"the held copy is damaged; this one cannot be compared: {comparison.damage}"
            self._quarantine(data_set, data_set_sha256, header, provenance, reason)
            raise ConflictingInstance("the held copy is damaged; this one is kept in quarantine")
        if comparison.difference:
            self._quarantine(data_set, data_set_sha256, header, provenance, comparison.difference)
            raise ConflictingInstance(f"other content is held under this UID: {comparison.difference}")
        return comparison

    def compare(
        self, data_set: BinaryIO, data_set_sha256: str, header: Header, held: StoredInstance
    ) -> Comparison:
        """Compare a copy with the held instance, which is proven to be what was acknowledged first.

        Raises TransientFailure when that cannot be read for now: then nothing is known of it.
        """
        while True:
            is_as_received = (held.data_set_sha256, held.received_transfer_syntax_uid) == (
                data_set_sha256,
                header.transfer_syntax_uid,
            )
            found = damage = ""
            if is_as_received:
                damage = problem_of(self._storage, held)
            else:
                try:
                    found = self._difference(data_set, header, held)
                except TransientFailure:
                    raise
                except (IntegrityFailure, StorageFailure) as error:
                    damage = str(error)
            if not damage:
                return Comparison(held, difference=found)
            now = self.held(held.sop_instance_uid)
            if now is None:
                raise StorageFailure("an instance that was held is gone from the index")
            if now.location == held.location:
                return Comparison(held, damage=damage, is_repair=is_as_received)
            # Settling has moved it since its row was read.
            held = now

    def _difference(self, data_set: BinaryIO, header: Header, held: StoredInstance) -> str:
        # All of it is restored and its digest checked before a byte counts.
        try:
            restored = Outgoing(self._storage, held).data_set(held.received_transfer_syntax_uid)
        except OSError as error:
            raise disk.failure(error, "restoring an instance to compare it") from error
        with BytesIO(restored) if isinstance(restored, bytes) else restored as file:
            return difference(
                Copy(data_set, header.transfer_syntax_uid),
                Copy(file, held.received_transfer_syntax_uid),
                self._limits,
            )

    def _note_damage(self, comparison: Comparison) -> None:
        """Show the damage as ``anode verify`` does, for a person has to act."""
        held, now = comparison.held, self._clock.timestamp()
        logger.error("a held instance is damaged", extra={"problem": comparison.damage})

        def mark(connection: sqlite3.Connection) -> None:
            row = self._index.get(connection, held.sop_instance_uid)
            if row is not None and row.location == held.location:
                self._index.mark_verified(connection, held.sop_instance_uid, now, comparison.damage)

        self._database.write(mark)

    def _quarantine(
        self,
        data_set: BinaryIO,
        data_set_sha256: str,
        header: Header,
        provenance: Provenance,
        reason: str,
    ) -> None:
        """Keep a copy: a durable file and its row, once, however often a sender tries."""
        with self._database.read() as connection:
            is_kept = any(
                row["sop_instance_uid"] == header.sop_instance_uid
                and row["data_set_sha256"] == data_set_sha256
                for row in self._index.quarantined(connection)
            )
        if is_kept:
            return
        data_set_bytes = data_set.seek(0, os.SEEK_END)
        data_set.seek(0)
        as_received = {"transfer_syntax_uid": header.transfer_syntax_uid, "length": data_set_bytes}
        meta = archive.part10(
            header.sop_class_uid,
            header.sop_instance_uid,
            header.transfer_syntax_uid,
            {
                "format": 1,
                "received": {
                    **as_received,
                    "sha256": data_set_sha256,
                    "provenance": json.loads(provenance.to_json()),
                },
                "stored": as_received,
                "kept_reason": f"{CONFLICTS}{reason}",
                "at": self._clock.timestamp(),
            },
            provenance,
        )
        location = self._storage.settle_quarantine(
            header.sop_instance_uid, data_set_sha256, chain([meta], _chunks(data_set))
        )
        self._database.write(
            lambda connection: self._index.quarantine(
                connection,
                header,
                location=location,
                transfer_syntax_uid=header.transfer_syntax_uid,
                data_set_sha256=data_set_sha256,
                data_set_bytes=data_set_bytes,
                provenance=provenance,
                reason=reason,
            )
        )
        logger.warning("instance quarantined", extra={"calling_ae_title": provenance.calling_ae_title})


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
