"""Which codecs are tried for an image, in which order: by name, or by measurement of its first frames."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from node.errors import AnodeError
from node.transcode import unused_bits
from node.transcode.codecs import by_name
from node.transcode.codestreams import FAILURES
from node.transcode.native import Words
from node.transcode.native_image import NativeImage
from node.transcode.unused_bits import UnusedBits

BEST = "best"
KEEP = "keep"
#: What is tried for images that the chosen codec does not take or does not make smaller: RLE carries words
#: of any width with all their bits, a deflated frame single bits.
FALLBACKS = ("rle", "deflated-frame")
#: A codec that is this much of the best ratio is good enough; of those the fastest is taken.
GOOD_ENOUGH = 0.95

_MOST_FRAMES = 3
_MOST_BYTES = 4 << 20


def named(choice: str) -> tuple[str, ...]:
    """Codecs to try when ``choice`` is the name of one, in their order; none to keep."""
    return () if choice == KEEP else tuple(dict.fromkeys((choice, *FALLBACKS)))


def ranked(image: NativeImage, allowed: Sequence[str]) -> tuple[tuple[str, ...], dict[str, dict[str, float]]]:
    """Measure codecs on the first frames of an image.

    Parameters
    ----------
    image : NativeImage
        The first of its series.
    allowed : sequence of str
        Names of codecs.

    Returns
    -------
    tuple of str
        First the fastest of those within 5 % of the best ratio, then the others by their ratio; last those
        that do not take these frames, give them back or make them smaller.
    dict
        By name, the ``ratio`` and the ``mb_per_second`` of encoding and decoding together; without the last.
    """
    frames = list(_first_frames(image))
    size = image.layout.frame_bytes * len(frames) or sum(frame.size for frame in frames) // 8
    measured = {}
    for name in allowed:
        length, seconds = _tried(name, image, frames)
        if 0 < length < size:
            measured[name] = {
                "ratio": round(size / length, 4),
                "mb_per_second": round(size / 1e6 / max(seconds, 1e-6), 1),
            }
    best = max((one["ratio"] for one in measured.values()), default=0.0)

    def rank(name: str) -> tuple[bool, float]:
        one = measured[name]
        is_good = one["ratio"] >= GOOD_ENOUGH * best
        return not is_good, -one["mb_per_second"] if is_good else -one["ratio"]

    others = [name for name in allowed if name not in measured]
    return (*sorted(measured, key=rank), *others), measured


def _first_frames(image: NativeImage) -> Iterator[Words]:
    size = 0
    for words in islice(image.words(), _MOST_FRAMES):
        yield words
        size += words.nbytes
        if size >= _MOST_BYTES:
            return


def _tried(name: str, image: NativeImage, frames: Sequence[Words]) -> tuple[int, float]:
    """Length of the code of all ``frames`` and the processor time it took; 0 where it cannot be."""
    codec = by_name(name)
    if codec.refuses(image.facts):
        return 0, 0.0
    seen = UnusedBits(image.facts)
    length = 0
    try:
        if frames:  # once untimed: the first call loads a library
            codec.decode(codec.encode(frames[0], image.facts), image.facts)
        began = time.thread_time()
        for words in frames:
            if codec.needs_clean_words:
                seen.see(words)
            encoded = codec.encode(words, image.facts)
            decoded = codec.decode(encoded, image.facts).reshape(words.shape)
            kind = seen.kind if codec.needs_clean_words else unused_bits.AS_CODED
            if not np.array_equal(unused_bits.restored(decoded, image.facts, kind), words):
                return 0, 0.0
            length += len(encoded)
    except (AnodeError, *FAILURES):
        return 0, 0.0
    return length, time.thread_time() - began
