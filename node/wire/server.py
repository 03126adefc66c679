"""The listening side: one thread that accepts connections, one thread for each association."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from node.errors import ConfigurationError, PeerError, PortInUse
from node.refusals import Refusal
from node.wire import descriptors, tls
from node.wire.acceptor import AcceptedAssociation, Negotiator
from node.wire.addresses import host_of
from node.wire.connection import Connection
from node.wire.contexts import (
    LOCAL_LIMIT_EXCEEDED,
    PEERS_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    Admission,
    AssociationRequest,
    Rejection,
)
from node.wire.lifetimes import Lifetimes
from node.wire.messages import Handler
from node.wire.tls import ListenerTls
from node.wire.tls_connection import TlsConnection
from node.wire.tls_faults import TlsFailure
from node.wire.upper_layer import UpperLayer

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

_BACKLOG = 128
# connections that have not asked for an association yet, or have ended one, beside the limit
_MORE_CONNECTIONS = 32
_PAUSE_SECONDS = 0.5
# after the time of grace, for the message that is being received or answered
_LAST_MESSAGE_SECONDS = 1.0


@dataclass(frozen=True)
class _Listener:
    socket: socket.socket
    tls: ListenerTls | None = None

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])


@dataclass(frozen=True)
class Bindings:
    """The handler table: who admits associations and who answers each operation.

    ``operations`` has the keys ``"C-ECHO"``, ``"C-STORE"``, ``"C-FIND"``, ``"C-GET"``, ``"C-MOVE"``,
    ``"N-ACTION"`` and ``"N-EVENT-REPORT"``; what is absent is answered with status 0211.
    """

    admit: Callable[[Services, AssociationRequest], Admission]
    operations: Mapping[str, Handler]


class Server:
    """The Application Entity as the network sees it.

    Parameters
    ----------
    services
        ``config`` and ``peers`` are used here; the whole bundle is handed to the handlers.
    handlers
        The handler table.
    """

    def __init__(self, services: Services, handlers: Bindings) -> None:
        self._services = services
        self._limits = services.config.limits
        self._negotiator = Negotiator(
            admit=partial(handlers.admit, services),
            operations={name: partial(handler, services) for name, handler in handlers.operations.items()},
            limits=self._limits,
            reject_first=self._reject_first,
            reject_crowd=self._reject_crowd,
            refused=services.refusals.refused,
        )
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, Connection] = {}
        self._associations: dict[threading.Thread, AcceptedAssociation] = {}
        self._lifetimes = Lifetimes(
            most_seconds=self._limits.association_seconds,
            grace_seconds=self._limits.network_timeout_seconds,
        )
        # those without an association now, and their hosts
        self._waiting: dict[threading.Thread, str] = {}
        # threads whose association counts for the limit, and for that of whom
        self._places: dict[threading.Thread, tuple[str, ...]] = {}
        self._is_stopping = False
        self._finish_by = 0.0
        self._listeners: list[_Listener] = []
        self._wake_reader: socket.socket | None = None
        self._wake_writer: socket.socket | None = None
        self._accept_thread: threading.Thread | None = None
        self._threads_begun = 0

    @property
    def port(self) -> int:
        """The port that is listened on, also when the configuration says 0."""
        if not self._listeners:
            return self._services.config.node.port
        return self._listeners[0].port

    @property
    def tls_port(self) -> int | None:
        """The port that is listened on for TLS; None where there is none."""
        return next((listener.port for listener in self._listeners if listener.tls is not None), None)

    def start(self) -> None:
        """Listen on the configured addresses, and accept associations from now on.

        Raises
        ------
        PortInUse
            An address cannot be bound. Nothing is left behind.
        ConfigurationError
            Files for TLS cannot be used (all that is wrong with them), or the system does not let us have
            enough file descriptors.
        """
        node = self._services.config.node
        descriptors.ensure(self._limits.associations)
        problems = tls.problems(self._services.config)
        if problems:
            raise ConfigurationError(problems)
        with contextlib.ExitStack() as opened:
            listeners = [_Listener(opened.enter_context(_listen(node.host, node.port, "node")))]
            if node.tls is not None and node.tls.port is not None:
                listener = opened.enter_context(_listen(node.tls_host, node.tls.port, "node.tls"))
                listener_tls = ListenerTls(node.tls)
                listener_tls.context()  # from now on there is one, whatever becomes of the files
                listeners.append(_Listener(listener, listener_tls))
            opened.pop_all()
        self._listeners = listeners
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._is_stopping = False
        self._accept_thread = threading.Thread(target=self._accept, name="accept", daemon=True)
        self._accept_thread.start()
        logger.info("listening", extra={"ae_title": node.ae_title, "host": node.host, "port": self.port})
        if self.tls_port is not None:
            logger.info("listening for TLS", extra={"host": node.tls_host, "port": self.tls_port})

    def begin_stop(self, grace_seconds: float = 10.0) -> None:
        """Accept nothing more, and let associations that are busy go on for at most ``grace_seconds``.

        One from which no message came for a second is released. Does not wait; ``stop`` does.
        """
        if self._accept_thread is None:
            return
        deadline = time.monotonic() + grace_seconds
        with self._lock:
            self._is_stopping = True
            self._finish_by = deadline
        if self._wake_writer is not None:
            self._wake_writer.send(b"!")
        self._accept_thread.join()
        self._accept_thread = None
        self._listeners = []
        with self._lock:
            idle = [c for thread, c in self._connections.items() if thread not in self._associations]
            serving = list(self._associations.values())
        for connection in idle:
            connection.shutdown()
        for association in serving:
            association.finish(deadline)
        logger.info("accepting no more associations", extra={"associations": len(serving)})

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Stop as ``begin_stop`` says, unless that was called before, and wait until all has ended.

        What is still running when the time of grace and that for a last message are over is aborted.
        May be called again, and ``start`` may be called afterwards.
        """
        self.begin_stop(grace_seconds)
        if not self._is_stopping:
            return
        self._join(self._finish_by + _LAST_MESSAGE_SECONDS)
        with self._lock:
            late = list(self._associations.values())
            connections = list(self._connections.values())
        for association in late:
            association.abort()
        for connection in connections:
            connection.shutdown()
        self._join(time.monotonic() + max(grace_seconds, 1.0))
        logger.info("stopped listening", extra={"aborted_associations": len(late)})

    def _join(self, deadline: float) -> None:
        with self._lock:
            threads = list(self._connections)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    @property
    def association_count(self) -> int:
        """How many associations are established now."""
        with self._lock:
            return len(self._associations)

    # --- accept thread -----------------------------------------------------------

    def _accept(self) -> None:
        wake = self._wake_reader
        assert wake is not None
        by_number = {listener.socket.fileno(): listener for listener in self._listeners}
        told_to_stop = select.poll()
        told_to_stop.register(wake, select.POLLIN)
        either = select.poll()
        for number in (wake.fileno(), *by_number):
            either.register(number, select.POLLIN)
        try:
            while True:  # until it is told to: ``stop`` writes to a socket that is closed here
                ready = either.poll(self._end_overdue())
                if told_to_stop.poll(0):
                    break
                for number, _ in ready:
                    if not self._accept_from(by_number[number]):
                        told_to_stop.poll(_PAUSE_SECONDS * 1000)
        finally:
            for listener in by_number.values():
                listener.socket.close()
            wake.close()
            if self._wake_writer is not None:
                self._wake_writer.close()

    def _end_overdue(self) -> float | None:
        """End associations that have lasted too long; return the milliseconds until there is more to do."""
        overdue = self._lifetimes.overdue()
        with self._lock:
            late = [self._associations.get(thread) for thread in overdue.to_finish]
            too_late = [self._associations.get(thread) for thread in overdue.to_abort]
        for association in filter(None, late):
            association.finish(
                time.monotonic(), f"it lasted {self._limits.association_seconds:g} s, the limit of one"
            )
        for association in filter(None, too_late):
            association.abort()
        return None if overdue.wait_seconds is None else math.ceil(overdue.wait_seconds * 1000)

    def _accept_from(self, listener: _Listener) -> bool:
        """Begin one connection; False when none can be taken for the moment."""
        try:
            accepted, address = listener.socket.accept()
        except OSError as error:
            if error.errno in (errno.ECONNABORTED, errno.EAGAIN):
                return True
            # out of descriptors: give others time to end
            logger.error("cannot accept a connection", extra={"reason": error.strerror})
            return False
        self._begin(accepted, str(address[0]), listener.tls)
        return True

    def _begin(self, accepted: socket.socket, peer_address: str, listener_tls: ListenerTls | None) -> None:
        peer_address = _plain(peer_address)
        refusal = self._crowded(peer_address)
        if refusal:
            accepted.close()
            self._refuse(refusal, "raise [limits] associations", peer_address)
            return
        try:
            connection = self._connection(accepted, listener_tls)
        except OSError as error:  # it was reset meanwhile, or no descriptors are left
            accepted.close()
            self._refuse("connection lost", "", peer_address, error.strerror or str(error))
            return
        thread = threading.Thread(target=self._run, args=(connection, peer_address), daemon=True)
        with self._lock:
            self._threads_begun += 1
            thread.name = f"connection-{self._threads_begun}"
            self._connections[thread] = connection
            self._waiting[thread] = host_of(peer_address)
        self._lifetimes.begin(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: others have to end first
            self._lifetimes.end(thread)
            with self._lock:
                del self._connections[thread], self._waiting[thread]
            connection.close()
            logger.error("connection refused", extra={"peer_address": peer_address, "reason": str(error)})

    def _crowded(self, peer_address: str) -> str:
        """Say why no connection from ``peer_address`` can be taken now; empty where one can.

        Those without an association cost nobody anything, so one address has half of what there may be
        at most, and leaves room for others.
        """
        most = self._limits.associations + _MORE_CONNECTIONS
        caller = host_of(peer_address)
        with self._lock:
            if len(self._connections) >= most:
                return "too many connections"
            if sum(host == caller for host in self._waiting.values()) >= most // 2:
                return "too many connections of one address without an association"
        return ""

    def _connection(self, accepted: socket.socket, listener_tls: ListenerTls | None) -> Connection:
        seconds = self._limits.artim_timeout_seconds
        if listener_tls is None:
            return Connection(accepted, timeout_seconds=seconds, is_wakeable=True)
        return TlsConnection(accepted, listener_tls.context(), timeout_seconds=seconds, is_wakeable=True)

    # --- association thread --------------------------------------------------------

    def _run(self, connection: Connection, peer_address: str) -> None:
        thread = threading.current_thread()
        artim_seconds = self._limits.artim_timeout_seconds
        upper_layer = UpperLayer(connection, is_requestor=False, artim_seconds=artim_seconds)
        try:
            with contextlib.ExitStack() as slot:
                slot.callback(self._leave, thread, peer_address)
                connection.establish(time.monotonic() + artim_seconds)
                association = self._negotiator.accept(upper_layer, peer_address)
                if association is not None:
                    thread.name = f"association-{association.number}"
                    self._enter(thread, association)
                    association.serve()
            upper_layer.await_close()
        except TlsFailure as error:
            self._refuse(str(error), error.action, peer_address)
        except PeerError as error:
            self._refuse("no association came about", "", peer_address, str(error))
        finally:
            connection.close()
            self._lifetimes.end(thread)
            with self._lock:
                del self._connections[thread]
                self._waiting.pop(thread, None)

    def _refuse(self, reason: str, action: str, peer_address: str, detail: str = "") -> None:
        self._services.refusals.refused(
            Refusal("connection", reason, action, detail, peer_address=peer_address)
        )

    def _reject_first(self) -> Rejection | None:
        """Take a place for the association that is being negotiated in this thread, if there is one."""
        with self._lock:
            if self._is_stopping:
                return TEMPORARY_CONGESTION
            if len(self._places) >= self._limits.associations:
                return LOCAL_LIMIT_EXCEEDED
            self._places[threading.current_thread()] = ()
            self._waiting.pop(threading.current_thread(), None)
        return None

    def _reject_crowd(self, admission: Admission) -> Rejection | None:
        """Let the place of this thread count for whoever was admitted, if they may have another one."""
        if not admission.places:
            return None
        with self._lock:
            if (
                sum(admission.places[0] in places for places in self._places.values())
                >= admission.most_associations
            ):
                return PEERS_LIMIT_EXCEEDED
            self._places[threading.current_thread()] = admission.places
        return None

    def _enter(self, thread: threading.Thread, association: AcceptedAssociation) -> None:
        with self._lock:
            self._associations[thread] = association
            finish_by = self._finish_by if self._is_stopping else None
        self._services.peers.register(association)
        if finish_by is not None:
            association.finish(finish_by)

    def _leave(self, thread: threading.Thread, peer_address: str) -> None:
        with self._lock:
            association = self._associations.pop(thread, None)
            self._places.pop(thread, None)
            # Until the peer has closed it, the connection takes the room of others again.
            self._waiting[thread] = host_of(peer_address)
        if association is not None:
            self._services.peers.unregister(association)


def _listen(host: str, port: int, table: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # create_server sets SO_REUSEADDR, so that a restart need not wait for TIME_WAIT
        listener = socket.create_server(
            address[:2],
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6(),
        )
    except (OSError, OverflowError) as error:
        raise _port_in_use(host, port, table, error) from error
    # a peer may vanish between poll and accept
    listener.setblocking(False)
    return listener


def _port_in_use(host: str, port: int, table: str, error: OSError | OverflowError) -> PortInUse:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return PortInUse(
            f"{host}:{port} is in use by another program",
            action=f"stop the other program, or set another [{table}] port",
        )
    if number == errno.EACCES:
        return PortInUse(
            f"{host}:{port} may not be bound by this user",
            action=f"set a [{table}] port above 1023, or give the program the right to bind low ports",
        )
    return PortInUse(
        f"{host}:{port} cannot be bound: {getattr(error, 'strerror', None) or error}",
        action=f"set [{table}] host to an address of this machine, and a port from 0 to 65535",
    )


def _plain(address: str) -> str:
    """Give an IPv4 address that came in through an IPv6 socket as IPv4, and drop a zone."""
    address = address.partition("%")[0]
    return address.removeprefix("::ffff:") if "." in address else address
