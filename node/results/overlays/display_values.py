"""How the stored values of one image or frame of a source become what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from node.results.header_values import items, numbers, text
from node.results.source_grid import Slice
from node.results.source_header import SourceHeader


@dataclass(frozen=True)
class DisplayValues:
    """Modality LUT and window of one image.

    ``rescale`` is (slope, intercept, type), (1, 0, "") when there is none; ``window`` (centre, width).
    """

    rescale: tuple[float, float, str] = (1.0, 0.0, "")
    window: tuple[float, float] | None = None


def display_values(data_sets: Sequence[Dataset], header: SourceHeader, one: Slice) -> DisplayValues:
    """Return those of a slice, from its header or from the functional groups of its frame."""
    index = next(i for i, instance in enumerate(header.instances) if instance is one.instance)
    data_set = data_sets[index]
    groups = items(data_set, "PerFrameFunctionalGroupsSequence")
    places = [data_set]
    if groups and one.frame is not None and one.frame <= len(groups):
        shared = items(data_set, "SharedFunctionalGroupsSequence")[:1]
        places = [
            item
            for group in (groups[one.frame - 1], *shared)
            for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
            for item in items(group, keyword)[:1]
        ]
    slope, intercept, centre, width = (
        next((found[0] for place in places if (found := numbers(place, keyword))), None)
        for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    )
    kind = next((stated for place in places if (stated := text(place, "RescaleType"))), "")
    rescale = (1.0, 0.0, "") if slope is None or intercept is None else (slope, intercept, kind[:16])
    window = None if centre is None or width is None or width <= 0 else (centre, width)
    return DisplayValues(rescale, window)
