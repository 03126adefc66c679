"""Received bytes that have not been looked at yet: one system call brings as much as there is."""

from __future__ import annotations

import threading
from struct import Struct
from typing import Any, Literal

from node.wire.connection import Connection

_NARROW_BYTES = 4096
_WIDE_BYTES = 256 * 1024
_MOST_SPARE = 16
# a data set of which less is to come needs no wide buffer
_WORTH_WIDENING_BYTES = 1024
# a sender in the middle of its work sends again before
_REST_SECONDS = 1.0

_spare: list[memoryview] = []
_lending = threading.Lock()


class ReceiveBuffer:
    """Bytes between the socket and the PDUs; used by one thread.

    It is narrow while an association is idle, so that hundreds of them cost little, and wide from a
    data set on until a second after the last. Wide buffers are lent from a pool that all associations
    share.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._narrow = memoryview(bytearray(_NARROW_BYTES))
        self._buffer = self._narrow
        self._begin = 0
        self._end = 0

    @property
    def available(self) -> int:
        """How many bytes are here already."""
        return self._end - self._begin

    def need(self, count: int) -> None:
        """Wait until ``count`` bytes are here, 4096 at most; views that were taken are invalid then."""
        missing = count - (self._end - self._begin)
        if missing <= 0:
            return
        if self._begin:
            left = bytes(self._buffer[self._begin : self._end])
            self._buffer[: len(left)] = left
            self._begin, self._end = 0, len(left)
        self._end += self._connection.receive_some(self._buffer[self._end :], missing)

    def take(self, most: int) -> memoryview:
        """Take up to ``most`` bytes, at least one, waiting for it where none is here.

        The view is valid until bytes are waited for again.
        """
        if self._begin == self._end:
            self._begin = 0
            self._end = 0  # what is received may fail
            if most >= _WORTH_WIDENING_BYTES and self._buffer is self._narrow:
                self._widen()
            self._end = self._connection.receive_some(self._buffer)
        begin = self._begin
        self._begin = min(begin + most, self._end)
        return self._buffer[begin : self._begin]

    def peek(self, layout: Struct) -> tuple[Any, ...] | None:
        """Unpack the next bytes without taking them; None where they are not all here already."""
        if self._end - self._begin < layout.size:
            return None
        return layout.unpack_from(self._buffer, self._begin)

    def skip(self, count: int) -> None:
        """Take ``count`` bytes that are here, without a look at them."""
        self._begin += count

    def gather(self, count: int) -> bool:
        """Take in what is there without waiting; whether ``count`` bytes are here, or all that fit."""
        while self._end - self._begin < min(count, len(self._buffer)):
            if not self._connection.is_readable():
                return False
            self.need(self._end - self._begin + 1)
        return True

    def is_readable(self, seconds: float = 0.0) -> bool:
        """Whether a byte, or the end of the stream, is there within ``seconds``."""
        return self._end > self._begin or self._connection.is_readable(seconds)

    def wait(self, seconds: float) -> Literal["data", "woken", "timeout"]:
        """Sleep until the peer sends, another thread calls ``Connection.wake``, or ``seconds`` passed."""
        if self._end > self._begin:
            return "data"
        if self._buffer is not self._narrow:
            ready = self._connection.wait(min(seconds, _REST_SECONDS))
            if ready != "timeout" or seconds <= _REST_SECONDS:
                return ready
            self.give_back()
            seconds -= _REST_SECONDS
        return self._connection.wait(seconds)

    def receive_before(self, view: memoryview, deadline: float) -> None:
        """Fill the whole of ``view`` before ``deadline`` (``time.monotonic``)."""
        count = min(len(view), self._end - self._begin)
        if count:
            view[:count] = self.take(count)
        if count < len(view):
            self._connection.receive_before(view[count:], deadline)

    def _widen(self) -> None:
        """Borrow a wide buffer; nothing is in the narrow one."""
        with _lending:
            wide = _spare.pop() if _spare else None
        self._buffer = memoryview(bytearray(_WIDE_BYTES)) if wide is None else wide

    def give_back(self) -> None:
        """Give the wide buffer back, unless something is in it; views that were taken are invalid then."""
        wide = self._buffer
        if wide is self._narrow or self._begin < self._end:
            return
        self._buffer = self._narrow
        self._begin = self._end = 0
        with _lending:
            if len(_spare) < _MOST_SPARE:
                _spare.append(wide)
