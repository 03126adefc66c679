"""Rows of settling: how fast images are compressed and proven, and what that costs receiving."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks import receiving, sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images, Series
from benchmarks.options import Options
from benchmarks.peers import Orthanc, Receiver
from benchmarks.processes import BenchmarkFailure, wait_until
from benchmarks.rounds import alternate, come_to_rest

ORTHANC, PLAIN = "Orthanc, JPEG 2000", "Orthanc"
JPEG_LS, HTJ2K, JPEG_2000 = "anode, jpeg-ls", "anode, htj2k", "anode, jpeg2000"
_CHOICES = {JPEG_LS: "jpeg-ls", HTJ2K: "htj2k", JPEG_2000: "jpeg2000"}
_OF_ORTHANC = {JPEG_LS: 4.0, HTJ2K: 8.0, JPEG_2000: None}
_RATIO_OF_ORTHANC = {JPEG_LS: 1.0, HTJ2K: 0.9, JPEG_2000: None}
_JUDGED = "CT and MR"
IDLE, SETTLING = "at rest", "while it settles"
_KEPT_RATE = 0.6
_BACKLOG_SECONDS = 30.0
_SETTLES_WITHIN_SECONDS = 600.0
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Turn:
    """What one turn took and came to.

    ``seconds`` are from the start of the sender until all is stored as it shall be, ``receiving_seconds``
    those until its end.
    """

    received_bytes: int
    stored_bytes: int
    seconds: float
    receiving_seconds: float

    @property
    def rate(self) -> float:
        """MB/s of data sets as they came, receiving included."""
        return self.received_bytes / _MEGABYTE / self.seconds

    def beyond(self, receiving_seconds: float) -> float:
        """MB/s of what was done beyond receiving."""
        return self.received_bytes / _MEGABYTE / max(self.seconds - receiving_seconds, 1e-3)

    @property
    def ratio(self) -> float:
        """How many times smaller it has become."""
        return self.received_bytes / self.stored_bytes


def lossless(options: Options, images: Images) -> Generator[Case, None, None]:
    """A CT and an MR series in one association, until all of it is stored compressed, and proven by anode.

    First the two as they are, then as many images of one as of the other, and of each alone.
    Orthanc transcodes while it receives, and proves nothing; anode receives, and then compresses and proves.
    What either takes beyond receiving is compared; for Orthanc that is told by another that transcodes
    nothing.
    """
    folder = options.folder / "lossless"
    ct, mr = images.scanned(options.instances), images.mr(options.instances)
    kinds = {
        _JUDGED: images.whole(options.instances),
        "as many CT as MR": [ct, mr],
        "CT": [ct],
        "MR": [mr],
    }
    with ExitStack() as running:
        orthanc = running.enter_context(Orthanc(folder / "orthanc", transcodes_to_jpeg_2000=True))
        plain = running.enter_context(Orthanc(folder / "plain"))
        nodes = {
            name: running.enter_context(Anode(folder / choice, f'[transcode]\nto = "{choice}"', name=name))
            for name, choice in _CHOICES.items()
        }
        receivers: list[Receiver] = [orthanc, plain, *nodes.values()]
        receiving.warm_up(receivers, options, images)
        for kind, batch in kinds.items():
            contestants: dict[str, Callable[[], Turn]] = {
                name: partial(_settled, node, batch) for name, node in nodes.items()
            }
            contestants[ORTHANC] = partial(_transcoded, orthanc, batch)
            contestants[PLAIN] = partial(_transcoded, plain, batch)
            turns = alternate(
                contestants,
                options.rounds,
                before=partial(come_to_rest, receivers),
                what=f"lossless, {kind}",
            )
            yield from _cases(kind, turns)


def _cases(kind: str, turns: dict[str, list[Turn]]) -> Generator[Case, None, None]:
    plain = turns.pop(PLAIN)
    beyond = {
        name: [
            turn.beyond(other.seconds if name == ORTHANC else turn.receiving_seconds)
            for turn, other in zip(those, plain, strict=True)
        ]
        for name, those in turns.items()
    }
    is_judged = kind == _JUDGED
    yield Case(
        "lossless",
        f"{kind}: compressing, and for anode proving",
        "MB/s",
        beyond,
        tuple(Target(name, ORTHANC, limit if is_judged else None) for name, limit in _OF_ORTHANC.items()),
    )
    yield Case(
        "lossless",
        f"{kind}: the same with receiving",
        "MB/s",
        {name: [turn.rate for turn in those] for name, those in turns.items()},
        tuple(Target(name, ORTHANC, limit if is_judged else None) for name, limit in _OF_ORTHANC.items()),
    )
    yield Case(
        "lossless",
        f"{kind}: ratio",
        "times smaller",
        {name: [turn.ratio for turn in those] for name, those in turns.items()},
        tuple(
            Target(name, ORTHANC, limit if is_judged else None) for name, limit in _RATIO_OF_ORTHANC.items()
        ),
    )


def _settled(node: Anode, batch: Sequence[Series]) -> Turn:
    before, held = node.stored_bytes(), node.received()
    start, end = sending.sent(node, batch, together=True)
    node.wait_until_settled()
    seconds = time.perf_counter() - start
    sending.check(node, batch, held)
    received, stored = (now - then for now, then in zip(node.stored_bytes(), before, strict=True))
    return Turn(received, stored, seconds, end - start)


def _transcoded(orthanc: Orthanc, batch: Sequence[Series]) -> Turn:
    before, held = orthanc.stored_bytes(), orthanc.received()
    start, end = sending.sent(orthanc, batch, together=True)
    sending.check(orthanc, batch, held)
    size = sum(path.stat().st_size for series in batch for path in series.paths)
    stored = orthanc.stored_bytes() - before
    if orthanc.transcodes_to_jpeg_2000 and stored >= size:
        raise BenchmarkFailure("Orthanc has not compressed anything; is its plugin for GDCM installed?")
    return Turn(size, stored, end - start, end - start)


def backlog(options: Options, images: Images) -> Generator[Case, None, None]:
    """What settling costs receiving, and how long after a large study it goes on."""
    with Anode(options.folder / "backlog") as node:
        receiving.warm_up([node], options, images)
        figures: dict[str, list[float]] = {IDLE: [], SETTLING: []}
        after: list[float] = []
        for number in range(options.rounds):
            order = (IDLE, SETTLING) if number % 2 == 0 else (SETTLING, IDLE)
            for name in order:
                come_to_rest([node])
                if name == SETTLING:
                    _put_to_work(node, options, images)
                figures[name].append(sending.rate(node, images.ct(1, options.instances)))
            come_to_rest([node])
            after.append(_seconds_after(node, options, images))
        yield Case(
            "backlog",
            "receiving, 1 association",
            receiving.UNIT,
            figures,
            (Target(SETTLING, IDLE, _KEPT_RATE),),
        )
        yield Case(
            "backlog",
            f"{options.backlog_instances // 2} CT images, from the last Success until all are settled",
            "s",
            {"anode": after},
            (Target("anode", "", _BACKLOG_SECONDS, is_most=True),),
        )


def _put_to_work(node: Anode, options: Options, images: Images) -> None:
    """Have so many images wait that every settling process is busy beside what is sent next.

    They wait for the end of a burst, but not for ever; from then on settling goes on beside what arrives.
    """
    missing = math.ceil(options.backlog_instances / options.instances)
    for _ in range(missing):
        sending.storescu(node, images.ct(1, options.instances))
    left = node.unfinished("settle")

    def has_begun() -> bool:
        now = node.unfinished("settle")
        return now < left or not now

    wait_until(has_begun, _SETTLES_WITHIN_SECONDS, "settling to begin")


def _seconds_after(node: Anode, options: Options, images: Images) -> float:
    start = 0.0
    for _ in range(math.ceil(options.backlog_instances / 2 / options.instances)):
        _, start = sending.sent(node, images.ct(1, options.instances))
    node.wait_until_settled()
    return time.perf_counter() - start
