"""What the records hold on one study, and the rows that explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from node.alarms import Alarm
from node.config.settings import AnalysisConfig, RouteConfig
from node.confirmations import Confirmation
from node.parking import Parked

State = Literal["done", "refused", "running", "waiting", "retrying", "stopped", "idle"]
"""``stopped`` needs a person; ``retrying`` failed and is tried again; ``waiting`` is as it should be.

``refused`` is a series that an analysis, or its model, cannot use: nothing is wrong with the node.

``idle`` is where nothing is to happen: an analysis or route that is not for this study, or came later.
"""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """What became of one thing that should happen to a study.

    ``cause`` is a stable word: that of the error, or ``done``, ``waiting-for-quiet`` and their like.
    ``since`` and ``next_try`` are seconds since the epoch; ``next_try`` is None where none will come
    by itself. ``command`` is what to run, empty where there is nothing to do. ``found`` is what a run that
    came to a result has found: a name, and words. ``model`` is what made it, by name, version and the digest
    of what it was set to, ``input_digest`` that of what it was given, ``results`` the SOP Instance UIDs of
    its objects; ``picture`` is the command that shows one of them, empty where none is a picture.
    """

    about: str
    state: State
    cause: str
    explanation: str
    since: float | None = None
    next_try: float | None = None
    command: str = ""
    found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    model: str = ""
    input_digest: str = ""
    results: Sequence[str] = ()
    picture: str = ""


@dataclass(frozen=True)
class Facts:
    """What the records hold on one study; the dictionaries are those of their rooms.

    ``senders`` are the AE titles that sent instances of it, where there are routes;
    ``kinds_of_results`` says of results, by SOP Instance UID, what they are: ``sr``, ``seg``, ``sc``;
    ``damaged`` has the SOP Instance UIDs of those found damaged, each with what was found;
    ``parked`` are the analyses that are parked, here or in other studies;
    ``stale_configuration`` says that the node runs with another configuration than this one.
    ``command_options`` is what commands need to find the same configuration (`` --config FILE``).
    """

    study_instance_uid: str
    now: float
    node_is_running: bool
    patients: int = 1
    analyses: Sequence[AnalysisConfig] = ()
    routes: Sequence[RouteConfig] = ()
    series_headers: Sequence[Mapping[str, Any]] = ()
    waiting: Sequence[Record] = ()
    runs: Sequence[Record] = ()
    jobs: Sequence[Record] = ()
    quarantined: Sequence[Record] = ()
    senders: frozenset[str] = frozenset()
    kinds_of_results: Mapping[str, str] = field(default_factory=dict)
    confirmations: Sequence[Confirmation] = ()
    damaged: Sequence[tuple[str, str]] = ()
    parked: Mapping[str, Parked] = field(default_factory=dict)
    stale_configuration: str = ""
    alarms: Sequence[Alarm] = ()
    command_options: str = ""


def jobs_of(facts: Facts, kind: str, analysis: str) -> list[Record]:
    """Jobs of one kind for one analysis, the latest first."""
    jobs = [job for job in facts.jobs if job["kind"] == kind and job["payload"].get("analysis") == analysis]
    return sorted(jobs, key=lambda job: job["id"], reverse=True)
