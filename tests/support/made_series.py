"""Series made for tests: headers and pixels in memory, as the readers of stored series give them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
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


def undecoded(header: Dataset, keyword: str, written: bytes) -> None:
    """Put the bytes of an element into a header, as a reader of files does."""
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, dictionary_VR(tag), len(written), written, 0, False, True)


def enhanced_ct(
    count: int = 4, step: Sequence[float] = (0, 0, -3.0), orientation: Sequence[float] = AXIAL
) -> SourceInstance:
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
    measures, plane, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.5]
    plane.ImageOrientationPatient = list(orientation)
    transformation.RescaleSlope, transformation.RescaleIntercept = 1, -1000
    transformation.RescaleType = "HU"
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([plane])
    shared.PixelValueTransformationSequence = Items([transformation])
    header.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for index in range(count):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [
            first + one * index for first, one in zip((0.0, 0.0, 50.0), step, strict=True)
        ]
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


#: Series that lie in every way that a series may, by what is said of them.
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.3)), float(np.sin(0.3)))
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
LYING: dict[str, Callable[[], list[SourceInstance]]] = {
    "axial": lambda: ct_series(),
    "from head to feet": lambda: ct_series(5, (0, 0, -2.5)),
    "in no order": lambda: [ct_series()[index] for index in (3, 0, 4, 2, 1)],
    "uneven": lambda: _uneven(),
    "gantry tilt": lambda: ct_series(5, (0, 0, 2.5), ImageOrientationPatient=list(TILTED)),
    "oblique": lambda: ct_series(5, (1.8, -2.4, 0), ImageOrientationPatient=list(OBLIQUE)),
    "sagittal": lambda: ct_series(5, (2, 0, 0), ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    "coronal": lambda: ct_series(5, (0, -2, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
    "rows flipped": lambda: ct_series(5, (0, 0, 2.5), ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
    "columns flipped": lambda: ct_series(5, (0, 0, 2.5), ImageOrientationPatient=[1, 0, 0, 0, -1, 0]),
    "all flipped": lambda: ct_series(5, (0, 0, -2.5), ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]),
    "multi-frame": lambda: [enhanced_ct()],
    "multi-frame, oblique": lambda: [enhanced_ct(4, (-1.8, 2.4, 0), OBLIQUE)],
    "multi-frame, gantry tilt": lambda: [enhanced_ct(4, (0, 0, 3.0), TILTED)],
}


def _uneven() -> list[SourceInstance]:
    """Slices that lie off an even grid by as much as is still taken for one."""
    made = ct_series(5, (0, 0, 2.5))
    made[2].header.ImagePositionPatient = [10, 20, 35.03]
    return made


def numbered(instances: Sequence[SourceInstance]) -> list[SourceInstance]:
    """The same instances with a value for each pixel that no other has: voxels can be told by it.

    Over all frames of all instances in their order, row by row, the values are 1, 2, 3, ... in
    Hounsfield units (the stored ones are higher by the Rescale Intercept).
    """
    made, value = [], 1
    for instance in instances:
        shape = (
            int(instance.header.get("NumberOfFrames") or 1),
            instance.header.Rows,
            instance.header.Columns,
        )
        intercept = -1000 if "SharedFunctionalGroupsSequence" in instance.header else -1024
        size = int(np.prod(shape))
        pixels = (np.arange(value, value + size) - intercept).reshape(shape).astype(np.uint16)
        made.append(source(instance.header, pixels if shape[0] > 1 else pixels[0]))
        value += size
    return made


def places_mm(instances: Sequence[SourceInstance]) -> dict[int, NDArray[np.float64]]:
    """Where each value of a ``numbered`` series lies, by its header alone (PS3.3 C.7.6.2.1.1)."""
    found: dict[int, NDArray[np.float64]] = {}
    value = 1
    for instance in instances:
        header = instance.header
        for position, orientation, spacing in _planes(header):
            along_row, along_column = np.array(orientation[:3], float), np.array(orientation[3:], float)
            for row in range(header.Rows):
                for column in range(header.Columns):
                    offset = along_row * spacing[1] * column + along_column * spacing[0] * row
                    found[value] = np.array(position, float) + offset
                    value += 1
    return found


def _planes(header: Dataset) -> Iterator[tuple[Any, Any, Any]]:
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing
        return
    shared = header.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    for frame in header.PerFrameFunctionalGroupsSequence:
        yield frame.PlanePositionSequence[0].ImagePositionPatient, orientation, spacing
