"""Findings to a Structured Report: Comprehensive 3D SR with TID 1500, Measurement Report (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    Comprehensive3DSR,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    TextContentItem,
)
from pydicom.dataset import Dataset

from models.types import Code, Findings
from node.results import concepts
from node.results.checks.check_segmentation import LABEL_MAP_SEGMENTATION_STORAGE
from node.results.concepts import coding_schemes, concept
from node.results.evidence import evidence
from node.results.facts import RunFacts, Source
from node.results.given import AllGiven
from node.results.header_values import put
from node.results.overlays.segmentation_plan import Outline
from node.results.provenance import algorithm_parameters, device_serial_number, device_uid_of, stamp
from node.results.regions import region_of
from node.results.report.evaluations import evaluations
from node.results.report.image_library import derived_objects, image_library
from node.results.report.mark_groups import mark_group, set_apart
from node.results.report.measurement_groups import (
    Group,
    algorithm,
    segment_group,
    segment_group_without_region,
    series_group,
)
from node.results.source_header import SourceHeader
from node.results.uids import run_uid

_MAX_LONG_STRING = 64


class _Report(Comprehensive3DSR):
    """Leaves patient and study to ``stamp``: the library copies them by SOP class, and knows not all."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing."""


def structured_report(
    findings: Findings,
    given: AllGiven,
    run: RunFacts,
    outline: Outline,
    segmentations: Sequence[Dataset],
    derived: Sequence[Dataset] = (),
) -> Dataset:
    """Return the report; one is made also when nothing was found.

    There is one measurement group for each segment (TID 1411 when it is in one of ``segmentations``, else
    TID 1501) and for each mark (TID 1410 or 1411), one for what was measured of the series, and a
    container of Qualitative Evaluations (row 12 of TID 1500) with the answers, the checks and the words.

    Parameters
    ----------
    segmentations
        made of the plans of ``outline``
    derived
        the images, maps and registrations of the same run, which the report refers to

    Raises
    ------
    ValueError
        when a mark has not the points of its shape, or lies outside its input
    """
    source, header = given.first.source, given.first.header
    label_maps = [one for one in segmentations if one.SOPClassUID == LABEL_MAP_SEGMENTATION_STORAGE]
    groups, remarks = _groups(findings, given, run, outline, segmentations)
    tree = MeasurementReport(
        observation_context=_observation_context(run),
        procedure_reported=[concept(code) for code in concepts.procedures_reported(header)],
        imaging_measurements=groups,
    )
    root = tree[0]
    measurements = root.ContentSequence[-1]
    measurements.ContentSequence = ContentSequence(
        [*_algorithm_with_parameters(source, run), *measurements.ContentSequence]
    )
    root.ContentSequence = ContentSequence(
        [
            *list(root.ContentSequence)[:-1],
            *image_library(given),
            measurements,
            *evaluations(findings, [*given.compared, *remarks]),
            *derived_objects([*label_maps, *derived]),
        ]
    )
    _separate(root)
    made = _Report(
        evidence=[*(item for one in given for item in evidence(one.header)), *segmentations, *derived],
        content=_beginning(root),
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
    data_set.ContentSequence = root.ContentSequence
    stamp(data_set, source, header, run, "sr")
    if header.accession_number:
        data_set.ReferencedRequestSequence = [_request(header)]
    if run.predecessor is not None:
        data_set.PredecessorDocumentsSequence = [_predecessor(run)]
    if schemes := coding_schemes(data_set):
        data_set.CodingSchemeIdentificationSequence = schemes
    return data_set


def _groups(
    findings: Findings, given: AllGiven, run: RunFacts, outline: Outline, segmentations: Sequence[Dataset]
) -> tuple[list[Group], list[str]]:
    """Return the measurement groups, and in words what could not be made."""
    with_region: list[Group] = []
    without_region: list[Group] = []
    by_uid = {str(one.SOPInstanceUID): one for one in segmentations}
    for segment in findings.segments:
        place = outline.place_of(segment)
        made = by_uid.get(run_uid(place[0].what, given.first.source, run)) if place else None
        if place is None or made is None:
            without_region.append(segment_group_without_region(segment, given, run))
        else:
            with_region.append(segment_group(segment, place[1], made, given, run))
    marks = []
    for mark in findings.marks:
        region = region_of(mark, given.on(mark.on))
        marks.append((mark_group(mark, region, given, run, beside_segments=bool(with_region)), region))
    if findings.measurements or not (findings.segments or findings.marks):
        without_region.append(series_group(findings, given, run))
    set_apart(with_region, marks, without_region)
    return [*with_region, *(group for group, _ in marks), *without_region], list(outline.reasons)


def _beginning(root: Dataset) -> Dataset:
    """Return the root with its first item alone.

    The library would copy the whole tree and look at each item to see that its evidence is there, which
    takes longer than all else; ``check`` sees to that.
    """
    bare = Dataset()
    bare.update({element.tag: element for element in root if element.keyword != "ContentSequence"})
    bare.ContentSequence = [root.ContentSequence[0]]
    return bare


def _separate(item: Dataset) -> None:
    """Say of every container that its items stand for themselves (PS3.3 section C.18.8)."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", []):
        _separate(child)


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
