"""What all derived images say alike: how they were made, their pixels, their window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    PositronEmissionTomographyImageStorage,
)

from models.types import Code, DerivedImage
from node.results.facts import Source
from node.results.header_values import as_decimal_string, integer, numbers, text
from node.results.images.stored_values import Storing

SPATIAL_RESAMPLING = Code("113085", "DCM", "Spatial resampling")
UNSPECIFIED = Code("112187", "DCM", "Unspecified method of calculation")
_RESCALE_TYPE_LENGTH = 16
_THIRD_VALUE: dict[str, str] = {
    CTImageStorage: "AXIAL",
    MRImageStorage: "OTHER",
    OphthalmicPhotography8BitImageStorage: "DEFAULT",
    OphthalmicPhotography16BitImageStorage: "DEFAULT",
}
#: Their images are primary by definition, also derived ones.
_PRIMARY: set[str] = {
    NuclearMedicineImageStorage, OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage, PositronEmissionTomographyImageStorage,
}  # fmt: skip


@dataclass(frozen=True)
class About:
    """What the instances of one derived image share: in words, as a code, and how values are stored."""

    description: str
    code: Code
    how: Storing
    window_centre: float
    window_width: float
    rescale_type: str


def set_pixels(
    data_set: Dataset, stored: NDArray[Any], *, is_colour: bool = False, is_inverse: bool = False
) -> None:
    """Set the Image Pixel module (PS3.3 section C.7.6.3).

    ``stored`` is ([frame,] row, column), in colour with three samples behind. With ``is_inverse`` high
    values are dark, as they were in the source.
    """
    bits = stored.dtype.itemsize * 8
    data_set.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        data_set.PhotometricInterpretation, data_set.PlanarConfiguration = "RGB", 0
    else:
        data_set.PhotometricInterpretation = "MONOCHROME1" if is_inverse else "MONOCHROME2"
    data_set.Rows, data_set.Columns = stored.shape[-3:-1] if is_colour else stored.shape[-2:]
    data_set.BitsAllocated = data_set.BitsStored = bits
    data_set.HighBit = bits - 1
    data_set.PixelRepresentation = int(stored.dtype.kind == "i")
    content = np.ascontiguousarray(stored).tobytes()
    data_set.PixelData = content + b"\0" * (len(content) % 2)
    data_set["PixelData"].VR = "OB" if bits == 8 else "OW"


def image_type(template: Dataset, class_uid: str) -> list[str]:
    """Return Image Type: derived, and from the third value on that of the source."""
    rest = [part.strip() for part in text(template, "ImageType").split("\\")[2:]]
    if not (rest and rest[0]) and class_uid in _THIRD_VALUE:
        rest = [_THIRD_VALUE[class_uid]]
    return ["DERIVED", "PRIMARY" if class_uid in _PRIMARY else "SECONDARY", *rest]


def window(image: DerivedImage, base: Source) -> tuple[float, float]:
    """Return window centre and width: those of the source where they fit the values, else their range."""
    if image.voxels.ndim == 4:
        return 128.0, 256.0
    low, high = value_range(image)
    first = base.data_sets[0]
    centre, width = numbers(first, "WindowCenter"), numbers(first, "WindowWidth")
    is_linear = text(first, "VOILUTFunction") in ("", "LINEAR")
    if centre and width and width[0] >= 1 and is_linear:
        least, most = centre[0] - width[0] / 2, centre[0] + width[0] / 2
        if least < high and low < most:
            return centre[0], width[0]
    return (low + high) / 2, high - low if high > low else 1.0


def set_window(item: Dataset, about: About) -> None:
    """Set the window of a data set or functional group (PS3.3 section C.11.2.1.2)."""
    item.WindowCenter = as_decimal_string(about.window_centre)
    item.WindowWidth = as_decimal_string(about.window_width)
    # The usual function takes no width below 1.
    if about.window_width < 1:
        item.VOILUTFunction = "LINEAR_EXACT"


def value_range(image: DerivedImage) -> tuple[float, float]:
    """Return the values between which nearly all voxels are."""
    step = max(1, image.voxels.size // 1_000_000)
    low, high = np.percentile(image.voxels.reshape(-1)[::step], (1, 99))
    return float(low), float(high)


def rescale_type(image: DerivedImage) -> str:
    """Return Rescale Type (PS3.3 section C.11.1.1.2): the unit of the values, US when it has none."""
    unit = image.unit.value
    return {"[hnsf'U]": "HU", "1": "US", "": "US"}.get(unit, unit[:_RESCALE_TYPE_LENGTH])


def derivation(image: DerivedImage) -> Code:
    """Return how it was made, as a code of CID 7203 of PS3.16 where that is known."""
    return UNSPECIFIED if image.affine is None else SPATIAL_RESAMPLING


def has_colour(first: Dataset) -> bool:
    """Whether the images of a source have colour."""
    return integer(first, "SamplesPerPixel") == 3 or text(first, "PhotometricInterpretation") in (
        "PALETTE COLOR",
        "RGB",
    )
