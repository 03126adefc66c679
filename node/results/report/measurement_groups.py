"""The measurement groups of TID 1500: TID 1411 for a segment, TID 1501 without a region (PS3.16)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TimePointContext,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from models import types
from models.types import Code, Findings, Mark, Segment
from node.results import concepts
from node.results.concepts import concept
from node.results.facts import RunFacts
from node.results.given import AllGiven, Given
from node.results.report.answers import answer, percent, text_item
from node.results.uids import tracking_uid

Group = (
    PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
    | MeasurementsAndQualitativeEvaluations
)
_MAX_LONG_STRING = 64


def segment_group(
    segment: Segment, number: int, segmentation: Dataset, given: AllGiven, run: RunFacts
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return TID 1411: the region is the segment, its source the series of the input that it is on."""
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=source_series(given.on(segment.on)),
        ),
        **group_content(segment, given, run),
    )
    add_words(group, segment)
    return group


def segment_group_without_region(
    segment: Segment, given: AllGiven, run: RunFacts
) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501, for a segment that no Segmentation holds."""
    group = MeasurementsAndQualitativeEvaluations(**group_content(segment, given, run))
    add_words(group, segment)
    add_series(group, given.on(segment.on), given)
    if not segment.mask.any():
        group[0].ContentSequence.append(
            text_item(concepts.COMMENT, "nothing was segmented, the mask is empty")
        )
    return group


def group_content(found: Segment | Mark, given: AllGiven, run: RunFacts) -> dict[str, Any]:
    """Return what the groups of segments and of marks have in common, as the library takes it."""
    evaluations = []
    header = given.first.header
    site = _site(found)
    if found.laterality is not None and site is None:
        evaluations.append(
            QualitativeEvaluation(name=concept(concepts.LATERALITY), value=concept(found.laterality))
        )
    measurements = _measurements(found.measurements)
    if isinstance(found, Mark) and found.probability is not None:
        measurements.insert(
            0,
            Measurement(
                name=concept(concepts.CERTAINTY),
                value=percent(found.probability),
                unit=concept(concepts.PERCENT),
            ),
        )
    return {
        "tracking_identifier": TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, header.series_instance_uid, run.analysis, found.name),
            identifier=found.name[:_MAX_LONG_STRING],
        ),
        "finding_type": concept(found.type),
        "finding_category": concept(found.category),
        "algorithm_id": algorithm(run),
        "finding_sites": [site] if site is not None else None,
        "time_point_context": _time_point(given.on(found.on), given),
        "measurements": measurements,
        "qualitative_evaluations": [*evaluations, *_not_measured(found.measurements)],
    }


def series_group(findings: Findings, given: AllGiven, run: RunFacts) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501 for what was measured of the series as a whole."""
    header = given.first.header
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(
                header.study_instance_uid,
                header.series_instance_uid,
                run.analysis,
                f"series {header.series_instance_uid}",
            ),
            identifier=run.analysis[:_MAX_LONG_STRING],
        ),
        finding_type=concept(concepts.SERIES),
        algorithm_id=algorithm(run),
        time_point_context=_time_point(given.first, given),
        measurements=_measurements(findings.measurements),
        qualitative_evaluations=_not_measured(findings.measurements),
    )


def make_distinct(group: Group, name: Code) -> None:
    """Give a group a concept of its own, beside groups that have another kind of region, or any at all.

    TID 1500 allows TID 1410, 1411 and 1501 together, but all are called Measurement Group, and the
    PixelMed validator (the judge of IHE's tests) then asks the same kind of region of every one of them.
    TID 1500 is extensible, so a container of another name may stand there.
    """
    group[0].ConceptNameCodeSequence = [concept(name)]
    del group[0].ContentTemplateSequence


def add_words(group: Group, found: Segment | Mark) -> None:
    """Add what the library has no argument for: the label, and the answers."""
    content = group[0].ContentSequence
    if found.label and found.label != found.name:
        content.append(text_item(concepts.LABEL, found.label))
    for evaluation in found.evaluations:
        content.append(answer(evaluation))


def add_series(group: Group, one: Given, given: AllGiven) -> None:
    """Say of which input a group is, where there are several and its region does not tell."""
    if given.others:
        group[0].ContentSequence.append(
            UIDRefContentItem(
                name=concept(concepts.SERIES_INSTANCE_UID),
                value=one.header.series_instance_uid,
                relationship_type="CONTAINS",
            )
        )


def source_series(one: Given) -> SourceSeriesForSegmentation:
    """Return the reference to the series of an input."""
    item = SourceSeriesForSegmentation(one.header.series_instance_uid)
    # The library spells the meaning with capitals, PS3.16 does not.
    item.ConceptNameCodeSequence = [concept(concepts.SOURCE_SERIES)]
    return item


def _time_point(one: Given, given: AllGiven) -> TimePointContext | None:
    """Return TID 1502 where an earlier study is among the inputs: which of them it is, in words."""
    if not any(other.source.is_prior for other in given):
        return None
    day = str(one.header.patient_and_study.get("StudyDate") or "")
    dated = f" of {day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 else ""
    which = "earlier study" if one.source.is_prior else "current study"
    return TimePointContext(time_point=which + dated)


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


def _site(found: Segment | Mark) -> FindingSite | None:
    """Return where it was found: the site that a mark states, or else the anatomy that was found itself."""
    place = found.site if isinstance(found, Mark) else None
    if place is None and (found.category.value, found.category.scheme) in concepts.ANATOMICAL_CATEGORIES:
        place = found.type
    if place is None:
        return None
    laterality = concept(found.laterality) if found.laterality is not None else None
    return FindingSite(anatomic_location=concept(place), laterality=laterality)


def algorithm(run: RunFacts) -> AlgorithmIdentification:
    """Return TID 4019, Algorithm Identification."""
    return AlgorithmIdentification(
        name=run.card.name[:_MAX_LONG_STRING], version=run.card.version[:_MAX_LONG_STRING]
    )
