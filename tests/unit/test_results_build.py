"""Findings become result objects: which, under which UIDs, and always the same."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta, timezone
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.uid import CTImageStorage

from models.types import Code, DerivedImage, Findings, Transform
from node.config.settings import AnalysisConfig, LimitsConfig, ResultKind
from node.errors import ResultInvalid
from node.ingest import made_here
from node.ingest.header import Header, read_header
from node.results import build as build_module
from node.results.build import PredecessorReference
from node.results.check import check
from node.results.checks.check_report import content
from node.results.encoding import part10
from node.results.source_header import SourceHeader
from node.storage import archive
from node.wire.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from tests.support import made
from tests.support.made_findings import (
    HOUNSFIELD,
    STARTED_AT,
    all_built,
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


@pytest.mark.checklist("A6")
def test_the_same_run_gives_the_same_bytes(source: Any) -> None:
    first = built(everything(source.volume), source)
    second = built(everything(source.volume), made_source())
    assert {kind: one.part10 for kind, one in first.items()} == {
        kind: one.part10 for kind, one in second.items()
    }


@pytest.mark.parametrize(
    "sop_class_uid", ["1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3", "1.3.9999.1"]
)
def test_a_source_of_a_retired_or_private_sop_class_gets_its_results_too(sop_class_uid: str) -> None:
    source = made_source(SOPClassUID=sop_class_uid)
    objects = built(everything(source.volume), source)
    assert set(objects) == {"sr", "seg", "sc"}
    [series] = read(objects["seg"]).ReferencedSeriesSequence
    assert {item.ReferencedSOPClassUID for item in series.ReferencedInstanceSequence} == {sop_class_uid}
    assert set(built(quality(), source)) == {"sr", "sc"}


def test_three_kinds_are_three_series_in_the_study_of_the_source(source: Any) -> None:
    objects = {kind: read(one) for kind, one in built(two_lungs(source.volume), source).items()}
    assert {one.Modality for one in objects.values()} == {"SR", "SEG", "OT"}
    assert {one.StudyInstanceUID for one in objects.values()} == {"1.2.3"}
    assert len({one.SeriesInstanceUID for one in objects.values()} | {"1.2.3.4"}) == 4
    assert len({one.SeriesNumber for one in objects.values()}) == 3


def test_a_number_that_its_element_cannot_hold_is_a_fault_of_the_result_and_not_of_a_disk(
    source: Any,
) -> None:
    data_set = made.instance(study_instance_uid="1.2", series_instance_uid="1.3", sop_instance_uid="1.4")
    data_set["Rows"] = DataElement("Rows", "US", 70_000, validation_mode=config.IGNORE)
    with pytest.raises(ResultInvalid, match="cannot be encoded"):
        part10(data_set, SourceHeader.of(source))


def header_in(result: Any) -> Header:
    file = BytesIO(result.part10)
    data_set = result.part10[archive.data_set_offset(file) :]
    return read_header(data_set, archive.transfer_syntax_uid(file), LimitsConfig())


def test_what_is_made_is_known_again_as_made_here(source: Any) -> None:
    for maker in ("anode", "Somebody Else"):
        run = run_facts(card=card(manufacturer=maker))
        objects = built(two_lungs(source.volume), source, run)
        assert all(made_here.carries_our_marks(header_in(one)) for one in objects.values())


def test_marks_that_cannot_be_read_are_those_of_somebody_else() -> None:
    data_set = made.instance(
        study_instance_uid="1.2", series_instance_uid="1.3", sop_instance_uid="1.4", Manufacturer="anode"
    )
    encoded = made.encoded(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    # Contributing Equipment Sequence, of which the only item is cut off
    encoded += struct.pack("<HH2sHI", 0x0018, 0xA001, b"SQ", 0, 4) + b"\xfe\xff\0\xe0"
    header = read_header(encoded, EXPLICIT_VR_LITTLE_ENDIAN, LimitsConfig())
    assert not made_here.carries_our_marks(header)


@pytest.mark.parametrize(
    "change",
    [
        {"card": card(version="1.2.4")},
        {"card": card(weights_sha256="00" * 32)},
        {"weights_sha256": "11" * 32},
        {"parameters": {"threshold_hu": -500}},
        {"analysis": "lungs-again"},
        {"started_at": STARTED_AT + timedelta(microseconds=1)},
        {"predecessor": PredecessorReference("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4")},
    ],
)
@pytest.mark.checklist("A6")
def test_another_version_weights_parameters_start_or_predecessor_are_other_objects(
    source: Any, change: dict[str, Any]
) -> None:
    findings = two_lungs(source.volume)
    before, after = built(findings, source), built(findings, source, run_facts(**change))
    for kind in ("sr", "seg", "sc"):
        assert before[kind].sop_instance_uid != after[kind].sop_instance_uid
        assert before[kind].series_instance_uid != after[kind].series_instance_uid


@pytest.mark.checklist("T5")
def test_another_input_is_another_object_but_the_same_lung(source: Any) -> None:
    findings = two_lungs(source.volume)
    before, after = built(findings, source), built(findings, replace(source, input_digest="cd" * 32))
    assert before["seg"].sop_instance_uid != after["seg"].sop_instance_uid
    tracking = [[s.TrackingUID for s in read(one["seg"]).SegmentSequence] for one in (before, after)]
    assert tracking[0] == tracking[1]


def test_only_the_kinds_asked_for_are_made_in_their_order(source: Any) -> None:
    findings = two_lungs(source.volume)
    assert list(built(findings, source, kinds=("sc", "sr"))) == ["sc", "sr"]
    assert b"Referenced Segment" not in built(findings, source, kinds=("sr",))["sr"].part10


@pytest.mark.checklist("G5")
def test_no_segment_with_a_voxel_makes_no_segmentation(source: Any) -> None:
    assert list(built(Findings(), source)) == ["sr", "sc"]
    findings = two_lungs(source.volume)
    empty = tuple(replace(one, mask=np.zeros_like(one.mask)) for one in findings.segments)
    objects = built(replace(findings, segments=empty), source)
    assert list(objects) == ["sr", "sc"]
    assert objects["sr"].part10.count(b"nothing was segmented") == 2


def test_findings_without_a_volume_make_a_report_and_a_picture(source: Any) -> None:
    plain = replace(source, volume=None, picture_slice=np.arange(24.0).reshape(4, 6), picture_instance=2)
    assert list(built(quality(), plain)) == ["sr", "sc"]
    assert list(built(quality(), replace(plain, picture_slice=None))) == ["sr", "sc"]


def test_a_mask_of_another_shape_is_an_error(source: Any) -> None:
    findings = two_lungs(source.volume)
    wrong = replace(findings.segments[0], mask=np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="left-lung"):
        built(replace(findings, segments=(wrong,)), source)


def test_two_segments_of_one_name_are_an_error(source: Any) -> None:
    first = two_lungs(source.volume).segments[0]
    with pytest.raises(ValueError, match="same name"):
        built(Findings(segments=(first, first)), source)


@pytest.mark.checklist("A4", "A5")
def test_content_date_and_time_are_the_start_of_the_run_on_the_clock_of_the_source() -> None:
    run = run_facts(started_at=STARTED_AT.astimezone(timezone(timedelta(hours=-3))))
    report = read(built(Findings(), made_source(TimezoneOffsetFromUTC="+0530"), run, ("sr",))["sr"])
    assert (report.ContentDate, report.ContentTime) == ("20260304", "103607.000000")
    assert report.TimezoneOffsetFromUTC == "+0530"
    equipment = report.ContributingEquipmentSequence[0]
    assert equipment.ContributionDateTime == "20260304103607.000000+0530"


@pytest.mark.checklist("S5")
def test_a_later_report_names_the_one_it_supersedes(source: Any) -> None:
    before = PredecessorReference("1.2.3", "1.2.9", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.9.1")
    report = read(built(Findings(), source, run_facts(predecessor=before), ("sr",))["sr"])
    series = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.9"
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.9.1"


@pytest.mark.checklist("A11")
def test_an_object_that_breaks_the_checklist_is_not_returned(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "check", lambda part10, given: ["something is wrong"])
    with pytest.raises(ResultInvalid, match="something is wrong"):
        built(Findings(), source)


# --- kinds ------------------------------------------------------------------


def with_all_kinds(source: Any) -> tuple[Findings, Any]:
    """Findings that make something of every kind, and the source with an earlier study beside it."""
    prior = made_source(3, StudyInstanceUID="1.2.9", FrameOfReferenceUID="1.2.9.0")
    both = replace(source, name="now", others={"before": replace(prior, is_prior=True)})
    voxels = source.volume.voxels
    findings = replace(
        two_lungs(source.volume),
        images=(
            DerivedImage("smooth", "Smoothed", voxels, HOUNSFIELD),
            DerivedImage(
                "map",
                "Map",
                voxels.astype(np.float32),
                HOUNSFIELD,
                "map",
                None,
                Code("1", "99ANODE", "A map"),
            ),
        ),
        transforms=(Transform("follow-up", "Follow-up", "before", "now", np.eye(4)),),
    )
    return findings, both


ALL: tuple[ResultKind, ...] = ("sr", "seg", "labelmap", "sc", "image", "pm", "reg", "pr", "rtstruct")


@pytest.mark.parametrize("weights", ["", "5e" * 32])
@pytest.mark.checklist("A1", "A7", "A9")
def test_every_object_of_every_kind_says_by_what_and_of_what_it_was_made(source: Any, weights: str) -> None:
    findings, both = with_all_kinds(source)
    run = run_facts(weights_sha256=weights, parameters={"threshold_hu": -500, "mode": "fast"})
    objects = all_built(findings, both, run, ALL)
    assert {one.kind for one in objects} == set(ALL)
    for one in objects:
        data_set = read(one)
        equipment = data_set.ContributingEquipmentSequence[0]
        [purpose] = equipment.PurposeOfReferenceCodeSequence
        assert (purpose.CodeValue, purpose.CodeMeaning) == ("109102", "Processing Equipment")
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("lungs", "1.2.3")
        said = equipment.ContributionDescription
        for part in (
            f"input-sha256={'ab' * 32}",
            f"weights-sha256={weights}" if weights else "no weights",
            "threshold_hu=-500",
            "mode=fast",
        ):
            assert part in said
        assert "not for diagnosis" in data_set.SeriesDescription


@pytest.mark.parametrize("sop_class_uid", [CTImageStorage, "1.3.9999.1"])
def test_every_kind_is_the_same_in_a_second_run_also_of_a_source_of_a_private_class(
    sop_class_uid: str,
) -> None:
    def run() -> list[bytes]:
        findings, both = with_all_kinds(made_source(SOPClassUID=sop_class_uid))
        # No image is derived of a private class.
        kinds = [kind for kind in ALL[4:] if kind != "image" or sop_class_uid == CTImageStorage]
        return [one.part10 for one in all_built(findings, both, kinds=kinds)]

    assert run() == run()


@pytest.mark.checklist("A7")
def test_each_kind_is_a_series_of_its_own_with_a_number_behind_that_of_the_source(source: Any) -> None:
    findings, both = with_all_kinds(source)
    data_sets = [(one.kind, read(one)) for one in all_built(findings, both, kinds=ALL)]
    series = {kind: data_set.SeriesInstanceUID for kind, data_set in data_sets}
    assert len(set(series.values())) == len(ALL)
    assert len({data_set.SeriesNumber for _, data_set in data_sets}) == len(ALL)
    assert len({data_set.SOPInstanceUID for _, data_set in data_sets}) == len(data_sets)
    assert {data_set.StudyInstanceUID for _, data_set in data_sets} == {"1.2.3"}


@pytest.mark.checklist("A4")
def test_another_version_or_other_weights_are_another_device(source: Any) -> None:
    def device(run: Any) -> str:
        report = read(all_built(Findings(), source, run, ("sr",))[0])
        return str(report.ContributingEquipmentSequence[0].DeviceUID)

    runs = [run_facts(), run_facts(card=card(version="1.2.4")), run_facts(weights_sha256="11" * 32)]
    assert len({device(run) for run in runs}) == 3
    assert device(run_facts(started_at=STARTED_AT + timedelta(days=1))) == device(run_facts())


@pytest.mark.checklist("A3")
def test_by_default_a_report_and_segmentations_come_beside_the_picture(source: Any) -> None:
    kinds = AnalysisConfig("lungs", "lungs").results
    objects = all_built(two_lungs(source.volume), source, kinds=kinds)
    assert [one.kind for one in objects] == ["sr", "seg", "sc"]


def test_a_kind_with_nothing_to_say_makes_nothing(source: Any) -> None:
    assert [one.kind for one in all_built(Findings(), source, kinds=ALL)] == ["sr", "sc"]


@pytest.mark.parametrize("order", [ALL, tuple(reversed(ALL))])
def test_objects_come_in_the_order_of_the_kinds_asked_for(source: Any, order: tuple[ResultKind, ...]) -> None:
    findings, both = with_all_kinds(source)
    kinds = [one.kind for one in all_built(findings, both, kinds=order)]
    assert list(dict.fromkeys(kinds)) == list(order)


@pytest.mark.checklist("A9")
def test_more_parameters_than_fit_are_cut_between_two_of_them_and_are_whole_in_the_report(
    source: Any,
) -> None:
    parameters = {f"parameter-{number:03}": "é" * 20 for number in range(100)}
    run = run_facts(parameters=parameters)
    report = read(all_built(Findings(), source, run, ("sr",))[0])
    said = report.ContributingEquipmentSequence[0].ContributionDescription
    assert len(said.encode()) <= 1024
    assert said.endswith("; more parameters in the report")
    assert said.split("; ")[-2] == f"parameter-{said.count('parameter-') - 1:03}={'é' * 20}"
    assert all(f"{name}={value}".encode() in report_bytes(report) for name, value in parameters.items())


def report_bytes(report: Any) -> bytes:
    return "\n".join(str(item.get("TextValue", "")) for item in content(report)).encode()


def test_everything_at_once_passes_the_checklist(source: Any) -> None:
    for one in built(everything(source.volume), source).values():
        assert check(one.part10) == []
