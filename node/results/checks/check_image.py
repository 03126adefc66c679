"""The rules of ``check`` for derived images and Parametric Maps: pixels, place, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from node.results.header_values import numbers

_UNIT_TOLERANCE = 1e-3
_ENHANCED: set[str] = {
    BreastTomosynthesisImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage, LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
}  # fmt: skip
#: Their Image Plane is mandatory (PS3.3 tables A.3-1, A.4-1 and A.21.3-1).
_PLACED: set[str] = {CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage}


def image_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a derived image, single-frame or multi-frame."""
    if next(iter(data_set.get("ImageType") or [""])) != "DERIVED":
        yield "Image Type is not DERIVED"
    if not data_set.get("DerivationDescription"):
        yield "Derivation Description is absent"
    yield from sources_problems(data_set)
    yield from lossy_problems(data_set)
    yield from _pixels(data_set)
    yield from _values(data_set)
    yield from plane_problems(data_set)
    if str(data_set.get("SOPClassUID", "")) in _ENHANCED and not (
        data_set.get("SharedFunctionalGroupsSequence") and data_set.get("PerFrameFunctionalGroupsSequence")
    ):
        yield "an enhanced image has no functional groups"
    for keyword in ("PixelPaddingValue", "IconImageSequence"):
        if keyword in data_set:
            yield f"{keyword} is that of the source"
    if any(tag.is_private or tag.group & 0xFF00 == 0x6000 for tag in data_set.keys()):  # noqa: SIM118
        yield "there are private elements or overlays of the source"


