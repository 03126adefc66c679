"""Faults of the stored values of a series: constant, clipped, repeated or unreadable images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.series_faults import CLIPPED, CONSTANT, DUPLICATE, UNREADABLE, Finding, listed
from models.series_stack import number
from models.types import InstanceView, Series

#: More of an image at the upper end of its range is clipping, not a bright spot.
MOST_CLIPPED = 0.01


def pixel_faults(series: Series) -> Iterator[Finding]:
    """Faults of the stored values, one finding for all instances that share it."""
    unreadable: list[str] = []
    constant: list[str] = []
    clipped: list[tuple[float, str]] = []
    alike: dict[tuple[Any, ...], list[tuple[str, NDArray[Any]]]] = {}
    twins: list[str] = []
    for one in series.instances:
        name = f"instance {one.number}"
        if one.pixels is None:
            if one.pixels_error:
                unreadable.append(f"{name} ({one.pixels_error})")
            continue
        low, high = one.pixels.min(), one.pixels.max()
        if low == high:
            constant.append(name)
            continue
        share = _clipped(one, high)
        if share > MOST_CLIPPED:
            clipped.append((share, name))
        key = (
            one.pixels.shape,
            one.pixels.dtype.str,
            int(low),
            int(high),
            float(one.pixels.sum(dtype=np.float64)),
        )
        others = alike.setdefault(key, [])
        twin = next((n for n, pixels in others if np.array_equal(pixels, one.pixels)), None)
        if twin is None:
            others.append((name, one.pixels))
        else:
            twins.append(f"{name} shows the same pixels as {twin}")
    if unreadable:
        yield UNREADABLE, f"Pixels of {len(unreadable)} instances cannot be decoded: {listed(unreadable)}"
    if constant:
        yield CONSTANT, f"{len(constant)} images have one value everywhere: {listed(constant)}"
    if clipped:
        worst = max(clipped)
        names = listed([name for _, name in clipped])
        yield (
            CLIPPED,
            f"{len(clipped)} images are clipped at the upper end of their range, "
            f"up to {100 * worst[0]:.1f} % of {worst[1]}: {names}",
        )
    if twins:
        yield DUPLICATE, f"{len(twins)} images are duplicates: {listed(twins)}"


def _clipped(one: InstanceView, high: Any) -> float:
    """Share of the pixels at the end of the range of values that the bits can hold; 0 for colour.

    A range may also end below that of Bits Stored (a 12-bit detector in 16 bits), so any maximum
    of all ones counts, from 10 bits on.
    """
    pixels = one.pixels
    if pixels is None or number(one.header.get("SamplesPerPixel"), 1) != 1 or pixels.dtype.kind not in "iu":
        return 0.0
    if one.header.get("Modality") == "SEG":
        # Masks are all ends of the range.
        return 0.0
    bits = int(number(one.header.get("BitsStored"), 8 * pixels.dtype.itemsize))
    if bits < 8:
        return 0.0
    top = bits - 1 if one.header.get("PixelRepresentation") == 1 else bits
    ends = {(1 << n) - 1 for n in (*range(10, top), top)}
    if int(high) not in ends or _is_padding(one, int(high)):
        return 0.0
    return float(np.count_nonzero(pixels == high) / pixels.size)


def _is_padding(one: InstanceView, value: int) -> bool:
    return one.header.get("PixelPaddingValue") == value
