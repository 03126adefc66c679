"""Decodes RLE Lossless (PS3.5 annex G).

By PackBits of imagecodecs for each segment: pylibjpeg-rle, which encodes, ends the thread when a
damaged frame is given to it.
"""

from __future__ import annotations

import struct
from itertools import pairwise

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from node.transcode.facts import PixelFacts
from node.transcode.native import unpacked_bits

_MOST_SEGMENTS = 15
_HEADER = struct.Struct("<16L")
# A segment may end in the middle of a run; a longer one is damaged or an attack.
_SPARE_BYTES = 256


def rle_words(encoded: bytes, facts: PixelFacts) -> NDArray[np.unsignedinteger]:
    """Words of a frame of 8 or more bits allocated; (rows, columns) or (rows, columns, samples).

    Raises ValueError, RuntimeError or struct.error for a damaged frame.
    """
    sample_bytes = facts.bits_allocated // 8
    segments = _segments(encoded, facts.samples_per_pixel * sample_bytes)
    count = facts.rows * facts.columns
    octets = np.empty((facts.rows, facts.columns, facts.samples_per_pixel, sample_bytes), np.uint8)
    for number, segment in enumerate(segments):
        sample, byte = divmod(number, sample_bytes)
        # The most significant byte comes first; in memory it is the last.
        octets[:, :, sample, sample_bytes - 1 - byte] = _unpacked(segment, count).reshape(
            facts.rows, facts.columns
        )
    words = octets.view(f"<u{sample_bytes}")[..., 0]
    return words[..., 0] if facts.samples_per_pixel == 1 else words


def rle_bits(encoded: bytes, facts: PixelFacts) -> NDArray[np.uint8]:
    """Samples of a frame of Bits Allocated 1: packed, or a byte for each as some writers do it."""
    count = facts.rows * facts.columns
    (segment,) = _segments(encoded, facts.samples_per_pixel)
    plain = imagecodecs.packbits_decode(segment, out=count + _SPARE_BYTES)
    if len(plain) >= count:
        frame = (np.frombuffer(plain, np.uint8, count) != 0).astype(np.uint8)
    else:
        frame = unpacked_bits(_unpacked(segment, (count + 7) // 8).tobytes(), count)
    return frame.reshape(facts.rows, facts.columns)


def _segments(encoded: bytes, expected: int) -> list[bytes]:
    number, *offsets = _HEADER.unpack_from(encoded)
    if number != expected or number > _MOST_SEGMENTS:
        raise ValueError(f"{number} segments instead of {expected}")
    bounds = [*offsets[:number], len(encoded)]
    if any(start > end for start, end in pairwise(bounds)) or bounds[0] < _HEADER.size:
        raise ValueError("the segments are not in order")
    return [encoded[start:end] for start, end in pairwise(bounds)]


def _unpacked(segment: bytes, count: int) -> NDArray[np.uint8]:
    plain = imagecodecs.packbits_decode(segment, out=count + _SPARE_BYTES)
    if len(plain) < count:
        raise ValueError(f"a segment has {len(plain)} bytes instead of {count}")
    return np.frombuffer(plain, np.uint8, count)
