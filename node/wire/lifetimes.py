"""How long associations last: which of them have to end, and when the next one will have to."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple


class Overdue(NamedTuple):
    """The threads whose associations are to end after their present message, and those to end at once.

    ``wait_seconds`` is the time until there is more to do; None where nothing is waited for.
    """

    to_finish: list[threading.Thread]
    to_abort: list[threading.Thread]
    wait_seconds: float | None


class Lifetimes:
    """Deadlines of the associations that are served; any thread may use it.

    Parameters
    ----------
    most_seconds
        How long one association may last; 0 is no limit.
    grace_seconds
        How long the message that is under way then may still take.
    """

    def __init__(self, *, most_seconds: float, grace_seconds: float) -> None:
        self._most_seconds = most_seconds
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._finish_at: dict[threading.Thread, float] = {}
        self._abort_at: dict[threading.Thread, float] = {}

    def begin(self, thread: threading.Thread) -> None:
        """Let the time of an association begin."""
        if self._most_seconds:
            with self._lock:
                self._finish_at[thread] = time.monotonic() + self._most_seconds

    def end(self, thread: threading.Thread) -> None:
        """Forget an association, which has ended."""
        with self._lock:
            self._finish_at.pop(thread, None)
            self._abort_at.pop(thread, None)

    def overdue(self) -> Overdue:
        """Say which associations are to end now; each is named once in each of the lists."""
        now = time.monotonic()
        with self._lock:
            to_finish = _taken(self._finish_at, now)
            to_abort = _taken(self._abort_at, now)
            self._abort_at.update(dict.fromkeys(to_finish, now + self._grace_seconds))
            # all last equally long: the first of each is the next
            following = [
                next(iter(waiting.values())) for waiting in (self._finish_at, self._abort_at) if waiting
            ]
        return Overdue(to_finish, to_abort, max(min(following) - now, 0.0) if following else None)


def _taken(deadlines: dict[threading.Thread, float], now: float) -> list[threading.Thread]:
    """Take out what is due; ``deadlines`` are in their order."""
    due = []
    for thread, deadline in deadlines.items():
        if deadline > now:
            break
        due.append(thread)
    for thread in due:
        del deadlines[thread]
    return due
