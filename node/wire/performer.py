"""The performing side of an association: the peer's requests, and what handlers answer (PS3.7 7.5)."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, cast

from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import AssociationAborted, PeerError
from node.status import (
    MISTYPED_ARGUMENT,
    NO_SUCH_SOP_CLASS,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNISED_OPERATION,
    is_pending,
)
from node.wire import data_sets, dimse
from node.wire.contexts import AcceptedContext
from node.wire.dimse import Command
from node.wire.messages import Operation, Request, Response
from node.wire.pdu import AbortReason, Violation
from node.wire.sop_classes import has_operation
from node.wire.states import State
from node.wire.stream import Message, MessageStream
from node.wire.upper_layer import UpperLayer

if TYPE_CHECKING:
    from node.wire.association import Association

logger = logging.getLogger(__name__)

_MOST_COUNTED = 0xFFFF

_numbers = itertools.count(1)
_MOST_MESSAGE_IDS = 0xFFFF
# a peer may send one request while we wait for its response to ours, but not nest them without end
_DEEPEST_NESTING = 3


class Performer:
    """An association as far as it answers; ``Association`` adds our own requests.

    Parameters
    ----------
    upper_layer
        The association's state and connection.
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
        upper_layer: UpperLayer,
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
        self._upper_layer = upper_layer
        self._connection = upper_layer.connection
        self._operations = operations
        self._limits = limits
        self._stream = MessageStream(
            upper_layer,
            contexts,
            max_pdu_bytes=limits.max_pdu_bytes,
            peer_max_pdu_bytes=peer_max_pdu_bytes,
        )
        self._message_ids = itertools.cycle(range(1, _MOST_MESSAGE_IDS + 1))  # of our own requests
        self._cancelled: set[int] = set()
        self._early: Message | None = None  # read while looking for C-CANCEL-RQ, not yet answered
        self._nesting = 0
        self._was_aborted_here = False
        self._is_over = False

    # --- state -----------------------------------------------------------------

    @property
    def is_established(self) -> bool:
        """Whether messages can still be sent.

        Responses alone, once the peer has requested release (PS3.8 Sta8).
        """
        return not self._is_over and self.failure is None and self._upper_layer.may_send_data

    @property
    def failure(self) -> PeerError | None:
        """What ended the association, if it did not end by release."""
        if self._was_aborted_here:
            return AssociationAborted("aborted here")
        return self._stream.failure

    def _raise_failure(self) -> None:
        failure = self.failure
        if failure is not None:
            raise failure

    def _violated(self, how: str) -> Violation:
        violation = Violation(how, AbortReason.UNEXPECTED_PDU_PARAMETER)
        self._stream.fail(violation)
        return violation

    # --- the peer's requests -----------------------------------------------------

    def _next_message(self) -> Message | None:
        if self._early is not None:
            message, self._early = self._early, None
            return message
        return self._stream.next_message()

    def _perform(self, message: Message) -> None:
        """Let the handler answer one request."""
        command = message.command
        command_field = command["CommandField"]
        operation = dimse.OPERATIONS.get(command_field)
        message_id = command.get("MessageID")
        if operation is None or message_id is None:
            raise self._violated(f"command field {command_field:04X} is no request")
        if self._nesting >= _DEEPEST_NESTING:
            raise self._violated("too many requests inside each other")
        request = Request(
            cast("Association", self),
            message,
            operation,
            stream=self._stream,
            identifier_bytes=self._limits.identifier_bytes,
        )
        self._cancelled.discard(message_id)
        self._nesting += 1
        try:
            refusal = self._refusal(operation, message)
            if refusal is not None:
                self._note_refusal(request, refusal)
                self._respond(request, refusal)
            else:
                self._run(self._operations[operation], request)
        finally:
            self._nesting -= 1
            self._cancelled.discard(message_id)
        self.performed[operation] += 1

    def _note_refusal(self, request: Request, refusal: Response) -> None:
        """Called before a request is refused that no handler sees."""

    def _refusal(self, operation: str, message: Message) -> Response | None:
        """Refuse what no handler need see (PS3.7 sections 9.1, 10.1 and annex C.5)."""
        if operation not in self._operations:
            return Response(UNRECOGNISED_OPERATION, f"{operation} is not offered here")
        for word in dimse.REQUIRED_KEYWORDS.get(message.command["CommandField"], ()):
            if word not in message.command:
                return Response(MISTYPED_ARGUMENT, f"the command set has no {word}")
        why = self._misfit(operation, message)
        if why is None:
            return None
        return Response(NO_SUCH_SOP_CLASS if operation.startswith("N-") else SOP_CLASS_NOT_SUPPORTED, why)

    def _misfit(self, operation: str, message: Message) -> str | None:
        """Say why a request does not belong to its presentation context; None where it does."""
        context, command = message.context, message.command
        if not has_operation(context.abstract_syntax_uid, operation):
            return f"{operation} is no service of its presentation context"
        sop_class_uid = command.get("AffectedSOPClassUID") or command.get("RequestedSOPClassUID")
        if operation != "C-ECHO" and sop_class_uid != context.abstract_syntax_uid:
            return "the SOP class is not that of the presentation context"
        # An SCP reports events. Many never say that they are one, so nobody's role is held against a report.
        is_scu = context.requestor_is_scp if self.is_requestor else context.requestor_is_scu
        if not is_scu and operation != "N-EVENT-REPORT":
            return "the role of SCU was not negotiated for the SOP class"
        return None

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
        if self._stream.has_unread_data_set:
            self._drain()
        if not self._upper_layer.may_send_data:
            # PS3.8 Sta7: what comes while we release is delivered, but nothing can be sent any more
            logger.debug("response not sent", extra={"association": self.number})
            return
        data_set = self._encoded(request.context, response.identifier)
        command = _command_of(request, response, has_data_set=data_set is not None)
        self._stream.send(request.context.context_id, command, data_set)

    @staticmethod
    def _encoded(context: AcceptedContext, data_set: Dataset | bytes | None) -> bytes | None:
        if isinstance(data_set, Dataset):
            data_set = data_sets.encode(data_set, context.transfer_syntax_uid)
        return data_set or None

    def has_cancelled(self, message_id: int) -> bool:
        """Whether the peer has cancelled its request ``message_id``; looks without waiting.

        An A-RELEASE-RQ cancels nothing: the request is answered to its end, then the release (PS3.8
        section 9.2.3, Sta8).
        """
        while (
            message_id not in self._cancelled
            and self._early is None
            and self.is_established
            and not self._stream.has_unread_data_set
            and self._stream.has_pdu()
        ):
            message = self._stream.next_message()
            if message is None:
                continue
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

    def _drain(self) -> None:
        """Read over what is left of the current data set, up to the limit for an instance."""
        if not self._stream.has_unread_data_set or self._early is not None:
            return
        left = self._limits.instance_bytes
        for fragment in itertools.chain.from_iterable(self._stream.fragments()):
            left -= len(fragment)
            if left < 0:
                raise self._violated("the data set is longer than an instance may be")

    @property
    def _is_releasing(self) -> bool:
        """Whether the peer has requested release, which has not been responded to."""
        return self._upper_layer.state is State.STA8


