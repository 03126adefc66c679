"""Findings to a Structured Report: Comprehensive 3D SR with TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    MeasurementReport,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset

from models.types import Code, Findings
from node.results import concepts
from node.results.concepts import coding_schemes, concept
from node.results.evidence import evidence
from node.results.facts import RunFacts, Source
from node.results.header_values import put
from node.results.measurement_groups import (
    algorithm,
    group_with_region,
    group_without_region,
    make_distinct,
    series_group,
    text_item,
)
from node.results.provenance import algorithm_parameters, device_serial_number, device_uid_of, stamp
from node.results.segmentation import Outline
from node.results.source_header import SourceHeader
from node.results.uids import run_uid

_MAX_LONG_STRING = 64
_CONTAINS, _ACQUISITION = "CONTAINS", "HAS ACQ CONTEXT"


class _Report(Comprehensive3DSR):
    """Leaves patient and study to ``stamp``: the library copies them by SOP class, and knows not all."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing."""


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
            without_region.append(group_without_region(segment, header, run))
        else:
            with_region.append(group_with_region(segment, number, segmentation, header, run))
    if findings.measurements or not findings.segments:
        without_region.append(series_group(findings, header, run))
    if with_region:
        for group in without_region:
            make_distinct(group)
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
    made = _Report(
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


# --- evaluations ------------------------------------------------------------


def _evaluations(findings: Findings, plan: Outline, has_segmentation: bool) -> list[ContainerContentItem]:
    """Return row 12 of TID 1500: answers, checks with their reasons, words; empty when there are none."""
    content: list[ContentItem] = []
    for evaluation in findings.evaluations:
        if isinstance(evaluation.value, Code):
            content.append(_coded(evaluation.concept, evaluation.value))
        else:
            content.append(text_item(evaluation.concept, evaluation.value))
    for check in findings.checks:
        outcome = concepts.SUCCEEDED if check.passed else concepts.FAILED
        content.append(_coded(concepts.private_code(check.name), outcome))
        if check.reason:
            content.append(text_item(concepts.COMMENT, f"{check.name}: {check.reason}"))
    if not (content or findings.segments or findings.measurements):
        content.append(_coded(concepts.NO_FINDING, concepts.NONE_REPORTED))
    if findings.summary:
        content.append(text_item(concepts.COMMENT, findings.summary))
    if plan.reason and not has_segmentation:
        content.append(text_item(concepts.COMMENT, f"no Segmentation was made: {plan.reason}"))
    if not content:
        return []
    container = ContainerContentItem(
        name=concept(concepts.QUALITATIVE_EVALUATIONS), relationship_type=_CONTAINS
    )
    container.ContentSequence = ContentSequence(content)
    return [container]


def _coded(name: Code, value: Code) -> CodeContentItem:
    return CodeContentItem(name=concept(name), value=concept(value), relationship_type=_CONTAINS)


# --- context -----------------------------------------------------------------


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
    return [*algorithm(run), *parameters]


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
