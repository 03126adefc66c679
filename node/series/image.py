"""The one instance with pixels of a series as a model's image, whatever its geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import RTDoseStorage

from models.types import Image
from node.errors import NotAnImage, UnsupportedPixelData
from node.pictures.reading import Frame
from node.pictures.rendering import picture
from node.series.header_values import is_empty, items, number, numbers, text, whole
from node.series.series_view import Allocate, header_view
from node.series.source_series import SourceInstance
from node.series.values import (
    HOUNSFIELD_UNIT,
    Rescaling,
    fill_padding,
    real,
    rescaling,
    transformation,
    unit_of,
    wide_enough,
)
from node.transcode.facts import facts_of
from node.undecodable import UNDECODABLE_IN_MEMORY


@dataclass(frozen=True)
class BuiltImage:
    """An image and the instance that it is of."""

    image: Image
    instance: SourceInstance


def _anything(frames: int, unit: str) -> None:
    del frames, unit


def build(
    instances: Sequence[SourceInstance],
    allocate: Allocate = np.empty,
    check: Callable[[int, str], None] = _anything,
) -> BuiltImage:
    """Build the image of a series: (frame, row, column) real-world values, or RGB.

    Grey values are those after the Modality LUT (PS3.3 section C.11.1), rescaled or looked up: int16
    where all are whole and fit, else int32, else float32. Colour, with a palette too, becomes (frame,
    row, column, 3) RGB of 8 bits (section C.7.6.3.1.2).

    Parameters
    ----------
    instances
        of one series; those without pixels are passed over
    allocate
        gives the array for the pixels, filled frame by frame
    check
        is told the number of frames and the unit before anything is decoded, and may raise

    Raises
    ------
    NotAnImage
        there is no image, or there are several; the values are not rescaled where they have to be
    UnsupportedPixelData, StorageFailure, IntegrityFailure
        when pixels cannot be decoded or read
    """
    shown = [instance for instance in instances if instance.has_pixels]
    if not shown:
        raise NotAnImage("the series holds no image")
    if len(shown) > 1:
        raise NotAnImage(f"the series holds {len(shown)} images, and the model takes one")
    (instance,) = shown
    header = instance.header
    if text(header, "Modality") == "RTDOSE" or text(header, "SOPClassUID") == RTDoseStorage:
        # Its values are in DoseGridScaling (PS3.3 section C.8.8.3), and mean nothing without it.
        raise NotAnImage("the image is an RT Dose, whose grid of doses is not read here")
    if not instance.is_decodable:
        raise NotAnImage("the image is a video, which is not decoded here")
    count = max(1, whole(header, "NumberOfFrames", 1))
    is_colour = (
        whole(header, "SamplesPerPixel", 1) > 1
        or text(header, "PhotometricInterpretation") == "PALETTE COLOR"
    )
    try:
        unit = "1" if is_colour or items(header, "ModalityLUTSequence") else unit_of([header])
    except ValueError as error:
        raise NotAnImage(str(error)) from None
    check(count, unit)
    fill = _coloured if is_colour else _grey
    pixels = fill(instance, count, unit, allocate)
    return BuiltImage(Image(pixels, _spacing_mm(header), unit, header_view(header)), instance)


def _coloured(instance: SourceInstance, count: int, unit: str, allocate: Allocate) -> NDArray[Any]:
    del unit
    header = instance.header
    facts = facts_of(header)
    facts = replace(
        facts, photometric_interpretation=instance.photometric_interpretation, planar_configuration=0
    )
    pixels = allocate((count, facts.rows, facts.columns, 3), np.dtype(np.uint8))
    for index, stored in _frames(instance, count):
        rgb = picture(Frame(stored, facts, header, index + 1, 0))
        pixels[index] = rgb
    return pixels


def _grey(instance: SourceInstance, count: int, unit: str, allocate: Allocate) -> NDArray[Any]:
    header = instance.header
    size = whole(header, "Rows", 0), whole(header, "Columns", 0)
    is_inverse = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    pixels = allocate((count, *size), np.dtype(np.int16))
    said: dict[tuple[str, ...], int] = {}
    for index, stored in _frames(instance, count):
        if stored.shape != size:
            raise NotAnImage(f"frame {index + 1} decodes to {stored.shape} pixels instead of {size}")
        if items(header, "ModalityLUTSequence"):
            values = _looked_up(stored, header)
        else:
            rescale = _rescaling(header, index)
            said.setdefault(rescale.said, index + 1)
            if len(said) > 1:
                one, other = said.values()
                raise NotAnImage(f"mixed rescaling: frame {other} is not rescaled as frame {one} is")
            values = real(stored, rescale)
            is_ct = unit == HOUNSFIELD_UNIT
            fill_padding(values, stored, header, rescale, is_ct=is_ct, is_inverse=is_inverse)
        pixels = wide_enough(pixels, values, allocate)
        pixels[index] = values
    return pixels


def _frames(instance: SourceInstance, count: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each frame with its index, and refuse when there are more or fewer than are declared."""
    found = 0
    for stored in instance.frames():
        if found == count:
            raise NotAnImage(f"the image has more frames than the {count} that it declares")
        yield found, stored
        found += 1
    if found < count:
        raise NotAnImage(f"the image has {found} of the {count} frames that it declares")


def _rescaling(header: Dataset, index: int) -> Rescaling:
    """Of a frame, also of an enhanced object."""
    groups = items(header, "PerFrameFunctionalGroupsSequence")[index : index + 1] or [Dataset()]
    try:
        return rescaling(transformation(header, groups[0]), text(header, "Modality"))
    except ValueError as error:
        raise NotAnImage(f"the image {error}") from None


def _looked_up(stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    try:
        return np.asarray(apply_modality_lut(stored, header)).astype(np.int64)
    except UNDECODABLE_IN_MEMORY as error:
        raise UnsupportedPixelData(f"the Modality LUT of the image cannot be used: {error}") from error


def _spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """(between rows, between columns) in the patient; at the detector where its magnification is not said.

    Pixel Spacing that says what Imager Pixel Spacing does is not calibrated (PS3.3 section 10.7.1.3).
    """
    shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    measures = (items(shared, "PixelMeasuresSequence") or [Dataset()])[0]
    in_patient = _pair(header, "PixelSpacing") or _pair(measures, "PixelSpacing")
    at_detector = _pair(header, "ImagerPixelSpacing")
    is_calibrated = in_patient != at_detector or not is_empty(header, "PixelSpacingCalibrationType")
    if in_patient is not None and is_calibrated:
        return in_patient
    if at_detector is None or is_empty(header, "EstimatedRadiographicMagnificationFactor"):
        return at_detector
    factor = number(header, "EstimatedRadiographicMagnificationFactor", 0.0)
    # The patient lies before the detector, so a smaller one cannot be meant.
    return (at_detector[0] / factor, at_detector[1] / factor) if factor >= 1 else None


def _pair(holder: Dataset, keyword: str) -> tuple[float, float] | None:
    found = numbers(holder, keyword, 2)
    return (found[0], found[1]) if found is not None and min(found) > 0 else None
