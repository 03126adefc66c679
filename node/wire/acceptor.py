"""The accepting side of an association: from the TCP connection to its end, in one thread."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from node.config.settings import LimitsConfig
from node.errors import AnodeError, PeerError
from node.wire import dimse, negotiation, pdu
from node.wire.association import Association
from node.wire.connection import Connection, ConnectionLost, PeerStalled
from node.wire.contexts import PROTOCOL_VERSION_UNKNOWN, Admission, AssociationRequest, Rejection
from node.wire.messages import Operation
from node.wire.pdu import AbortReason, AbortSource, Violation

logger = logging.getLogger(__name__)

_LONGEST_REQUEST_BYTES = 1024**2


class AcceptedAssociation(Association):
    """An association that a peer requested; ``serve`` accepts it and runs it to its end.

    ``acceptance`` is the encoded A-ASSOCIATE-AC. It is sent by ``serve`` and not before, so that the
    association is registered by the time the peer can use it.
    """

    def __init__(
        self,
        connection: Connection,
        request: AssociationRequest,
        admission: Admission,
        *,
        acceptance: bytes,
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
    ) -> None:
        super().__init__(
            connection,
            is_requestor=False,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            peer_address=request.peer_address,
            contexts=admission.contexts,
            operations=operations,
            limits=limits,
            peer_max_pdu_bytes=request.max_pdu_bytes,
        )
        self._acceptance = acceptance
        self._posted: deque[Callable[[Association], None]] = deque()
        self._posting = threading.Lock()
        self._takes_posts = True
        self._is_finishing = False

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

    def finish(self) -> None:
        """End the association by A-ABORT as soon as it is idle. Any thread may call it."""
        self._is_finishing = True
        self._connection.wake()

    def serve(self) -> None:
        """Answer the peer until the association ends, whichever way; nothing of it is left afterwards."""
        begin = time.monotonic()
        event, reason = "association broke", "unexpected failure here"
        level = logging.ERROR
        try:
            event, reason, level = self._serve()
        except Violation as error:
            self._abort_after(error)
            event, reason, level = "association aborted by us", str(error), logging.WARNING
        except PeerStalled as error:
            self._abort_after(error)
            event, reason, level = "association timed out", str(error), logging.WARNING
        except ConnectionLost as error:
            event, reason, level = "association lost", str(error), logging.WARNING
        except PeerError as error:
            if self._was_aborted_here:
                event, reason, level = "association aborted by us", "told to end", logging.INFO
            elif self._stream.failure is not None:
                event, reason, level = "association aborted by the peer", str(error), logging.WARNING
            else:
                reason = error.name
        finally:
            if level == logging.ERROR:
                self._connection.try_send(pdu.abort(AbortSource.SERVICE_PROVIDER))
            self._is_over = True
            with self._posting:
                self._takes_posts = False
            self._log_end(event, level, reason=reason, seconds=round(time.monotonic() - begin, 3))

    def _serve(self) -> tuple[str, str, int]:
        idle_seconds = self._limits.network_timeout_seconds
        self._connection.set_timeout(idle_seconds)
        self._connection.send([self._acceptance])
        while True:
            if self._early is None:
                if self._is_finishing:
                    self.abort()
                    return "association aborted by us", "the node stops", logging.INFO
                if self._posted:
                    self._do(self._posted.popleft())
                    continue
                ready = self._connection.wait(idle_seconds)
                if ready == "woken":
                    continue
                if ready == "timeout":
                    raise PeerStalled(f"idle for {idle_seconds:g} s")
            message = self._next_message()
            if message is None:
                self._answer_release()
                return "association released", "", logging.INFO
            if message.command.CommandField == dimse.C_CANCEL_RQ:
                self._remember_cancel(message.command)  # of nothing: it came too late
            else:
                self._perform(message)

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
    """

    def __init__(
        self,
        *,
        admit: Callable[[AssociationRequest], Admission],
        operations: Mapping[str, Operation],
        limits: LimitsConfig,
        reject_first: Callable[[], Rejection | None],
    ) -> None:
        self._admit = admit
        self._operations = operations
        self._limits = limits
        self._reject_first = reject_first

    def accept(self, connection: Connection, peer_address: str) -> AcceptedAssociation | None:
        """Negotiate; None when there will be no association, in which case the peer has been told why.

        Raises
        ------
        PeerError
            The connection ended first.
        """
        try:
            encoded = self._read_request(connection)
            request = negotiation.decode_request(encoded, peer_address)
        except Violation as error:
            # PS3.8 table 9-10: in Sta2 the abort comes from the service user (AA-1)
            connection.try_send(pdu.abort(AbortSource.SERVICE_USER))
            logger.warning(
                "association request invalid", extra={"peer_address": peer_address, "reason": str(error)}
            )
            return None
        admission = self._decide(request)
        if admission.rejection is not None:
            self._reject(connection, request, admission.rejection)
            return None
        answer = negotiation.encode_acceptance(encoded, admission, max_pdu_bytes=self._limits.max_pdu_bytes)
        if request.wants_username_confirmed:
            answer = negotiation.confirm_username(answer)
        association = AcceptedAssociation(
            connection,
            request,
            admission,
            acceptance=answer,
            operations=self._operations,
            limits=self._limits,
        )
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
            },
        )
        return association

    def _decide(self, request: AssociationRequest) -> Admission:
        if not request.protocol_version & 1:
            return Admission(rejection=PROTOCOL_VERSION_UNKNOWN)
        rejection = self._reject_first()
        return self._admit(request) if rejection is None else Admission(rejection=rejection)

    def _reject(self, connection: Connection, request: AssociationRequest, rejection: Rejection) -> None:
        logger.warning(
            "association rejected",
            extra={
                "calling_ae_title": request.calling_ae_title,
                "called_ae_title": request.called_ae_title,
                "peer_address": request.peer_address,
                "reason": rejection.explanation,
            },
        )
        connection.send([negotiation.encode_rejection(rejection)])

    def _read_request(self, connection: Connection) -> bytes:
        """Read the A-ASSOCIATE-RQ before the ARTIM timer runs out (PS3.8 section 9.1.5)."""
        deadline = time.monotonic() + self._limits.artim_timeout_seconds
        header = bytearray(pdu.PDU_HEADER_BYTES)
        connection.receive_before(memoryview(header), deadline)
        pdu_type, length = pdu.PDU_HEADER.unpack(header)
        if pdu_type != pdu.A_ASSOCIATE_RQ:
            raise pdu.explain_unexpected(pdu_type, "before an association")
        if length > _LONGEST_REQUEST_BYTES:
            raise Violation(f"an A-ASSOCIATE-RQ of {length} bytes", AbortReason.INVALID_PDU_PARAMETER_VALUE)
        body = bytearray(length)
        connection.receive_before(memoryview(body), deadline)
        return bytes(header + body)


def open_connection(accepted: socket.socket, limits: LimitsConfig) -> Connection:
    """Wrap an accepted socket, with a thread that others can wake."""
    return Connection(accepted, timeout_seconds=limits.artim_timeout_seconds, is_wakeable=True)
