"""A process that writes to a receive log and says what is durable, until it is killed.

``python -m tests.support.log_writer FOLDER SEED ROUNDS``: after so many rounds of records of
random sizes it begins one that goes on over many segments, says so, and waits.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

from node.clock import Clock
from node.config.settings import StorageConfig
from node.storage.record import BLOCK_BYTES
from node.storage.storage import Storage

SYNTAX = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 16 * BLOCK_BYTES
IN_THE_MIDDLE = "in the middle"


def storage_in(folder: Path) -> Storage:
    """The receive log of the process, of small segments."""
    config = StorageConfig(segment_bytes=SEGMENT_BYTES, spare_segments=8, free_space_reserve_bytes=0)
    return Storage(folder, config, Clock(), reclaim_grace_seconds=0.0)


def _say(line: str) -> None:
    # In one call, so that the lines of two threads stay apart.
    os.write(1, f"{line}\n".encode())


def _receive(storage: Storage, chance: random.Random) -> None:
    data = chance.randbytes(chance.choice((1, 5000, SEGMENT_BYTES, 7 * SEGMENT_BYTES)) + chance.randrange(9))
    is_given_up = chance.random() < 0.2
    with storage.begin() as reception:
        for start in range(0, len(data), 20_000):
            reception.write([data[start : start + 20_000]])
        if is_given_up:
            return
        reception.commit(SYNTAX, "{}")
    _say(reception.sha256)


def _write(folder: Path, seed: int, rounds: int) -> None:
    storage = storage_in(folder)
    list(storage.replay())
    storage.prepare(lambda segment: True)

    def associate(number: int) -> None:
        chance = random.Random(seed * 10 + number)
        for _ in range(rounds):
            _receive(storage, chance)

    threads = [threading.Thread(target=associate, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with storage.begin() as reception:
        for _ in range(50):
            reception.write([bytes(SEGMENT_BYTES // 3)])
        _say(IN_THE_MIDDLE)
        sys.stdin.read()


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
