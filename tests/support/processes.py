"""Which processes another one started, and whether they are gone."""

from __future__ import annotations

from pathlib import Path


def descendants(process_id: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    children = [
        int(child)
        for thread in Path(f"/proc/{process_id}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [*children, *(found for child in children for found in descendants(child))]


def is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
