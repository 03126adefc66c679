"""A node's inside without its wire: database, storage, queue and ingest on one data directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config, StorageConfig
from node.index import database, schema
from node.index.database import Database
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.ingest import Ingest, Receipt
from node.jobs import listing
from node.jobs.queue import Queue
from node.storage.receive_log import ReplayedRecord
from node.storage.storage import Storage

EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass
class Bench:
    """The rooms that ingest works with, and ingest."""

    data_dir: Path
    config: Config
    database: Database
    index: Index
    storage: Storage
    queue: Queue
    completion: Completion
    ingest: Ingest

    def receive(
        self,
        data_set: bytes | Iterable[bytes],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str = EXPLICIT,
        calling_ae_title: str = "CT1",
    ) -> Receipt:
        """Receive an encoded data set in fragments of 1000 bytes, or in those given."""
        if isinstance(data_set, bytes):
            whole = memoryview(data_set)
            data_set = (whole[start : start + 1000] for start in range(0, len(whole), 1000))
        return self.ingest.receive(
            ([fragment] for fragment in data_set),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            provenance=Provenance(calling_ae_title, "ANODE", "192.0.2.1", 7, 1.0),
        )

    @contextmanager
    def restarted(self) -> Iterator[Bench]:
        """Stop, and start anew on the same data directory."""
        self.close()
        with ingest_bench(self.data_dir, self.config) as another:
            yield another

    def records(self) -> list[ReplayedRecord]:
        """All whole records of the receive log, as a start would find them."""
        storage = Storage(self.data_dir, self.config.storage, Clock())
        return list(storage.replay())

    def close(self) -> None:
        """Stop; harmless the second time."""
        self.storage.close()
        self.database.close()

    def held(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance under this UID."""
        with self.database.read() as connection:
            return self.index.get(connection, sop_instance_uid)

    def bytes_of(self, stored: StoredInstance) -> bytes:
        """The data set of a held instance as it is stored."""
        with self.storage.open(stored.location) as file:
            return file.read()

    def jobs(self, kind: str) -> list[dict[str, Any]]:
        """The jobs of one kind."""
        with self.database.read() as connection:
            return listing.jobs(connection, kind=kind, limit=1000)

    def quarantined(self) -> list[dict[str, Any]]:
        """The rows of the quarantine."""
        with self.database.read() as connection:
            return self.index.quarantined(connection)


@contextmanager
def ingest_bench(data_dir: Path, config: Config | None = None) -> Iterator[Bench]:
    """Open everything below ``data_dir`` as a start of the node does, and close it again."""
    config = config or Config(storage=StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=0))
    clock = Clock()
    data_dir.mkdir(parents=True, exist_ok=True)
    index_database = Database(data_dir / database.FILE_NAME, clock=clock, schema=schema.STATEMENTS)
    storage = Storage(data_dir, config.storage, clock, reclaim_grace_seconds=0.0)
    index, queue, completion = Index(clock), Queue(clock, index_database), Completion(config, clock)
    ingest = Ingest(
        config=config,
        clock=clock,
        database=index_database,
        index=index,
        storage=storage,
        queue=queue,
        completion=completion,
    )
    bench = Bench(data_dir, config, index_database, index, storage, queue, completion, ingest)
    try:
        yield bench
    finally:
        bench.close()
