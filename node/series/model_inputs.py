"""What a model is given: a stored series, decoded into the folder of its run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.base import Model
from models.types import Inputs
from node.errors import OutOfSpace
from node.index.index import StoredInstance
from node.results.facts import Source
from node.runners.job_folder import JobFolder
from node.series import series_view, source_series, volume
from node.series.header_values import number, whole
from node.series.source_series import SourceInstance
from node.services import Services


@dataclass(frozen=True)
class Material:
    """What the model gets, and what the results are built from."""

    inputs: Inputs
    source: Source


def read(
    services: Services,
    stored: Sequence[StoredInstance],
    model: Model,
    digest: str,
    folder: JobFolder,
) -> Material:
    """Read and decode the series into ``folder``, as the model needs it.

    Raises
    ------
    NotAVolume
        the model needs a volume, and the series is none
    UnsupportedPixelData, MalformedDataSet
        an instance cannot be decoded
    OutOfSpace, StorageFailure, IntegrityFailure
        the disk is too full, or cannot be read
    """
    instances = source_series.read(services, stored)
    _check_room(services, instances, folder)
    if model.needs == "volume":
        built = volume.build(instances, folder.allocate)
        headers = [instance.header for instance in built.ordered]
        return Material(Inputs(volume=built.volume), Source(headers, built.volume, digest))
    series, ordered = series_view.view(instances, folder.allocate)
    picture, shown = None, len(ordered) // 2
    # The nearest to the middle that can be shown at all.
    for index in sorted(range(len(ordered)), key=lambda one: abs(one - shown)):
        pixels = series.instances[index].pixels
        if pixels is not None:
            picture, shown = _picture(ordered[index], pixels), index
            break
    headers = [instance.header for instance in ordered]
    return Material(Inputs(series=series), Source(headers, None, digest, picture, shown))


def _picture(instance: SourceInstance, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One frame (row, column) in real-world values; colour becomes its mean."""
    frame = np.asarray(pixels[len(pixels) // 2], np.float32)
    if frame.ndim == 3:
        frame = frame.mean(axis=2)
    header = instance.header
    return frame * number(header, "RescaleSlope", 1.0) + number(header, "RescaleIntercept", 0.0)


def _check_room(services: Services, instances: Sequence[SourceInstance], folder: JobFolder) -> None:
    """Refuse before anything is written when the decoded series would fill the disk."""
    needed = sum(_decoded_bytes(instance) for instance in instances)
    free = shutil.disk_usage(folder.path).free - services.config.storage.free_space_reserve_bytes
    if needed > free:
        raise OutOfSpace(f"the decoded series needs {needed >> 20} MB, and {max(free, 0) >> 20} MB are free")


def _decoded_bytes(instance: SourceInstance) -> int:
    if not instance.has_pixels:
        return 0
    keywords = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")
    pixels = math.prod(max(1, whole(instance.header, keyword, 1)) for keyword in keywords)
    return pixels * max(1, whole(instance.header, "BitsAllocated", 16) // 8)
