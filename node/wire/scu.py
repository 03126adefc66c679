"""Associations that we request: connect, ask, release."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence

from node.config.settings import LimitsConfig
from node.errors import AssociationAborted, AssociationRejected, PeerError, PeerUnreachable
from node.wire import negotiation, pdu
from node.wire.connection import Connection
from node.wire.contexts import AcceptedContext, ProposedContext
from node.wire.messages import Operation
from node.wire.negotiation import Acceptance
from node.wire.pdu import Violation
from node.wire.requestor import RequestedAssociation

__all__ = ["AcceptedContext", "ProposedContext", "RequestHandler", "RequestedAssociation", "connect"]

logger = logging.getLogger(__name__)

RequestHandler = Operation

_LONGEST_ANSWER_BYTES = 1024**2


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

    Raises
    ------
    PeerUnreachable
        No connection, or no answer in time.
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
    try:
        peer_address = str(connected.getpeername()[0])
        connection = Connection(connected, timeout_seconds=timeout_seconds)
        acceptance = _negotiate(connection, request, contexts, where, timeout_seconds)
    except OSError as error:
        connected.close()
        raise PeerUnreachable(f"no connection to {where}: {_strerror(error)}") from error
    except PeerError:
        connected.close()
        raise
    association = RequestedAssociation(
        connection,
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


def _strerror(error: OSError | OverflowError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _negotiate(
    connection: Connection,
    request: bytes,
    contexts: Sequence[ProposedContext],
    where: str,
    timeout_seconds: float,
) -> Acceptance:
    deadline = time.monotonic() + timeout_seconds
    try:
        connection.send([request])
        header = bytearray(pdu.PDU_HEADER_BYTES)
        connection.receive_before(memoryview(header), deadline)
        pdu_type, length = pdu.PDU_HEADER.unpack(header)
        if pdu_type not in (pdu.A_ASSOCIATE_AC, pdu.A_ASSOCIATE_RJ, pdu.A_ABORT):
            raise pdu.explain_unexpected(pdu_type, "as an answer to A-ASSOCIATE-RQ")
        if length > _LONGEST_ANSWER_BYTES:
            raise Violation(f"an answer of {length} bytes", pdu.AbortReason.INVALID_PDU_PARAMETER_VALUE)
        body = bytearray(length)
        connection.receive_before(memoryview(body), deadline)
        answer = bytes(header + body)
        if pdu_type == pdu.A_ABORT:
            raise AssociationAborted(f"{where}: {pdu.describe_abort(bytes(body))}")
        if pdu_type == pdu.A_ASSOCIATE_AC:
            return negotiation.decode_acceptance(answer, contexts)
        rejection = negotiation.decode_rejection(answer)
    except Violation as violation:
        connection.try_send(pdu.abort(pdu.AbortSource.SERVICE_PROVIDER, violation.reason))
        raise
    kind = "transient" if rejection.is_transient else "permanent"
    raise AssociationRejected(
        f"{where} rejected the association ({kind}): {rejection.explanation}",
        transient=rejection.is_transient,
    )
