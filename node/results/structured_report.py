"""Findings to a Structured Report: Comprehensive 3D SR with TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from models import types
from models.types import Code, Findings, Segment
from node.results import concepts
from node.results.concepts import coding_schemes, concept
from node.results.evidence import evidence
from node.results.facts import RunFacts, Source
from node.results.provenance import algorithm_parameters, device_serial_number, device_uid_of, stamp
from node.results.segmentation import Outline
from node.results.source_header import SourceHeader, put
from node.results.uids import run_uid, tracking_uid

_MAX_LONG_STRING = 64
_CONTAINS, _ACQUISITION = "CONTAINS", "HAS ACQ CONTEXT"


def structured_report(
    findings: Findings,
    source: Source,
    header: SourceHeader,
    run: RunFacts,
    plan: Outline,
    segmentation: Dataset | None,
) -> Dataset:
    """Return the report; one is made also when nothing was found.

    There is one measurement group for each segment (TID 1411 when it is in ``segmentation``, else
    TID 1501), one for what was measured of the series, and a container of Qualitative Evaluations
    (row 12 of TID 1500) with the answers, the checks and the words.
    """
    with_region, without_region = [], []
    for segment in findings.segments:
        number = plan.number_of(segment) if segmentation is not None else None
        if number is None or segmentation is None:
            without_region.append(_group_without_region(segment, header, run))
        else:
            with_region.append(_group_with_region(segment, number, segmentation, header, run))
    if findings.measurements or not findings.segments:
        without_region.append(_series_group(findings, header, run))
    if with_region:
        for group in without_region:
            _make_distinct(group)
    tree = MeasurementReport(
        observation_context=_observation_context(run),
        procedure_reported=[concept(code) for code in concepts.procedures_reported(header)],
        imaging_measurements=[*with_region, *without_region],
    )
    root = tree[0]
    measurements = root.ContentSequence[-1]
    measurements.ContentSequence = ContentSequence(
        [*_algorithm_with_parameters(source, run), *measurements.ContentSequence]
    )
    library = [_image_library(header)] if header.images else []
    evaluations = _evaluations(findings, plan, segmentation is not None)
    root.ContentSequence = ContentSequence(
        [*list(root.ContentSequence)[:-1], *library, measurements, *evaluations]
    )
    _separate(root)
    sources = evidence(header)
    if segmentation is not None:
        sources.append(segmentation)
    made = Comprehensive3DSR(
        evidence=sources,
        content=root,
        series_instance_uid=run_uid("sr series", source, run),
        series_number=1,
        sop_instance_uid=run_uid("sr", source, run),
        instance_number=1,
        manufacturer="anode",
        is_complete=True,
        is_final=False,
        is_verified=False,
        performed_procedure_codes=[concept(code) for code in concepts.procedures_performed(header)],
    )
    data_set = Dataset()
    data_set.update(made)
    stamp(data_set, source, header, run, "sr")
    if header.accession_number:
        data_set.ReferencedRequestSequence = [_request(header)]
    if run.predecessor is not None:
        data_set.PredecessorDocumentsSequence = [_predecessor(run)]
    if schemes := coding_schemes(data_set):
        data_set.CodingSchemeIdentificationSequence = schemes
    return data_set


def _separate(item: Dataset) -> None:
    """Say of every container that its items stand for themselves (PS3.3 section C.18.8)."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", []):
        _separate(child)


# --- measurement groups ------------------------------------------------------


def _group_with_region(
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


def _group_without_region(
    segment: Segment, header: SourceHeader, run: RunFacts
) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501, for a segment that no Segmentation holds."""
    group = MeasurementsAndQualitativeEvaluations(**_group_content(segment, header, run))
    if not segment.mask.any():
        group[0].ContentSequence.append(_text(concepts.COMMENT, "nothing was segmented: the mask is empty"))
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
        "algorithm_id": _algorithm(run),
        "finding_sites": [_site(segment)] if is_anatomical else None,
        "measurements": _measurements(segment.measurements),
        "qualitative_evaluations": [*evaluations, *_not_measured(segment.measurements)],
    }


def _series_group(
    findings: Findings, header: SourceHeader, run: RunFacts
) -> MeasurementsAndQualitativeEvaluations:
    """Return TID 1501 for what was measured of the series as a whole."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, run.analysis, f"series {header.series_instance_uid}"),
            identifier=run.analysis[:_MAX_LONG_STRING],
        ),
        finding_type=concept(concepts.SERIES),
        algorithm_id=_algorithm(run),
        measurements=_measurements(findings.measurements),
        qualitative_evaluations=_not_measured(findings.measurements),
    )


def _make_distinct(group: MeasurementsAndQualitativeEvaluations) -> None:
    """Give a group without a region a concept of its own, beside groups that have one.

    TID 1500 allows TID 1411 and TID 1501 together, but both are called Measurement Group, and the
    PixelMed validator (the judge of IHE's tests) then asks a region of every one of them. TID 1500 is
    extensible, so a container of another name may stand there.
    """
    group[0].ConceptNameCodeSequence = [concept(concepts.MEASUREMENTS_WITHOUT_REGION)]
    del group[0].ContentTemplateSequence


