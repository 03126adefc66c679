"""A process that makes the ends of runs: reads and decodes series, and turns findings into DICOM objects.

Both take long and hold what a process shares: the interpreter's lock, memory, the fate of a faulty codec.
The node answers scanners meanwhile. Like the processes that settle it opens no database.
"""

from __future__ import annotations

import gc
import json
from multiprocessing.connection import Connection
from pathlib import Path

from node import subordinate, work_folder
from node.clock import Clock
from node.config.settings import LimitsConfig, StorageConfig
from node.errors import NodeError
from node.index.index import StoredInstance
from node.processes.child import NICENESS
from node.storage.storage import Storage


def main(connection: Connection, data_dir: str, config: StorageConfig, limits: LimitsConfig) -> None:
    """Serve ``connection`` until the node closes it; the target of the process."""
    subordinate.begin_service(NICENESS)
    # The node, which has to load this module, needs none of these libraries.
    from node.analysis.analyst import Analyst
    from node.series.source_series import Holdings

    gc.freeze()
    storage = Storage(Path(data_dir), config, Clock())
    holdings = Holdings(storage, limits, _Asking(connection))
    analyst = Analyst(holdings, reserve_bytes=config.free_space_reserve_bytes)
    try:
        work_folder.use_for_temporary_files(Path(data_dir))
        while True:
            for part in analyst.answer(connection.recv()):
                connection.send_bytes(part)
    except (EOFError, OSError, NodeError):
        # The node ended, or ended this process; or nothing can be written in its data directory.
        return
    finally:
        storage.close()


class _Asking:
    """Asks the node where an instance is now that is not where it should be."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, stored: StoredInstance, problem: str) -> StoredInstance | None:
        asked = {"unread": stored.sop_instance_uid, "problem": problem}
        self._connection.send_bytes(json.dumps(asked).encode())
        now: StoredInstance | None = self._connection.recv()
        return now
