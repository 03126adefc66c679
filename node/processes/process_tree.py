"""Which processes a process has below it, and the memory that they hold (Linux; elsewhere there are none)."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def descendants(process_id: int) -> list[int]:
    """Return the children of a process, and theirs, those first that began first."""
    if not (_PROC / "self" / "task").exists():
        return []
    children = _children if _tells_children() else _children_by_search
    found, to_ask = [], children(process_id)[::-1]
    while to_ask:
        found.append(to_ask.pop())
        to_ask += children(found[-1])[::-1]
    return found


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


def _tells_children() -> bool:
    """Whether this kernel was built to (CONFIG_PROC_CHILDREN)."""
    return (_PROC / "thread-self" / "children").exists()


def _children(process_id: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in sorted((_PROC / str(process_id) / "task").iterdir(), key=lambda one: int(one.name)):
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        # It has ended, or one of its threads has.
        return found
    return found


def _children_by_search(process_id: int) -> list[int]:
    found = []
    for process in _PROC.glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process_id:
            found.append(int(process.name))
    return sorted(found)
