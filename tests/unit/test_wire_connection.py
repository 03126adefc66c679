"""A connection, plain and over TLS: whole bytes in order, waits that end, other threads that may act."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from node.wire.connection import Connection, ConnectionLost, PeerStalled
from node.wire.tls import ListenerTls
from node.wire.tls_connection import TlsConnection
from tests.support.certificates import Authority
from tests.support.waiting import wait_until

Pairing = Callable[..., "contextmanager[tuple[Connection, socket.socket]]"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    return ListenerTls(authority.config(authority.issue("anode"), verify_peers=False)).context()


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest) -> Pairing:
    """Make a connection of ours and the peer's end of it."""
    if request.param == "plain":
        return _plain_pair
    context = request.getfixturevalue("tls")

    @contextmanager
    def tls_pair(timeout_seconds: float = 10.0) -> Iterator[tuple[Connection, socket.socket]]:
        with secured(context, timeout_seconds) as both:
            yield both

    return tls_pair


@contextmanager
def _plain_pair(timeout_seconds: float = 10.0) -> Iterator[tuple[Connection, socket.socket]]:
    ours, peer = tcp_pair()
    with peer, closing(Connection(ours, timeout_seconds=timeout_seconds, is_wakeable=True)) as connection:
        connection.establish(time.monotonic())
        yield connection, peer


@contextmanager
def secured(
    context: ssl.SSLContext, timeout_seconds: float = 10.0
) -> Iterator[tuple[TlsConnection, ssl.SSLSocket]]:
    ours, other = tcp_pair()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    made = TlsConnection(ours, context, timeout_seconds=timeout_seconds, is_wakeable=True)
    with closing(made) as connection:
        serving = threading.Thread(target=connection.establish, args=(time.monotonic() + 10.0,))
        serving.start()
        with asking.wrap_socket(other, suppress_ragged_eofs=False) as peer:
            serving.join()
            yield connection, peer


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), 10.0)
        return listener.accept()[0], peer


def received_by(peer: socket.socket, count: int) -> tuple[threading.Thread, bytearray]:
    """Read ``count`` bytes in another thread."""
    received = bytearray()

    def read() -> None:
        while len(received) < count and (piece := peer.recv(min(count - len(received), 1_000_000))):
            received.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, received


def file_of(folder: Path, content: bytes) -> int:
    path = folder / "file"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def test_buffers_arrive_whole_and_in_order(pair: Pairing) -> None:
    """Many small buffers and large ones come out joined, though the peer reads late."""
    large = memoryview(os.urandom(3_000_001))
    buffers: list[bytes | memoryview] = [b"", b"a" * 12, large, b"z", b"y" * 70_000]
    whole = b"".join(buffers)
    with pair() as (connection, peer):
        thread, received = received_by(peer, len(whole))
        connection.send(buffers)
        thread.join(10.0)
        assert bytes(received) == whole
        assert connection.sent_bytes == len(whole)


def test_a_part_of_a_file_follows_its_header(pair: Pairing, tmp_path: Path) -> None:
    """send_file sends exactly the bytes that were asked for, and moves no file position."""
    content = os.urandom(4_000_003)
    file = file_of(tmp_path, content)
    whole = b"header" + content[11:3_999_999] + b"next" + content[:1] + b"alone"
    with pair() as (connection, peer):
        thread, received = received_by(peer, len(whole))
        connection.send_file([b"hea", memoryview(b"der")], file, 11, 3_999_988)
        connection.send_file([b"next"], file, 0, 1)
        connection.send_file([b"alone"], file, 0, 0)
        thread.join(10.0)
        assert bytes(received) == whole
        assert connection.sent_bytes == len(whole)
        assert os.lseek(file, 0, os.SEEK_CUR) == 0
    os.close(file)


