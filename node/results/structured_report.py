"""Findings to a Structured Report: Comprehensive 3D SR with TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

import math

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
from models.types import Code, Evaluation, Findings, Segment
from node.results import concepts
from node.results.concepts import coding_schemes, concept
from node.results.evidence import evidence
from node.results.facts import RunFacts, Source
from node.results.provenance import algorithm_parameters, device_serial_number, device_uid_of, stamp
from node.results.segmentation import Outline
from node.results.source_header import SourceHeader
from node.results.uids import run_uid, tracking_uid

_MAX_LONG_STRING = 64
_CONTAINS, _ACQUISITION, _OBSERVATION = "CONTAINS", "HAS ACQ CONTEXT", "HAS OBS CONTEXT"
_QUALIFIERS = {
    True: concepts.POSITIVE_INFINITY,
    False: concepts.NEGATIVE_INFINITY,
}


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
    TID 1501) and one for the series, which holds the evaluations and the checks.
    """
    groups = [_segment_group(segment, header, run, plan, segmentation) for segment in findings.segments]
    groups.append(_series_group(findings, header, run, plan, segmentation is not None))
    tree = MeasurementReport(
        observation_context=_observation_context(run),
        procedure_reported=[concept(code) for code in concepts.procedures_reported(header)],
        imaging_measurements=groups,
    )
    _add_algorithm_parameters(tree, source, run)
    if header.images:
        _insert_image_library(tree, header)
    sources = evidence(header)
    if segmentation is not None:
        sources.append(segmentation)
    made = Comprehensive3DSR(
        evidence=sources,
        content=tree[0],
        series_instance_uid=run_uid("sr series", source, run),
        series_number=1,
        sop_instance_uid=run_uid("sr", source, run),
        instance_number=1,
        manufacturer="anode",
        is_complete=True,
        is_final=False,
        is_verified=False,
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


# --- measurement groups ------------------------------------------------------


def _segment_group(
    segment: Segment, header: SourceHeader, run: RunFacts, plan: Outline, segmentation: Dataset | None
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    number = plan.number_of(segment) if segmentation is not None else None
    is_anatomical = (segment.category.value, segment.category.scheme) in concepts.ANATOMICAL_CATEGORIES
    evaluations = []
    if segment.laterality is not None and not is_anatomical:
        evaluations.append(_coded(Evaluation(concepts.LATERALITY, segment.laterality)))
    arguments = {
        "tracking_identifier": TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, run.analysis, segment.name),
            identifier=segment.name[:_MAX_LONG_STRING],
        ),
        "finding_type": concept(segment.type),
        "finding_category": concept(segment.category),
        "algorithm_id": _algorithm(run),
        "finding_sites": [_site(segment)] if is_anatomical else None,
        "measurements": [_measurement(one) for one in segment.measurements],
        "qualitative_evaluations": evaluations,
    }
    if number is None or segmentation is None:
        group = MeasurementsAndQualitativeEvaluations(**arguments)
        if not segment.mask.any():
            _append(group, [_comment("nothing was segmented: the mask is empty")])
        return group
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(header.series_instance_uid),
        ),
        **arguments,
    )


def _series_group(
    findings: Findings, header: SourceHeader, run: RunFacts, plan: Outline, has_segmentation: bool
) -> MeasurementsAndQualitativeEvaluations:
    """Return what is said of the whole series: measurements, evaluations, checks, and why things lack."""
    says_nothing = not (
        findings.segments or findings.measurements or findings.evaluations or findings.checks
    )
    coded = [_coded(one) for one in findings.evaluations if isinstance(one.value, Code)]
    coded += [
        _coded(
            Evaluation(
                concepts.private_code(check.name), concepts.SUCCEEDED if check.passed else concepts.FAILED
            )
        )
        for check in findings.checks
    ]
    if says_nothing:
        coded.append(_coded(Evaluation(concepts.NO_FINDING, concepts.NONE_REPORTED)))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(header.study_instance_uid, run.analysis, f"series {header.series_instance_uid}"),
            identifier=run.analysis[:_MAX_LONG_STRING],
        ),
        finding_type=concept(concepts.SERIES),
        algorithm_id=_algorithm(run),
        measurements=[_measurement(one) for one in findings.measurements],
        qualitative_evaluations=coded,
    )
    texts = [_text(one.concept, one.value) for one in findings.evaluations if isinstance(one.value, str)]
    texts += [_comment(f"{check.name}: {check.reason}") for check in findings.checks if check.reason]
    if findings.summary:
        texts.append(_comment(findings.summary))
    if plan.reason and not has_segmentation:
        texts.append(_comment(f"no Segmentation was made: {plan.reason}"))
    _append(group, texts)
    return group


