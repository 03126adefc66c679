"""What an importing command and the running node say to each other, over a socket in the data directory.

Each message is a length of four bytes and so many bytes. For each instance the command sends an offer,
in JSON, and is answered whether it is wanted. Then it sends the data set in pieces, an empty one at its
end, and is answered what became of it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SOCKET = "import.socket"
_LENGTH = struct.Struct(">L")
#: A length that says that the data set cannot be read to its end.
_GIVEN_UP = 0xFFFFFFFF
_LONGEST_BYTES = 4 << 20


class Ended(Exception):
    """The other side is gone, or does not speak this language."""


class GivenUp(Exception):
    """The command cannot read the data set to its end."""


@contextmanager
def address(data_dir: Path) -> Iterator[str]:
    """Path of the socket, short enough for the system however long the data directory's is."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{_SOCKET}"
    finally:
        os.close(folder)


class Line:
    """One side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def say(self, facts: dict[str, Any]) -> None:
        """Send JSON."""
        self.send(json.dumps(facts).encode())

    def hear(self) -> dict[str, Any]:
        """Receive JSON; raises Ended where there is none."""
        try:
            facts = json.loads(self.receive())
        except (ValueError, RecursionError) as error:
            raise Ended("the other side speaks another language") from error
        if not isinstance(facts, dict):
            raise Ended("the other side speaks another language")
        return facts

    def send(self, data: bytes) -> None:
        """Send a message; raises Ended."""
        try:
            self._socket.sendall(_LENGTH.pack(len(data)))
            self._socket.sendall(data)
        except OSError as error:
            raise Ended(f"the connection is lost: {error.strerror}") from error

    def give_up(self) -> None:
        """Say that the data set cannot be read to its end."""
        try:
            self._socket.sendall(_LENGTH.pack(_GIVEN_UP))
        except OSError as error:
            raise Ended(f"the connection is lost: {error.strerror}") from error

    def receive(self) -> bytes:
        """Receive a message; raises Ended, or GivenUp where the other side says so."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length == _GIVEN_UP:
            raise GivenUp
        if length > _LONGEST_BYTES:
            raise Ended("the other side speaks another language")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while len(view):
            try:
                received = self._socket.recv_into(view)
            except OSError as error:
                raise Ended(f"the connection is lost: {error.strerror}") from error
            if not received:
                raise Ended("the connection is lost")
            view = view[received:]
        return bytes(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
