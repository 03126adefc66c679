"""DIMSE messages on a connection: read in pieces as they come, written in PDUs the peer can take.

Only command sets are held whole. A data set is passed on as memoryviews of one buffer, so memory
does not grow with the object (PS3.8 annex E.2, PS3.7 annex F).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from node.errors import AssociationAborted, PeerError
from node.wire import dimse, pdu
from node.wire.connection import Connection
from node.wire.contexts import AcceptedContext
from node.wire.dimse import Command
from node.wire.pdu import AbortReason, Violation

COMMAND_SET_BYTES = 16384
_DEFAULT_PDU_BYTES = 131072
_LARGEST_FRAGMENT_BYTES = 256 * 1024
_SMALLEST_BUFFER_BYTES = 16384
_PDUS_PER_CALL = 16
# PDU length counts from after the PDU header; some peers count their maximum without the PDV header
_PDU_SLACK_BYTES = 12
_HEADER_BYTES = pdu.PDU_HEADER_BYTES + pdu.PDV_HEADER_BYTES


@dataclass(frozen=True)
class Message:
    """A command set and the presentation context in which it came."""

    context: AcceptedContext
    command: Command


class MessageStream:
    """Reads and writes messages on an established association; used by one thread.

    ``failure`` is the error that ended it: afterwards nothing can be read or written.
    """

    def __init__(
        self,
        connection: Connection,
        contexts: Mapping[int, AcceptedContext],
        *,
        max_pdu_bytes: int,
        peer_max_pdu_bytes: int,
    ) -> None:
        self._connection = connection
        self._contexts = contexts
        self._max_pdu_bytes = max_pdu_bytes
        buffer_bytes = max(max_pdu_bytes or _DEFAULT_PDU_BYTES, _SMALLEST_BUFFER_BYTES)
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._header = memoryview(bytearray(_HEADER_BYTES))
        self._fragment_bytes = _fragment_bytes(peer_max_pdu_bytes)
        self._pdu_left = 0  # bytes of the current P-DATA-TF not yet read
        self._pdv_left = 0  # bytes of the current fragment not yet read
        self._pdv_context_id = 0
        self._pdv_control = 0
        self._data_set_context_id: int | None = None  # set while a data set is not wholly read
        self.failure: PeerError | None = None

    # --- reading ---------------------------------------------------------------

    @property
    def has_unread_data_set(self) -> bool:
        """Whether fragments of the last message's data set are still to come."""
        return self._data_set_context_id is not None

    def next_message(self) -> Message | None:
        """Read the next command set, waiting for it; None when the peer requests release.

        Raises
        ------
        AssociationAborted
            The peer sent A-ABORT.
        Violation
            The peer broke the protocol; the caller must abort.
        ConnectionLost, PeerStalled
            The connection ended, or nothing came for the network timeout.
        """
        try:
            return self._next_message()
        except PeerError as error:
            self.failure = error
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
            command_set += b"".join(map(bytes, self._pieces()))
            if self._pdv_control & pdu.PDV_IS_LAST:
                break
        command = dimse.decode(command_set)
        if command.has_data_set:
            self._data_set_context_id = context.context_id
        return Message(context, command)

    def fragments(self) -> Iterator[memoryview]:
        """Yield the rest of the current data set; each view is valid until the next one is asked for.

        Raises the same errors as ``next_message``.
        """
        try:
            while self._data_set_context_id is not None:
                if not self._pdv_left:
                    self._open_fragment(may_be_release=False)
                    if self._pdv_control & pdu.PDV_IS_COMMAND:
                        raise _unexpected("a command fragment came inside a data set")
                    if self._pdv_context_id != self._data_set_context_id:
                        raise _unexpected("the presentation context changed inside a message")
                is_last = bool(self._pdv_control & pdu.PDV_IS_LAST)
                for piece in self._pieces():
                    if is_last and not self._pdv_left:
                        self._data_set_context_id = None
                    yield piece
                if is_last:
                    self._data_set_context_id = None
        except PeerError as error:
            self.failure = error
            raise

    def _pieces(self) -> Iterator[memoryview]:
        while self._pdv_left:
            view = self._buffer[: min(self._pdv_left, len(self._buffer))]
            self._connection.receive_exactly(view)
            self._pdv_left -= len(view)
            yield view

    def _open_fragment(self, *, may_be_release: bool) -> bool:
        """Read up to the next fragment's first byte; False when A-RELEASE-RQ came instead."""
        if self._pdu_left == 0:
            if not self._open_p_data(may_be_release):
                return False
        else:
            if self._pdu_left < pdu.PDV_HEADER_BYTES:
                raise _invalid(f"a PDU ends with {self._pdu_left} bytes that are no PDV")
            self._connection.receive_exactly(self._header[pdu.PDU_HEADER_BYTES :])
        (item_bytes,) = pdu.PDV_LENGTH.unpack_from(self._header, pdu.PDU_HEADER_BYTES)
        if item_bytes < 2 or item_bytes + 4 > self._pdu_left:
            raise _invalid(f"a PDV of {item_bytes} bytes in a PDU of which {self._pdu_left} bytes are left")
        self._pdu_left -= item_bytes + 4
        self._pdv_left = item_bytes - 2
        self._pdv_context_id = self._header[10]
        self._pdv_control = self._header[11]
        if self._pdv_context_id not in self._contexts:
            raise _invalid(f"presentation context {self._pdv_context_id} was not accepted")
        return True

    def _open_p_data(self, may_be_release: bool) -> bool:
        # every PDU but a P-DATA-TF has its meaning in the first 10 bytes, and a P-DATA-TF has 12 at least
        have = self._connection.receive_some(self._header, pdu.PDU_HEADER_BYTES)
        pdu_type, length = pdu.PDU_HEADER.unpack_from(self._header)
        if pdu_type == pdu.A_ABORT:
            self._connection.receive_exactly(self._header[have : max(have, 10)])
            raise AssociationAborted(pdu.describe_abort(self._header[6:10]))
        if pdu_type == pdu.A_RELEASE_RQ and may_be_release:
            self._connection.receive_exactly(self._header[have : max(have, 10)])
            return False
        if pdu_type != pdu.P_DATA_TF:
            raise pdu.explain_unexpected(pdu_type, "here")
        if length < pdu.PDV_HEADER_BYTES:
            raise _invalid(f"a P-DATA-TF PDU of {length} bytes holds no PDV")
        if self._max_pdu_bytes and length > self._max_pdu_bytes + _PDU_SLACK_BYTES:
            raise _invalid(f"a PDU of {length} bytes exceeds the maximum of {self._max_pdu_bytes}")
        self._connection.receive_exactly(self._header[have:])
        self._pdu_left = length
        return True

    # --- writing ---------------------------------------------------------------

    def send(
        self,
        context_id: int,
        command: Command,
        data_set: BinaryIO | bytes | None = None,
        *,
        pads_to_even: bool = False,
    ) -> None:
        """Send one message; ``data_set`` is read to its end and sent as it is, without being held whole.

        With ``pads_to_even`` a NUL follows a data set of odd length, as PS3.5 section A.5 wants it of a
        deflated one: many peers abort at a fragment of odd length.

        Raises
        ------
        ConnectionLost, PeerStalled
            The connection ended, or the peer took nothing for the network timeout.
        OSError, AnodeError
            ``data_set`` could not be read. Where a part was sent already, nothing more can be sent
            (``failure`` is set).
        """
        sent_bytes = self._connection.sent_bytes
        is_whole = False
        try:
            pending = self._command_pdus(context_id, command)
            if data_set is not None:
                pieces = _pieces_of(data_set, self._fragment_bytes)
                piece = next(pieces, memoryview(b""))
                for following in pieces:
                    pending += [pdu.p_data_header(context_id, len(piece), 0), piece]
                    piece = following
                    if len(pending) >= 2 * _PDUS_PER_CALL:
                        self._connection.send(pending)
                        pending = []
                padding = b"\0" if pads_to_even and len(piece) % 2 else b""
                last_bytes = len(piece) + len(padding)
                pending += [pdu.p_data_header(context_id, last_bytes, pdu.PDV_IS_LAST), piece]
                if padding:
                    pending.append(padding)
            self._connection.send(pending)
            is_whole = True
        except PeerError as error:
            self.failure = error
            raise
        finally:
            if not is_whole and self.failure is None and self._connection.sent_bytes > sent_bytes:
                self.failure = AssociationAborted("a message could not be sent to its end")

    def _command_pdus(self, context_id: int, command: Command) -> list[bytes | memoryview]:
        encoded = memoryview(dimse.encode(command))
        pending: list[bytes | memoryview] = []
        for begin in range(0, len(encoded), self._fragment_bytes):
            piece = encoded[begin : begin + self._fragment_bytes]
            is_last = begin + len(piece) == len(encoded)
            control = pdu.PDV_IS_COMMAND | (pdu.PDV_IS_LAST if is_last else 0)
            pending += [pdu.p_data_header(context_id, len(piece), control), piece]
        return pending


def _fragment_bytes(peer_max_pdu_bytes: int) -> int:
    """Largest fragment for a peer that takes PDUs of ``peer_max_pdu_bytes`` (0: no limit), even."""
    longest = (peer_max_pdu_bytes or _DEFAULT_PDU_BYTES) - pdu.PDV_HEADER_BYTES
    return max(min(longest, _LARGEST_FRAGMENT_BYTES) // 2 * 2, 2)


def _pieces_of(data_set: BinaryIO | bytes, piece_bytes: int) -> Iterator[memoryview]:
    if isinstance(data_set, bytes | bytearray | memoryview):
        whole = memoryview(data_set)
        for begin in range(0, len(whole), piece_bytes):
            yield whole[begin : begin + piece_bytes]
        return
    while piece := data_set.read(piece_bytes):
        while len(piece) < piece_bytes and (more := data_set.read(piece_bytes - len(piece))):
            piece += more
        yield memoryview(piece)


def _unexpected(how: str) -> Violation:
    return Violation(how, AbortReason.UNEXPECTED_PDU_PARAMETER)


def _invalid(how: str) -> Violation:
    return Violation(how, AbortReason.INVALID_PDU_PARAMETER_VALUE)
