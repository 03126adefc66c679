"""Writes DIMSE messages in PDUs the peer can take: from memory, from files, or read piece by piece.

PS3.8 section 9.3.5 and annex E; PS3.7 annex F. Each PDU holds one PDV.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol, runtime_checkable

from node.wire import dimse, pdu
from node.wire.connection import Connection
from node.wire.dimse import Command

_DEFAULT_PDU_BYTES = 131072
_LARGEST_FRAGMENT_BYTES = 256 * 1024
# a system call takes 1024 buffers (IOV_MAX), and each PDU is two: its header and its fragment
_BUFFERS_PER_CALL = 1000
# what is read is held until it is sent, so fewer of them
_READ_BUFFERS_PER_CALL = 32

Buffers = list[bytes | memoryview]


@runtime_checkable
class InFiles(Protocol):
    """A data set that lies in open files, so that the system can send it from there."""

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Yield (file descriptor, offset, count), each valid until the next is asked for."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of a file; the end is the length of all pieces."""


DataSet = BinaryIO | bytes | bytearray | memoryview | InFiles


class MessageWriter:
    """Writes messages on a connection; used by one thread.

    Parameters
    ----------
    peer_max_pdu_bytes
        Longest PDU that the peer takes; 0 is no limit.
    """

    def __init__(self, connection: Connection, peer_max_pdu_bytes: int) -> None:
        self._connection = connection
        self._fragment_bytes = _fragment_bytes(peer_max_pdu_bytes)

    def send(
        self,
        context_id: int,
        command: Command,
        data_set: DataSet | None = None,
        *,
        pads_to_even: bool = False,
    ) -> None:
        """Send one message; a data set is sent as it is.

        What is in memory goes in as few system calls as its PDUs allow, what lies in files is sent by
        the system from there, anything else is read to its end, without being held whole.

        Parameters
        ----------
        pads_to_even
            A NUL follows a data set of odd length, as PS3.5 section A.5 wants it of a deflated one: many
            peers abort at a fragment of odd length.

        Raises
        ------
        ConnectionLost, PeerStalled
            The connection ended, or the peer took nothing for the network timeout.
        OSError, AnodeError
            ``data_set`` could not be read. A part of the message may have been sent.
        """
        pending = self._command_pdus(context_id, command)
        if data_set is None:
            self._connection.send(pending)
        elif isinstance(data_set, bytes | bytearray | memoryview):
            self._send_memory(pending, context_id, memoryview(data_set), pads_to_even)
        elif isinstance(data_set, InFiles):
            self._send_files(pending, context_id, data_set, pads_to_even)
        else:
            self._send_read(pending, context_id, data_set, pads_to_even)

    def _command_pdus(self, context_id: int, command: Command) -> Buffers:
        encoded = memoryview(dimse.encode(command))
        return list(self._pdus(context_id, encoded, pdu.PDV_IS_COMMAND, b""))

    def _pdus(
        self, context_id: int, whole: memoryview, control: int, padding: bytes
    ) -> Iterator[bytes | memoryview]:
        """Yield header and fragment of each PDU, the last marked as such; then the padding."""
        size = self._fragment_bytes
        begin = 0
        if len(whole) > size:
            header = pdu.p_data_header(context_id, size, control)
            while len(whole) - begin > size:
                yield header
                yield whole[begin : begin + size]
                begin += size
        rest = whole[begin:]
        yield pdu.p_data_header(context_id, len(rest) + len(padding), control | pdu.PDV_IS_LAST)
        yield rest
        if padding:
            yield padding

    def _send_memory(
        self, pending: Buffers, context_id: int, data_set: memoryview, pads_to_even: bool
    ) -> None:
        padding = b"\0" if pads_to_even and len(data_set) % 2 else b""
        pending += self._pdus(context_id, data_set, 0, padding)
        for begin in range(0, len(pending), _BUFFERS_PER_CALL):
            self._connection.send(pending[begin : begin + _BUFFERS_PER_CALL])

    def _send_files(self, pending: Buffers, context_id: int, data_set: InFiles, pads_to_even: bool) -> None:
        """A fragment may begin in one file and end in the next, as pieces may be of any length."""
        left = data_set.seek(0, os.SEEK_END)
        padding = b"\0" if pads_to_even and left % 2 else b""
        in_fragment = 0
        for file, begin, count in data_set.pieces():
            offset, end = begin, begin + count
            while offset < end:
                if not in_fragment:
                    in_fragment = min(left, self._fragment_bytes)
                    is_last = in_fragment == left
                    length = in_fragment + (len(padding) if is_last else 0)
                    pending.append(pdu.p_data_header(context_id, length, pdu.PDV_IS_LAST if is_last else 0))
                now = min(in_fragment, end - offset)
                offset += now
                in_fragment -= now
                left -= now
                after = b"" if left else padding
                self._connection.send_file(pending, file, offset - now, now, after, ends_pdu=not in_fragment)
                pending = []
        if pending:  # there was no byte
            pending.append(pdu.p_data_header(context_id, 0, pdu.PDV_IS_LAST))
            self._connection.send(pending)

    def _send_read(self, pending: Buffers, context_id: int, data_set: BinaryIO, pads_to_even: bool) -> None:
        pieces = _pieces_of(data_set, self._fragment_bytes)
        piece = next(pieces, b"")
        for following in pieces:
            pending += [pdu.p_data_header(context_id, len(piece), 0), piece]
            piece = following
            if len(pending) >= _READ_BUFFERS_PER_CALL:
                self._connection.send(pending)
                pending = []
        padding = b"\0" if pads_to_even and len(piece) % 2 else b""
        pending += self._pdus(context_id, memoryview(piece), 0, padding)
        self._connection.send(pending)


def _fragment_bytes(peer_max_pdu_bytes: int) -> int:
    """Largest fragment for a peer that takes PDUs of ``peer_max_pdu_bytes`` (0: no limit), even."""
    longest = (peer_max_pdu_bytes or _DEFAULT_PDU_BYTES) - pdu.PDV_HEADER_BYTES
    return max(min(longest, _LARGEST_FRAGMENT_BYTES) // 2 * 2, 2)


def _pieces_of(data_set: BinaryIO, piece_bytes: int) -> Iterator[bytes]:
    while piece := data_set.read(piece_bytes):
        while len(piece) < piece_bytes and (more := data_set.read(piece_bytes - len(piece))):
            piece += more
        yield piece
