"""The measurement groups of TID 1500: TID 1411 for a region, TID 1501 without one (PS3.16)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from models import types
from models.types import Code, Findings, Segment
from node.results import concepts
from node.results.concepts import concept
from node.results.facts import RunFacts
from node.results.source_header import SourceHeader
from node.results.uids import tracking_uid

_MAX_LONG_STRING = 64


def group_with_region(
    segment: Segment, number: int, segmentation: Dataset, header: SourceHeader, run: RunFacts
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return TID 1411: the region is the segment, its source the series."""
    source_series = SourceSeriesForSegmentation(header.series_instance_uid)
    # The library spells the meaning with capitals, PS3.16 does not.
    source_series.ConceptNameCodeSequence = [concept(concepts.SOURCE_SERIES)]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=source_series,
        ),
        **_group_content(segment, header, run),
    )


def group_without_region(
    segment: Segment, header: SourceHeader, run: RunFacts
) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501, for a segment that no Segmentation holds."""
    group = MeasurementsAndQualitativeEvaluations(**_group_content(segment, header, run))
    if not segment.mask.any():
        group[0].ContentSequence.append(
            text_item(concepts.COMMENT, "nothing was segmented, the mask is empty")
        )
    return group


def _group_content(segment: Segment, header: SourceHeader, run: RunFacts) -> dict[str, Any]:
    is_anatomical = (segment.category.value, segment.category.scheme) in concepts.ANATOMICAL_CATEGORIES
    evaluations = []
    if segment.laterality is not None and not is_anatomical:
        evaluations.append(
            QualitativeEvaluation(name=concept(concepts.LATERALITY), value=concept(segment.laterality))
        )
    return {
        "tracking_identifier": TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, run.analysis, segment.name),
            identifier=segment.name[:_MAX_LONG_STRING],
        ),
        "finding_type": concept(segment.type),
        "finding_category": concept(segment.category),
        "algorithm_id": algorithm(run),
        "finding_sites": [_site(segment)] if is_anatomical else None,
        "measurements": _measurements(segment.measurements),
        "qualitative_evaluations": [*evaluations, *_not_measured(segment.measurements)],
    }


def series_group(
    findings: Findings, header: SourceHeader, run: RunFacts
) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501 for what was measured of the series as a whole."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, run.analysis, f"series {header.series_instance_uid}"),
            identifier=run.analysis[:_MAX_LONG_STRING],
        ),
        finding_type=concept(concepts.SERIES),
        algorithm_id=algorithm(run),
        measurements=_measurements(findings.measurements),
        qualitative_evaluations=_not_measured(findings.measurements),
    )


def make_distinct(group: MeasurementsAndQualitativeEvaluations) -> None:
    """Give a group without a region a concept of its own, beside groups that have one.

    TID 1500 allows TID 1411 and TID 1501 together, but both are called Measurement Group, and the
    PixelMed validator (the judge of IHE's tests) then asks a region of every one of them. TID 1500 is
    extensible, so a container of another name may stand there.
    """
    group[0].ConceptNameCodeSequence = [concept(concepts.MEASUREMENTS_WITHOUT_REGION)]
    del group[0].ContentTemplateSequence


def _measurements(measurements: Iterable[types.Measurement]) -> list[Measurement]:
    return [
        Measurement(
            name=concept(one.concept),
            value=float(one.value),
            unit=concept(one.unit),
            derivation=concept(one.derivation) if one.derivation else None,
            method=concept(one.method) if one.method else None,
        )
        for one in measurements
        if math.isfinite(one.value)
    ]


def _not_measured(measurements: Iterable[types.Measurement]) -> list[QualitativeEvaluation]:
    """Return what has no number as a coded answer: concept, and the qualifier of CID 42.

    A NUM item without a Measured Value would say the same, but common readers (highdicom among them)
    cannot read a report that holds one.
    """
    return [
        QualitativeEvaluation(name=concept(one.concept), value=concept(_qualifier(one.value)))
        for one in measurements
        if not math.isfinite(one.value)
    ]


def _qualifier(value: float) -> Code:
    if math.isnan(value):
        return concepts.NOT_A_NUMBER
    return concepts.POSITIVE_INFINITY if value > 0 else concepts.NEGATIVE_INFINITY


def _site(segment: Segment) -> FindingSite:
    laterality = concept(segment.laterality) if segment.laterality is not None else None
    return FindingSite(anatomic_location=concept(segment.type), laterality=laterality)


def text_item(name: Code, value: str) -> TextContentItem:
    """Return a TEXT item; the standard allows no empty one."""
    return TextContentItem(name=concept(name), value=value or "none", relationship_type="CONTAINS")


def algorithm(run: RunFacts) -> AlgorithmIdentification:
    """Return TID 4019, Algorithm Identification."""
    return AlgorithmIdentification(
        name=run.card.name[:_MAX_LONG_STRING], version=run.card.version[:_MAX_LONG_STRING]
    )
