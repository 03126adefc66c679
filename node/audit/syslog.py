"""Syslog: one message in RFC 5424, and its way over UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425)."""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from node.audit.message import Outcome
from node.config.settings import SyslogAddress, TlsConfig
from node.wire.tls import ClientTls

_SECURITY = 10  # the facility "security/authorization messages"
_SEVERITIES: dict[Outcome, int] = {"0": 5, "4": 4, "8": 3}
_HOST_NAME = socket.gethostname().encode("ascii", "replace")[:255] or b"-"
_BOM = b"\xef\xbb\xbf"
TIMEOUT_SECONDS = 10.0
"""For a connection, and for each silence of the receiver."""
# PS3.15 section A.7: what is longer than 32768 octets may be cut off on its way; so it is cut off here.
_MOST_DATAGRAM_BYTES = 32768


def line(xml: str, outcome: Outcome, at: float) -> bytes:
    """Wrap an audit message as PS3.15 section A.6 says; ``at`` is in seconds since the epoch."""
    priority = _SECURITY * 8 + _SEVERITIES[outcome]
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = b"<%d>1 %s %s anode %d DICOM+RFC3881 - " % (
        priority,
        moment.encode(),
        _HOST_NAME,
        os.getpid(),
    )
    return head + _BOM + xml.encode()


class Connection(Protocol):
    """A way to a syslog receiver."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Send messages and return when the receiver's machine has them, as far as that can be known.

        OSError when that did not happen; some of them may have arrived.
        """

    def close(self) -> None:
        """Close it; harmless where it is closed."""


def connect(address: SyslogAddress, ca: Path | None, tls: TlsConfig | None) -> Connection:
    """Open a way to a receiver.

    Parameters
    ----------
    address : SyslogAddress
        Where it listens, and how.
    ca : Path or None
        Who vouches for its certificate; None stands for the ``ca`` of ``tls``.
    tls : TlsConfig or None
        ``[node.tls]``, whose certificate is shown to it.

    Raises
    ------
    OSError
        There is none now; also where TLS is the reason.
    ConfigurationError
        The certificates cannot be used.
    """
    if address.transport == "udp":
        return _Datagrams(address)
    connected = socket.create_connection((address.host, address.port), TIMEOUT_SECONDS)
    try:
        if address.transport == "tls":
            return _Stream(_secured(connected, address.host, ca, tls))
        return _Stream(connected)
    except BaseException:
        connected.close()
        raise


def _secured(connected: socket.socket, host: str, ca: Path | None, tls: TlsConfig | None) -> ssl.SSLSocket:
    ours = tls or TlsConfig()
    trusted = TlsConfig(certificate=ours.certificate, key=ours.key, ca=ca or ours.ca)
    return ClientTls(trusted).context().wrap_socket(connected, server_hostname=host)


class _Datagrams:
    """UDP: nobody says whether they arrive."""

    def __init__(self, address: SyslogAddress) -> None:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_DGRAM
        )[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.connect(where)

    def send(self, lines: Sequence[bytes]) -> None:
        for one in lines:
            self._socket.send(one[:_MOST_DATAGRAM_BYTES])

    def close(self) -> None:
        self._socket.close()


class _Stream:
    """TCP, or TLS upon it: each message after its length in octets."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._stream.settimeout(TIMEOUT_SECONDS)

    def send(self, lines: Sequence[bytes]) -> None:
        self._check()
        self._stream.sendall(b"".join(b"%d %s" % (len(one), one) for one in lines))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._unacknowledged():
            if time.monotonic() > deadline:
                raise TimeoutError("what was sent is not acknowledged")
            time.sleep(0.005)
        self._check()

    def close(self) -> None:
        self._stream.close()

    def _check(self) -> None:
        """Look whether the receiver has closed the connection: what is written then is lost."""
        self._stream.setblocking(False)
        try:
            if not self._stream.recv(4096):
                raise ConnectionResetError("the receiver closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        finally:
            self._stream.settimeout(TIMEOUT_SECONDS)

    def _unacknowledged(self) -> int:
        """Bytes that the receiver's machine has not acknowledged."""
        raw = fcntl.ioctl(self._stream.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", raw)[0])
