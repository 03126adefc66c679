"""Associations that we request: connect, ask, release."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset

from node.config import LimitsConfig
from node.errors import (
    AssociationAborted,
    AssociationRejected,
    NoAcceptedContext,
    PeerError,
    PeerUnreachable,
)
from node.status import is_pending
from node.wire import data_sets, dimse, negotiation, pdu
from node.wire.association import Answer, Association, Operation, Request, Response
from node.wire.connection import Connection
from node.wire.dimse import Command
from node.wire.negotiation import Acceptance, AcceptedContext, ProposedContext
from node.wire.pdu import Violation
from node.wire.sop_classes import VERIFICATION
from node.wire.stream import Message

__all__ = ["AcceptedContext", "ProposedContext", "RequestHandler", "RequestedAssociation", "connect"]

logger = logging.getLogger(__name__)

RequestHandler = Callable[[Request], Iterator[Response]]

_LONGEST_ANSWER_BYTES = 1024**2
_MEDIUM_PRIORITY = 0


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


class RequestedAssociation(Association):
    """An association that we requested.

    A context manager: left in peace it is released, left by an exception it is aborted.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        peer_address: str,
        contexts: Mapping[int, AcceptedContext],
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
        peer_max_pdu_bytes: int,
    ) -> None:
        super().__init__(
            connection,
            is_requestor=True,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            peer_address=peer_address,
            contexts=contexts,
            operations=operations,
            limits=limits,
            peer_max_pdu_bytes=peer_max_pdu_bytes,
        )

    def __enter__(self) -> RequestedAssociation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        else:
            self._end_badly(error if isinstance(error, PeerError) else None)

    def release(self) -> None:
        """Release the association and close the connection; a peer that is gone already is no error."""
        if self._is_over:
            return
        if not self.is_established:
            self._end_badly(self.failure)
            return
        try:
            self._drain()
            self._connection.send([pdu.RELEASE_RQ])
            self._await_release()
        except PeerError as error:
            self._end_badly(error)
            return
        self._close("association released", logging.INFO)

    def _await_release(self) -> None:
        header = memoryview(bytearray(pdu.PDU_HEADER_BYTES))
        scratch = memoryview(bytearray(65536))
        deadline = time.monotonic() + self._limits.network_timeout_seconds
        while True:
            self._connection.receive_before(header, deadline)
            pdu_type, length = pdu.PDU_HEADER.unpack(header)
            while length:
                part = scratch[: min(length, len(scratch))]
                self._connection.receive_before(part, deadline)
                length -= len(part)
            if pdu_type == pdu.A_RELEASE_RP:
                return
            if pdu_type == pdu.A_ABORT:
                raise AssociationAborted("the peer aborted instead of releasing")
            if pdu_type == pdu.A_RELEASE_RQ:
                self._answer_release()  # a collision: the requestor answers first (PS3.8 table 9-7 AR-9)
            elif pdu_type != pdu.P_DATA_TF:
                raise pdu.explain_unexpected(pdu_type, "while releasing")

    def abort(self) -> None:
        """Send A-ABORT and end the association. Another thread may call it; the owner then closes."""
        super().abort()

    def close(self) -> None:
        """End the association at once: A-ABORT if it is established, then close."""
        self._end_badly(None)

    def _end_badly(self, error: PeerError | None) -> None:
        if self._is_over:
            return
        if error is not None and self._stream.failure is None:
            self._stream.failure = error
        if error is not None:
            self._abort_after(error)
        if self._stream.failure is None:
            self._connection.try_send(pdu.abort(pdu.AbortSource.SERVICE_USER))
        self._close("association aborted", logging.WARNING, reason=str(error or "by us"))

    def _close(self, event: str, level: int, **values: Any) -> None:
        self._is_over = True
        self._connection.close()
        self._log_end(event, level, **values)

    # --- requests ----------------------------------------------------------------

    def echo(self) -> Answer:
        """Send a C-ECHO-RQ (PS3.7 section 9.1.5); errors as ``send_store``, and NoAcceptedContext."""
        context = self._context_of(VERIFICATION)
        command = Command(CommandField=dimse.C_ECHO_RQ, AffectedSOPClassUID=VERIFICATION)
        response = self._exchange(context, command, None).command
        return Answer(int(response.Status), str(response.get("ErrorComment") or ""))

    def find(self, model_uid: str, identifier: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        """Send a C-FIND-RQ and yield ``(status, identifier)``, last the final status with None.

        Leaving the iteration early cancels the query (PS3.7 section 9.3.2.3).
        """
        command = Command(
            CommandField=dimse.C_FIND_RQ, AffectedSOPClassUID=model_uid, Priority=_MEDIUM_PRIORITY
        )
        for response in self._responses(model_uid, command, identifier):
            found = response.identifier
            yield response.status, found if isinstance(found, Dataset) else None

    def move(
        self, model_uid: str, identifier: Dataset, destination_ae_title: str
    ) -> Iterator[tuple[int, Response]]:
        """Send a C-MOVE-RQ and yield ``(status, response)`` with the numbers of sub-operations."""
        command = Command(
            CommandField=dimse.C_MOVE_RQ,
            AffectedSOPClassUID=model_uid,
            MoveDestination=destination_ae_title,
            Priority=_MEDIUM_PRIORITY,
        )
        for response in self._responses(model_uid, command, identifier):
            yield response.status, response

    def get(self, model_uid: str, identifier: Dataset) -> Iterator[tuple[int, Response]]:
        """Send a C-GET-RQ and yield ``(status, response)``.

        The sub-operations go to the C-STORE handler that ``connect`` was given.
        """
        command = Command(
            CommandField=dimse.C_GET_RQ, AffectedSOPClassUID=model_uid, Priority=_MEDIUM_PRIORITY
        )
        for response in self._responses(model_uid, command, identifier):
            yield response.status, response

    def action(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        information: Dataset | None = None,
    ) -> Answer:
        """Send an N-ACTION-RQ and wait for its response (PS3.7 section 10.1.4)."""
        context = self._context_of(sop_class_uid)
        command = Command(
            CommandField=dimse.N_ACTION_RQ,
            RequestedSOPClassUID=sop_class_uid,
            RequestedSOPInstanceUID=sop_instance_uid,
            ActionTypeID=action_type_id,
        )
        response = self._exchange(context, command, self._encoded(context, information)).command
        return Answer(int(response.Status), str(response.get("ErrorComment") or ""))

    def serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Answer the peer's requests for at most ``seconds``, or until ``until()`` is true; return that.

        For an N-EVENT-REPORT that comes on the association of the N-ACTION.
        """
        deadline = time.monotonic() + seconds
        while not until():
            self._require_established()
            if self._early is None and not self._connection.is_readable(deadline - time.monotonic()):
                return False
            message = self._next_message()
            if message is None:
                self._answer_release()
                self._stream.failure = AssociationAborted("the peer released the association")
                raise self._stream.failure
            if message.command.CommandField != dimse.C_CANCEL_RQ:
                self._perform(message)
        return True

    def _responses(self, model_uid: str, command: Command, identifier: Dataset) -> Iterator[Response]:
        context = self.context_for(model_uid)
        if context is None:
            raise NoAcceptedContext(f"no presentation context was accepted for {model_uid}")
        message_id = self._send_request(context, command, self._encoded(context, identifier))
        is_final = False
        try:
            while not is_final:
                response = self._decoded(self._response_to(message_id))
                is_final = not is_pending(response.status)
                yield response
        finally:
            if not is_final and self.is_established:
                self._cancel(context, message_id)

    def _cancel(self, context: AcceptedContext, message_id: int) -> None:
        """Send C-CANCEL-RQ and read on to the final response, which the peer still owes."""
        command = Command(
            CommandField=dimse.C_CANCEL_RQ,
            MessageIDBeingRespondedTo=message_id,
            CommandDataSetType=dimse.NO_DATA_SET,
        )
        with contextlib.suppress(PeerError):  # the next request will say so
            self._stream.send(context.context_id, command)
            while is_pending(int(self._response_to(message_id).command.Status)):
                self._drain()
            self._drain()

    def _decoded(self, message: Message) -> Response:
        command = message.command
        identifier = None
        if command.has_data_set:
            limit_bytes = self._limits.identifier_bytes
            encoded = bytearray()
            for fragment in self._stream.fragments():
                encoded += fragment
                if len(encoded) > limit_bytes:
                    raise self._violated(f"a response's identifier is longer than {limit_bytes} bytes")
            identifier = data_sets.decode(
                bytes(encoded), message.context.transfer_syntax_uid, limit_bytes=limit_bytes
            )
        named = {
            "status": command.Status,
            "comment": command.get("ErrorComment") or "",
            "identifier": identifier,
            "remaining": command.get("NumberOfRemainingSuboperations"),
            "completed": command.get("NumberOfCompletedSuboperations"),
            "failed": command.get("NumberOfFailedSuboperations"),
            "warning": command.get("NumberOfWarningSuboperations"),
        }
        return replace(Response(0), **named)
