"""Sends the audit trail to a syslog receiver: in order, from where it was sent last, until it is taken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from node.audit import syslog
from node.audit.files import AuditFiles, Position
from node.errors import ConfigurationError

_BATCH_BYTES = 256 * 1024
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
# when the node stops: what is waiting then is sent after the next start
_LAST_SECONDS = 3.0


class Sender:
    """One thread that follows the files.

    Parameters
    ----------
    files : AuditFiles
        What is to be sent.
    connect : callable
        Opens a way to the receiver; OSError or ConfigurationError where there is none.
    report : callable
        Told what is wrong whenever nothing can be sent, and an empty text once it can.
    """

    def __init__(
        self, files: AuditFiles, connect: Callable[[], syslog.Connection], report: Callable[[str], None]
    ) -> None:
        self._files = files
        self._connect = connect
        self._report = report
        self._position = Position(1, 0)
        self._connection: syslog.Connection | None = None
        self._lock = threading.Lock()
        self._more = threading.Event()
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="audit sender", daemon=True)

    @property
    def position(self) -> Position:
        """Up to where all was sent."""
        with self._lock:
            return self._position

    def start(self) -> None:
        """Go on where an earlier run has stopped; what is older than the first run with a receiver stays."""
        saved = self._files.saved_position()
        if saved is None:
            saved = self._files.end()
            with contextlib.suppress(OSError):
                self._files.save_position(saved)
        self._position = saved
        self._thread.start()

    def wake(self) -> None:
        """Say that there is more."""
        self._more.set()

    def stop(self) -> None:
        """Send what can be sent at once, and end the thread."""
        self._stop_at = time.monotonic() + _LAST_SECONDS
        self._more.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS + 1.0)

    def _run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._send_all()
            except (OSError, ConfigurationError, ValueError) as error:
                self._disconnect()
                self._report(str(error) or type(error).__name__)
                if self._stop_at is not None:
                    return
                # told to stop, it tries once more
                self._wait_until_stopped(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            if self._stop_at is not None:
                self._disconnect()
                return
            self._more.wait()
            self._more.clear()

    def _wait_until_stopped(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._stop_at is None and (left := deadline - time.monotonic()) > 0:
            self._more.wait(left)
            self._more.clear()

    def _send_all(self) -> None:
        while self._stop_at is None or time.monotonic() < self._stop_at:
            lines, end = self._files.read(self._position, _BATCH_BYTES)
            if lines:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.send(lines)
                self._report("")
            if end != self._position:
                with self._lock:
                    self._position = end
                with contextlib.suppress(OSError):  # then it is sent once more after a restart
                    self._files.save_position(end)
            if not lines:
                return

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
