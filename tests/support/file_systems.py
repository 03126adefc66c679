"""A small file system of its own for a test, so that it can really be full or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallFileSystem:
    """One in memory; ``path`` is where it is mounted."""

    path: Path

    def remount(self, option: str) -> None:
        """Mount it again, ``ro`` or ``rw``; nothing may be open for writing."""
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True, timeout=30)

    def free_bytes(self) -> int:
        """What is free."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize


@contextmanager
def small_file_system(path: Path, *, megabytes: int) -> Iterator[SmallFileSystem]:
    """Mount one at ``path``; skip the test, saying why, where this user may not."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path],
        check=False,
        timeout=30,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallFileSystem(path)
    finally:
        subprocess.run(["umount", "-l", path], check=False, timeout=30)
