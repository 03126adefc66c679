"""A verifying process: restores what it is asked to, and says of each whether it is what was received."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from node import subordinate, work_folder
from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import NodeError, TransientFailure
from node.index.index import StoredInstance
from node.storage.storage import Storage
from node.verification import problem_of
from node.verifying.verdict import Verdict


def main(connection: Connection, data_dir: str, config: StorageConfig, niceness: int) -> None:
    """Serve ``connection`` until it is closed; the target of the process."""
    subordinate.begin_service(niceness)
    storage = Storage(Path(data_dir), config, Clock())
    try:
        with work_folder.temporary_files(Path(data_dir)):
            while True:
                stored: StoredInstance = connection.recv()
                subordinate.limit_processor_time(subordinate.cpu_seconds(stored.data_set_bytes))
                connection.send(_verdict(storage, stored))
    except (EOFError, OSError, NodeError):
        # Who asked has ended, or ended this process; or nothing can be written in the data directory.
        return
    finally:
        storage.close()


def _verdict(storage: Storage, stored: StoredInstance) -> Verdict:
    try:
        return Verdict(problem_of(storage, stored))
    except TransientFailure as error:
        return Verdict(f"cannot be read for now: {error}", is_known=False)
