"""Row of waiting: how long a scanner waits for Success while the node has all its other work to do."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks import own_sender, receiving, sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images, Series
from benchmarks.options import Options
from benchmarks.processes import wait_until
from benchmarks.rounds import alternate, come_to_rest

IDLE = "idle"
LOADED = "under load"
_CONFIGURATION = """
[study]
quiet_seconds = 1
[[analyses]]
name = "lungs"
model = "lungs"
when = { Modality = "CT" }
"""
_ANALYSIS_STARTS_WITHIN_SECONDS = 120.0
_MOST_SENDERS = 8
_JUDGED_PERCENT = 99
_OF_IDLE = 5.0
_MOST_MILLISECONDS = 100.0


@dataclass(frozen=True)
class Turn:
    """What one turn found: the milliseconds of each C-STORE, and the work that was left at its end."""

    milliseconds: list[float]
    unsettled: int
    analyses: int

    def percentile(self, percent: float) -> float:
        """The least value that ``percent`` of all do not exceed."""
        ordered = sorted(self.milliseconds)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latency(options: Options, images: Images) -> Generator[Case, None, None]:
    """C-STORE requests at a scanner's pace, to an idle node and to one that settles and analyses."""
    turns = alternate(
        {
            IDLE: partial(_turn, options, images, is_loaded=False),
            LOADED: partial(_turn, options, images, is_loaded=True),
        },
        options.rounds,
        before=partial(come_to_rest, []),
        what="latency",
    )
    loaded = turns[LOADED]
    notes = (
        f"{options.instances} C-STORE requests in each turn, one every"
        f" {1000 * options.latency_seconds / options.instances:.0f} ms",
        f"left at the end of a turn under load: {min(turn.unsettled for turn in loaded)} to"
        f" {max(turn.unsettled for turn in loaded)} images to settle,"
        f" {min(turn.analyses for turn in loaded)} to {max(turn.analyses for turn in loaded)} analyses",
    )
    for percent in (50, 99, 100):
        figures = {name: [turn.percentile(percent) for turn in those] for name, those in turns.items()}
        targets = (
            (
                Target(LOADED, IDLE, _OF_IDLE, is_most=True),
                Target(LOADED, "", _MOST_MILLISECONDS, is_most=True),
            )
            if percent == 99
            else (Target(LOADED, IDLE),)
        )
        title = {50: "median of C-STORE", 99: "p99 of C-STORE", 100: "longest C-STORE"}[percent]
        yield Case("latency", title, "ms", figures, targets, notes if percent == _JUDGED_PERCENT else ())


def _turn(options: Options, images: Images, *, is_loaded: bool) -> Turn:
    """Time the C-STORE requests of one series that is sent to a fresh node."""
    (probe,) = images.ct(1, options.instances)
    with Anode(options.folder / "latency", _CONFIGURATION) as anode:
        receiving.warm_up([anode], options, images)
        anode.rest()
        if is_loaded:
            _put_to_work(anode, options, images)
        seconds = list(_paced(anode, probe, options.latency_seconds / options.instances))
        return Turn(
            [1000 * one for one in seconds], anode.unfinished("settle"), anode.unfinished("select", "analyze")
        )


def _put_to_work(anode: Anode, options: Options, images: Images) -> None:
    """Have an analysis running and images to settle: workers and analyses are all busy."""
    sending.storescu(anode, images.ct(1, options.instances))
    wait_until(
        lambda: anode.unfinished("analyze") > 0, _ANALYSIS_STARTS_WITHIN_SECONDS, "an analysis to begin"
    )
    missing = math.ceil(options.backlog_instances / options.instances)
    while missing > 0:
        together = min(missing, _MOST_SENDERS)
        sending.storescu(anode, images.ct(together, options.instances))
        missing -= together


def _paced(anode: Anode, probe: Series, pause_seconds: float) -> Iterator[float]:
    """Send one image every ``pause_seconds``, or as soon as the one before is answered."""
    due = time.monotonic()
    for seconds in own_sender.timed(anode, probe):
        yield seconds
        due += pause_seconds
        time.sleep(max(0.0, due - time.monotonic()))