def test_a_file_that_the_system_cannot_send_is_read_instead(
    pair: Pairing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sendfile is refused half way, the rest goes by reading, and nothing twice."""
    content = os.urandom(900_000)
    file = file_of(tmp_path, content)
    real = os.sendfile
    calls = []

    def refuses(out: int, source: int, offset: int, count: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(22, "Invalid argument")
        return real(out, source, offset, min(count, 5000))

    monkeypatch.setattr(os, "sendfile", refuses)
    with pair() as (connection, peer):
        thread, received = received_by(peer, len(content))
        connection.send_file([b""], file, 0, len(content))
        thread.join(10.0)
        assert bytes(received) == content
        assert isinstance(connection, TlsConnection) or len(calls) == 2
    os.close(file)


def test_a_file_that_ends_early_fails_and_nothing_follows(pair: Pairing, tmp_path: Path) -> None:
    """A file shorter than was promised is an OSError, and no A-ABORT is put into the open PDU."""
    file = file_of(tmp_path, b"0123456789")
    with pair() as (connection, peer):
        with pytest.raises(OSError, match="ends 5 bytes early"):
            connection.send_file([b"head"], file, 5, 10)
        connection.try_send(b"abort")
        connection.shutdown()
        received = b""
        try:
            while piece := peer.recv(100):
                received += piece
        except ssl.SSLEOFError:
            pass
    assert received in (b"head56789", b"")
    os.close(file)


def test_nobody_speaks_in_the_middle_of_a_pdu(pair: Pairing, tmp_path: Path) -> None:
    """A PDU that is sent in parts, from several files, is not cut by what another thread has to say."""
    file = file_of(tmp_path, b"0123456789")
    with pair() as (connection, peer):
        connection.send_file([b"head"], file, 0, 4, ends_pdu=False)
        connection.try_send(b"abort")
        connection.send_file([], file, 4, 6, b"pad")
        connection.try_send(b"abort")
        received = b""
        while len(received) < 22:
            received += peer.recv(100)
    assert received == b"head0123456789padabort"
    os.close(file)


def test_a_peer_that_takes_nothing_stalls_a_file(pair: Pairing, tmp_path: Path) -> None:
    """A peer that does not read is PeerStalled after the timeout, for a file as for memory."""
    file = file_of(tmp_path, bytes(30_000_000))
    with pair(timeout_seconds=0.3) as (connection, _), pytest.raises(PeerStalled):
        connection.send_file([b"head"], file, 0, 30_000_000)
    with pair(timeout_seconds=0.3) as (connection, _), pytest.raises(PeerStalled):
        connection.send([bytes(30_000_000)])
    os.close(file)


def test_a_peer_that_closes_loses_the_connection_for_a_file(pair: Pairing, tmp_path: Path) -> None:
    """A peer that goes away while a file is sent is ConnectionLost, not a fault of the file."""
    file = file_of(tmp_path, bytes(30_000_000))
    with pair() as (connection, peer):
        threading.Timer(0.1, peer.close).start()
        with pytest.raises(ConnectionLost):
            connection.send_file([b"head"], file, 0, 30_000_000)
    os.close(file)


def test_receiving_takes_what_is_there_and_waits_for_the_least(pair: Pairing) -> None:
    """receive_some gives what came, at least as many bytes as were asked for."""
    with pair() as (connection, peer):
        peer.sendall(b"abc")
        view = memoryview(bytearray(100))
        assert connection.receive_some(view, 3) == 3
        peer.sendall(b"d")
        threading.Timer(0.1, peer.sendall, (b"ef",)).start()
        assert connection.receive_some(view[3:], 3) == 3
        assert bytes(view[:6]) == b"abcdef"
        assert connection.received_bytes == 6


def test_what_came_with_earlier_bytes_counts_as_readable(pair: Pairing) -> None:
    """Bytes that are here, wherever they are kept, are seen without waiting for the socket."""
    with pair() as (connection, peer):
        peer.sendall(b"0123456789")
        one = memoryview(bytearray(1))
        for expected in b"0123456789":
            assert connection.is_readable(10.0)
            assert connection.wait(10.0) == "data"
            connection.receive_some(one)
            assert one[0] == expected
        assert not connection.is_readable()


def test_half_a_record_is_not_readable(tls: ssl.SSLContext) -> None:
    """Bytes of TLS that decrypt to nothing yet neither count as data nor end a wait."""
    with secured(tls, timeout_seconds=0.3) as (connection, peer):
        peer.sendall(b"first")
        view = memoryview(bytearray(100))
        assert connection.receive_some(view) == 5
        raw = socket.socket(fileno=os.dup(peer.fileno()))
        raw.sendall(bytes([0x17, 3, 3, 0, 100]) + bytes(20))
        assert not connection.is_readable(0.05)
        assert connection.wait(0.05) == "timeout"
        with pytest.raises(PeerStalled):
            connection.receive_some(view)
        raw.close()


def test_a_deadline_passes_though_bytes_keep_coming(pair: Pairing) -> None:
    """ARTIM: a PDU that is not whole in time stalls."""
    with pair() as (connection, peer):
        peer.sendall(b"half")
        with pytest.raises(PeerStalled, match="in time"):
            connection.receive_before(memoryview(bytearray(8)), time.monotonic() + 0.1)


def test_another_thread_wakes_the_one_that_waits(pair: Pairing) -> None:
    """wake ends a wait at once, and one wake does not end the next."""
    with pair() as (connection, _):
        threading.Timer(0.05, connection.wake).start()
        assert connection.wait(10.0) == "woken"
        assert connection.wait(0.05) == "timeout"


def test_another_thread_sends_while_the_owner_receives(pair: Pairing) -> None:
    """A-ABORT leaves at once though the owning thread waits for the peer, and both go on."""
    with pair() as (connection, peer):
        view = memoryview(bytearray(5))
        owner = threading.Thread(target=connection.receive_some, args=(view, 5))
        owner.start()
        for _ in range(200):
            connection.try_send(b"abort")
        received = b""
        while len(received) < 1000:
            received += peer.recv(1000)
        assert received == b"abort" * 200
        peer.sendall(b"there")
        owner.join(10.0)
        assert bytes(view) == b"there"


def test_another_thread_ends_the_wait_for_the_peer(pair: Pairing) -> None:
    """shutdown makes the owner's receiving end as a lost connection."""
    with pair() as (connection, _):
        threading.Timer(0.05, connection.shutdown).start()
        with pytest.raises(ConnectionLost):
            connection.receive_some(memoryview(bytearray(5)))


def test_the_end_of_the_stream_is_told_after_the_last_byte(pair: Pairing) -> None:
    """Bytes before the end are given first, then the end, again and again."""
    with pair() as (connection, peer):
        peer.sendall(b"last")
        _end(peer)
        view = memoryview(bytearray(100))
        assert connection.receive_some(view, 4) == 4
        assert connection.is_readable(10.0)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="closed the connection"):
                connection.receive_some(view)


