"""What the keys of ``[[peers]]`` may be that no other table has; readers as in ``config_values.py``."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from node.config.config_values import Reader, several, shown, suggestion, text

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# the last label of a name is never a number (RFC 1123 section 2.1), so no mistyped address is one
_HOST_NAME = re.compile(rf"({_LABEL}\.)*(?!\d+\.?$){_LABEL}\.?")
_SHA256_DIGITS = 64


def calling_address(value: Any) -> str:
    """Read where a peer may call from: an IP address, a network with its prefix, or a host name."""
    read = text(value)
    if "/" in read:
        return _network(read)
    try:
        ipaddress.ip_address(read.partition("%")[0])
    except ValueError:
        if not _HOST_NAME.fullmatch(read):
            raise ValueError(
                f"{shown(read)} is no IP address, no network such as 10.1.0.0/16 or 2001:db8::/64, and no "
                "host name; write it without a port"
            ) from None
    return read


def _network(read: str) -> str:
    try:
        network = ipaddress.ip_network(read, strict=False)
    except ValueError:
        raise ValueError(f"{shown(read)} is no network; write one as 10.1.0.0/16 or 2001:db8::/64") from None
    if ipaddress.ip_interface(read).ip != network.network_address:
        raise ValueError(f"{shown(read)} is an address within a network; write {network}")
    return read


def certificate_name(value: Any) -> str:
    """Read a name that a certificate is for; the first label of a host name may be ``*``."""
    read = text(value)
    if not read.isascii():
        raise ValueError(
            f"{shown(read)} has characters beyond ASCII, which names of certificates are not compared by: "
            "write a host name as xn--..., or name the certificate by certificate_sha256"
        )
    if "*" in read and not re.fullmatch(r"\*(\.[^.*]+){2,}", read):
        raise ValueError(f"{shown(read)}: a * stands for the whole first label alone, as in *.ct.example.org")
    return read


def fingerprint(value: Any) -> str:
    """Read the SHA-256 of a certificate, as ``openssl x509 -fingerprint -sha256`` prints it."""
    digits = re.sub(r"[:\s]", "", text(value).rpartition("=")[2]).lower()
    if len(digits) != _SHA256_DIGITS or not re.fullmatch(r"[0-9a-f]+", digits):
        raise ValueError(
            f"expected {_SHA256_DIGITS} hexadecimal digits, as 'openssl x509 -noout -fingerprint -sha256 -in "
            f"FILE' prints them, not {shown(value)}"
        )
    return digits


def transfer_syntax(value: Any) -> str:
    """Read a transfer syntax by its keyword of PS3.6 table A-1 or its UID; return the UID."""
    # loaded here, as it takes a moment that a file without these keys need not wait
    from pydicom._uid_dict import UID_dictionary

    from node.wire.sop_classes import STORAGE_TRANSFER_SYNTAXES

    read = text(value)
    by_keyword = {
        known[4]: uid
        for uid, known in UID_dictionary.items()
        if known[1] == "Transfer Syntax" and uid in STORAGE_TRANSFER_SYNTAXES
    }
    found = by_keyword.get(read, read)
    if found not in STORAGE_TRANSFER_SYNTAXES:
        raise ValueError(
            f"{shown(read)} is no transfer syntax that is taken here, by its UID or its keyword such as "
            f"ExplicitVRLittleEndian or JPEGLSLossless{suggestion(read, by_keyword)}"
        )
    return found


def _sent_transfer_syntaxes(value: Any) -> Any:
    from node.wire.sop_classes import UNCOMPRESSED

    read = several(transfer_syntax, "transfer syntax")(value)
    if not set(UNCOMPRESSED) & set(read):
        raise ValueError(
            "needs ExplicitVRLittleEndian or ImplicitVRLittleEndian among them: every instance can be sent "
            "in those, and in no other one"
        )
    return read


calling_addresses: Reader = several(calling_address, "address")
certificate_names: Reader = several(certificate_name, "name")
fingerprints: Reader = several(fingerprint, "fingerprint")
transfer_syntaxes: Reader = several(transfer_syntax, "transfer syntax")
sent_transfer_syntaxes: Reader = _sent_transfer_syntaxes
