"""The command's side of an import into a running node."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from node.errors import AnodeError, ArchiveUnavailable, StorageFailure
from node.importing.intake import Kind, Offer, Outcome
from node.importing.messages import Ended, Line, address
from node.importing.sources import Source

_KINDS = frozenset(get_args(Kind))


class Counter:
    """The door of the node that runs on a data directory; a context manager.

    Raises
    ------
    ArchiveUnavailable
        It cannot be reached.
    """

    def __init__(self, data_dir: Path) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(data_dir) as path:
                connection.connect(path)
        except OSError as error:
            connection.close()
            raise ArchiveUnavailable(
                f"the node that runs on {data_dir} takes nothing in: {error.strerror}",
                action="import as the user that runs the node, or stop it first",
            ) from error
        self._line = Line(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()

    def take(self, source: Source, *, is_analyzed: bool) -> Outcome:
        """As ``Door``."""
        offer = Offer.of(source, is_analyzed=is_analyzed)
        try:
            self._line.say(asdict(offer))
            if self._answer()["kind"] == "held":
                return Outcome("held")
            self._send(source)
            answer = self._answer()
        except Ended as error:
            raise StorageFailure(
                f"the node has ended the import: {error}",
                action="see its log, then import again: what is held already is passed over",
            ) from error
        if answer["kind"] not in _KINDS:
            raise StorageFailure(f"the node answered {answer['kind']}")
        return Outcome(answer["kind"], str(answer.get("reason", "")))

    def _send(self, source: Source) -> None:
        try:
            for chunk in source.chunks():
                if chunk:
                    self._line.send(chunk)
        except AnodeError:
            self._line.give_up()
            self._answer()
            raise
        self._line.send(b"")

    def _answer(self) -> dict[str, Any]:
        answer = self._line.hear()
        if answer.get("kind") == "failed":
            raise StorageFailure(
                f"the node cannot keep what is imported: {answer.get('reason', '')}",
                action=f"{answer.get('action') or 'see its log'}; then import again, which goes on there",
            )
        return answer
