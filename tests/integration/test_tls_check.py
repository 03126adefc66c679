"""``anode check --tls PEER`` names what is wrong with TLS to a peer, against real servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.__main__ import main
from tests.support import tls_servers
from tests.support.anode_process import ROOT
from tests.support.certificates import Authority, Pair
from tests.support.ports import free_port
from tests.support.tls_servers import answering, tls_server
from tests.support.toy_node import toy_node


@pytest.fixture(scope="module")
def mine(authority: Authority) -> Pair:
    return authority.issue("anode")


@pytest.fixture(scope="module")
def theirs(authority: Authority) -> Pair:
    return authority.issue("pacs")


@dataclass
class Checked:
    status: int
    document: dict[str, Any]

    @property
    def faults(self) -> list[str]:
        return [fault["name"] for fault in self.document["faults"]]

    @property
    def message(self) -> str:
        return str(self.document["faults"][0]["message"])


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path, authority: Authority, mine: Pair, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command for a peer on a port, and read its JSON."""

    def run(port: int, *, host: str = "127.0.0.1", pair: Pair | None = mine, more: str = "") -> Checked:
        shown = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\n' if pair is not None else ""
        file = tmp_path / "config.toml"
        file.write_text(
            f'[node.tls]\n{shown}ca = "{authority.certificate}"\n{more}'
            f'[[peers]]\nae_title = "ANODE"\nhost = "{host}"\nport = {port}\ntls = true\n'
        )
        capsys.readouterr()
        arguments = ["check", "--tls", "ANODE", "--json", "--config", str(file), "--timeout", "5"]
        status = main(arguments)
        return Checked(status, json.loads(capsys.readouterr().out))

    return run


