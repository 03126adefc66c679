"""TLS beside the plain wire: who is let in, who is called, and what is said to the others."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.association import admit
from node.config.settings import Config, PeerConfig, TlsConfig
from node.errors import AssociationRejected, ConfigurationError, PeerUnreachable
from node.wire import scu
from node.wire.contexts import Admission, AssociationRequest
from node.wire.peers import Peers
from node.wire.tls import ClientTls
from node.wire.tls_faults import TlsFailure
from tests.support.certificates import Authority, Pair
from tests.support.scripted_peer import CT_IMAGE_STORAGE, VERIFICATION
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

EXPLICIT = "1.2.840.10008.1.2.1"
ECHO = scu.ProposedContext(VERIFICATION, (EXPLICIT,))
STORE = scu.ProposedContext(CT_IMAGE_STORAGE, (EXPLICIT,))


@pytest.fixture(scope="module")
def mine(authority: Authority) -> Pair:
    return authority.issue("anode")


@pytest.fixture(scope="module")
def theirs(authority: Authority) -> Pair:
    return authority.issue("scanner")


@pytest.fixture(scope="module")
def node(authority: Authority, mine: Pair) -> Iterator[ToyNode]:
    with toy_node(node={"tls": authority.config(mine)}) as running:
        yield running


def refused(node: ToyNode) -> str:
    """What the node has noted of those whom it refused."""
    return "\n".join(f"{one.reason}: {one.detail}" for one in node.services.refusals.refused_so_far())


def tls_port(node: ToyNode) -> int:
    port = node.server.tls_port
    assert port is not None
    return port


def connect(
    port: int, client: ClientTls | None, *contexts: scu.ProposedContext, host: str = "127.0.0.1"
) -> scu.RequestedAssociation:
    return scu.connect(
        host,
        port,
        calling_ae_title="SCANNER",
        called_ae_title="ANODE",
        contexts=contexts or (ECHO,),
        timeout_seconds=10.0,
        max_pdu_bytes=131072,
        tls=client,
    )


def test_plain_and_tls_listeners_serve_side_by_side(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """Both ports answer C-ECHO at the same time, each in its own way."""
    with (
        connect(node.port, None) as plain,
        connect(tls_port(node), ClientTls(authority.config(theirs))) as secure,
    ):
        assert plain.echo().status == secure.echo().status == 0
    assert node.port != tls_port(node)


def test_a_large_data_set_comes_through_tls_unchanged(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """What is stored over TLS has the digest of what was sent."""
    sent = os.urandom(5_000_002)
    with connect(tls_port(node), ClientTls(authority.config(theirs)), STORE) as association:
        answer = association.send_store(
            association.context_for(CT_IMAGE_STORAGE) or pytest.fail("no context"),
            sop_class_uid=CT_IMAGE_STORAGE,
            sop_instance_uid="1.2.3.77",
            data_set=sent,
        )
    assert answer.status == 0
    stored = next(one for one in node.stored if one.sop_instance_uid == "1.2.3.77")
    assert stored.sha256 == hashlib.sha256(sent).hexdigest()


def test_who_admits_sees_the_certificate_that_was_verified(
    authority: Authority, mine: Pair, tmp_path: Path
) -> None:
    """An association over TLS is requested with the peer's certificate and its names, a plain one without."""
    names = "DNS:scanner7.example.org,DNS:localhost,IP:192.0.2.7,URI:urn:oid:1.2.3"
    scanner = authority.issue("scanner7", names)
    seen: list[AssociationRequest] = []

    def admitting(services: Any, request: AssociationRequest) -> Admission:
        seen.append(request)
        return admit(services, request)

    with toy_node(node={"tls": authority.config(mine)}, admit=admitting) as node:
        connect(tls_port(node), ClientTls(authority.config(scanner))).release()
        connect(node.port, None).release()
    over_tls, plain = seen
    assert (plain.is_over_tls, plain.peer_certificate, over_tls.is_over_tls) == (False, None, True)
    certificate = over_tls.peer_certificate
    assert certificate is not None
    assert certificate.der == ssl.PEM_cert_to_DER_cert(scanner.certificate.read_text())
    assert certificate.sha256 == hashlib.sha256(certificate.der).hexdigest()
    assert (certificate.name, certificate.common_name) == ("scanner7", "scanner7")
    assert certificate.dns_names == ("scanner7.example.org", "localhost")
    assert (certificate.ip_addresses, certificate.uris) == (("192.0.2.7",), ("urn:oid:1.2.3",))


