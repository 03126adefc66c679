"""Memory that a model takes of the kernel and that counts to no process: seen in its namespaces alone."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from node.processes.system_calls import Unconfined, write

_SYSTEM_V = Path("/proc/sysvipc")
#: For each table of System V the column that counts, and at most so many bytes for each of what it counts.
_COLUMNS = {"shm": ("rss", 1), "sem": ("nsems", 128), "msg": ("cbytes", 1)}
#: Many times what anybody needs: semaphores (of a set, of all, of a call, sets), and queues of messages.
_LIMITS = {"sem": "250 32000 32 128", "msgmni": "32"}

# Linux: sock_diag(7), for the sockets of a machine that have files or no address at all.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, _DONE, _ERROR = 4, 20, 0x301, 3, 2
_ALL_STATES, _SHOW_MEMORY, _MEMORY = 0xFFFFFFFF, 0x20, 5
_HEADER, _ATTRIBUTE, _MESSAGE_BYTES = struct.Struct("=IHHII"), struct.Struct("=HH"), 16
_ANSWER_BYTES = 65536


def limit() -> None:
    """Limit it for the namespace of this process, where that is permitted: to root, most often."""
    for name, most in _LIMITS.items():
        with suppress(Unconfined):
            write(f"/proc/sys/kernel/{name}", most)


def held_bytes(*, with_sockets: bool) -> int:
    """Segments, semaphores and messages of System V, and ``with_sockets`` what lies in local sockets."""
    return sum(map(_system_v_bytes, _COLUMNS)) + (_socket_bytes() if with_sockets else 0)


def _system_v_bytes(table: str) -> int:
    column, each = _COLUMNS[table]
    try:
        lines = (_SYSTEM_V / table).read_text().splitlines()
    except OSError:
        return 0
    at = lines[0].split().index(column) if lines else 0
    return each * sum(int(line.split()[at]) for line in lines[1:])


def _socket_bytes() -> int:
    """What was sent to local sockets and not received; 0 where the system does not say."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_MEMORY, 0, 0)
    taken = 0
    # One that is not permitted tells nothing.
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
        asking.send(
            _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request
        )
        while True:
            answer = asking.recv(_ANSWER_BYTES)
            for kind, body in _messages(answer):
                if kind in (_DONE, _ERROR):
                    return taken
                taken += sum(_sent(body))
    return taken


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(answer) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(answer)
        yield kind, answer[_HEADER.size : length]
        answer = answer[_aligned(length) :]


def _sent(message: bytes) -> Iterator[int]:
    """Yield what a socket is charged for: what it sent and nobody received."""
    rest = message[_MESSAGE_BYTES:]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _MEMORY:
            # SK_MEMINFO_WMEM_ALLOC is the third.
            yield struct.unpack_from("=I", rest, _ATTRIBUTE.size + 8)[0]
        rest = rest[_aligned(length) :]


def _aligned(length: int) -> int:
    return max(length + 3 & ~3, 4)
