"""Rows of settling: how fast images are compressed and proven, and what that costs receiving."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks import receiving, sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images, Series
from benchmarks.options import Options
from benchmarks.peers import Orthanc, Receiver
from benchmarks.processes import BenchmarkFailure, wait_until
from benchmarks.rounds import alternate, come_to_rest

ORTHANC = "Orthanc, JPEG 2000"
JPEG_LS, HTJ2K, JPEG_2000 = "anode, jpeg-ls", "anode, htj2k", "anode, jpeg2000"
_CHOICES = {JPEG_LS: "jpeg-ls", HTJ2K: "htj2k", JPEG_2000: "jpeg2000"}
_OF_ORTHANC = {JPEG_LS: 4.0, HTJ2K: 8.0, JPEG_2000: None}
_RATIO_OF_ORTHANC = {JPEG_LS: 1.0, HTJ2K: 0.9, JPEG_2000: None}
IDLE, SETTLING = "at rest", "while it settles"
_KEPT_RATE = 0.6
_BACKLOG_SECONDS = 30.0
_SETTLES_WITHIN_SECONDS = 600.0
_MEGABYTE = 1_000_000


def lossless(options: Options, images: Images) -> Generator[Case, None, None]:
    """A CT and an MR series, sent in one association each, until all of it is stored compressed and proven.

    Orthanc transcodes while it receives, and proves nothing; anode receives, and then compresses and proves.
    """
    folder = options.folder / "lossless"
    ct, mr = images.scanned(options.instances), images.mr(options.instances)
    kinds = {"CT and MR": [ct, mr], "CT": [ct], "MR": [mr]}
    with ExitStack() as running:
        orthanc = running.enter_context(Orthanc(folder / "orthanc", transcodes_to_jpeg_2000=True))
        nodes = {
            name: running.enter_context(Anode(folder / choice, f'[transcode]\nto = "{choice}"', name=name))
            for name, choice in _CHOICES.items()
        }
        receivers: list[Receiver] = [orthanc, *nodes.values()]
        receiving.warm_up(receivers, options, images)
        for kind, batch in kinds.items():
            contestants: dict[str, Callable[[], tuple[float, float]]] = {
                name: partial(_settled, node, batch) for name, node in nodes.items()
            }
            contestants[ORTHANC] = partial(_transcoded, orthanc, batch)
            found = alternate(
                contestants,
                options.rounds,
                before=partial(come_to_rest, receivers),
                what=f"lossless, {kind}",
            )
            is_judged = kind == "CT and MR"
            yield Case(
                "lossless",
                f"{kind}, until it is stored compressed",
                "MB/s",
                {name: [rate for rate, _ in turns] for name, turns in found.items()},
                tuple(
                    Target(name, ORTHANC, limit if is_judged else None) for name, limit in _OF_ORTHANC.items()
                ),
            )
            yield Case(
                "lossless",
                f"{kind}, ratio",
                "times smaller",
                {name: [ratio for _, ratio in turns] for name, turns in found.items()},
                tuple(Target(name, ORTHANC, limit) for name, limit in _RATIO_OF_ORTHANC.items()),
            )


def _settled(node: Anode, batch: Sequence[Series]) -> tuple[float, float]:
    """MB/s of data sets from the first start of a sender until everything is settled, and the ratio."""
    before, held = node.stored_bytes(), node.received()
    start = time.perf_counter()
    for series in batch:
        sending.sent(node, [series])
    wait_until(lambda: node.unsettled() == 0, _SETTLES_WITHIN_SECONDS, f"{node.name} to settle")
    seconds = time.perf_counter() - start
    sending.check(node, batch, held)
    received, stored = (now - then for now, then in zip(node.stored_bytes(), before, strict=True))
    return received / _MEGABYTE / seconds, received / stored


def _transcoded(orthanc: Orthanc, batch: Sequence[Series]) -> tuple[float, float]:
    before = orthanc.stored_bytes()
    seconds = sum(sending.storescu(orthanc, [series]) for series in batch)
    size = sum(path.stat().st_size for series in batch for path in series.paths)
    stored = orthanc.stored_bytes() - before
    if stored >= size:
        raise BenchmarkFailure("Orthanc has not compressed anything; is its plugin for GDCM installed?")
    return size / _MEGABYTE / seconds, size / stored


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
    wait_until(lambda: node.unsettled() == 0, _SETTLES_WITHIN_SECONDS, "the backlog to be settled")
    return time.perf_counter() - start
