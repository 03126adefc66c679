"""What can be wrong with TLS between two nodes, in words and by name."""

from __future__ import annotations

import re
import ssl

from node.wire.connection import ConnectionLost

# the names of faults, as ``anode check --tls --json`` has them
EXPIRED = "expired"
NOT_YET_VALID = "not-yet-valid"
WRONG_NAME = "wrong-name"
UNKNOWN_ISSUER = "unknown-issuer"
SELF_SIGNED = "self-signed"
REVOKED = "revoked"
WEAK = "weak-certificate"
UNFIT = "unfit-certificate"
PLAIN_PEER = "plain-peer"
NO_COMMON_SUITE = "no-common-suite"
REFUSED_BY_PEER = "our-certificate-refused"
MISSING_HERE = "our-certificate-missing"
PEER_SHOWS_NONE = "peer-certificate-missing"
OTHER = "tls"

# X509_V_ERR_… of OpenSSL: the fault, and what to do where its own words do not say it
_VERIFICATION = {
    10: (EXPIRED, ""),
    9: (NOT_YET_VALID, "; is a clock wrong?"),
    62: (WRONG_NAME, ""),
    64: (WRONG_NAME, ""),
    18: (SELF_SIGNED, "; to trust it, put it into ca"),
    19: (UNKNOWN_ISSUER, "; the authority that it names is not in ca"),
    2: (UNKNOWN_ISSUER, "; its authority is not in ca"),
    20: (UNKNOWN_ISSUER, "; its authority is not in ca, or the peer does not show the whole chain"),
    21: (UNKNOWN_ISSUER, "; its authority is not in ca, or the peer does not show the whole chain"),
    23: (REVOKED, ""),
    3: (REVOKED, "; crl holds no list of its authority"),
    12: (REVOKED, "; get a newer list into crl"),
    66: (WEAK, "; RSA needs 2048 bits or more"),
    67: (WEAK, "; an RSA authority needs 2048 bits or more"),
    68: (WEAK, "; it must be signed with SHA-256 or better"),
    26: (UNFIT, "; its extended key usage does not allow what it is used for here"),
}
_ABOUT_US = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")
_NOTHING_IN_COMMON = (
    "NO_SHARED_CIPHER", "NO_SHARED_GROUP", "NO_SUITABLE_KEY_SHARE", "NO_SUITABLE_SIGNATURE_ALGORITHM",
    "NO_CIPHERS_AVAILABLE", "UNSUPPORTED_PROTOCOL", "UNKNOWN_PROTOCOL", "VERSION_TOO_LOW", "DH_KEY_TOO_SMALL",
    "WRONG_SIGNATURE_TYPE", "NO_SHARED_SIGNATURE_ALGORITHMS", "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED",
    "WRONG_CURVE", "UNSUPPORTED_ELLIPTIC_CURVE", "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
)  # fmt: skip
_HERE = "here it is TLS 1.2 or later, with ECDHE and AES-GCM or ChaCha20, and no SHA-1"


_ALIKE = "let both sides use TLS or neither, or use the other port"


class TlsFailure(ConnectionLost):
    """No TLS connection came about, or it broke: the message says whose certificate or offer is wrong.

    ``fault`` is the name of what is wrong, one of this module.
    """

    action = (
        "compare the peer's certificate, its dates too, with ca of [node.tls], and ours with what the peer "
        "trusts; 'anode check --tls PEER' tells for one that can be called"
    )

    def __init__(self, message: str, *, fault: str = OTHER) -> None:
        super().__init__(message, action=_ALIKE if fault == PLAIN_PEER else None)
        self.fault = fault


def explained(error: ssl.SSLError, *, has_heard_hello: bool = True) -> TlsFailure:
    """Say whose certificate, version or cipher suite is wrong.

    ``has_heard_hello``: the peer had answered in the handshake before it failed, so it was content
    with version and cipher suite.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        fault, advice = _VERIFICATION.get(error.verify_code, (OTHER, ""))
        message = error.verify_message.rstrip(".")
        return TlsFailure(f"the peer's certificate is not accepted: {message}{advice}", fault=fault)
    reason = error.reason or ""
    _, is_alert, alert = reason.partition("_ALERT_")
    if is_alert:
        return _alerted(alert, has_heard_hello)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsFailure(
            "the peer shows no certificate; with verify_peers = true it must", fault=PEER_SHOWS_NONE
        )
    if reason in _NOTHING_IN_COMMON:
        return _nothing_in_common(words(error))
    return TlsFailure(f"TLS failed: {words(error)}")


def _alerted(alert: str, has_heard_hello: bool) -> TlsFailure:
    said = f"the peer ended TLS with the alert '{alert.replace('_', ' ').lower()}'"
    if alert == "CERTIFICATE_REQUIRED":
        return TlsFailure(
            f"{said}, so it does not accept our certificate: none was shown", fault=MISSING_HERE
        )
    if any(word in alert for word in _ABOUT_US):
        return TlsFailure(f"{said}, so it does not accept our certificate", fault=REFUSED_BY_PEER)
    if alert in ("PROTOCOL_VERSION", "INSUFFICIENT_SECURITY") or (
        alert == "HANDSHAKE_FAILURE" and not has_heard_hello
    ):
        return _nothing_in_common(said)
    if alert == "HANDSHAKE_FAILURE":  # before TLS 1.3 there is no alert of its own for a missing one
        return TlsFailure(
            f"{said}, so it misses our certificate, or does not accept it", fault=REFUSED_BY_PEER
        )
    return TlsFailure(said)


def _nothing_in_common(what: str) -> TlsFailure:
    return TlsFailure(f"no TLS version and cipher suite in common ({what}); {_HERE}", fault=NO_COMMON_SUITE)


def words(error: ssl.SSLError) -> str:
    """Return what OpenSSL says, in lower case and without the place in its code."""
    said = error.reason or re.sub(r"^\[\w+\] | \(_ssl\.c:\d+\)$", "", error.strerror or str(error))
    return said.replace("_", " ").lower()
