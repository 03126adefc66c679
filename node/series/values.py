"""Stored values of a frame to real-world ones, in the narrowest type that holds them, and their unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.series.header_values import is_empty, items, numbers, text
from node.series.series_view import Allocate, stored_value

HOUNSFIELD_UNIT = "[hnsf'U]"
#: What padding outside the field of view becomes in a CT: air, at the end of the scale.
CT_PADDING_HU = -1024
#: Modalities whose values mean nothing before they are rescaled, and what they then are not.
RESCALED = {"CT": "are no Hounsfield units", "PT": "are not in the unit that it names"}
#: Slope and intercept beyond this are none: with 32 bits stored, all up to it fit into 64.
MOST_RESCALING = 1e9
#: Units (0054,1001) of PET (PS3.3 section C.8.9.1.1.3) as UCUM.
_PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "{counts}", "CPS": "{counts}/s", "PROPCNTS": "{counts}"}


def unit_of(headers: Sequence[Dataset]) -> str:
    """UCUM unit of the rescaled values; ``1`` where the objects name none.

    Raises ValueError where they name several, or are of several modalities.
    """
    modalities = {text(header, "Modality") for header in headers}
    if len(modalities) > 1:
        raise ValueError(f"mixed modalities: {', '.join(sorted(modalities))}")
    types = {kind for header in headers for kind in _rescale_types(header)}
    units = {text(header, "Units") for header in headers}
    if len(types) > 1 or len(units) > 1:
        raise ValueError("mixed units of the values")
    if modalities == {"CT"} and types <= {"", "HU"}:
        return HOUNSFIELD_UNIT
    if modalities == {"PT"}:
        return _PET_UNITS.get(units.pop(), "1")
    return "1"


def _rescale_types(header: Dataset) -> set[str]:
    """Of every frame."""
    groups = items(header, "PerFrameFunctionalGroupsSequence") or [Dataset()]
    return {text(transformation(header, group), "RescaleType") for group in groups}


@dataclass(frozen=True)
class Rescaling:
    """How stored values become real-world ones; ``said`` names what the object itself says of it."""

    slope: float
    intercept: float
    said: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers stay whole."""
        return self.slope.is_integer() and self.intercept.is_integer()


def transformation(header: Dataset, group: Dataset) -> Dataset:
    """What holds the rescaling of a frame: its functional group, the shared one, or the header.

    PS3.3 section C.7.6.16.2.9; ``group`` is the frame's item, or empty.
    """
    for one in (group, *items(header, "SharedFunctionalGroupsSequence")[:1]):
        if found := items(one, "PixelValueTransformationSequence"):
            return found[0]
    return header


def rescaling(holder: Dataset, modality: str) -> Rescaling:
    """What ``holder`` says of rescaling (PS3.3 section C.11.1.1.2); 1 and 0 where it says nothing.

    Raises ValueError, which says what ``holder`` "has": no value where the modality means nothing without
    it, or one that is no number or cannot be meant.
    """
    found, said = [], []
    for keyword, name, default in (
        ("RescaleSlope", "Rescale Slope", 1.0),
        ("RescaleIntercept", "Rescale Intercept", 0.0),
    ):
        if is_empty(holder, keyword):
            if meaningless := RESCALED.get(modality):
                raise ValueError(f"has no {name}, so its values {meaningless}")
            found.append(default)
            continue
        one = numbers(holder, keyword, 1)
        if one is None:
            raise ValueError(f"has a {name} that is not one number")
        # A slope of 0 makes all values one, and one below 0 makes air of bone.
        is_useless = name == "Rescale Slope" and (one[0] == 0 or (one[0] < 0 and modality in RESCALED))
        if is_useless or abs(one[0]) > MOST_RESCALING:
            raise ValueError(f"has a {name} of {one[0]:g}, which cannot be meant")
        found.append(one[0])
        said.append(name)
    return Rescaling(found[0], found[1], tuple(said))


def real(stored: NDArray[Any], rescale: Rescaling) -> NDArray[Any]:
    """Stored values of one frame to real-world ones: int64, or float32 (PS3.3 section C.11.1)."""
    if rescale.is_whole and not np.issubdtype(stored.dtype, np.floating):
        return stored.astype(np.int64) * int(rescale.slope) + int(rescale.intercept)
    return (stored.astype(np.float64) * rescale.slope + rescale.intercept).astype(np.float32)


def fill_padding(
    values: NDArray[Any],
    stored: NDArray[Any],
    header: Dataset,
    rescale: Rescaling,
    *,
    is_ct: bool,
    is_inverse: bool = False,
) -> None:
    """Put what is outside the field of view to air in CT, else to what is shown black.

    That is the lowest value of the frame, or with ``is_inverse`` (MONOCHROME1) the highest one. Lossy
    compression spreads padding to other values: where it lies below the scale of a CT, so does nothing else.
    """
    span = _padding(header)
    if span is None:
        return
    padding = (stored >= span[0]) & (stored <= span[1])
    if is_ct:
        values[padding] = CT_PADDING_HU
        is_lossy = text(header, "LossyImageCompression") == "01"
        if is_lossy and span[0] * rescale.slope + rescale.intercept < CT_PADDING_HU:
            np.maximum(values, CT_PADDING_HU, out=values)
    elif padding.any() and not padding.all():
        seen = values[~padding]
        if is_inverse:
            values[padding] = np.maximum(values[padding], seen.max())
        else:
            lowest = seen.min()
            values[padding & (values > lowest)] = lowest


def _padding(header: Dataset) -> tuple[int, int] | None:
    """From which stored value to which is padding (PS3.3 section C.7.5.1.1.2); None when none is declared."""
    first = stored_value(header, "PixelPaddingValue")
    if first is None:
        return None
    last = stored_value(header, "PixelPaddingRangeLimit")
    return (first, first) if last is None else (min(first, last), max(first, last))


def wide_enough(array: NDArray[Any], values: NDArray[Any], allocate: Allocate) -> NDArray[Any]:
    """Give back ``array``, or a copy of a dtype that holds ``values`` too.

    The declared range of 16 bits is often wider than int16 while the values never are, so the
    narrow type is tried first.
    """
    steps: list[type[np.generic]] = [np.int16, np.int32, np.float32]
    for kind in steps[steps.index(array.dtype.type) :]:
        if _holds(kind, values):
            break
    if array.dtype == kind:
        return array
    wider = allocate(array.shape, np.dtype(kind))
    # What is not filled yet is copied too, and written over later.
    wider[:] = array
    return wider


def _holds(kind: type[np.generic], values: NDArray[Any]) -> bool:
    if kind is np.float32:
        return True
    if np.issubdtype(values.dtype, np.floating):
        return False
    limits = np.iinfo(np.int16 if kind is np.int16 else np.int32)
    return bool(limits.min <= values.min() and values.max() <= limits.max)