def test_a_peer_without_a_certificate_is_refused_and_told(node: ToyNode, authority: Authority) -> None:
    """A requestor that shows no certificate ends with the alert that says so."""
    with pytest.raises(TlsFailure, match="does not accept our certificate"):
        connect(tls_port(node), ClientTls(TlsConfig(ca=authority.certificate)))


def test_a_peer_with_a_stranger_s_certificate_is_refused_and_told(
    node: ToyNode, authority: Authority, stranger: Authority
) -> None:
    """A certificate that the CA did not issue opens no association, and what is noted says why."""
    pair = stranger.issue("intruder")
    with pytest.raises(TlsFailure, match=r"alert 'unknown ca', so it does not accept our certificate"):
        connect(tls_port(node), ClientTls(authority.config(pair)))
    wait_until(lambda: "not accepted" in refused(node))


def test_without_verify_peers_a_stranger_is_served(authority: Authority, mine: Pair) -> None:
    """verify_peers = false encrypts, and trusts whoever is there."""
    tls = authority.config(mine, verify_peers=False, ca=None)
    seen: list[AssociationRequest] = []

    def admitting(services: Any, request: AssociationRequest) -> Admission:
        seen.append(request)
        return admit(services, request)

    with (
        toy_node(node={"tls": tls}, admit=admitting) as node,
        connect(tls_port(node), ClientTls(tls)) as association,
    ):
        assert association.echo().status == 0
    assert (seen[0].is_over_tls, seen[0].peer_certificate) == (True, None)


def test_a_certificate_of_another_authority_is_not_trusted_by_us(node: ToyNode, stranger: Authority) -> None:
    """We request no association of a peer whose certificate our CA does not vouch for."""
    pair = stranger.issue("victim")
    with pytest.raises(TlsFailure, match="certificate is not accepted"):
        connect(tls_port(node), ClientTls(stranger.config(pair)))


def test_an_expired_certificate_is_not_trusted(authority: Authority, theirs: Pair) -> None:
    """A peer whose certificate has expired is named as such."""
    tls = authority.config(authority.issue("old", days=-1))
    with toy_node(node={"tls": tls}) as node, pytest.raises(TlsFailure, match="certificate has expired"):
        connect(tls_port(node), ClientTls(authority.config(theirs)))


def test_a_certificate_for_another_host_is_refused_unless_told_otherwise(
    authority: Authority, theirs: Pair
) -> None:
    """The host that is called must be in the certificate, where tls_check_host_name does not say false."""
    tls = authority.config(authority.issue("elsewhere", "DNS:pacs.example.org"))
    with toy_node(node={"tls": tls}) as node:
        with pytest.raises(TlsFailure, match=r"not valid for '127\.0\.0\.1'"):
            connect(tls_port(node), ClientTls(authority.config(theirs)))
        with connect(tls_port(node), ClientTls(authority.config(theirs), False)) as association:
            assert association.echo().status == 0


