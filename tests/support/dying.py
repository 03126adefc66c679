"""An ``anode`` command that is killed at a certain point, as ``killed_at`` starts it."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from node.__main__ import main

ROOT = Path(__file__).parents[2]


def killed_at(function: str, count: int, *arguments: str) -> None:
    """Run ``anode`` with ``arguments``, and see it die when ``function`` is called for the ``count``th time.

    ``function`` is a module and a name, as ``node.backup.copying:copy`` or
    ``node.importing.intake:Inside.take``; it does nothing in its last call.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.dying", function, str(count), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"it was not killed: {done.stdout}{done.stderr}"


def _arm(function: str, count: int) -> None:
    module_name, _, name = function.partition(":")
    place: Any = importlib.import_module(module_name)
    *path, name = name.split(".")
    for part in path:
        place = getattr(place, part)
    original = getattr(place, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(place, name, counted)


if __name__ == "__main__":
    _arm(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
