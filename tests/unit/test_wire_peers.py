"""Who a peer is, where it is, and what it may ask."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from node.config.settings import Config, NodeConfig, PeerConfig
from node.wire.peers import Peers

SCANNER = PeerConfig("SCANNER", "192.0.2.1", 104, allow=("store",))
NAMED = PeerConfig("NAMED", "scanner.example", 104, allow=("store", "query"))
SIX = PeerConfig("SIX", "2001:db8::1", 104)
ALL_VERBS = ("store", "query", "retrieve", "commit")


def peers(*, accept_unknown: bool = False, resolve: Any = None) -> Peers:
    config = Config(node=NodeConfig(accept_unknown_peers=accept_unknown), peers=(SCANNER, NAMED, SIX))
    return Peers(config, resolve=resolve or (lambda host: frozenset({"192.0.2.9", "2001:db8::9"})))


@pytest.mark.parametrize(
    ("calling_ae_title", "address", "verbs"),
    [
        ("SCANNER", "192.0.2.1", ("store",)),
        ("SCANNER", "::ffff:192.0.2.1", ("store",)),
        ("SCANNER", "192.0.2.2", ()),
        ("NAMED", "192.0.2.9", ("store", "query")),
        ("NAMED", "2001:db8:0::9", ("store", "query")),
        ("NAMED", "192.0.2.1", ()),
        ("SIX", "2001:0db8::0001", ALL_VERBS),
        ("STRANGER", "192.0.2.1", ()),
    ],
)
def test_a_peer_has_its_verbs_from_its_own_host_alone(
    calling_ae_title: str, address: str, verbs: tuple[str, ...]
) -> None:
    assert peers().allowed(calling_ae_title, address) == verbs
    assert peers().is_known(calling_ae_title, address) is bool(verbs)


def test_strangers_have_all_verbs_where_they_are_accepted() -> None:
    assert peers(accept_unknown=True).allowed("STRANGER", "203.0.113.5") == ALL_VERBS
    assert peers(accept_unknown=True).allowed("SCANNER", "203.0.113.5") == ()


def test_a_host_name_is_resolved_once_in_a_while_and_kept_when_the_name_server_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Any] = [frozenset({"192.0.2.9"}), socket.gaierror(-3, "try again")]
    asked = []

    def resolve(host: str) -> frozenset[str]:
        asked.append(host)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    known = peers(resolve=resolve)
    for _ in range(3):
        assert known.is_known("NAMED", "192.0.2.9")
    assert asked == ["scanner.example"]
    known._resolved["scanner.example"] = (0.0, known._resolved["scanner.example"][1])
    with caplog.at_level(logging.WARNING):
        assert known.is_known("NAMED", "192.0.2.9")
    assert len(asked) == 2
    assert [record.message for record in caplog.records] == ["host of a peer is unknown"]


def test_a_host_that_has_no_address_lets_nobody_in() -> None:
    def nowhere(host: str) -> frozenset[str]:
        raise socket.gaierror(-2, "unknown")

    assert not peers(resolve=nowhere).is_known("NAMED", "192.0.2.9")


def test_localhost_is_this_machine() -> None:
    config = Config(
        node=NodeConfig(accept_unknown_peers=False), peers=(PeerConfig("HERE", "localhost", 104),)
    )
    assert Peers(config).is_known("HERE", "127.0.0.1")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(address: str) -> None:
    config = Config(node=NodeConfig(accept_unknown_peers=False), peers=(PeerConfig("HERE", "named", 104),))
    assert Peers(config, resolve=lambda host: frozenset({"127.0.1.1"})).is_known("HERE", address)
    assert not Peers(config, resolve=lambda host: frozenset({"192.0.2.1"})).is_known("HERE", address)


def test_peers_are_found_by_ae_title() -> None:
    assert peers().by_ae_title("SCANNER") is SCANNER
    assert peers().by_ae_title("scanner") is None


def test_open_associations_are_found_by_number_until_they_end() -> None:
    known = peers()
    association: Any = SimpleNamespace(number=7)
    known.register(association)
    assert known.open_association(7) is association
    known.unregister(association)
    known.unregister(association)
    assert known.open_association(7) is None
