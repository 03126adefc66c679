"""How samples lie in native Pixel Data: the words of a frame, and their bytes, both ways.

A *word* is what Bits Allocated holds, as it stands in the data set, unused bits included; a
*value* is what Bits Stored, High Bit and Pixel Representation make of it (PS3.5 section 8.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.errors import UnsupportedPixelData
from node.transcode.facts import PixelFacts

Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class NativeLayout:
    """Place of the samples of one frame in native Pixel Data of 8, 16, 32 or 64 bits allocated.

    Of YBR_FULL_422, two luminances are followed by the chrominances that they share (PS3.3 section
    C.7.6.3.1.2); its words are those of YBR_FULL, where each pixel has its own.

    Parameters
    ----------
    facts : PixelFacts
        Of the image.
    is_little_endian : bool
        Byte order of the data set.
    is_words : bool
        Whether the VR is OW: then 8-bit samples of a Big Endian data set lie in swapped pairs
        (PS3.5 section A.3 with 8.1.1).
    """

    facts: PixelFacts
    is_little_endian: bool = True
    is_words: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        if self.facts.is_subsampled:
            return self.facts.rows * self.facts.columns * 2
        return self.facts.frame_samples * (self.facts.bits_allocated // 8)

    @property
    def _is_swapped_in_pairs(self) -> bool:
        return not self.is_little_endian and self.is_words and self.facts.bits_allocated == 8

    def check(self) -> None:
        """Raise UnsupportedPixelData where a frame cannot be told from the next by whole samples."""
        facts = self.facts
        if self._is_swapped_in_pairs and self.frame_bytes % 2:
            raise UnsupportedPixelData("8-bit samples in Big Endian words, and an odd number of them")
        if facts.is_subsampled and (
            facts.bits_allocated != 8 or facts.columns % 2 or facts.planar_configuration
        ):
            raise UnsupportedPixelData("subsampled colour of an odd width, of planes, or of more than 8 bits")

    def words(self, encoded: bytes | memoryview) -> Words:
        """Words of a frame.

        Parameters
        ----------
        encoded : bytes
            ``frame_bytes`` bytes of the Pixel Data.

        Returns
        -------
        ndarray
            Unsigned, Bits Allocated wide; (rows, columns), or (rows, columns, samples) for colour
            whatever the Planar Configuration.
        """
        facts = self.facts
        if self._is_swapped_in_pairs:
            words: Words = np.frombuffer(encoded, np.uint16).byteswap().view(np.uint8)
        else:
            order = "<" if self.is_little_endian else ">"
            words = np.frombuffer(encoded, f"{order}u{facts.bits_allocated // 8}")
            if not self.is_little_endian:
                words = words.astype(words.dtype.newbyteorder("="))
        if facts.is_subsampled:
            return _repeated(words.reshape(facts.rows, facts.columns // 2, 4))
        if facts.samples_per_pixel == 1:
            return words.reshape(facts.rows, facts.columns)
        if facts.planar_configuration == 1:
            planes = words.reshape(facts.samples_per_pixel, facts.rows, facts.columns)
            return np.ascontiguousarray(np.moveaxis(planes, 0, -1))
        return words.reshape(facts.rows, facts.columns, facts.samples_per_pixel)

    def encoded(self, words: Words) -> bytes:
        """Bytes of a frame: the inverse of ``words``."""
        if self.facts.is_subsampled:
            words = _shared(words)
        elif self.facts.samples_per_pixel > 1 and self.facts.planar_configuration == 1:
            words = np.moveaxis(words, -1, 0)
        if self._is_swapped_in_pairs:
            return np.ascontiguousarray(words).reshape(-1).view(np.uint16).byteswap().tobytes()
        order = words.dtype.newbyteorder("<" if self.is_little_endian else ">")
        return words.astype(order, copy=False).tobytes()


def _repeated(pairs: Words) -> Words:
    rows, half_columns, _ = pairs.shape
    words = np.empty((rows, 2 * half_columns, 3), pairs.dtype)
    words[..., 0] = pairs[..., :2].reshape(rows, -1)
    words[..., 1:] = np.repeat(pairs[..., 2:], 2, axis=1)
    return words


def _shared(words: Words) -> Words:
    rows, columns, _ = words.shape
    pairs = np.empty((rows, columns // 2, 4), words.dtype)
    pairs[..., :2] = words[..., 0].reshape(rows, -1, 2)
    pairs[..., 2:] = words[:, ::2, 1:]
    return pairs


def values(words: Words, facts: PixelFacts) -> NDArray[np.generic]:
    """What the words mean: High Bit at the top shifted down, unused bits replaced.

    Returns
    -------
    ndarray
        Same shape; signed where Pixel Representation says so.
    """
    bits = facts.bits_allocated
    signed = words.view(words.dtype.str.replace("u", "i")) if facts.is_signed else words
    unused = bits - facts.bits_stored
    if not unused:
        return signed
    # Left until the High Bit is at the top, then back by all unused bits; the second shift brings
    # the sign down.
    return (signed << (bits - 1 - facts.high_bit)) >> unused


def unpacked_bits(encoded: bytes | memoryview, count: int, *, skip: int = 0) -> NDArray[np.uint8]:
    """Samples of Bits Allocated 1, first in the least significant bit (PS3.5 section 8.1.1).

    ``skip`` samples at the beginning belong to the frame before.
    """
    return np.unpackbits(np.frombuffer(encoded, np.uint8), bitorder="little", count=skip + count)[skip:]


def packed_bits(samples: NDArray[np.generic]) -> bytes:
    """Bytes of samples of Bits Allocated 1: the inverse of ``unpacked_bits``, without a frame before."""
    return np.packbits(samples.reshape(-1).astype(np.uint8, copy=False), bitorder="little").tobytes()


def bit_frames(read: Callable[[int], bytes], facts: PixelFacts) -> Iterator[NDArray[np.uint8]]:
    """Frames of Bits Allocated 1, which follow each other without padding (PS3.5 section 8.1.1).

    Parameters
    ----------
    read : callable
        Gives the next so many bytes of Pixel Data.
    facts : PixelFacts
        Of the image.

    Yields
    ------
    ndarray
        (rows, columns) or (rows, columns, samples) of 0 and 1.
    """
    count = facts.frame_samples
    bit = 0
    last = b""
    for _ in range(facts.number_of_frames):
        needed = (bit + count + 7) // 8
        encoded = last + read(needed - len(last))
        yield unpacked_bits(encoded, count, skip=bit).reshape(facts.frame_shape)
        bit = (bit + count) % 8
        last = encoded[-1:] if bit else b""


def packed_frames(frames: Iterable[NDArray[np.generic]]) -> Iterator[bytes]:
    """Bytes of frames of Bits Allocated 1: the inverse of ``bit_frames``; the last byte ends in zeros."""
    left: NDArray[np.uint8] = np.empty(0, np.uint8)
    for frame in frames:
        bits = np.concatenate([left, frame.reshape(-1).astype(np.uint8, copy=False)])
        whole = len(bits) - len(bits) % 8
        yield packed_bits(bits[:whole])
        left = bits[whole:]
    if len(left):
        yield packed_bits(left)
