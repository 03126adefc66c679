"""A Structured Report says all that was found, in the words of TID 1500."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import highdicom
import pytest
from pydicom.dataset import Dataset

from models.types import Check, Findings
from node.results.checks.check_report import concept_of, content
from node.results.given import AllGiven
from node.results.pictures.picture_words import words
from node.results.source_header import SourceHeader
from tests.support.made_findings import (
    built,
    card,
    everything,
    made_source,
    quality,
    read,
    run_facts,
    two_lungs,
)


@pytest.fixture(scope="module")
def source() -> Any:
    return made_source()


def report(findings: Findings, source: Any, **changes: Any) -> Dataset:
    return read(built(findings, source, run_facts(**changes), ("sr", "seg"))["sr"])


def named(document: Dataset, code: str) -> list[Dataset]:
    return [item for item in content(document) if concept_of(item) == code]


@pytest.mark.checklist("T6")
def test_a_library_reads_the_measurements_with_their_segments(source: Any) -> None:
    objects = built(two_lungs(source.volume), source)
    tree = highdicom.sr.srread(io.BytesIO(objects["sr"].part10)).content
    segmentation = read(objects["seg"])
    groups = tree.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["left-lung", "right-lung"]
    for group, segment in zip(groups, segmentation.SegmentSequence, strict=True):
        assert group.tracking_uid == segment.TrackingUID
        assert group.finding_sites[0].laterality.meaning in ("Left", "Right")
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        values = {(m.name.meaning, m.unit.value): m.value for m in group.get_measurements()}
        assert values["Volume", "ml"] == 1234.5
        assert values["Attenuation Coefficient", "[hnsf'U]"] == -850.1


@pytest.mark.checklist("A2", "T1")
def test_the_observer_is_the_device_that_the_algorithm_is(source: Any) -> None:
    run = {"card": card(manufacturer="Somebody", weights_sha256="ab" * 32)}
    document = report(two_lungs(source.volume), source, **run)
    equipment = document.ContributingEquipmentSequence[0]
    assert [item.UID for item in named(document, "121012")] == [equipment.DeviceUID]
    assert [item.TextValue for item in named(document, "121014")] == ["Somebody"]
    assert {item.TextValue for item in named(document, "111001")} == {"lungs"}
    assert {item.TextValue for item in named(document, "111003")} == {"1.2.3"}
    other = report(two_lungs(source.volume), source, card=card(version="2"))
    assert other.ContributingEquipmentSequence[0].DeviceUID != equipment.DeviceUID


@pytest.mark.checklist("A9", "T8")
def test_what_the_numbers_follow_from_is_stated(source: Any) -> None:
    document = report(
        two_lungs(source.volume), source, parameters={"hu": -400}, card=card(weights_sha256="cd" * 32)
    )
    assert [item.TextValue for item in named(document, "111002")] == [
        "hu=-400",
        "input-sha256=" + "ab" * 32,
        "weights-sha256=" + "cd" * 32,
    ]


@pytest.mark.checklist("S4", "T3")
def test_every_instance_of_the_source_is_in_the_library_and_the_evidence(source: Any) -> None:
    document = report(two_lungs(source.volume), source)
    sources = {one.SOPInstanceUID for one in source.data_sets}
    library = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in named(document, "260753009")}
    assert library == sources
    [study] = document.CurrentRequestedProcedureEvidenceSequence
    listed = {
        instance.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert len(listed - sources) == 1


def test_a_failed_check_says_why_there_is_no_number(source: Any) -> None:
    findings = Findings(checks=(Check("left lung complete", False, "it touches the last slice"),))
    document = report(findings, source)
    [verdict] = [i for i in content(document) if i.get("ConceptCodeSequence") and _value(i) == "111224"]
    assert verdict.ConceptNameCodeSequence[0].CodeMeaning == "left lung complete"
    assert [i.TextValue for i in named(document, "121106")] == [
        "left lung complete: it touches the last slice"
    ]


def _value(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].get("CodeValue", ""))


def test_answers_are_reported_as_codes_or_as_words(source: Any) -> None:
    document = report(quality(), source)
    answers = {concept_of(item): item for item in content(document) if item.ValueType in ("CODE", "TEXT")}
    assert answers["130550"].ConceptCodeSequence[0].CodeMeaning == "Series quality: fail"
    assert answers["missing-slices"].TextValue == "one slice is missing after slice 4"
    assert [float(i.MeasuredValueSequence[0].NumericValue) for i in named(document, "instance-count")] == [
        12.0
    ]


@pytest.mark.checklist("T4", "T9")
def test_a_report_of_nothing_says_that_nothing_was_found(source: Any) -> None:
    document = report(Findings(), source)
    [answer] = named(document, "NO-FINDING")
    assert answer.ConceptCodeSequence[0].CodeMeaning == "None reported"


@pytest.mark.checklist("T8")
def test_a_value_that_is_no_number_is_reported_as_such(source: Any) -> None:
    document = report(everything(source.volume), source)
    values = [_value(i) for i in named(document, "118565006") if i.ValueType == "CODE"]
    assert values == ["114000", "114002"]


@pytest.mark.checklist("T10")
def test_private_codes_are_explained(source: Any) -> None:
    document = report(everything(source.volume), source)
    schemes = {i.CodingSchemeDesignator: i for i in document.CodingSchemeIdentificationSequence}
    assert set(schemes) == {"99ANODE", "99OTHER"}
    assert schemes["99ANODE"].CodingSchemeResponsibleOrganization == "anode"


def test_groups_without_a_region_stand_beside_those_that_have_one(source: Any) -> None:
    document = report(everything(source.volume), source)
    tracked = [item.TextValue for item in named(document, "112039")]
    assert tracked == ["left-lung", "right-lung", "nodule-1", "missing", "lungs"]
    assert len(named(document, "125007")) == 3
    assert len(named(document, "NO-REGION")) == 2


def test_a_result_says_with_which_earlier_study_the_series_is_compared(source: Any) -> None:
    prior = made_source(4)
    for one in prior.data_sets:
        one.StudyDate = "19591209"
    both = replace(source, name="now", others={"before": replace(prior, name="before", is_prior=True)})
    none = replace(source, lacks_prior=True)
    for of, told in (
        (both, ["Compared with the study of 1959-12-09."]),
        (none, ["Compared with no earlier study."]),
        (source, []),
    ):
        given = AllGiven.of(of, SourceHeader.of(of))
        assert given.compared == told
        comments = [str(item.TextValue) for item in named(report(quality(), of), "121106")]
        assert [one for one in comments if one.startswith("Compared")] == told
        footer = words(quality(), given.first.header, run_facts(), None, given.compared).footer
        assert list(footer[: len(told)]) == told
        assert not any(line.startswith("Compared") for line in footer[len(told) :])
