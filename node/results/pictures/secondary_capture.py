"""Findings to pictures that any workstation shows (PS3.3 section A.8, Secondary Capture Image)."""

from __future__ import annotations

import io
import math

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from models.types import Code, Findings
from node.results.concepts import code_dataset
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.images.inheritance import set_lossy
from node.results.laterality import UNPAIRED
from node.results.pictures.anatomy import Anatomy, anatomy
from node.results.pictures.picture import draw
from node.results.pictures.picture_words import words
from node.results.provenance import NOT_FOR_DIAGNOSIS, stamp
from node.results.uids import run_uid

_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_MAX_LONG_STRING = 64
# What a workstation shows without complaint.
_MOST_PIXELS, _MOST_BYTES = 2048, 128 << 20


def secondary_captures(findings: Findings, given: AllGiven, run: RunFacts) -> list[Dataset]:
    """Return the picture of the findings, and after it those that the model drew, in one series.

    The first shows the slice with its contours and marks, and says all numbers; it names no patient in
    its pixels. Of the model's own, those of several frames are Multi-frame True Color Secondary Captures.
    """
    shown = anatomy(findings, given)
    key = draw(shown, words(findings, given.first.header, run, shown, given.compared))
    made = [_capture(key, given, run, "sc", 1, shown)]
    for number, one in enumerate(findings.pictures, 2):
        pixels = fitted(one.pixels)
        data_set = _capture(pixels, given, run, f"sc {one.name}", number, None)
        data_set.ImageComments = one.label or one.name
        if pixels.shape != one.pixels.shape:
            data_set.DerivationDescription = f"picture of a result, made smaller, {NOT_FOR_DIAGNOSIS}"
        made.append(data_set)
    return made


def _capture(
    pixels: NDArray[np.uint8], given: AllGiven, run: RunFacts, what: str, number: int, shown: Anatomy | None
) -> Dataset:
    """Return an RGB Secondary Capture, (row, column, 3), or a multi-frame one, (frame, row, column, 3)."""
    header = given.first.header
    is_multi_frame = pixels.ndim == 4
    made = SCImage(
        pixel_array=pixels[0] if is_multi_frame else pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=run_uid("sc series", given.first.source, run),
        series_number=1,
        sop_instance_uid=run_uid(what, given.first.source, run),
        instance_number=number,
        manufacturer="anode",
    )
    data_set = Dataset()
    data_set.update(made)
    if is_multi_frame:
        _set_frames(data_set, pixels)
    stamp(data_set, given.first.source, header, run, "sc", what=what, number=number)
    data_set.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data_set.ConversionType = "WSD"
    data_set.BurnedInAnnotation = "YES"
    if header.body_part not in UNPAIRED:
        # Laterality is of type 2C for a paired structure (PS3.3 table C.7-5a), and only then. Whether
        # another body part is one, nobody can tell for sure, so it is left out, and the side is not.
        data_set.Laterality = header.laterality or None
        if "BodyPartExamined" in data_set:
            del data_set.BodyPartExamined
    data_set.PatientOrientation = [shown.edges[1], shown.edges[3]] if shown and all(shown.edges) else None
    data_set.DateOfSecondaryCapture = data_set.ContentDate
    data_set.TimeOfSecondaryCapture = data_set.ContentTime
    data_set.SecondaryCaptureDeviceManufacturer = "anode"
    data_set.SecondaryCaptureDeviceManufacturerModelName = run.card.name[:_MAX_LONG_STRING]
    data_set.SecondaryCaptureDeviceSoftwareVersions = run.card.version[:_MAX_LONG_STRING]
    data_set.DerivationDescription = f"picture of a result, {NOT_FOR_DIAGNOSIS}"
    set_lossy(data_set, header)
    _set_source(data_set, given, shown)
    return data_set


def _set_frames(data_set: Dataset, frames: NDArray[np.uint8]) -> None:
    """Make a Multi-frame True Color Secondary Capture of one of the first frame (PS3.3 section A.8.5)."""
    data_set.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    data_set.NumberOfFrames = len(frames)
    data_set.FrameIncrementPointer = tag_for_keyword("PageNumberVector")
    data_set.PageNumberVector = list(range(1, len(frames) + 1))
    content = frames.tobytes()
    data_set.PixelData = content + bytes(len(content) % 2)


def fitted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as it is, or smaller when it is larger than is sane; no frame is left out."""
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    rows, columns = frames.shape[1:3]
    scale = min(_MOST_PIXELS / max(rows, columns), math.sqrt(_MOST_BYTES / frames.size))
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = (max(1, int(columns * scale)), max(1, int(rows * scale)))
    smaller = np.stack(
        [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]
    )
    return smaller if pixels.ndim == 4 else smaller[0]


def picture(part10: bytes) -> Image.Image:
    """Return the picture of a Secondary Capture, for instance to save it as PNG."""
    return Image.fromarray(dcmread(io.BytesIO(part10)).pixel_array)


def _set_source(data_set: Dataset, given: AllGiven, shown: Anatomy | None) -> None:
    """Refer to the image that is shown, or to the first of the series."""
    one = (shown.given if shown is not None else None) or given.first
    header = one.header
    images = header.images
    if shown is not None and shown.instance is not None and header.instances[shown.instance].is_image:
        images = (header.instances[shown.instance],)
    if not images:
        return
    item = Dataset()
    item.ReferencedSOPClassUID = images[0].sop_class_uid
    item.ReferencedSOPInstanceUID = images[0].sop_instance_uid
    if shown is not None and shown.instance is not None and images[0].frames > 1:
        item.ReferencedFrameNumber = shown.index + 1
    item.PurposeOfReferenceCodeSequence = [code_dataset(_SOURCE_IMAGE)]
    data_set.SourceImageSequence = [item]
