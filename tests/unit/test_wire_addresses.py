"""Addresses, networks and names: who calls from where it may."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from node.wire.addresses import Addresses, host_of


def unresolvable(host: str) -> frozenset[str]:
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize(
    ("address", "places", "is_among"),
    [
        ("192.0.2.1", ("192.0.2.1",), True),
        ("192.0.2.1", ("192.0.2.2", "192.0.2.1"), True),
        ("192.0.2.1", ("192.0.2.2",), False),
        ("192.0.2.1", (), False),
        ("::ffff:192.0.2.1", ("192.0.2.1",), True),
        ("192.0.2.1", ("::ffff:192.0.2.1",), True),
        ("::ffff:c000:201", ("192.0.2.0/24",), True),
        ("192.0.2.1", ("::ffff:192.0.2.0/120",), True),
        ("192.0.3.1", ("::ffff:192.0.2.0/120",), False),
        ("10.1.255.255", ("10.1.0.0/16",), True),
        ("10.2.0.0", ("10.1.0.0/16",), False),
        ("2001:db8:1::77", ("2001:db8:1::/64",), True),
        ("2001:db8:1:1::77", ("2001:db8:1::/64",), False),
        ("2001:0DB8:0001::77", ("2001:db8:1::77",), True),
        ("192.0.2.1", ("0.0.0.0/0",), True),
        ("192.0.2.1", ("::/0",), False),
        ("2001:db8::1", ("::/0",), True),
        ("2001:db8::1", ("0.0.0.0/0",), False),
        ("fe80::1%eth0", ("fe80::1",), True),
        ("fe80::1", ("fe80::1%eth0",), True),
        ("fe80::1%eth0", ("fe80::/10",), True),
        ("fe80::2%eth0", ("fe80::1%eth0",), False),
        ("::1", ("127.0.0.1",), True),
        ("127.0.1.1", ("::1",), True),
        ("::ffff:127.0.0.1", ("127.0.0.0/8",), True),
        ("::1", ("127.0.0.0/8",), True),
        ("127.0.0.1", ("::1/128",), True),
        ("192.0.2.1", ("127.0.0.0/8",), False),
        ("not an address", ("0.0.0.0/0", "::/0"), False),
    ],
)
def test_an_address_is_compared_with_addresses_and_networks(
    address: str, places: tuple[str, ...], is_among: bool
) -> None:
    assert Addresses(unresolvable).is_among(address, places) is is_among


def test_a_name_is_looked_up_only_where_nothing_else_fits() -> None:
    asked: list[str] = []

    def resolve(host: str) -> frozenset[str]:
        asked.append(host)
        return frozenset({"192.0.2.9", "2001:db8::9"})

    addresses = Addresses(resolve)
    assert addresses.is_among("192.0.2.1", ("scanner.example", "192.0.2.0/29"))
    assert asked == []
    assert addresses.is_among("192.0.2.9", ("scanner.example", "192.0.2.0/29"))
    assert addresses.is_among("2001:db8:0::9", ("scanner.example",))
    assert not addresses.is_among("192.0.2.10", ("scanner.example",))
    assert asked == ["scanner.example"]


def test_what_an_address_says_of_itself_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def reverse(*_: object) -> Any:
        raise AssertionError("a reverse lookup")

    for name in ("gethostbyaddr", "getnameinfo", "getfqdn"):
        monkeypatch.setattr(socket, name, reverse)
    assert Addresses().is_among("127.0.0.1", ("localhost",))
    assert not Addresses().is_among("192.0.2.1", ("localhost",))


def test_a_name_is_resolved_once_in_a_while_and_kept_when_the_name_server_is_away(
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

    known = Addresses(resolve)
    for _ in range(3):
        assert known.is_among("192.0.2.9", ("scanner.example",))
    assert asked == ["scanner.example"]
    known._resolved["scanner.example"] = (0.0, known._resolved["scanner.example"][1])
    with caplog.at_level(logging.WARNING):
        assert known.is_among("192.0.2.9", ("scanner.example",))
    assert len(asked) == 2
    assert [record.message for record in caplog.records] == ["host of a peer is unknown"]


def test_a_name_that_has_no_address_lets_nobody_in() -> None:
    def nowhere(host: str) -> frozenset[str]:
        raise socket.gaierror(-2, "unknown")

    assert not Addresses(nowhere).is_among("192.0.2.9", ("scanner.example",))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(address: str) -> None:
    assert Addresses(lambda host: frozenset({"127.0.1.1"})).is_among(address, ("named",))
    assert not Addresses(lambda host: frozenset({"192.0.2.1"})).is_among(address, ("named",))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("", "", True),
    ],
)
def test_a_host_has_one_address_or_a_network_of_ipv6(one: str, other: str, is_same: bool) -> None:
    assert (host_of(one) == host_of(other)) == is_same
