"""The BCP 195 profile (PS3.15 B.12): which versions, suites, groups, signatures and keys are taken.

Every probe is made by openssl, which shakes hands with a server that takes anything first: what is
refused afterwards is refused by the node.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from node.wire.tls import ClientTls, ListenerTls
from tests.support import tls_servers
from tests.support.certificates import EC_KEY, Authority, Pair
from tests.support.tls_servers import tls_server
from tests.support.toy_node import toy_node

RSA_KEY = ("-newkey", "rsa:2048")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Pair:
    return authority.issue("scanner")


@pytest.fixture(scope="module")
def ports(authority: Authority) -> Iterator[dict[str, tuple[int, int]]]:
    """The ports of a node and of a server that takes anything, by the kind of their keys."""
    ec, rsa = authority.issue("ec", new_key=EC_KEY), authority.issue("rsa", new_key=RSA_KEY)
    with (
        toy_node(node={"tls": authority.config(ec)}) as ec_node,
        toy_node(node={"tls": authority.config(rsa)}) as rsa_node,
        tls_server(ec, tls_servers.open_to_all) as ec_any,
        tls_server(rsa, tls_servers.open_to_all) as rsa_any,
    ):
        yield {"EC": (ec_node.server.tls_port or 0, ec_any), "RSA": (rsa_node.server.tls_port or 0, rsa_any)}


def probe(port: int, pair: Pair, *arguments: str) -> str:
    """Shake hands as openssl; return version and suite, or nothing where that fails."""
    executable = shutil.which("openssl")
    if executable is None:
        pytest.skip("openssl is not installed")
    shown = ("-cert", str(pair.certificate), "-key", str(pair.key))
    command = [executable, "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *shown, *arguments]
    # an A-ABORT: the node hangs up after it, so that the verdict on our certificate has come before
    done = subprocess.run(
        command, input=bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]), capture_output=True, timeout=30, check=False
    )
    said = done.stdout.decode(errors="replace")
    agreed = re.search(r"New, (\S+), Cipher is (\S+)", said)
    is_refused = b"SSL alert number" in done.stderr
    version = re.search(r"Protocol *: (\S+)", said)
    if agreed is None or agreed[2] == "(NONE)" or is_refused:
        return ""
    return f"{version[1] if version else agreed[1]} {agreed[2]}"


ONE_POINT_TWO = ("-tls1_2", "-cipher")


@pytest.mark.parametrize(
    ("key", "suite"),
    [
        ("RSA", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("RSA", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("EC", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("EC", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
)
@pytest.mark.checklist("N5")
def test_the_four_suites_of_the_profile_are_taken(
    ports: dict[str, tuple[int, int]], scanner: Pair, key: str, suite: str
) -> None:
    """RFC 9325 section 4.2: each of them, where the peer offers it alone in TLS 1.2."""
    assert probe(ports[key][0], scanner, *ONE_POINT_TWO, suite) == f"TLSv1.2 {suite}"


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
@pytest.mark.parametrize("group", ["P-256", "X25519"])
def test_tls_1_3_is_taken_with_the_groups_of_the_profile(
    ports: dict[str, tuple[int, int]], scanner: Pair, suite: str, group: str
) -> None:
    """RFC 9325 section 4.2 and RFC 8446 section 9.1: secp256r1 and x25519 with AES-GCM."""
    said = probe(ports["EC"][0], scanner, "-tls1_3", "-ciphersuites", suite, "-groups", group)
    assert said.endswith(suite)


def test_no_other_suite_is_enabled_in_either_direction(authority: Authority, scanner: Pair) -> None:
    """ECDHE with AES-GCM or ChaCha20-Poly1305, and those of TLS 1.3, at OpenSSL's security level 2."""
    config = authority.config(scanner)
    for side in (ListenerTls(config), ClientTls(config)):
        context = side.context()
        names = {str(one["name"]) for one in context.get_ciphers()}
        assert {name for name in names if not name.startswith("TLS_")} == {
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
        }
        assert context.security_level == 2


LOW = ":@SECLEVEL=0"


@pytest.mark.parametrize(
    ("key", "offer"),
    [
        ("EC", ("-tls1", "-cipher", f"ALL{LOW}")),
        ("EC", ("-tls1_1", "-cipher", f"ALL{LOW}")),
        ("EC", (*ONE_POINT_TWO, f"ECDHE-ECDSA-AES128-SHA256{LOW}")),
        ("EC", (*ONE_POINT_TWO, f"ECDHE-ECDSA-AES256-SHA{LOW}")),
        ("EC", (*ONE_POINT_TWO, f"ECDHE-ECDSA-NULL-SHA{LOW}")),
        ("EC", (*ONE_POINT_TWO, f"ECDHE-ECDSA-AES128-CCM8{LOW}")),
        ("RSA", (*ONE_POINT_TWO, f"AES128-GCM-SHA256{LOW}")),
        ("RSA", (*ONE_POINT_TWO, f"AES256-SHA256{LOW}")),
        ("RSA", (*ONE_POINT_TWO, f"NULL-SHA256{LOW}")),
        ("EC", (*ONE_POINT_TWO, f"ECDHE{LOW}", "-sigalgs", "ECDSA+SHA1")),
        ("RSA", (*ONE_POINT_TWO, f"ECDHE{LOW}", "-sigalgs", "RSA+SHA1")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
@pytest.mark.checklist("N5")
def test_what_the_profile_forbids_is_refused(
    ports: dict[str, tuple[int, int]], scanner: Pair, key: str, offer: tuple[str, ...]
) -> None:
    """Old versions, suites without forward secrecy or authentication, SHA-1: no handshake comes about."""
    node, anything = ports[key]
    assert probe(anything, scanner, *offer)
    assert not probe(node, scanner, *offer)


@pytest.mark.parametrize("kind", ["RSA 1024", "SHA-1"])
def test_a_peer_s_certificate_that_is_weak_is_refused(
    ports: dict[str, tuple[int, int]], authority: Authority, scanner: Pair, kind: str
) -> None:
    """RFC 9325 section 4.5: an RSA key below 2048 bits, or SHA-1 as signature, opens no association."""
    weak = (
        authority.issue("weak", new_key=("-newkey", "rsa:1024"))
        if kind == "RSA 1024"
        else authority.issue("sha1", digest="sha1")
    )
    low = (*ONE_POINT_TWO, f"ECDHE{LOW}")
    assert probe(ports["EC"][0], scanner, *low)
    assert not probe(ports["EC"][0], weak, *low)


def test_no_session_can_be_resumed_and_none_renegotiated(
    ports: dict[str, tuple[int, int]], scanner: Pair
) -> None:
    """RFC 9325 sections 3.3 to 3.5: no ticket, no compression, secure renegotiation."""
    executable = shutil.which("openssl")
    assert executable is not None
    for version in ("-tls1_2", "-tls1_3"):
        command = [executable, "s_client", "-connect", f"127.0.0.1:{ports['EC'][0]}", version, "-ign_eof"]
        command += ["-cert", str(scanner.certificate), "-key", str(scanner.key)]
        done = subprocess.run(
            command, input=bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]), capture_output=True, timeout=30, check=False
        )
        said = done.stdout.decode(errors="replace")
        assert "Cipher is TLS_" in said or "Cipher is ECDHE" in said
        assert "session ticket" not in said.lower()
        assert "Compression: NONE" in said
        if version == "-tls1_2":
            assert "Secure Renegotiation IS supported" in said
