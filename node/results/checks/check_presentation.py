"""The rules of ``check`` for Grayscale Softcopy Presentation States (PS3.3 section A.33.1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from node.results.checks.check_references import referenced_instances
from node.results.header_values import numbers


def presentation_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a presentation state."""
    for keyword in ("ContentLabel", "PresentationCreationDate", "PresentationCreationTime"):
        if not data_set.get(keyword):
            yield f"{keyword} is absent or empty"
    if "StudiesContainingOtherReferencedInstancesSequence" in data_set:
        yield "images of another study are referred to"
    if not referenced_instances(data_set):
        yield "no images are referred to"
    areas = data_set.get("DisplayedAreaSelectionSequence") or []
    if not areas:
        yield "Displayed Area Selection is absent"
    for area in areas:
        if not area.get("DisplayedAreaBottomRightHandCorner") or not area.get("PresentationSizeMode"):
            yield "a displayed area has no corners or no size mode"
        if "PresentationPixelSpacing" not in area and "PresentationPixelAspectRatio" not in area:
            yield "a displayed area has neither spacing nor aspect ratio"
    if data_set.get("PresentationLUTShape") not in ("IDENTITY", "INVERSE"):
        yield "Presentation LUT Shape is absent"
    if ("RescaleSlope" in data_set) != ("RescaleIntercept" in data_set):
        yield "Rescale Slope and Rescale Intercept do not come together"
    yield from _layers(data_set)
    yield from _annotations(data_set)


def _layers(data_set: Dataset) -> Iterator[str]:
    layers = [item.get("GraphicLayer") for item in data_set.get("GraphicLayerSequence") or []]
    if len(set(layers)) != len(layers) or not all(layers):
        yield "two graphic layers have one name, or one has none"
    used = {item.get("GraphicLayer") for item in data_set.get("GraphicAnnotationSequence") or []}
    if used != set(layers):
        yield "a graphic layer is not there, or nothing is on it"


def _annotations(data_set: Dataset) -> Iterator[str]:
    annotations = data_set.get("GraphicAnnotationSequence") or []
    areas = list(data_set.get("DisplayedAreaSelectionSequence") or [])
    if not annotations:
        yield "nothing is drawn"
    known = referenced_instances(data_set)
    for annotation in annotations:
        images = {
            str(image.ReferencedSOPInstanceUID) for image in annotation.get("ReferencedImageSequence") or []
        }
        if not images:
            yield "an annotation is on every image"
        if not images <= known:
            yield "an annotated image is not in Referenced Series Sequence"
        for graphic in annotation.get("GraphicObjectSequence") or []:
            points = graphic.get("NumberOfGraphicPoints") or 0
            values = numbers(graphic, "GraphicData")
            if len(values) != 2 * points or not points:
                yield "Graphic Data has not the length that Number of Graphic Points says"
            elif not _is_shown(values, areas):
                yield "something is drawn beside the displayed area"
            if graphic.get("GraphicAnnotationUnits") != "PIXEL":
                yield "a graphic is not in pixels"
        for words in annotation.get("TextObjectSequence") or []:
            anchor = numbers(words, "AnchorPoint")
            if len(anchor) != 2 or not _is_shown(anchor, areas):
                yield "a text has no place in the displayed area"


def _is_shown(values: tuple[float, ...], areas: list[Dataset]) -> bool:
    """Whether places, (column, row) from 0, lie in an area; its corners are pixels from 1 (PS3.3 C.10.4)."""
    places = np.array(values).reshape(-1, 2)
    for area in areas:
        first = numbers(area, "DisplayedAreaTopLeftHandCorner")
        last = numbers(area, "DisplayedAreaBottomRightHandCorner")
        if len(first) == len(last) == 2 and not ((places < np.array(first) - 1) | (places > last)).any():
            return True
    return not areas