def _end(peer: socket.socket) -> None:
    if isinstance(peer, ssl.SSLSocket):
        peer.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            peer.unwrap()  # close_notify
    else:
        peer.shutdown(socket.SHUT_WR)


def test_closing_over_tls_says_that_nothing_was_cut_off(tls: ssl.SSLContext) -> None:
    """close sends close_notify, so the peer's reading ends cleanly; a plain end would raise there."""
    with secured(tls) as (connection, peer):
        connection.send([b"bye"])
        connection.close()
        assert peer.recv(3) == b"bye"
        assert peer.recv(1) == b""


def test_a_cut_over_tls_is_no_clean_end(tls: ssl.SSLContext) -> None:
    """The peer of a connection that is shut down without close_notify can tell."""
    with secured(tls) as (connection, peer):
        connection.shutdown()
        with pytest.raises(ssl.SSLEOFError):
            peer.recv(1)


def test_a_connection_costs_two_descriptors_and_gives_them_back(pair: Pairing) -> None:
    """The socket and what wakes it, and nothing once it is closed."""
    before = len(os.listdir("/proc/self/fd"))
    with pair():
        wait_until(lambda: len(os.listdir("/proc/self/fd")) == before + 3)  # the peer's end is one
    assert len(os.listdir("/proc/self/fd")) == before
