"""Segments and marks as contours in mm: RT Structure Set Storage (PS3.3 section A.19), for radiotherapy.

The contours of a segment run along the outer edges of its voxels, a hole joined to the contour around it
(``contours``): the area in each slice is that of the voxels, and whoever fills in the voxels whose centres
lie inside has the segment again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import RTStructureSetStorage

from models.types import Findings, Mark, Segment
from node.results.concepts import ANATOMICAL_CATEGORIES, code_dataset, coding_schemes
from node.results.facts import RunFacts, Source
from node.results.given import AllGiven
from node.results.grid import Grid
from node.results.laterality import set_laterality
from node.results.overlays.contours import contours, count_parts
from node.results.overlays.decimal_strings import decimal_strings
from node.results.provenance import NOT_FOR_DIAGNOSIS, algorithm_parameters, stamp
from node.results.references import image_items
from node.results.regions import outlines_of, slice_of
from node.results.source_header import SourceHeader

#: The reference to a study has a class, though studies are no longer managed as instances (PS3.3 C.8.8.5).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_CONTOUR_DATA = BaseTag(0x30060050)
_MAX_LONG_STRING, _MAX_SHORT_STRING, _SHORT_TEXT = 64, 16, 1024
#: Of all segments in a set together: a contour takes a millisecond and 17 KB, and no workstation shows more.
MOST_CONTOURS = 20_000


@dataclass(frozen=True)
class _Contour:
    slice_index: int
    kind: str
    places_mm: NDArray[np.float64]


def rt_structure_sets(findings: Findings, given: AllGiven, run: RunFacts) -> tuple[list[Dataset], list[str]]:
    """Return an RT Structure Set for each input that something was found on, each a series.

    An input that is not placed in the patient, or whose slices are not the images of its source, has none.
    With them is returned which regions are left out, as they have too many contours.
    """
    made, reasons = [], []
    source, header = given.first.source, given.first.header
    found: dict[str, list[Segment | Mark]] = {}
    regions: list[Segment | Mark] = [one for one in findings.segments if one.mask.any()]
    for region in [*regions, *findings.marks]:
        found.setdefault(region.on or source.name, []).append(region)
    for index, (name, there) in enumerate(found.items()):
        one = given.on(name)
        grid = one.grid
        if grid is None or grid.reason or grid.positions_mm is None:
            continue
        held = _held(there)
        reasons += [
            f"{region.name} is not in the RT Structure Set, which has room for {MOST_CONTOURS:,} contours"
            for region in there
            if not any(region is other for other in held)
        ]
        if not held:
            continue
        data_set = _structure_set(held, grid, one.header, source, run)
        what = "rtstruct" if one is given.first else f"rtstruct on {name}"
        stamp(data_set, source, header, run, "rtstruct", what=what, series=what, series_index=index)
        data_set.StructureSetDate, data_set.StructureSetTime = data_set.ContentDate, data_set.ContentTime
        set_laterality(data_set, one.header.laterality)
        if schemes := coding_schemes(data_set):
            data_set.CodingSchemeIdentificationSequence = schemes
        made.append(data_set)
    return made, reasons


def _held(regions: list[Segment | Mark]) -> list[Segment | Mark]:
    """Return the regions that a set has room for, in their order; of marks there are never too many."""
    held: list[Segment | Mark] = []
    room = MOST_CONTOURS
    for region in regions:
        if isinstance(region, Segment):
            parts = 0
            for index in np.flatnonzero(region.mask.any(axis=(1, 2))).tolist():
                parts += count_parts(region.mask[index])
                if parts > room:
                    break
            if parts > room:
                continue
            room -= parts
        held.append(region)
    return held


def _structure_set(
    regions: list[Segment | Mark], grid: Grid, header: SourceHeader, source: Source, run: RunFacts
) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = RTStructureSetStorage
    data_set.Modality = "RTSTRUCT"
    data_set.OperatorsName = None
    data_set.FrameOfReferenceUID = header.frame_of_reference_uid
    data_set.PositionReferenceIndicator = None
    data_set.StructureSetLabel = run.card.name[:_MAX_SHORT_STRING]
    data_set.StructureSetName = run.card.name[:_MAX_LONG_STRING]
    data_set.StructureSetDescription = f"{run.card.title or run.card.name}, {NOT_FOR_DIAGNOSIS}"[:_SHORT_TEXT]
    data_set.ReferencedFrameOfReferenceSequence = [_frame_of_reference(grid, header)]
    data_set.StructureSetROISequence = []
    data_set.ROIContourSequence = []
    data_set.RTROIObservationsSequence = []
    for number, region in enumerate(regions, 1):
        data_set.StructureSetROISequence.append(_roi(region, number, source, header, run))
        contour = Dataset()
        contour.ReferencedROINumber = number
        contour.ROIDisplayColor = list(region.colour)
        contour.ContourSequence = [
            _contour_item(one, index, grid) for index, one in enumerate(_outlines(region, grid), 1)
        ]
        data_set.ROIContourSequence.append(contour)
        data_set.RTROIObservationsSequence.append(_observation(region, number))
    data_set.ApprovalStatus = "UNAPPROVED"
    return data_set


def _outlines(region: Segment | Mark, grid: Grid) -> Iterator[_Contour]:
    if isinstance(region, Segment):
        for index in np.flatnonzero(region.mask.any(axis=(1, 2))).tolist():
            for places in contours(region.mask[index]):
                yield _Contour(index, "CLOSED_PLANAR", grid.to_mm(np.insert(places, 0, index, axis=1)))
        return
    is_closed = region.shape in ("box", "polygon")
    for outline in outlines_of(region, grid.shape):
        # The last vertex of a closed contour is not written again (PS3.3 section C.8.8.6.3), and no vertex
        # twice in a row: what is left of a shape that has no extent is a line, or a point.
        vertices = outline[[True, *(outline[1:] != outline[:-1]).any(axis=1)]]
        if is_closed and len(vertices) > 1:
            vertices = vertices[:-1]
        least = "CLOSED_PLANAR" if is_closed and len(vertices) > 2 else "OPEN_PLANAR"
        kind = "POINT" if len(vertices) == 1 else least
        yield _Contour(slice_of(outline, grid.shape), kind, grid.to_mm(vertices))


def _frame_of_reference(grid: Grid, header: SourceHeader) -> Dataset:
    """Return the chain from the frame of reference down to the images that contours lie on."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = header.series_instance_uid
    series.ContourImageSequence = [item for one in grid.slices for item in image_items([one])]
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = header.study_instance_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = header.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(region: Segment | Mark, number: int, source: Source, header: SourceHeader, run: RunFacts) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = header.frame_of_reference_uid
    item.ROIName = (region.label or region.name).replace("\\", "/")[:_MAX_LONG_STRING]
    item.ROIDescription = region.name[:_SHORT_TEXT]
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"{run.card.name} {run.card.version}".replace("\\", "/")[
        :_MAX_LONG_STRING
    ]
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [code_dataset(run.card.family)]
    algorithm.AlgorithmName = run.card.name[:_MAX_LONG_STRING]
    algorithm.AlgorithmVersion = run.card.version[:_MAX_LONG_STRING]
    algorithm.AlgorithmParameters = ", ".join(algorithm_parameters(source, run))
    algorithm.AlgorithmSource = run.card.manufacturer[:_MAX_LONG_STRING]
    item.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return item


def _contour_item(contour: _Contour, number: int, grid: Grid) -> Dataset:
    item = Dataset()
    item.ContourNumber = number
    item.ContourImageSequence = image_items([grid.slices[contour.slice_index]])
    item.ContourGeometricType = contour.kind
    item.NumberOfContourPoints = len(contour.places_mm)
    item[_CONTOUR_DATA] = decimal_strings(_CONTOUR_DATA, contour.places_mm)
    return item


def _observation(region: Segment | Mark, number: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.ROIObservationLabel = region.name[:_MAX_SHORT_STRING]
    is_anatomy = (region.category.value, region.category.scheme) in ANATOMICAL_CATEGORIES
    is_point = isinstance(region, Mark) and region.shape == "point"
    item.RTROIInterpretedType = "MARKER" if is_point else "ORGAN" if is_anatomy else None
    item.ROIInterpreter = None
    kind = code_dataset(region.type)
    if region.laterality is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_dataset(region.laterality)]
    item.SegmentedPropertyCategoryCodeSequence = [code_dataset(region.category)]
    item.RTROIIdentificationCodeSequence = [kind]
    return item
