"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Analyses stand back: where others keep the processors busy, a few of them may take minutes.
ANALYSES_SECONDS = 600.0


def wait_until(predicate: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
    """Return as soon as ``predicate`` is true; fail when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)
