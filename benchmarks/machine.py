"""Where and with what the figures were taken."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import executable


def facts(folder: Path) -> dict[str, str]:
    """The machine, its disk, and the versions of everybody compared, by name."""
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GiB",
        "disk": _file_system(folder),
        "system": f"Linux {platform.release()}",
        "anode": f"{version('anode')}, Python {platform.python_version()}",
        "Orthanc": _first_line([executable("Orthanc", "orthanc"), "--version"]),
        "DCMTK": _first_line([executable("storescu", "dcmtk"), "--version"]),
        "pynetdicom": version("pynetdicom"),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.machine()


def _file_system(folder: Path) -> str:
    """Type and device of the file system that holds ``folder``: the longest mount point above it."""
    best = ("", "unknown", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount_point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(mount_point) and len(mount_point) >= len(best[0]):
            best = (mount_point, kind, device)
    return f"{best[1]} on {best[2]}"


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = [line.strip(" $") for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else "unknown"
