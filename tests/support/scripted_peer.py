"""A peer that speaks raw PDUs, so that it can do what no proper library would.

It shares no code with ``node/wire``: everything is encoded here from PS3.8 section 9.3.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF = 1, 2, 3, 4
A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 5, 6, 7
COMMAND, LAST = 1, 2


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU; ``length`` may lie."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def pdv(context_id: int, control: int, fragment: bytes, length: int | None = None) -> bytes:
    """A PDV item; ``length`` may lie."""
    size = len(fragment) + 2 if length is None else length
    return struct.pack(">IBB", size, context_id, control) + fragment


def role(abstract_syntax_uid: str, scu_role: int, scp_role: int) -> bytes:
    name = abstract_syntax_uid.encode()
    return item(0x54, struct.pack(">H", len(name)) + name + bytes([scu_role, scp_role]))


def associate_rq(
    contexts: dict[int, tuple[str, tuple[str, ...]]],
    *,
    called: str = "ANODE",
    calling: str = "SCRIPTED",
    application_context: str = "1.2.840.10008.3.1.1.1",
    max_pdu_bytes: int = 16384,
    protocol_version: int = 1,
    more_items: bytes = b"",
    more_user_items: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ PDU."""
    items = item(0x10, application_context.encode())
    for context_id, (abstract_syntax_uid, transfer_syntax_uids) in contexts.items():
        inner = item(0x30, abstract_syntax_uid.encode())
        inner += b"".join(item(0x40, syntax.encode()) for syntax in transfer_syntax_uids)
        items += item(0x20, bytes([context_id, 0, 0, 0]) + inner)
    user = item(0x51, struct.pack(">I", max_pdu_bytes)) + item(0x52, b"1.2.3") + more_user_items
    items += more_items + item(0x50, user)
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(A_ASSOCIATE_RQ, struct.pack(">HH", protocol_version, 0) + titles + bytes(32) + items)


