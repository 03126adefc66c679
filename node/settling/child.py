"""A settling process: settles what it is asked to, one instance after the other, until nobody asks.

It is forked from a clean process (``node/settling/pool.py``), opens no database and speaks with the
node over one socket. What a codec does here, it does to this process alone.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from node import logs, subordinate, work_folder
from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import AnodeError, NodeError, UnexpectedFailure
from node.settling.order import Order, decode_orders, encode_answer
from node.settling.writing import write
from node.storage.storage import Storage
from node.storage.tenure import Tenure

#: Exit status of a process that was told to end in the middle of its work.
TOLD_TO_END = 75


def main(
    connection: Connection, data_dir: str, config: StorageConfig, niceness: int, tenure: Tenure | None
) -> None:
    """Serve ``connection`` until the node closes it; the target of the process."""
    signal.signal(signal.SIGTERM, _end)
    subordinate.begin_service(niceness)
    storage = Storage(Path(data_dir), config, Clock(), tenure=tenure)
    try:
        work_folder.use_for_temporary_files(Path(data_dir))
        while True:
            for order in decode_orders(connection.recv_bytes()):
                subordinate.limit_processor_time(subordinate.cpu_seconds(order.data_set_bytes))
                connection.send_bytes(_answer(storage, order))
    except (EOFError, OSError, NodeError):
        # The node ended, or ended this process; or nothing can be written in its data directory.
        return


def _answer(storage: Storage, order: Order) -> bytes:
    try:
        return encode_answer(write(storage, order))
    except AnodeError as error:
        return encode_answer(error, logs.frames(error))
    except Exception as error:
        unexpected = UnexpectedFailure(f"{type(error).__name__}: {error}")
        return encode_answer(unexpected, logs.frames(error))


def _end(_number: int, _frame: FrameType | None) -> None:
    # Raised wherever it works, so that an unfinished file is removed on the way out; told again, it
    # must not leave that half way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TOLD_TO_END)
