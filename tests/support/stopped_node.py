"""A data directory as a node leaves it, and the command line over it: nothing runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.__main__ import main
from node.cli.exclusive import writable
from node.config import config_file
from node.config.settings import Config
from node.index.database import FILE_NAME
from node.index.index import Provenance, StoredInstance
from node.services import Services
from node.settling import writing
from node.settling.choices import Choices
from node.settling.order import Settled
from node.storage.guard import DataDirectory
from tests.support import made

EXPLICIT = "1.2.840.10008.1.2.1"


class StoppedNode:
    """``config.toml`` and ``data`` in ``folder``; each of the calls opens and closes all of it."""

    def __init__(self, folder: Path, configuration: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "config.toml"
        self.file.write_text(
            "[node]\nport = 0\n[storage]\nsegment_bytes = 1048576\nfree_space_reserve_bytes = 1000\n"
            f'[transcode]\nto = "rle"\n{configuration}'
        )
        self.data_dir = folder / "data"

    @property
    def config(self) -> Config:
        return config_file.load(self.file)

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The rooms of the node, locked as it does."""
        directory = DataDirectory.beside(self.data_dir, self.file)
        directory.open()
        try:
            directory.check_archive(holds_settled=False)
            directory.check_log([], holds_instances=False)
            with writable(self.config) as services:
                yield services
        finally:
            directory.close()

    def receive(self, *data_sets: Dataset, is_settled: bool = False) -> list[str]:
        """Take instances in; return their SOP Instance UIDs."""
        with self.services() as services:
            services.ingest.replay()
            for data_set in data_sets:
                services.ingest.receive(
                    [[made.encoded(data_set)]],
                    sop_class_uid=data_set.SOPClassUID,
                    sop_instance_uid=data_set.SOPInstanceUID,
                    transfer_syntax_uid=EXPLICIT,
                    provenance=Provenance("SCANNER", "ANODE", "10.0.0.9", 1, services.clock.timestamp()),
                )
            if is_settled:
                for data_set in data_sets:
                    settle(services, str(data_set.SOPInstanceUID))
        return [str(data_set.SOPInstanceUID) for data_set in data_sets]

    def run(self, capture: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
        """Run a command; return what it says, standard error first."""
        capture.readouterr()
        found = main([*arguments, "--config", str(self.file)])
        said = capture.readouterr()
        assert found == status, said.err + said.out
        return said.err + said.out

    def json(self, capture: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
        """Run a command with ``--json``; return what it prints."""
        capture.readouterr()
        found = main([*arguments, "--json", "--config", str(self.file)])
        said = capture.readouterr()
        assert found == status, said.err + said.out
        return json.loads(said.out)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """All rows of a table of the index."""
        connection = sqlite3.connect(self.data_dir / FILE_NAME)
        try:
            return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
        finally:
            connection.close()

    def digests(self) -> dict[str, str]:
        """SHA-256 as received, by SOP Instance UID."""
        return dict(self.query("SELECT SOPInstanceUID, data_set_sha256 FROM instance"))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        connection = sqlite3.connect(self.data_dir / FILE_NAME)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def files(self) -> dict[str, bytes]:
        """The archive's files by their place."""
        archive = self.data_dir / "archive"
        return {str(path.relative_to(archive)): path.read_bytes() for path in archive.rglob("*.dcm")}

    def archive_file(self, sop_instance_uid: str) -> Path:
        """The archive file of a settled instance."""
        with self.services() as services:
            return services.storage.path(stored(services, sop_instance_uid).location)


def stored(services: Services, sop_instance_uid: str) -> StoredInstance:
    """The row of an instance."""
    with services.database.read() as connection:
        found = services.index.get(connection, sop_instance_uid)
    assert found is not None
    return found


def settle(services: Services, sop_instance_uid: str) -> None:
    """Settle an instance, as the processes of a node do."""
    row = stored(services, sop_instance_uid)
    order = Choices().order(services, row, {})
    (settled,) = writing.finish(services.storage, [writing.begin(services.storage, order)])
    assert isinstance(settled, Settled)
    (job,) = services.queue.lease({"settle": 1}, seconds=60, owner="test")

    def apply(connection: sqlite3.Connection) -> None:
        services.index.settle(
            connection,
            sop_instance_uid,
            location=settled.location,
            stored_transfer_syntax_uid=settled.transfer_syntax_uid,
            kept_reason=settled.kept_reason,
            proof=settled.proof,
        )
        services.queue.finish(connection, job)

    services.database.write(apply)