def associate_ac(
    contexts: dict[int, tuple[int, str]], *, max_pdu_bytes: int = 16384, more_user_items: bytes = b""
) -> bytes:
    """An A-ASSOCIATE-AC PDU: context id to (result, transfer syntax)."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for context_id, (result, syntax) in contexts.items():
        items += item(0x21, bytes([context_id, 0, result, 0]) + item(0x40, syntax.encode()))
    user = item(0x51, struct.pack(">I", max_pdu_bytes)) + item(0x52, b"1.2.3") + more_user_items
    items += item(0x50, user)
    return pdu(A_ASSOCIATE_AC, struct.pack(">HH", 1, 0) + bytes(32) + bytes(32) + items)


def results_of(acceptance: bytes) -> dict[int, tuple[int, str]]:
    """Context id to (result, transfer syntax) of the body of an A-ASSOCIATE-AC."""
    found = {}
    for kind, value in items_of(acceptance[68:]):
        if kind == 0x21:
            found[value[0]] = (value[2], value[8:].decode())
    return found


def user_items_of(acceptance: bytes) -> list[tuple[int, bytes]]:
    """The user information sub-items of the body of an A-ASSOCIATE-AC."""
    return [inner for kind, value in items_of(acceptance[68:]) if kind == 0x50 for inner in items_of(value)]


def items_of(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    while encoded:
        kind, length = struct.unpack(">BxH", encoded[:4])
        yield kind, encoded[4 : 4 + length]
        encoded = encoded[4 + length :]


def command_set(**elements: int | str) -> bytes:
    """An encoded command set; keywords are element numbers as ``e0100``, values int (US) or str (UI)."""
    body = b""
    for name, value in sorted(elements.items()):
        if isinstance(value, int):
            encoded = struct.pack("<H", value)
        else:
            encoded = value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, int(name[1:], 16), len(encoded)) + encoded
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def decode_command_set(encoded: bytes) -> dict[int, int | str]:
    """Element number to value: int for two bytes, text for all else."""
    found: dict[int, int | str] = {}
    while encoded:
        group, number, length = struct.unpack("<HHI", encoded[:8])
        assert group == 0
        value = encoded[8 : 8 + length]
        found[number] = (
            struct.unpack("<H", value)[0] if length == 2 else value.decode("latin-1").rstrip(" \0")
        )
        encoded = encoded[8 + length :]
    return found


def echo_rq(message_id: int = 1) -> bytes:
    return command_set(e0002=VERIFICATION, e0100=0x0030, e0110=message_id, e0800=0x0101)


def store_rq(message_id: int = 1, instance: str = "1.2.3.4") -> bytes:
    return command_set(
        e0002=CT_IMAGE_STORAGE, e0100=0x0001, e0110=message_id, e0700=0, e0800=1, e1000=instance
    )


def find_rq(message_id: int = 1) -> bytes:
    return command_set(e0002=STUDY_ROOT_FIND, e0100=0x0020, e0110=message_id, e0700=0, e0800=1)


def cancel_rq(message_id: int = 1) -> bytes:
    return command_set(e0100=0x0FFF, e0120=message_id, e0800=0x0101)


CONTEXTS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    3: (CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    5: (STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
}


class ScriptedPeer:
    """One TCP connection and what can be said on it; reads fail after ``seconds``."""

    def __init__(self, connected: socket.socket, seconds: float = 10.0) -> None:
        self.socket = connected
        self.socket.settimeout(seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    @contextmanager
    def to(cls, port: int) -> Iterator[ScriptedPeer]:
        with socket.create_connection(("127.0.0.1", port)) as connected:
            yield cls(connected)

    def send(self, *encoded: bytes) -> None:
        self.socket.sendall(b"".join(encoded))

    def send_pdv(self, context_id: int, control: int, fragment: bytes) -> None:
        self.send(pdu(P_DATA_TF, pdv(context_id, control, fragment)))

    def request(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        self.send_pdv(context_id, COMMAND | LAST, command)
        if data_set is not None:
            self.send_pdv(context_id, LAST, data_set)

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self.socket.recv(count - len(received))
            if not more:
                raise EOFError(f"the node closed after {len(received)} of {count} bytes")
            received += more
        return received

    def read_pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def associate(self, **changes: object) -> bytes:
        """Request an association with ``CONTEXTS``; return the body of the A-ASSOCIATE-AC."""
        contexts = changes.pop("contexts", CONTEXTS)
        self.send(associate_rq(contexts, **changes))  # type: ignore[arg-type]
        kind, body = self.read_pdu()
        assert kind == A_ASSOCIATE_AC, (kind, body)
        return body

    def read_message(self) -> tuple[dict[int, int | str], bytes]:
        """Read one DIMSE message: its command set and its data set."""
        command = data_set = b""
        parsed: dict[int, int | str] | None = None
        while True:
            kind, body = self.read_pdu()
            assert kind == P_DATA_TF, (kind, body)
            while body:
                length, _, control = struct.unpack(">IBB", body[:6])
                fragment, body = body[6 : 4 + length], body[4 + length :]
                if control & COMMAND:
                    command += fragment
                else:
                    data_set += fragment
                if control & LAST:
                    parsed = parsed or decode_command_set(command)
                    if not control & COMMAND or parsed[0x0800] == 0x0101:
                        return parsed, data_set

    def release(self) -> None:
        self.send(pdu(A_RELEASE_RQ, bytes(4)))
        assert self.read_pdu() == (A_RELEASE_RP, bytes(4))

    def confirm_release(self) -> None:
        """Read an A-RELEASE-RQ, confirm it, and see the connection end."""
        assert self.read_pdu() == (A_RELEASE_RQ, bytes(4))
        self.send(pdu(A_RELEASE_RP, bytes(4)))
        self.expect_end()

    def read_abort(self) -> tuple[int, int]:
        """Read an A-ABORT, and close as AA-3 wants it; return its source and reason."""
        kind, body = self.read_pdu()
        assert kind == A_ABORT, (kind, body)
        self.close()
        return body[2], body[3]

    def close(self) -> None:
        """Close the connection from this side, and see that the other has nothing more to say."""
        with contextlib.suppress(OSError):  # the other side was first
            self.socket.shutdown(socket.SHUT_WR)
        self.expect_end()

    def expect_end(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1) == b""


@contextmanager
def scripted_acceptor(script: Callable[[ScriptedPeer], None]) -> Iterator[int]:
    """Listen on a free port, and run ``script`` on the first connection; yield the port."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with listener.accept()[0] as connected:
                script(ScriptedPeer(connected))
        except BaseException as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)
        thread = threading.Thread(target=run, name="scripted-acceptor")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10.0)
    if failures:
        raise failures[0]
