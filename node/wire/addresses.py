"""Where a peer calls from: is its address among the addresses, networks and names that it may use?

What a reverse lookup says of an address is its owner's word, and never asked for: a name that the operator
wrote down is looked up, and the address has to be one of its own.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RESOLVED_SECONDS = 60.0
# RFC 4291 section 2.5.1
_HOST_BITS = 64
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
# every loopback address is this machine, whose own name often stands for another one than 127.0.0.1
_THIS_MACHINE = ipaddress.IPv4Address("127.0.0.1")


class Addresses:
    """Compares addresses with what the operator wrote, and remembers what names stood for.

    Parameters
    ----------
    resolve
        Gives the addresses of a host name; OSError when it has none.
    """

    def __init__(self, resolve: Callable[[str], frozenset[str]] | None = None) -> None:
        self._resolve = resolve or _addresses
        self._resolved: dict[str, tuple[float, frozenset[str]]] = {}

    def is_among(self, address: str, places: Sequence[str]) -> bool:
        """Whether ``address`` is one of ``places``: addresses, networks with a prefix, host names.

        An IPv4 address is the same when it is mapped into IPv6, all loopback addresses are one, and
        zones (``%eth0``) are not compared. A name may take as long as the name server.
        """
        calling = literal(address)
        if calling is None:
            return False
        names = []
        for place in places:
            if "/" in place:
                if _is_within(calling, ipaddress.ip_network(place, strict=False)):
                    return True
            elif (one := literal(place)) is None:
                names.append(place)
            elif one == calling:
                return True
        return any(str(calling) in self._addresses_of(name) for name in names)

    def _addresses_of(self, host: str) -> frozenset[str]:
        now = time.monotonic()
        known = self._resolved.get(host)
        if known is not None and now < known[0]:
            return known[1]
        try:
            addresses = frozenset(str(literal(found) or found) for found in self._resolve(host))
        except OSError as error:
            # keep to what it was: a name server that is away must not lock a scanner out
            addresses = known[1] if known is not None else frozenset()
            logger.warning("host of a peer is unknown", extra={"host": host, "reason": error.strerror})
        self._resolved[host] = (now + _RESOLVED_SECONDS, addresses)
        return addresses


def literal(host: str) -> _Address | None:
    """Read an IP address so that those that mean the same are equal; None for a name."""
    address = _address(host)
    return _THIS_MACHINE if address is not None and address.is_loopback else address


def host_of(address: str) -> str:
    """What counts as one host: an IPv4 address, or the /64 network of an IPv6 one, which may all be its."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address) and not found.is_link_local:
        return str(ipaddress.IPv6Network((found, _HOST_BITS), strict=False))
    return str(found or address)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_within(address: _Address, network: _Network) -> bool:
    if network.is_loopback:
        return address == _THIS_MACHINE
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        network = ipaddress.IPv4Network((str(mapped), network.prefixlen - _MAPPED.prefixlen))
    return address in network


def _addresses(host: str) -> frozenset[str]:
    return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
