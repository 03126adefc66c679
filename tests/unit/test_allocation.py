"""Memory that images were made in is used again."""

from __future__ import annotations

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
_PAGES = 5 * (1 << 19) // 4096


def test_frames_are_made_in_memory_that_was_used_before() -> None:
    """Once some frames were made and freed, the next cost next to no page faults."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < _PAGES // 20
