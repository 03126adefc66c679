"""The configuration file: safe defaults, and every problem at once with its line."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from node.config import config_file
from node.config.settings import AuditConfig, Config, NodeConfig, SyslogAddress, TlsConfig, TranscodeRule
from node.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
PACS = '[[peers]]\nae_title = "PACS"\nhost = "10.0.0.7"\nport = 104\n'

TLS = '[node.tls]\nport = 2762\ncertificate = "c"\nkey = "k"\nca = "ca"\n'

ONLY_CALLS_US = "; a peer that is never called has addresses in place of host and port"


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return config_file.load(file)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def uncommented(text: str) -> str:
    """Take the '#' from every line that holds a key or a header."""
    return re.sub(r"(?m)^# (\[|\w+ = )", r"\1", text)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == Config(
        node=NodeConfig(data_dir=tmp_path.resolve() / "data"), source=tmp_path / "config.toml"
    )


def test_the_project_s_file_is_all_comments_and_gives_the_defaults() -> None:
    config = config_file.load(ROOT / "config.toml")
    assert config == Config(node=NodeConfig(data_dir=ROOT / "data"), source=ROOT / "config.toml")


def test_the_project_s_file_shows_every_key_with_its_default() -> None:
    text = uncommented((ROOT / "config.toml").read_text())
    config = config_file.parse(text, ROOT / "config.toml")
    tls = config.node.tls
    assert tls is not None
    config = replace(config, node=replace(config.node, tls=None))  # an example, as peers are
    assert config.audit.syslog == SyslogAddress("tls", "logs.example.org", 6514)
    none = AuditConfig()
    examples = {"syslog": none.syslog, "ca": none.ca, "source_id": "", "site_id": ""}
    config = replace(config, audit=replace(config.audit, **examples))
    assert config.transcode.rules == (TranscodeRule("jpeg2000", {"Modality": "MG"}),)
    config = replace(config, transcode=replace(config.transcode, rules=()))
    default = config_file.load(ROOT / "config.toml")
    for table in ("node", "limits", "storage", "transcode", "verify", "study", "jobs", "audit", "log"):
        assert getattr(config, table) == getattr(default, table)
        section = text.split(f"[{table}]\n")[1].split("\n[")[0]
        for field in fields(getattr(config, table)):
            if field.name in ("tls", "rules"):
                continue
            assert re.search(rf"(?m)^{field.name} = ", section), f"[{table}] {field.name} is not shown"
    section = text.split("[node.tls]\n")[1].split("\n[")[0]
    for field in fields(tls):
        assert re.search(rf"(?m)^{field.name} = ", section), f"[node.tls] {field.name} is not shown"
    for array in ("peers", "routes", "analyses"):
        section = text.split(f"[[{array}]]\n")[1].split("\n[")[0]
        for field in fields(getattr(config, array)[0]):
            assert re.search(rf"(?m)^{field.name} = ", section), f"[[{array}]] {field.name} is not shown"


def test_every_problem_is_told_at_once_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    text = """\
[node]
prot = 11112
ae_title = "FAR TOO LONG A TITLE"
accept_unknown_peers = 1

[transcode]
to = "jpeg_ls"

[studdy]
quiet_seconds = 3

[[peers]]
ae_title = "PACS"
host = "h"
allow = ["store", "stroe"]

