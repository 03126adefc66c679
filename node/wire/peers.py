"""The other Application Entities: who they are, what they may ask, and which of them are here now."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from node.config.settings import Config, PeerConfig, Verb
from node.wire import scu
from node.wire.association import Association
from node.wire.contexts import ProposedContext
from node.wire.requestor import RequestedAssociation
from node.wire.scu import RequestHandler
from node.wire.tls import ClientTls

logger = logging.getLogger(__name__)

_ALL_VERBS: tuple[Verb, ...] = ("store", "query", "retrieve", "commit")
_RESOLVED_SECONDS = 60.0


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
        self._resolve = resolve or _addresses
        self._by_ae_title = {peer.ae_title: peer for peer in reversed(config.peers)}
        self._resolved: dict[str, tuple[float, frozenset[str]]] = {}
        self._open: dict[int, Association] = {}
        self._tls: dict[PeerConfig, ClientTls | None] = {}
        self._lock = threading.Lock()

    def by_ae_title(self, ae_title: str) -> PeerConfig | None:
        """Find a configured peer; None when there is none of that AE title."""
        return self._by_ae_title.get(ae_title)

    def allowed(self, calling_ae_title: str, address: str) -> tuple[Verb, ...]:
        """Verbs that whoever calls as ``calling_ae_title`` from ``address`` may use.

        A configured peer has those of its ``allow``, from its own host alone. Others have all when
        ``accept_unknown_peers`` is true, and none otherwise.
        """
        peer = self._by_ae_title.get(calling_ae_title)
        if peer is None:
            return _ALL_VERBS if self._config.node.accept_unknown_peers else ()
        return peer.allow if self.is_at(peer, address) else ()

    def is_known(self, calling_ae_title: str, address: str) -> bool:
        """Whether an association may be requested under this AE title from this address."""
        peer = self._by_ae_title.get(calling_ae_title)
        if peer is None:
            return self._config.node.accept_unknown_peers
        return self.is_at(peer, address)

    def is_at(self, peer: PeerConfig, address: str) -> bool:
        """Whether ``address`` is one of the addresses of the host of ``peer``."""
        literal = _literal(peer.host)
        if literal is not None:
            return literal == _literal(address)
        return (_literal(address) or address) in self._addresses_of(peer.host)

    def _addresses_of(self, host: str) -> frozenset[str]:
        now = time.monotonic()
        known = self._resolved.get(host)
        if known is not None and now < known[0]:
            return known[1]
        try:
            addresses = frozenset(_literal(found) or found for found in self._resolve(host))
        except OSError as error:
            # keep to what it was: a name server that is away must not lock a scanner out
            addresses = known[1] if known is not None else frozenset()
            logger.warning("host of a peer is unknown", extra={"host": host, "reason": error.strerror})
        self._resolved[host] = (now + _RESOLVED_SECONDS, addresses)
        return addresses

    def connect(
        self,
        peer: PeerConfig,
        contexts: Sequence[ProposedContext],
        *,
        handlers: Mapping[str, RequestHandler] | None = None,
    ) -> RequestedAssociation:
        """Request an association with ``peer`` under the node's own AE title; errors as ``scu.connect``."""
        limits = self._config.limits
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

    def open_association(self, number: int) -> Association | None:
        """Find an accepted association that is still open."""
        with self._lock:
            return self._open.get(number)


def _addresses(host: str) -> frozenset[str]:
    return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


def _literal(host: str) -> str | None:
    """Write an IP address in one way; None for a name.

    IPv4 also when it is mapped into IPv6. Every loopback address is this machine, whose own name
    often stands for another one than 127.0.0.1.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    return "loopback" if address.is_loopback else str(address)
