"""``anode check --tls PEER``: what TLS with one peer comes to, and the name of what is wrong with it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from node.cli import output
from node.cli.echo import echo
from node.config.settings import Config, PeerConfig
from node.errors import PeerError

if TYPE_CHECKING:
    from node.wire.tls import ClientTls
    from node.wire.tls_faults import TlsFailure
    from node.wire.tls_probe import Handshake
    from node.wire.x509 import Certificate

_REQUIRED = "the peer requires one, and accepts ours"
_NOT_REQUIRED = "the peer requires none"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its stable name, and in words."""

    name: str
    message: str


@dataclass
class Report:
    """What was seen, as far as it came."""

    ae_title: str
    host: str
    port: int
    version: str = ""
    cipher_suite: str = ""
    certificate: Certificate | None = None
    client_certificate: str = ""
    echo_seconds: float | None = None
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def saw(self, handshake: Handshake) -> None:
        """Take down what a handshake showed."""
        from node.wire import x509

        self.version, self.cipher_suite = handshake.version, handshake.cipher_suite
        if handshake.certificate:
            try:
                self.certificate = x509.of_der(handshake.certificate)
            except ValueError as error:
                self.warnings.append(f"the peer's certificate cannot be read: {error}")


def run(config: Config, peer: PeerConfig, timeout_seconds: float, *, as_json: bool) -> int:
    """Look, print what was seen, and return the exit status; ConfigurationError for files of ours."""
    report = diagnose(config, peer, timeout_seconds)
    if as_json:
        output.as_json(_document(report))
    else:
        output.facts(_lines(report))
    return 1 if report.faults else 0


def diagnose(config: Config, peer: PeerConfig, timeout_seconds: float) -> Report:
    """Shake hands with ``peer`` as the node would, and find out why where that fails."""
    from node.wire import tls_probe
    from node.wire.tls import ClientTls
    from node.wire.tls_faults import TlsFailure

    report = Report(peer.ae_title, peer.host, peer.port)
    if not peer.tls and peer in config.peers:
        report.warnings.append("tls = true is not set for this peer: the node calls it without TLS")
    peer = replace(peer, tls=True)
    client = ClientTls.of(config, peer)
    assert client is not None
    if not client.config.verify_peers:
        report.warnings.append("verify_peers = false: whoever answers is trusted, nothing was verified")
    try:
        report.saw(tls_probe.shake_hands(peer.host, peer.port, client, timeout_seconds))
    except tls_probe.Unreachable as error:
        report.faults.append(Fault(error.fault, str(error)))
        return report
    except TlsFailure as error:
        _explain(report, config, client, error, timeout_seconds)
    except PeerError as error:  # it hung up, or was silent
        failure = TlsFailure(f"no TLS handshake came about: {error}")
        _explain(report, config, client, failure, timeout_seconds)
    else:
        _client_certificate(report, client, timeout_seconds)
        _echo(report, config, peer, timeout_seconds)
    _dates(report)
    return report


def _explain(
    report: Report, config: Config, client: ClientTls, error: TlsFailure, timeout_seconds: float
) -> None:
    from node.wire import tls_faults, tls_probe

    fault, message = error.fault, str(error)
    if fault == tls_faults.REFUSED_BY_PEER and client.config.certificate is None:
        fault, message = tls_faults.MISSING_HERE, f"{message}: none is configured here"
    where = (report.host, report.port)
    if fault in (tls_faults.OTHER, tls_faults.PLAIN_PEER) and tls_probe.speaks_plain_dicom(
        *where, config.node.ae_title, report.ae_title, timeout_seconds
    ):
        fault = tls_faults.PLAIN_PEER
        message = "the peer speaks plain DICOM on this port: set tls = false, or the port where it speaks TLS"
    report.faults.append(Fault(fault, message))
    if fault != tls_faults.PLAIN_PEER:
        try:  # trusting nothing, to see what it is that is wrong
            seen = tls_probe.shake_hands(*where, tls_probe.AnyTls(client.config), timeout_seconds)
        except PeerError:
            return
        report.saw(seen)
        if fault == tls_faults.NO_COMMON_SUITE:
            offered = f"the peer takes {report.version} with {report.cipher_suite}"
            report.faults[-1] = Fault(fault, f"{message}; {offered}")


