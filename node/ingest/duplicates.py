"""A SOP Instance UID that is held already: the same instance again, or other content."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, cast

from node.clock import Clock
from node.config.settings import Config
from node.errors import ConflictingInstance, StorageFailure
from node.index.database import Database
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.header import Header
from node.ingest.sameness import Copy, difference
from node.storage import archive
from node.storage.storage import Storage
from node.transcode.restoring import restore

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 64 << 20


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
    ) -> None:
        """Return when a copy is the instance that is held.

        Raises
        ------
        ConflictingInstance
            It is not. What is held stays as it is, and the copy is durable in quarantine.
        NodeError
            It could not be compared or kept.
        """
        found = self.difference(data_set, data_set_sha256, header, held)
        if found:
            self._quarantine(data_set, data_set_sha256, header, provenance, found)
            raise ConflictingInstance(f"other content is held under this UID: {found}")

    def difference(
        self, data_set: BinaryIO, data_set_sha256: str, header: Header, held: StoredInstance
    ) -> str:
        """In what a copy differs from the held instance; empty when it is the same."""
        received = (held.data_set_sha256, held.received_transfer_syntax_uid)
        if received == (data_set_sha256, header.transfer_syntax_uid):
            return ""
        with self._open(held) as file:
            return difference(
                Copy(data_set, header.transfer_syntax_uid),
                Copy(file, held.received_transfer_syntax_uid),
                self._limits,
            )

    def _open(self, held: StoredInstance) -> BinaryIO:
        """The data set of a held instance as it was received."""
        try:
            return self._restored(held)
        except StorageFailure:
            # Settling has moved it since its row was read, unless it is lost.
            moved = self.held(held.sop_instance_uid)
            if moved is None or moved.location == held.location:
                raise
            return self._restored(moved)

    def _restored(self, held: StoredInstance) -> BinaryIO:
        stored = self._storage.open(held.location)
        if not held.is_settled or held.kept_reason:
            return stored
        # What is stored need not say all: unused bits of the pixels, for one, lie in its proof.
        with stored:
            private = archive.read_private(self._storage.path(held.location))
            received = _spool()
            try:
                received.writelines(restore(stored, private))
            except BaseException:
                received.close()
                raise
            return received

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
                "kept_reason": f"conflicts with the instance that is held: {reason}",
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


def _spool() -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
