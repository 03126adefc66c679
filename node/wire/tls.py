"""TLS for the wire: the BCP 195 RFC 8996, 9325 TLS secure transport connection profile (PS3.15 B.12).

Whom we trust and what we offer is here, what went wrong is told in ``tls_faults.py``, and the connection
itself is in ``tls_connection.py``.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from node.config.settings import Config, PeerConfig, TlsConfig
from node.errors import ConfigurationError
from node.wire.tls_faults import words

logger = logging.getLogger(__name__)

# RFC 9325 section 4.2: forward secrecy and authenticated encryption; TLS 1.3 has no others, whatever is
# said here. Level 2 of OpenSSL, which a system may have set lower: RSA of 2048 bits, curves of 224, no SHA-1
_CIPHER_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
_FILES = ("certificate", "key", "ca", "crl")
_WHAT_CHANGES_WITH_CONTENT = ("st_mtime_ns", "st_ctime_ns", "st_size", "st_ino", "st_dev")

Stamps = tuple[tuple[int, ...] | None, ...]


class TlsSide:
    """One side's TLS: made from its files when it is needed first, and anew once one of them has changed.

    Parameters
    ----------
    config
        Certificate, key and trust; its ``port`` does not count here.
    titles
        How the operator calls a file, by the field of ``config``; of those that are not
        ``[node.tls] FIELD``.
    """

    _PROTOCOL: int

    def __init__(self, config: TlsConfig, titles: Mapping[str, str] | None = None) -> None:
        self.config = config
        self._titles = {name: f"[node.tls] {name}" for name in _FILES} | dict(titles or {})
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._stamps: Stamps = ()

    @property
    def files(self) -> tuple[tuple[str, str, Path], ...]:
        """The files that it is made from: field, how the operator calls it, path."""
        values = ((name, getattr(self.config, name)) for name in _FILES)
        return tuple((name, self._titles[name], path) for name, path in values if path is not None)

    def context(self) -> ssl.SSLContext:
        """Return what is needed to shake hands. Any thread may call it.

        Files that have changed count at once. Where they cannot be used, the log says so once, and what
        they were before goes on being used.

        Raises
        ------
        ConfigurationError
            The files cannot be used, and never could; with every problem of every file.
        """
        with self._lock:
            stamps = stamps_of([path for _, _, path in self.files])  # before they are read
            if self._context is None:
                self._context = self.make()
            elif stamps != self._stamps:
                self._renew()
            self._stamps = stamps
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self.make()
        except ConfigurationError as error:
            logger.error("new TLS files cannot be used, the old ones are", extra={"reason": str(error)})
        else:
            logger.info("new TLS files are used", extra={"files": [str(path) for _, _, path in self.files]})

    def make(self) -> ssl.SSLContext:
        """Make it from the files as they are now; errors as ``context``."""
        context = ssl.SSLContext(self._PROTOCOL)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        context.set_ciphers(_CIPHER_SUITES)
        # RFC 9325 sections 3.3 to 3.5; the key of tickets would be that of the context, for months
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        problems = [*self._load_pair(context), *self._load_trust(context)]
        if problems:
            raise ConfigurationError(problems)
        return context

    def _load_pair(self, context: ssl.SSLContext) -> Iterator[str]:
        certificate, key = self.config.certificate, self.config.key
        if certificate is None or key is None:
            return
        unreadable = [*self._unreadable("certificate", certificate), *self._unreadable("key", key)]
        yield from unreadable
        if not unreadable:
            try:
                # without a password OpenSSL would ask for one on the terminal
                context.load_cert_chain(certificate, key, password=b"")
            except ssl.SSLError as error:
                yield f"{self._titles['certificate']}: {certificate} {_why_no_pair(error, key)}"

    def _load_trust(self, context: ssl.SSLContext) -> Iterator[str]:
        ca, crl = self.config.ca, self.config.crl
        if ca is not None:
            unreadable = [*self._unreadable("ca", ca)]
            yield from unreadable
            if not unreadable and not _loads(context, ca):
                yield f"{self._titles['ca']}: {ca} has no certificate in PEM form"
        if crl is not None:
            before = context.cert_store_stats()
            unreadable = [*self._unreadable("crl", crl)]
            yield from unreadable
            if not unreadable:
                is_loaded = _loads(context, crl)
                after = context.cert_store_stats()
                # a certificate in there would be trusted
                if not is_loaded or after["crl"] == before["crl"] or after["x509"] != before["x509"]:
                    yield f"{self._titles['crl']}: {crl} is no list of revoked certificates in PEM form"
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF

    def _unreadable(self, name: str, path: Path) -> Iterator[str]:
        try:
            with path.open("rb"):
                return
        except OSError as error:
            yield f"{self._titles[name]}: {path} cannot be read: {error.strerror}"


class ListenerTls(TlsSide):
    """How the listener speaks TLS; with ``verify_peers`` every peer must show a certificate."""

    _PROTOCOL = ssl.PROTOCOL_TLS_SERVER

    def make(self) -> ssl.SSLContext:
        """Make it from the files as they are now; errors as ``context``."""
        context = super().make()
        context.num_tickets = 0  # of TLS 1.3: associations are few and long, nothing to resume
        context.verify_mode = ssl.CERT_REQUIRED if self.config.verify_peers else ssl.CERT_NONE
        return context


class ClientTls(TlsSide):
    """How associations are requested over TLS.

    Parameters
    ----------
    config, titles
        As for ``TlsSide``.
    checks_host_name
        The peer's certificate must be one for the host that is connected to, by its subjectAltName
        (RFC 9525; a common name is no host name).
    """

    _PROTOCOL = ssl.PROTOCOL_TLS_CLIENT

    def __init__(
        self, config: TlsConfig, checks_host_name: bool = True, *, titles: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(config, titles)
        self.checks_host_name = checks_host_name

    @classmethod
    def of(cls, config: Config, peer: PeerConfig) -> ClientTls | None:
        """Return how ``peer`` is to be called; None where it is called without TLS."""
        if not peer.tls:
            return None
        shared = config.node.tls or TlsConfig()
        own = replace(
            shared,
            certificate=peer.tls_certificate or shared.certificate,
            key=peer.tls_key or shared.key,
            ca=peer.tls_ca or shared.ca,
            crl=None if peer.tls_ca else shared.crl,  # it is of the authorities in the shared ca
        )
        titles = {
            name: f"[[peers]] {peer.ae_title} tls_{name}"
            for name in _FILES
            if getattr(own, name) != getattr(shared, name)
        }
        return cls(own, peer.tls_check_host_name, titles=titles)

    def make(self) -> ssl.SSLContext:
        """Make it from the files as they are now; errors as ``context``."""
        context = super().make()
        context.check_hostname = self.checks_host_name and self.config.verify_peers
        context.hostname_checks_common_name = False
        context.verify_mode = ssl.CERT_REQUIRED if self.config.verify_peers else ssl.CERT_NONE
        return context


def sides(config: Config) -> list[TlsSide]:
    """Return how the node of ``config`` speaks TLS: as a listener, and with each peer that it calls."""
    node = config.node
    listener: list[TlsSide] = [ListenerTls(node.tls)] if node.tls is not None else []
    return [*listener, *filter(None, (ClientTls.of(config, peer) for peer in config.peers))]


def problems(config: Config) -> list[str]:
    """Return every problem of every file that TLS needs."""
    found: list[str] = []
    for side in sides(config):
        try:
            side.make()
        except ConfigurationError as error:
            found += error.problems
    return list(dict.fromkeys(found))


def stamps_of(paths: Sequence[Path]) -> Stamps:
    """Return what changes when the content of the files does."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return tuple(getattr(status, name) for name in _WHAT_CHANGES_WITH_CONTENT)


def _loads(context: ssl.SSLContext, path: Path) -> bool:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _why_no_pair(error: ssl.SSLError, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"belongs to another key than {key}"
    if error.reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", "BAD_PASSWORD"):
        return f"its key {key} has a passphrase; give one without, readable by the node's user alone"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"is too weak ({words(error)}): RSA needs 2048 bits or more, the signature SHA-256 or better"
    return f"and {key} are not a certificate and its key in PEM form ({words(error)})"
