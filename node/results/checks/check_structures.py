"""The rules of ``check`` for RT Structure Sets (PS3.3 sections C.8.8.5, C.8.8.6 and C.8.8.8)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.results.checks.check_places import lie_in_a_plane
from node.results.header_values import numbers
from node.results.overlays.decimal_strings import decimals


def structure_set_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with an RT Structure Set."""
    if not data_set.get("StructureSetLabel"):
        yield "Structure Set Label is absent"
    for keyword in ("StructureSetDate", "StructureSetTime"):
        if keyword not in data_set:
            yield f"{keyword} is absent"
    frames, images = _chain(data_set)
    if not frames or not images:
        yield "the chain from frame of reference to contour images is not whole"
    if data_set.get("ApprovalStatus") != "UNAPPROVED":
        yield "Approval Status is not UNAPPROVED"
    regions = data_set.get("StructureSetROISequence") or []
    ours = [item.get("ROINumber") for item in regions]
    if not regions or len(set(ours)) != len(ours):
        yield "there is no region, or two have one number"
    for keyword, what in (("ROIContourSequence", "contours"), ("RTROIObservationsSequence", "observation")):
        if [item.get("ReferencedROINumber") for item in data_set.get(keyword) or []] != ours:
            yield f"the regions do not have {what} each"
    for item in regions:
        if str(item.get("ReferencedFrameOfReferenceUID")) not in frames:
            yield "a region lies in a frame of reference that is not referred to"
        if not item.get("ROIName") or item.get("ROIGenerationAlgorithm") != "AUTOMATIC":
            yield "a region has no name, or does not say that it was made automatically"
    for item in data_set.get("RTROIObservationsSequence") or []:
        for keyword in ("RTROIInterpretedType", "ROIInterpreter"):
            if keyword not in item:
                yield f"an observation lacks {keyword}"
    for item in data_set.get("ROIContourSequence") or []:
        contours = item.get("ContourSequence") or []
        if not contours or len(numbers(item, "ROIDisplayColor")) != 3:
            yield "a region has no contour or no colour"
        for contour in contours:
            yield from _contour(contour, images)


def _chain(data_set: Dataset) -> tuple[set[str], set[tuple[str, object]]]:
    """Return the frames of reference and the images, with frame numbers, that are referred to."""
    frames, images = set(), set()
    for frame in data_set.get("ReferencedFrameOfReferenceSequence") or []:
        frames.add(str(frame.get("FrameOfReferenceUID")))
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                for image in series.get("ContourImageSequence") or []:
                    images.add(
                        (str(image.get("ReferencedSOPInstanceUID")), image.get("ReferencedFrameNumber"))
                    )
    return frames, images


def _contour(contour: Dataset, images: set[tuple[str, object]]) -> Iterator[str]:
    data = decimals(contour, "ContourData")
    count = contour.get("NumberOfContourPoints") or 0
    if not count or len(data) != 3 * count:
        yield "Contour Data has not the length that Number of Contour Points says"
        return
    kind = contour.get("ContourGeometricType")
    least = {"POINT": 1, "OPEN_PLANAR": 2, "CLOSED_PLANAR": 3}.get(str(kind))
    if least is None or count < least:
        yield "a contour has no type, or too few points for it"
    used = {
        (str(image.get("ReferencedSOPInstanceUID")), image.get("ReferencedFrameNumber"))
        for image in contour.get("ContourImageSequence") or []
    }
    if not used or not used <= images:
        yield "the image of a contour is not among the contour images of the series"
    if not lie_in_a_plane(data.reshape(-1, 3)):
        yield "a contour does not lie in a plane"
