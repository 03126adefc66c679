"""What a run leaves on the disk and in shared memory of a process that stays for the next one: removed.

The next run is that of another patient. What a model keeps in its own memory is its own affair.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

#: What a file was when nothing of a patient could be in it; folders are only there or not.
_Facts = tuple[int, int, int] | None


class Traces:
    """Remembers what lies in ``places`` when it is made.

    Parameters
    ----------
    places
        folders that outlast a run
    but
        that of the first run, which does not
    """

    def __init__(self, places: list[Path], but: Path) -> None:
        self._places = places
        self._kept = dict(self._listed(but))

    def remove(self, but: Path) -> bool:
        """Remove what has come since, ``but`` for one folder; return whether all is as it was.

        A file that has changed cannot be made what it was.
        """
        there = dict(self._listed(but))
        try:
            for path in there.keys() - self._kept.keys():
                if os.path.islink(path) or not os.path.isdir(path):
                    os.unlink(path)
                else:
                    shutil.rmtree(path)
        except FileNotFoundError:
            # It went with the folder that it lay in.
            return self.remove(but)
        except OSError:
            return False
        return all(there.get(path, ()) == facts for path, facts in self._kept.items())

    def _listed(self, but: Path) -> Iterator[tuple[str, _Facts]]:
        to_ask = list(map(str, self._places))
        while to_ask:
            folder = to_ask.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError:
                # Nobody may look into it, the model itself included; or it is gone.
                continue
            for entry in entries:
                if entry.path == str(but):
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder:
                    to_ask.append(entry.path)
                yield entry.path, None if is_folder else _facts(entry)


def _facts(entry: os.DirEntry[str]) -> _Facts:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
