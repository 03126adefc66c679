"""``anode check``: could the node run as configured, and would its peers answer?"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from node import parking
from node.alarms import ANALYSIS_PARKED
from node.cli import access, check_tls, command, output
from node.cli.echo import echo, problem_of_running_node
from node.cli.opening import (
    config_argument,
    configuration,
    database_path,
    is_running,
    peer_named,
    running_port,
    stale_configuration,
    standing_alarms,
)
from node.config.settings import Config, PeerConfig, TlsConfig
from node.errors import AnodeError, ConfigurationError

if TYPE_CHECKING:
    from node.cli.command import Commands


_TLS = "tls"


@dataclass(frozen=True)
class Result:
    """One thing that was looked at. A ``problem`` keeps the node from working, a ``warning`` does not."""

    what: str
    state: Literal["ok", "warning", "problem"]
    detail: str


def register(commands: Commands) -> None:
    """Add the command."""
    check = command.add(
        commands,
        "check",
        _run,
        summary="check the configuration, the data directory, the port, the peers and the models",
        description="Nothing is changed. A peer that does not answer is a warning: "
        "it may be down for an hour.",
        examples="anode check\nanode check --config new.toml --strict\nanode check --tls PACS",
    )
    check.add_argument("--strict", action="store_true", help="fail on warnings too")
    check.add_argument(
        "--tls", metavar="PEER", help="look at TLS with one peer alone, and name what is wrong with it"
    )
    check.add_argument("--no-peers", action="store_true", help="do not send C-ECHO to the peers")
    check.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=command.positive_seconds,
        default=3.0,
        help="for each peer (default: 3)",
    )


def _run(arguments: argparse.Namespace) -> int:
    try:
        config = configuration(arguments)
    except ConfigurationError as error:
        if not arguments.json:
            raise
        output.as_json([asdict(Result("configuration", "problem", problem)) for problem in error.problems])
        return 2
    if arguments.tls is not None:
        peer = peer_named(config, arguments.tls)
        return check_tls.run(config, peer, arguments.timeout, as_json=arguments.json)
    results = list(_results(config, None if arguments.no_peers else arguments.timeout))
    if arguments.json:
        output.as_json([asdict(result) for result in results])
    else:
        output.table(["WHAT", "STATE", "DETAIL"], [[one.what, one.state, one.detail] for one in results])
    states = {result.state for result in results}
    if any(result.what == _TLS and result.state == "problem" for result in results):
        return 2  # as for any other configuration with which 'anode run' would not start
    return 1 if "problem" in states or (arguments.strict and "warning" in states) else 0


def _results(config: Config, timeout_seconds: float | None) -> Iterator[Result]:
    yield Result("configuration", "ok", str(config.source or "none: the defaults count"))
    stale = stale_configuration(config)
    if stale:
        yield Result("configuration", "warning", stale)
    running = is_running(config)
    yield _data_directory(config, running)
    yield from (Result(*found) for found in access.findings(config))
    yield _free_space(config)
    yield _port(config, running)
    yield from _tls(config, running)
    for alarm in standing_alarms(config):
        if alarm.name == ANALYSIS_PARKED:
            continue  # said of the analysis, whether a node has raised the alarm or not
        yield Result("alarm", "warning", f"{alarm.name} since {output.moment(alarm.since)}: {alarm.message}")
    yield from _models(config)
    others = []
    for peer in config.peers:
        if not peer.can_be_called:
            yield Result(f"peer {peer.ae_title}", "ok", "only calls us: it has no host and port")
        elif _is_this_node(config, peer):
            where = f"{peer.host}:{peer.port}"
            yield Result(f"peer {peer.ae_title}", "problem", f"{where} is this node itself: take it out")
        else:
            others.append(peer)
    if timeout_seconds is not None and others:
        with ThreadPoolExecutor(max_workers=min(16, len(others))) as pool:
            yield from pool.map(lambda peer: _peer(config, peer, timeout_seconds), others)


def _data_directory(config: Config, running: bool) -> Result:
    data_dir = config.node.data_dir
    if running:
        return Result("data_dir", "ok", f"{data_dir}: a node is running on it")
    there = _nearest_existing(data_dir)
    if not there.is_dir():
        return Result("data_dir", "problem", f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        return Result("data_dir", "problem", f"{there} cannot be written by this user")
    from node.storage import guard

    try:
        if guard.inspect(data_dir, guard.state_file_of(config.source)):
            _look_at_index(config)
    except AnodeError as error:
        return Result("data_dir", "problem", f"{error}; {error.action}".removesuffix("; "))
    except OSError as error:
        return Result("data_dir", "problem", f"{data_dir} cannot be looked at: {error.strerror}")
    if there != data_dir:
        problem = _problem_of_making(data_dir)
        if problem:
            return Result("data_dir", "problem", f"{data_dir} cannot be made: {problem}")
        return Result("data_dir", "ok", f"{data_dir}: will be made at the first start")
    return Result("data_dir", "ok", str(data_dir))


def _look_at_index(config: Config) -> None:
    """Raise what the start would say of an index that is gone, damaged or that of another archive."""
    from node.clock import Clock
    from node.index.database import Database
    from node.index.index import Index
    from node.storage.guard import DataDirectory

    directory = DataDirectory.beside(config.node.data_dir, config.source)
    path = database_path(config)
    directory.check_index(path)
    if not path.exists():
        return
    database = Database.open_read_only(path)
    try:
        database.look_through()
        with database.read() as connection:
            index = Index(Clock())
            holds_instances = index.holds_any(connection)
            directory.check_index_knows(holds_instances=holds_instances)
            directory.look(
                index.segments(connection),
                holds_instances=holds_instances,
                holds_settled=index.holds_settled(connection),
            )
    finally:
        database.close()


def _problem_of_making(folder: Path) -> str:
    """Say why ``folder`` cannot be made, by making it; what was made is taken away again."""
    missing = []
    while not os.path.exists(folder):
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for one in reversed(missing):
            one.mkdir()
            made.append(one)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for one in reversed(made):
            with contextlib.suppress(OSError):
                one.rmdir()
    return ""


def _free_space(config: Config) -> Result:
    free_bytes = shutil.disk_usage(_nearest_existing(config.node.data_dir)).free
    reserve_bytes = config.storage.free_space_reserve_bytes
    detail = f"{output.size(free_bytes)} free, {output.size(reserve_bytes)} kept in reserve"
    if free_bytes <= reserve_bytes:
        return Result("disk", "problem", f"{detail}: nothing would be received")
    # the receive log and the settled copy exist side by side for a while
    if free_bytes <= reserve_bytes + 4 * config.storage.segment_bytes:
        return Result("disk", "warning", f"{detail}: nearly full")
    return Result("disk", "ok", detail)


def _port(config: Config, running: bool) -> Result:
    node = config.node
    where = f"{node.host}:{node.port}"
    if not node.port and not (running and running_port(config)):
        return Result("port", "ok", f"{node.host}: any port that is free")
    if running:
        now = running_port(config)
        if node.port not in (0, now):
            told = f"a node runs on {node.data_dir}, on port {now} and not on {node.port}"
            advice = "restart it so that the configured port counts, or configure another data_dir"
            return Result("port", "warning", f"{told}: {advice}")
        where = f"{node.host}:{now}"
        problem = problem_of_running_node(config)
        if problem:
            return Result(
                "port", "warning", f"a node runs on {node.data_dir}, but {where} does not answer: {problem}"
            )
        return Result("port", "ok", f"{where}: the running node answers")
    return _free_port("port", node.host, node.port)


def _free_port(what: str, host: str, port: int) -> Result:
    where = f"{host}:{port}"
    if not port:
        return Result(what, "ok", f"{host}: any port that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return Result(what, "problem", f"{where} cannot be listened on: {error.strerror}")
    return Result(what, "ok", f"{where} is free")


def _tls(config: Config, running: bool) -> Iterator[Result]:
    if config.node.tls is None and not any(peer.tls for peer in config.peers):
        return
    if config.node.tls is not None and config.node.tls.port is not None and not running:
        yield _free_port("tls port", config.node.tls_host, config.node.tls.port)
    from node.wire import tls, validity

    problems = tls.problems(config)
    yield from (Result(_TLS, "problem", problem) for problem in problems)
    if not problems:
        yield Result(_TLS, "ok", "certificate, key and trusted certificates can be used")
    yield from (Result(_TLS, "warning", found) for found in validity.warnings(config, time.time()))
    yield from (Result(_TLS, "warning", found) for found in _own_certificate(config.node.tls or TlsConfig()))


def _own_certificate(config: TlsConfig) -> Iterator[str]:
    """Say for what our certificate is unfit."""
    from node.wire import x509

    if config.certificate is None or config.key is None:
        return
    mine = next(iter(x509.of_file(config.certificate)), None)
    title = f"[node.tls] certificate: {config.certificate}"
    if mine is not None and not mine.is_for_clients:
        yield f"{title} is not for clients (extended key usage): peers that we call may refuse it"
    if mine is not None and not mine.is_for_servers and config.port is not None:
        yield f"{title} is not for servers (extended key usage): peers that call us may refuse it"


def _models(config: Config) -> Iterator[Result]:
    if not config.analyses:
        return
    from node.catalogue import catalogue
    from node.cli import model_faults

    parked = _parked(config)
    for analysis, exposure in model_faults.exposures(config):
        yield Result(f"analysis {analysis.name}", "warning", exposure)
    for analysis, found in model_faults.faults(config):
        what = f"analysis {analysis.name}"
        yield from (Result(what, "problem", fault) for fault in found)
        if analysis.name in parked:
            one = parked[analysis.name]
            said = parking.told(analysis.name, one, config_argument(config))
            yield Result(what, "warning", f"parked since {output.moment(one.since)}: it {said}")
        elif not found:
            card = catalogue.describe(analysis.model).card
            yield Result(what, "ok", f"model {card.name} {card.version}")
        if not analysis.send_to:
            yield Result(what, "warning", "has no send_to: its results stay here")


def _parked(config: Config) -> dict[str, parking.Parked]:
    """The analyses that are parked; none where there are no records yet, or they cannot be read."""
    from node.index.database import Database

    path = database_path(config)
    if not os.path.exists(path):
        return {}
    try:
        database = Database.open_read_only(path)
    except AnodeError:
        return {}
    try:
        with database.read() as connection:
            return parking.parked(connection)
    except AnodeError:
        return {}
    finally:
        database.close()


def _peer(config: Config, peer: PeerConfig, timeout_seconds: float) -> Result:
    result = echo(config, peer, timeout_seconds)
    what = f"peer {peer.ae_title}"
    if result.problem:
        where = f"{peer.host}:{peer.port}"
        told = result.problem if where in result.problem else f"{where}: {result.problem}"
        more = f"; 'anode check --tls {peer.ae_title}' says more" if peer.tls else ""
        return Result(what, "warning", told + more)
    return Result(what, "ok", f"{peer.host}:{peer.port} answers C-ECHO in {result.seconds * 1000:.0f} ms")


def _is_this_node(config: Config, peer: PeerConfig) -> bool:
    """Whether the address of ``peer`` leads to the configured node."""
    node = config.node
    tls_port = node.tls.port if node.tls is not None else None
    if peer.port not in (node.port, tls_port, running_port(config)):
        return False
    try:
        mine = _addresses(node.host)
        theirs = _addresses(peer.host)
    except OSError:
        return False
    if mine & {"0.0.0.0", "::"}:
        return any(_is_of_this_machine(address) for address in theirs)
    return bool(mine & theirs)


def _addresses(host: str) -> set[str]:
    return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}


def _is_of_this_machine(address: str) -> bool:
    """Only an address of this machine can be bound."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except OSError:
        return False
    return True


def _nearest_existing(path: Path) -> Path:
    while not os.path.exists(path):  # False also where a folder above may not be looked into
        path = path.parent
    return path
