"""The steps between a socket and a result at which a kill could matter, each with a name.

A node that is started by ``python -m tests.support.killed_node`` stops for ever at the point whose
name stands in the file ``armed`` of its folder: it notes that it was there and is killed by SIGKILL, in
the middle of what it does. The product knows nothing of this: functions are replaced from outside.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from node.settling import child

#: Says where ``armed`` is looked for; the settling processes inherit it.
FOLDER = "ANODE_KILL_FOLDER"
_NODE = "ANODE_KILL_NODE"
_WAITS_SECONDS = 30.0


@dataclass(frozen=True)
class Point:
    """Where a node is killed, and what its next start is to say of it.

    Attributes
    ----------
    target : str
        ``module:qualified name`` of a function, as it is looked up where it is called.
    when : str
        'before' or 'after' it runs.
    provoked_by : str
        What the test does to come there: 'study' (send one), 'conflict' (send other content under a
        UID that is held), 'repair' (send again what was damaged on the disk).
    is_settling : bool
        The function runs in a settling process. It is killed, and the node with it.
    only_settling : bool
        Only the settling process is killed; the node goes on.
    kind : str
        Only for jobs of this kind, where the function is given one.
    calls : int
        At which call since it was armed.
    waits_for_answer : bool
        The sender has its answer before the kill.
    is_analysed : bool
        Only a study that is analysed comes there.
    repairs : tuple of str
        What the next start says that it put right, at least.
    is_short : bool
        Belongs to the short version too.
    """

    target: str
    when: str = "before"
    provoked_by: str = "study"
    is_settling: bool = False
    only_settling: bool = False
    kind: str = ""
    calls: int = 1
    waits_for_answer: bool = False
    is_analysed: bool = False
    repairs: tuple[str, ...] = ()
    is_short: bool = False


_ENDED = "node.jobs.worker:Engine._log"

POINTS: Mapping[str, Point] = {
    # receiving
    "received-not-flushed": Point("node.storage.reception:Reception.sync"),
    "flushed-not-answered": Point(
        "node.storage.reception:Reception.sync", "after", repairs=("instances_indexed",), is_short=True
    ),
    "answered-not-indexed": Point(
        "node.ingest.arrivals:Arrivals._add",
        waits_for_answer=True,
        repairs=("instances_indexed",),
        is_short=True,
    ),
    "indexed": Point("node.ingest.arrivals:Arrivals._done", "after"),
    "conflict-not-listed": Point(
        "node.storage.storage:Storage.settle_quarantine", "after", provoked_by="conflict"
    ),
    "quarantined": Point(
        "node.ingest.duplicates:Duplicates._quarantine", "after", provoked_by="conflict", is_short=True
    ),
    "repair-durable-not-indexed": Point("node.ingest.ingest:Ingest._repair", provoked_by="repair"),
    "repaired": Point("node.ingest.ingest:Ingest._repair", "after", provoked_by="repair"),
    # settling
    "settled-file-not-flushed": Point(
        "node.storage.disk:sync_data",
        is_settling=True,
        repairs=("files_removed", "jobs_given_back"),
        is_short=True,
    ),
    "settled-file-written": Point(
        "node.storage.disk:sync_data", "after", is_settling=True, repairs=("files_removed",)
    ),
    "settled-file-renamed": Point(
        "node.storage.unfinished:finish",
        "after",
        is_settling=True,
        repairs=("jobs_given_back",),
        is_short=True,
    ),
    "settling-process-in-a-codec": Point(
        "node.transcode.lossless:settle", is_settling=True, only_settling=True, calls=2
    ),
    "settling-process-with-a-file": Point(
        "node.storage.disk:sync_data", is_settling=True, only_settling=True, calls=2
    ),
    "settled-row-not-written": Point("node.index.index:Index.settle", repairs=("jobs_given_back",)),
    "settled": Point(_ENDED, kind="settle"),
    # the receive log, used again
    "segment-not-reclaimed": Point("node.storage.receive_log:ReceiveLog._free"),
    "segment-without-a-life": Point("node.storage.segment:_begin_life"),
    "segment-reclaimed": Point("node.storage.receive_log:ReceiveLog._free", "after"),
    # analysing
    "study-due-not-selected": Point("node.jobs.schedule:Schedule._fire", is_analysed=True),
    "study-not-matched": Point(
        "node.tasks.select:SelectTask._select", is_analysed=True, repairs=("jobs_given_back",)
    ),
    "study-selected": Point(_ENDED, is_analysed=True, kind="select"),
    "analysis-started": Point(
        "node.analysis.analysts:RemoteMaking.prepare",
        "after",
        is_analysed=True,
        repairs=("analyses_removed", "jobs_given_back"),
        is_short=True,
    ),
    "analysis-ended": Point("node.tasks.analyze:_keep", is_analysed=True, repairs=("jobs_given_back",)),
    "first-result-durable": Point("node.ingest.ingest:Ingest._make_durable", "after", is_analysed=True),
    "result-durable-not-enqueued": Point(
        "node.ingest.ingest:Ingest._make_durable", "after", is_analysed=True, calls=2, is_short=True
    ),
    "result-enqueued": Point("node.ingest.ingest:Ingest.own", "after", is_analysed=True),
    # delivering
    "result-not-sent": Point("node.wire.association:Association.send_store", is_analysed=True),
    "result-sent-not-noted": Point(
        "node.sending.shipping:Shipping.send_next",
        "after",
        is_analysed=True,
        repairs=("jobs_given_back",),
        is_short=True,
    ),
    "result-noted": Point(_ENDED, is_analysed=True, kind="deliver"),
    "commitment-not-asked": Point("node.wire.requestor:RequestedAssociation.action", is_analysed=True),
    "commitment-asked": Point("node.wire.requestor:RequestedAssociation.action", "after", is_analysed=True),
    "commitment-reported": Point("node.tasks.confirm:receive_report", "after", is_analysed=True),
    "confirmed": Point(_ENDED, is_analysed=True, kind="confirm"),
}


@dataclass
class _Trap:
    """What a process does at the points of one function."""

    folder: Path
    points: dict[str, Point] = field(default_factory=dict)
    calls: int = 0
    armed: str = ""

    def spring(self, when: str, arguments: tuple[Any, ...]) -> None:
        """Kill, where the point that is armed is one of ours and this is its moment."""
        try:
            name = (self.folder / "armed").read_text()
        except OSError:
            return
        point = self.points.get(name)
        if point is None or point.when != when:
            return
        if point.kind and all(getattr(argument, "kind", "") != point.kind for argument in arguments):
            return
        if name != self.armed:
            self.armed, self.calls = name, 0
        self.calls += 1
        if self.calls == point.calls:
            self._kill(name, point)

    def _kill(self, name: str, point: Point) -> None:
        try:
            os.close(os.open(self.folder / f"was-at-{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return  # once for each point
        if point.waits_for_answer:
            deadline = time.monotonic() + _WAITS_SECONDS
            while not (self.folder / "answered").exists() and time.monotonic() < deadline:
                time.sleep(0.001)
        if not point.only_settling:
            os.kill(int(os.environ[_NODE]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _replace(folder: Path, *, is_settling: bool) -> None:
    """Put a trap around each function that a kind of process has points at."""
    traps: dict[str, _Trap] = {}
    for name, point in POINTS.items():
        if point.is_settling is is_settling:
            traps.setdefault(point.target, _Trap(folder)).points[name] = point
    for target, trap in traps.items():
        owner, _, attribute = target.replace(":", ".").rpartition(".")
        place = resolve_name(owner)
        setattr(place, attribute, _trapped(getattr(place, attribute), trap))


def _trapped(function: Callable[..., Any], trap: _Trap) -> Callable[..., Any]:
    @wraps(function)
    def trapped(*arguments: Any, **named: Any) -> Any:
        trap.spring("before", (*arguments, *named.values()))
        result = function(*arguments, **named)
        trap.spring("after", (*arguments, *named.values()))
        return result

    return trapped


def install() -> None:
    """Make this process one that is killed where its folder says."""
    os.environ[_NODE] = str(os.getpid())
    _replace(Path(os.environ[FOLDER]), is_settling=False)
    child.main = settle


def settle(*arguments: Any) -> None:
    """Be a settling process with traps, in place of ``child.main``."""
    _replace(Path(os.environ[FOLDER]), is_settling=True)
    _MAIN(*arguments)


_MAIN = child.main
