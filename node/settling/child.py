"""A settling process: settles what it is asked to, until nobody asks.

The instances of a message are encoded and proven one after the other, and their files made durable together.

It is forked from a clean process (``node/settling/pool.py``), opens no database and speaks with the
node over one socket. What a codec does here, it does to this process alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from multiprocessing.connection import Connection
from pathlib import Path

from node import logs, subordinate, work_folder
from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import AnodeError, NodeError, UnexpectedFailure
from node.settling.order import WORKED, Answer, Order, decode_orders, encode_answers
from node.settling.writing import Begun, begin, finish
from node.storage.storage import Storage
from node.storage.tenure import Tenure

#: Files are made durable together until their instances are so long.
_TOGETHER_BYTES = 64 << 20


def main(
    connection: Connection, data_dir: str, config: StorageConfig, niceness: int, tenure: Tenure | None
) -> None:
    """Serve ``connection`` until the node closes it; the target of the process."""
    subordinate.begin_service(niceness)
    storage = Storage(Path(data_dir), config, Clock(), tenure=tenure)
    try:
        work_folder.use_for_temporary_files(Path(data_dir))
        while True:
            for message in _messages(storage, decode_orders(connection.recv_bytes())):
                connection.send_bytes(message)
    except (EOFError, OSError, NodeError):
        # The node ended, or ended this process; or nothing can be written in its data directory.
        return


def _messages(storage: Storage, orders: Sequence[Order]) -> Iterator[bytes]:
    """Settle instances; yield ``WORKED`` for each, and the answers in their order, some at a time."""
    group: list[Begun | Answer] = []
    size = 0
    for order in orders:
        subordinate.limit_processor_time(subordinate.cpu_seconds(order.data_set_bytes))
        if group and size + order.data_set_bytes > _TOGETHER_BYTES:
            yield encode_answers(_finished(storage, group))
            group, size = [], 0
        group.append(_begun(storage, order))
        size += order.data_set_bytes
        yield WORKED
    yield encode_answers(_finished(storage, group))


def _begun(storage: Storage, order: Order) -> Begun | Answer:
    """Begin an instance; the answer where that fails."""
    try:
        return begin(storage, order)
    except AnodeError as error:
        return Answer(error, logs.frames(error))
    except Exception as error:
        return _unforeseen(error)


def _finished(storage: Storage, group: Sequence[Begun | Answer]) -> Iterator[Answer]:
    """Finish what was begun; yield the answers."""
    begun = [one for one in group if isinstance(one, Begun)]
    answers: Iterator[Answer]
    try:
        answers = map(Answer, finish(storage, begun))
    except Exception as error:
        answers = repeat(_unforeseen(error))
    for one in group:
        yield next(answers) if isinstance(one, Begun) else one


def _unforeseen(error: Exception) -> Answer:
    return Answer(UnexpectedFailure(f"{type(error).__name__}: {error}"), logs.frames(error))
