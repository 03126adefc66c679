"""What a command and the node say to each other when something is imported."""

from __future__ import annotations

import socket

import pytest

from node.importing.messages import Ended, Line


@pytest.mark.parametrize(
    "said", [b"\xff", b"{", b"[1]", b"[" * 100_000], ids=["bytes", "half", "list", "nested"]
)
def test_who_says_what_is_no_offer_ends_the_conversation_alone(said: bytes) -> None:
    one, other = map(Line, socket.socketpair())
    try:
        one.send(said)
        with pytest.raises(Ended):
            other.hear()
    finally:
        one.close()
        other.close()
