"""A process that works for the node, forked from a clean one, and how it is started and ended.

Multiprocessing's fork server has one thread and the modules loaded already: a start takes milliseconds, and
nothing of the node's threads and locks is copied. ``node/subordinate.py`` is what such a process does first.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from node import subordinate
from node.errors import StorageFailure

#: There is one fork server for the whole process, and who asks for an exit status takes it from others.
_LOCK = threading.RLock()
_CONTEXT = multiprocessing.get_context("forkserver")
_ENDS_WITHIN_SECONDS = 5.0
_preloaded: list[str] = []


def preload(module: str) -> None:
    """Have the fork server load a module before it forks."""
    _preloaded.append(module)
    _CONTEXT.set_forkserver_preload(_preloaded)


class Ending(NamedTuple):
    """How a process ended: ``reason`` in words, and the number of the signal, 0 where it ended by itself."""

    reason: str
    signal: int


class Forked:
    """A process that serves a connection until that is closed.

    Parameters
    ----------
    does : str
        What it does, for its name: ``settles``.
    target : callable
        Its work, of the other end of the connection and ``arguments``.

    Raises
    ------
    StorageFailure
        It cannot be started.
    """

    def __init__(self, does: str, target: Callable[..., None], *arguments: Any) -> None:
        try:
            self.connection, theirs = _CONTEXT.Pipe()
        except OSError as error:
            raise StorageFailure(f"no process that {does} can be started: {error}") from error
        with _LOCK, theirs:
            self._process = _CONTEXT.Process(target=target, args=(theirs, *arguments), name=does, daemon=True)
            try:
                self._process.start()
            except (OSError, EOFError) as error:
                self.connection.close()
                raise StorageFailure(f"no process that {does} can be started: {error}") from error

    @property
    def process_id(self) -> int:
        """Its number."""
        return self._process.pid or 0

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def tell_to_end(self) -> None:
        """Have it end at once, in the middle of its work too."""
        with _LOCK:
            # Who has ended may have lost its number to another process.
            if self._process.exitcode is None:
                self._process.terminate()

    def end(self) -> None:
        """Have it ended, the hard way when it does not end by itself."""
        self.tell_to_end()
        with _LOCK:
            self._process.join(_ENDS_WITHIN_SECONDS)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join(_ENDS_WITHIN_SECONDS)

    def ending(self) -> Ending:
        """Why the connection broke."""
        with _LOCK:
            self._process.join(_ENDS_WITHIN_SECONDS)
            status = self._process.exitcode
        if status is not None and status < 0:
            return Ending(subordinate.signal_in_words(-status), -status)
        return Ending(f"exit status {status}", 0)
