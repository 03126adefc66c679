"""Certificates that are replaced while the node runs, and those that end."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node import alarms
from node.cli.opening import standing_alarms
from node.config.settings import Config, NodeConfig, PeerConfig, TlsConfig
from node.errors import PeerUnreachable
from node.tls_watch import TlsWatch
from node.wire import tls, validity
from node.wire.peers import Peers
from node.wire.scu import ProposedContext
from node.wire.tls_faults import TlsFailure
from tests.support.certificates import Authority, Pair
from tests.support.manual_clock import ManualClock
from tests.support.scripted_peer import VERIFICATION
from tests.support.toy_node import ToyNode, toy_node

DAY = 86400.0


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsConfig:
    """The files of a node, which a test may replace."""
    folder = tmp_path / "tls"
    folder.mkdir()
    config = authority.config(Pair(folder / "anode.crt", folder / "anode.key"), ca=folder / "ca.crt")
    put(config, authority.issue("first"), authority)
    return config


def put(config: TlsConfig, pair: Pair, authority: Authority) -> None:
    """Put other content under the names of the configuration, as whoever renews certificates does."""
    for source, target in (
        (pair.certificate, config.certificate),
        (pair.key, config.key),
        (authority.certificate, config.ca),
    ):
        assert target is not None
        shutil.copyfile(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)


def shown_by(node: ToyNode, pair: Pair) -> str:
    """Shake hands, showing ``pair``; return the common name of the certificate that the node shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the node's verdict comes within the handshake
    context.load_cert_chain(pair.certificate, pair.key)
    with (
        socket.create_connection(("127.0.0.1", node.server.tls_port or 0)) as plain,
        context.wrap_socket(plain) as secured,
    ):
        der = secured.getpeercert(True) or b""
    from node.wire import x509

    return x509.of_der(der).subject


def test_a_new_certificate_and_a_new_authority_count_for_the_next_handshake(
    files: TlsConfig, authority: Authority, stranger: Authority
) -> None:
    """The listener shows the new certificate and trusts the new authority alone; nothing is restarted."""
    mine, theirs = authority.issue("scanner"), stranger.issue("scanner")
    with toy_node(node={"tls": files}) as node:
        assert shown_by(node, mine) == "CN=first"
        with pytest.raises(ssl.SSLError):
            shown_by(node, theirs)
        put(files, stranger.issue("second"), stranger)
        assert shown_by(node, theirs) == "CN=second"
        with pytest.raises(ssl.SSLError):
            shown_by(node, mine)


def test_an_association_outlives_the_certificate_under_which_it_began(
    files: TlsConfig, authority: Authority, stranger: Authority
) -> None:
    """What is established goes on when the files are replaced."""
    config = replace(Config(), node=NodeConfig(tls=authority.config(authority.issue("scanner"))))
    with toy_node(node={"tls": files}) as node:
        peer = PeerConfig("ANODE", "localhost", node.server.tls_port or 0, tls=True)
        context = ProposedContext(VERIFICATION, ("1.2.840.10008.1.2.1",))
        with Peers(config).connect(peer, [context]) as association:
            assert association.echo().status == 0
            put(files, stranger.issue("second"), stranger)
            with pytest.raises(TlsFailure):
                Peers(config).connect(peer, [context])
            assert association.echo().status == 0


