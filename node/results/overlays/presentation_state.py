"""Outlines and marks over the source's own images: Grayscale Softcopy Presentation State (PS3.3 A.33.1).

A viewer draws them, and can switch them off by layer. Segments are outlined along the outer edges of their
voxels, marks have their words beside them. It is of the series that the analysis was started for alone; a
series in colour has none. A state has one Modality LUT: where the images of a series differ in theirs,
as those of PET do, each image that something is drawn on has a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from models.types import Findings, Mark, Segment
from node.results.concepts import coding_schemes
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.grid import Grid, Slice
from node.results.header_values import as_decimal_string, text
from node.results.images.derivation import has_colour
from node.results.laterality import set_laterality
from node.results.overlays.contours import contours
from node.results.overlays.display_values import DisplayValues, LookUpTable, Window, aspect_of, display_values
from node.results.provenance import NOT_FOR_DIAGNOSIS, stamp
from node.results.references import image_items
from node.results.regions import outlines_of, slice_of
from node.results.source_header import SourceHeader

#: What a viewer draws in a slice without becoming slow, and what Graphic Data (FL) has room for.
_MOST_PARTS, _MOST_CORNERS = 100, 8000
_MOST_STATES = 64
_MAX_LONG_STRING, _CODE_STRING, _SHORT_TEXT = 64, 16, 1024


@dataclass(frozen=True)
class _Graphic:
    """Something drawn in one slice: ``places`` is (n, 2) float64, (column, row) in GSPS's pixels."""

    layer: int
    slice_index: int
    places: NDArray[np.float64]
    words: str = ""


#: Graphics by slice, and there by layer.
_Drawn = dict[int, dict[int, list[_Graphic]]]


def presentation_states(findings: Findings, given: AllGiven, run: RunFacts) -> list[Dataset]:
    """Return the states of the primary series; none when nothing can be drawn on it."""
    source, header, grid = given.first.source, given.first.header, given.first.grid
    if grid is None or grid.reason or has_colour(header.first):
        return []
    found: list[Segment | Mark] = [*findings.segments, *findings.marks]
    regions = [one for one in found if given.on(one.on) is given.first]
    drawn: _Drawn = {}
    for layer, region in enumerate(regions, 1):
        for one in _graphics(region, layer, grid):
            drawn.setdefault(one.slice_index, {}).setdefault(layer, []).append(one)
    if not drawn:
        return []
    values = [display_values(source.data_sets[one.number], one) for one in grid.slices]
    states: dict[tuple[float, float, str] | LookUpTable, list[Slice]] = {}
    for place, value in zip(grid.slices, values, strict=True):
        states.setdefault(value.modality, []).append(place)
    if len(states) > 1:
        states = {
            key: kept
            for key, slices in states.items()
            if (kept := [place for place in slices if place.index in drawn])
        }
    made = []
    for number, slices in enumerate(list(states.values())[:_MOST_STATES], 1):
        data_set = _state(regions, drawn, slices, grid, values, header)
        stamp(data_set, source, header, run, "pr", what=f"pr {number}", number=number)
        data_set.PresentationCreationDate = data_set.ContentDate
        data_set.PresentationCreationTime = data_set.ContentTime
        data_set.ContentDescription = f"{run.card.name[:40]}, {NOT_FOR_DIAGNOSIS}"
        set_laterality(data_set, header.laterality)
        if schemes := coding_schemes(data_set):
            data_set.CodingSchemeIdentificationSequence = schemes
        made.append(data_set)
    return made


def _graphics(region: Segment | Mark, layer: int, grid: Grid) -> Iterator[_Graphic]:
    """Yield what is drawn of a region; whole numbers are centres of voxels, where GSPS has them at a half."""
    if isinstance(region, Mark):
        for outline in outlines_of(region, grid.shape):
            places = _thinned(outline[:, :0:-1]) + 0.5
            yield _Graphic(layer, slice_of(outline, grid.shape), places, _words(region))
        return
    for index in np.flatnonzero(region.mask.any(axis=(1, 2))).tolist():
        parts = sorted(contours(region.mask[index]), key=len, reverse=True)
        for part in parts[:_MOST_PARTS]:
            places = _thinned(np.concatenate([part, part[:1]])[:, ::-1]) + 0.5
            yield _Graphic(layer, index, places)


