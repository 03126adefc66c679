"""DCMTK's command-line tools, as scanners and workstations use them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

#: The environment of whatever is built on DCMTK: without it, each short message may wait for 40 ms.
UNDELAYED = {**os.environ, "TCP_NODELAY": "1"}


def dcmtk(tool: str, *arguments: object, check: bool = True, cwd: Path | None = None) -> str:
    """Run a DCMTK tool and return what it printed; skip where DCMTK is absent."""
    executable = shutil.which(tool)
    if executable is None:
        pytest.skip(f"{tool} is not installed (Debian: dcmtk)")
    done = subprocess.run(
        [executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
        cwd=cwd,
        env=UNDELAYED,
    )
    assert not check or done.returncode == 0, f"{tool} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done.stdout
