"""Series made for tests: headers and pixels in memory, as the readers of stored series give them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from node.series.source_series import SourceInstance

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def source(header: Dataset, pixels: NDArray[Any] | Sequence[NDArray[Any]] | None) -> SourceInstance:
    """An instance whose frames are ``pixels``: (row, column), or (frame, row, column)."""

    def frames() -> Iterator[NDArray[Any]]:
        assert pixels is not None
        if isinstance(pixels, np.ndarray) and pixels.ndim == 2:
            yield pixels
        else:
            yield from pixels

    return SourceInstance(header, pixels is not None, frames)


def ct_header(number: int, position: Sequence[float], **attributes: Any) -> Dataset:
    """The header of one CT slice of 4 rows and 6 columns, in Hounsfield units plus 1024."""
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"1.2.3.4.{number + 1}"
    header.SeriesInstanceUID = "1.2.3.4"
    header.StudyInstanceUID = "1.2.3"
    header.FrameOfReferenceUID = "1.2.3.4.0"
    header.PatientID = "PHANTOM-1"
    header.PatientName = "Phantom^Test"
    header.Modality = "CT"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.InstanceNumber = number
    header.Rows, header.Columns = 4, 6
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleSlope, header.RescaleIntercept = 1, -1024
    header.ImageOrientationPatient = list(AXIAL)
    header.ImagePositionPatient = list(position)
    header.PixelSpacing = [0.8, 0.5]
    for keyword, value in attributes.items():
        if value is None:
            del header[keyword]
        else:
            setattr(header, keyword, value)
    return header


def ct_series(count: int = 5, step: Sequence[float] = (0, 0, 2.5), **attributes: Any) -> list[SourceInstance]:
    """Parallel CT slices; slice k holds k everywhere, and its own number in the first voxel."""
    made = []
    for index in range(count):
        pixels = np.full((4, 6), 1024 + index, np.uint16)
        pixels[0, 0] = 1024 + 100 * (index + 1)
        position = [10 + index * step[0], 20 + index * step[1], 30 + index * step[2]]
        made.append(source(ct_header(index + 1, position, **attributes), pixels))
    return made


def enhanced_ct(count: int = 4) -> SourceInstance:
    """One enhanced multi-frame CT; frames run from head to feet, frame k holds k HU."""
    header = ct_header(1, (0, 0, 0), SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=count)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        del header[keyword]
    shared = Dataset()
    measures, orientation, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.5]
    orientation.ImageOrientationPatient = list(AXIAL)
    transformation.RescaleSlope, transformation.RescaleIntercept = 1, -1000
    transformation.RescaleType = "HU"
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelValueTransformationSequence = Items([transformation])
    header.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for index in range(count):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0.0, 0.0, 50.0 - 3.0 * index]
        group.PlanePositionSequence = Items([position])
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = Items(groups)
    return source(header, np.stack([np.full((4, 6), 1000 + index, np.uint16) for index in range(count)]))


def real_series(folder: Path) -> list[SourceInstance]:
    """The files of a folder, decoded by pydicom when their frames are asked for."""
    return [_real(Path(name)) for name in sorted(glob.glob(f"{folder}/*"))]


def _real(path: Path) -> SourceInstance:
    header = pydicom.dcmread(path, stop_before_pixels=True)

    def frames() -> Iterator[NDArray[Any]]:
        pixels = pydicom.dcmread(path).pixel_array
        count = int(header.get("NumberOfFrames") or 1)
        yield from pixels if count > 1 else [pixels]

    return SourceInstance(header, "Rows" in header, frames)
