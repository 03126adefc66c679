"""Where the pixels of result objects lie and what they say, by the files alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset


def planes(data_set: Dataset) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], Dataset]]:
    """(position, orientation (2, 3), spacing, what says more of it) of each frame (PS3.3 C.7.6.2)."""
    if "PerFrameFunctionalGroupsSequence" not in data_set:
        yield (
            np.array(data_set.ImagePositionPatient, float),
            np.array(data_set.ImageOrientationPatient, float).reshape(2, 3),
            np.array(data_set.PixelSpacing, float),
            data_set,
        )
        return
    shared = data_set.SharedFunctionalGroupsSequence[0]
    for frame in data_set.PerFrameFunctionalGroupsSequence:
        orientation = _of(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _of(frame, shared, "PixelMeasuresSequence").PixelSpacing
        position = _of(frame, shared, "PlanePositionSequence").ImagePositionPatient
        yield (
            np.array(position, float),
            np.array(orientation, float).reshape(2, 3),
            np.array(spacing, float),
            frame,
        )


def _of(frame: Dataset, shared: Dataset, keyword: str) -> Dataset:
    found: Dataset = (frame if keyword in frame else shared)[keyword].value[0]
    return found


def values_and_places(data_sets: Sequence[Dataset]) -> dict[float, NDArray[np.float64]]:
    """For each value, after Modality LUT, where its last voxel lies in mm."""
    found = {}
    for data_set in data_sets:
        frames = real_values(data_set)
        for values, (position, axes, spacing, _) in zip(frames, planes(data_set), strict=True):
            for (row, column), value in np.ndenumerate(values):
                found[float(value)] = position + axes[0] * spacing[1] * column + axes[1] * spacing[0] * row
    return found


def real_values(data_set: Dataset) -> NDArray[np.float64]:
    """(frame, row, column) real values, by Rescale Slope and Intercept or by Real World Value Mapping."""
    if "FloatPixelData" in data_set or "DoubleFloatPixelData" in data_set:
        stored = data_set.pixel_array.astype(float)
        shared = data_set.SharedFunctionalGroupsSequence[0]
        mapping = _of(data_set.PerFrameFunctionalGroupsSequence[0], shared, "RealWorldValueMappingSequence")
        slope, intercept = mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept
    else:
        stored = data_set.pixel_array.astype(float)
        item = data_set
        if "SharedFunctionalGroupsSequence" in data_set:
            item = data_set.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
        slope = float(item.get("RescaleSlope", 1))
        intercept = float(item.get("RescaleIntercept", 0))
    values = stored * slope + intercept
    return np.asarray(values.reshape(-1, data_set.Rows, data_set.Columns), np.float64)