def _evaluations(findings: Findings, plan: Outline, has_segmentation: bool) -> list[ContainerContentItem]:
    """Return row 12 of TID 1500: answers, checks with their reasons, words; empty when there are none."""
    content: list[ContentItem] = []
    for evaluation in findings.evaluations:
        if isinstance(evaluation.value, Code):
            content.append(_coded(evaluation.concept, evaluation.value))
        else:
            content.append(_text(evaluation.concept, evaluation.value))
    for check in findings.checks:
        outcome = concepts.SUCCEEDED if check.passed else concepts.FAILED
        content.append(_coded(concepts.private_code(check.name), outcome))
        if check.reason:
            content.append(_text(concepts.COMMENT, f"{check.name}: {check.reason}"))
    if not (content or findings.segments or findings.measurements):
        content.append(_coded(concepts.NO_FINDING, concepts.NONE_REPORTED))
    if findings.summary:
        content.append(_text(concepts.COMMENT, findings.summary))
    if plan.reason and not has_segmentation:
        content.append(_text(concepts.COMMENT, f"no Segmentation was made: {plan.reason}"))
    if not content:
        return []
    container = ContainerContentItem(
        name=concept(concepts.QUALITATIVE_EVALUATIONS), relationship_type=_CONTAINS
    )
    container.ContentSequence = ContentSequence(content)
    return [container]


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


def _coded(name: Code, value: Code) -> CodeContentItem:
    return CodeContentItem(name=concept(name), value=concept(value), relationship_type=_CONTAINS)


def _text(name: Code, value: str) -> TextContentItem:
    return TextContentItem(name=concept(name), value=value or "none", relationship_type=_CONTAINS)


# --- context -----------------------------------------------------------------


def _algorithm(run: RunFacts) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=run.card.name[:_MAX_LONG_STRING], version=run.card.version[:_MAX_LONG_STRING]
    )


def _observation_context(run: RunFacts) -> ObservationContext:
    """Return TID 1001 with one observer: the device that the algorithm is (TID 1004)."""
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=concept(Code("121007", "DCM", "Device")),
            observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                uid=device_uid_of(run),
                name=run.card.title[:_MAX_LONG_STRING] or run.card.name[:_MAX_LONG_STRING],
                manufacturer_name=run.card.manufacturer[:_MAX_LONG_STRING],
                model_name=run.card.name[:_MAX_LONG_STRING],
                serial_number=device_serial_number(run),
            ),
        )
    )


def _algorithm_with_parameters(source: Source, run: RunFacts) -> list[ContentItem]:
    """Return TID 4019 for all measurements, with what else the result follows from."""
    parameters = [
        TextContentItem(
            name=concept(concepts.ALGORITHM_PARAMETERS),
            value=parameter,
            relationship_type="HAS CONCEPT MOD",
        )
        for parameter in algorithm_parameters(source, run)
    ]
    return [*_algorithm(run), *parameters]


def _image_library(header: SourceHeader) -> ContainerContentItem:
    """Return TID 1600: one group, its descriptors shared by all its images."""
    library = ContainerContentItem(
        name=concept(Code("111028", "DCM", "Image Library")), relationship_type=_CONTAINS, template_id="1600"
    )
    group = ContainerContentItem(
        name=concept(Code("126200", "DCM", "Image Library Group")), relationship_type=_CONTAINS
    )
    group.ContentSequence = ContentSequence([*_descriptors(header), *_library_images(header)])
    library.ContentSequence = ContentSequence([group])
    return library


def _descriptors(header: SourceHeader) -> list[ContentItem]:
    """Return the descriptors of TID 1602 that are the same for the whole series."""
    first = header.images[0]
    pixels = concept(Code("{pixels}", "UCUM", "Pixels"))
    found: list[ContentItem] = [
        CodeContentItem(
            name=concept(Code("121139", "DCM", "Modality")),
            value=concept(concepts.modality(header)),
            relationship_type=_ACQUISITION,
        )
    ]
    if all(instance.is_placed for instance in header.images):
        found.append(
            UIDRefContentItem(
                name=concept(Code("112227", "DCM", "Frame of Reference UID")),
                value=header.frame_of_reference_uid,
                relationship_type=_ACQUISITION,
            )
        )
    for code, value in (
        (Code("110910", "DCM", "Pixel Data Rows"), first.rows),
        (Code("110911", "DCM", "Pixel Data Columns"), first.columns),
    ):
        found.append(
            NumContentItem(name=concept(code), value=value, unit=pixels, relationship_type=_ACQUISITION)
        )
    return found


def _library_images(header: SourceHeader) -> list[ContentItem]:
    return [
        ImageContentItem(
            name=concept(Code("260753009", "SCT", "Source")),
            referenced_sop_class_uid=instance.sop_class_uid,
            referenced_sop_instance_uid=instance.sop_instance_uid,
            relationship_type=_CONTAINS,
        )
        for instance in header.images
    ]


def _request(header: SourceHeader) -> Dataset:
    """Return an item of the Referenced Request Sequence (PS3.3 table C.17-3)."""
    item = Dataset()
    put(item, "StudyInstanceUID", header.study_instance_uid)
    put(item, "AccessionNumber", header.accession_number)
    item.ReferencedStudySequence = []
    item.PlacerOrderNumberImagingServiceRequest = None
    item.FillerOrderNumberImagingServiceRequest = None
    item.RequestedProcedureID = None
    item.RequestedProcedureDescription = None
    item.RequestedProcedureCodeSequence = []
    return item


def _predecessor(run: RunFacts) -> Dataset:
    """Return an item of the Predecessor Documents Sequence (PS3.3 table C.17-3)."""
    assert run.predecessor is not None
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = run.predecessor.sop_class_uid
    instance.ReferencedSOPInstanceUID = run.predecessor.sop_instance_uid
    series.SeriesInstanceUID = run.predecessor.series_instance_uid
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = run.predecessor.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study
