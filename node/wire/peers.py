"""The other Application Entities: who they are, what they may ask, and which of them are here now."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.config.settings import Config, PeerConfig, Verb
from node.errors import UnknownPeer
from node.wire import scu
from node.wire.addresses import Addresses, host_of
from node.wire.association import Association
from node.wire.certificates import PeerCertificate
from node.wire.contexts import (
    CALLING_AE_TITLE_ELSEWHERE,
    CALLING_AE_TITLE_UNKNOWN,
    CALLING_WITH_ANOTHER_CERTIFICATE,
    CALLING_WITHOUT_TLS,
    AssociationRequest,
    ProposedContext,
    Rejection,
)
from node.wire.requestor import RequestedAssociation
from node.wire.scu import RequestHandler
from node.wire.tls import ClientTls

_ALL_VERBS: tuple[Verb, ...] = ("store", "query", "retrieve", "commit")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Caller:
    """Whoever requests an association and may have one.

    Attributes
    ----------
    peer
        Its ``[[peers]]`` table; None for one that has none.
    allow
        What it may ask for, beside verification.
    places
        What its associations count for: itself where it is configured, and the address that it calls from.
    associations
        How many there may be at the same time in the first of those: of a configured peer, or for a stranger
        of all that call from its address, under whichever AE title.
    """

    peer: PeerConfig | None
    allow: tuple[Verb, ...]
    places: tuple[str, ...]
    associations: int


class Peers:
    """The ``[[peers]]`` of the configuration, and the associations that are open.

    Parameters
    ----------
    config
        The whole configuration.
    resolve
        Gives the addresses of a host name; OSError when it has none.
    """

    def __init__(self, config: Config, *, resolve: Callable[[str], frozenset[str]] | None = None) -> None:
        self._config = config
        self._addresses = Addresses(resolve)
        self._by_ae_title = {peer.ae_title: peer for peer in reversed(config.peers)}
        self._open: dict[int, Association] = {}
        self._tls: dict[PeerConfig, ClientTls | None] = {}
        self._lock = threading.Lock()

    def by_ae_title(self, ae_title: str) -> PeerConfig | None:
        """Find a configured peer; None when there is none of that AE title."""
        return self._by_ae_title.get(ae_title)

    def destination(self, ae_title: str) -> PeerConfig:
        """Find a configured peer to which associations can be requested.

        Raises
        ------
        UnknownPeer
            There is none of that AE title, or it has no host and port.
        """
        peer = self._by_ae_title.get(ae_title)
        if peer is None:
            raise UnknownPeer(
                f"the peer {ae_title} is not in the configuration",
                action=f"add a [[peers]] table for {ae_title}; 'anode retry' tries what waits for it again",
            )
        if not peer.can_be_called:
            raise UnknownPeer(
                f"the peer {ae_title} has no host and port here",
                action="add host and port to its [[peers]] table; 'anode retry' tries again what waits",
            )
        return peer

    def caller(self, request: AssociationRequest) -> Caller | Rejection:
        """Find out who requests an association, or why nobody who may is that.

        A configured peer calls from its addresses alone, over TLS where it has to, and there with a
        certificate of its own where it has one. Others may when ``accept_unknown_peers`` is true.
        Where it is not, the commands beside the node, which call under its own AE title from this machine,
        may verify that it answers.
        """
        peer = self._by_ae_title.get(request.calling_ae_title)
        if peer is None:
            return self._stranger(request)
        if not self._addresses.is_among(request.peer_address, peer.addresses or (peer.host,)):
            return CALLING_AE_TITLE_ELSEWHERE
        if peer.require_tls and not request.is_over_tls:
            return CALLING_WITHOUT_TLS
        if request.is_over_tls and not is_vouched_for(peer, request.peer_certificate):
            return CALLING_WITH_ANOTHER_CERTIFICATE
        own = peer.associations
        most = self._config.limits.associations_per_peer if own is None else own
        return Caller(peer, peer.allow, (f"peer {peer.ae_title}", _address_of(request)), most)

    def _stranger(self, request: AssociationRequest) -> Caller | Rejection:
        node = self._config.node
        allow = _ALL_VERBS
        if not node.accept_unknown_peers:
            own_addresses = (_LOOPBACK, node.host, node.tls_host)
            if request.calling_ae_title != node.ae_title or not self._addresses.is_among(
                request.peer_address, own_addresses
            ):
                return CALLING_AE_TITLE_UNKNOWN
            allow = ()
        return Caller(None, allow, (_address_of(request),), self._config.limits.associations_per_peer)

    def connect(
        self,
        peer: PeerConfig,
        contexts: Sequence[ProposedContext],
        *,
        handlers: Mapping[str, RequestHandler] | None = None,
    ) -> RequestedAssociation:
        """Request an association with ``peer`` under the node's own AE title; errors as ``scu.connect``."""
        limits = self._config.limits_of(peer)
        return scu.connect(
            peer.host,
            peer.port,
            calling_ae_title=self._config.node.ae_title,
            called_ae_title=peer.ae_title,
            contexts=contexts,
            timeout_seconds=limits.network_timeout_seconds,
            max_pdu_bytes=limits.max_pdu_bytes,
            handlers=handlers,
            tls=self._tls_of(peer),
        )

    def _tls_of(self, peer: PeerConfig) -> ClientTls | None:
        with self._lock:
            if peer not in self._tls:
                self._tls[peer] = ClientTls.of(self._config, peer)
            return self._tls[peer]

    def register(self, association: Association) -> None:
        """Note an association that was accepted; the server calls it."""
        with self._lock:
            self._open[association.number] = association

    def unregister(self, association: Association) -> None:
        """Forget an association that is over; the server calls it."""
        with self._lock:
            self._open.pop(association.number, None)

    @property
    def is_anyone_connected(self) -> bool:
        """Whether a peer has an association with us that it requested."""
        return bool(self._open)

    def open_association(self, number: int) -> Association | None:
        """Find an accepted association that is still open."""
        with self._lock:
            return self._open.get(number)


def _address_of(request: AssociationRequest) -> str:
    return f"address {host_of(request.peer_address)}"


def is_vouched_for(peer: PeerConfig, certificate: PeerCertificate | None) -> bool:
    """Whether ``certificate`` is one that ``peer`` may show; any is where its table names none.

    The common name counts only where there is no subjectAltName that could (RFC 6125 section 6.4.4):
    authorities are careful about the latter.
    """
    if not peer.certificate_names and not peer.certificate_sha256:
        return True
    if certificate is None:
        return False
    if certificate.sha256 in peer.certificate_sha256:
        return True
    hosts = certificate.dns_names
    if not (certificate.uris or certificate.ip_addresses or hosts):
        hosts = (certificate.common_name,)
    return any(
        name in certificate.uris
        or any(_is_same_address(name, address) for address in certificate.ip_addresses)
        or any(_is_same_host(name, host) for host in hosts)
        for name in peer.certificate_names
    )


def _is_same_address(wanted: str, address: str) -> bool:
    try:
        # OpenSSL spells an IPv6 address otherwise than anybody else
        return ipaddress.ip_address(wanted) == ipaddress.ip_address(address)
    except ValueError:
        return False


def _is_same_host(wanted: str, host: str) -> bool:
    if not (wanted.isascii() and host.isascii()):
        return False  # some letters beyond ASCII have one of ASCII as their lower case
    wanted, host = wanted.lower(), host.lower()
    if wanted.startswith("*."):
        first, _, rest = host.partition(".")
        return bool(first) and "*" not in first and rest == wanted[2:]
    return wanted == host