def _command_of(request: Request, response: Response, *, has_data_set: bool) -> Command:
    """Word the command set of a response (PS3.7 sections 9.3 and 10.3)."""
    asked = request.command
    sop_class_uid = asked.get("AffectedSOPClassUID") or asked.get("RequestedSOPClassUID")
    command = Command(
        AffectedSOPClassUID=sop_class_uid,
        CommandField=asked["CommandField"] | dimse.RESPONSE,
        MessageIDBeingRespondedTo=request.message_id,
        CommandDataSetType=dimse.WITH_DATA_SET if has_data_set else dimse.NO_DATA_SET,
        Status=response.status,
    )
    if response.comment:
        command["ErrorComment"] = dimse.error_comment(response.comment) or None
    operation = request.operation
    if operation == "C-STORE":
        command["AffectedSOPInstanceUID"] = asked.get("AffectedSOPInstanceUID")
    elif operation in ("C-GET", "C-MOVE"):
        command["NumberOfRemainingSuboperations"] = _counted(response.remaining)
        command["NumberOfCompletedSuboperations"] = _counted(response.completed)
        command["NumberOfFailedSuboperations"] = _counted(response.failed)
        command["NumberOfWarningSuboperations"] = _counted(response.warning)
    elif operation.startswith("N-"):
        command["AffectedSOPInstanceUID"] = asked.get("AffectedSOPInstanceUID") or asked.get(
            "RequestedSOPInstanceUID"
        )
        command["EventTypeID"] = asked.get("EventTypeID")
        command["ActionTypeID"] = asked.get("ActionTypeID")
    command.update(response.elements)
    return command


def _counted(number: int | None) -> int | None:
    """A number of sub-operations as the command set can hold it (US): more are told as the most."""
    return None if number is None else min(number, _MOST_COUNTED)
