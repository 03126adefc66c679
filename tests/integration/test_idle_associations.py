"""Associations that say nothing: held, as many as configured, at the price of a few descriptors each."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.anode_process import ROOT, AnodeProcess
from tests.support.scripted_peer import (
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    EXPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    ScriptedPeer,
    associate_rq,
    echo_rq,
)
from tests.support.waiting import wait_until

ASSOCIATIONS = 60
# threads that come and go by the clock: three of the schedule, one that makes spare segments
BY_THE_CLOCK = 4
STATUS = 0x0900


# fewer than the associations need, and enough for what this process has open already
_TOO_FEW = 400


@contextmanager
def descriptor_limit(soft: int) -> Iterator[None]:
    """What is started meanwhile begins with a soft limit of so many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limited(associations: int) -> str:
    each = f"associations = {associations}\nassociations_per_peer = {associations}\n"
    return f"[limits]\n{each}network_timeout_seconds = 600\n"


def requested(port: int) -> tuple[ScriptedPeer, int]:
    """Request an association; return the peer and the type of the PDU that answers."""
    peer = ScriptedPeer(socket.create_connection(("127.0.0.1", port), 20.0), 20.0)
    peer.send(associate_rq({1: (VERIFICATION, (EXPLICIT_VR_LITTLE_ENDIAN,))}))
    return peer, peer.read_pdu()[0]


def echo(peer: ScriptedPeer) -> int | str:
    """Send a C-ECHO; return its status."""
    peer.request(1, echo_rq())
    return peer.read_message()[0][STATUS]


def test_idle_associations_are_held_and_leave_nothing_behind(tmp_path: Path) -> None:
    """All places but one are idle and a C-ECHO is answered; when they end, descriptors are as before."""
    with AnodeProcess(tmp_path, limited(ASSOCIATIONS + 1)) as node, ExitStack() as opened:
        first, answer = requested(node.port)
        with first.socket:
            assert answer == A_ASSOCIATE_AC
            assert echo(first) == 0
            few = node.open_now()  # with one association, whose index and threads are there by now
            for _ in range(ASSOCIATIONS):
                peer, answer = requested(node.port)
                opened.enter_context(peer.socket)
                assert answer == A_ASSOCIATE_AC
            descriptors, threads = node.open_now()
            assert descriptors <= few[0] + 2 * ASSOCIATIONS
            assert threads <= few[1] + ASSOCIATIONS + BY_THE_CLOCK
            assert echo(first) == 0
            refused, answer = requested(node.port)
            with refused.socket:
                assert answer == A_ASSOCIATE_RJ
            opened.close()
            wait_until(lambda: node.open_now()[0] == few[0], 20.0, "descriptors to be given back")
            wait_until(lambda: node.open_now()[1] <= few[1] + BY_THE_CLOCK, 20.0, "threads to be given back")
            assert echo(first) == 0


def test_a_node_raises_its_descriptor_limit_for_its_associations(tmp_path: Path) -> None:
    """A soft limit that is too low for limits.associations is raised at start, and they all get in."""
    with (
        descriptor_limit(_TOO_FEW),
        AnodeProcess(tmp_path, limited(ASSOCIATIONS)) as node,
        ExitStack() as opened,
    ):
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for _ in range(ASSOCIATIONS):
            peer, answer = requested(node.port)
            opened.enter_context(peer.socket)
            assert answer == A_ASSOCIATE_AC


def test_a_node_that_may_not_open_enough_descriptors_does_not_start(tmp_path: Path) -> None:
    """Where the hard limit is too low, anode run says which key, how many, and what to do; status 2."""
    file = tmp_path / "config.toml"
    file.write_text(f'[node]\nport = 0\ndata_dir = "data"\n{limited(500)}')
    # the hard limit cannot be raised again, so it is lowered in the child alone
    command = f"ulimit -n 1000 && exec {sys.executable} -m node run --config {file}"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "[limits] associations: 500 need 2256 file descriptors, the system allows 1000" in done.stderr
    assert "LimitNOFILE" in done.stderr
