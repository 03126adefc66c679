"""What passes between the node and a process that makes the ends of its runs.

The node sends ``Prepare``, and after the run of the model ``Conclude``, or ``Forget`` when there will be
nothing to conclude. To each the process answers in JSON::

    {"unread": SOP Instance UID, "problem"}     an instance is not where it should be: the node sends where
                                                it is now, or None; an answer follows
    {"error", "message", "action", "frames"}    an error of ``node/errors.py``
    {"facts", "objects"}                        done; the bytes of each object follow in their order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node import errors, logs
from node.analysis.order import Order
from node.errors import AnodeError, UnexpectedFailure
from node.index.index import StoredInstance
from node.processes.job_folder import JobFolder
from node.results.facts import PredecessorReference


@dataclass(frozen=True)
class Prepare:
    """Write the job of a run.

    ``chosen`` are the instances of each input as they were looked up, ``digest`` is of all of them.
    """

    order: Order
    chosen: Mapping[str, Sequence[StoredInstance]]
    digest: str
    predecessor: PredecessorReference | None
    given: Path
    results: Path

    @property
    def folder(self) -> JobFolder:
        """The folder of the run."""
        return JobFolder(self.given, self.results)


@dataclass(frozen=True)
class Conclude:
    """Make the result objects of the run that was prepared last."""


@dataclass(frozen=True)
class Forget:
    """Let go of the run that was prepared last, and of its files."""


Message = Prepare | Conclude | Forget


def of_error(error: AnodeError) -> dict[str, str]:
    """Return the answer that tells of an error."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "action": error.action,
        "frames": logs.frames(error),
    }


def as_error(answer: Mapping[str, Any]) -> AnodeError:
    """Return the error that an answer tells of; what is none of ``node/errors.py`` was not foreseen."""
    kind = getattr(errors, str(answer["error"]), None)
    if not isinstance(kind, type) or not issubclass(kind, AnodeError):
        kind = UnexpectedFailure
    return kind(str(answer["message"]), action=str(answer["action"]))