[[routes]]
when = { Modalty = "CT", SeriesNumber = 3 }
send_to = ["PAKS"]
"""
    assert problems(tmp_path, text) == [
        "config.toml:2: [node] prot: unknown key; did you mean 'port'?",
        "config.toml:3: [node] ae_title: an AE title has at most 16 characters, "
        "'FAR TOO LONG A TITLE' has 20",
        "config.toml:4: [node] accept_unknown_peers: expected true or false, not 1",
        "config.toml:7: [transcode] to: 'jpeg_ls' is none of keep, rle, jpeg-lossless, jpeg-lossless-p14, "
        "jpeg-ls, jpeg2000, htj2k, htj2k-rpcl, jpeg-xl, deflated-frame, best; "
        "did you mean 'jpeg-ls'?",
        "config.toml:9: [studdy]: unknown table; did you mean 'study'?",
        f"config.toml:12: [[peers]]: 'port' is missing{ONLY_CALLS_US}",
        "config.toml:15: [[peers]] allow: 'stroe' is none of store, query, retrieve, commit; "
        "did you mean 'store'?",
        "config.toml:18: [[routes]] when: Modalty: not a DICOM keyword; did you mean 'Modality'?",
        'config.toml:18: [[routes]] when: SeriesNumber: expected a pattern in quotes, not 3; write "3"',
        "config.toml:19: [[routes]] send_to: 'PAKS' is not among the peers; did you mean 'PACS'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[node]\nport = "104"', '2: [node] port: expected a whole number from 0 to 65535, not "104"; '
         "write 104 without quotes"),
        ("[node]\nport = 65536", "2: [node] port: expected a whole number from 0 to 65535, not 65536"),
        ("[node]\nport = -1", "2: [node] port: expected a whole number from 0 to 65535, not -1"),
        ("[node]\nport = true", "2: [node] port: expected a whole number from 0 to 65535, not true"),
        ("[node]\nport = 1.5", "2: [node] port: expected a whole number from 0 to 65535, not 1.5"),
        ('[node]\nae_title = "A\\\\B"', "2: [node] ae_title: an AE title has no backslash"),
        ('[node]\nae_title = "  "', "2: [node] ae_title: an AE title has at least one character that is "
         "not a space"),
        ('[node]\nae_title = "A\\tB"', "2: [node] ae_title: an AE title has only printable ASCII characters"),
        ('[node]\nae_title = "ÄRZTE"', "2: [node] ae_title: an AE title has only printable ASCII characters"),
        ("[node]\nae_title = 7", "2: [node] ae_title: expected an AE title in quotes, not 7"),
        ("[study]\nquiet_seconds = -1", "2: [study] quiet_seconds: expected a number of at least 0, not -1"),
        ("[study]\nquiet_seconds = nan", "2: [study] quiet_seconds: expected a number of at least 0, "
         "not nan"),
        ("[jobs]\ntimeout_seconds = 0", "2: [jobs] timeout_seconds: expected a number above 0, not 0"),
        ("quiet_seconds = 3", "1: quiet_seconds: unknown key; it belongs in [study] or [[analyses]]"),
        ("[[node]]\nport = 1", "1: [node]: [[node]] stands in double brackets; write [node]"),
        ("[peers]\nport = 1", "1: [peers]: there may be several; write [[peers]]"),
        ("node = 3", "1: [node]: 3 is no table; write [node]"),
        ('peers = "x"', "1: peers: expected tables; write [[peers]]"),
        ("[[routes]]", "1: [[routes]]: 'send_to' is missing"),
        ("[[routes]]\nsend_to = []", "2: [[routes]] send_to: expected at least one peer"),
        ("[[routes]]\nsend_to = ['X']", "2: [[routes]] send_to: 'X' is not among the peers; "
         "add a [[peers]] table for it"),
        (PACS + "[[routes]]\nsend_to = 'PACS'", '6: [[routes]] send_to: expected a list in square brackets, '
         'not "PACS"; write ["PACS"]'),
        (PACS + "[[routes]]\nsend_to = ['PACS', ' PACS ']", "6: [[routes]] send_to: peer 'PACS' is listed "
         "twice"),
        (PACS + PACS, "6: [[peers]] ae_title: 'PACS' is already the peer of line 1"),
        (PACS + "[[routes]]\nsend_to=['PACS']\nwhen = 'CT'", '7: [[routes]] when: expected a table such as '
         '{ Modality = "CT" }, not "CT"'),
        (PACS + "[[routes]]\nsend_to=['PACS']\n[routes.when]\nPixelData = 'x'", "8: [[routes]] when: "
         "PixelData: only attributes with a plain value can be matched, not sequences or binary ones"),
        ("[[analyses]]\nname = 'a'\nmodel = 'lung'", "3: [[analyses]] model: there is no model 'lung'; "
         "did you mean 'lungs'?"),
        ("[[analyses]]\nname = 'a'\nmodel = 'lungs'\nresults = ['pdf']", "4: [[analyses]] results: 'pdf' is "
         "none of sr, seg, labelmap, sc, image, pm, reg, pr, rtstruct"),
        ("[[analyses]]\nname='a'\nmodel='lungs'\n[[analyses]]\nname='a'\nmodel='lungs'", "5: [[analyses]] "
         "name: 'a' is already the analysis of line 1"),
        ('[node]\nhost = "0.0.0.0"', "2: [node] host: 0.0.0.0 can be reached from other machines, but no "
         "[[peers]] are configured; add them, or set accept_unknown_peers = true to let anyone in"),
        ("[jobs]\ndelivery_retry_first_seconds = 5\ndelivery_retry_max_seconds = 1",
         "2: [jobs] delivery_retry_first_seconds: 5 is more than "
         "delivery_retry_max_seconds, 1"),
        (PACS + "addresses = ['10.1.2.3/16']", '5: [[peers]] addresses: "10.1.2.3/16" is an address within a '
         "network; write 10.1.0.0/16"),
        (PACS + "addresses = ['10.1.0.0/33']", '5: [[peers]] addresses: "10.1.0.0/33" is no network; write '
         "one as 10.1.0.0/16 or 2001:db8::/64"),
        (PACS + "addresses = ['ct.example.org:104']", '5: [[peers]] addresses: "ct.example.org:104" is no IP '
         "address, no network such as 10.1.0.0/16 or 2001:db8::/64, and no host name; write it without a "
         "port"),
        (PACS + "addresses = ['10.1.2']", '5: [[peers]] addresses: "10.1.2" is no IP address, no network '
         "such as 10.1.0.0/16 or 2001:db8::/64, and no host name; write it without a port"),
        (PACS + "addresses = []", "5: [[peers]] addresses: expected at least one address"),
        (TLS + PACS + "certificate_names = ['*']", '10: [[peers]] certificate_names: "*": a * stands for the '
         "whole first label alone, as in *.ct.example.org"),
        (TLS + PACS + "certificate_names = ['r\u00f6.example.org']", "10: [[peers]] certificate_names: "
         '"r\u00f6.example.org" has characters beyond ASCII, which names of certificates are not compared '
         "by: write a host name as xn--..., or name the certificate by certificate_sha256"),
        (TLS + PACS + "certificate_sha256 = ['ab:cd']", "10: [[peers]] certificate_sha256: expected 64 "
         "hexadecimal digits, as 'openssl x509 -noout -fingerprint -sha256 -in FILE' prints them, not "
         '"ab:cd"'),
        (PACS + "certificate_names = ['a.org']", "5: [[peers]] certificate_names: needs a [node.tls] port "
         "that it can call"),
        (PACS + "require_tls = true", "5: [[peers]] require_tls: needs a [node.tls] port that it can call"),
        (TLS.replace("ca =", "verify_peers = false\nca =") + PACS + "certificate_names = ['a.org']",
         "11: [[peers]] certificate_names: needs [node.tls] verify_peers = true: nobody is asked for a "
         "certificate without it"),
        (PACS + "transfer_syntaxes = ['JPEGLSLoseless']", '5: [[peers]] transfer_syntaxes: "JPEGLSLoseless" '
         "is no transfer syntax that is taken here, by its UID or its keyword such as "
         "ExplicitVRLittleEndian or JPEGLSLossless; did you mean 'JPEGLSLossless'?"),
        (PACS + "send_transfer_syntaxes = ['JPEGLSLossless']", "5: [[peers]] send_transfer_syntaxes: needs "
         "ExplicitVRLittleEndian or ImplicitVRLittleEndian among them: every instance can be sent in those, "
         "and in no other one"),
        (
            "[[peers]]\nae_title = 'CT'\nhost = 'ct'\naddresses = ['ct']",
            f"1: [[peers]]: 'port' is missing{ONLY_CALLS_US}",
        ),
        ("[[peers]]\nae_title = 'CT'\naddresses = ['ct']\n[[routes]]\nsend_to = ['CT']", "5: [[routes]] "
         "send_to: 'CT' only calls us; add host and port to its table of line 1"),
        ("[log]\nlevel = 'info'", "2: [log] level: 'info' is none of DEBUG, INFO, WARNING, ERROR; "
         "did you mean 'INFO'?"),
        ("[node]\nport = 1\nport = 2", "3: not valid TOML: cannot overwrite a value"),
        ("[node\n", "1: not valid TOML: expected ']' at the end of a table declaration"),
        ("a = [1,", "1: not valid TOML: invalid value"),
    ],
)  # fmt: skip
def test_each_kind_of_problem_has_its_words(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [f"config.toml:{expected}"]


def test_a_peer_that_nobody_can_call_needs_addresses(tmp_path: Path) -> None:
    assert problems(tmp_path, "[[peers]]\nae_title = 'CT'") == [
        f"config.toml:1: [[peers]]: 'host' is missing{ONLY_CALLS_US}",
        f"config.toml:1: [[peers]]: 'port' is missing{ONLY_CALLS_US}",
    ]


def test_what_counts_for_a_peer_is_read(tmp_path: Path) -> None:
    """The keys of a peer are read in whichever spelling is right, and what is absent is that of [limits]."""
    config = load(
        tmp_path,
        f"[limits]\nnetwork_timeout_seconds = 20\n{TLS}"
        "[[peers]]\nae_title = 'CT'\n"
        "addresses = ['10.1.0.0/16', '2001:db8:1::/64', '192.0.2.7', 'fe80::1%eth0', 'ct7.example.org']\n"
        "certificate_names = ['*.ct.example.org', 'urn:ct:7']\n"
        f"certificate_sha256 = ['sha256 Fingerprint={':'.join(['AB'] * 32)}']\n"
        "associations = 4\nmax_pdu_bytes = 16384\n"
        "transfer_syntaxes = ['ExplicitVRLittleEndian', '1.2.840.10008.1.2.4.80']\n"
        "send_transfer_syntaxes = ['ImplicitVRLittleEndian']\n"
        f"{PACS}network_timeout_seconds = 7\nrequire_tls = true\n",
    )
    scanner, pacs = config.peers
    assert scanner.addresses[3:] == ("fe80::1%eth0", "ct7.example.org")
    assert scanner.certificate_sha256 == ("ab" * 32,)
    assert scanner.transfer_syntaxes == ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80")
    assert scanner.send_transfer_syntaxes == ("1.2.840.10008.1.2",)
    assert (scanner.require_tls, scanner.can_be_called, scanner.associations) == (True, False, 4)
    assert (pacs.require_tls, pacs.can_be_called, pacs.associations) == (True, True, None)
    limits = config.limits_of(scanner)
    assert (limits.network_timeout_seconds, limits.max_pdu_bytes) == (20.0, 16384)
    limits = config.limits_of(pacs)
    assert (limits.network_timeout_seconds, limits.max_pdu_bytes) == (7.0, 131072)
    plain_too = load(tmp_path, f"{TLS}{PACS}certificate_names = ['a.org']\nrequire_tls = false\n")
    assert not plain_too.peers[0].require_tls


def test_rules_choose_a_codec_by_attribute_and_the_rest_counts_beside_them(tmp_path: Path) -> None:
    text = """