def test_a_peer_with_which_all_is_well_is_described(
    authority: Authority, theirs: Pair, check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Version, suite, certificate, what is asked of us and the answer to C-ECHO are told, with status 0."""
    with toy_node(node={"tls": authority.config(theirs)}) as node:
        port = node.server.tls_port or 0
        checked = check(port)
        assert main(["check", "--tls", "ANODE", "--config", str(tmp_path / "config.toml")]) == 0
        printed = capsys.readouterr().out
        unasked = check(port, more="verify_peers = false\n")
    told = checked.document
    assert (checked.status, checked.faults) == (0, [])
    assert (told["version"], told["client_certificate"]) == (
        "TLSv1.3",
        "the peer requires one, and accepts ours",
    )
    assert told["certificate"]["subject"] == "CN=pacs"
    assert told["certificate"]["issuer"] == "CN=Hospital CA"
    assert told["certificate"]["names"] == ["DNS:localhost", "IP:127.0.0.1"]
    assert told["echo_seconds"] > 0
    assert "the peer's certificate expires on" in told["warnings"][0]
    for text in ("TLSv1.3, TLS_AES_256_GCM_SHA384", "CN=pacs, EC secp256r1", "answered in"):
        assert text in printed
    assert "nothing was verified" in unasked.document["warnings"][0]


def test_a_peer_that_asks_for_no_certificate_is_told_from_one_that_does(
    authority: Authority, theirs: Pair, check: Check
) -> None:
    """A server without client authentication, and one with it, are each described as such, in TLS 1.2 too."""
    with tls_server(theirs, tls_servers.up_to_tls_1_2) as port:
        open_to_anyone = check(port).document
    with tls_server(theirs, tls_servers.up_to_tls_1_2, asks_for=authority.certificate) as port:
        asking = check(port).document
    assert open_to_anyone["version"] == asking["version"] == "TLSv1.2"
    assert open_to_anyone["client_certificate"] == "the peer requires none"
    assert asking["client_certificate"] == "the peer requires one, and accepts ours"


def faulty(authority: Authority, stranger: Authority, kind: str) -> Pair:
    if kind == "expired":
        return authority.issue("old", days=-1)
    if kind == "not-yet-valid":
        return authority.issue_for_later("later")
    if kind == "wrong-name":
        return authority.issue("elsewhere", "DNS:pacs.example.org")
    if kind == "common-name":
        return authority.issue("127.0.0.1", "DNS:pacs.example.org")
    if kind == "unknown-issuer":
        return stranger.issue("unknown")
    if kind == "self-signed":
        return Pair(stranger.certificate, stranger.certificate.with_name("ca.key"))
    if kind == "weak-key":
        return authority.issue("weak", new_key=("-newkey", "rsa:1024"))
    if kind == "weak-signature":
        return authority.issue("sha1", digest="sha1")
    return authority.issue("client", usage="clientAuth")


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("expired", "expired", "has expired"),
        ("not-yet-valid", "not-yet-valid", "not yet valid"),
        ("wrong-name", "wrong-name", "not valid for '127.0.0.1'"),
        ("common-name", "wrong-name", "not valid for '127.0.0.1'"),
        ("unknown-issuer", "unknown-issuer", "its authority is not in ca"),
        ("self-signed", "self-signed", "to trust it, put it into ca"),
        ("weak-key", "weak-certificate", "RSA needs 2048 bits"),
        ("weak-signature", "weak-certificate", "SHA-256 or better"),
        ("client", "unfit-certificate", "extended key usage"),
    ],
)
def test_what_is_wrong_with_the_peer_s_certificate_is_named(
    authority: Authority, stranger: Authority, check: Check, kind: str, fault: str, words: str
) -> None:
    """Each fault of a certificate has its name and its words, and the certificate is shown beside it."""
    pair = faulty(authority, stranger, kind)
    with tls_server(pair, tls_servers.open_to_all) as port:
        checked = check(port)
    assert (checked.status, checked.faults[0]) == (1, fault)
    assert words in checked.message
    assert checked.document["certificate"]["subject"].startswith("CN=")


def test_a_second_fault_does_not_hide_behind_the_first(
    authority: Authority, stranger: Authority, check: Check
) -> None:
    """An expired certificate of an unknown issuer is told to be both."""
    with tls_server(stranger.issue("old", days=-1)) as port:
        assert check(port).faults == ["unknown-issuer", "expired"]


def test_a_revoked_certificate_is_named_and_so_is_a_list_that_is_out_of_date(
    authority: Authority, theirs: Pair, check: Check
) -> None:
    """With crl, a certificate on the list is refused, another is taken, and an old list takes none."""
    revoked = authority.issue("revoked")
    current, old = authority.revoking(revoked), authority.revoking(days=-1)
    with tls_server(revoked) as port:
        assert check(port, more=f'crl = "{current}"\n').faults == ["revoked"]
        assert check(port).faults == ["c-echo"]  # the server speaks no DICOM
    with tls_server(theirs) as port:
        assert check(port, more=f'crl = "{current}"\n').faults == ["c-echo"]
        stale = check(port, more=f'crl = "{old}"\n')
    assert (stale.faults, "get a newer list" in stale.message) == (["revoked"], True)


@pytest.mark.parametrize(
    "server",
    [tls_servers.only_tls_1_1, tls_servers.only_suite("ECDHE-ECDSA-AES128-SHA")],
    ids=["TLS 1.1", "CBC"],
)
def test_a_peer_with_no_version_or_suite_in_common_is_named(
    theirs: Pair, check: Check, server: Callable[[Any], None]
) -> None:
    """Both what the peer takes and what we take are told."""
    with tls_server(theirs, server) as port:
        checked = check(port)
    assert (checked.status, checked.faults) == (1, ["no-common-suite"])
    assert "here it is TLS 1.2 or later" in checked.message
    assert "the peer takes TLSv1." in checked.message


@pytest.mark.parametrize("version", ["TLS 1.2", "TLS 1.3"])
def test_our_certificate_that_is_refused_is_named(
    authority: Authority, stranger: Authority, theirs: Pair, check: Check, version: str
) -> None:
    """Of another authority, expired or not there: the peer's refusal is told in its words."""
    configure = [tls_servers.up_to_tls_1_2] if version == "TLS 1.2" else []
    with tls_server(theirs, *configure, asks_for=authority.certificate) as port:
        foreign = check(port, pair=stranger.issue("foreign"))
        old = check(port, pair=authority.issue("mine-old", days=-1))
        none = check(port, pair=None)
    assert (foreign.status, foreign.faults) == (1, ["our-certificate-refused"])
    assert "alert 'unknown ca'" in foreign.message
    assert (old.faults, "expired" in old.message) == (["our-certificate-refused"], True)
    assert none.faults == ["our-certificate-missing"]


def test_a_plain_peer_is_named(check: Check) -> None:
    """A port that speaks plain DICOM is told from one that speaks nothing."""
    with toy_node() as node:
        plain = check(node.port)
    assert (plain.status, plain.faults) == (1, ["plain-peer"])
    assert "set tls = false" in plain.message

    def hang_up(connected: socket.socket) -> None:
        connected.recv(1)

    with answering(hang_up) as port:
        assert check(port).faults == ["tls"]


def test_who_cannot_be_reached_is_named(check: Check) -> None:
    """Nobody at the port and no such host are two faults."""
    assert check(free_port()).faults == ["connection-refused"]
    assert check(104, host="no-such-host.invalid").faults == ["host-unknown"]


def test_files_of_ours_that_cannot_be_used_are_a_problem_of_the_configuration(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every file missing, each is named at once, by anode check and by --tls, with status 2."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[node.tls]\nport = 0\ncertificate = "a.crt"\nkey = "a.key"\nca = "ca.crt"\ncrl = "ca.crl"\n'
        '[[peers]]\nae_title = "PACS"\nhost = "localhost"\nport = 1\ntls = true\ntls_ca = "pacs.crt"\n'
    )
    assert main(["check", "--no-peers", "--json", "--config", str(file)]) == 2
    told = [one["detail"] for one in json.loads(capsys.readouterr().out) if one["what"] == "tls"]
    titles = ["[node.tls] certificate", "[node.tls] key", "[node.tls] ca", "[node.tls] crl"]
    titles.append("[[peers]] PACS tls_ca")
    assert [one.split(": ")[0] for one in told] == titles
    assert all("cannot be read: No such file" in one for one in told)
    assert main(["check", "--tls", "PACS", "--config", str(file)]) == 2
    assert "[[peers]] PACS tls_ca: " in capsys.readouterr().err
    assert main(["check", "--tls", "NOBODY", "--config", str(file)]) == 2
    started = subprocess.run(
        [sys.executable, "-m", "node", "run", "--config", str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    assert [title for title in titles if f"{title}: " not in started.stderr] == []


def test_echo_says_when_a_port_that_is_called_plain_speaks_tls(
    authority: Authority, theirs: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """anode echo without TLS to a TLS port names the key that is missing, and is silent of it elsewhere."""
    file = tmp_path / "config.toml"
    file.write_text("")
    with toy_node(node={"tls": authority.config(theirs)}) as node:
        assert main(["echo", f"127.0.0.1:{node.server.tls_port}/ANODE", "--config", str(file)]) == 1
    assert "this port speaks TLS; set tls = true" in capsys.readouterr().err

    def hang_up(connected: socket.socket) -> None:
        connected.recv(1)

    with answering(hang_up) as port:
        assert main(["echo", f"127.0.0.1:{port}/ANODE", "--config", str(file)]) == 1
    assert "speaks TLS" not in capsys.readouterr().err


def test_anode_check_warns_of_what_will_fail_later(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate that ends soon, or is for servers alone, with status 0."""
    pair = authority.issue("server", usage="serverAuth", days=20)
    file = tmp_path / "config.toml"
    file.write_text(
        f'[node]\nport = 0\n[node.tls]\nport = 0\ncertificate = "{pair.certificate}"\n'
        f'key = "{pair.key}"\nca = "{authority.certificate}"\n'
    )
    assert main(["check", "--json", "--config", str(file)]) == 0
    results = [one for one in json.loads(capsys.readouterr().out) if one["what"] == "tls"]
    assert [one["state"] for one in results] == ["ok", "warning", "warning", "warning"]
    told = " ".join(one["detail"] for one in results)
    assert "[node.tls] certificate: " in told
    assert "(CN=server) expires on " in told
    assert "(CN=Hospital CA) expires on " in told
    assert "is not for clients" in told
    assert main(["check", "--strict", "--config", str(file)]) == 1
