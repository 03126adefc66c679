"""A connection to a peer whose every byte is known beforehand: no socket, no thread, no clock."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Literal

from node.wire.connection import Connection

_LENGTH = struct.Struct(">I")
# a number that is no open file; nothing polls it
_NO_DESCRIPTOR = 0x7FFFFFFF


class End(Enum):
    """What the peer does once it has sent everything."""

    CLOSES = 0
    STALLS = 1
    RESETS = 2


class Turns(Enum):
    """When the peer sends what it has to say."""

    PATIENT = 0
    """A PDU at a time, and the next one when the node waits for it."""
    EAGER = 1
    """Everything at once, when it has its first answer."""
    HASTY = 2
    """Everything at once."""


class Time:
    """Stands for the module ``time``: it passes only where somebody waits in vain."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += max(seconds, 0.0)


class Spins(AssertionError):
    """The node asks a peer again and again that has nothing more to say."""


class _PeerSocket:
    """As much of a socket as ``Connection`` uses."""

    def __init__(self, incoming: bytes, end: End, turns: Turns, pieces: Iterator[int]) -> None:
        self._incoming = memoryview(incoming)
        self._at = self._turn_end = 0
        self._end = end
        self._turns = turns
        self._pieces = pieces
        self._is_shut = False
        self._patience = 256 + 16 * len(incoming)
        self.sent = bytearray()
        if turns is Turns.HASTY:
            self._turn_end = len(incoming)

    def is_ready(self, *, is_waited_for: bool) -> bool:
        """Whether a byte or the end is here, or comes when it is waited for."""
        self._patience -= 1
        if self._patience < 0:
            raise Spins("too many calls for what the peer has sent")
        if self._at < self._turn_end or self._is_shut:
            return True
        if not is_waited_for:
            # of a peer that waits its turn nothing is seen before, and not its end either
            return self._turns is not Turns.PATIENT and self._is_over
        if self._at < len(self._incoming):
            self._turn_end = self._next_turn_end()
            return True
        return self._is_over

    @property
    def _is_over(self) -> bool:
        return self._at == len(self._incoming) and self._end is not End.STALLS

    def _next_turn_end(self) -> int:
        whole = len(self._incoming)
        if whole - self._at < 6 or (self._turns is Turns.EAGER and self.sent):
            return whole
        (length,) = _LENGTH.unpack_from(self._incoming, self._at + 2)
        return min(self._at + 6 + length, whole)

    def recv_into(self, view: memoryview) -> int:
        if not self.is_ready(is_waited_for=True):
            raise BlockingIOError
        if self._at == len(self._incoming) or self._is_shut:
            if self._end is End.RESETS:
                raise ConnectionResetError(104, "Connection reset by peer")
            return 0
        count = min(len(view), next(self._pieces), self._turn_end - self._at)
        view[:count] = self._incoming[self._at : self._at + count]
        self._at += count
        return count

    def sendmsg(self, buffers: Sequence[Any], ancillary: Any = (), flags: int = 0) -> int:
        return sum(self.send(buffer, flags) for buffer in buffers)

    def send(self, data: Any, flags: int = 0) -> int:
        if self._is_shut or (self._end is End.RESETS and self._at == len(self._incoming)):
            raise BrokenPipeError(32, "Broken pipe")
        if self._turns is Turns.EAGER and not self.sent:
            self._turn_end = len(self._incoming)
        self.sent += data
        return len(data)

    def shutdown(self, how: int) -> None:
        self._is_shut = True

    def fileno(self) -> int:
        return _NO_DESCRIPTOR

    def settimeout(self, seconds: float | None) -> None: ...

    def setsockopt(self, level: int, name: int, value: Any) -> None: ...

    def close(self) -> None: ...


class MemoryConnection(Connection):
    """The node's own connection over ``incoming``, which is all that the peer sends.

    Parameters
    ----------
    end
        What the peer does then.
    turns
        When it sends.
    time
        Passes while the node waits for a peer that stalls.
    piece_bytes
        How much one system call brings; 0 is as much as fits.
    """

    def __init__(
        self,
        incoming: bytes,
        *,
        time: Time,
        end: End = End.CLOSES,
        turns: Turns = Turns.PATIENT,
        piece_bytes: Sequence[int] = (),
    ) -> None:
        pieces = itertools.cycle(piece_bytes or (len(incoming) + 1,))
        self._peer = _PeerSocket(incoming, end, turns, pieces)
        self._time = time
        self._is_woken = False
        super().__init__(self._peer, timeout_seconds=1.0)  # type: ignore[arg-type]

    @property
    def sent(self) -> bytes:
        """Everything that was sent to the peer."""
        return bytes(self._peer.sent)

    @property
    def is_closed(self) -> bool:
        """Whether the node has closed it."""
        return self._is_closed

    def is_readable(self, seconds: float = 0.0) -> bool:
        return self._peer.is_ready(is_waited_for=seconds != 0.0) or self._waited(seconds)

    def wait(self, seconds: float) -> Literal["data", "woken", "timeout"]:
        if self._is_woken:
            self._is_woken = False
            return "woken"
        return "data" if self._peer.is_ready(is_waited_for=True) or self._waited(seconds) else "timeout"

    def _waited(self, seconds: float) -> bool:
        self._time.pass_by(seconds)
        return False

    def wake(self) -> None:
        self._is_woken = True