def _thinned(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a line with every second, third ... of its points where it has more than can be drawn."""
    step = -(-len(line) // _MOST_CORNERS)
    return line if step == 1 else np.concatenate([line[:-1:step], line[-1:]])


def _words(mark: Mark) -> str:
    label = mark.label or mark.name
    return label if mark.probability is None else f"{label} {mark.probability:.0%}"


def _state(
    regions: list[Segment | Mark],
    drawn: _Drawn,
    slices: list[Slice],
    grid: Grid,
    values: list[DisplayValues],
    header: SourceHeader,
) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    data_set.Modality = "PR"
    data_set.ContentLabel = "FINDINGS"
    data_set.ContentCreatorName = None
    series = Dataset()
    series.SeriesInstanceUID = header.series_instance_uid
    series.ReferencedImageSequence = image_items(slices)
    data_set.ReferencedSeriesSequence = [series]
    data_set.DisplayedAreaSelectionSequence = [_displayed_area(grid, header)]
    places = sorted((layer, one.index) for one in slices for layer in drawn.get(one.index, ()))
    layers = sorted({layer for layer, _ in places})
    data_set.GraphicAnnotationSequence = [
        _annotation(drawn[index][layer], grid, regions) for layer, index in places
    ]
    data_set.GraphicLayerSequence = [
        _layer(regions[layer - 1], layer, order) for order, layer in enumerate(layers, 1)
    ]
    modality = values[slices[0].index].modality
    if isinstance(modality, LookUpTable):
        data_set.ModalityLUTSequence = [modality.item()]
    elif modality != (1.0, 0.0, ""):
        slope, intercept, kind = modality
        data_set.RescaleIntercept = as_decimal_string(intercept)
        data_set.RescaleSlope = as_decimal_string(slope)
        data_set.RescaleType = kind or "US"
    if windows := _windows(slices, values):
        data_set.SoftcopyVOILUTSequence = windows
    is_inverse = text(header.first, "PhotometricInterpretation") == "MONOCHROME1"
    data_set.PresentationLUTShape = "INVERSE" if is_inverse else "IDENTITY"
    return data_set


def _displayed_area(grid: Grid, header: SourceHeader) -> Dataset:
    """Return a selection of the whole image (PS3.3 section C.10.4)."""
    item = Dataset()
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [*grid.shape[:0:-1]]
    item.PresentationSizeMode = "SCALE TO FIT"
    spacing_mm, aspect = aspect_of(header)
    if spacing_mm:
        item.PresentationPixelSpacing = [as_decimal_string(value) for value in spacing_mm]
    else:
        item.PresentationPixelAspectRatio = list(aspect)
    return item


def _annotation(graphics: list[_Graphic], grid: Grid, regions: list[Segment | Mark]) -> Dataset:
    """Return what one layer has in one slice (PS3.3 section C.10.5)."""
    item = Dataset()
    first = graphics[0]
    item.ReferencedImageSequence = image_items([grid.slices[first.slice_index]])
    item.GraphicLayer = _layer_name(regions[first.layer - 1], first.layer)
    item.GraphicObjectSequence = [_graphic_object(one) for one in graphics]
    if words := [_text_object(one) for one in graphics if one.words]:
        item.TextObjectSequence = words
    return item


def _graphic_object(graphic: _Graphic) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(graphic.places)
    item.GraphicData = [float(np.float32(value)) for value in graphic.places.ravel()]
    item.GraphicType = "POINT" if len(graphic.places) == 1 else "POLYLINE"
    if item.GraphicType == "POLYLINE" and np.array_equal(graphic.places[0], graphic.places[-1]):
        item.GraphicFilled = "N"
    return item


def _text_object(graphic: _Graphic) -> Dataset:
    """Return the words of a mark, beside its rightmost place."""
    item = Dataset()
    right = graphic.places[int(graphic.places[:, 0].argmax())]
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = graphic.words[:_SHORT_TEXT]
    item.AnchorPoint = [float(np.float32(value)) for value in right]
    item.AnchorPointVisibility = "N"
    return item


def _layer(region: Segment | Mark, layer: int, order: int) -> Dataset:
    item = Dataset()
    item.GraphicLayer = _layer_name(region, layer)
    item.GraphicLayerOrder = order
    item.GraphicLayerRecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*region.colour).value)
    item.GraphicLayerDescription = (region.label or region.name)[:_MAX_LONG_STRING]
    return item


def _layer_name(region: Segment | Mark, layer: int) -> str:
    """Return a Code String that no other layer has."""
    end = f" {layer}"
    words = "".join(one if one.isascii() and one.isalnum() else " " for one in region.name.upper())
    return " ".join(words.split())[: _CODE_STRING - len(end)].strip() + end


def _windows(slices: list[Slice], values: list[DisplayValues]) -> list[Dataset]:
    """Return Softcopy VOI LUT items, which name their images where windows differ."""
    by_window: dict[Window | LookUpTable, list[Slice]] = {}
    for one in slices:
        if (window := values[one.index].window) is not None:
            by_window.setdefault(window, []).append(one)
    found = []
    for window, of in by_window.items():
        if isinstance(window, Window):
            item = window.item()
        else:
            item = Dataset()
            item.VOILUTSequence = [window.item()]
        if len(of) < len(slices):
            item.ReferencedImageSequence = image_items(of)
        found.append(item)
    return found