[transcode]
to = "best"
codecs = ["jpeg-ls", "rle"]
deflate_bytes = 1000

[[transcode.rules]]
when = { Modality = "MG" }
to = "jpeg2000"

[[transcode.rules]]
to = "keep"
"""
    transcode = load(tmp_path, text).transcode
    assert (transcode.to, transcode.codecs, transcode.deflate_bytes) == ("best", ("jpeg-ls", "rle"), 1000)
    assert transcode.rules == (TranscodeRule("jpeg2000", {"Modality": "MG"}), TranscodeRule("keep"))


def test_every_fault_of_a_rule_is_named_with_its_line(tmp_path: Path) -> None:
    text = """[[transcode.rules]]
when = { Modalty = "MG" }

[[transcode.rules]]
to = "jpeg-3000"
too = 1
"""
    assert problems(tmp_path, text) == [
        "config.toml:1: [[transcode.rules]]: 'to' is missing",
        "config.toml:2: [[transcode.rules]] when: Modalty: not a DICOM keyword; did you mean 'Modality'?",
        "config.toml:5: [[transcode.rules]] to: 'jpeg-3000' is none of keep, rle, jpeg-lossless, "
        "jpeg-lossless-p14, jpeg-ls, jpeg2000, htj2k, htj2k-rpcl, jpeg-xl, deflated-frame, best; "
        "did you mean 'jpeg2000'?",
        "config.toml:6: [[transcode.rules]] too: unknown key; did you mean 'to'?",
    ]
    for when in ("", "when = {}\n"):
        behind = "[[transcode.rules]]\nwhen = { Modality = 'MR' }\nto = 'keep'\n"
        text = f"[[transcode.rules]]\n{when}to = 'rle'\n{behind}"
        (problem,) = problems(tmp_path, text)
        assert "never reached: one before it has no 'when'; put that last" in problem
    assert problems(tmp_path, "[transcode.rules]\nto = 'rle'\n") == [
        "config.toml:1: [transcode.rules]: there may be several; write [[transcode.rules]]"
    ]


def test_spaces_around_an_ae_title_are_not_significant(tmp_path: Path) -> None:
    config = load(tmp_path, PACS.replace('"PACS"', '"  PACS "') + "[[routes]]\nsend_to = ['PACS ']")
    assert config.peers[0].ae_title == "PACS"
    assert config.routes[0].send_to == ("PACS",)


def test_unknown_peers_are_accepted_on_loopback_alone_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "").node.accept_unknown_peers
    assert load(tmp_path, "[node]\nhost = 'localhost'").node.accept_unknown_peers
    assert load(tmp_path, "[node]\nhost = '::1'").node.accept_unknown_peers
    assert not load(tmp_path, "[node]\nhost = '0.0.0.0'\n" + PACS).node.accept_unknown_peers
    assert load(tmp_path, "[node]\nhost = '0.0.0.0'\naccept_unknown_peers = true").node.accept_unknown_peers


def test_results_are_confirmed_by_those_peers_that_may_ask_for_commitment(tmp_path: Path) -> None:
    peers = PACS + 'allow = ["store"]\n' + PACS.replace('"PACS"', '"OTHER"')
    assert [peer.confirm_results for peer in load(tmp_path, peers).peers] == [False, True]


def test_a_relative_data_dir_lies_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load(tmp_path, "[node]\ndata_dir = 'x/y'").node.data_dir == tmp_path.resolve() / "x" / "y"
    assert load(tmp_path, "[node]\ndata_dir = '/var/x'").node.data_dir == Path("/var/x")


def test_without_a_file_data_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file.defaults().node.data_dir == tmp_path.resolve() / "data"
    assert config_file.defaults().source is None


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        config_file.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        config_file.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[node]\n# caf\xe9\n")
    with pytest.raises(ConfigurationError, match=r"latin\.toml:2: the file is not UTF-8 text"):
        config_file.load(tmp_path / "latin.toml")
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[node]\r\nport = 5\r\n")
    assert config_file.load(tmp_path / "bom.toml").node.port == 5


def test_tls_is_read_with_paths_beside_the_file(tmp_path: Path) -> None:
    """[node.tls] and tls of a peer are read; files are looked for in the folder of the configuration."""
    config = load(
        tmp_path,
        '[node]\nport = 1\n[node.tls]\nport = 0\ncertificate = "a.crt"\nkey = "/k/a.key"\nca = "ca.crt"\n'
        'crl = "ca.crl"\n'
        f'{PACS}tls = true\ntls_check_host_name = false\ntls_ca = "p.crt"\n'
        'tls_certificate = "/k/p.crt"\ntls_key = "p.key"\n',
    )
    assert config.node.tls == TlsConfig(
        port=0,
        certificate=tmp_path.resolve() / "a.crt",
        key=Path("/k/a.key"),
        ca=tmp_path.resolve() / "ca.crt",
        crl=tmp_path.resolve() / "ca.crl",
    )
    assert config.node.tls_host == "127.0.0.1"
    assert config.peers[0].tls
    peer = config.peers[0]
    assert not peer.tls_check_host_name
    assert (peer.tls_ca, peer.tls_certificate) == (tmp_path.resolve() / "p.crt", Path("/k/p.crt"))
    assert peer.tls_key == tmp_path.resolve() / "p.key"
    without = load(tmp_path, f'{PACS}tls = true\ntls_ca = "p.crt"\n')
    assert (without.node.tls, without.peers[0].tls) == (None, True)


def test_what_tls_lacks_is_told(tmp_path: Path) -> None:
    """A listener without a certificate, nobody to trust, and a TLS peer without [node.tls] are problems."""
    assert problems(tmp_path, "[node.tls]\nport = 2762\n") == [
        "config.toml:1: [node.tls]: 'ca' is missing, or set verify_peers = false to trust anyone",
        "config.toml:1: [node.tls]: 'certificate' is missing",
        "config.toml:1: [node.tls]: 'key' is missing",
    ]
    assert problems(tmp_path, '[node.tls]\nverify_peers = false\ncertificate = "c"\n') == [
        "config.toml:1: [node.tls]: 'key' is missing"
    ]
    assert problems(tmp_path, f"{PACS}tls = true\n") == [
        "config.toml:5: [[peers]] tls: needs [node.tls] with what is to be trusted, or tls_ca"
    ]
    assert problems(tmp_path, f'{PACS}tls_ca = "x"\ntls_key = "k"\n') == [
        "config.toml:5: [[peers]] tls_ca: counts only with tls = true beside it",
        "config.toml:6: [[peers]] tls_key: counts only with tls = true beside it",
        "config.toml:6: [[peers]] tls_key: needs tls_certificate beside it",
    ]
    assert problems(tmp_path, "[node]\ntls = true\n") == [
        "config.toml:2: [node] tls: true is no table; write [node.tls]"
    ]
    assert problems(tmp_path, '[node]\ncertificate = "c"\n') == [
        "config.toml:2: [node] certificate: unknown key; it belongs in [node.tls]"
    ]


def test_a_tls_listener_for_other_machines_needs_peers(tmp_path: Path) -> None:
    """Where TLS alone can be reached from outside, unknown peers are as unwelcome as where plain can."""
    tls = '[node.tls]\nport = 2762\nhost = "0.0.0.0"\ncertificate = "c"\nkey = "k"\nca = "ca"\n'
    (problem,) = problems(tmp_path, tls)
    assert problem.startswith("config.toml:3: [node.tls] host: 0.0.0.0 can be reached from other machines")
    config = load(tmp_path, f"{tls}{PACS}")
    assert not config.node.accept_unknown_peers
    assert (config.node.host, config.node.tls_host) == ("127.0.0.1", "0.0.0.0")


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("udp://10.0.0.9", SyslogAddress("udp", "10.0.0.9", 514)),
        ("tcp://logs.example.org:1601", SyslogAddress("tcp", "logs.example.org", 1601)),
        ("tls://[2001:db8::9]:6515", SyslogAddress("tls", "2001:db8::9", 6515)),
    ],
)
def test_a_syslog_receiver_is_an_address_with_a_transport(
    tmp_path: Path, written: str, address: SyslogAddress
) -> None:
    config = load(tmp_path, f'[audit]\nsyslog = "{written}"\nca = "logs.crt"\n')
    assert config.audit.syslog == address
    assert config.audit.ca == tmp_path.resolve() / "logs.crt"


@pytest.mark.parametrize(
    "written", ["logs.example.org", "http://logs", "udp://", "tcp://logs:0", "tcp://a:b/c"]
)
def test_what_is_no_syslog_receiver_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    [problem] = problems(tmp_path, f'[audit]\nsyslog = "{written}"\n')
    assert problem.startswith("config.toml:2: [audit] syslog: ")


def test_syslog_over_tls_needs_to_know_whom_to_trust(tmp_path: Path) -> None:
    text = '[audit]\nsyslog = "tls://logs.example.org"\n'
    [problem] = problems(tmp_path, text)
    assert problem == "config.toml:2: [audit] syslog: over TLS it needs 'ca', here or in [node.tls]"
    assert load(tmp_path, f'[node.tls]\nca = "peers.crt"\n{text}').audit.syslog is not None


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("JPEG2000Lossless", "jpeg2000"),
        ("JPEGLossless", "jpeg-lossless"),
        ("JPEGLSLossless", "jpeg-ls"),
        ("HTJ2KLossless", "htj2k"),
        ("RLELossless", "rle"),
        ("htj2k_rpcl", "htj2k-rpcl"),
        ("htj2k-rplc", "htj2k-rpcl"),
        ("jpeg-lossless-p41", "jpeg-lossless-p14"),
        ("jpegxl", "jpeg-xl"),
        ("bestt", "best"),
    ],
)
def test_a_codec_is_known_by_the_name_of_its_transfer_syntax(tmp_path: Path, wrong: str, meant: str) -> None:
    (problem,) = problems(tmp_path, f"[transcode]\nto = '{wrong}'\n")
    assert problem.endswith(f"; did you mean '{meant}'?")