def test_a_host_name_is_checked_against_the_certificate(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """A peer that is called by name is held to a certificate for that name."""
    with connect(tls_port(node), ClientTls(authority.config(theirs)), host="localhost") as association:
        assert association.echo().status == 0


def test_a_plain_peer_on_the_tls_port_is_named(node: ToyNode) -> None:
    """An A-ASSOCIATE-RQ in the clear gets no answer on the TLS port, and what is noted says what it was."""
    with pytest.raises(PeerUnreachable):
        connect(tls_port(node), None)
    wait_until(lambda: "the peer speaks plain DICOM to the TLS port" in refused(node))


def test_a_tls_peer_on_the_plain_port_is_told_that_it_is_plain(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """Calling the plain port over TLS fails with words that say so, here and at the peer."""
    with pytest.raises(TlsFailure, match="does not speak TLS on this port"):
        connect(node.port, ClientTls(authority.config(theirs)))
    wait_until(lambda: "TLS begins so" in refused(node))
    with connect(node.port, None) as association:
        assert association.echo().status == 0


def test_tls_1_1_finds_no_version_in_common(node: ToyNode, theirs: Pair) -> None:
    """RFC 8996: versions before 1.2 are refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(theirs.certificate, theirs.key)
    with socket.create_connection(("127.0.0.1", tls_port(node))) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_negotiated_suite_has_forward_secrecy(
    node: ToyNode, theirs: Pair, version: ssl.TLSVersion
) -> None:
    """A peer that offers everything gets ECDHE with authenticated encryption (RFC 9325 section 4.2)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL")
    context.maximum_version = version
    context.load_cert_chain(theirs.certificate, theirs.key)
    with (
        socket.create_connection(("127.0.0.1", tls_port(node))) as plain,
        context.wrap_socket(plain) as secure,
    ):
        name, agreed, _ = secure.cipher() or ("", "", 0)
    assert "GCM" in name or "CHACHA20" in name
    assert agreed == "TLSv1.3" or name.startswith("ECDHE-")


def test_a_stalled_handshake_ends_with_artim_and_holds_nobody_up(authority: Authority, mine: Pair) -> None:
    """A peer that says nothing is gone when ARTIM expires, and others are served meanwhile."""
    tls = authority.config(mine)
    with (
        toy_node(node={"tls": tls}, artim_timeout_seconds=0.5) as node,
        socket.create_connection(("127.0.0.1", tls_port(node))) as silent,
    ):
        with connect(tls_port(node), ClientTls(tls)) as association:
            assert association.echo().status == 0
        silent.settimeout(10.0)
        assert silent.recv(1) == b""


def test_a_handshake_that_stalls_half_way_ends_with_artim(authority: Authority, mine: Pair) -> None:
    """Part of a ClientHello buys no more time than none."""
    with (
        toy_node(node={"tls": authority.config(mine)}, artim_timeout_seconds=0.5) as node,
        socket.create_connection(("127.0.0.1", tls_port(node))) as half,
    ):
        half.sendall(bytes([0x16, 3, 1, 0, 200, 1]))
        half.settimeout(10.0)
        assert half.recv(1) == b""


def test_stopping_ends_a_handshake_that_is_under_way(authority: Authority, mine: Pair) -> None:
    """A node stops at once though a peer is silent before its first byte."""
    with toy_node(node={"tls": authority.config(mine)}, artim_timeout_seconds=60.0) as node:
        silent = socket.create_connection(("127.0.0.1", tls_port(node)))
        wait_until(lambda: any(t.name.startswith("connection-") for t in threading.enumerate()))
        begin = time.monotonic()
        node.server.stop(30.0)
        assert silent.recv(1) == b""
        assert time.monotonic() - begin < 20.0
        silent.close()


def test_a_peer_that_is_configured_with_tls_is_called_over_it(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """Peers.connect uses TLS for a peer with tls = true, with the node's certificate."""
    base = Config()
    config = replace(base, node=replace(base.node, tls=authority.config(theirs)))
    peer = PeerConfig("ANODE", "localhost", tls_port(node), tls=True)
    with Peers(config).connect(peer, [ECHO]) as association:
        assert association.echo().status == 0
    with pytest.raises(PeerUnreachable):
        Peers(config).connect(replace(peer, tls=False), [ECHO])


def test_a_certificate_that_vanished_fails_the_call_and_names_the_file(
    node: ToyNode, authority: Authority, theirs: Pair
) -> None:
    """A file that is missing when a peer is called is named, and counts as a failure of that call."""
    gone = authority.config(theirs, certificate=theirs.certificate.with_name("gone.crt"))
    with pytest.raises(TlsFailure, match=r"\[node\.tls\] certificate: .*gone\.crt cannot be read"):
        connect(tls_port(node), ClientTls(gone))


def test_start_names_the_file_of_a_certificate_that_cannot_be_used(
    authority: Authority, mine: Pair, theirs: Pair, tmp_path: Path
) -> None:
    """Each file of [node.tls] that is missing, foreign or not PEM is told by key and path."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    faults = {
        r"certificate: .*absent\.crt cannot be read: No such file": {"certificate": tmp_path / "absent.crt"},
        r"certificate: .*anode\.crt belongs to another key than .*scanner\.key": {"key": theirs.key},
        r"certificate: .*nonsense\.pem and .* are not a certificate and its key in PEM form \(pem lib\)$": {
            "certificate": nonsense
        },
        r"ca: .*nonsense\.pem has no certificate in PEM form": {"ca": nonsense},
    }
    for message, change in faults.items():
        with (
            pytest.raises(ConfigurationError, match=rf"^\[node\.tls\] {message}"),
            toy_node(node={"tls": authority.config(mine, **change)}),
        ):
            pass


def test_a_requestor_that_is_rejected_takes_leave_of_tls_too(
    authority: Authority, mine: Pair, theirs: Pair
) -> None:
    """The A-ASSOCIATE-RJ ends in close_notify, so that the peer knows that nothing was cut off."""
    heard: list[bytes] = []

    def reject(listener: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(mine.certificate, mine.key)
        accepted = listener.accept()[0]
        accepted.settimeout(10.0)
        with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as peer:
            peer.recv(65536)
            peer.sendall(bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 3]))
            heard.append(peer.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)
        rejecting = threading.Thread(target=reject, args=(listener,))
        rejecting.start()
        with pytest.raises(AssociationRejected):
            connect(listener.getsockname()[1], ClientTls(authority.config(theirs)))
        rejecting.join(10.0)
    assert heard == [b""]