def map_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a Parametric Map (PS3.3 section A.75)."""
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        if not str(data_set.get(keyword) or "").strip("0 "):
            yield f"{keyword} is empty or a stand-in"
    count = _number_of_values(data_set)
    lengths = {"FloatPixelData": 4, "DoubleFloatPixelData": 8}
    held = [keyword for keyword in lengths if keyword in data_set]
    if len(held) != 1 or "PixelData" in data_set:
        yield "there is not one element of floating-point pixels"
    elif len(data_set[held[0]].value) != count * lengths[held[0]]:
        yield f"{held[0]} has not the length that Rows, Columns and Number of Frames say"
    if not data_set.get("FrameOfReferenceUID"):
        yield "Frame of Reference UID is absent"
    if not (
        data_set.get("ReferencedSeriesSequence")
        or data_set.get("StudiesContainingOtherReferencedInstancesSequence")
    ):
        yield "no series of the source is referred to"
    yield from _mappings(data_set)
    yield from sources_problems(data_set)
    yield from lossy_problems(data_set)
    yield from plane_problems(data_set)


def _mappings(data_set: Dataset) -> Iterator[str]:
    mappings = [
        item for group in _groups(data_set) for item in group.get("RealWorldValueMappingSequence") or []
    ]
    if not mappings:
        yield "Real World Value Mapping is absent"
    for item in mappings:
        units = item.get("MeasurementUnitsCodeSequence") or []
        if not units or units[0].get("CodingSchemeDesignator") != "UCUM":
            yield "a Real World Value Mapping has no UCUM unit"
        if not item.get("QuantityDefinitionSequence"):
            yield "a Real World Value Mapping does not say of which quantity it is"
        if item.get("RealWorldValueSlope") is None or item.get("RealWorldValueIntercept") is None:
            yield "a Real World Value Mapping has no slope and intercept"


# --- shared ------------------------------------------------------------------


def sources_problems(data_set: Dataset) -> Iterator[str]:
    """Each image or frame says what it was made from, and none was made from itself."""
    frames = data_set.get("PerFrameFunctionalGroupsSequence")
    if frames is None:
        used = [list(data_set.get("SourceImageSequence") or [])]
    else:
        if len(frames) != data_set.get("NumberOfFrames"):
            yield "Number of Frames is not that of the functional groups"
        used = [
            [
                source
                for derivation in frame.get("DerivationImageSequence") or []
                for source in derivation.get("SourceImageSequence") or []
            ]
            for frame in frames
        ]
    if not used or not all(used):
        yield "an image or frame does not name its source image"
    own = data_set.get("SOPInstanceUID")
    if any(source.get("ReferencedSOPInstanceUID") in (None, "", own) for one in used for source in one):
        yield "a source image is nothing, or the image itself"


def lossy_problems(data_set: Dataset) -> Iterator[str]:
    """Compression with loss is stated, and with how it was done (PS3.3 section C.7.6.1.1.5)."""
    flag = data_set.get("LossyImageCompression")
    if flag not in ("00", "01"):
        yield "Lossy Image Compression is not stated"
    if flag == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if not data_set.get(keyword):
                yield f"{keyword} is absent"


def plane_problems(data_set: Dataset) -> Iterator[str]:
    """A place is stated as a whole or not at all, with axes of length 1 at right angles."""
    shared = list(data_set.get("SharedFunctionalGroupsSequence") or [])[:1]
    frames = data_set.get("PerFrameFunctionalGroupsSequence")
    if frames is None:
        stated = [keyword in data_set for keyword in ("ImagePositionPatient", "ImageOrientationPatient")]
        if any(stated) or str(data_set.get("SOPClassUID", "")) in _PLACED:
            if not all(stated) or not data_set.get("PixelSpacing"):
                yield "position, orientation and spacing are not all there"
            if not data_set.get("FrameOfReferenceUID"):
                yield "Frame of Reference UID is absent"
        places = [data_set]
    else:
        places = [
            item
            for group in (*shared, *frames)
            for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence", "PlanePositionSequence")
            for item in group.get(keyword) or []
        ]
        placed = [bool(frame.get("PlanePositionSequence")) for frame in frames]
        if any(placed) and not all(placed):
            yield "a frame has no Plane Position"
    for place in places:
        if "ImageOrientationPatient" in place and not is_orthonormal(place):
            yield "Image Orientation (Patient) is not two unit vectors at right angles"
        for keyword, count in (("ImagePositionPatient", 3), ("PixelSpacing", 2)):
            if keyword in place and len(numbers(place, keyword)) != count:
                yield f"{keyword} has not {count} numbers"


def is_orthonormal(item: Dataset) -> bool:
    """Whether Image Orientation (Patient) is two unit vectors at right angles."""
    values = np.array(numbers(item, "ImageOrientationPatient"))
    if values.shape != (6,):
        return False
    along, down = values[:3], values[3:]
    return (
        abs(float(along @ along) - 1) < _UNIT_TOLERANCE
        and abs(float(down @ down) - 1) < _UNIT_TOLERANCE
        and abs(float(along @ down)) < _UNIT_TOLERANCE
    )


def _groups(data_set: Dataset) -> list[Dataset]:
    return [
        *(data_set.get("SharedFunctionalGroupsSequence") or []),
        *(data_set.get("PerFrameFunctionalGroupsSequence") or []),
    ]


def _number_of_values(data_set: Dataset) -> int:
    frames = int(data_set.get("NumberOfFrames") or 1)
    return int(
        frames
        * (data_set.get("Rows") or 0)
        * (data_set.get("Columns") or 0)
        * (data_set.get("SamplesPerPixel") or 0)
    )


def _pixels(data_set: Dataset) -> Iterator[str]:
    bits = data_set.get("BitsAllocated") or 0
    expected = _number_of_values(data_set) * bits // 8
    if not expected or len(data_set.get("PixelData", b"")) != expected + expected % 2:
        yield "Pixel Data has not the length that Rows, Columns and Number of Frames say"
    if (data_set.get("BitsStored"), data_set.get("HighBit")) != (bits, bits - 1):
        yield "Bits Stored and High Bit are not those of whole words"


def _values(data_set: Dataset) -> Iterator[str]:
    """Rescale and window make sense, wherever they stand."""
    groups = [
        item
        for group in _groups(data_set)
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
        for item in group.get(keyword) or []
    ]
    for item in (data_set, *groups):
        if ("RescaleSlope" in item) != ("RescaleIntercept" in item):
            yield "Rescale Slope and Rescale Intercept do not come together"
        elif "RescaleSlope" in item and not any(numbers(item, "RescaleSlope")):
            yield "Rescale Slope is 0"
        least = 1.0 if item.get("VOILUTFunction") is None else 1e-12
        if "WindowWidth" in item and not min(numbers(item, "WindowWidth"), default=0) >= least:
            yield "Window Width is too small"
