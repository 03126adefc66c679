"""What a model is given: series, decoded into the folder of its run as the model needs them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import Need
from models.types import Image, Input, Inputs, ParameterValue, Volume
from node.errors import OutOfSpace, UnfitInput
from node.index.index import StoredInstance
from node.processes.job_folder import JobFolder
from node.results.facts import Source
from node.series import image, series_view, source_series, volume
from node.series.header_values import number, text, whole
from node.series.source_series import Holdings, SourceInstance


@dataclass(frozen=True)
class Material:
    """What the model gets, and what the results are built from."""

    inputs: Inputs
    source: Source


def read(
    holdings: Holdings,
    chosen: Mapping[str, Sequence[StoredInstance]],
    needs: Sequence[Need],
    digest: str,
    parameters: Mapping[str, ParameterValue],
    folder: JobFolder,
    *,
    reserve_bytes: int,
) -> Material:
    """Read and decode the stored series that were ``chosen`` into ``folder``; otherwise as ``of_sources``.

    Raises also StorageFailure, IntegrityFailure or MalformedDataSet, when they cannot be read.
    """
    given = {name: source_series.read(holdings, stored) for name, stored in chosen.items()}
    return of_sources(given, needs, digest, parameters, folder, reserve_bytes=reserve_bytes)


def of_sources(
    given: Mapping[str, Sequence[SourceInstance]],
    needs: Sequence[Need],
    digest: str,
    parameters: Mapping[str, ParameterValue],
    folder: JobFolder,
    *,
    reserve_bytes: int = 0,
) -> Material:
    """Decode series into ``folder``, as the model needs them.

    Parameters
    ----------
    given
        by the names of ``needs``; an optional one may lack
    needs
        of the model, the primary first
    digest
        of everything that is given
    parameters
        a value for each of the model's
    folder
        of the run; arrays lie in files of it
    reserve_bytes
        that stay free on its disk

    Raises
    ------
    UnfitInput
        an input is missing, of another modality, in another unit or too short for the model
    NotAVolume, NotAnImage
        the model needs one, and the series is none
    UnsupportedPixelData, MalformedDataSet
        an instance cannot be decoded
    OutOfSpace, StorageFailure, IntegrityFailure
        the disk is too full, or cannot be read
    """
    _check_room([one for instances in given.values() for one in instances], folder, reserve_bytes)
    inputs: dict[str, Input] = {}
    sources: dict[str, Source] = {}
    for need in needs:
        if need.name in given:
            _refuse_modality(need, given[need.name])
            inputs[need.name], source = _MAKERS[need.kind](need, given[need.name], folder)
            sources[need.name] = replace(
                source, input_digest=digest, name=need.name, is_prior=need.comes_from == "prior"
            )
        elif not need.is_optional:
            raise UnfitInput(f"the input '{need.name}' is missing")
    primary, *others = sources
    source = replace(
        sources[primary],
        others={name: sources[name] for name in others},
        lacks_prior=any(need.comes_from == "prior" for need in needs)
        and not any(one.is_prior for one in sources.values()),
    )
    return Material(Inputs(inputs, dict(parameters)), source)


def _volume(need: Need, instances: Sequence[SourceInstance], folder: JobFolder) -> tuple[Volume, Source]:
    built = volume.build(instances, folder.allocate, _check_of(need, "slice"))
    return built.volume, Source([one.header for one in built.ordered], built.volume, "")


def _image(need: Need, instances: Sequence[SourceInstance], folder: JobFolder) -> tuple[Image, Source]:
    built = image.build(instances, folder.allocate, _check_of(need, "frame"))
    pixels = built.image.pixels
    shown = np.asarray(pixels[len(pixels) // 2], np.float32)
    return built.image, Source([built.instance.header], None, "", _grey(shown), image=built.image)


def _series(need: Need, instances: Sequence[SourceInstance], folder: JobFolder) -> tuple[Input, Source]:
    _refuse_few(need, len(instances), "instance")
    series, ordered = series_view.view(instances, folder.allocate)
    picture, shown = None, len(ordered) // 2
    # The nearest to the middle that can be shown at all.
    for index in sorted(range(len(ordered)), key=lambda one: abs(one - shown)):
        pixels = series.instances[index].pixels
        if pixels is not None:
            picture, shown = _picture(ordered[index], pixels), index
            break
    return series, Source([one.header for one in ordered], None, "", picture, shown)


_Maker = Callable[[Need, Sequence[SourceInstance], JobFolder], tuple[Input, Source]]
_MAKERS: dict[str, _Maker] = {"volume": _volume, "image": _image, "series": _series}


def _picture(instance: SourceInstance, pixels: NDArray[Any]) -> NDArray[Any]:
    """One frame (row, column) in real-world values; colour becomes its mean."""
    frame = _grey(np.asarray(pixels[len(pixels) // 2], np.float32))
    header = instance.header
    return frame * number(header, "RescaleSlope", 1.0) + number(header, "RescaleIntercept", 0.0)


def _grey(frame: NDArray[Any]) -> NDArray[Any]:
    return frame.mean(axis=2) if frame.ndim == 3 else frame


# --- what is unfit -----------------------------------------------------------


def _refuse_modality(need: Need, instances: Sequence[SourceInstance]) -> None:
    found = {text(one.header, "Modality") for one in instances}
    if need.modalities and not found <= set(need.modalities):
        others = sorted(found - set(need.modalities))
        is_one = ", ".join(one or "without a modality" for one in others)
        raise UnfitInput(f"the input '{need.name}' has to be {' or '.join(need.modalities)}, and is {is_one}")


def _refuse_few(need: Need, count: int, what: str) -> None:
    if count < need.min_slices:
        many = f"{count} {what}" if count == 1 else f"{count} {what}s"
        raise UnfitInput(f"the input '{need.name}' has {many}, and the model needs {need.min_slices}")


def _check_of(need: Need, what: str) -> Callable[[int, str], None]:
    def check(count: int, unit: str) -> None:
        _refuse_few(need, count, what)
        if need.unit and unit != need.unit:
            raise UnfitInput(
                f"the unit of the input '{need.name}' is {unit}, and the model needs {need.unit}"
            )

    return check


def _check_room(instances: Sequence[SourceInstance], folder: JobFolder, reserve_bytes: int) -> None:
    """Refuse before anything is written when the decoded series would fill the disk."""
    needed = sum(_decoded_bytes(instance) for instance in instances)
    free = shutil.disk_usage(folder.path).free - reserve_bytes
    if needed > free:
        raise OutOfSpace(f"the decoded series needs {needed >> 20} MB, and {max(free, 0) >> 20} MB are free")


def _decoded_bytes(instance: SourceInstance) -> int:
    if not instance.has_pixels:
        return 0
    keywords = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")
    pixels = math.prod(max(1, whole(instance.header, keyword, 1)) for keyword in keywords)
    return pixels * max(1, whole(instance.header, "BitsAllocated", 16) // 8)
