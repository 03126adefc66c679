"""DIMSE messages on a connection: read in pieces as they come, written in PDUs the peer can take.

Only command sets are held whole. A data set is passed on as memoryviews of one buffer, so memory
does not grow with the object (PS3.8 annex E.2, PS3.7 annex F).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from node.errors import AssociationAborted, PeerError, ProtocolViolation
from node.wire import dimse, pdu
from node.wire.contexts import AcceptedContext
from node.wire.dimse import Command
from node.wire.message_writer import DataSet, MessageWriter
from node.wire.pdu import AbortReason, Violation
from node.wire.receive_buffer import ReceiveBuffer
from node.wire.upper_layer import UpperLayer

COMMAND_SET_BYTES = 16384
# PDU length counts from after the PDU header; some peers count their maximum without the PDV header
_PDU_SLACK_BYTES = 12
_UNLIMITED = 0xFFFFFFFF
_HEADER_BYTES = pdu.PDU_HEADER_BYTES + pdu.PDV_HEADER_BYTES


class Message(NamedTuple):
    """A command set and the presentation context in which it came."""

    context: AcceptedContext
    command: Command


class MessageStream:
    """Reads and writes messages on an established association; used by one thread.

    ``failure`` is the error that ended it: afterwards nothing can be read or written.
    """

    def __init__(
        self,
        upper_layer: UpperLayer,
        contexts: Mapping[int, AcceptedContext],
        *,
        max_pdu_bytes: int,
        peer_max_pdu_bytes: int,
    ) -> None:
        self._upper_layer = upper_layer
        self._connection = connection = upper_layer.connection
        self._contexts = contexts
        self._max_pdu_bytes = max_pdu_bytes
        self._longest_pdu_bytes = max_pdu_bytes + _PDU_SLACK_BYTES if max_pdu_bytes else _UNLIMITED
        self._input = ReceiveBuffer(connection)
        self._writer = MessageWriter(connection, peer_max_pdu_bytes)
        self._pdu_left = 0  # bytes of the current P-DATA-TF not yet read
        self._pdv_left = 0  # bytes of the current fragment not yet read
        self._pdv_context_id = 0
        self._pdv_control = 0
        self._data_set_context_id: int | None = None  # set while a data set is not wholly read
        self.failure: PeerError | None = None
        upper_layer.read_by(self)

    def fail(self, error: PeerError) -> None:
        """End the stream by ``error``, and let the upper layer do what that calls for."""
        if self.failure is None:
            self.failure = error
        self._upper_layer.fail(error)

    # --- reading ---------------------------------------------------------------

    @property
    def has_unread_data_set(self) -> bool:
        """Whether fragments of the last message's data set are still to come."""
        return self._data_set_context_id is not None

    def is_readable(self, seconds: float = 0.0) -> bool:
        """Whether the peer has sent something, or ended the stream, within ``seconds``."""
        return self._input.is_readable(seconds)

    def has_pdu(self) -> bool:
        """Whether the next PDU can be read to its end, or as far as it is looked ahead; does not wait.

        What ended the association meanwhile is raised as ``next_message`` does.
        """
        try:
            if self._pdu_left:
                return self._input.gather(self._pdu_left)
            if not self._input.gather(pdu.PDU_HEADER_BYTES):
                return False
            header = self._input.peek(pdu.PDU_HEADER)
            return header is not None and self._input.gather(pdu.PDU_HEADER_BYTES + header[1])
        except PeerError as error:
            self.fail(error)
            raise

    def wait(self, seconds: float) -> Literal["data", "woken", "timeout"]:
        """Sleep until the peer sends, another thread wakes the connection, or ``seconds`` have passed."""
        return self._input.wait(seconds)

    def receive_before(self, view: memoryview, deadline: float) -> None:
        """Fill ``view`` with the next bytes, whatever they are, before ``deadline`` (``time.monotonic``)."""
        self._input.receive_before(view, deadline)

    def rest(self) -> None:
        """Give back what reading has borrowed; what comes after this is read all the same."""
        self._input.give_back()

    @property
    def unread_pdu_bytes(self) -> int:
        """How many bytes are left of the PDU that was begun last."""
        return self._pdu_left + self._pdv_left

    def next_message(self) -> Message | None:
        """Read the next command set, waiting for it; None when the peer requests or confirms release.

        Raises
        ------
        AssociationAborted
            The peer sent A-ABORT.
        Violation
            The peer broke the protocol, and has been told by A-ABORT.
        ConnectionLost, PeerStalled
            The connection ended, or nothing came for the network timeout.
        """
        try:
            return self._next_message()
        except PeerError as error:
            self.fail(error)
            raise

    def _next_message(self) -> Message | None:
        if self.has_unread_data_set:
            raise RuntimeError("the data set before this message has not been read")
        command_set = b""
        context: AcceptedContext | None = None
        while True:
            if not self._open_fragment(may_be_release=context is None):
                return None
            if not self._pdv_control & pdu.PDV_IS_COMMAND:
                raise _unexpected("a data set fragment came without its command set")
            if context is None:
                context = self._contexts[self._pdv_context_id]
            elif context.context_id != self._pdv_context_id:
                raise _unexpected("the presentation context changed inside a command set")
            if len(command_set) + self._pdv_left > COMMAND_SET_BYTES:
                raise Violation(
                    f"the command set is longer than {COMMAND_SET_BYTES} bytes",
                    AbortReason.INVALID_PDU_PARAMETER_VALUE,
                )
            while self._pdv_left:
                command_set += self._take()
            if self._pdv_control & pdu.PDV_IS_LAST:
                break
        command = dimse.decode(command_set)
        if command.has_data_set:
            self._data_set_context_id = context.context_id
        return Message(context, command)

    def fragments(self) -> Iterator[list[memoryview]]:
        """Yield the rest of the current data set, by what one read of the socket brought.

        The views follow each other; they are valid until the next ones are asked for. Raises the same
        errors as ``next_message``.
        """
        try:
            while self._data_set_context_id is not None:
                views = self._fragments_here()
                if views:
                    yield views
        except PeerError as error:
            self.fail(error)
            raise

    def _fragments_here(self) -> list[memoryview]:
        """Wait for one piece of the data set, and take as many more as are here."""
        views: list[memoryview] = []
        while True:
            if not self._pdv_left:
                # to read more would overwrite what has been taken
                if views and self._input.available < _HEADER_BYTES:
                    return views
                self._open_fragment(may_be_release=False)
                if self._pdv_control & pdu.PDV_IS_COMMAND:
                    raise _unexpected("a command fragment came inside a data set")
                if self._pdv_context_id != self._data_set_context_id:
                    raise _unexpected("the presentation context changed inside a message")
            if self._pdv_left:
                if views and not self._input.available:
                    return views
                views.append(self._take())
            if not self._pdv_left and self._pdv_control & pdu.PDV_IS_LAST:
                self._data_set_context_id = None
                return views

    def _take(self) -> memoryview:
        view = self._input.take(self._pdv_left)
        self._pdv_left -= len(view)
        return view

    def _open_fragment(self, *, may_be_release: bool) -> bool:
        """Read up to the next fragment's first byte; False when A-RELEASE-RQ came instead."""
        if self._pdu_left == 0:
            self._input.need(pdu.PDU_HEADER_BYTES)
            if self._open_both():
                return True
            if not self._open_p_data(may_be_release):
                return False
        if self._pdu_left < pdu.PDV_HEADER_BYTES:
            raise _invalid(f"a PDU ends with {self._pdu_left} bytes that are no PDV")
        self._input.need(pdu.PDV_HEADER_BYTES)
        header = self._input.take(pdu.PDV_HEADER_BYTES)
        item_bytes, self._pdv_context_id, self._pdv_control = pdu.PDV_HEADER.unpack(header)
        left = self._pdu_left = self._pdu_left - pdu.PDV_HEADER_BYTES
        if not 2 <= item_bytes <= left + 2:
            raise _invalid(f"a PDV of {item_bytes} bytes in a PDU of which {left + 6} bytes are left")
        self._pdu_left -= item_bytes - 2
        self._pdv_left = item_bytes - 2
        if self._pdv_context_id not in self._contexts:
            raise _invalid(f"presentation context {self._pdv_context_id} was not accepted")
        return True

    def _open_both(self) -> bool:
        """Read both headers of a P-DATA-TF PDU at once, where they are here and as they should be.

        Whatever else is here is left to those who read it step by step and know what is wrong with it.
        """
        headers = self._input.peek(pdu.P_DATA_HEADERS)
        if headers is None:
            return False
        pdu_type, length, item_bytes, context_id, control = headers
        if (
            pdu_type != pdu.P_DATA_TF
            or not 2 <= item_bytes <= length - 4
            or not length <= self._longest_pdu_bytes
            or context_id not in self._contexts
            or not self._upper_layer.takes_data
        ):
            return False
        self._input.skip(_HEADER_BYTES)
        self._pdv_context_id, self._pdv_control = context_id, control
        self._pdv_left = item_bytes - 2
        self._pdu_left = length - item_bytes - 4
        return True

    def _open_p_data(self, may_be_release: bool) -> bool:
        self._input.need(pdu.PDU_HEADER_BYTES)
        pdu_type, length = pdu.PDU_HEADER.unpack(self._input.take(pdu.PDU_HEADER_BYTES))
        self._pdu_left = length
        if pdu_type != pdu.P_DATA_TF or not self._upper_layer.takes_data:
            self._other_pdu(pdu_type, length, may_be_release)
            return False
        if length < pdu.PDV_HEADER_BYTES:
            raise _invalid(f"a P-DATA-TF PDU of {length} bytes holds no PDV")
        if length > self._longest_pdu_bytes:
            raise _invalid(f"a PDU of {length} bytes exceeds the maximum of {self._max_pdu_bytes}")
        return True

    def _other_pdu(self, pdu_type: int, length: int, may_be_release: bool) -> None:
        """Let the upper layer judge what is no P-DATA-TF, or a late one; return for a release alone."""
        body = b""
        if pdu_type in (pdu.A_RELEASE_RQ, pdu.A_RELEASE_RP, pdu.A_ABORT):
            if length != pdu.FIXED_BODY_BYTES and pdu_type != pdu.A_ABORT:
                raise _invalid(f"PDU type {pdu_type:02X} of {length} bytes")
            count = min(length, pdu.FIXED_BODY_BYTES)
            self._input.need(count)
            body = bytes(self._input.take(count)) if count else b""
            self._pdu_left -= count
        self._upper_layer.received(pdu_type, body)
        if not may_be_release:
            # the table allows it; it is the message that is not whole, so the service user aborts
            self._upper_layer.abort()
            raise ProtocolViolation("the peer released the association inside a message")

    # --- writing ---------------------------------------------------------------

    def send(
        self,
        context_id: int,
        command: Command,
        data_set: DataSet | None = None,
        *,
        pads_to_even: bool = False,
    ) -> None:
        """Send one message; arguments and errors are those of ``MessageWriter.send``.

        Where a part was sent of one that could not be sent whole, nothing more can be sent
        (``failure`` is set).
        """
        sent_bytes = self._connection.sent_bytes
        try:
            self._writer.send(context_id, command, data_set, pads_to_even=pads_to_even)
        except PeerError as error:
            self.fail(error)
            raise
        except BaseException:
            if self._connection.sent_bytes > sent_bytes:
                self.fail(AssociationAborted("a message could not be sent to its end"))
            raise


def _unexpected(how: str) -> Violation:
    return Violation(how, AbortReason.UNEXPECTED_PDU_PARAMETER)


def _invalid(how: str) -> Violation:
    return Violation(how, AbortReason.INVALID_PDU_PARAMETER_VALUE)
