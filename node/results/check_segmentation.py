"""The rules of ``check`` for Segmentations (PS3.3 section C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


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
    """G2, G3: the frame of reference and the images that were segmented."""
    if not data_set.get("FrameOfReferenceUID"):
        yield "Frame of Reference UID is absent"
    series = data_set.get("ReferencedSeriesSequence") or []
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
    segments = data_set.get("SegmentSequence") or []
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
    """G2, G5: frames have their place, every segment has a frame, and the bits are as many as they say."""
    frames = data_set.get("PerFrameFunctionalGroupsSequence") or []
    if not frames or len(frames) != data_set.get("NumberOfFrames"):
        yield "Number of Frames is not that of the functional groups"
    if (data_set.get("BitsAllocated"), data_set.get("BitsStored"), data_set.get("HighBit")) != (1, 1, 0):
        yield "a binary segmentation has not one bit for each pixel"
    pixels = len(frames) * data_set.get("Rows", 0) * data_set.get("Columns", 0)
    length = -(-pixels // 8)
    if len(data_set.get("PixelData", b"")) != length + length % 2:
        yield "Pixel Data has not the length that Rows, Columns and Number of Frames say"
    if data_set.get("LossyImageCompression") not in ("00", "01"):
        yield "Lossy Image Compression is not stated"
    shared = (data_set.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if not shared.get(keyword) and not all(frame.get(keyword) for frame in frames):
            yield f"{keyword} is absent"
    if not all(frame.get("PlanePositionSequence") for frame in frames):
        yield "a frame has no Plane Position"
    # One segment alone may be named in the shared groups.
    used = {
        identification.ReferencedSegmentNumber
        for frame in [shared, *frames]
        for identification in frame.get("SegmentIdentificationSequence", [])
    }
    if used != {segment.SegmentNumber for segment in data_set.get("SegmentSequence", [])}:
        yield "a segment has no frame, or a frame no segment"
