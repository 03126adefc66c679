"""The instances of a series as they are kept: headers at once, frames when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset


@dataclass(frozen=True)
class SourceInstance:
    """One instance: ``header`` is what stands before its pixels, ``frames`` decodes them anew each time.

    A frame is (row, column[, sample]) of stored values. ``frames`` raises UnsupportedPixelData
    when they cannot be decoded, StorageFailure or IntegrityFailure when they cannot be read.
    """

    header: Dataset
    has_pixels: bool
    frames: Callable[[], Iterator[NDArray[Any]]]
