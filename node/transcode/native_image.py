"""A received data set whose pixels are native: where they are, and whether they can be encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.errors import UnsupportedPixelData
from node.ingest.elements import PIXEL_DATA_TAGS, Element, ElementWalk
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, walk
from node.transcode.facts import MOST_FRAME_BYTES, PixelFacts, facts_from
from node.transcode.native import NativeLayout, Words, bit_frames

PIXEL_DATA = 0x7FE00010
#: What stands beside the pixels of one instance and is still kept a second time, as it came.
MOST_HEADER_BYTES = 64 << 20
MOST_TRAILING_BYTES = 16 << 20
DEEPEST_NESTING = 256

_NATIVE = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)))
_COLOURS_OF_THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422")
_TEXT_KEYWORDS = frozenset({"PhotometricInterpretation", "NumberOfFrames"})


class NoPixels(UnsupportedPixelData):
    """The data set has none of the elements that hold pixels."""


@dataclass(frozen=True)
class NativeImage:
    """Native pixels within a data set.

    Attributes
    ----------
    before, after : tuple of Element
        The elements on both sides of Pixel Data.
    pixel_data : Element
        Pixel Data (7FE0,0010).
    """

    walk: ElementWalk
    transfer_syntax_uid: str
    before: tuple[Element, ...]
    pixel_data: Element
    after: tuple[Element, ...]
    facts: PixelFacts
    layout: NativeLayout

    @property
    def frames_bytes(self) -> int:
        """Bytes of all frames; what Pixel Data has beyond them is padding."""
        if self.facts.bits_allocated == 1:
            return (self.facts.frame_samples * self.facts.number_of_frames + 7) // 8
        return self.layout.frame_bytes * self.facts.number_of_frames

    def prefix(self) -> bytes:
        """The data set up to its first sample."""
        return self.walk.read(0, self.pixel_data.value_offset)

    def suffix(self) -> bytes:
        """The data set behind its last sample."""
        start = self.pixel_data.value_offset + self.frames_bytes
        return self.walk.read(start, self.walk.length - start)

    def words(self) -> Iterator[Words]:
        """Words of each frame, see ``NativeLayout.words``; of Bits Allocated 1, one for each bit."""
        if self.facts.bits_allocated == 1:
            yield from bit_frames(self._reader(), self.facts)
            return
        size = self.layout.frame_bytes
        for number in range(self.facts.number_of_frames):
            yield self.layout.words(self.walk.read(self.pixel_data.value_offset + number * size, size))

    def _reader(self) -> Callable[[int], bytes]:
        position = self.pixel_data.value_offset

        def read(count: int) -> bytes:
            nonlocal position
            position += count
            return self.walk.read(position - count, count)

        return read


def native_image(
    data_set: BinaryIO, transfer_syntax_uid: str, *, frame_bytes: int = MOST_FRAME_BYTES
) -> NativeImage:
    """Find native pixels, of frames of up to ``frame_bytes``, that a lossless codec may encode.

    Raises
    ------
    NoPixels, UnsupportedPixelData
        Says why there are none. Whoever stores the instance keeps it as it came.
    MalformedDataSet, LimitExceeded
        The data set cannot be walked.
    """
    if transfer_syntax_uid not in _NATIVE:
        deflated = transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES
        raise UnsupportedPixelData("the data set is deflated" if deflated else "already compressed")
    elements = walk(data_set, transfer_syntax_uid, max_depth=DEEPEST_NESTING)
    every = tuple(elements.elements())
    place = next((number for number, one in enumerate(every) if one.tag in PIXEL_DATA_TAGS), None)
    if place is None:
        raise NoPixels("no pixels")
    pixel_data = every[place]
    if pixel_data.tag != PIXEL_DATA:
        raise UnsupportedPixelData("floating-point pixels")
    if pixel_data.is_undefined:
        raise UnsupportedPixelData("already compressed")
    if any(one.tag >= other.tag for one, other in pairwise(every)):
        raise UnsupportedPixelData("the elements are not in order")
    value_of = value_reader(elements, every)
    facts = facts_from(value_of, frame_bytes=frame_bytes)
    try:
        int(value_of("NumberOfFrames") or 1)
    except ValueError:
        raise UnsupportedPixelData("Number of Frames is no number") from None
    layout = NativeLayout(
        facts,
        is_little_endian=elements.is_little_endian,
        is_words=pixel_data.vr != "OB",
    )
    image = NativeImage(
        elements, transfer_syntax_uid, every[:place], pixel_data, every[place + 1 :], facts, layout
    )
    _check(image)
    return image


def value_reader(elements: ElementWalk, every: tuple[Element, ...]) -> Any:
    """Return a function that gives numbers and short texts by keyword, for ``facts_from``."""
    by_tag = {element.tag: element for element in every if element.tag >> 16 == 0x0028}

    def value_of(keyword: str) -> Any:
        element = by_tag.get(tag_for_keyword(keyword) or 0)
        if element is None or element.length > 64:
            return None
        value = elements.value(element)
        if keyword in _TEXT_KEYWORDS:
            return value.decode("ascii", "replace").strip("\0 ") or None
        if len(value) < 2:
            return None
        return int.from_bytes(value[:2], "little" if elements.is_little_endian else "big")

    return value_of


def _check(image: NativeImage) -> None:
    facts, layout = image.facts, image.layout
    if facts.bits_allocated == 1 and (facts.samples_per_pixel > 1 or not layout.is_little_endian):
        raise UnsupportedPixelData("bits of several samples, or in Big Endian words")
    if facts.samples_per_pixel == 4 or (
        facts.samples_per_pixel == 3 and facts.photometric_interpretation not in _COLOURS_OF_THREE_SAMPLES
    ):
        raise UnsupportedPixelData(
            f"{facts.photometric_interpretation} with {facts.samples_per_pixel} samples per pixel"
        )
    layout.check()
    missing = image.frames_bytes - image.pixel_data.length
    if missing > 0:
        raise UnsupportedPixelData("Pixel Data is shorter than its frames")
    if -missing >= max(layout.frame_bytes or (facts.frame_samples + 7) // 8, 2):
        raise UnsupportedPixelData("Pixel Data is longer than Number of Frames says")
    beside = image.walk.length - image.pixel_data.value_offset - image.frames_bytes
    if image.pixel_data.value_offset > MOST_HEADER_BYTES or beside > MOST_TRAILING_BYTES:
        raise UnsupportedPixelData("too much stands beside the pixels")
