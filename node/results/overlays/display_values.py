"""How the stored values of one image or frame of a source become what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.results.frames import groups_of
from node.results.grid import Slice
from node.results.header_values import as_decimal_string, integer, items, numbers, text
from node.results.source_header import SourceHeader
from node.undecodable import UNDECODABLE_IN_MEMORY

_FUNCTIONS = ("LINEAR_EXACT", "SIGMOID")
_LONG_STRING = 64


@dataclass(frozen=True)
class LookUpTable:
    """An item of a Modality or a VOI LUT Sequence (PS3.3 sections C.11.1 and C.11.2).

    ``descriptor`` is how many entries there are, the first value mapped, and bits for each entry;
    ``entries`` are little endian. ``kind`` is the Modality LUT Type.
    """

    descriptor: tuple[int, int, int]
    entries: bytes
    explanation: str = ""
    kind: str = ""

    def item(self) -> Dataset:
        """Return it as an item of its sequence."""
        count, first, bits = self.descriptor
        made = Dataset()
        values = np.array([count, first, bits])
        # The first value may be negative, and then all three are signed.
        signed = values.astype("<i2") if first < 0 else values.astype("<u2")
        tag = tag_for_keyword("LUTDescriptor")
        assert tag is not None
        made.add_new(tag, "SS" if first < 0 else "US", signed.tolist())
        made.LUTExplanation = self.explanation or None
        if self.kind:
            made.ModalityLUTType = self.kind
        tag = tag_for_keyword("LUTData")
        assert tag is not None
        made.add_new(tag, "OW", self.entries)
        return made


@dataclass(frozen=True)
class Window:
    """A window; ``function`` is empty for a linear one (PS3.3 section C.11.2.1.3)."""

    centre: float
    width: float
    function: str = ""

    def item(self) -> Dataset:
        """Return it as an item of a VOI LUT macro."""
        made = Dataset()
        made.WindowCenter, made.WindowWidth = as_decimal_string(self.centre), as_decimal_string(self.width)
        # A linear window is at least 1 wide.
        if function := self.function or ("LINEAR_EXACT" if self.width < 1 else ""):
            made.VOILUTFunction = function
        return made


@dataclass(frozen=True)
class DisplayValues:
    """What one image is shown by: its Modality LUT, and its window or else its VOI LUT.

    ``modality`` is (slope, intercept, type), (1, 0, "") when there is none, or a table; ``window`` is None
    when the image says nothing.
    """

    modality: tuple[float, float, str] | LookUpTable = (1.0, 0.0, "")
    window: Window | LookUpTable | None = None


def display_values(data_set: Dataset, one: Slice) -> DisplayValues:
    """Return those of a slice of ``data_set``, from the functional groups of its frame where it has some."""
    groups = groups_of(data_set, (one.frame or 1) - 1)
    places = [
        item
        for group in groups
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
        for item in items(group, keyword)[:1]
    ]
    if not groups:
        places = [data_set]
    slope, intercept, centre, width = (
        next((found[0] for place in places if (found := numbers(place, keyword))), None)
        for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    )
    kind, function = (
        next((stated for place in places if (stated := text(place, keyword))), "")
        for keyword in ("RescaleType", "VOILUTFunction")
    )
    is_signed = integer(data_set, "PixelRepresentation") == 1
    modality: tuple[float, float, str] | LookUpTable = (1.0, 0.0, "")
    if (table := _table(places, "ModalityLUTSequence", is_signed=is_signed)) is not None:
        modality = table
    elif slope is not None and intercept is not None:
        modality = (slope, intercept, kind[:16])
    if centre is not None and width is not None and width > 0:
        return DisplayValues(modality, Window(centre, width, function if function in _FUNCTIONS else ""))
    is_below_zero = (is_signed and table is None) or bool(intercept and intercept < 0)
    return DisplayValues(modality, _table(places, "VOILUTSequence", is_signed=is_below_zero))


def aspect_of(header: SourceHeader) -> tuple[tuple[float, ...], tuple[int, int]]:
    """Return the shape of the first image's pixels: (row, column) mm, empty if unknown, and their aspect.

    The aspect is (vertical, horizontal). Spacings at the detector say that much, and no more.
    """
    spacing = header.images[0].pixel_spacing_mm
    if len(spacing) == 2:
        return spacing, (1, 1)
    for keyword in ("PixelAspectRatio", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(header.first, keyword)
        if len(found) == 2 and min(found) > 0:
            ratio = Fraction(found[0] / found[1]).limit_denominator(1000)
            if 0 < ratio < 1000:
                return (), (ratio.numerator, ratio.denominator)
    return (), (1, 1)


def _table(places: Sequence[Dataset], keyword: str, *, is_signed: bool) -> LookUpTable | None:
    """Return the first table of a sequence; None when there is none, or it is not whole."""
    for item in (item for place in places for item in items(place, keyword)[:1]):
        descriptor, entries = _whole_numbers(item, "LUTDescriptor"), _whole_numbers(item, "LUTData")
        if len(descriptor) != 3:
            continue
        count, first, bits = descriptor
        count = count % 65536 or 65536
        first = first - 65536 if is_signed and first > 32767 else first
        data = np.array(entries, "<i8").astype("<u2").tobytes()
        # Entries of a byte may be packed two to a word.
        if len(data) not in (2 * count, count + count % 2) or not 8 <= bits <= 16:
            continue
        kind = (text(item, "ModalityLUTType")[:_LONG_STRING] or "US") if keyword[0] == "M" else ""
        return LookUpTable((count, first, bits), data, text(item, "LUTExplanation")[:_LONG_STRING], kind)
    return None


def _whole_numbers(item: Dataset, keyword: str) -> list[int]:
    """Return values of 16 bits, also where their representation was left open and they are bytes."""
    try:
        value = item.get(keyword)
        if isinstance(value, bytes):
            return [int(one) for one in np.frombuffer(value[: len(value) // 2 * 2], "<u2")]
        return [int(one) for one in value or []]
    except (*UNDECODABLE_IN_MEMORY, ValueError, TypeError):
        return []
