"""Who a peer is, where it may call from, what it has to show, and what it may ask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from node.config.settings import Config, LimitsConfig, NodeConfig, PeerConfig
from node.errors import UnknownPeer
from node.wire import contexts
from node.wire.certificates import PeerCertificate
from node.wire.contexts import AssociationRequest, Rejection
from node.wire.peers import Caller, Peers, is_vouched_for

SCANNER = PeerConfig("SCANNER", "192.0.2.1", 104, allow=("store",), associations=3)
NAMED = PeerConfig("NAMED", "scanner.example", 104, allow=("store", "query"))
SIX = PeerConfig("SIX", "2001:db8::1", 104)
SECURE = PeerConfig("SECURE", "192.0.2.2", 104, require_tls=True)
PINNED = PeerConfig("PINNED", "192.0.2.3", 104, certificate_names=("pinned.example.org",))
ROAMING = PeerConfig("ROAMING", addresses=("198.51.100.0/24", "192.0.2.8"))
ALL_VERBS = ("store", "query", "retrieve", "commit")
CERTIFICATE = PeerCertificate(b"der", "pinned.example.org")


def peers(*, accept_unknown: bool = False, host: str = "127.0.0.1") -> Peers:
    config = Config(
        node=NodeConfig(accept_unknown_peers=accept_unknown, host=host),
        limits=LimitsConfig(associations_per_peer=7),
        peers=(SCANNER, NAMED, SIX, SECURE, PINNED, ROAMING),
    )
    return Peers(config, resolve=lambda host: frozenset({"192.0.2.9", "2001:db8::9"}))


def request(calling_ae_title: str, address: str, **changes: Any) -> AssociationRequest:
    return AssociationRequest(calling_ae_title, "ANODE", address, contexts.APPLICATION_CONTEXT, (), **changes)


@pytest.mark.parametrize(
    ("calling_ae_title", "address", "verbs"),
    [
        ("SCANNER", "192.0.2.1", ("store",)),
        ("SCANNER", "::ffff:192.0.2.1", ("store",)),
        ("SCANNER", "192.0.2.2", contexts.CALLING_AE_TITLE_ELSEWHERE),
        ("NAMED", "192.0.2.9", ("store", "query")),
        ("NAMED", "2001:db8:0::9", ("store", "query")),
        ("NAMED", "192.0.2.1", contexts.CALLING_AE_TITLE_ELSEWHERE),
        ("SIX", "2001:0db8::0001", ALL_VERBS),
        ("ROAMING", "198.51.100.77", ALL_VERBS),
        ("ROAMING", "192.0.2.8", ALL_VERBS),
        ("ROAMING", "192.0.2.9", contexts.CALLING_AE_TITLE_ELSEWHERE),
        ("SECURE", "192.0.2.2", contexts.CALLING_WITHOUT_TLS),
        ("STRANGER", "192.0.2.1", contexts.CALLING_AE_TITLE_UNKNOWN),
        ("scanner", "192.0.2.1", contexts.CALLING_AE_TITLE_UNKNOWN),
    ],
)
def test_a_peer_has_its_verbs_from_its_own_addresses_alone(
    calling_ae_title: str, address: str, verbs: tuple[str, ...] | Rejection
) -> None:
    found = peers().caller(request(calling_ae_title, address))
    assert (found.allow if isinstance(found, Caller) else found) == verbs


def test_over_tls_a_peer_shows_a_certificate_of_its_own() -> None:
    known = peers()
    over_tls = {"is_over_tls": True, "peer_certificate": CERTIFICATE}
    other = {"is_over_tls": True, "peer_certificate": PeerCertificate(b"other", "other.example.org")}
    assert isinstance(known.caller(request("SECURE", "192.0.2.2", **other)), Caller)
    assert isinstance(known.caller(request("PINNED", "192.0.2.3", **over_tls)), Caller)
    refused = contexts.CALLING_WITH_ANOTHER_CERTIFICATE
    assert known.caller(request("PINNED", "192.0.2.3", **other)) == refused
    assert known.caller(request("PINNED", "192.0.2.3", is_over_tls=True)) == refused
    elsewhere = known.caller(request("PINNED", "192.0.2.4", **over_tls))
    assert elsewhere == contexts.CALLING_AE_TITLE_ELSEWHERE


@pytest.mark.parametrize(
    ("wanted", "certificate", "is_one"),
    [
        ({}, None, True),
        ({"certificate_names": ("ct.example.org",)}, PeerCertificate(b"", "CT.example.org"), True),
        ({"certificate_names": ("ct.example.org",)}, PeerCertificate(b"", "", ("Ct.Example.Org",)), True),
        # a common name beside an alternative name is nobody's word
        ({"certificate_names": ("a.org",)}, PeerCertificate(b"", "a.org", ("b.org",)), False),
        ({"certificate_names": ("a.org",)}, PeerCertificate(b"", "a.org", (), ("192.0.2.1",)), False),
        ({"certificate_names": ("192.0.2.1",)}, PeerCertificate(b"", "x", (), ("192.0.2.1",)), True),
        (
            {"certificate_names": ("2001:db8::1",)},
            PeerCertificate(b"", "x", (), ("2001:DB8:0:0:0:0:0:1",)),
            True,
        ),
        (
            {"certificate_names": ("2001:db8::2",)},
            PeerCertificate(b"", "x", (), ("2001:DB8:0:0:0:0:0:1",)),
            False,
        ),
        # the long s and the Kelvin sign are no letters of host names
        ({"certificate_names": ("us.example.org",)}, PeerCertificate(b"", "u\u017f.example.org"), False),
        ({"certificate_names": ("k.example.org",)}, PeerCertificate(b"", "", ("\u212a.example.org",)), False),
        ({"certificate_names": ("urn:ct:7",)}, PeerCertificate(b"", "x", (), (), ("urn:ct:7",)), True),
        ({"certificate_names": ("urn:CT:7",)}, PeerCertificate(b"", "x", (), (), ("urn:ct:7",)), False),
        ({"certificate_names": ("*.example.org",)}, PeerCertificate(b"", "", ("ct.example.org",)), True),
        ({"certificate_names": ("*.example.org",)}, PeerCertificate(b"", "", ("a.ct.example.org",)), False),
        ({"certificate_names": ("*.example.org",)}, PeerCertificate(b"", "", ("example.org",)), False),
        ({"certificate_names": ("*.example.org",)}, PeerCertificate(b"", "", (".example.org",)), False),
        # a certificate for many hosts is not that of one
        ({"certificate_names": ("ct.example.org",)}, PeerCertificate(b"", "", ("*.example.org",)), False),
        ({"certificate_names": ("*.example.org",)}, PeerCertificate(b"", "", ("*.example.org",)), False),
        ({"certificate_names": ("a.org",)}, PeerCertificate(b"", ""), False),
        ({"certificate_sha256": (CERTIFICATE.sha256,)}, CERTIFICATE, True),
        ({"certificate_sha256": (CERTIFICATE.sha256,)}, PeerCertificate(b"x", "pinned.example.org"), False),
        (
            {"certificate_sha256": (CERTIFICATE.sha256,), "certificate_names": ("a.org",)},
            PeerCertificate(b"x", "a.org"),
            True,
        ),
        ({"certificate_names": ("a.org",)}, None, False),
    ],
)
def test_a_certificate_is_that_of_a_peer_by_name_or_digest(
    wanted: dict[str, Any], certificate: PeerCertificate | None, is_one: bool
) -> None:
    assert is_vouched_for(PeerConfig("A", **wanted), certificate) is is_one


def test_strangers_have_all_verbs_where_they_are_accepted() -> None:
    found = peers(accept_unknown=True).caller(request("STRANGER", "203.0.113.5"))
    assert isinstance(found, Caller)
    assert (found.allow, found.peer) == (ALL_VERBS, None)
    elsewhere = peers(accept_unknown=True).caller(request("SCANNER", "203.0.113.5"))
    assert elsewhere == contexts.CALLING_AE_TITLE_ELSEWHERE


def test_the_commands_beside_a_node_may_verify_that_it_answers_and_no_more() -> None:
    for known, address in ((peers(), "127.0.0.1"), (peers(host="192.0.2.50"), "192.0.2.50")):
        found = known.caller(request("ANODE", address))
        assert isinstance(found, Caller)
        assert found.allow == ()
        assert known.caller(request("ANODE", "192.0.2.1")) == contexts.CALLING_AE_TITLE_UNKNOWN
        assert known.caller(request("OTHER", address)) == contexts.CALLING_AE_TITLE_UNKNOWN


def test_a_peer_counts_by_itself_and_at_its_address_and_strangers_by_that_alone() -> None:
    known = peers(accept_unknown=True)

    def places(calling_ae_title: str, address: str) -> tuple[tuple[str, ...], int]:
        found = known.caller(request(calling_ae_title, address))
        assert isinstance(found, Caller)
        return found.places, found.associations

    assert places("SCANNER", "::ffff:192.0.2.1") == (("peer SCANNER", "address 192.0.2.1"), 3)
    assert places("NAMED", "192.0.2.9") == (("peer NAMED", "address 192.0.2.9"), 7)
    assert places("NAMED", "2001:db8::9") == (("peer NAMED", "address 2001:db8::/64"), 7)
    assert places("ONE", "192.0.2.77") == places("TWO", "::ffff:192.0.2.77") == (("address 192.0.2.77",), 7)
    assert places("ONE", "192.0.2.78") != places("ONE", "192.0.2.77")


def test_peers_are_found_by_ae_title() -> None:
    assert peers().by_ae_title("SCANNER") is SCANNER
    assert peers().by_ae_title("scanner") is None
    assert peers().destination("SCANNER") is SCANNER


@pytest.mark.parametrize(
    ("ae_title", "why"),
    [("NOBODY", "is not in the configuration"), ("ROAMING", "has no host and port here")],
)
def test_nothing_is_sent_to_whom_it_is_not_known_where(ae_title: str, why: str) -> None:
    with pytest.raises(UnknownPeer, match=f"the peer {ae_title} {why}") as caught:
        peers().destination(ae_title)
    assert "[[peers]] table" in caught.value.action


def test_open_associations_are_found_by_number_until_they_end() -> None:
    known = peers()
    association: Any = SimpleNamespace(number=7)
    known.register(association)
    assert known.open_association(7) is association
    known.unregister(association)
    known.unregister(association)
    assert known.open_association(7) is None
