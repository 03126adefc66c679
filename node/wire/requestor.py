"""The requesting side of an association: our requests and its release."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset

from node.errors import AssociationAborted, AssociationRejected, NoAcceptedContext, PeerError
from node.status import is_pending
from node.wire import data_sets, dimse, negotiation, pdu
from node.wire.association import Association
from node.wire.contexts import AcceptedContext, ProposedContext
from node.wire.dimse import Command
from node.wire.messages import Answer, Response
from node.wire.negotiation import Acceptance
from node.wire.sop_classes import VERIFICATION
from node.wire.stream import Message
from node.wire.upper_layer import UpperLayer

_MEDIUM_PRIORITY = 0


class RequestedAssociation(Association):
    """An association that we requested.

    A context manager: left in peace it is released, left by an exception it is aborted.
    """

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
            # An error may be that of another association, such as the one that asked for this C-MOVE.
            self._end_badly(error if isinstance(error, PeerError) and error is self._stream.failure else None)

    def release(self) -> None:
        """Release the association and close the connection; a peer that is gone already is no error."""
        if self._is_over:
            return
        try:
            self._raise_failure()
            if self._is_releasing:
                self._upper_layer.respond_to_release()
            else:
                self._release(self._limits.network_timeout_seconds)
            self._close("association released", logging.INFO)
        except PeerError as error:
            self._end_badly(error)
        finally:
            # a handler of ours failed over what came meanwhile, or it is over
            self._end_badly(None)

    def close(self) -> None:
        """End the association at once: A-ABORT if it is established, then close."""
        self._end_badly(None)

    def _end_badly(self, error: PeerError | None) -> None:
        if self._is_over:
            return
        self._stream.fail(error or AssociationAborted("aborted here"))
        self._close("association aborted", logging.WARNING, reason=str(error or "by us"))

    def _close(self, event: str, level: int, **values: Any) -> None:
        self._is_over = True
        self._upper_layer.await_close()
        self._connection.close()
        self._log_end(event, level, **values)

    # --- requests ----------------------------------------------------------------

    def echo(self) -> Answer:
        """Send a C-ECHO-RQ (PS3.7 section 9.1.5); errors as ``send_store``, and NoAcceptedContext."""
        context = self._context_of(VERIFICATION)
        command = Command(CommandField=dimse.C_ECHO_RQ, AffectedSOPClassUID=VERIFICATION)
        return Answer.of(self._exchange(context, command, None).command)

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
        return Answer.of(self._exchange(context, command, self._encoded(context, information)).command)

    def serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Answer the peer's requests for at most ``seconds``, or until ``until()`` is true; return that.

        For an N-EVENT-REPORT that comes on the association of the N-ACTION.
        """
        deadline = time.monotonic() + seconds
        while not until():
            self._require_established()
            if self._early is None and not self._stream.is_readable(deadline - time.monotonic()):
                return False
            message = self._next_message()
            if message is None:
                raise self._released()
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)  # of nothing
            else:
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
                message = self._response_to(message_id, command.CommandField)
                is_final = not is_pending(int(message.command["Status"]))
                yield self._decoded(message)
        finally:
            if not is_final and self.is_established:
                self._cancel(context, message_id, command.CommandField)

    def _cancel(self, context: AcceptedContext, message_id: int, command_field: int) -> None:
        """Send C-CANCEL-RQ and read on to the final response, which the peer still owes."""
        cancel = Command(
            CommandField=dimse.C_CANCEL_RQ,
            MessageIDBeingRespondedTo=message_id,
            CommandDataSetType=dimse.NO_DATA_SET,
        )
        with contextlib.suppress(PeerError):  # the next request will say so
            self._stream.send(context.context_id, cancel)
            while is_pending(int(self._response_to(message_id, command_field).command.Status)):
                self._drain()
            self._drain()

    def _decoded(self, message: Message) -> Response:
        command = message.command
        identifier = None
        if command.has_data_set:
            limit_bytes = self._limits.identifier_bytes
            encoded = bytearray()
            for fragment in itertools.chain.from_iterable(self._stream.fragments()):
                encoded += fragment
                if len(encoded) > limit_bytes:
                    raise self._violated(f"a response's identifier is longer than {limit_bytes} bytes")
            identifier = data_sets.decode(
                bytes(encoded), message.context.transfer_syntax_uid, limit_bytes=limit_bytes
            )
        return Response(
            int(command.Status),
            comment=str(command.get("ErrorComment") or ""),
            identifier=identifier,
            remaining=command.get("NumberOfRemainingSuboperations"),
            completed=command.get("NumberOfCompletedSuboperations"),
            failed=command.get("NumberOfFailedSuboperations"),
            warning=command.get("NumberOfWarningSuboperations"),
        )


def request_association(
    upper_layer: UpperLayer,
    encoded_request: bytes,
    contexts: Sequence[ProposedContext],
    *,
    where: str,
    timeout_seconds: float,
) -> Acceptance:
    """Send the A-ASSOCIATE-RQ and read its answer (PS3.8 section 7.1).

    ``where`` names the peer in errors, which are those of ``scu.connect``. After one of them the
    connection is to be closed.
    """
    try:
        pdu_type, answer = upper_layer.request(encoded_request, time.monotonic() + timeout_seconds)
        if pdu_type == pdu.A_ASSOCIATE_AC:
            acceptance = negotiation.decode_acceptance(answer, contexts)
            upper_layer.confirm(pdu_type)
            return acceptance
        rejection = negotiation.decode_rejection(answer)
        upper_layer.confirm(pdu_type)
    except PeerError as error:
        upper_layer.fail(error)
        upper_layer.await_close()
        if isinstance(error, AssociationAborted):
            raise AssociationAborted(f"{where}: {error}") from error
        raise
    kind = "transient" if rejection.is_transient else "permanent"
    raise AssociationRejected(
        f"{where} rejected the association ({kind}): {rejection.explanation}",
        transient=rejection.is_transient,
    )
