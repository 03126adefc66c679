"""What the headers of a series have in common, so that most of the next one need not be read again.

Successive instances of an association nearly always belong to one series, and repeat most of its
header byte for byte. What was the same is compared as a whole, in a few long runs of bytes; only what
stands between them is read. Reading is a function of the bytes alone, so the outcome is that of reading
all of them; whatever is not as remembered is for the plain reader.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from node.errors import LimitExceeded, MalformedDataSet
from node.ingest.elements import PIXEL_DATA_TAGS, ElementWalk, RawElement

T = TypeVar("T")

#: Longer headers are not remembered.
MOST_BYTES = 64 * 1024


class Shared:
    """Elements that headers have in common, and what was made of them; never changed.

    Parameters
    ----------
    runs : sequence of mappings of int to RawElement
        The elements by their tags, none of them Pixel Data: those that follow each other together.
    is_little_endian : bool
        Their byte order.
    """

    def __init__(self, runs: Sequence[Mapping[int, RawElement]], *, is_little_endian: bool) -> None:
        self._runs = runs
        self.elements = self.among({}, (0,) * len(runs))
        self.is_little_endian = is_little_endian
        self._made: dict[Callable[[Shared], Any], Any] = {}

    def among(self, own: Mapping[int, RawElement], places: Sequence[int]) -> dict[int, RawElement]:
        """Return all elements of a header in their order; ``own`` and ``places`` as in ``Recalled``."""
        others, done = list(own.items()), 0
        elements: dict[int, RawElement] = {}
        for run, place in zip(self._runs, places, strict=True):
            elements.update(others[done:place])
            elements.update(run)
            done = place
        elements.update(others[done:])
        return elements

    def made(self, make: Callable[[Shared], T]) -> T:
        """Return what ``make`` makes of them; it is made once."""
        try:
            return cast(T, self._made[make])
        except KeyError:
            made = self._made[make] = make(self)
            return made


class Recalled(NamedTuple):
    """A header of which the most was remembered.

    ``own`` has the other elements; ``places`` says how many of them stand before each run of those that
    are shared. ``end`` is the offset behind the last one, where Pixel Data begins or the data set ends.
    """

    shared: Shared
    own: dict[int, RawElement]
    places: list[int]
    end: int
    is_at_pixels: bool


class _Run(NamedTuple):
    """Encoded elements that follow each other; ``stop`` has the tag of the first one."""

    encoded: bytes
    stop: frozenset[int]


class HeaderMemory:
    """Remembers the header of the series that an association sends; for one thread.

    It takes up a few times ``MOST_BYTES`` at most.
    """

    def __init__(self) -> None:
        self._kind: tuple[str, int] | None = None
        self._series_instance_uid = ""
        self._before: Mapping[int, RawElement] = {}
        self._varying: set[int] = set()
        self._runs: tuple[_Run, ...] = ()
        self._shared: Shared | None = None
        self._like: ElementWalk | None = None
        self._pixel_data_tags: tuple[bytes, ...] = ()

    def recall(self, start: bytes, length: int | None, kind: tuple[str, int]) -> Recalled | None:
        """Read a header with what is remembered; None where that does not fit.

        Parameters
        ----------
        start : bytes
            The first bytes of the data set; nothing beyond them is read.
        length : int or None
            Length of the data set; None when that is not known yet.
        kind : tuple of str and int
            What decides how the bytes are read: transfer syntax and deepest nesting.
        """
        shared, like = self._shared, self._like
        if shared is None or like is None or kind != self._kind:
            return None
        own: dict[int, RawElement] = {}
        starts: list[int] = []
        places: list[int] = []
        position = 0
        try:
            for encoded, stop in self._runs:
                position = like.plain_elements(start, position, own, starts, stop)
                if not start.startswith(encoded, position):
                    position = _read_closely(like, start, position, own, stop)
                    if not start.startswith(encoded, position):
                        return None
                position += len(encoded)
                places.append(len(own))
            position = like.plain_elements(start, position, own, starts, PIXEL_DATA_TAGS)
            if position != length and not start.startswith(self._pixel_data_tags, position):
                position = _read_closely(like, start, position, own, PIXEL_DATA_TAGS)
        except (MalformedDataSet, LimitExceeded):
            return None
        is_at_pixels = position + 8 <= len(start) and start.startswith(self._pixel_data_tags, position)
        if not is_at_pixels and position != length:
            return None
        if position > MOST_BYTES or not own.keys().isdisjoint(shared.elements):
            # of an element that is there twice, the later one counts
            return None
        return Recalled(shared, own, places, position, is_at_pixels)

    def learn(
        self,
        found: Mapping[int, RawElement],
        starts: Sequence[int],
        encoded: bytes,
        *,
        like: ElementWalk,
        kind: tuple[str, int],
        series_instance_uid: str,
    ) -> None:
        """Remember a header that could not be recalled.

        Parameters
        ----------
        found : mapping of int to RawElement
            All its elements, in their order.
        starts : sequence of int
            At which offset each begins.
        encoded : bytes
            The header itself, ``MOST_BYTES`` at most.
        like : ElementWalk
            Walks bytes that are encoded in the same way; it is kept.
        kind : tuple of str and int
            As of ``recall``.
        series_instance_uid : str
            Its series: what varies within that is remembered as long as no other comes.
        """
        before = self._before
        is_same_series = (self._kind, self._series_instance_uid) == (kind, series_instance_uid)
        self._runs, self._shared = (), None
        self._kind, self._series_instance_uid, self._before = kind, series_instance_uid, {}
        if not is_same_series:
            self._varying = set()
        if len(starts) != len(found):
            return  # an element is there twice
        self._before = found
        if not is_same_series:
            return
        varying = self._varying
        varying.update(tag for tag, element in found.items() if before.get(tag) != element)
        stretches = _stretches(found, starts, len(encoded), varying)
        if 2 * sum(len(elements) for _, _, elements in stretches) <= len(found):
            return
        self._runs = tuple(
            _Run(encoded[start:end], PIXEL_DATA_TAGS | {next(iter(elements))})
            for start, end, elements in stretches
        )
        runs = [elements for _, _, elements in stretches]
        self._shared = Shared(runs, is_little_endian=like.is_little_endian)
        self._like = like
        order = "<HH" if like.is_little_endian else ">HH"
        self._pixel_data_tags = tuple(struct.pack(order, tag >> 16, tag & 0xFFFF) for tag in PIXEL_DATA_TAGS)


def _read_closely(
    like: ElementWalk, start: bytes, position: int, own: dict[int, RawElement], stop: frozenset[int]
) -> int:
    """Read sequences, and what lies between them, into ``own``; return where that ended."""
    walk = like.over(start)
    while position < len(start) and walk.tag_at(position) not in stop:
        element = walk.element_at(position)
        own[element.tag] = walk.raw(element)
        position = walk.plain_elements(start, element.end, own, [], stop)
    return position


def _stretches(
    found: Mapping[int, RawElement], starts: Sequence[int], end: int, varying: set[int]
) -> list[tuple[int, int, dict[int, RawElement]]]:
    """Cut a header where something varies: start, end and elements of all that lies between."""
    stretches: list[tuple[int, int, dict[int, RawElement]]] = []
    is_open = False
    for (tag, element), start, after in zip(found.items(), starts, [*starts[1:], end], strict=True):
        if tag in varying:
            is_open = False
        elif is_open:
            first, _, elements = stretches[-1]
            elements[tag] = element
            stretches[-1] = first, after, elements
        else:
            stretches.append((start, after, {tag: element}))
            is_open = True
    return stretches
