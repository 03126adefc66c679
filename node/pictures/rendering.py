"""Makes a frame visible as the object says: modality, window, palette, colour space (PS3.4 annex N.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space

from node.errors import UnsupportedPixelData
from node.pictures.reading import Frame
from node.undecodable import UNDECODABLE_IN_MEMORY

_WHITE = 255
#: The macros of an enhanced object that say how a frame is shown (PS3.3 sections C.7.6.16.2.9 and 2.10).
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def picture(frame: Frame, *, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Render a frame.

    Parameters
    ----------
    frame : Frame
        As ``read_frame`` gives it.
    window : (center, width), optional
        In place of what the object says, in its units after the modality transformation.

    Returns
    -------
    ndarray
        (row, column) of grey, or (row, column, 3) of red, green and blue.

    Raises
    ------
    UnsupportedPixelData
        What the object says of it makes no sense.
    """
    try:
        return _picture(frame, window)
    except UNDECODABLE_IN_MEMORY as error:
        raise UnsupportedPixelData(f"the frame cannot be rendered: {error}") from error


def _picture(frame: Frame, window: tuple[float, float] | None) -> NDArray[np.uint8]:
    facts, header = frame.facts, frame.header
    colours = facts.photometric_interpretation
    if facts.bits_allocated == 1:
        bits = np.asarray(frame.samples, np.uint8) * np.uint8(_WHITE)
        return _WHITE - bits if colours == "MONOCHROME1" else bits
    if colours == "PALETTE COLOR":
        return _of_palette(frame)
    if facts.samples_per_pixel == 3:
        samples = _eight_bits(frame.samples, facts.bits_stored)
        return convert_color_space(samples, colours, "RGB") if colours.startswith("YBR") else samples
    if facts.samples_per_pixel != 1:
        raise UnsupportedPixelData(f"{colours} with {facts.samples_per_pixel} samples per pixel")
    said = _said_of(header, frame.number)
    values = np.asarray(frame.samples if facts.is_float else apply_modality_lut(frame.samples, said), float)
    shown = _windowed(values, frame, said, window)
    is_inverse = colours == "MONOCHROME1" or said.get("PresentationLUTShape") == "INVERSE"
    grey = np.rint(np.clip(shown, 0.0, 1.0) * _WHITE).astype(np.uint8)
    return _WHITE - grey if is_inverse else grey


def _of_palette(frame: Frame) -> NDArray[np.uint8]:
    entries = apply_color_lut(frame.samples, frame.header)
    return _eight_bits(entries[..., :3], 8 * entries.dtype.itemsize)


def _eight_bits(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits <= 8:
        return (samples << (8 - bits)).astype(np.uint8)
    return (samples >> (bits - 8)).astype(np.uint8)


def _said_of(header: Dataset, number: int) -> Dataset:
    """What the object says of one frame: with its functional groups, as if they were its own elements."""
    said = Dataset()
    said.update({element.tag: element for element in _readable(header)})
    groups = []
    for name, place in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", number - 1),
    ):
        sequence = header.get(name)
        if sequence is not None and place < len(sequence):
            groups.append(sequence[place])
    for group in groups:
        for name in _FUNCTIONAL_GROUPS:
            if group.get(name):
                said.update(group[name][0])
    return said


_SAID = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)


def _readable(header: Dataset) -> Iterator[Any]:
    for keyword in _SAID:
        if header.get(keyword) not in (None, ""):
            yield header[keyword]


def _windowed(
    values: NDArray[np.float64], frame: Frame, said: Dataset, window: tuple[float, float] | None
) -> NDArray[np.float64]:
    """From 0, which is shown black, to 1."""
    if window is None and said.get("VOILUTSequence"):
        return _looked_up(values, said.VOILUTSequence[0])
    function = "LINEAR"
    if window is None:
        function = str(said.get("VOILUTFunction") or function)
        window = _first(said.get("WindowCenter")), _first(said.get("WindowWidth"))
        if frame.facts.is_float and function == "LINEAR":
            function = "LINEAR_EXACT"  # the other reckons with steps of one
        if window[1] <= 0 or (function == "LINEAR" and window[1] < 1):
            return _stretched(values, frame, said)
    center, width = window
    match function:
        case "SIGMOID":  # PS3.3 section C.11.2.1.3.1
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
        case "LINEAR_EXACT":  # section C.11.2.1.3.2
            return (values - center) / width + 0.5
        case _:  # section C.11.2.1.2.1
            return (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5


def _looked_up(values: NDArray[np.float64], table: Dataset) -> NDArray[np.float64]:
    """By a VOI LUT (PS3.3 section C.11.2.1.1)."""
    count, first, bits = map(int, table.LUTDescriptor)
    count = count or 1 << 16
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16  # a signed one that was taken for unsigned
    data = table.LUTData
    if isinstance(data, bytes):
        entries = np.frombuffer(data, "<u2" if len(data) >= 2 * count else np.uint8)
    else:
        entries = np.asarray(data)
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return np.asarray(entries[places] / (2**bits - 1), float)


def _first(value: Any) -> float:
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    return float(value) if value is not None else 0.0


def _stretched(values: NDArray[np.float64], frame: Frame, said: Dataset) -> NDArray[np.float64]:
    """From the least to the largest value that is no padding, where the object names no window."""
    counts = np.isfinite(values)
    padding = said.get("PixelPaddingValue")
    if padding is not None:
        limits = sorted((int(padding), int(said.get("PixelPaddingRangeLimit") or padding)))
        counts &= (frame.samples < limits[0]) | (frame.samples > limits[1])
    seen = values[counts]
    if not seen.size:
        return np.zeros_like(values)
    lowest, highest = float(seen.min()), float(seen.max())
    return np.nan_to_num((values - lowest) / ((highest - lowest) or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
