"""Servers that speak TLS in ways of their own, good and bad; nothing of DICOM is behind them."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.certificates import Pair


def open_to_all(context: ssl.SSLContext) -> None:
    """Take every version, cipher suite and key, however weak."""
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED


def only_tls_1_1(context: ssl.SSLContext) -> None:
    open_to_all(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def only_suite(name: str) -> Callable[[ssl.SSLContext], None]:
    def configure(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{name}:@SECLEVEL=0")

    return configure


def up_to_tls_1_2(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


@contextmanager
def tls_server(
    pair: Pair, *configure: Callable[[ssl.SSLContext], None], asks_for: Path | None = None
) -> Iterator[int]:
    """Shake hands with whoever comes and hang up once they say something; yield the port.

    With ``asks_for`` (who has to have issued it) the other side must show a certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for change in configure:
        change(context)
    context.load_cert_chain(pair.certificate, pair.key)
    if asks_for is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks_for)

    def serve(connected: socket.socket) -> None:
        connected.settimeout(10.0)
        with suppress(OSError), context.wrap_socket(connected, server_side=True) as secured:
            secured.recv(4096)
        connected.close()

    with answering(serve) as port:
        yield port


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Let ``serve`` have every connection, and close it; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                serve(connected)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20.0)
