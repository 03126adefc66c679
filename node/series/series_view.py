"""What a model may see of instances: numbers and codes as they are, identities as opaque digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from models.types import HeaderValue, InstanceView, Series
from node.errors import UnsupportedPixelData
from node.series.header_values import items, number, numbers, text, value, whole
from node.series.source_series import SourceInstance
from node.undecodable import UNDECODABLE_IN_MEMORY

Allocate: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]

#: Compared, never read: digests that are equal where the values are, within one series alone, and of the
#: Frame of Reference within one study.
DIGESTED = frozenset(
    {
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
        "StudyID",
        "StudyDate",
        "AccessionNumber",
    }
)
#: Free text that a device writes, not a person.
DEVICE_TEXT = frozenset(
    {
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "ConvolutionKernel",
        "SequenceName",
        "RescaleType",
        "FilterType",
        "ContrastBolusAgent",
        "ContrastBolusRoute",
        "PulseSequenceName",
        "ReceiveCoilName",
        "CorrectedImage",
        "ReconstructionMethod",
        "ScatterCorrectionMethod",
        "AttenuationCorrectionMethod",
    }
)
#: Numbers and codes that describe the image; UIDs, names, dates and free text are not among them.
PLAIN_VRS = frozenset({"CS", "DS", "IS", "FD", "FL", "SS", "US", "SL", "UL", "SV", "UV", "AS", "AT", "TM"})
PLAIN_PERSON = frozenset({"PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientPosition"})
LONGEST_VALUE = 256


def header_view(header: Dataset) -> dict[str, HeaderValue]:
    """Keyword to value of one instance: numbers as numbers, several values as a tuple.

    Left out: sequences, bulk data, private elements, dates, free text, and all that names a person,
    a place or an order; ``DIGESTED`` gives digests instead. Of an enhanced multi-frame object
    ``FramePositions``, ``FrameOrientations`` and ``FramePixelSpacings`` hold one tuple a frame
    (PS3.3 section C.7.6.16.2).
    """
    salt = text(header, "SeriesInstanceUID")
    view: dict[str, HeaderValue] = {}
    for tag in header.keys():  # noqa: SIM118 - iterating the data set would decode every element
        keyword = keyword_for_tag(tag)
        if not keyword:
            continue
        if keyword in DIGESTED:
            of = text(header, "StudyInstanceUID") if keyword == "FrameOfReferenceUID" else salt
            view[keyword] = _digest(of, keyword, value(header, keyword))
        elif keyword == "SOPClassUID":
            view[keyword] = text(header, keyword)
        elif _is_plain(tag, keyword):
            view[keyword] = _shown(value(header, keyword), dictionary_VR(tag))
    padding = stored_value(header, "PixelPaddingValue")
    if padding is not None:
        view["PixelPaddingValue"] = padding
    if "PerFrameFunctionalGroupsSequence" in header:
        view.update(_frame_geometry(header))
    return view


def common_header(headers: Sequence[Dataset]) -> dict[str, HeaderValue]:
    """What ``header_view`` says of every one of them alike."""
    views = [header_view(header) for header in headers]
    first = views[0] if views else {}
    return {
        keyword: value
        for keyword, value in first.items()
        if all(keyword in view and view[keyword] == value for view in views[1:])
    }


def view(instances: Sequence[SourceInstance], allocate: Allocate) -> tuple[Series, list[SourceInstance]]:
    """Show a series to a model, instance by instance.

    Instances are in order along the slice normal where all of them have the same one, else by
    Instance Number. Pixels that cannot be decoded are None, with the reason; those that nobody
    here decodes, such as video, are None without one.

    Parameters
    ----------
    instances
        of one series
    allocate
        gives an array of a shape and dtype for pixels

    Returns
    -------
    series
        what the model gets
    ordered
        ``instances`` in the order of the series
    """
    ordered = sorted(instances, key=_order(instances))
    views = []
    for index, instance in enumerate(ordered):
        pixels, error = _pixels(instance, allocate)
        views.append(
            InstanceView(
                number=whole(instance.header, "InstanceNumber", index + 1),
                header=header_view(instance.header),
                pixels=pixels,
                pixels_error=error,
            )
        )
    return Series(tuple(views)), ordered


def _pixels(instance: SourceInstance, allocate: Allocate) -> tuple[NDArray[Any] | None, str]:
    """All frames as one array (frame, row, column[, sample]), or why there is none."""
    if not instance.has_pixels or not instance.is_decodable:
        return None, ""
    count = max(1, whole(instance.header, "NumberOfFrames", 1))
    pixels: NDArray[Any] | None = None
    filled = 0
    try:
        for frame in instance.frames():
            if pixels is None:
                pixels = allocate((count, *frame.shape), frame.dtype)
            if filled == count or frame.shape != pixels.shape[1:]:
                return None, f"frame {filled + 1} is not among the {count} declared, or has another size"
            pixels[filled] = frame
            filled += 1
    except UnsupportedPixelData as error:
        return None, str(error)
    if pixels is not None and filled < count:
        return None, f"{filled} of {count} declared frames are there"
    return pixels, "" if pixels is not None else "no frame could be decoded"


def _order(instances: Sequence[SourceInstance]) -> Callable[[SourceInstance], tuple[float, ...]]:
    orientations = [numbers(one.header, "ImageOrientationPatient", 6) for one in instances]
    positions = [numbers(one.header, "ImagePositionPatient", 3) for one in instances]
    first = orientations[0] if orientations else None
    if (
        first is None
        or None in positions
        or any(
            one is None or max(abs(a - b) for a, b in zip(one, first, strict=True)) > 1e-3
            for one in orientations
        )
    ):
        return lambda instance: (0.0, _number(instance))
    normal = np.cross(first[:3], first[3:])

    def along(instance: SourceInstance) -> tuple[float, ...]:
        position = numbers(instance.header, "ImagePositionPatient", 3) or (0.0, 0.0, 0.0)
        return round(float(np.dot(position, normal)), 3), _number(instance)

    return along


def _number(instance: SourceInstance) -> float:
    return number(instance.header, "InstanceNumber", math.inf)


def _is_plain(tag: BaseTag, keyword: str) -> bool:
    if tag.group == 0x0010:
        return keyword in PLAIN_PERSON
    return keyword in DEVICE_TEXT or dictionary_VR(tag) in PLAIN_VRS


def stored_value(header: Dataset, keyword: str) -> int | None:
    """A value that is written as the pixels are, such as Pixel Padding Value; None when absent.

    Its VR is US or SS as Pixel Representation says, and often the wrong one of the two; without
    VRs it comes undecoded.
    """
    found = value(header, keyword)
    if isinstance(found, bytes) and len(found) >= 2:
        found = int.from_bytes(found[:2], "little")
    if not isinstance(found, int):
        return None
    allocated = whole(header, "BitsAllocated", 16)
    if whole(header, "PixelRepresentation", 0) != 1:
        return found + (1 << allocated) if found < 0 else found
    # The sign is that of the bits stored, or was carried on through those allocated.
    for bits in (whole(header, "BitsStored", allocated), allocated):
        if 0 < bits <= allocated and 1 << (bits - 1) <= found < 1 << bits:
            return found - (1 << bits)
    return found


def _shown(found: Any, vr: str) -> HeaderValue:
    if isinstance(found, MultiValue | list | tuple):
        return tuple(_scalar(one, vr) for one in found[:LONGEST_VALUE])
    return _scalar(found, vr)


def _scalar(found: Any, vr: str) -> HeaderValue:
    if found is None or found == "":
        return None
    try:
        if vr == "IS" or (isinstance(found, int) and not isinstance(found, bool)):
            return int(found)
        if vr in ("DS", "FD", "FL"):
            converted = float(found)
            return converted if math.isfinite(converted) else None
    except UNDECODABLE_IN_MEMORY:
        return None
    return str(found)[:LONGEST_VALUE]


def _digest(salt: str, keyword: str, found: Any) -> HeaderValue:
    written = str(found if found is not None else "").strip()
    if not written:
        return None
    return hashlib.sha256("\x1f".join((salt, keyword, written)).encode("utf-8", "replace")).hexdigest()[:16]


def _frame_geometry(header: Dataset) -> dict[str, HeaderValue]:
    shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    wanted = {
        "FramePositions": ("PlanePositionSequence", "ImagePositionPatient", 3),
        "FrameOrientations": ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        "FramePixelSpacings": ("PixelMeasuresSequence", "PixelSpacing", 2),
    }
    found: dict[str, HeaderValue] = {}
    for name, (sequence, keyword, count) in wanted.items():
        of_frames: list[HeaderValue] = []
        for group in items(header, "PerFrameFunctionalGroupsSequence"):
            holders = items(group, sequence) or items(shared, sequence)
            of_frames.append(numbers(holders[0], keyword, count) if holders else None)
        if any(one is not None for one in of_frames):
            found[name] = tuple(of_frames)
    return found
