"""The attributes that say how pixels are encoded (PS3.3 section C.7.6.3), read leniently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import UnsupportedPixelData
from node.undecodable import UNDECODABLE_IN_MEMORY

#: What a decoded frame may measure where nobody says otherwise; larger ones are a fault or an attack.
MOST_FRAME_BYTES = LimitsConfig().frame_bytes


@dataclass(frozen=True)
class PixelFacts:
    """How the pixels of one image are encoded; all names are the standard's."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    planar_configuration: int
    photometric_interpretation: str
    number_of_frames: int
    is_float: bool = False

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows, columns, samples) for colour."""
        shape = (self.rows, self.columns)
        return shape if self.samples_per_pixel == 1 else (*shape, self.samples_per_pixel)

    @property
    def is_subsampled(self) -> bool:
        """Whether two pixels of the native form share their chrominances (PS3.3 section C.7.6.3.1.2)."""
        return self.photometric_interpretation == "YBR_FULL_422" and self.samples_per_pixel == 3

    @property
    def decoded_frame_bytes(self) -> int:
        """Bytes of one frame in memory, where each sample has at least one."""
        return self.frame_samples * max(self.bits_allocated // 8, 1)


def facts_of(data_set: Dataset, *, frame_bytes: int = MOST_FRAME_BYTES) -> PixelFacts:
    """Read the facts of an image.

    Raises
    ------
    UnsupportedPixelData
        A decoded frame has more than ``frame_bytes`` bytes, or what cannot be guessed is missing or
        makes no sense. Missing Number of Frames means 1,
        missing Bits Stored, High Bit, Pixel Representation and Planar Configuration their usual
        values.
    """

    def text(keyword: str) -> Any:
        try:
            return data_set.get(keyword)
        except UNDECODABLE_IN_MEMORY:
            return None  # the value cannot even be decoded

    is_float = "FloatPixelData" in data_set or "DoubleFloatPixelData" in data_set
    return facts_from(text, is_float=is_float, frame_bytes=frame_bytes)


def facts_from(
    value_of: Callable[[str], Any], *, is_float: bool = False, frame_bytes: int = MOST_FRAME_BYTES
) -> PixelFacts:
    """Read the facts by ``value_of(keyword)``, which gives None for what is absent; as ``facts_of``."""

    def number(keyword: str, default: int | None = None) -> int:
        value = value_of(keyword)
        if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
            value = value[0] if len(value) else None
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            if default is None:
                raise UnsupportedPixelData(f"the image has no usable {keyword}") from None
            return default

    bits_allocated = number("BitsAllocated")
    bits_stored = number("BitsStored", bits_allocated)
    samples_per_pixel = number("SamplesPerPixel", 1)
    photometric_interpretation = str(value_of("PhotometricInterpretation") or "").strip()
    facts = PixelFacts(
        rows=number("Rows"),
        columns=number("Columns"),
        samples_per_pixel=samples_per_pixel,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=number("HighBit", bits_stored - 1),
        is_signed=number("PixelRepresentation", 0) == 1 and not is_float,
        planar_configuration=number("PlanarConfiguration", 0) if samples_per_pixel > 1 else 0,
        photometric_interpretation=photometric_interpretation
        or ("MONOCHROME2" if samples_per_pixel == 1 else "RGB"),
        number_of_frames=number("NumberOfFrames", 1) or 1,
        is_float=is_float,
    )
    _check(facts, frame_bytes)
    return facts


def _check(facts: PixelFacts, frame_bytes: int) -> None:
    if facts.rows < 1 or facts.columns < 1 or facts.number_of_frames < 1:
        raise UnsupportedPixelData(
            f"the image says it has {facts.rows} rows, {facts.columns} columns and "
            f"{facts.number_of_frames} frames"
        )
    if facts.samples_per_pixel not in (1, 3, 4):
        raise UnsupportedPixelData(f"{facts.samples_per_pixel} samples per pixel")
    if facts.bits_allocated not in (1, 8, 16, 32, 64):
        raise UnsupportedPixelData(f"{facts.bits_allocated} bits allocated")
    if not 0 < facts.bits_stored <= facts.high_bit + 1 <= facts.bits_allocated and not facts.is_float:
        raise UnsupportedPixelData(
            f"{facts.bits_stored} bits stored up to bit {facts.high_bit} "
            f"of {facts.bits_allocated} bits allocated"
        )
    if facts.planar_configuration not in (0, 1):
        raise UnsupportedPixelData(f"Planar Configuration {facts.planar_configuration}")
    if facts.decoded_frame_bytes > frame_bytes:
        raise UnsupportedPixelData(
            f"a frame has {facts.decoded_frame_bytes} bytes, more than the limit of {frame_bytes}"
        )
