"""The functional groups of the frames of an instance (PS3.3 section C.7.6.16)."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from node.results.header_values import items, numbers

_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_DIGITS = 4


def frames_of(data_set: Dataset) -> list[list[Dataset]]:
    """Return the groups of each frame, its own before those of all; empty for an image without any."""
    shared = items(data_set, "SharedFunctionalGroupsSequence")[:1]
    return [[own, *shared] for own in items(data_set, "PerFrameFunctionalGroupsSequence")]


def groups_of(data_set: Dataset, frame: int) -> list[Dataset]:
    """Return the groups of one frame, from 0, as ``frames_of`` does."""
    own = items(data_set, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    return [*own, *items(data_set, "SharedFunctionalGroupsSequence")[:1]]


def numbers_of(groups: Iterable[Dataset], keyword: str) -> tuple[float, ...]:
    """Return the numbers of a plane that a frame with ``groups`` has; empty when it has none."""
    found = (numbers(item, keyword) for group in groups for item in items(group, _MACROS[keyword]))
    return next(filter(None, found), ())


def are_parallel(data_set: Dataset) -> bool:
    """Return whether all frames have the same orientation and spacing."""
    stated = {
        tuple(
            tuple(round(one, _DIGITS) for one in numbers_of(groups, keyword))
            for keyword in ("ImageOrientationPatient", "PixelSpacing")
        )
        for groups in frames_of(data_set)
    }
    return len(stated) <= 1
