"""An established association, whichever side requested it: our requests, sub-operations, release.

One thread owns it. ``post`` and ``abort`` are the only methods that other threads may call. What the
peer asks is answered in ``performer.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.config.settings import Verb
from node.errors import AssociationAborted, NoAcceptedContext
from node.wire import dimse
from node.wire.connection import PeerStalled
from node.wire.contexts import AcceptedContext
from node.wire.dimse import Command
from node.wire.message_writer import DataSet
from node.wire.messages import Answer, Handler, Operation, Request, Response
from node.wire.performer import Performer
from node.wire.states import State
from node.wire.stream import Message

__all__ = ["AcceptedContext", "Answer", "Association", "Handler", "Operation", "Request", "Response"]

logger = logging.getLogger(__name__)

_MEDIUM_PRIORITY = 0
_AWAITING_RELEASE = (State.STA7, State.STA10, State.STA11)


class Association(Performer):
    """An established association; its parameters and attributes are those of ``Performer``.

    ``allow`` has what the peer may ask of us; of one that we requested, nothing.
    """

    allow: frozenset[Verb] = frozenset()

    def abort(self) -> None:
        """Send A-ABORT, if that is possible at once, and end the association. Any thread may call it."""
        if not self._is_over and not self._was_aborted_here:
            self._was_aborted_here = True
            self._upper_layer.abort()
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
        data_set: DataSet,
        priority: int = _MEDIUM_PRIORITY,
        move_originator_ae_title: str | None = None,
        move_originator_message_id: int | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a C-STORE-RQ and wait for its response (PS3.7 section 9.1.1).

        ``data_set`` is encoded in the context's transfer syntax, without file meta; it is read
        piece by piece. Inside a handler it is a sub-operation; a C-CANCEL-RQ that comes meanwhile
        is remembered for ``Request.is_cancelled``. ``meanwhile`` is called once all is sent, before the
        response is waited for; it must not use the association.

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
        response = self._exchange(context, command, data_set, meanwhile).command
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

    def _exchange(
        self,
        context: AcceptedContext,
        command: Command,
        data_set: DataSet | None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Message:
        message_id = self._send_request(context, command, data_set)
        if meanwhile is not None:
            meanwhile()
        response = self._response_to(message_id, command.CommandField)
        self._drain()
        return response

    def _send_request(self, context: AcceptedContext, command: Command, data_set: DataSet | None) -> int:
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
        while self._early is None and not self._stream.has_unread_data_set and self._stream.is_readable():
            message = self._stream.next_message()
            if message is None:
                raise self._released()
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)
            elif message.command.CommandField & dimse.RESPONSE:
                raise self._violated("a response to a message that was not sent")
            else:
                self._early = message

    def _response_to(self, message_id: int, command_field: int) -> Message:
        """Wait for a response to our request; answer what the peer asks in the meantime."""
        while True:
            message = None if self._is_releasing else self._next_message()
            if message is None:
                raise self._released()
            command = message.command
            if command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(command)
            elif not command.CommandField & dimse.RESPONSE:
                self._perform(message)
            elif command.get("MessageIDBeingRespondedTo") != message_id or "Status" not in command:
                raise self._violated("a response to a message that was not sent")
            elif command.CommandField != command_field | dimse.RESPONSE:
                raise self._violated("a response to another operation")
            else:
                return message

    def _released(self) -> AssociationAborted:
        """Respond to the release that came instead of what we wait for, which can come no more."""
        self._upper_layer.respond_to_release()
        failure = AssociationAborted("the peer released the association meanwhile")
        self._stream.fail(failure)
        return failure

    def _require_established(self) -> None:
        self._raise_failure()
        if self._is_over:
            raise AssociationAborted("the association is over")
        if self._is_releasing:
            raise AssociationAborted("the peer has requested release, and answers no more requests")
        if not self._upper_layer.may_send_data:
            raise AssociationAborted("the association is being released")

    # --- the end -----------------------------------------------------------------

    def _release(self, seconds: float) -> None:
        """Release the association, within ``seconds`` (PS3.8 section 7.2).

        What the peer has sent before it heard of it is delivered (AR-6), but cannot be answered. When
        both sides ask at the same time, the association-requestor responds first (AR-8 to AR-10).

        Raises
        ------
        PeerError
            The peer did something else, or nothing. The table's answer to that has been given.
        """
        deadline = time.monotonic() + seconds
        while self._early is not None:
            self._deliver(self._next_message())
        self._drain()
        self._upper_layer.release()
        while self._upper_layer.state in _AWAITING_RELEASE:
            if not self._stream.is_readable(deadline - time.monotonic()):
                stalled = PeerStalled(f"the peer did not confirm the release in {seconds:g} s")
                self._stream.fail(stalled)
                raise stalled
            message = self._stream.next_message()
            if message is not None:
                self._deliver(message)
            elif self._upper_layer.state in (State.STA9, State.STA12):
                self._upper_layer.respond_to_release()

    def _deliver(self, message: Message | None) -> None:
        if message is not None and not message.command.CommandField & dimse.RESPONSE:
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)
            else:
                self._perform(message)
        self._drain()

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
