"""TLS for the wire: the BCP 195 RFC 8996, 9325 TLS secure transport connection profile (PS3.15 B.12).

Whom we trust and what we offer is here, the connection itself in ``tls_connection.py``.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from node.config.settings import Config, PeerConfig, TlsConfig
from node.errors import ConfigurationError
from node.wire.connection import ConnectionLost

# RFC 9325 section 4.2: forward secrecy and authenticated encryption; TLS 1.3 has no others
_CIPHER_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsFailure(ConnectionLost):
    """No TLS connection came about, or it broke: the message says whose certificate or offer is wrong."""

    action = "compare certificate and ca of [node.tls] with those of the peer"


@dataclass(frozen=True)
class ClientTls:
    """How an association is requested over TLS.

    ``checks_host_name``: the peer's certificate must be one for the host that is connected to.
    """

    config: TlsConfig
    checks_host_name: bool = True

    @classmethod
    def of(cls, config: Config, peer: PeerConfig) -> ClientTls | None:
        """Return how ``peer`` is to be called; None where it is called without TLS."""
        return cls(config.node.tls or TlsConfig(), peer.tls_check_host_name) if peer.tls else None


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Make what the listener needs; with ``verify_peers`` every peer must show a certificate.

    Raises
    ------
    ConfigurationError
        A file cannot be read or is not what it should be.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, config)
    context.num_tickets = 0  # associations are few and long: nothing to resume
    context.verify_mode = ssl.CERT_REQUIRED if config.verify_peers else ssl.CERT_NONE
    return context


def client_context(client: ClientTls) -> ssl.SSLContext:
    """Make what a requestor needs; errors as ``server_context``."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, client.config)
    context.check_hostname = client.checks_host_name and client.config.verify_peers
    context.verify_mode = ssl.CERT_REQUIRED if client.config.verify_peers else ssl.CERT_NONE
    return context


def _context(protocol: int, config: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.set_ciphers(_CIPHER_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if config.certificate is not None and config.key is not None:
        _readable("certificate", config.certificate)
        _readable("key", config.key)
        try:
            # without a password OpenSSL would ask for one on the terminal
            context.load_cert_chain(config.certificate, config.key, password=b"")
        except ssl.SSLError as error:
            raise _unusable("certificate", config.certificate, _why_no_pair(error, config.key)) from error
    if config.ca is not None:
        _readable("ca", config.ca)
        try:
            context.load_verify_locations(config.ca)
        except ssl.SSLError as error:
            raise _unusable("ca", config.ca, "has no certificate in PEM form") from error
    return context


def _readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise _unusable(name, path, f"cannot be read: {error.strerror}") from error


def _why_no_pair(error: ssl.SSLError, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"belongs to another key than {key}"
    if error.reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", "BAD_PASSWORD"):
        return f"its key {key} has a passphrase; give one without, readable by the node's user alone"
    return f"and {key} are not a certificate and its key in PEM form ({words(error)})"


def _unusable(name: str, path: Path, why: str) -> ConfigurationError:
    return ConfigurationError([f"[node.tls] {name}: {path} {why}"])


def explained(error: ssl.SSLError) -> TlsFailure:
    """Say whose certificate, version or cipher suite is wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure(f"the peer's certificate is not accepted: {error.verify_message}")
    reason = error.reason or ""
    _, is_alert, alert = reason.partition("_ALERT_")
    if is_alert:
        said = alert.replace("_", " ").lower()
        about_us = any(word in alert for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED"))
        whose = ", so it does not accept our certificate" if about_us else ""
        return TlsFailure(f"the peer ended TLS with the alert '{said}'{whose}")
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsFailure("the peer shows no certificate; with verify_peers = true it must")
    if reason in ("NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "UNKNOWN_PROTOCOL"):
        return TlsFailure(
            f"no TLS version and cipher suite in common ({words(error)}); here it is TLS 1.2 or later, "
            "with ECDHE and AES-GCM or ChaCha20"
        )
    return TlsFailure(f"TLS failed: {words(error)}")


def words(error: ssl.SSLError) -> str:
    """Return what OpenSSL says, in lower case."""
    return (error.reason or error.strerror or str(error)).replace("_", " ").lower()
