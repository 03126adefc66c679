"""What a model has written: the files of its folder, and those without a name that it has open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOST_FILES = 200_000


@dataclass(frozen=True)
class Written:
    """Bytes on the disk and how many files and folders; ``is_all`` where nothing kept from being counted."""

    bytes: int
    files: int
    is_all: bool


def written(folder: Path, process_ids: Sequence[int]) -> Written:
    """Count what lies in a folder, and what these processes have open of its disk and have removed."""
    count = files = 0
    is_all = True
    to_ask = [str(folder)]
    while to_ask:
        try:
            with os.scandir(to_ask.pop()) as entries:
                for entry in entries:
                    files += 1
                    count += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        to_ask.append(entry.path)
                    if files > _MOST_FILES:
                        return Written(count, files, is_all=False)
        except FileNotFoundError:
            # It was removed meanwhile.
            continue
        except OSError:
            # Closed, or too deep to be named.
            is_all = False
    return Written(count + _removed_bytes(folder, process_ids), files, is_all)


def _removed_bytes(folder: Path, process_ids: Sequence[int]) -> int:
    """Of files that were removed and are open; one that several have open counts once."""
    device = folder.stat().st_dev
    taken: dict[int, int] = {}
    for process_id in process_ids:
        opened = f"/proc/{process_id}/fd"
        with suppress(OSError):
            for name in os.listdir(opened):
                # It may be closed meanwhile.
                with suppress(OSError):
                    facts = os.stat(f"{opened}/{name}")
                    if facts.st_dev == device and not facts.st_nlink:
                        taken[facts.st_ino] = 512 * facts.st_blocks
    return sum(taken.values())
