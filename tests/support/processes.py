"""Which processes there are, and whether they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def processes_with(variable: bytes) -> list[int]:
    """Processes whose environment holds ``variable``, as ``NAME=value`` with the zero behind it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if variable in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def descendants(process_id: int) -> Iterator[int]:
    """The children of a process, and theirs."""
    try:
        threads = list(Path(f"/proc/{process_id}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield child
        yield from descendants(child)
