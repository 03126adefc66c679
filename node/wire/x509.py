"""What stands in certificates and lists of revoked ones, for people to read (RFC 5280).

Nothing is trusted here: that is for OpenSSL, which verifies what peers show.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_NAMES: dict[type, str] = {
    x509.DNSName: "DNS",
    x509.IPAddress: "IP",
    x509.UniformResourceIdentifier: "URI",
}


@dataclass(frozen=True)
class Certificate:
    """One certificate, read.

    ``names`` are those of its subjectAltName, as ``DNS:pacs.example.org``; ``not_before`` and
    ``not_after`` are seconds since the epoch, UTC. ``is_for_servers`` and ``is_for_clients`` say whether
    its extended key usage, where it has one, allows to be called and to call.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    key: str
    is_for_servers: bool
    is_for_clients: bool


def of_der(der: bytes) -> Certificate:
    """Read a certificate in DER; ValueError when it is none that can be read."""
    try:
        return _read(x509.load_der_x509_certificate(der))
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error


def of_file(path: Path) -> list[Certificate]:
    """Read the certificates of a PEM file; what cannot be read is left out, be it all of it."""
    found = []
    for block in _blocks(path, b"CERTIFICATE"):
        with contextlib.suppress(*_UNREADABLE):
            found.append(_read(x509.load_pem_x509_certificate(block)))
    return found


def next_update_of(path: Path) -> float | None:
    """Return when the first of the lists of revoked certificates in a PEM file is out of date.

    In seconds since the epoch, UTC; None when they do not say, or cannot be read.
    """
    dues = []
    for block in _blocks(path, b"X509 CRL"):
        with contextlib.suppress(*_UNREADABLE):
            due = x509.load_pem_x509_crl(block).next_update_utc
            dues += [] if due is None else [due.timestamp()]
    return min(dues, default=None)


def _blocks(path: Path, label: bytes) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError:
        return []
    return re.findall(rb"-----BEGIN %b-----.*?-----END %b-----" % (label, label), content, re.S)


def _read(one: x509.Certificate) -> Certificate:
    return Certificate(
        subject=_name(one.subject),
        issuer=_name(one.issuer),
        names=_alternative_names(one),
        not_before=one.not_valid_before_utc.timestamp(),
        not_after=one.not_valid_after_utc.timestamp(),
        key=_key(one),
        is_for_servers=_allows(one, Purpose.SERVER_AUTH),
        is_for_clients=_allows(one, Purpose.CLIENT_AUTH),
    )


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "without a name"


def _alternative_names(one: x509.Certificate) -> tuple[str, ...]:
    try:
        found = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(f"{_NAMES[type(name)]}:{name.value}" for name in found if type(name) in _NAMES)


def _key(one: x509.Certificate) -> str:
    try:
        key = one.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "of an unknown kind"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")


def _allows(one: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    try:
        usages = set(one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        return True
    return bool(usages & {purpose, Purpose.ANY_EXTENDED_KEY_USAGE})
