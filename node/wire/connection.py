"""A TCP connection that one thread reads and writes with blocking calls and the kernel's timeouts.

``SO_RCVTIMEO`` and ``SO_SNDTIMEO`` bound every call, so a stalling peer costs no polling and no
extra system call. Only ``shutdown``, ``wake`` and ``try_send`` may be called from other threads.
``node/wire/tls.py`` has the same over TLS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from node.errors import PeerUnreachable
from node.wire.certificates import PeerCertificate

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
# long enough for a send that is not held up, too short to be held up by one that is
_PATIENCE_SECONDS = 0.1
_PIECE_BYTES = 256 * 1024


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
        Whether other threads may end ``wait`` by ``wake``. Costs a file descriptor.

    Attributes
    ----------
    is_over_tls
        Whether nobody else can read it.
    peer_certificate
        What the peer has shown and was verified, once ``establish`` has returned; else None.
    """

    is_over_tls = False
    peer_certificate: PeerCertificate | None = None

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
        self._has_answered = True  # sent since the last receiving
        self._owes_acknowledgement = False  # received once since, and not told to acknowledge at once
        self._is_torn = False  # what was sent last did not get through whole
        self._wakeup: int | None = None
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.set_timeout(timeout_seconds)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        if is_wakeable:
            self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._poll.register(self._wakeup, select.POLLIN)

    def establish(self, deadline: float) -> None:
        """Do what comes before the first byte, before ``deadline`` (``time.monotonic``): nothing here."""

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
            filled += self._receive(view[filled:])
        return filled

    def receive_before(self, view: memoryview, deadline: float) -> None:
        """Fill the whole of ``view`` before ``deadline`` (``time.monotonic``), for ARTIM (PS3.8 9.1.5)."""
        filled = 0
        while filled < len(view):
            if not self.is_readable(max(deadline - time.monotonic(), 0.0)):
                raise PeerStalled("the peer did not finish its PDU in time")
            filled += self._receive(view[filled:])

    def _receive(self, view: memoryview) -> int:
        try:
            if self._owes_acknowledgement:
                self._acknowledge_at_once()
            elif self._has_answered:
                self._has_answered = False
                self._owes_acknowledgement = True
            count = self._socket.recv_into(view)
        except OSError as error:
            raise self._not_received(error) from error
        if count == 0 and len(view):
            raise ConnectionLost("the peer closed the connection")
        self.received_bytes += count
        return count

    def _not_received(self, error: OSError) -> PeerUnreachable:
        if isinstance(error, BlockingIOError):
            return PeerStalled(f"the peer sent nothing for {self._timeout_seconds:g} s")
        return ConnectionLost(f"the connection broke: {error.strerror or error}")

    def _acknowledge_at_once(self) -> None:
        """Have received bytes acknowledged when they are read.

        A sender with Nagle's algorithm holds back its last small segment until all before it are
        acknowledged. Whenever we have sent, Linux takes the connection for an interactive one and
        delays its acknowledgements by 40 ms, so this counts until we send again. It is asked for where
        what came first was not all: else the response acknowledges it.
        """
        self._has_answered = self._owes_acknowledgement = False
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

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
        ready = self._poll.poll(_milliseconds(seconds))
        for found, _ in ready:
            if found == self._wakeup:
                self._swallow_wake()
                return "woken"
        return "data" if ready else "timeout"

    def wake(self) -> None:
        """End the ``wait`` of the thread that owns this connection. Any thread may call it."""
        with self._closing:
            if not self._is_closed and self._wakeup is not None:
                with contextlib.suppress(BlockingIOError):  # it is awake already
                    os.eventfd_write(self._wakeup, 1)

    def _swallow_wake(self) -> None:
        if self._wakeup is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)

    # --- writing ---------------------------------------------------------------

    def send(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send all ``buffers``, in order, without joining them."""
        self.sent_bytes += sum(map(len, buffers))
        with self._sending:
            self._has_answered, self._owes_acknowledgement = True, False
            self._write(buffers)

    def send_file(
        self,
        before: Sequence[bytes | memoryview],
        file: int,
        offset: int,
        count: int,
        after: bytes = b"",
        *,
        ends_pdu: bool = True,
    ) -> None:
        """Send ``before``, ``count`` bytes of a file from ``offset`` on without a copy here, and ``after``.

        The system sends from its page cache, also after this returns: the bytes of the file must stay
        as they are until the peer has answered what it was sent.

        Parameters
        ----------
        file
            The descriptor of an open file; its position is neither used nor moved.
        ends_pdu
            Whether a PDU is whole with it. Until one is, no other thread may send anything.

        Raises
        ------
        ConnectionLost, PeerStalled
            The connection ended, or the peer took nothing for the network timeout.
        OSError
            The file could not be read, or ends early. Nothing more can be sent then.
        """
        self.sent_bytes += sum(map(len, before)) + count + len(after)
        with self._sending:
            self._has_answered, self._owes_acknowledgement = True, False
            self._write_file(before, file, offset, count)
            if after:
                self._write([after])
            self._is_torn = not ends_pdu

    def _write(self, buffers: Sequence[bytes | memoryview], flags: int = 0) -> None:
        try:
            waiting = sum(map(len, buffers)) - self._socket.sendmsg(buffers, (), flags)
            if waiting:
                for rest in _tail(buffers, waiting):
                    view = rest
                    while view:
                        view = view[self._socket.send(view, flags) :]
        except OSError as error:
            raise self._not_sent(error) from error

    def _write_file(self, before: Sequence[bytes | memoryview], file: int, offset: int, count: int) -> None:
        # so that the header is no segment of its own
        self._write(before, socket.MSG_MORE if count else 0)
        end = offset + count
        try:
            while offset < end:
                sent = os.sendfile(self._socket.fileno(), file, offset, end - offset)
                if sent == 0:
                    break
                offset += sent
        except BlockingIOError as error:
            raise self._not_sent(error) from error
        except OSError:  # no such file can be sent so, or one of both is broken: reading tells which
            pass
        if offset < end:
            for piece in self._pieces(file, offset, end):
                self._write([piece])

    def _pieces(self, file: int, offset: int, end: int) -> Iterator[bytes]:
        while offset < end:
            try:
                piece = os.pread(file, min(end - offset, _PIECE_BYTES), offset)
                if not piece:
                    raise OSError(errno.EIO, f"the file ends {end - offset} bytes early")
            except OSError:
                self._is_torn = True
                raise
            yield piece
            offset += len(piece)

    def _not_sent(self, error: OSError) -> PeerUnreachable:
        self._is_torn = True
        if isinstance(error, BlockingIOError):
            return PeerStalled(f"the peer took nothing for {self._timeout_seconds:g} s")
        return ConnectionLost(f"the connection broke: {error.strerror or error}")

    def try_send(self, data: bytes) -> None:
        """Send ``data`` if that is possible now; say nothing if it is not. Any thread may call it.

        Used for A-ABORT, which must not wait for the peer and must not be put into the middle of a PDU.
        """
        if self._sending.acquire(timeout=_PATIENCE_SECONDS):
            try:
                if not self._is_closed and not self._is_torn:
                    with contextlib.suppress(OSError, PeerUnreachable):
                        self._offer(data)
            finally:
                self._sending.release()

    def _offer(self, data: bytes) -> None:
        self._is_torn = self._socket.send(data, socket.MSG_DONTWAIT) < len(data)

    # --- ending ----------------------------------------------------------------

    def shutdown(self) -> None:
        """Make every pending and later call of the owning thread end. Any thread may call it."""
        with self._closing:
            if not self._is_closed:
                with contextlib.suppress(OSError):  # the peer has ended it already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; only the owning thread calls this, once it is done."""
        with self._sending, self._closing:
            if self._is_closed:
                return
            self._part()
            self._is_closed = True
            self._socket.close()
            if self._wakeup is not None:
                os.close(self._wakeup)

    def _part(self) -> None:
        """Take leave of the peer, where that is more than to close."""


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
