"""Notes which files a Python process, and those that it starts, make or write: in a file, a path a line.

Used as an environment: the interpreter loads ``sitecustomize`` from the folder at its start.
"""

from __future__ import annotations

from pathlib import Path

_HOOK = """
import os, sys

_trace = os.open(os.environ["WATCHED_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _note(event, arguments):
    if event == "open":
        path, flags = arguments[0], arguments[2] or 0
        if not flags & _WRITING:
            return
    elif event in ("os.mkdir", "sqlite3.connect"):
        path = arguments[0]
    elif event in ("os.rename", "os.link", "os.symlink"):
        path = arguments[1]
    else:
        return
    if isinstance(path, (str, bytes, os.PathLike)):
        path = os.fsdecode(path)
        within = arguments[-1] if event.startswith("os.") else -1
        if isinstance(within, int) and within >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{within}"), path)
        if path not in ("", ":memory:"):
            os.write(_trace, (os.path.realpath(path) + "\\n").encode())


sys.addaudithook(_note)
"""


class Watch:
    """A folder with the hook and the trace; ``environment`` is for the process to be watched."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(_HOOK)
        self._trace = folder / "trace"
        self.environment = {
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WATCHED_TRACE": str(self._trace),
        }

    def written(self) -> set[Path]:
        """What was made or written so far, devices and the kernel's own files aside."""
        lines = self._trace.read_text().splitlines()
        return {Path(line) for line in lines if not line.startswith(("/dev/", "/proc/"))}
