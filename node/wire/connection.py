"""A TCP connection that one thread reads and writes with blocking calls and the kernel's timeouts.

``SO_RCVTIMEO`` and ``SO_SNDTIMEO`` bound every call, so a stalling peer costs no polling and no
extra system call. Only ``shutdown``, ``wake`` and ``try_send`` may be called from other threads.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Literal

from node.errors import PeerUnreachable

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
# long enough for a send that is not held up, too short to be held up by one that is
_PATIENCE_SECONDS = 0.1
_DISCARD_BYTES = 16 * 1024**2


class ConnectionLost(PeerUnreachable):
    """The TCP connection ended without an A-RELEASE or A-ABORT."""


class PeerStalled(PeerUnreachable):
    """The peer neither sent nor took a byte for the network timeout."""


class Connection:
    """A connected TCP socket, wrapped.

    Parameters
    ----------
    connected
        The socket; from now on it is closed by ``close`` alone.
    timeout_seconds
        Longest wait for the peer's next byte, or for room for ours.
    is_wakeable
        Whether other threads may end ``wait`` by ``wake``. Costs two file descriptors.
    """

    def __init__(
        self, connected: socket.socket, *, timeout_seconds: float, is_wakeable: bool = False
    ) -> None:
        self._socket = connected
        self._sending = threading.Lock()  # held while a PDU is being written
        self._closing = threading.Lock()  # held for a moment only, so that no thread waits for a peer
        self._is_closed = False
        self.received_bytes = 0
        self.sent_bytes = 0
        self._timeout_seconds = timeout_seconds
        self._wake_reader: socket.socket | None = None
        self._wake_writer: socket.socket | None = None
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.set_timeout(timeout_seconds)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        if is_wakeable:
            self._wake_reader, self._wake_writer = socket.socketpair()
            self._wake_reader.setblocking(False)
            self._wake_writer.setblocking(False)
            self._poll.register(self._wake_reader, select.POLLIN)

    def set_timeout(self, seconds: float) -> None:
        """Change the longest wait of each later call."""
        self._timeout_seconds = seconds
        whole = int(seconds)
        packed = struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 0 if whole else 1))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)

    # --- reading ---------------------------------------------------------------

    def receive_some(self, view: memoryview, at_least: int = 1) -> int:
        """Fill ``view`` with at least ``at_least`` bytes and as many more as are there; return how many."""
        filled = 0
        while filled < at_least:
            filled += self._receive(view[filled:], 0)
        return filled

    def receive_exactly(self, view: memoryview) -> None:
        """Fill the whole of ``view``."""
        filled = 0
        while filled < len(view):
            filled += self._receive(view[filled:], socket.MSG_WAITALL)

    def receive_before(self, view: memoryview, deadline: float) -> None:
        """Fill the whole of ``view`` before ``deadline`` (``time.monotonic``), for ARTIM (PS3.8 9.1.5)."""
        filled = 0
        while filled < len(view):
            if not self.is_readable(max(deadline - time.monotonic(), 0.0)):
                raise PeerStalled("the peer did not finish its PDU in time")
            filled += self._receive(view[filled:], 0)

    def _receive(self, view: memoryview, flags: int) -> int:
        try:
            count = self._socket.recv_into(view, len(view), flags)
            if _QUICKACK is not None:
                # A sender with Nagle's algorithm holds back its last small segment until all before
                # it are acknowledged; Linux would delay that acknowledgement by 40 ms.
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except BlockingIOError as error:
            raise PeerStalled(f"the peer sent nothing for {self._timeout_seconds:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror or error}") from error
        if count == 0 and len(view):
            raise ConnectionLost("the peer closed the connection")
        self.received_bytes += count
        return count

    def is_readable(self, seconds: float = 0.0) -> bool:
        """Whether a byte, or the end of the stream, is there within ``seconds``."""
        number = self._socket.fileno()
        deadline = time.monotonic() + seconds
        while True:
            wait = max(deadline - time.monotonic(), 0.0)
            ready = self._poll.poll(_milliseconds(wait))
            if any(found == number for found, _ in ready):
                return True
            if ready:
                self._swallow_wake()
            if wait == 0.0:
                return False

    def wait(self, seconds: float) -> Literal["data", "woken", "timeout"]:
        """Sleep until the peer sends, another thread calls ``wake``, or ``seconds`` have passed."""
        ready = {found for found, _ in self._poll.poll(_milliseconds(seconds))}
        if self._wake_reader is not None and self._wake_reader.fileno() in ready:
            self._swallow_wake()
            return "woken"
        return "data" if ready else "timeout"

    def wake(self) -> None:
        """End the ``wait`` of the thread that owns this connection. Any thread may call it."""
        with self._closing:
            if not self._is_closed and self._wake_writer is not None:
                with contextlib.suppress(BlockingIOError):  # it is awake already
                    self._wake_writer.send(b"!")

    def _swallow_wake(self) -> None:
        if self._wake_reader is not None:
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)

    # --- writing ---------------------------------------------------------------

    def send(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send all ``buffers``, in order, without joining them."""
        waiting = sum(map(len, buffers))
        self.sent_bytes += waiting
        try:
            with self._sending:
                waiting -= self._socket.sendmsg(buffers)
                if waiting:
                    for rest in _tail(buffers, waiting):
                        self._send_all(rest)
        except BlockingIOError as error:
            raise PeerStalled(f"the peer took nothing for {self._timeout_seconds:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror or error}") from error

    def _send_all(self, view: memoryview) -> None:
        while view:
            view = view[self._socket.send(view) :]

    def try_send(self, data: bytes) -> None:
        """Send ``data`` if that is possible now; say nothing if it is not. Any thread may call it.

        Used for A-ABORT, which must not wait for the peer and must not be put into the middle of a PDU.
        """
        if self._sending.acquire(timeout=_PATIENCE_SECONDS):
            try:
                if not self._is_closed:
                    with contextlib.suppress(OSError):
                        self._socket.send(data, socket.MSG_DONTWAIT)
            finally:
                self._sending.release()

    # --- ending ----------------------------------------------------------------

    def linger(self, seconds: float) -> None:
        """Say that we are done and wait, for ``seconds`` at most, until the peer closes (PS3.8 Sta13).

        Closing at once with unread bytes would make TCP throw away what we sent last.
        """
        deadline = time.monotonic() + seconds
        scratch = memoryview(bytearray(65536))
        left = _DISCARD_BYTES
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and self.is_readable(max(deadline - time.monotonic(), 0.0)):
                count = self._socket.recv_into(scratch)
                if count == 0:
                    return
                left -= count

    def shutdown(self) -> None:
        """Make every pending and later call of the owning thread end. Any thread may call it."""
        with self._closing:
            if not self._is_closed:
                with contextlib.suppress(OSError):  # the peer has ended it already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; only the owning thread calls this, once it is done."""
        with self._sending, self._closing:
            self._is_closed = True
            self._socket.close()
            for end in (self._wake_reader, self._wake_writer):
                if end is not None:
                    end.close()


def _milliseconds(seconds: float) -> float:
    return max(seconds, 0.0) * 1000.0


def _tail(buffers: Sequence[bytes | memoryview], waiting: int) -> list[memoryview]:
    """Cut off what was sent: the last ``waiting`` bytes of ``buffers``."""
    rest: list[memoryview] = []
    for buffer in reversed(buffers):
        if waiting <= 0:
            break
        view = memoryview(buffer)
        rest.append(view[max(len(view) - waiting, 0) :])
        waiting -= len(view)
    return rest[::-1]
