"""Made images of every kind of pixel, each such that every codec that takes it makes it smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from tests.support import made


def smooth(*shape: int, low: int = 0, high: int = 200, seed: int = 3) -> np.ndarray:
    """Samples that every codec makes smaller, between ``low`` and ``high`` inclusive."""
    rows, columns = np.mgrid[: shape[-2], : shape[-1]]
    steps = np.round(2 * (np.sin(rows / 25 + seed) + np.cos(columns / 20) + 2)) / 8
    speckled = np.random.default_rng(seed).random(shape) < 0.01
    return np.where(speckled, high, low + (high - low) * steps).astype(np.int64)


def colour(seed: int = 3) -> np.ndarray:
    return np.stack([smooth(81, 65, seed=seed + number) for number in range(3)], axis=-1).astype(np.uint8)


def grey(kind: str, low: int, high: int, **attributes: Any) -> Dataset:
    return made.ct_image(pixels=smooth(81, 65, low=low, high=high).astype(kind), **attributes)


def stored_bits(bits: int) -> dict[str, int]:
    return {"BitsStored": bits, "HighBit": bits - 1}


def multi_frame() -> Dataset:
    frames = np.stack([smooth(41, 65, seed=seed) for seed in range(5)]).astype(np.uint16)
    data_set = made.ct_image(pixels=frames[0])
    data_set.NumberOfFrames = 5
    data_set.PixelData = frames.tobytes()
    return data_set


def with_palette() -> Dataset:
    data_set = made.ct_image(pixels=smooth(81, 65).astype(np.uint8))
    data_set.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        setattr(data_set, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data_set, f"{name}PaletteColorLookupTableData", bytes(512))
    return data_set


def segments() -> Dataset:
    """Three frames of bits, none of which ends at the end of a byte."""
    frames = np.stack([smooth(41, 65, high=1, seed=seed) > 0 for seed in range(3)])
    data_set = made.ct_image(pixels=np.zeros((41, 65), np.uint8))
    data_set.NumberOfFrames = 3
    data_set.BitsAllocated = data_set.BitsStored = 1
    data_set.HighBit = 0
    data_set.PixelData = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    return data_set


def subsampled() -> Dataset:
    pairs = np.stack([smooth(81, 32, seed=seed) for seed in range(4)], axis=-1).astype(np.uint8)
    data_set = made.colour_image(pixels=colour()[:, :64], PhotometricInterpretation="YBR_FULL_422")
    data_set.PixelData = pairs.tobytes()
    return data_set


def overlaid() -> Dataset:
    """An overlay in bit 12, as scanners wrote it once (PS3.5 section 8.1.2)."""
    words = smooth(81, 65, high=4095).astype(np.uint16)
    words[30:50, 20:40] |= 0x1000
    return made.ct_image(pixels=words, **stored_bits(12))


KINDS: dict[str, Callable[[], Dataset]] = {
    "8 bits": lambda: grey("u1", 0, 200),
    "8 bits signed": lambda: grey("i1", -100, 100),
    "8 bits of odd length": lambda: made.ct_image(pixels=smooth(81, 65).astype(np.uint8)[:, :63]),
    "16 bits": lambda: grey("u2", 0, 60000),
    "16 bits signed": lambda: grey("i2", -30000, 30000),
    "12 of 16 bits": lambda: grey("u2", 0, 4095, **stored_bits(12)),
    "12 of 16 bits signed": lambda: grey("i2", -2048, 2047, **stored_bits(12)),
    "10 of 16 bits": lambda: grey("u2", 0, 1023, **stored_bits(10)),
    "14 of 16 bits": lambda: grey("u2", 0, 16383, **stored_bits(14)),
    "14 of 16 bits signed": lambda: grey("i2", -8192, 8191, **stored_bits(14)),
    "inverted": lambda: grey("u2", 0, 4095, **stored_bits(12), PhotometricInterpretation="MONOCHROME1"),
    "padded": lambda: grey("i2", -2000, 3000, PixelPaddingValue=-2000, **stored_bits(13)),
    "8 of 16 bits": lambda: grey("u2", 0, 255, **stored_bits(8)),
    "5 of 8 bits": lambda: grey("u1", 0, 31, **stored_bits(5)),
    "constant": lambda: grey("i2", -2000, -2000),
    "several frames": multi_frame,
    "palette": with_palette,
    "RGB": lambda: made.colour_image(pixels=colour()),
    "RGB by plane": lambda: made.colour_image(pixels=colour(), planar=True),
    "YBR_FULL": lambda: made.colour_image(pixels=colour(), PhotometricInterpretation="YBR_FULL"),
    "YBR_FULL_422": subsampled,
    "bits": segments,
    "24 of 32 bits": lambda: grey("u4", 0, 2**24 - 1, **stored_bits(24)),
    "32 bits": lambda: grey("u4", 0, 2**32 - 1),
    "32 bits signed": lambda: grey("i4", -(2**31), 2**31 - 1),
    "64 bits": lambda: grey("u8", 0, 2**40),
    "overlay in the unused bits": overlaid,
    "12 upper bits": lambda: grey("u2", 0, 4095 << 4, BitsStored=12, HighBit=15),
}
