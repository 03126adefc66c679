"""Which processes a process has below it, and the memory that they hold (Linux; elsewhere there are none)."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def descendants(process_id: int) -> list[int]:
    """Return the children of a process, and theirs, those first that began first."""
    found = []
    try:
        for thread in sorted((_PROC / str(process_id) / "task").iterdir(), key=lambda one: int(one.name)):
            found += [int(child) for child in (thread / "children").read_text().split()]
    except OSError:
        # It has ended, or one of its threads has.
        pass
    return [each for child in found for each in (child, *descendants(child))]


def resident_bytes(process_id: int) -> int:
    """Memory that a process holds and that no file backs, shared or its own; 0 for one that has ended."""
    try:
        status = (_PROC / str(process_id) / "status").read_text()
    except OSError:
        return 0
    return 1024 * sum(
        int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))
    )


def available_bytes() -> int | None:
    """Memory that the machine can still give without ending anything; None where it does not say."""
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(one.split()[1]) for one in lines if one.startswith("MemAvailable:")), None)
