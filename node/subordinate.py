"""What a process that works for the node does first, so that it never stands in the node's way.

The node answers scanners; its children settle and analyse with what that leaves of the machine.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import platform
import resource
import signal
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

#: Processor time that an instance may take: so many seconds, and one more for so many bytes.
CPU_SECONDS, CPU_BYTES_PER_SECOND = 60.0, 1_000_000
_PR_SET_PDEATHSIG = 1
# The C library has no ioprio_set: its number by machine, and <linux/ioprio.h>.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_OF_A_PROCESS, _CLASS_IDLE, _CLASS_SHIFT = 1, 3, 13
_CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGXCPU,
    }
)
# Before the node when memory is short, after what has no claim to go on at all (-1000 to 1000).
_OOM_SCORE_ADJUSTMENT = 500


def begin_service(niceness: int) -> None:
    """What a process does first that works on instances until who started it closes the connection."""
    # Ctrl-C reaches every process of a terminal; who started this one says when it is time to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGTERM)
    stand_back(niceness)
    # What was loaded before lives until the end: the collector need not go through it again and again.
    gc.freeze()
    # What libraries say of a data set may name a patient.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def cpu_seconds(data_set_bytes: int) -> float:
    """Processor time after which an instance of this size is taken to hang its codec."""
    return CPU_SECONDS + data_set_bytes / CPU_BYTES_PER_SECOND


def stand_back(niceness: int) -> None:
    """Let the node go first wherever both want the same: processor, disk, memory.

    Parameters
    ----------
    niceness : int
        Added to that of the node: with each step this process gets a fifth less of a busy processor.
        Linux may share processors between sessions first, so it counts only in the session of the node.
        With any, the disk serves its reads and writes after those of others (on Linux, where the disk's
        scheduler knows such classes).
    """
    if niceness:
        os.nice(niceness)
        _read_and_write_when_idle()
    # The system ends it before the node, which can start another.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJUSTMENT))
    # A core file would hold images.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_and_write_when_idle() -> None:
    """Have the disk serve others first (ioprio_set(2)); this process waits for seconds at most."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None and sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(number, _OF_A_PROCESS, 0, _CLASS_IDLE << _CLASS_SHIFT)


def end_with_parent(by: signal.Signals) -> None:
    """Have the system send ``by`` when the process that made this one ends, however it ends (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)


def limit_processor_time(seconds: float) -> None:
    """Have the system end this process when it computes for so long from now on; waiting does not count."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most < 0 else min(limit, most), most))


def signal_in_words(number: int) -> str:
    """Why a process that ended by this signal did, most likely."""
    if number == signal.SIGXCPU:
        return "it took too long"
    if number == signal.SIGKILL:
        return "killed, most likely for lack of memory"
    return signal.strsignal(number) or f"signal {number}"


def is_crash(number: int) -> bool:
    """Whether a process that ended by this signal did so by its own fault, not by somebody's will."""
    return number in _CRASHES
