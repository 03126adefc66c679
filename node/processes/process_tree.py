"""Which processes a process has below it, and the memory that they hold (Linux; elsewhere there are none)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
    """Memory that a process holds and that no file backs, shared or its own, with the tables of its pages.

    0 for one that has ended.
    """
    facts = _facts(process_id)
    return 1024 * (facts["RssAnon"] + facts["RssShmem"] + facts["VmPTE"])


@dataclass(frozen=True)
class Held:
    """What processes hold together: memory that no file of a disk backs, and threads."""

    bytes: int
    threads: int


def held(process_ids: Sequence[int]) -> Held:
    """Return what these processes hold, with the tables of their pages.

    Files in memory count, mapped or not: those without a name that one of them has open, and those below
    the ``/dev/shm`` that they see where it is not that of this process. What is mapped of them counts for
    the processes, too, so of both the larger counts.
    """
    own = shared = threads = 0
    for process_id in process_ids:
        facts = _facts(process_id)
        own += 1024 * (facts["RssAnon"] + facts["VmPTE"])
        shared += 1024 * facts["RssShmem"]
        threads += facts["Threads"]
    in_files = _nameless_bytes(process_ids) + _shared_memory_bytes(process_ids)
    return Held(own + max(shared, in_files), threads)


def _facts(process_id: int) -> dict[str, int]:
    facts = {"RssAnon": 0, "RssShmem": 0, "VmPTE": 0, "Threads": 0}
    with suppress(OSError):
        for line in (_PROC / str(process_id) / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in facts:
                facts[name] = int(value.split()[0])
    return facts


def _nameless_bytes(process_ids: Sequence[int]) -> int:
    """Of the files that ``memfd_create`` made; one that several have open counts once."""
    taken: dict[tuple[int, int], int] = {}
    for process_id in process_ids:
        folder = f"{_PROC}/{process_id}/fd"
        with suppress(OSError):
            for name in os.listdir(folder):
                # It may be closed meanwhile.
                with suppress(OSError):
                    if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                        facts = os.stat(f"{folder}/{name}")
                        taken[facts.st_dev, facts.st_ino] = 512 * facts.st_blocks
    return sum(taken.values())


def _shared_memory_bytes(process_ids: Sequence[int]) -> int:
    for process_id in process_ids:
        place = f"{_PROC}/{process_id}/root/dev/shm"
        with suppress(OSError):
            if os.stat(place).st_dev == os.stat("/dev/shm").st_dev:
                return 0
            facts = os.statvfs(place)
            return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    return 0


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