@pytest.mark.parametrize("fault", ["half-written", "other key", "gone", "empty ca"])
def test_new_files_that_cannot_be_used_leave_the_old_ones_in_use(
    files: TlsConfig, authority: Authority, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """The node goes on with what it had, says so once, and takes the next files that fit."""
    mine = authority.issue("scanner")
    certificate, key, ca = files.certificate, files.key, files.ca
    assert certificate is not None
    assert key is not None
    assert ca is not None
    caplog.set_level(logging.INFO)
    with toy_node(node={"tls": files}) as node:
        assert shown_by(node, mine) == "CN=first"
        if fault == "half-written":
            certificate.write_bytes(authority.issue("second").certificate.read_bytes()[:200])
        elif fault == "other key":
            shutil.copyfile(authority.issue("second").key, key)
        elif fault == "gone":
            key.unlink()
        else:
            ca.write_bytes(b"")
        for _ in range(3):
            assert shown_by(node, mine) == "CN=first"
        told = [one for one in caplog.records if "cannot be used" in one.message]
        assert [one.levelname for one in told] == ["ERROR"]
        assert "[node.tls] " in told[0].__dict__["reason"]
        put(files, authority.issue("third"), authority)
        assert shown_by(node, mine) == "CN=third"
        assert any(one.message == "new TLS files are used" for one in caplog.records)


def test_peers_are_called_with_the_new_certificate_and_with_the_old_one_where_that_is_unfit(
    files: TlsConfig, authority: Authority, stranger: Authority
) -> None:
    """What is called later shows what the files hold then; broken files do not stop deliveries."""
    seen: list[str] = []

    def admitting(services: Any, request: Any) -> Any:
        from handlers.association import admit

        seen.append(request.peer_certificate.common_name)
        return admit(services, request)

    peers = Peers(Config(node=NodeConfig(tls=files)))
    context = ProposedContext(VERIFICATION, ("1.2.840.10008.1.2.1",))
    theirs = authority.config(authority.issue("pacs"))
    with toy_node(node={"tls": theirs}, admit=admitting) as node:
        peer = PeerConfig("ANODE", "localhost", node.server.tls_port or 0, tls=True)
        peers.connect(peer, [context]).release()
        put(files, authority.issue("second"), authority)
        peers.connect(peer, [context]).release()
        assert files.key is not None
        files.key.write_text("nothing")
        peers.connect(peer, [context]).release()
    assert seen == ["first", "second", "second"]


def test_a_peer_has_its_own_authority_and_is_shown_its_own_certificate(
    files: TlsConfig, authority: Authority, stranger: Authority
) -> None:
    """tls_ca, tls_certificate and tls_key count for that peer, and for no other."""
    theirs = stranger.config(stranger.issue("pacs"))
    mine = stranger.issue("for-pacs")
    peers = Peers(Config(node=NodeConfig(tls=files)))
    context = ProposedContext(VERIFICATION, ("1.2.840.10008.1.2.1",))
    with toy_node(node={"tls": theirs}) as node:
        peer = PeerConfig("ANODE", "localhost", node.server.tls_port or 0, tls=True)
        with pytest.raises(TlsFailure, match=r"not in ca"):
            peers.connect(peer, [context])
        with pytest.raises(TlsFailure, match="alert 'unknown ca'"):
            peers.connect(replace(peer, tls_ca=stranger.certificate), [context])
        own = replace(peer, tls_ca=stranger.certificate, tls_certificate=mine.certificate, tls_key=mine.key)
        with peers.connect(own, [context]) as association:
            assert association.echo().status == 0
        with pytest.raises(PeerUnreachable):
            peers.connect(peer, [context])


def test_a_caller_whose_certificate_is_revoked_is_refused_from_then_on(
    files: TlsConfig, authority: Authority, tmp_path: Path
) -> None:
    """The list counts on the listener, and so does a newer one in its place."""
    mine, other_scanner = authority.issue("scanner"), authority.issue("other-scanner")
    crl = tmp_path / "peers.crl"
    shutil.copyfile(authority.revoking(), crl)
    with toy_node(node={"tls": replace(files, crl=crl)}) as node:
        assert shown_by(node, mine) == "CN=first"
        shutil.copyfile(authority.revoking(mine), crl)
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_REVOKED"):
            shown_by(node, mine)
        assert shown_by(node, other_scanner) == "CN=first"


def test_a_certificate_among_the_revoked_ones_is_refused_rather_than_trusted(
    files: TlsConfig, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """crl may hold nothing that would be trusted."""
    crl = tmp_path / "peers.crl"
    crl.write_bytes(authority.revoking().read_bytes() + stranger.certificate.read_bytes())
    (problem,) = tls.problems(Config(node=NodeConfig(tls=replace(files, crl=crl))))
    assert problem == f"[node.tls] crl: {crl} is no list of revoked certificates in PEM form"


def test_intermediate_authorities_are_shown_with_the_certificate(
    files: TlsConfig, authority: Authority, tmp_path: Path
) -> None:
    """Whoever trusts the root alone trusts a certificate whose file holds the rest of its chain."""
    department = Authority(tmp_path / "department", "Radiology", under=authority)
    scanner = department.issue("scanner")
    chain = tmp_path / "chain.crt"
    chain.write_bytes(scanner.certificate.read_bytes() + department.certificate.read_bytes())
    with toy_node(node={"tls": files}) as node:
        assert shown_by(node, Pair(chain, scanner.key)) == "CN=first"
        with pytest.raises(ssl.SSLError):
            shown_by(node, scanner)


def test_a_certificate_that_signs_itself_is_trusted_where_it_stands_in_ca(
    files: TlsConfig, authority: Authority, tmp_path: Path
) -> None:
    """Sites that exchange the certificates themselves need no authority."""
    scanner = authority.alone("lone-scanner")
    assert files.ca is not None
    with toy_node(node={"tls": files}) as node:
        with pytest.raises(ssl.SSLError):
            shown_by(node, scanner)
        files.ca.write_bytes(authority.certificate.read_bytes() + scanner.certificate.read_bytes())
        assert shown_by(node, scanner) == "CN=first"


@pytest.fixture
def watched(tmp_path: Path, files: TlsConfig) -> tuple[Config, ManualClock, TlsWatch]:
    data = tmp_path / "data"
    data.mkdir()
    alarms.reset(data)
    clock = ManualClock(time.time() + 60)  # after what is issued meanwhile
    return Config(node=NodeConfig(data_dir=data, tls=files)), clock, TlsWatch()


def test_the_running_node_raises_an_alarm_for_files_that_cannot_be_used_and_clears_it(
    watched: tuple[Config, ManualClock, TlsWatch], files: TlsConfig, authority: Authority
) -> None:
    """Without any connection, broken files are an alarm with every problem, until they are mended."""
    config, clock, watch = watched
    put(files, authority.issue("lasting", days=400), authority)
    watch.look(config, clock)
    assert [alarm.name for alarm in standing_alarms(config)] == ["tls-expiry"]  # the authority's 30 days
    assert files.key is not None
    assert files.ca is not None
    files.key.write_text("nothing")
    files.ca.unlink()
    watch.look(config, clock)
    watch.look(config, clock)
    (alarm,) = [one for one in standing_alarms(config) if one.name == "tls-files"]
    assert "[node.tls] certificate: " in alarm.message
    assert "[node.tls] ca: " in alarm.message
    assert alarm.times == 1
    put(files, authority.issue("mended", days=400), authority)
    watch.look(config, clock)
    assert [one.name for one in standing_alarms(config)] == ["tls-expiry"]


def test_what_expires_is_told_30_days_before_and_after(
    watched: tuple[Config, ManualClock, TlsWatch],
    files: TlsConfig,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Certificate, authority and list are named with their day; the alarm comes by the clock alone."""
    config, clock, watch = watched
    lasting = Authority(files.certificate.parent / "lasting", "Lasting CA", days=400)  # type: ignore[union-attr]
    put(files, lasting.issue("lasting", days=400), lasting)
    watch.look(config, clock)
    assert standing_alarms(config) == []
    clock.advance(380 * DAY)
    watch.look(config, clock)
    watch.look(config, clock)
    (alarm,) = standing_alarms(config)
    assert (alarm.name, alarm.times) == ("tls-expiry", 1)
    assert "(CN=lasting) expires on " in alarm.message
    assert "(CN=Lasting CA) expires on " in alarm.message
    assert "in 20 days" in alarm.message
    clock.advance(30 * DAY)
    watch.look(config, clock)
    assert "(CN=lasting) has expired on " in standing_alarms(config)[0].message
    told = [one.__dict__["reason"] for one in caplog.records if "not valid for long" in one.message]
    assert len(told) == len(set(told)) == 4


def test_a_list_of_revoked_certificates_that_is_out_of_date_is_told(
    files: TlsConfig, authority: Authority
) -> None:
    """Every peer is refused from then on, so the warning says that."""
    config = Config(node=NodeConfig(tls=replace(files, crl=authority.revoking(days=-1))))
    now = time.time()
    assert any("every peer is refused" in one for one in validity.warnings(config, now))
    config = Config(node=NodeConfig(tls=replace(files, crl=authority.revoking(days=5))))
    assert not any("crl" in one for one in validity.warnings(config, now))
    assert any("[node.tls] crl: " in one for one in validity.warnings(config, now + 4.5 * DAY))


def test_one_certificate_that_cannot_be_read_hides_no_other(
    files: TlsConfig, authority: Authority, stranger: Authority
) -> None:
    """Of a file of many, those that can be read are watched, and each of many lists."""
    assert files.ca is not None
    broken = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    files.ca.write_bytes(authority.certificate.read_bytes() + broken + stranger.certificate.read_bytes())
    crl = files.ca.with_suffix(".crl")
    crl.write_bytes(authority.revoking(days=20).read_bytes() + stranger.revoking(days=-1).read_bytes())
    told = " ".join(validity.warnings(Config(node=NodeConfig(tls=replace(files, crl=crl))), time.time()))
    assert "(CN=Hospital CA) expires" in told
    assert "(CN=Somebody Else's CA) expires" in told
    assert "is out of date since 2020-02-01" in told


def test_a_file_that_is_written_in_place_is_seen_as_changed(tmp_path: Path) -> None:
    """Neither size nor time need differ for a file that was replaced."""
    from node.wire.tls import stamps_of

    path = tmp_path / "a.pem"
    path.write_bytes(b"one")
    before, status = stamps_of([path]), path.stat()
    fresh = tmp_path / "b.pem"
    fresh.write_bytes(b"two")
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.replace(path)
    assert stamps_of([path]) != before
