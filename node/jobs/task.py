"""What the engine and the tasks agree on: a job, what may become of it, and who does it.

A task never writes to the queue. It yields, for each job that it was given, what became of it;
the engine applies that in one transaction together with the end of the job, so a crash at any
point repeats the job or finds it done, and duplicates nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from node.errors import AnodeError

if TYPE_CHECKING:
    from node.services import Services


@dataclass(frozen=True)
class Job:
    """One leased job.

    ``attempts`` counts this attempt too (1 on the first). ``since`` is when the present series of
    attempts began: the creation, or when a person asked for the job again. ``lease_number`` names
    the lease, so that the outcome of a lease that was lost is refused.
    """

    id: int
    kind: str
    key: str
    lane: str
    payload: dict[str, Any] = field(hash=False)
    study_instance_uid: str
    attempts: int
    created_at: float
    since: float = 0.0
    lease_number: int = 0


@dataclass(frozen=True)
class Done:
    """The job is done; ``apply`` writes what follows from it in the transaction that ends the job.

    ``can_be_replayed`` says that nobody would notice if a crash took the outcome and the job were done
    again. Then it may be written together with the outcomes of the next jobs of its batch, and is not
    flushed to disk.
    """

    apply: Callable[[sqlite3.Connection], None] | None = None
    can_be_replayed: bool = False


@dataclass(frozen=True)
class Retry:
    """The job failed, and another try may help.

    ``after_seconds`` overrides the pause of the policy. ``is_for_lane`` says that the whole lane is
    at fault (the peer is down), so that the other jobs of the lane wait too. ``apply`` is written
    in the same transaction.
    """

    error: AnodeError
    after_seconds: float | None = None
    is_for_lane: bool = False
    apply: Callable[[sqlite3.Connection], None] | None = None


@dataclass(frozen=True)
class SetAside:
    """The job failed, and no further try can help; a person has to look."""

    error: AnodeError
    apply: Callable[[sqlite3.Connection], None] | None = None


Outcome: TypeAlias = Done | Retry | SetAside


class Task(Protocol):
    """The work behind one kind of job.

    ``run`` is given one to ``batch`` jobs of one kind and lane, and yields each once with its
    outcome, as soon as that is known. Leaving ``run`` early (the generator is closed) means that
    the node stops: the jobs without an outcome are taken up at the next start.
    """

    @property
    def kind(self) -> str:
        """The kind of job, as it was enqueued."""

    @property
    def batch(self) -> int:
        """The most jobs that one call of ``run`` is given."""

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Do the work of ``jobs`` and yield each with its outcome."""


@runtime_checkable
class Cancellable(Protocol):
    """A task that can be asked to leave its present work, because the node stops."""

    def cancel(self) -> None:
        """Make a running ``run`` end soon; called from another thread."""
