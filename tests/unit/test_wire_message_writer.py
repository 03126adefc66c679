"""Messages go out whole, in PDUs that the peer takes, wherever their data set lies."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from node.errors import PeerError
from node.storage.window import LastingWindow
from node.wire.connection import Connection, ConnectionLost
from node.wire.dimse import Command
from node.wire.message_writer import InFiles, MessageWriter

COMMAND = Command(
    CommandField=1, MessageID=7, AffectedSOPClassUID="1.2.3", CommandDataSetType=1, AffectedSOPInstanceUID="4"
)
MAX_PDU_BYTES = [4096, 16384, 131072, 0]


class Pieces:
    """A data set that lies in several files, in pieces of any length."""

    def __init__(self, folder: Path, content: bytes, *lengths: int) -> None:
        self.file = os.open(folder / "pieces", os.O_RDWR | os.O_CREAT)
        os.write(self.file, b"before" + content)
        self.lengths = lengths
        self.length = len(content)

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        begin = 0
        for length in [*self.lengths, self.length]:
            count = min(length, self.length - begin)
            yield self.file, 6 + begin, count
            begin += count

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert (offset, whence) == (0, os.SEEK_END)
        return self.length


def source(kind: str, folder: Path, content: bytes) -> Any:
    path = folder / "file"
    path.write_bytes(b"before" + content + b"behind")
    sources: dict[str, Any] = {
        "memory": lambda: content,
        "stream": lambda: io.BytesIO(content),
        "file": lambda: LastingWindow(os.open(path, os.O_RDONLY), 6, len(content), owns_file=True),
        "files": lambda: Pieces(folder, content, 1, 3, 5000, 70001),
    }
    return sources[kind]()


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def written(data_set: BinaryIO | bytes | None, max_pdu_bytes: int, **options: bool) -> bytes:
    """What a peer reads from its socket until the end."""
    ours, theirs = connected()
    got = bytearray()

    def read() -> None:
        while chunk := theirs.recv(65536):
            got.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        connection = Connection(ours, timeout_seconds=10)
        MessageWriter(connection, max_pdu_bytes).send(3, COMMAND, data_set, **options)
        assert connection.sent_bytes
        connection.close()
    finally:
        ours.close()
        reader.join()
        theirs.close()
    return bytes(got)


def fragments(stream: bytes, max_pdu_bytes: int) -> list[tuple[int, bytes]]:
    """Control byte and fragment of each PDU; every length has to be right."""
    found = []
    while stream:
        kind, length, item, context_id, control = struct.unpack_from(">BxIIBB", stream)
        assert (kind, context_id) == (4, 3)
        assert item == length - 4
        assert not max_pdu_bytes or length <= max_pdu_bytes
        found.append((control, stream[12 : 6 + length]))
        stream = stream[6 + length :]
    return found


@pytest.mark.parametrize("kind", ["memory", "stream", "file", "files"])
@pytest.mark.parametrize("max_pdu_bytes", MAX_PDU_BYTES)
@pytest.mark.parametrize("length", [0, 1, 2, 4090, 4091, 16378, 262144, 700001])
def test_a_data_set_arrives_whole_in_pdus_that_the_peer_takes(
    tmp_path: Path, kind: str, max_pdu_bytes: int, length: int
) -> None:
    """A data set of any length, from memory or from files, arrives as it is, its last fragment marked."""
    content = os.urandom(length)
    found = fragments(written(source(kind, tmp_path, content), max_pdu_bytes), max_pdu_bytes)
    commands = [fragment for control, fragment in found if control & 1]
    data = [(control, fragment) for control, fragment in found if not control & 1]
    assert b"".join(commands).endswith(b"4\0")
    assert b"".join(fragment for _, fragment in data) == content
    assert [control for control, _ in data] == [0] * (len(data) - 1) + [2]
    assert not any(len(fragment) % 2 for _, fragment in data[:-1])


@pytest.mark.parametrize("kind", ["memory", "stream", "file", "files"])
@pytest.mark.parametrize("length", [0, 3, 4, 4091, 8181])
def test_padding_makes_the_length_even_inside_the_last_fragment(
    tmp_path: Path, kind: str, length: int
) -> None:
    """With ``pads_to_even`` one NUL follows what is odd, and nothing follows what is even."""
    content = os.urandom(length)
    found = fragments(written(source(kind, tmp_path, content), 4096, pads_to_even=True), 4096)
    data = [fragment for control, fragment in found if not control & 1]
    assert b"".join(data) == content + b"\0" * (length % 2)


def test_a_command_without_data_set_is_one_last_fragment() -> None:
    """A message without a data set ends with its command set."""
    ((control, _),) = fragments(written(None, 16384), 16384)
    assert control == 3


def test_files_are_told_from_what_has_to_be_read(tmp_path: Path) -> None:
    """A window of a file is sent by the system; a stream cannot be."""
    assert isinstance(source("file", tmp_path, b"x"), InFiles)
    assert not isinstance(io.BytesIO(), InFiles)


def test_a_file_that_ends_early_is_an_error_and_not_a_shorter_message(tmp_path: Path) -> None:
    """What is missing of a file is never made up, and the last fragment does not go out."""
    path = tmp_path / "short"
    path.write_bytes(bytes(5000))
    ours, theirs = connected()
    connection = Connection(ours, timeout_seconds=10)
    short = LastingWindow(os.open(path, os.O_RDONLY), 0, 9000, owns_file=True)
    with short, pytest.raises(OSError, match="early") as raised:
        MessageWriter(connection, 4096).send(3, COMMAND, short)
    assert not isinstance(raised.value, PeerError)
    connection.close()
    got = b""
    while chunk := theirs.recv(65536):
        got += chunk
    theirs.close()
    assert len(got) < 9000


def test_a_peer_that_is_gone_is_a_lost_connection(tmp_path: Path) -> None:
    """The kernel's error becomes ConnectionLost, from files as from memory."""
    for kind in ("memory", "file"):
        ours, theirs = connected()
        connection = Connection(ours, timeout_seconds=10)
        theirs.close()
        with pytest.raises(ConnectionLost):
            MessageWriter(connection, 4096).send(3, COMMAND, source(kind, tmp_path, bytes(1 << 20)))
        connection.close()
