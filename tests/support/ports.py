"""A port that nobody listens on at the moment."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Ask the system for a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
