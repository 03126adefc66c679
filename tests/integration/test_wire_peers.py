"""Who may do what, over real sockets: limits, addresses, certificates and syntaxes of each peer."""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from node import status
from node.config.settings import PeerConfig
from node.errors import PortInUse
from tests.support import data_sets, scripted_peer
from tests.support.certificates import Authority, Pair
from tests.support.dcmtk import dcmtk
from tests.support.scripted_peer import (
    A_ASSOCIATE_RJ,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    ScriptedPeer,
)
from tests.support.toy_node import ToyNode, toy_node
from tests.support.waiting import wait_until

JPEG_LS = "1.2.840.10008.1.2.4.80"
KNOWN_ONLY = {"accept_unknown_peers": False}
MAXIMUM_LENGTH = 0x51


@contextmanager
def associated(node: ToyNode, calling: str) -> Iterator[ScriptedPeer]:
    with ScriptedPeer.to(node.port) as peer:
        peer.associate(calling=calling)
        yield peer
        peer.release()


def rejection(node: ToyNode, calling: str, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Result, source and reason (PS3.8 table 9-21); empty where the association is accepted."""
    with socket.create_connection((host, node.port)) as connected:
        peer = ScriptedPeer(connected)
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS, calling=calling))
        kind, body = peer.read_pdu()
        if kind == A_ASSOCIATE_RJ:
            return tuple(body[1:])
        peer.release()
        return ()


def reasons(node: ToyNode) -> list[str]:
    return [one.reason for one in node.services.refusals.refused_so_far()]


def test_a_peer_that_has_all_its_associations_is_rejected_as_transient_and_others_are_not() -> None:
    one, two = (
        PeerConfig(title, "127.0.0.1", 104, associations=most) for title, most in (("A", 2), ("B", 1))
    )
    with toy_node(peers=(one, two)) as node:
        with associated(node, "A"), associated(node, "A"):
            assert rejection(node, "A") == (2, 3, 2)
            assert rejection(node, "B") == ()
            assert rejection(node, "STRANGER") == ()
        wait_until(lambda: node.server.association_count == 0)
        assert rejection(node, "A") == ()
        assert reasons(node) == ["there are as many associations with this peer as may be"]


def test_strangers_have_no_more_associations_under_other_ae_titles() -> None:
    known = PeerConfig("KNOWN", "127.0.0.1", 104)
    with toy_node(peers=(known,), associations_per_peer=2) as node:
        with associated(node, "ONE"), associated(node, "TWO"):
            assert rejection(node, "THREE") == (2, 3, 2)
            assert rejection(node, "KNOWN") == ()
        wait_until(lambda: node.server.association_count == 0)
        assert rejection(node, "THREE") == ()


def test_strangers_have_what_configured_peers_at_their_address_leave_of_it() -> None:
    """So no machine has as many as a peer and once more as many as a stranger."""
    known = PeerConfig("KNOWN", "127.0.0.1", 104, associations=3)
    with toy_node(peers=(known,), associations_per_peer=2) as node, associated(node, "KNOWN"):
        with associated(node, "ONE"):
            assert rejection(node, "TWO") == (2, 3, 2)
            with associated(node, "KNOWN"), associated(node, "KNOWN"):
                assert rejection(node, "KNOWN") == (2, 3, 2)
        wait_until(lambda: node.server.association_count == 1)
        assert rejection(node, "TWO") == ()


def test_a_peer_has_its_own_pdu_size_and_timeout() -> None:
    small = PeerConfig("SMALL", "127.0.0.1", 104, max_pdu_bytes=8192, network_timeout_seconds=0.1)
    with toy_node(peers=(small,)) as node:
        with ScriptedPeer.to(node.port) as peer:
            items = dict(scripted_peer.user_items_of(peer.associate(calling="SMALL")))
            assert items[MAXIMUM_LENGTH] == struct.pack(">I", 8192)
            assert peer.read_abort()[0] == 0
        with ScriptedPeer.to(node.port) as peer:
            items = dict(scripted_peer.user_items_of(peer.associate(calling="OTHER")))
            assert items[MAXIMUM_LENGTH] == struct.pack(">I", 131072)
            peer.release()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (("127.0.0.0/8",), ()),
        (("localhost",), ()),
        (("192.0.2.0/24", "::1"), ()),
        (("192.0.2.0/24", "2001:db8::/32"), (1, 1, 3)),
    ],
)
def test_a_peer_that_only_calls_us_calls_from_its_addresses(
    addresses: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    with toy_node(node=KNOWN_ONLY, peers=(PeerConfig("CT", addresses=addresses),)) as node:
        assert rejection(node, "CT") == expected


@pytest.mark.parametrize(
    ("host", "calls", "addresses", "expected"),
    [
        ("::1", "::1", ("::1/128",), ()),
        ("::1", "::1", ("127.0.0.1",), ()),  # this machine, however it is called
        ("::1", "::1", ("fd00::/8",), (1, 1, 3)),
        ("::", "127.0.0.1", ("127.0.0.0/8",), ()),  # arrives mapped into IPv6
        ("::", "127.0.0.1", ("2001:db8::/32",), (1, 1, 3)),
    ],
)
def test_ipv6_and_ipv4_are_told_apart_on_either_kind_of_socket(
    host: str, calls: str, addresses: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    peer = PeerConfig("SIX", addresses=addresses)
    try:
        with toy_node(node={**KNOWN_ONLY, "host": host}, peers=(peer,)) as node:
            assert rejection(node, "SIX", calls) == expected
    except (PortInUse, OSError) as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


def test_a_query_only_peer_cannot_store() -> None:
    reader = PeerConfig("READER", "127.0.0.1", 104, allow=("query",))
    with toy_node(peers=(reader,)) as node:
        with ScriptedPeer.to(node.port) as peer:
            results = scripted_peer.results_of(peer.associate(calling="READER"))
            assert [results[number][0] for number in (1, 3, 5)] == [0, 1, 0]
            # through a context that was accepted for something else
            peer.request(5, scripted_peer.store_rq(), bytes(500))
            answer, _ = peer.read_message()
            assert answer[0x0900] in (status.NOT_AUTHORISED, status.SOP_CLASS_NOT_SUPPORTED)
            peer.request(5, scripted_peer.find_rq(), data_sets.study_identifier())
            assert peer.read_message()[0][0x0900] == status.PENDING
        assert node.stored == []
        [refused] = [one for one in node.services.refusals.refused_so_far() if one.kind == "context"]
        assert (refused.reason, refused.detail) == ("not allowed to store", "CT Image Storage")
        assert refused.action == 'add "store" to allow of its [[peers]] table'


def test_a_retrieving_peer_that_may_not_store_is_refused_the_command_too() -> None:
    """As SCP of its C-GET it has a storage context; a C-STORE of its own through that is not performed."""
    reader = PeerConfig("READER", "127.0.0.1", 104, allow=("query", "retrieve"))
    both = scripted_peer.role(CT_IMAGE_STORAGE, 1, 1)
    with toy_node(peers=(reader,)) as node, ScriptedPeer.to(node.port) as peer:
        accepted = peer.associate(calling="READER", more_user_items=both)
        assert scripted_peer.results_of(accepted)[3][0] == 0
        peer.request(3, scripted_peer.store_rq(), bytes(500))
        assert peer.read_message()[0][0x0900] in (status.NOT_AUTHORISED, status.SOP_CLASS_NOT_SUPPORTED)
        peer.request(1, scripted_peer.echo_rq())
        assert peer.read_message()[0][0x0900] == status.SUCCESS
        assert node.stored == []


def test_instances_are_taken_in_the_transfer_syntaxes_of_the_peer_alone() -> None:
    plain = PeerConfig("PLAIN", "127.0.0.1", 104, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,))
    proposed = {
        1: (CT_IMAGE_STORAGE, (JPEG_LS, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)),
        3: (CT_IMAGE_STORAGE, (JPEG_LS, IMPLICIT_VR_LITTLE_ENDIAN)),
        5: (STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    }
    with toy_node(peers=(plain,)) as node, ScriptedPeer.to(node.port) as peer:
        results = scripted_peer.results_of(peer.associate(calling="PLAIN", contexts=proposed))
        assert results[1] == (0, EXPLICIT_VR_LITTLE_ENDIAN)
        assert results[3][0] == 4
        assert results[5] == (0, IMPLICIT_VR_LITTLE_ENDIAN)
        peer.release()
        assert reasons(node) == ["none of the transfer syntaxes that are allowed with this peer"]


def test_ten_thousand_tries_would_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """What repeats is one line, and counted."""
    with toy_node(node=KNOWN_ONLY) as node:
        for _ in range(50):
            assert rejection(node, "EVIL") == (1, 1, 3)
        [refused] = node.services.refusals.refused_so_far()
    assert (refused.times, refused.calling_ae_title, refused.peer_address) == (50, "EVIL", "127.0.0.1")
    assert [record.message for record in caplog.records].count("association rejected") == 1


def test_who_only_connects_fills_no_log_either(caplog: pytest.LogCaptureFixture) -> None:
    with toy_node() as node:
        for _ in range(50):
            socket.create_connection(("127.0.0.1", node.port)).close()
        wait_until(lambda: sum(one.times for one in node.services.refusals.refused_so_far()) == 50)
        [refused] = node.services.refusals.refused_so_far()
    assert (refused.reason, refused.peer_address) == ("no association came about", "127.0.0.1")
    assert [record.message for record in caplog.records].count("connection refused") == 1


def test_an_ae_title_that_would_steer_a_terminal_is_no_ae_title() -> None:
    with toy_node() as node, ScriptedPeer.to(node.port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS, calling="EVIL\x1b[2J"))
        assert peer.read_abort() == (0, 0)
        assert reasons(node) == ["association request invalid"]


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Pair:
    return authority.issue("scanner", "DNS:scanner7.example.org")


@pytest.fixture(scope="module")
def intruder(authority: Authority) -> Pair:
    """Another device of the same hospital, with a certificate of the same authority."""
    return authority.issue("intruder", "DNS:printer.example.org")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT_IMAGE_STORAGE, "1.2.3.4.1"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
    image.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    return tmp_path / "1.dcm"


@pytest.mark.parametrize("pinned_by", ["certificate_names", "certificate_sha256"])
def test_a_certificate_decides_who_a_peer_is(
    authority: Authority, scanner: Pair, intruder: Pair, file: Path, pinned_by: str
) -> None:
    """DCMTK stores with the certificate of its AE title alone, and not at all on the plain port."""
    der = ssl.PEM_cert_to_DER_cert(scanner.certificate.read_text())
    wanted: dict[str, Any] = {
        "certificate_names": ("other.example.org", "scanner7.example.org"),
        "certificate_sha256": ("00" * 32, hashlib.sha256(der).hexdigest()),
    }
    peer = PeerConfig("CT", addresses=("127.0.0.1",), require_tls=True, **{pinned_by: wanted[pinned_by]})
    tls = authority.config(authority.issue(f"anode-{pinned_by}"))

    def store(port: int | None, *options: object) -> str:
        to = ("-aec", "ANODE", "-aet", "CT", "127.0.0.1", port)
        return dcmtk("storescu", "-v", *options, *to, file, check=False)

    with toy_node(node={**KNOWN_ONLY, "tls": tls}, peers=(peer,)) as node:
        assert "Calling AE Title Not Recognized" in store(node.port)
        assert "Calling AE Title Not Recognized" in store(node.server.tls_port, *authority.dcmtk(intruder))
        assert node.stored == []
        assert "Received Store Response (Success)" in store(node.server.tls_port, *authority.dcmtk(scanner))
        assert [one.sop_instance_uid for one in node.stored] == ["1.2.3.4.1"]
        assert reasons(node) == [
            "the certificate is none of those that the calling AE title is configured with",
            "calling AE title is configured to call over TLS alone",
        ]
