"""Values as a network wants them: the steps of ``normalise``, and the samples of a colour image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.catalogue.folder_tables import Step

#: Further voxels do not change a percentile that anybody could notice.
_ENOUGH_VOXELS = 4_000_000


def normalised(values: NDArray[Any], steps: Sequence[Step]) -> NDArray[np.float32]:
    """Apply ``steps`` in their order to an array (slice, row, column[, sample]), as float32."""
    array = values.astype(np.float32)
    for step in steps:
        array = _one(array, step)
    return array


def samples(pixels: NDArray[Any], channels: str) -> NDArray[Any]:
    """Return an image as (frame, row, column) or, where ``channels`` is colour, with three samples.

    Raises ValueError when the image has colour and the network takes none.
    """
    has_colour = pixels.ndim == 4
    if channels == "grey":
        if has_colour:
            raise ValueError("the image is in colour, and the model takes grey images alone")
        return pixels
    if not has_colour:
        return np.repeat(pixels[..., np.newaxis], 3, axis=3)
    return pixels[..., ::-1] if channels == "bgr" else pixels


def _one(array: NDArray[np.float32], step: Step) -> NDArray[np.float32]:
    if step.kind == "scale":
        factor, offset = step.values
        return _f32(array * np.float32(factor) + np.float32(offset))
    if step.kind == "clip":
        return np.clip(array, np.float32(step.values[0]), np.float32(step.values[1]))
    if step.kind == "window":
        return _spread(array, *step.values)
    if step.kind == "percentile":
        every = max(1, array.size // _ENOUGH_VOXELS)
        low, high = np.percentile(array.reshape(-1)[::every], step.values)
        return _spread(array, float(low), float(high))
    if step.kind == "minmax":
        return _spread(array, float(array.min()), float(array.max()))
    if step.kind == "zscore":
        counted = array[array != 0] if step.values else array
        if not counted.size:
            return array
        mean, deviation = counted.mean(dtype=np.float64), counted.std(dtype=np.float64)
        scored = _f32((array - np.float32(mean)) / np.float32(max(float(deviation), 1e-8)))
        return np.where(array != 0, scored, np.float32(0)) if step.values else scored
    half = len(step.values) // 2
    mean_of_each = np.array(step.values[:half], np.float32)
    std_of_each = np.array(step.values[half:], np.float32)
    if half > 1 and (array.ndim != 4 or array.shape[3] != half):
        raise ValueError(f"mean and std are of {half} samples, and the input has others")
    return _f32((array - mean_of_each) / std_of_each)


def _spread(array: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Take ``low`` to 0 and ``high`` to 1; what lies beyond is cut off. A constant array is 0."""
    if high <= low:
        return np.zeros_like(array)
    return np.clip((array - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1))


def _f32(array: NDArray[Any]) -> NDArray[np.float32]:
    return array.astype(np.float32, copy=False)
