"""Notices that the system's clock was set, and moves by as much what waits for a time.

A pause stays as long as it was meant to be: nothing runs early because the clock was put forward, and
nothing waits for hours because it was put back. While the node runs, `Clock` goes on at the old time
until all is moved, in one transaction. While it does not run, a clock that was put back is noticed at
the next start; one that was put forward cannot be told from a long rest.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from node import confirmations
from node.clock import TOLERANCE_SECONDS
from node.errors import NodeError

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class ClockWatch:
    """Looks at the clock in a thread of its own, from ``start`` to ``stop``.

    Parameters
    ----------
    services
        The clock, and the rooms whose times are moved.
    when_moved
        Called after a step, for what sleeps until a time of day.
    """

    def __init__(self, services: Services, when_moved: Callable[[], None]) -> None:
        self._services = services
        self._when_moved = when_moved
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._watch, name="clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self) -> float:
        """Move what waits, if the clock was set; return by how many seconds. Raises DatabaseFailure."""
        clock = self._services.clock
        step_seconds = clock.step_seconds()
        if step_seconds:

            def move(connection: sqlite3.Connection) -> None:
                _move(self._services, connection, step_seconds)
                # what others write or ask for behind this, in the same commit too, has the new time
                clock.follow(step_seconds)

            try:
                self._services.database.write(move)
            except NodeError:
                if not clock.step_seconds():
                    clock.follow(-step_seconds)
                raise
            self._when_moved()
            _tell(step_seconds)
        return step_seconds

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except NodeError as error:
                logger.error("clock not followed", extra={"error": error.name, "reason": str(error)})


def make_up(services: Services) -> None:
    """Move what waits where the clock was put back while no node ran; before anything has a new time.

    Raises DatabaseFailure.
    """
    with services.database.read() as connection:
        known_at = services.queue.last_known_at(connection)
    behind_seconds = services.clock.timestamp() - (known_at or 0.0)
    if behind_seconds < -TOLERANCE_SECONDS:
        services.database.write(lambda connection: _move(services, connection, behind_seconds))
        _tell(behind_seconds)


def _move(services: Services, connection: sqlite3.Connection, seconds: float) -> None:
    services.queue.move_times(connection, seconds)
    services.completion.move_times(connection, seconds)
    confirmations.move_times(connection, seconds)


def _tell(step_seconds: float) -> None:
    logger.warning(
        "the system's clock was set; what waits for a time was moved with it",
        extra={"seconds": round(step_seconds, 3)},
    )
