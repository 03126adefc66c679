"""A process that works for the node stands back where both want the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Of <linux/ioprio.h>; the class is in the bits from 13.
BEST_EFFORT, IDLE = 2, 3
TELLS = """
import ctypes, os, sys
from node import subordinate
subordinate.stand_back(int(sys.argv[1]))
asked = ctypes.CDLL(None).syscall({"x86_64": 252, "aarch64": 31}[os.uname().machine], 1, 0)
print(os.nice(0), asked >> 13)
"""


@pytest.mark.parametrize(("niceness", "classes"), [(0, {0, BEST_EFFORT}), (5, {IDLE})])
def test_the_disk_serves_others_first(niceness: int, classes: set[int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELLS, str(niceness)], capture_output=True, text=True, check=True
    )
    nice, found = map(int, done.stdout.split())
    assert nice == min(19, os.nice(0) + niceness)
    assert found in classes
