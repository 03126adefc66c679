"""A connection over TLS: OpenSSL works on memory alone, and the socket stays a blocking one.

So the kernel's timeouts bound a TLS connection exactly as they bound a plain one, no call of OpenSSL
ever waits, and other threads may put an A-ABORT in between.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from node.errors import PeerUnreachable
from node.wire.certificates import PeerCertificate
from node.wire.connection import Connection, ConnectionLost, PeerStalled
from node.wire.tls_faults import PLAIN_PEER, TlsFailure, explained

_HANDSHAKE_RECORD, _ALERT_RECORD = 0x16, 0x15
_LONGEST_RECORD_BYTES = 16384
_PIECE_BYTES = 4 * _LONGEST_RECORD_BYTES
_LONGEST_REFUSAL_SECONDS = 1.0
_MOST_IGNORED_BYTES = 1024**2


class TlsConnection(Connection):
    """A connection over TLS; ``establish`` must be called before anything else.

    Parameters
    ----------
    connected, timeout_seconds, is_wakeable
        As for ``Connection``.
    context
        Of a ``TlsSide``.
    host_name
        For a requestor, the host that is connected to.
    """

    is_over_tls = True

    def __init__(
        self,
        connected: socket.socket,
        context: ssl.SSLContext,
        *,
        timeout_seconds: float,
        is_wakeable: bool = False,
        host_name: str | None = None,
    ) -> None:
        super().__init__(connected, timeout_seconds=timeout_seconds, is_wakeable=is_wakeable)
        self._is_requestor = host_name is not None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=not self._is_requestor,
            # an IPv6 zone means nothing to the peer
            server_hostname=host_name.partition("%")[0] if host_name is not None else None,
        )
        # OpenSSL cannot be used by two threads at a time; held while it works, never while waiting
        self._working = threading.Lock()
        self._is_established = False
        self._unread = b""  # decrypted, and not asked for yet
        self._failure: PeerUnreachable | None = None  # what reading came to

    def establish(self, deadline: float) -> None:
        """Shake hands before ``deadline`` (``time.monotonic``).

        Raises
        ------
        TlsFailure
            The peer is not trusted, does not trust us, or speaks no TLS that we do.
        ConnectionLost, PeerStalled
            The connection ended, or the deadline passed.
        """
        is_first, has_heard_hello = True, False
        while not self._is_established:
            try:
                with self._working:
                    self._tls.do_handshake()
                self._is_established = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self._refuse()
                raise explained(error, has_heard_hello=has_heard_hello) from error
            self._flush()
            if not self._is_established:
                if not super().is_readable(deadline - time.monotonic()):
                    raise PeerStalled("the peer did not finish the TLS handshake in time")
                received = self._receive_records()
                if is_first and received[0] not in (_HANDSHAKE_RECORD, _ALERT_RECORD):
                    raise TlsFailure(
                        "the peer does not speak TLS on this port"
                        if self._is_requestor
                        else "the peer speaks plain DICOM to the TLS port",
                        fault=PLAIN_PEER,
                    )
                is_first = False
                has_heard_hello = has_heard_hello or received[0] == _HANDSHAKE_RECORD
        described = self._tls.getpeercert()
        if described:  # empty where nothing was verified
            self.peer_certificate = PeerCertificate.of(self.shown_certificate, described)

    @property
    def version(self) -> str:
        """The version that was agreed, as ``TLSv1.3``."""
        return self._tls.version() or ""

    @property
    def cipher_suite(self) -> str:
        """The cipher suite that was agreed, as OpenSSL calls it."""
        return (self._tls.cipher() or ("",))[0]

    @property
    def shown_certificate(self) -> bytes:
        """The peer's certificate in DER, verified or not; empty where it showed none."""
        return self._tls.getpeercert(True) or b""

    def _refuse(self) -> None:
        """Send the alert that tells the peer why, and give it a moment to read it.

        Closing at once with unread bytes would make TCP throw the alert away.
        """
        left = _MOST_IGNORED_BYTES
        deadline = time.monotonic() + _LONGEST_REFUSAL_SECONDS
        with contextlib.suppress(OSError):
            self._socket.send(self._outgoing.read(), socket.MSG_DONTWAIT)
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and super().is_readable(deadline - time.monotonic()):
                ignored = self._socket.recv(_PIECE_BYTES)
                left -= len(ignored) or left

    # --- reading ---------------------------------------------------------------

    def _receive(self, view: memoryview) -> int:
        if self._unread:
            count = min(len(view), len(self._unread))
            view[:count] = self._unread[:count]
            self._unread = self._unread[count:]
        else:
            while not (count := self._decrypt(view)):
                self._receive_records()
        self.received_bytes += count
        return count

    def _decrypt(self, view: memoryview) -> int:
        """Decrypt into ``view`` what is here; return how many bytes, 0 where no record is whole."""
        filled = 0
        try:
            with self._working:
                while filled < len(view) and self._failure is None:
                    count: int = self._tls.read(len(view) - filled, view[filled:])  # type: ignore[assignment]
                    if not count:
                        self._failure = ConnectionLost("the peer closed the connection")
                    filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failure = explained(error)
        if self._failure is not None and not filled:
            raise self._failure
        return filled

    def _receive_records(self) -> bytes:
        """Wait for bytes from the socket, and let OpenSSL have them."""
        try:
            received = self._socket.recv(_PIECE_BYTES)
            if self._has_answered:
                self._acknowledge_at_once()
        except OSError as error:
            raise self._not_received(error) from error
        if not received:
            raise ConnectionLost("the peer closed the connection")
        with self._working:
            self._incoming.write(received)
        return received

    def is_readable(self, seconds: float = 0.0) -> bool:
        """Whether a byte, or the end of the stream, is there within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self._has_unread():
            if not super().is_readable(deadline - time.monotonic()):
                return False
            self._take_in()
        return True

    def wait(self, seconds: float) -> Literal["data", "woken", "timeout"]:
        """Sleep until the peer sends, another thread calls ``wake``, or ``seconds`` have passed."""
        deadline = time.monotonic() + seconds
        while not self._has_unread():
            ready = super().wait(deadline - time.monotonic())
            if ready != "data":
                return ready
            self._take_in()
        return "data"

    def _has_unread(self) -> bool:
        """Whether the next receiving will not wait; a record that is here in part is not enough."""
        if not self._unread and self._failure is None:
            record = memoryview(bytearray(_LONGEST_RECORD_BYTES))
            with contextlib.suppress(PeerUnreachable):
                self._unread = bytes(record[: self._decrypt(record)])
        return bool(self._unread) or self._failure is not None

    def _take_in(self) -> None:
        try:
            self._receive_records()
        except PeerUnreachable as error:
            self._failure = error

    # --- writing ---------------------------------------------------------------

    def _write(self, buffers: Sequence[bytes | memoryview], flags: int = 0) -> None:  # noqa: ARG002
        for piece in _joined(buffers):
            self._encrypt(piece)
            self._flush()

    def _write_file(self, before: Sequence[bytes | memoryview], file: int, offset: int, count: int) -> None:
        head = b"".join(before)
        for piece in self._pieces(file, offset, offset + count):
            self._write([head, piece])
            head = b""
        if head:
            self._write([head])

    def _encrypt(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            with self._working:
                while view:
                    view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            self._is_torn = True
            raise explained(error) from error

    def _flush(self) -> None:
        with self._working:
            encrypted = memoryview(self._outgoing.read())
        try:
            while encrypted:
                encrypted = encrypted[self._socket.send(encrypted) :]
        except OSError as error:
            raise self._not_sent(error) from error

    def _offer(self, data: bytes) -> None:
        if self._is_established:
            self._encrypt(data)
            self._flush_now()

    def _flush_now(self) -> None:
        with self._working:
            encrypted = self._outgoing.read()
        self._is_torn = self._socket.send(encrypted, socket.MSG_DONTWAIT) < len(encrypted)

    # --- ending ----------------------------------------------------------------

    def _part(self) -> None:
        """Send close_notify, so that the peer knows that nothing was cut off (RFC 8446 section 6.1)."""
        if self._is_established and not self._is_torn:
            with contextlib.suppress(OSError):
                with self._working, contextlib.suppress(ssl.SSLWantReadError):
                    self._tls.unwrap()
                self._flush_now()


def _joined(buffers: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Join small buffers, and cut large ones: one piece is worth a call, and none is large."""
    pending = bytearray()
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            part = view[: _PIECE_BYTES - len(pending)]
            view = view[len(part) :]
            pending += part
            if len(pending) == _PIECE_BYTES:
                yield bytes(pending)
                pending.clear()
    if pending:
        yield bytes(pending)
