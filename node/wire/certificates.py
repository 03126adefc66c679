"""X.509 certificates as anode speaks of them (RFC 5280)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PeerCertificate:
    """What a peer has shown and proven to hold the key of, and what an authority that we trust vouches for.

    Attributes
    ----------
    der
        The whole certificate, in DER.
    common_name
        The last common name of its subject; empty where there is none.
    dns_names, ip_addresses, uris
        Its subjectAltName (RFC 5280 section 4.2.1.6), spelled as it is there.
    """

    der: bytes
    common_name: str = ""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    @classmethod
    def of(cls, der: bytes, described: dict[str, Any]) -> PeerCertificate:
        """Read what ``SSLObject.getpeercert`` says of a certificate that was verified."""
        common_names = [
            value
            for relative_name in described.get("subject", ())
            for attribute, value in relative_name
            if attribute == "commonName"
        ]
        alternatives = described.get("subjectAltName", ())
        return cls(
            der,
            common_names[-1] if common_names else "",
            *(
                tuple(value for kind, value in alternatives if kind == wanted)
                for wanted in ("DNS", "IP Address", "URI")
            ),
        )

    @property
    def sha256(self) -> str:
        """Its fingerprint in lower-case hex, as ``openssl x509 -fingerprint -sha256`` has it."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def name(self) -> str:
        """The name to speak of it by: the common name, else the first alternative one."""
        names = (self.common_name, *self.dns_names, *self.uris, *self.ip_addresses)
        return next((name for name in names if name), "without a name")
