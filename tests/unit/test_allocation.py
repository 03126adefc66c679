"""Memory that images were made in is used again."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import resource
from node import allocation

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

allocation.keep_freed_memory()
for number in range(120):
    if number == 20:
        before = faults()
    frames = [bytearray(1 << 19) for _ in range(5)]
    del frames
print((faults() - before) // 100)
"""
_MANY_THREADS = """
import ctypes
import os
import threading
from node import allocation

if {is_told}:
    allocation.keep_freed_memory()
all_are_here = threading.Barrier(12 * os.cpu_count())

def allocate():
    made = bytearray(100_000)
    all_are_here.wait(60)

threads = [threading.Thread(target=allocate) for _ in range(all_are_here.parties)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""
_PAGES = 5 * (1 << 19) // 4096


def test_frames_are_made_in_memory_that_was_used_before() -> None:
    """Once some frames were made and freed, the next cost next to no page faults."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < _PAGES // 20


def test_many_threads_share_a_few_arenas() -> None:
    """There is one for each core, and no fewer than four; by default there would be many more."""
    arenas = {
        is_told: subprocess.run(
            [sys.executable, "-c", _MANY_THREADS.format(is_told=is_told)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr.count("Arena ")
        for is_told in (False, True)
    }
    assert arenas[True] <= max(os.cpu_count() or 1, 4) < arenas[False]