def _client_certificate(report: Report, client: ClientTls, timeout_seconds: float) -> None:
    """Find out whether the peer would do without our certificate."""
    from node.wire import tls_faults, tls_probe
    from node.wire.tls import ClientTls

    if client.config.certificate is None:
        report.client_certificate = _NOT_REQUIRED
        return
    anonymous = ClientTls(replace(client.config, certificate=None, key=None), client.checks_host_name)
    try:
        tls_probe.shake_hands(report.host, report.port, anonymous, timeout_seconds)
    except tls_faults.TlsFailure as error:
        is_about_it = error.fault in (tls_faults.MISSING_HERE, tls_faults.REFUSED_BY_PEER)
        report.client_certificate = _REQUIRED if is_about_it else ""
    except PeerError:  # it hung up without a word
        report.client_certificate = _REQUIRED
    else:
        report.client_certificate = _NOT_REQUIRED


def _echo(report: Report, config: Config, peer: PeerConfig, timeout_seconds: float) -> None:
    answered = echo(config, peer, timeout_seconds)
    if answered.problem:
        report.faults.append(Fault("c-echo", answered.problem))
    else:
        report.echo_seconds = answered.seconds


def _dates(report: Report) -> None:
    """Name what the certificate's dates say, also where something else failed first."""
    from node.wire import tls_faults
    from node.wire.validity import SOON_SECONDS, day

    one, now = report.certificate, time.time()
    if one is None:
        return
    known = {fault.name for fault in report.faults}
    if one.not_after <= now:
        if tls_faults.EXPIRED not in known:
            message = f"the peer's certificate has expired on {day(one.not_after)}"
            report.faults.append(Fault(tls_faults.EXPIRED, message))
    elif one.not_after <= now + SOON_SECONDS:
        report.warnings.append(f"the peer's certificate expires on {day(one.not_after)}")
    if one.not_before > now and tls_faults.NOT_YET_VALID not in known:
        message = f"the peer's certificate is not valid before {day(one.not_before)}"
        report.faults.append(Fault(tls_faults.NOT_YET_VALID, message))


def _document(report: Report) -> dict[str, Any]:
    one = report.certificate
    return {
        "ae_title": report.ae_title,
        "host": report.host,
        "port": report.port,
        "version": report.version,
        "cipher_suite": report.cipher_suite,
        "certificate": None
        if one is None
        else {
            "subject": one.subject,
            "issuer": one.issuer,
            "names": list(one.names),
            "key": one.key,
            "not_before": output.iso(one.not_before),
            "not_after": output.iso(one.not_after),
        },
        "client_certificate": report.client_certificate,
        "echo_seconds": None if report.echo_seconds is None else round(report.echo_seconds, 4),
        "faults": [asdict(fault) for fault in report.faults],
        "warnings": report.warnings,
    }


def _lines(report: Report) -> list[tuple[str, object]]:
    from node.wire.validity import day

    lines: list[tuple[str, object]] = [("peer", f"{report.ae_title} at {report.host}:{report.port}")]
    if report.version:
        lines.append(("agreed", f"{report.version}, {report.cipher_suite}"))
    one = report.certificate
    if one is not None:
        lines += [
            ("certificate", f"{one.subject}, {one.key}"),
            ("its names", ", ".join(one.names) or "none: no host can be called by it"),
            ("issued by", one.issuer),
            ("valid", f"from {day(one.not_before)} to {day(one.not_after)}"),
        ]
    if report.client_certificate:
        lines.append(("our certificate", report.client_certificate))
    if report.echo_seconds is not None:
        lines.append(("C-ECHO", f"answered in {report.echo_seconds * 1000:.0f} ms"))
    lines += [("warning", warning) for warning in report.warnings]
    return lines + [("FAULT", f"{fault.name}: {fault.message}") for fault in report.faults]
