"""A Server with small handlers and the smallest Services that the wire needs."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from pydicom.dataset import Dataset

from handlers.association import admit
from handlers.boundary import guarded
from handlers.c_echo import c_echo
from node import status
from node.audit.trail import AuditTrail
from node.clock import Clock
from node.config.settings import Config, LimitsConfig, NodeConfig, PeerConfig
from node.refusals import Refusals
from node.wire.association import Handler, Request, Response
from node.wire.contexts import Admission, AssociationRequest
from node.wire.peers import Peers
from node.wire.server import Bindings, Server


@dataclass
class ToyNode:
    """The running server and what its handlers saw."""

    server: Server
    services: Any
    stored: list[SimpleNamespace] = field(default_factory=list)
    requests: list[SimpleNamespace] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        return self.server.port


def limits(**changes: Any) -> LimitsConfig:
    return replace(LimitsConfig(network_timeout_seconds=10.0, artim_timeout_seconds=10.0), **changes)


@contextmanager
def toy_node(
    *,
    node: Mapping[str, Any] | None = None,
    peers: tuple[PeerConfig, ...] = (),
    handlers: Mapping[str, Handler] | None = None,
    admit: Callable[[Any, AssociationRequest], Admission] = admit,
    port: int = 0,
    **limit_changes: Any,
) -> Iterator[ToyNode]:
    """A node on a free port that keeps digests of what it is sent and finds two studies."""
    config = Config(node=NodeConfig(port=port, **(node or {})), limits=limits(**limit_changes), peers=peers)
    services: Any = SimpleNamespace(
        config=config, peers=Peers(config), refusals=Refusals(Clock()), audit=AuditTrail.off()
    )
    toys: dict[str, Handler] = {"C-ECHO": c_echo, "C-STORE": _store, "C-FIND": _find, **(handlers or {})}
    bindings = Bindings(
        admit=admit, operations={name: guarded(name, handler) for name, handler in toys.items()}
    )
    server = Server(services, bindings)
    services.toy = ToyNode(server, services)
    server.start()
    try:
        yield services.toy
    finally:
        server.stop(5.0)


def _store(services: Any, request: Request) -> Iterator[Response]:
    digest = hashlib.sha256()
    length = pieces = longest = 0
    for fragment in itertools.chain.from_iterable(request.fragments()):
        digest.update(fragment)
        length += len(fragment)
        pieces += 1
        longest = max(longest, len(fragment))
    with services.toy.lock:
        services.toy.stored.append(
            SimpleNamespace(
                sop_instance_uid=request.command.AffectedSOPInstanceUID,
                transfer_syntax_uid=request.context.transfer_syntax_uid,
                sha256=digest.hexdigest(),
                length=length,
                pieces=pieces,
                longest=longest,
                calling_ae_title=request.association.calling_ae_title,
            )
        )
    yield Response(status.SUCCESS)


def _find(services: Any, request: Request) -> Iterator[Response]:
    asked = request.identifier()
    for number in (1, 2):
        found = Dataset()
        found.QueryRetrieveLevel = asked.QueryRetrieveLevel
        found.StudyInstanceUID = f"1.2.3.{number}"
        yield Response(status.PENDING, identifier=found)
    yield Response(status.SUCCESS)
