"""An established association, whichever side requested it: requests, responses, sub-operations.

One thread owns it. ``post`` and ``abort`` are the only methods that other threads may call.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.config.settings import LimitsConfig
from node.errors import AssociationAborted, NoAcceptedContext, PeerError
from node.status import MISTYPED_ARGUMENT, PROCESSING_FAILURE, UNRECOGNISED_OPERATION, is_pending
from node.wire import data_sets, dimse, pdu
from node.wire.connection import Connection, PeerStalled
from node.wire.contexts import AcceptedContext
from node.wire.dimse import Command
from node.wire.messages import Answer, Handler, Operation, Request, Response
from node.wire.pdu import AbortReason, AbortSource, Violation
from node.wire.stream import Message, MessageStream

__all__ = ["AcceptedContext", "Answer", "Association", "Handler", "Operation", "Request", "Response"]

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)
_MOST_MESSAGE_IDS = 0xFFFF
_MEDIUM_PRIORITY = 0
# a peer may send one request while we wait for its response to ours, but not nest them without end
_DEEPEST_NESTING = 3


class Association:
    """An established association.

    Parameters
    ----------
    connection
        The connection, already through negotiation.
    contexts
        The accepted presentation contexts by id.
    operations
        Who answers the peer's requests, by the name of the operation.
    peer_max_pdu_bytes
        Longest PDU that the peer takes; 0 is no limit.

    Attributes
    ----------
    number
        Counts associations of this process, in both directions, from 1.
    is_requestor
        Whether we requested it.
    performed
        How many requests of each operation were answered.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        is_requestor: bool,
        calling_ae_title: str,
        called_ae_title: str,
        peer_address: str,
        contexts: Mapping[int, AcceptedContext],
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
        peer_max_pdu_bytes: int,
    ) -> None:
        self.number = next(_numbers)
        self.is_requestor = is_requestor
        self.calling_ae_title = calling_ae_title
        self.called_ae_title = called_ae_title
        self.peer_address = peer_address
        self.contexts = contexts
        self.performed: Counter[str] = Counter()
        self._connection = connection
        self._operations = operations
        self._limits = limits
        self._stream = MessageStream(
            connection,
            contexts,
            max_pdu_bytes=limits.max_pdu_bytes,
            peer_max_pdu_bytes=peer_max_pdu_bytes,
        )
        self._message_ids = itertools.cycle(range(1, _MOST_MESSAGE_IDS + 1))
        self._cancelled: set[int] = set()
        self._early: Message | None = None  # read while looking for C-CANCEL-RQ, not yet answered
        self._nesting = 0
        self._was_aborted_here = False
        self._is_over = False

    # --- state -----------------------------------------------------------------

    @property
    def is_established(self) -> bool:
        """Whether messages can still be exchanged."""
        return not self._is_over and not self._was_aborted_here and self._stream.failure is None

    @property
    def failure(self) -> PeerError | None:
        """What ended the association, if it did not end by release."""
        if self._was_aborted_here:
            return AssociationAborted("aborted here")
        return self._stream.failure

    def abort(self) -> None:
        """Send A-ABORT, if that is possible at once, and end the association. Any thread may call it."""
        if not self._is_over and not self._was_aborted_here:
            self._was_aborted_here = True
            self._connection.try_send(pdu.abort(AbortSource.SERVICE_USER))
            self._connection.shutdown()

    def post(self, work: Callable[[Association], None]) -> bool:  # noqa: ARG002
        """Have ``work`` done in the association's thread once it is idle; False when that cannot be.

        Any thread may call it. True is no promise: the association may end before.
        """
        return False

    def context_for(
        self, sop_class_uid: str, transfer_syntax_uids: tuple[str, ...] = ()
    ) -> AcceptedContext | None:
        """Find the accepted context in which *we* can send requests of ``sop_class_uid``.

        The first of ``transfer_syntax_uids`` that was accepted wins; empty stands for any.
        """
        usable = [
            context
            for context in self.contexts.values()
            if context.abstract_syntax_uid == sop_class_uid
            and (context.requestor_is_scu if self.is_requestor else context.requestor_is_scp)
        ]
        if not transfer_syntax_uids:
            return next(iter(usable), None)
        by_syntax = {context.transfer_syntax_uid: context for context in reversed(usable)}
        return next((by_syntax[syntax] for syntax in transfer_syntax_uids if syntax in by_syntax), None)

    # --- our requests ----------------------------------------------------------

    def send_store(
        self,
        context: AcceptedContext,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        data_set: BinaryIO | bytes,
        priority: int = _MEDIUM_PRIORITY,
        move_originator_ae_title: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> Answer:
        """Send a C-STORE-RQ and wait for its response (PS3.7 section 9.1.1).

        ``data_set`` is encoded in the context's transfer syntax, without file meta; it is read
        piece by piece. Inside a handler it is a sub-operation; a C-CANCEL-RQ that comes meanwhile
        is remembered for ``Request.is_cancelled``.

        Raises
        ------
        PeerError
            The association ended; also when the response names another SOP instance.
        AnodeError, OSError
            What reading ``data_set`` raised. The association goes on if nothing had been sent.
        """
        command = Command(
            CommandField=dimse.C_STORE_RQ,
            AffectedSOPClassUID=sop_class_uid,
            AffectedSOPInstanceUID=sop_instance_uid,
            Priority=priority,
            MoveOriginatorApplicationEntityTitle=move_originator_ae_title,
            MoveOriginatorMessageID=move_originator_message_id,
        )
        response = self._exchange(context, command, data_set).command
        answered = str(response.get("AffectedSOPInstanceUID") or sop_instance_uid)
        if answered.rstrip(" \0") != sop_instance_uid:
            raise self._violated("a C-STORE response that names another SOP instance")
        return Answer.of(response)

    def event_report(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        information: Dataset | None = None,
    ) -> Answer:
        """Send an N-EVENT-REPORT-RQ and wait for its response (PS3.7 section 10.1.1).

        Raises
        ------
        NoAcceptedContext
            There is no context for ``sop_class_uid``.
        PeerError
            The association ended.
        """
        # an SCP reports events, so the roles are the other way round than for all other requests
        context = self._context_of(sop_class_uid)
        command = Command(
            CommandField=dimse.N_EVENT_REPORT_RQ,
            AffectedSOPClassUID=sop_class_uid,
            AffectedSOPInstanceUID=sop_instance_uid,
            EventTypeID=event_type_id,
        )
        return Answer.of(self._exchange(context, command, self._encoded(context, information)).command)

    def _context_of(self, abstract_syntax_uid: str) -> AcceptedContext:
        for context in self.contexts.values():
            if context.abstract_syntax_uid == abstract_syntax_uid:
                return context
        raise NoAcceptedContext(f"no presentation context was accepted for {abstract_syntax_uid}")

    @staticmethod
    def _encoded(context: AcceptedContext, data_set: Dataset | bytes | None) -> bytes | None:
        if isinstance(data_set, Dataset):
            data_set = data_sets.encode(data_set, context.transfer_syntax_uid)
        return data_set or None

    def _exchange(
        self, context: AcceptedContext, command: Command, data_set: BinaryIO | bytes | None
    ) -> Message:
        message_id = self._send_request(context, command, data_set)
        response = self._response_to(message_id)
        if response.command.CommandField != command.CommandField | dimse.RESPONSE:
            raise self._violated("a response to another operation")
        self._drain()
        return response

    def _send_request(
        self, context: AcceptedContext, command: Command, data_set: BinaryIO | bytes | None
    ) -> int:
        self._require_established()
        message_id = next(self._message_ids)
        command["MessageID"] = message_id
        command["CommandDataSetType"] = dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET
        self._drain()
        self._look_for_early_responses()
        is_deflated = context.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
        self._stream.send(context.context_id, command, data_set, pads_to_even=is_deflated)
        return message_id

    def _look_for_early_responses(self) -> None:
        """Refuse a response that is there before its request; a request of the peer is kept for later."""
        while self._early is None and not self._stream.has_unread_data_set and self._connection.is_readable():
            message = self._stream.next_message()
            if message is None:
                raise self._released()
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)
            elif message.command.CommandField & dimse.RESPONSE:
                raise self._violated("a response to a message that was not sent")
            else:
                self._early = message

    def _response_to(self, message_id: int) -> Message:
        """Wait for a response; answer what the peer asks in the meantime."""
        while True:
            message = self._next_message()
            if message is None:
                raise self._released()
            command = message.command
            if command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(command)
            elif not command.CommandField & dimse.RESPONSE:
                self._perform(message)
            elif command.get("MessageIDBeingRespondedTo") == message_id and "Status" in command:
                return message
            else:
                raise self._violated("a response to a message that was not sent")

    def _next_message(self) -> Message | None:
        if self._early is not None:
            message, self._early = self._early, None
            return message
        return self._stream.next_message()

    # --- the peer's requests -----------------------------------------------------

    def _perform(self, message: Message) -> None:
        """Let the handler answer one request."""
        command = message.command
        operation = dimse.OPERATIONS.get(command.CommandField)
        if operation is None or "MessageID" not in command:
            raise self._violated(f"command field {command.CommandField:04X} is no request")
        if self._nesting >= _DEEPEST_NESTING:
            raise self._violated("too many requests inside each other")
        request = Request(
            self,
            message,
            operation,
            stream=self._stream,
            identifier_bytes=self._limits.identifier_bytes,
        )
        self._cancelled.discard(request.message_id)
        handler = self._operations.get(operation)
        missing = [
            word for word in dimse.REQUIRED_KEYWORDS.get(command.CommandField, ()) if word not in command
        ]
        self._nesting += 1
        try:
            if handler is None:
                self._respond(request, Response(UNRECOGNISED_OPERATION, f"{operation} is not offered here"))
            elif missing:
                self._respond(request, Response(MISTYPED_ARGUMENT, f"the command set has no {missing[0]}"))
            else:
                self._run(handler, request)
        finally:
            self._nesting -= 1
            self._cancelled.discard(request.message_id)
        self.performed[operation] += 1

    def _run(self, handler: Operation, request: Request) -> None:
        final_status: int | None = None
        responses = handler(request)
        try:
            for response in responses:
                self._raise_failure()
                if final_status is not None:
                    self._complain("handler went on after its final response", request)
                    break
                self._respond(request, response)
                if not is_pending(response.status):
                    final_status = response.status
        finally:
            if isinstance(responses, Generator):
                responses.close()
        self._raise_failure()
        if final_status is None:
            self._complain("handler gave no final response", request)
            self._respond(request, Response(PROCESSING_FAILURE, "no final response"))

    def _complain(self, event: str, request: Request) -> None:
        logger.error(event, extra={"association": self.number, "operation": request.operation})

    def _respond(self, request: Request, response: Response) -> None:
        self._drain()
        asked = request.command
        data_set = self._encoded(request.context, response.identifier)
        is_normalised = request.operation.startswith("N-")
        instance = asked.get("AffectedSOPInstanceUID") or asked.get("RequestedSOPInstanceUID")
        command = Command(
            AffectedSOPClassUID=asked.get("AffectedSOPClassUID") or asked.get("RequestedSOPClassUID"),
            CommandField=asked.CommandField | dimse.RESPONSE,
            MessageIDBeingRespondedTo=request.message_id,
            CommandDataSetType=dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET,
            Status=response.status,
            ErrorComment=dimse.error_comment(response.comment) or None,
            AffectedSOPInstanceUID=instance if is_normalised or request.operation == "C-STORE" else None,
            EventTypeID=asked.get("EventTypeID"),
            ActionTypeID=asked.get("ActionTypeID"),
            NumberOfRemainingSuboperations=response.remaining,
            NumberOfCompletedSuboperations=response.completed,
            NumberOfFailedSuboperations=response.failed,
            NumberOfWarningSuboperations=response.warning,
        )
        command.update(response.elements)
        self._stream.send(request.context.context_id, command, data_set)

    def has_cancelled(self, message_id: int) -> bool:
        """Whether the peer has cancelled its request ``message_id``; looks without waiting."""
        while (
            message_id not in self._cancelled
            and self._early is None
            and self.is_established
            and not self._stream.has_unread_data_set
            and self._connection.is_readable()
        ):
            message = self._stream.next_message()
            if message is None:
                raise self._violated("A-RELEASE-RQ while a request of the peer is being answered")
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)
            else:
                self._early = message
        return message_id in self._cancelled

    def _remember_cancel(self, command: Command) -> None:
        self._drain()
        message_id = command.get("MessageIDBeingRespondedTo")
        if message_id is not None and self._nesting:
            self._cancelled.add(message_id)

    # --- shared ----------------------------------------------------------------

    def _drain(self) -> None:
        """Read over what is left of the current data set, up to the limit for an instance."""
        if not self._stream.has_unread_data_set or self._early is not None:
            return
        left = self._limits.instance_bytes
        for fragment in self._stream.fragments():
            left -= len(fragment)
            if left < 0:
                raise self._violated("the data set is longer than an instance may be")

    def _require_established(self) -> None:
        self._raise_failure()
        if self._is_over:
            raise AssociationAborted("the association is over")

    def _raise_failure(self) -> None:
        failure = self.failure
        if failure is not None:
            raise failure

    def _violated(self, how: str) -> Violation:
        self._stream.failure = violation = Violation(how, AbortReason.UNEXPECTED_PDU_PARAMETER)
        return violation

    def _released(self) -> AssociationAborted:
        self._answer_release()
        self._stream.failure = failure = AssociationAborted("the peer released the association meanwhile")
        return failure

    def _answer_release(self) -> None:
        self._connection.send([pdu.RELEASE_RP])

    def _abort_after(self, error: PeerError) -> None:
        """Send the A-ABORT that ``error`` calls for, and none where the peer is gone (PS3.8 AA-8)."""
        if isinstance(error, Violation):
            self._connection.try_send(pdu.abort(AbortSource.SERVICE_PROVIDER, error.reason))
        elif isinstance(error, PeerStalled):
            self._connection.try_send(pdu.abort(AbortSource.SERVICE_PROVIDER))

    def _log_end(self, event: str, level: int = logging.INFO, **values: Any) -> None:
        logger.log(
            level,
            event,
            extra={
                "association": self.number,
                "calling_ae_title": self.calling_ae_title,
                "called_ae_title": self.called_ae_title,
                "peer_address": self.peer_address,
                "requests": dict(self.performed),
                "received_bytes": self._connection.received_bytes,
                "sent_bytes": self._connection.sent_bytes,
                **values,
            },
        )
