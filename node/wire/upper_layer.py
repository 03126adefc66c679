"""The upper layer service provider of one association: performs what the state machine calls for.

PS3.8 section 9.2: PDUs other than P-DATA-TF, the ARTIM timer, and the end of the connection. Every one
of them goes through the table of ``states.py``. Messages are ``stream.py``'s.
"""

from __future__ import annotations

import time
from typing import Protocol

from node.errors import AssociationAborted, PeerError
from node.wire import pdu
from node.wire.connection import Connection, ConnectionLost, PeerStalled
from node.wire.pdu import AbortReason, AbortSource, Violation
from node.wire.states import EVENT_OF_PDU, Action, Event, NotPermitted, State, StateMachine

_LONGEST_ASSOCIATE_BYTES = 1024**2
# a peer that is to close the connection has no reason to be slow, and holds a thread until it does
_LONGEST_CLOSING_SECONDS = 5.0
# of late PDUs that are ignored, before the peer is taken for one that never ends
_MOST_LATE_BYTES = 16 * 1024**2
_SCRATCH_BYTES = 65536
_PIECE_BYTES = 4096

_SENT_BY = {
    Action.AR_1: pdu.RELEASE_RQ,
    Action.AR_4: pdu.RELEASE_RP,
    Action.AR_9: pdu.RELEASE_RP,
}
_ABORTS = {
    Action.AA_1: AbortSource.SERVICE_USER,
    Action.AA_7: AbortSource.SERVICE_PROVIDER,
    Action.AA_8: AbortSource.SERVICE_PROVIDER,
}
_WHERE = {
    State.STA2: "before an association",
    State.STA3: "before the association is accepted",
    State.STA5: "as an answer to A-ASSOCIATE-RQ",
    State.STA6: "in data transfer",
}


class Reader(Protocol):
    """Whoever has taken bytes from the connection that the upper layer may have to pass over."""

    @property
    def unread_pdu_bytes(self) -> int:
        """How many bytes are left of the PDU that was begun last."""

    def receive_before(self, view: memoryview, deadline: float) -> None:
        """Fill the whole of ``view`` before ``deadline`` (``time.monotonic``)."""


