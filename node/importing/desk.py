"""The running node's side of an import: a socket in the data directory, for who owns that directory.

So an import needs no peer, no port and no presentation context: what the node would refuse to a stranger
on the network is no obstacle to the operator, and the checks of an instance are the same.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from node.errors import NodeError
from node.importing.intake import Intake, Offer, Outcome
from node.importing.messages import Ended, GivenUp, Line, address
from node.jobs import listing
from node.services import Services

logger = logging.getLogger(__name__)

#: While so many instances wait to be settled, those that import wait as well: the receive log is no archive.
MOST_UNSETTLED = 5000
_LOOK_EACH = 100
_TURNED_AWAY_SECONDS = 1.0
_PAUSE_SECONDS = 0.5
_MOST_CONNECTIONS = 4


class Desk:
    """Takes in what commands import, each connection in a thread of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._intake = Intake(services)
        self._listener: socket.socket | None = None
        self._is_stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._accepting: threading.Thread | None = None

    def start(self) -> None:
        """Open the socket; where that cannot be, the node goes on and imports wait for its stop."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(self._services.config.node.data_dir) as path:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                listener.bind(path)
                os.chmod(path, 0o600)
            listener.listen(_MOST_CONNECTIONS)
        except OSError as error:
            listener.close()
            logger.warning("nothing can be imported while the node runs", extra={"reason": error.strerror})
            return
        self._listener = listener
        self._accepting = threading.Thread(target=self._accept, args=(listener,), name="imports", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """End all imports; what was answered is durable, and what was not can be imported again."""
        self._is_stopping.set()
        if self._listener is None or self._accepting is None:
            return
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            threads = dict(self._connections)
        for connection, thread in threads.items():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        with suppress(OSError), address(self._services.config.node.data_dir) as path:
            os.unlink(path)

    def _accept(self, listener: socket.socket) -> None:
        while not self._is_stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                if not self._is_stopping.wait(_PAUSE_SECONDS):
                    continue  # no more descriptors, for now
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="import", daemon=True)
            with self._lock:
                is_welcome = len(self._connections) < _MOST_CONNECTIONS
                if is_welcome:
                    self._connections[connection] = thread
            if not is_welcome:
                _turn_away(connection, f"{_MOST_CONNECTIONS} imports run already")
                continue
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, for now
                with self._lock:
                    self._connections.pop(connection, None)
                _turn_away(connection, str(error))

    def _serve(self, connection: socket.socket) -> None:
        line = Line(connection)
        logger.info("import begins")
        count = 0
        try:
            while not self._is_stopping.is_set():
                offer = Offer(**line.hear())
                if count % _LOOK_EACH == 0:
                    self._let_settling_catch_up()
                count += 1
                if self._intake.holds(offer):
                    line.say({"kind": "held"})
                    continue
                line.say({"kind": "wanted"})
                self._receive(line, offer)
        except NodeError as error:
            with suppress(Ended):
                line.say({"kind": "failed", "reason": str(error), "action": error.action})
        except (Ended, GivenUp, TypeError):
            pass  # TypeError: an offer of another version
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            line.close()
            logger.info("import ended", extra={"instances": count})

    def _receive(self, line: Line, offer: Offer) -> None:
        pieces = _Pieces(line)
        try:
            outcome = self._intake.receive(offer, pieces.all())
        except GivenUp:
            outcome = Outcome("refused")  # the command knows why
        except NodeError:
            pieces.pass_over()
            raise
        pieces.pass_over()
        line.say({"kind": outcome.kind, "reason": outcome.reason})

    def _let_settling_catch_up(self) -> None:
        """Wait while much is to be settled."""
        while not self._is_stopping.is_set():
            with self._services.database.read() as connection:
                unsettled = listing.counts(connection)["ready"].get("settle", 0)
            if unsettled < MOST_UNSETTLED:
                return
            self._is_stopping.wait(_PAUSE_SECONDS)


def _turn_away(connection: socket.socket, reason: str) -> None:
    logger.warning("import turned away", extra={"reason": reason})
    line = Line(connection)
    connection.settimeout(_TURNED_AWAY_SECONDS)
    with suppress(Ended, GivenUp):
        line.say({"kind": "failed", "reason": reason, "action": "import again when another one has ended"})
        line.hear()  # closed with an offer unread, it would be lost
    line.close()


class _Pieces:
    """The pieces of one data set as they come."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._is_over = False

    def all(self) -> Iterator[bytes]:
        """Yield them; raises GivenUp where there will be no end."""
        while not self._is_over:
            try:
                piece = self._line.receive()
            except GivenUp:
                self._is_over = True
                raise
            if piece:
                yield piece
            else:
                self._is_over = True

    def pass_over(self) -> None:
        """Let those go by that nobody wants any more."""
        with suppress(GivenUp):
            for _ in self.all():
                pass
