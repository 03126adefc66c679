"""``anode echo``: does a peer answer a C-ECHO?"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.opening import configuration, peer_named, running_port
from node.config.settings import Config, PeerConfig
from node.errors import AssociationRejected, PeerError, ProtocolViolation

if TYPE_CHECKING:
    from node.cli.command import Commands


_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_OWN_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Echo:
    """What came of one C-ECHO; ``problem`` is empty when it was answered with Success.

    ``is_rejected`` tells a peer that answers, but rejects the association, from one that is away.
    """

    ae_title: str
    host: str
    port: int
    seconds: float
    problem: str
    is_rejected: bool = False


def register(commands: Commands) -> None:
    """Add the command."""
    echo = command.add(
        commands,
        "echo",
        _run,
        summary="ask a peer whether it answers (C-ECHO)",
        description="The association is requested under the node's own AE title, as deliveries are.",
        examples="anode echo PACS\nanode echo 192.0.2.7:104/PACS",
    )
    echo.add_argument("peer", metavar="PEER", help="an AE title of [[peers]], or HOST:PORT/AE_TITLE")
    echo.add_argument(
        "--timeout", metavar="SECONDS", type=command.positive_seconds, default=10.0, help="default: 10"
    )


def echo(config: Config, peer: PeerConfig, timeout_seconds: float) -> Echo:
    """Send one C-ECHO to ``peer``; every failure of the peer is told, none raised."""
    from node.wire import scu
    from node.wire.connection import ConnectionLost, PeerStalled
    from node.wire.sop_classes import UNCOMPRESSED, VERIFICATION
    from node.wire.tls import ClientTls

    begin = time.monotonic()
    problem = ""
    is_rejected = False
    try:
        with scu.connect(
            peer.host,
            peer.port,
            calling_ae_title=config.node.ae_title,
            called_ae_title=peer.ae_title,
            contexts=[scu.ProposedContext(VERIFICATION, UNCOMPRESSED)],
            timeout_seconds=timeout_seconds,
            max_pdu_bytes=config.limits.max_pdu_bytes,
            tls=ClientTls.of(config, peer),
        ) as association:
            answer = association.echo()
            if answer.status != 0:
                problem = f"it answered with status {answer.status:04X} {answer.comment}".strip()
    except PeerError as error:
        problem = str(error)
        is_rejected = isinstance(error, AssociationRejected)
        if not peer.tls and isinstance(error, ConnectionLost | PeerStalled | ProtocolViolation):
            problem += _hint_of_tls(peer, timeout_seconds)
    return Echo(peer.ae_title, peer.host, peer.port, time.monotonic() - begin, problem, is_rejected)


def _hint_of_tls(peer: PeerConfig, timeout_seconds: float) -> str:
    """Say that ``peer`` speaks TLS, where its port does; it then ends what is not TLS without a word."""
    from node.wire.tls_probe import speaks_tls

    if speaks_tls(peer.host, peer.port, min(timeout_seconds, _OWN_TIMEOUT_SECONDS)):
        return ": this port speaks TLS; set tls = true for this peer"
    return ""


def problem_of_running_node(config: Config) -> str:
    """Say why the node that runs on this machine does not answer; empty when it does.

    A rejection is an answer: the administrator's machine need not be among the peers.
    """
    host = _ANY_ADDRESS.get(config.node.host, config.node.host)
    itself = PeerConfig(config.node.ae_title, host, running_port(config))
    result = echo(config, itself, _OWN_TIMEOUT_SECONDS)
    return "" if result.is_rejected else result.problem


def _run(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    peer = peer_named(config, arguments.peer)
    result = echo(config, peer, arguments.timeout)
    if arguments.json:
        output.as_json(
            {
                "ae_title": result.ae_title,
                "host": result.host,
                "port": result.port,
                "answers": not result.problem,
                "seconds": round(result.seconds, 4),
                "problem": result.problem,
            }
        )
    elif result.problem:
        where = f"{peer.ae_title} at {peer.host}:{peer.port}"
        problem = output.plain(result.problem)
        output.note(problem if where in problem else f"{where}: {problem}")
    else:
        answered = f"answers C-ECHO in {result.seconds * 1000:.0f} ms"
        output.line(f"{peer.ae_title} at {peer.host}:{peer.port} {answered}")
    return 1 if result.problem else 0
