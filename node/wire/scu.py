"""Associations that we request: connect, ask, release."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence

from node.config.settings import LimitsConfig
from node.errors import ConfigurationError, PeerError, PeerUnreachable
from node.wire import negotiation
from node.wire.connection import Connection
from node.wire.contexts import AcceptedContext, ProposedContext
from node.wire.messages import Operation
from node.wire.requestor import RequestedAssociation, request_association
from node.wire.tls import ClientTls
from node.wire.tls_connection import TlsConnection
from node.wire.tls_faults import OTHER, TlsFailure
from node.wire.upper_layer import UpperLayer

__all__ = ["AcceptedContext", "ProposedContext", "RequestHandler", "RequestedAssociation", "connect"]

logger = logging.getLogger(__name__)

RequestHandler = Operation


def connect(
    host: str,
    port: int,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    contexts: Sequence[ProposedContext],
    timeout_seconds: float,
    max_pdu_bytes: int,
    handlers: Mapping[str, RequestHandler] | None = None,
    tls: ClientTls | None = None,
) -> RequestedAssociation:
    """Request an association (PS3.8 section 7.1).

    Parameters
    ----------
    contexts
        1 to 128 presentation contexts. Those that the peer accepts are in ``contexts`` of the
        result, which may be empty.
    timeout_seconds
        For the connection, for the answer, and later for each silence of the peer.
    max_pdu_bytes
        Longest PDU that we take.
    handlers
        Who answers the peer's requests while we wait for its response to ours: C-STORE for the
        sub-operations of our C-GET, N-EVENT-REPORT for storage commitment. Others get status 0211.
    tls
        How to call over TLS; None is plain.

    Raises
    ------
    PeerUnreachable
        No connection, or no answer in time; TlsFailure where TLS is the reason.
    AssociationRejected
        The peer answered with A-ASSOCIATE-RJ.
    AssociationAborted, ProtocolViolation
        The peer answered with A-ABORT or with what is no answer.
    ValueError
        For no context or too many, or for what cannot be encoded.
    """
    limits = LimitsConfig(max_pdu_bytes=max_pdu_bytes, network_timeout_seconds=timeout_seconds)
    request = negotiation.encode_request(
        calling_ae_title, called_ae_title, contexts, max_pdu_bytes=max_pdu_bytes
    )
    where = f"{called_ae_title} at {host}:{port}"
    try:
        connected = socket.create_connection((host, port), timeout_seconds)
    except (OSError, OverflowError) as error:
        what = "no answer in time" if isinstance(error, TimeoutError) else _strerror(error)
        raise PeerUnreachable(f"no connection to {where}: {what}") from error
    connection: Connection | None = None
    try:
        peer_address = str(connected.getpeername()[0])
        connection = _secured(connected, host, tls, where, timeout_seconds)
        upper_layer = UpperLayer(connection, is_requestor=True, artim_seconds=timeout_seconds)
        acceptance = request_association(
            upper_layer, request, contexts, where=where, timeout_seconds=timeout_seconds
        )
    except (OSError, PeerError) as error:
        (connection or connected).close()  # over TLS not without a word, where there is a connection already
        if isinstance(error, PeerError):
            raise
        raise PeerUnreachable(f"no connection to {where}: {_strerror(error)}") from error
    association = RequestedAssociation(
        upper_layer,
        is_requestor=True,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        peer_address=peer_address,
        contexts=acceptance.contexts,
        operations=dict(handlers or {}),
        limits=limits,
        peer_max_pdu_bytes=acceptance.max_pdu_bytes,
    )
    logger.info(
        "association requested",
        extra={
            "association": association.number,
            "called_ae_title": called_ae_title,
            "peer_address": association.peer_address,
            "proposed_contexts": len(contexts),
            "accepted_contexts": len(association.contexts),
        },
    )
    return association


def _secured(
    connected: socket.socket, host: str, tls: ClientTls | None, where: str, timeout_seconds: float
) -> Connection:
    if tls is None:
        return Connection(connected, timeout_seconds=timeout_seconds)
    try:
        connection = TlsConnection(connected, tls.context(), timeout_seconds=timeout_seconds, host_name=host)
        connection.establish(time.monotonic() + timeout_seconds)
    except (ConfigurationError, PeerError) as error:
        fault = error.fault if isinstance(error, TlsFailure) else OTHER
        raise TlsFailure(f"no TLS connection to {where}: {error}", fault=fault) from error
    return connection


def _strerror(error: OSError | OverflowError) -> str:
    return str(getattr(error, "strerror", None) or error)