def _measurement(measurement: types.Measurement) -> Measurement:
    """Return a NUM item; a number that is none keeps its place and says why (PS3.3 section C.18.1)."""
    value = float(measurement.value)
    is_number = math.isfinite(value)
    made = Measurement(
        name=concept(measurement.concept),
        value=value if is_number else 0.0,
        unit=concept(measurement.unit),
        derivation=concept(measurement.derivation) if measurement.derivation else None,
        method=concept(measurement.method) if measurement.method else None,
    )
    if not is_number:
        qualifier = concepts.NOT_A_NUMBER if math.isnan(value) else _QUALIFIERS[value > 0]
        made[0].MeasuredValueSequence = []
        made[0].NumericValueQualifierCodeSequence = [concept(qualifier)]
    return made


def _site(segment: Segment) -> FindingSite:
    laterality = concept(segment.laterality) if segment.laterality is not None else None
    return FindingSite(anatomic_location=concept(segment.type), laterality=laterality)


def _coded(evaluation: Evaluation) -> QualitativeEvaluation:
    assert isinstance(evaluation.value, Code)
    return QualitativeEvaluation(name=concept(evaluation.concept), value=concept(evaluation.value))


def _text(name: Code, value: str) -> TextContentItem:
    return TextContentItem(name=concept(name), value=value or "none", relationship_type=_CONTAINS)


def _comment(value: str) -> TextContentItem:
    return _text(concepts.COMMENT, value)


def _append(
    group: MeasurementsAndQualitativeEvaluations, content_items: list[TextContentItem]
) -> None:
    group[0].ContentSequence.extend(content_items)


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


def _add_algorithm_parameters(tree: MeasurementReport, source: Source, run: RunFacts) -> None:
    """Put the parameters (111002) behind the algorithm's version in the group of the series.

    They go there once, not into the group of every segment: they are the same for all.
    """
    group = tree[0].ContentSequence[-1].ContentSequence[-1]
    content: list[ContentItem] = list(group.ContentSequence)
    after = 1 + max(i for i, item in enumerate(content) if item.name.value == "111003")
    content[after:after] = [
        TextContentItem(
            name=concept(Code("111002", "DCM", "Algorithm Parameters")),
            value=parameter,
            relationship_type="HAS CONCEPT MOD",
        )
        for parameter in algorithm_parameters(source, run)
    ]
    group.ContentSequence = ContentSequence(content)


def _insert_image_library(tree: MeasurementReport, header: SourceHeader) -> None:
    """Put TID 1600 before the measurements: one group, its descriptors shared by all its images."""
    library = ContainerContentItem(
        name=concept(Code("111028", "DCM", "Image Library")), relationship_type=_CONTAINS, template_id="1600"
    )
    group = ContainerContentItem(
        name=concept(Code("126200", "DCM", "Image Library Group")), relationship_type=_CONTAINS
    )
    group.ContentSequence = ContentSequence([*_descriptors(header), *_library_images(header)])
    library.ContentSequence = ContentSequence([group])
    content: list[ContentItem] = list(tree[0].ContentSequence)
    tree[0].ContentSequence = ContentSequence([*content[:-1], library, content[-1]])


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
    item.StudyInstanceUID = header.study_instance_uid
    item.AccessionNumber = header.accession_number
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
