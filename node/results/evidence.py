"""Source instances as the library that encodes results wants to see them: short and valid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.results.header_values import as_decimal_string, put
from node.results.source_header import SourceHeader, SourceInstance

_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def evidence(header: SourceHeader) -> list[Dataset]:
    """Return one data set for each source instance: its references, and the study it is in."""
    return [_reference(header, instance) for instance in header.instances]


def placed_images(header: SourceHeader, slice_thickness_mm: float) -> list[Dataset]:
    """Return single-frame cross-sectional images with the geometry of the source, one for each slice.

    All carry the orientation and spacing of the first: those of the others may differ by rounding,
    which the library takes for another orientation.
    """
    first = header.instances[0]
    found = []
    for instance in header.instances:
        image = _reference(header, instance)
        image.FrameOfReferenceUID = header.frame_of_reference_uid
        image.PositionReferenceIndicator = None
        image.Rows, image.Columns = first.rows, first.columns
        image.ImagePositionPatient = [as_decimal_string(value) for value in instance.position_mm]
        image.ImageOrientationPatient = [as_decimal_string(value) for value in first.orientation]
        image.PixelSpacing = [as_decimal_string(value) for value in first.pixel_spacing_mm]
        image.SliceThickness = as_decimal_string(slice_thickness_mm)
        _set_lossy(image, header)
        found.append(image)
    return found


def unplaced_image(header: SourceHeader, index: int) -> Dataset:
    """Return a single image whose place in the patient is not known."""
    instance = header.instances[index]
    image = _reference(header, instance)
    image.Rows, image.Columns = instance.rows, instance.columns
    _set_lossy(image, header)
    return image


def placed_multi_frame(
    header: SourceHeader, slice_thickness_mm: float, positions_mm: NDArray[np.float64]
) -> Dataset:
    """Return a multi-frame image with the geometry of the source, its frames at ``positions_mm``, (n, 3)."""
    image = placed_images(header, slice_thickness_mm)[0]
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = image.PixelSpacing
    measures.SliceThickness = image.SliceThickness
    orientation.ImageOrientationPatient = image.ImageOrientationPatient
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for position_mm in positions_mm:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [as_decimal_string(value) for value in position_mm]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    image.NumberOfFrames = len(frames)
    return image


def _reference(header: SourceHeader, instance: SourceInstance) -> Dataset:
    out = Dataset()
    # The patient is set by ``stamp``: the library would warn of odd names, and print them.
    for keyword in _PATIENT_AND_STUDY:
        setattr(out, keyword, None)
    put(out, "SOPClassUID", instance.sop_class_uid)
    put(out, "SOPInstanceUID", instance.sop_instance_uid)
    put(out, "StudyInstanceUID", instance.study_instance_uid)
    put(out, "SeriesInstanceUID", instance.series_instance_uid)
    out.Modality = header.modality
    return out


def _set_lossy(image: Dataset, header: SourceHeader) -> None:
    image.LossyImageCompression = "01" if header.lossy_image_compression else "00"
    if header.lossy_image_compression:
        image.LossyImageCompressionRatio = [
            as_decimal_string(value) for value in header.lossy_ratios or (1.0,)
        ]
        if header.lossy_methods:
            image.LossyImageCompressionMethod = list(header.lossy_methods)
