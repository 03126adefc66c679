"""Frames at a half, a quarter, an eighth of their size: by the wavelet where there is one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from node.transcode import codestreams, htj2k
from node.transcode.facts import PixelFacts

_BY_OPENJPH = frozenset(map(str, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)))
_BY_OPENJPEG = frozenset(map(str, (uid.JPEG2000Lossless, uid.JPEG2000)))


def decode(encoded: bytes, facts: PixelFacts, transfer_syntax_uid: str, levels: int) -> NDArray[np.generic]:
    """Decode one frame, halved up to ``levels`` times where its code can do that; else whole.

    Parameters and errors are those of ``codestreams.decode``; each side of the result is rounded up.
    """
    if levels and facts.photometric_interpretation != "PALETTE COLOR":
        codestreams.check_size(encoded, facts, transfer_syntax_uid)
        try:
            found: NDArray[Any] | None = None
            if transfer_syntax_uid in _BY_OPENJPH:
                found = htj2k.reduced_samples(encoded, levels)
            elif transfer_syntax_uid in _BY_OPENJPEG:
                found = _by_pillow(encoded, facts, levels)
            if found is not None and _is_as_said(found, encoded, facts):
                return found
        except codestreams.FAILURES:
            pass  # the whole frame tells what is wrong, or is of a form that is decoded whole alone
    return codestreams.decode(encoded, facts, transfer_syntax_uid)


def _is_as_said(found: NDArray[Any], encoded: bytes, facts: PixelFacts) -> bool:
    """Whether the stream is what the header says, so that nothing has to be made of its samples."""
    stream = codestreams.jpeg2000_stream(encoded)
    return (
        stream.is_signed == facts.is_signed
        and stream.precision == facts.bits_stored
        and found.shape[2:] == facts.frame_shape[2:]
    )


def halved(samples: NDArray[Any], facts: PixelFacts) -> NDArray[Any]:
    """The next level of a pyramid: means of two by two, of numbers that are no quantity one of them."""
    if facts.photometric_interpretation == "PALETTE COLOR" or facts.bits_allocated == 1:
        return samples[::2, ::2]
    rows, columns = samples.shape[:2]
    even = np.pad(samples, [(0, rows % 2), (0, columns % 2), (0, 0)][: samples.ndim], mode="edge")
    quarters = np.stack([even[row::2, column::2] for row in (0, 1) for column in (0, 1)])
    mean = quarters.mean(axis=0, dtype=np.float64)
    return np.asarray(mean if facts.is_float else np.rint(mean)).astype(samples.dtype)


def _by_pillow(encoded: bytes, facts: PixelFacts, levels: int) -> NDArray[Any] | None:
    """Decode by OpenJPEG as Pillow does, which alone lets it leave out levels; None where it cannot."""
    stream = codestreams.jpeg2000_stream(encoded)
    side = 2**levels
    # Pillow rounds where the standard rounds up.
    is_rounded_alike = all(
        size % side == 0 or size % side >= side / 2 for size in (facts.rows, facts.columns)
    )
    most_bits = 16 if facts.samples_per_pixel == 1 else 8
    if not is_rounded_alike or stream.precision > most_bits or facts.samples_per_pixel == 4:
        return None
    if facts.rows * facts.columns > (Image.MAX_IMAGE_PIXELS or 0):
        return None
    with Image.open(io.BytesIO(encoded), formats=["JPEG2000"]) as image:
        image.reduce = levels  # type: ignore[assignment,method-assign]
        scaled = np.asarray(image).astype(np.int64)
    # Pillow gives 8 or 16 bits: less precise ones shifted up, signed ones moved above zero.
    values = scaled >> ((8 if stream.precision <= 8 else 16) - stream.precision)
    if stream.is_signed:
        values -= 1 << (stream.precision - 1)
    return values.astype(f"{'i' if facts.is_signed else 'u'}{max(8, facts.bits_allocated) // 8}")