class UpperLayer:
    """The state of one association and the PDUs that its actions send.

    One thread owns it; ``abort`` may be called by any.

    Parameters
    ----------
    artim_seconds
        The ARTIM timer (PS3.8 section 9.1.5): how long the peer may take to request an association.
        To close the connection at the end it has as long, but 5 seconds at most.
    """

    def __init__(self, connection: Connection, *, is_requestor: bool, artim_seconds: float) -> None:
        self.connection = connection
        self._machine = StateMachine(is_requestor=is_requestor)
        self._artim_seconds = artim_seconds
        self._artim_deadline = 0.0
        self._reader: Reader | None = None
        self._unread_pdu_bytes = 0

    @property
    def state(self) -> State:
        """The present state."""
        return self._machine.state

    @property
    def takes_data(self) -> bool:
        """Whether a P-DATA-TF PDU is delivered now; asked for each of them."""
        return self._machine.takes_data

    @property
    def may_send_data(self) -> bool:
        """Whether the local user may send a message now (Evt9)."""
        return self._machine.permits(Event.P_DATA_REQUEST)

    def read_by(self, reader: Reader) -> None:
        """From now on ``reader`` takes the bytes from the connection."""
        self._reader = reader

    # --- establishment -----------------------------------------------------------

    def await_request(self) -> bytes:
        """Wait for the A-ASSOCIATE-RQ until ARTIM expires, and return it (Sta2).

        Raises
        ------
        PeerError
            It did not come, or something else did. What the table says of that has been done.
        """
        self._on(Event.TRANSPORT_INDICATION)
        return self._associate_pdu(self._artim_deadline, pdu.A_ASSOCIATE_RQ)[1]

    def indicate(self) -> None:
        """Let the local user decide on the A-ASSOCIATE-RQ, which was found to be valid."""
        self._on(Event.ASSOCIATE_RQ_PDU)

    def accept(self, encoded: bytes) -> None:
        """Send the A-ASSOCIATE-AC, unless the peer has something to say already (Sta3)."""
        if self.connection.is_readable():
            self._associate_pdu(self._artim_deadline)
        self._on(Event.ACCEPT_RESPONSE, encoded)

    def reject(self, encoded: bytes, *, is_by_user: bool) -> None:
        """Send the A-ASSOCIATE-RJ: the user's, or the provider's in place of ``indicate``."""
        if is_by_user:
            self._on(Event.REJECT_RESPONSE, encoded)
        else:
            self._on(Event.ASSOCIATE_RQ_PDU, encoded, is_acceptable=False)

    def request(self, encoded: bytes, deadline: float) -> tuple[int, bytes]:
        """Send the A-ASSOCIATE-RQ, and return the type and the whole of the PDU that answers it.

        Raises
        ------
        PeerError
            No A-ASSOCIATE-AC or -RJ came. What the table says of that has been done.
        """
        self._on(Event.ASSOCIATE_REQUEST)
        try:
            self._on(Event.TRANSPORT_CONFIRM, encoded)
        except PeerError as error:
            self.fail(error)
            raise
        return self._associate_pdu(deadline, pdu.A_ASSOCIATE_AC, pdu.A_ASSOCIATE_RJ)

    def confirm(self, pdu_type: int) -> None:
        """Take the A-ASSOCIATE-AC or -RJ, which was found to be valid, for what it is (Sta5)."""
        self._on(EVENT_OF_PDU[pdu_type])

    def _associate_pdu(self, deadline: float, *wanted: int) -> tuple[int, bytes]:
        """Read a PDU before ``deadline``; the table judges whatever is none of ``wanted``."""
        try:
            header = bytearray(pdu.PDU_HEADER_BYTES)
            self.connection.receive_before(memoryview(header), deadline)
            pdu_type, length = pdu.PDU_HEADER.unpack(header)
            self._unread_pdu_bytes = length
            if pdu_type not in wanted and pdu_type != pdu.A_ABORT:
                self.received(pdu_type)
            if length > _LONGEST_ASSOCIATE_BYTES:
                raise Violation(
                    f"PDU type {pdu_type:02X} of {length} bytes", AbortReason.INVALID_PDU_PARAMETER_VALUE
                )
            body = self._receive(length, deadline)
            self._unread_pdu_bytes = 0
            if pdu_type == pdu.A_ABORT:
                self.received(pdu_type, bytes(body))
        except PeerError as error:
            self.fail(error)
            raise
        return pdu_type, bytes(header + body)

    def _receive(self, length: int, deadline: float) -> bytearray:
        """Read ``length`` bytes; memory follows what comes, not what was claimed."""
        received = bytearray()
        piece = memoryview(bytearray(min(length, _PIECE_BYTES)))
        while len(received) < length:
            part = piece[: length - len(received)]
            self.connection.receive_before(part, deadline)
            received += part
        return received

    # --- everything that is no P-DATA-TF -----------------------------------------

    def received(self, pdu_type: int, body: bytes = b"") -> Action:
        """Do what the table says of a PDU that came in; ``body`` matters for A-ABORT.

        Raises
        ------
        Violation
            The PDU is unknown or not allowed here: the peer has been told by A-ABORT.
        AssociationAborted
            It is an A-ABORT.
        """
        where = _WHERE.get(self.state, "while releasing")
        action = self._on_pdu(pdu_type)
        if action in (Action.AA_2, Action.AA_3):
            raise AssociationAborted(pdu.describe_abort(body))
        if action in _ABORTS:
            raise pdu.explain_unexpected(pdu_type, where)
        return action

    def _on_pdu(self, pdu_type: int) -> Action:
        reason = pdu.explain_unexpected(pdu_type, "").reason
        return self._on(EVENT_OF_PDU.get(pdu_type, Event.INVALID_PDU), reason=reason)

    def release(self) -> None:
        """Send A-RELEASE-RQ (AR-1)."""
        self._on_request(Event.RELEASE_REQUEST)

    def respond_to_release(self) -> None:
        """Send A-RELEASE-RP (AR-4, and AR-9 in a collision)."""
        self._on_request(Event.RELEASE_RESPONSE)

    def abort(self) -> None:
        """Send A-ABORT as the service user, if there is anything to abort. Any thread may call it."""
        if self._machine.permits(Event.ABORT_REQUEST):
            try:
                self._on(Event.ABORT_REQUEST)
            except NotPermitted:  # it ended in another thread meanwhile
                return

    def fail(self, error: PeerError) -> None:
        """Do what the table says of the way in which the association has failed; once it is over, nothing.

        A Violation is an invalid PDU (Evt19), and a lost connection what it is (Evt17). A peer that
        stalls lets ARTIM expire where that runs (Evt18); elsewhere it is the local user who loses
        patience (Evt15), as the standard has no other timer.
        """
        if self.state in (State.STA1, State.STA13):
            return
        if isinstance(error, Violation):
            self._on(Event.INVALID_PDU, reason=error.reason)
        elif isinstance(error, ConnectionLost):
            self._on(Event.TRANSPORT_CLOSED)
        elif isinstance(error, PeerStalled) and self._machine.permits(Event.ARTIM_EXPIRED):
            self._on(Event.ARTIM_EXPIRED)
        else:
            self.abort()

    # --- the end -----------------------------------------------------------------

    def await_close(self) -> None:
        """Wait until the peer has closed the connection, or ARTIM expires (Sta13).

        Late PDUs are ignored, or answered with A-ABORT, as the table says. In Sta1 there is nothing to
        wait for.
        """
        reader = self._reader
        receive_before = self.connection.receive_before if reader is None else reader.receive_before
        left = self._unread_pdu_bytes + (0 if reader is None else reader.unread_pdu_bytes)
        header = memoryview(bytearray(pdu.PDU_HEADER_BYTES))
        scratch = memoryview(bytearray(_SCRATCH_BYTES))
        late_bytes = 0
        try:
            while self.state is State.STA13:
                while left and late_bytes <= _MOST_LATE_BYTES:
                    part = scratch[: min(left, len(scratch))]
                    receive_before(part, self._artim_deadline)
                    left -= len(part)
                    late_bytes += len(part)
                if late_bytes > _MOST_LATE_BYTES:
                    return
                receive_before(header, self._artim_deadline)
                late_bytes += len(header)
                pdu_type, left = pdu.PDU_HEADER.unpack(header)
                self._on_pdu(pdu_type)
        except PeerStalled:
            self._on(Event.ARTIM_EXPIRED)
        except ConnectionLost:
            self._on(Event.TRANSPORT_CLOSED)

    # --- the machine -------------------------------------------------------------

    def _on_request(self, event: Event) -> None:
        try:
            self._on(event)
        except NotPermitted as error:
            raise AssociationAborted("the association is over") from error

    def _on(
        self,
        event: Event,
        encoded: bytes = b"",
        *,
        is_acceptable: bool = True,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> Action:
        """Give ``event`` to the machine and perform the action; ``encoded`` is the PDU that it sends."""
        action = self._machine.on(event, is_acceptable=is_acceptable)
        if self.state is State.STA2:
            self._artim_deadline = time.monotonic() + self._artim_seconds
        elif self.state is State.STA13 and action not in (Action.AA_6, Action.AA_7):
            self._artim_deadline = time.monotonic() + min(self._artim_seconds, _LONGEST_CLOSING_SECONDS)
        if action in _ABORTS:
            # never waits for the peer, and never cuts a PDU that another thread is sending
            self.connection.try_send(pdu.abort(_ABORTS[action], reason))
        elif encoded or action in _SENT_BY:
            self.connection.send([encoded or _SENT_BY[action]])
        return action
