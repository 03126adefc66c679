"""Memory that is resident in no process of a model counts to it all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import ModelOutOfMemory
from tests.support.model_runs import ModelRuns, model_runs

ROOT = Path(__file__).parents[2]
SEMAPHORES = """
import ctypes
library = ctypes.CDLL(None, use_errno=True)
made = 0
while made < 200 and library.semget(0, {each}, 0o1600) >= 0: made += 1
"""
MESSAGES = """
import ctypes
library = ctypes.CDLL(None, use_errno=True)
message = ctypes.create_string_buffer(8 + 8192)
ctypes.c_long.from_buffer(message).value = 1
made = 0
while made < 500 and (queue := library.msgget(0, 0o1600)) >= 0:
    made += 1
    while not library.msgsnd(queue, message, 8192, 0o4000): pass
"""
#: ``pairs`` sockets, with as much in each as there is room for.
SOCKETS = """
import resource, socket
kept, sent = [], 0
try:
    while len(kept) < {pairs}:
        kept.append(socket.socketpair())
        for one in kept[-1]:
            one.setblocking(False)
            try:
                while True: sent += one.send(b"x" * 65536)
            except BlockingIOError:
                pass
except OSError as error:
    said = error.errno
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRuns]:
    with model_runs(tmp_path, monkeypatch) as runs:
        yield runs


def test_what_lies_in_sockets_counts(runs: ModelRuns) -> None:
    code = f"import os, time\nos.fork()\n{SOCKETS.format(pairs=2000)}\ntime.sleep(600)"
    with pytest.raises(ModelOutOfMemory, match=r"held more than 256 MB of .* what lies in sockets"):
        runs.told(code)
    assert runs.processes() == []


def test_a_few_sockets_are_no_matter(runs: ModelRuns) -> None:
    assert runs.told(f"{SOCKETS.format(pairs=10)}\nimport time; time.sleep(1); said = len(kept)") == "10"


def test_a_process_has_no_more_files_open_than_any_needs(runs: ModelRuns) -> None:
    code = "import resource; said = resource.getrlimit(resource.RLIMIT_NOFILE)"
    soft, hard = map(int, runs.told(code).strip("()").split(","))
    assert soft <= hard <= 4096


def test_tables_of_pages_count(runs: ModelRuns) -> None:
    code = (
        "import mmap, time\n"
        "mapped = mmap.mmap(-1, 1 << 38, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000,"
        " prot=mmap.PROT_READ)\n"
        # Each page that is read is the one of zeros, and has a table of its own.
        "for at in range(0, 1 << 38, 1 << 21): mapped[at]\n"
        "time.sleep(600)"
    )
    with pytest.raises(ModelOutOfMemory, match="more than the 300 MB"):
        runs.told(code, memory_mb=300)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may set these limits")
@pytest.mark.parametrize(
    ("code", "most"), [(SEMAPHORES.format(each=32000), 0), (SEMAPHORES.format(each=250), 128), (MESSAGES, 32)]
)
def test_semaphores_and_messages_are_limited_where_that_is_permitted(
    runs: ModelRuns, code: str, most: int
) -> None:
    own = Path("/proc/sys/kernel/sem").read_text(), Path("/proc/sys/kernel/msgmni").read_text()
    assert int(runs.told(f"{code}\nsaid = made")) <= most
    assert own == (Path("/proc/sys/kernel/sem").read_text(), Path("/proc/sys/kernel/msgmni").read_text())


@pytest.mark.parametrize(("code", "least_mb"), [(SEMAPHORES.format(each=32000), 700), (MESSAGES, 7)])
def test_what_no_limit_is_permitted_for_counts(code: str, least_mb: int) -> None:
    """To a user without privileges it is not."""
    script = (
        "import ctypes, os, sys\nfrom node.processes import confinement, unowned_memory\n"
        "if os.getuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "confinement.leave('whole', allow_network=False)\n"
        f"assert unowned_memory.held_bytes(with_sockets=True) == 0\n{code}\n"
        "print(unowned_memory.held_bytes(with_sockets=True))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert ran.stderr == ""
    assert int(ran.stdout) >> 20 >= least_mb
