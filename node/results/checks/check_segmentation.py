"""The rules of ``check`` for Segmentations (PS3.3 section C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from node.results.checks.check_image import is_orthonormal
from node.results.header_values import numbers

#: Newer than the library's table of SOP classes.
LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"


def segmentation_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a Segmentation."""
    yield from _equipment(data_set)
    yield from _references(data_set)
    yield from _segments(data_set)
    yield from _frames(data_set)


def _equipment(data_set: Dataset) -> Iterator[str]:
    """G1: Enhanced General Equipment is filled, and not with a stand-in."""
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        value = str(data_set.get(keyword) or "").strip()
        if not value or not value.strip("0") or value.upper() in ("UNKNOWN", "NONE", "N/A"):
            yield f"{keyword} is empty or a stand-in"


def _references(data_set: Dataset) -> Iterator[str]:
    """G2, G3: the frame of reference and the images that were segmented, perhaps of an earlier study."""
    series = list(data_set.get("ReferencedSeriesSequence") or [])
    for study in data_set.get("StudiesContainingOtherReferencedInstancesSequence") or []:
        series += study.get("ReferencedSeriesSequence") or []
    if not any(item.get("ReferencedInstanceSequence") for item in series):
        yield "Referenced Series Sequence names no source instances"
    referenced = {
        str(instance.ReferencedSOPInstanceUID)
        for item in series
        for instance in item.get("ReferencedInstanceSequence", [])
    }
    for frame in data_set.get("PerFrameFunctionalGroupsSequence", []):
        sources = {
            str(source.ReferencedSOPInstanceUID)
            for derivation in frame.get("DerivationImageSequence", [])
            for source in derivation.get("SourceImageSequence", [])
        }
        if not sources:
            yield "a frame does not name its source image"
            return
        if not sources <= referenced:
            yield "a frame's source image is not in Referenced Series Sequence"
            return


def _segments(data_set: Dataset) -> Iterator[str]:
    """G4: segments are numbered without gaps, named, coded, and say what made them."""
    segments = list(data_set.get("SegmentSequence") or [])
    if data_set.get("SegmentationType") == "LABELMAP":
        # Number 0 is what lies in none.
        segments = [segment for segment in segments if segment.get("SegmentNumber") != 0]
    if [segment.get("SegmentNumber") for segment in segments] != list(range(1, len(segments) + 1)):
        yield "Segment Numbers are not 1 to n"
    for segment in segments:
        for keyword in (
            "SegmentLabel", "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence",
            "SegmentAlgorithmName", "TrackingID", "TrackingUID", "RecommendedDisplayCIELabValue",
        ):  # fmt: skip
            if not segment.get(keyword):
                yield f"a segment lacks {keyword}"
        if segment.get("SegmentAlgorithmType") != "AUTOMATIC":
            yield "Segment Algorithm Type is not AUTOMATIC"
        for algorithm in segment.get("SegmentationAlgorithmIdentificationSequence", []):
            for keyword in ("AlgorithmFamilyCodeSequence", "AlgorithmName", "AlgorithmVersion"):
                if not algorithm.get(keyword):
                    yield f"an algorithm identification lacks {keyword}"
    if len({str(segment.get("TrackingUID")) for segment in segments}) != len(segments):
        yield "two segments have the same Tracking UID"


def _frames(data_set: Dataset) -> Iterator[str]:
    """G2, G5: every segment has a frame, and the bits are as many as they say."""
    frames = data_set.get("PerFrameFunctionalGroupsSequence") or []
    if not frames or len(frames) != data_set.get("NumberOfFrames"):
        yield "Number of Frames is not that of the functional groups"
    yield from _bits(data_set, len(frames))
    if data_set.get("LossyImageCompression") not in ("00", "01"):
        yield "Lossy Image Compression is not stated"
    shared = (data_set.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    yield from _places(data_set, shared, frames)
    if data_set.get("SegmentationType") == "LABELMAP":
        return
    # One segment alone may be named in the shared groups.
    used = {
        identification.ReferencedSegmentNumber
        for frame in [shared, *frames]
        for identification in frame.get("SegmentIdentificationSequence", [])
    }
    if used != {segment.SegmentNumber for segment in data_set.get("SegmentSequence", [])}:
        yield "a segment has no frame, or a frame no segment"


def _places(data_set: Dataset, shared: Dataset, frames: Sequence[Dataset]) -> Iterator[str]:
    """G2: frames have their place. Without a frame of reference they are the pixels of their image."""
    places = [frame.get("PlanePositionSequence") for frame in frames]
    if not data_set.get("FrameOfReferenceUID"):
        if any(places):
            yield "Frame of Reference UID is absent"
        return
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if not shared.get(keyword) and not all(frame.get(keyword) for frame in frames):
            yield f"{keyword} is absent"
    if not all(places):
        yield "a frame has no Plane Position"
        return
    orientations = [
        item for group in (shared, *frames) for item in group.get("PlaneOrientationSequence") or []
    ]
    if not all(map(is_orthonormal, orientations)):
        yield "Image Orientation (Patient) is not two unit vectors at right angles"
    # A label map has one frame in each place, another segmentation one of each segment.
    occupied = [
        (_segment_of(frame, shared), numbers(frame.PlanePositionSequence[0], "ImagePositionPatient"))
        for frame in frames
    ]
    if any(len(position) != 3 for _, position in occupied):
        yield "a Plane Position has not three numbers"
    if len(set(occupied)) != len(occupied):
        yield "two frames of a segment lie in one place"


def _segment_of(frame: Dataset, shared: Dataset) -> object:
    for group in (frame, shared):
        for item in group.get("SegmentIdentificationSequence") or []:
            return item.get("ReferencedSegmentNumber")
    return None


def _bits(data_set: Dataset, frames: int) -> Iterator[str]:
    kind = data_set.get("SegmentationType")
    found = (data_set.get("BitsAllocated"), data_set.get("BitsStored"), data_set.get("HighBit"))
    if kind == "BINARY" and found != (1, 1, 0):
        yield "a binary segmentation has not one bit for each pixel"
    if kind == "FRACTIONAL" and (found != (8, 8, 7) or not data_set.get("MaximumFractionalValue")):
        yield "a fractional segmentation has not eight bits for each pixel, and their maximum"
    if kind == "FRACTIONAL" and data_set.get("SegmentationFractionalType") not in (
        "PROBABILITY",
        "OCCUPANCY",
    ):
        yield "Segmentation Fractional Type is neither PROBABILITY nor OCCUPANCY"
    if kind == "LABELMAP" and found not in ((8, 8, 7), (16, 16, 15)):
        yield "a label map has neither eight nor sixteen bits for each pixel"
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        yield "Segmentation Type is none of BINARY, FRACTIONAL and LABELMAP"
    bits = frames * data_set.get("Rows", 0) * data_set.get("Columns", 0) * data_set.get("BitsAllocated", 0)
    length = -(-bits // 8)
    if len(data_set.get("PixelData", b"")) != length + length % 2:
        yield "Pixel Data has not the length that Rows, Columns and Number of Frames say"
