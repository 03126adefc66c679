"""Looks at how another machine answers on a port, with TLS and without; asks nothing of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from node.config.settings import TlsConfig
from node.errors import PeerError, PeerUnreachable
from node.wire import negotiation, pdu
from node.wire.connection import Connection
from node.wire.contexts import ProposedContext
from node.wire.sop_classes import UNCOMPRESSED, VERIFICATION
from node.wire.tls import ClientTls
from node.wire.tls_connection import TlsConnection
from node.wire.tls_faults import PLAIN_PEER, TlsFailure

# in TLS 1.3 the verdict on our certificate comes after the handshake
_VERDICT_SECONDS = 0.5
_MAX_PDU_BYTES = 16384


class Unreachable(PeerUnreachable):
    """No TCP connection: ``fault`` is host-unknown, connection-refused, no-answer or no-way."""

    def __init__(self, message: str, *, fault: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Handshake:
    """What was agreed, and the certificate that the peer showed, in DER."""

    version: str
    cipher_suite: str
    certificate: bytes


class AnyTls(ClientTls):
    """Takes whatever the peer offers and trusts nothing: to see what it is, never to send anything."""

    def make(self) -> ssl.SSLContext:
        """Make it; of the files only our own pair is used, where that can be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.options |= getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)
        if self.config.certificate is not None and self.config.key is not None:
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                context.load_cert_chain(self.config.certificate, self.config.key, password=b"")
        return context


def shake_hands(host: str, port: int, tls: ClientTls, timeout_seconds: float) -> Handshake:
    """Shake hands, wait for the peer's verdict on our certificate, and hang up.

    Raises
    ------
    Unreachable
        There is no connection.
    TlsFailure, ConnectionLost, PeerStalled
        There is one, but no TLS on it that both agree to.
    ConfigurationError
        Our own files cannot be used.
    """
    context = tls.context()
    with _connected(host, port, timeout_seconds) as connected:
        connection = TlsConnection(connected, context, timeout_seconds=timeout_seconds, host_name=host)
        try:
            connection.establish(time.monotonic() + timeout_seconds)
            if connection.is_readable(_VERDICT_SECONDS):
                connection.receive_some(memoryview(bytearray(1)))
            return Handshake(connection.version, connection.cipher_suite, connection.shown_certificate)
        finally:
            connection.close()


def speaks_tls(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether a TLS ClientHello is answered by TLS, be it with a refusal."""
    try:
        shake_hands(host, port, AnyTls(TlsConfig()), timeout_seconds)
    except TlsFailure as error:
        return error.fault != PLAIN_PEER
    except PeerError:
        return False
    return True


def speaks_plain_dicom(
    host: str, port: int, calling_ae_title: str, called_ae_title: str, timeout_seconds: float
) -> bool:
    """Whether an A-ASSOCIATE-RQ in the clear is answered by a PDU of PS3.8, be it with a refusal."""
    contexts = [ProposedContext(VERIFICATION, UNCOMPRESSED)]
    request = negotiation.encode_request(
        calling_ae_title, called_ae_title, contexts, max_pdu_bytes=_MAX_PDU_BYTES
    )
    answer = bytearray(1)
    try:
        with _connected(host, port, timeout_seconds) as connected:
            connection = Connection(connected, timeout_seconds=timeout_seconds)
            connection.send([request])
            connection.receive_before(memoryview(answer), time.monotonic() + timeout_seconds)
            connection.try_send(pdu.abort(pdu.AbortSource.SERVICE_USER))
    except PeerError:
        return False
    return answer[0] in (pdu.A_ASSOCIATE_AC, pdu.A_ASSOCIATE_RJ, pdu.A_ABORT)


@contextlib.contextmanager
def _connected(host: str, port: int, timeout_seconds: float) -> Iterator[socket.socket]:
    where = f"{host}:{port}"
    try:
        connected = socket.create_connection((host, port), timeout_seconds)
    except socket.gaierror as error:
        raise Unreachable(f"the host {host} is unknown: {error.strerror}", fault="host-unknown") from error
    except ConnectionRefusedError as error:
        message = f"{where} refuses the connection: nothing listens on that port"
        raise Unreachable(message, fault="connection-refused") from error
    except TimeoutError as error:
        message = f"{where} does not answer: is it up, and does a firewall let us through?"
        raise Unreachable(message, fault="no-answer") from error
    except (OSError, OverflowError) as error:
        message = f"no connection to {where}: {getattr(error, 'strerror', None) or error}"
        raise Unreachable(message, fault="no-way") from error
    with connected:
        yield connected
