"""Rows of C-STORE: how many instances a second are received, beside every peer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks import sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images, Series
from benchmarks.options import Options
from benchmarks.peers import IgnoringStorescp, Orthanc, PynetdicomStorescp, Receiver, Storescp
from benchmarks.rounds import alternate, come_to_rest

UNIT = "instances/s"
KEEPING = "anode, to = keep"
WITHOUT_NAGLE = "anode, sender without Nagle"
ORTHANC_NO_DELAY = "Orthanc, TCP_NODELAY=1"
WARM_UP_INSTANCES = 25

_OF_ORTHANC = {1: 2.0, 2: 2.0, 4: 1.8, 8: 1.5}
_OF_STORESCP = {1: 1.0, 2: 0.9}
_OF_PYNETDICOM = {1: 2.0, 4: 2.5}
_OF_ORTHANC_SMALL = 1.5
_OF_ORTHANC_WITH_NAGLE = 10.0
_OF_OURS_WITHOUT_NAGLE = 0.8


def store(options: Options, images: Images) -> Generator[Case, None, None]:
    """C-STORE of CT images from a sender without Nagle's algorithm, beside every peer."""
    folder = options.folder / "store"
    with ExitStack() as running:
        receivers: list[Receiver] = [
            running.enter_context(receiver)
            for receiver in (
                Anode(folder / "anode"),
                Anode(folder / "keep", '[transcode]\nto = "keep"', name=KEEPING),
                Orthanc(folder / "orthanc"),
                Storescp(folder / "storescp"),
                PynetdicomStorescp(folder / "pynetdicom"),
                IgnoringStorescp(folder / "ignore"),
            )
        ]
        warm_up(receivers, options, images)
        for count in options.associations:
            yield compare(
                options,
                receivers,
                images.ct(count, options.instances),
                row="store",
                title=associations(count),
                targets=(
                    Target("anode", "Orthanc", _OF_ORTHANC.get(count)),
                    Target("anode", Storescp.name, _OF_STORESCP.get(count)),
                    Target("anode", PynetdicomStorescp.name, _OF_PYNETDICOM.get(count)),
                    Target("anode", IgnoringStorescp.name),
                ),
            )


def nagle(options: Options, images: Images) -> Generator[Case, None, None]:
    """The same from a sender that leaves Nagle's algorithm on, as DCMTK does by default."""
    folder = options.folder / "nagle"
    with ExitStack() as running:
        anode = running.enter_context(Anode(folder / "anode"))
        orthanc = running.enter_context(Orthanc(folder / "orthanc", no_delay=False))
        orthanc_no_delay = running.enter_context(Orthanc(folder / "orthanc-no-delay"))
        receivers: list[Receiver] = [anode, orthanc, orthanc_no_delay]
        warm_up(receivers, options, images)
        for count in options.associations:
            batch = images.ct(count, options.instances)
            contestants: dict[str, Callable[[], float]] = {
                "anode": partial(sending.rate, anode, batch, no_delay=False),
                WITHOUT_NAGLE: partial(sending.rate, anode, batch),
            }
            targets: tuple[Target, ...] = (Target("anode", WITHOUT_NAGLE, _OF_OURS_WITHOUT_NAGLE),)
            if count == 1:
                contestants["Orthanc"] = partial(sending.rate, orthanc, batch, no_delay=False)
                contestants[ORTHANC_NO_DELAY] = partial(sending.rate, orthanc_no_delay, batch, no_delay=False)
                targets = (
                    Target("anode", "Orthanc", _OF_ORTHANC_WITH_NAGLE),
                    Target("anode", ORTHANC_NO_DELAY),
                    Target("anode", WITHOUT_NAGLE),
                )
            figures = alternate(
                contestants,
                options.rounds,
                before=partial(come_to_rest, receivers),
                what=f"nagle, {associations(count)}",
            )
            yield Case("nagle", associations(count), UNIT, figures, targets)


def small(options: Options, images: Images) -> Generator[Case, None, None]:
    """C-STORE of Structured Reports of 2 KB."""
    folder = options.folder / "small"
    count = 4
    with Anode(folder / "anode") as anode, Orthanc(folder / "orthanc") as orthanc:
        warm_up([anode, orthanc], options, images)
        yield compare(
            options,
            [anode, orthanc],
            images.small(count, options.small_instances),
            row="small",
            title=associations(count),
            targets=(Target("anode", "Orthanc", _OF_ORTHANC_SMALL),),
        )


def compare(
    options: Options,
    receivers: Sequence[Receiver],
    batch: Sequence[Series],
    *,
    row: str,
    title: str,
    targets: tuple[Target, ...],
) -> Case:
    """Send the same batch to each receiver in turn."""
    contestants = {receiver.name: partial(sending.rate, receiver, batch) for receiver in receivers}
    figures = alternate(
        contestants, options.rounds, before=partial(come_to_rest, receivers), what=f"{row}, {title}"
    )
    return Case(row, title, UNIT, figures, targets)


def warm_up(receivers: Sequence[Receiver], options: Options, images: Images) -> None:
    """Send each receiver a few images that nobody times: libraries are loaded, files exist."""
    for receiver in receivers:
        sending.storescu(receiver, images.ct(1, min(WARM_UP_INSTANCES, options.instances)))


def associations(count: int) -> str:
    """The number in words."""
    return "1 association" if count == 1 else f"{count} associations"
