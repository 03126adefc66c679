"""The accepting side of an association: from the TCP connection to its end, in one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from node.config.settings import LimitsConfig
from node.errors import AnodeError, AssociationAborted, PeerError, ProtocolViolation
from node.refusals import Refusal
from node.wire import dimse, negotiation
from node.wire.association import Association
from node.wire.connection import ConnectionLost, PeerStalled
from node.wire.contexts import (
    CALLED_AE_TITLE_UNKNOWN,
    PROTOCOL_VERSION_UNKNOWN,
    Admission,
    AssociationRequest,
    Rejection,
)
from node.wire.messages import Operation, Request, Response, refused_operation
from node.wire.pdu import Violation
from node.wire.upper_layer import UpperLayer

logger = logging.getLogger(__name__)

# the node stops: how long a peer may take to confirm the release
_RELEASE_SECONDS = 1.0
# and after how long without a message it is taken to have nothing more to say
_QUIET_SECONDS = 1.0


class AcceptedAssociation(Association):
    """An association that a peer requested; ``serve`` accepts it and runs it to its end.

    ``acceptance`` is the encoded A-ASSOCIATE-AC. It is sent by ``serve`` and not before, so that the
    association is registered by the time the peer can use it.
    """

    def __init__(
        self,
        upper_layer: UpperLayer,
        request: AssociationRequest,
        admission: Admission,
        *,
        acceptance: bytes,
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
        refused: Callable[[Refusal], None],
    ) -> None:
        super().__init__(
            upper_layer,
            is_requestor=False,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            peer_address=request.peer_address,
            contexts=admission.contexts,
            operations=operations,
            limits=limits,
            peer_max_pdu_bytes=request.max_pdu_bytes,
        )
        self.allow = admission.allow
        self._refused = refused
        self._acceptance = acceptance
        self._posted: deque[Callable[[Association], None]] = deque()
        self._posting = threading.Lock()
        self._takes_posts = True
        self._finish_by: float | None = None
        self._ending = "told to end"
        self._idle_since = time.monotonic()

    def _note_refusal(self, request: Request, refusal: Response) -> None:
        action = "the request does not fit the presentation context in which it came: look at the sender"
        self._refused(refused_operation(request, f"{request.operation}: {refusal.comment}", action))

    def post(self, work: Callable[[Association], None]) -> bool:
        """Have ``work`` done in the association's thread once it is idle; False when it is over.

        Any thread may call it. True is no promise: the association may end before.
        """
        with self._posting:
            if not self._takes_posts:
                return False
            self._posted.append(work)
        self._connection.wake()
        return True

    def finish(self, deadline: float, why: str = "the node stops") -> None:
        """Release the association once the peer has nothing more to say. Any thread may call it.

        That is when no message came for a second; at ``deadline`` (monotonic seconds) it is released
        after the message that is being answered.
        """
        self._ending = why
        self._finish_by = deadline
        self._connection.wake()

    def serve(self) -> None:
        """Answer the peer until the association ends, whichever way; nothing of it is left afterwards."""
        begin = time.monotonic()
        event, reason = "association broke", "unexpected failure here"
        level = logging.ERROR
        try:
            event, reason, level = self._serve()
        except PeerError as error:
            event, reason, level = self._ended_by(error)
        finally:
            if level == logging.ERROR:
                self._upper_layer.abort()
            self._is_over = True
            self._stream.rest()
            with self._posting:
                self._takes_posts = False
            self._log_end(event, level, reason=reason, seconds=round(time.monotonic() - begin, 3))

    def _ended_by(self, error: PeerError) -> tuple[str, str, int]:
        if self._was_aborted_here:  # what else was seen of it is no more than its consequence
            return "association aborted by us", self._ending, logging.INFO
        if isinstance(error, ProtocolViolation | PeerStalled | ConnectionLost):
            self._stream.fail(error)
        if isinstance(error, ProtocolViolation):
            return "association aborted by us", str(error), logging.WARNING
        if isinstance(error, PeerStalled):
            return "association timed out", str(error), logging.WARNING
        if isinstance(error, ConnectionLost):
            return "association lost", str(error), logging.WARNING
        if isinstance(error, AssociationAborted) or self._stream.failure is not None:
            return "association aborted by the peer", str(error), logging.WARNING
        return "association broke", error.name, logging.ERROR

    def _serve(self) -> tuple[str, str, int]:
        self._connection.set_timeout(self._limits.network_timeout_seconds)
        self._upper_layer.accept(self._acceptance)
        while True:
            if self._is_releasing:
                self._upper_layer.respond_to_release()
                return "association released", "", logging.INFO
            if self._early is None:
                patience_seconds = self._patience_seconds()
                if patience_seconds <= 0.0 and self._finish_by is not None:
                    return self._finish()
                if self._posted:
                    self._do(self._posted.popleft())
                    continue
                ready = self._stream.wait(patience_seconds)
                if ready == "woken" or (ready == "timeout" and self._finish_by is not None):
                    continue
                if ready == "timeout":
                    raise PeerStalled(f"idle for {patience_seconds:g} s")
            message = self._next_message()
            if message is None:
                continue
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)  # of nothing: it came too late
            else:
                self._perform(message)
            self._idle_since = time.monotonic()

    def _patience_seconds(self) -> float:
        """How long to wait for the next message; less than nothing when the association is to end now."""
        idle_seconds = self._limits.network_timeout_seconds
        if self._finish_by is None:
            return idle_seconds
        until = min(self._finish_by, self._idle_since + min(idle_seconds, _QUIET_SECONDS))
        return until - time.monotonic()

    def _finish(self) -> tuple[str, str, int]:
        try:
            self._release(min(self._limits.network_timeout_seconds, _RELEASE_SECONDS))
        except PeerError as error:
            self._connection.shutdown()  # nor is it waited for any longer
            return "association aborted by us", f"{self._ending}: {error}", logging.INFO
        return "association released", self._ending, logging.INFO

    def _do(self, work: Callable[[Association], None]) -> None:
        try:
            work(self)
        except AnodeError as error:
            self._raise_failure()
            logger.warning("posted work failed", extra={"association": self.number, "error": error.name})
        self._raise_failure()


class Negotiator:
    """Takes a TCP connection through A-ASSOCIATE-RQ to an association, a rejection or an abort.

    Parameters
    ----------
    admit
        Decides on a request.
    operations
        Who answers the requests on an accepted association.
    reject_first
        Called before ``admit``: a Rejection that does not depend on who asks, or None.
    reject_crowd
        Called with an Admission that is no rejection: a Rejection where the first of its ``places`` has
        as many associations as it may, or None.
    refused
        Told of every request that comes to nothing.
    """

    def __init__(
        self,
        *,
        admit: Callable[[AssociationRequest], Admission],
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
        reject_first: Callable[[], Rejection | None],
        reject_crowd: Callable[[Admission], Rejection | None],
        refused: Callable[[Refusal], None],
    ) -> None:
        self._admit = admit
        self._operations = operations
        self._limits = limits
        self._reject_first = reject_first
        self._reject_crowd = reject_crowd
        self._refused = refused

    def accept(self, upper_layer: UpperLayer, peer_address: str) -> AcceptedAssociation | None:
        """Negotiate; None when there will be no association, in which case the peer has been told why.

        Raises
        ------
        PeerError
            The connection ended first.
        """
        try:
            encoded = upper_layer.await_request()
            request = replace(
                negotiation.decode_request(encoded, peer_address),
                is_over_tls=upper_layer.connection.is_over_tls,
                peer_certificate=upper_layer.connection.peer_certificate,
            )
        except Violation as error:
            upper_layer.fail(error)
            self._refused(
                Refusal(
                    "connection", "association request invalid", detail=str(error), peer_address=peer_address
                )
            )
            return None
        rejection = self._provider_rejection(request)
        if rejection is not None:
            self._reject(upper_layer, request, rejection, is_by_user=False)
            return None
        upper_layer.indicate()
        admission = self._admit(request)
        if admission.rejection is not None:
            self._reject(upper_layer, request, admission.rejection, is_by_user=True)
            return None
        rejection = self._reject_crowd(admission)
        if rejection is not None:
            self._reject(upper_layer, request, rejection, is_by_user=True)
            return None
        limits = admission.limits or self._limits
        answer = negotiation.encode_acceptance(encoded, admission, max_pdu_bytes=limits.max_pdu_bytes)
        if request.wants_username_confirmed:
            answer = negotiation.confirm_username(answer)
        association = AcceptedAssociation(
            upper_layer,
            request,
            admission,
            acceptance=answer,
            operations=self._operations,
            limits=limits,
            refused=self._refused,
        )
        certificate = request.peer_certificate
        logger.info(
            "association accepted",
            extra={
                "association": association.number,
                "calling_ae_title": request.calling_ae_title,
                "called_ae_title": request.called_ae_title,
                "peer_address": peer_address,
                "proposed_contexts": len(request.contexts),
                "accepted_contexts": len(association.contexts),
                "peer_max_pdu_bytes": request.max_pdu_bytes,
                "implementation": request.implementation_version_name,
                **({"certificate": certificate.name} if certificate is not None else {}),
            },
        )
        return association

    def _provider_rejection(self, request: AssociationRequest) -> Rejection | None:
        if not request.protocol_version & 1:
            return PROTOCOL_VERSION_UNKNOWN
        return self._reject_first()

    def _reject(
        self, upper_layer: UpperLayer, request: AssociationRequest, rejection: Rejection, *, is_by_user: bool
    ) -> None:
        self._refused(
            Refusal(
                "association",
                rejection.explanation,
                rejection.action,
                f"it called {request.called_ae_title}" if rejection == CALLED_AE_TITLE_UNKNOWN else "",
                calling_ae_title=request.calling_ae_title,
                called_ae_title=request.called_ae_title,
                peer_address=request.peer_address,
            )
        )
        upper_layer.reject(negotiation.encode_rejection(rejection), is_by_user=is_by_user)
