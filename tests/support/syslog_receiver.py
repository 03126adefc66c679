"""A syslog receiver on real sockets: UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Self


class SyslogReceiver:
    """Keeps what it receives in ``messages``; a context manager.

    ``transport`` is ``"udp"``, ``"tcp"`` or ``"tls"``; ``context`` is needed for TLS.
    """

    def __init__(
        self, transport: str = "tcp", *, port: int = 0, context: ssl.SSLContext | None = None
    ) -> None:
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._transport = transport
        self._context = context
        self.port: int = self._socket.getsockname()[1]
        self.messages: list[bytes] = []
        self.peer_names: list[str] = []
        self._is_over = False
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"{self._transport}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        if self._transport != "udp":
            self._socket.listen()
        self._begin(self._datagrams if self._transport == "udp" else self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._socket.close()

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _datagrams(self) -> None:
        self._socket.settimeout(0.05)
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                self.messages.append(self._socket.recv(65536))

    def _accept(self) -> None:
        while not self._is_over:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                subject = dict(pair[0] for pair in connection.getpeercert()["subject"])
                self.peer_names.append(subject["commonName"])
            with connection, connection.makefile("rb") as stream:
                while length := self._length(stream):
                    self.messages.append(stream.read(length))
        except OSError:
            connection.close()

    @staticmethod
    def _length(stream: object) -> int:
        """The octets of the next message: decimal digits and one space before it."""
        digits = b""
        while (octet := stream.read(1)) not in (b" ", b""):  # type: ignore[attr-defined]
            digits += octet
        return int(digits or b"0")
