"""UIDs of results follow from all that their content depends on; those of things found from what they are."""

from __future__ import annotations

from typing import Any

import pytest

from models.types import Code
from node.results import concepts, uids
from node.results.source_header import SourceHeader
from tests.support.made_findings import built, card, made_source, read, run_facts, two_lungs


@pytest.fixture(scope="module")
def source() -> Any:
    return made_source()


@pytest.mark.checklist("A6")
def test_reports_made_together_with_other_kinds_are_other_objects(source: Any) -> None:
    findings = two_lungs(source.volume)
    alone, beside = (built(findings, source, kinds=kinds)["sr"] for kinds in (("sr",), ("sr", "seg")))
    assert alone.part10 != beside.part10
    assert alone.sop_instance_uid != beside.sop_instance_uid
    again = built(findings, source, kinds=("seg", "sr"))["sr"]
    assert again.part10 == beside.part10


@pytest.mark.parametrize(
    "change", [{"title": "Other title"}, {"family": Code("123109", "DCM", "Artificial Intelligence")}]
)
@pytest.mark.checklist("A6")
def test_other_words_of_the_card_are_other_objects(source: Any, change: dict[str, Any]) -> None:
    findings = two_lungs(source.volume)
    before, after = built(findings, source), built(findings, source, run_facts(card=card(**change)))
    for kind in ("sr", "seg", "sc"):
        assert before[kind].sop_instance_uid != after[kind].sop_instance_uid
        assert before[kind].series_instance_uid != after[kind].series_instance_uid


def test_another_release_of_anode_makes_other_objects(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(two_lungs(source.volume), source)["sc"]
    monkeypatch.setattr(uids, "node_version", lambda: "9999.1")
    assert before.sop_instance_uid != built(two_lungs(source.volume), source)["sc"].sop_instance_uid


@pytest.mark.checklist("T5")
def test_things_of_one_name_on_two_series_of_a_study_are_two_things(source: Any) -> None:
    def tracked(of: Any) -> tuple[set[str], set[str]]:
        made = built(two_lungs(of.volume), of, kinds=("sr", "seg"))
        segments = {str(one.TrackingUID) for one in read(made["seg"]).SegmentSequence}
        groups = {
            str(one.UID)
            for item in read(made["sr"]).ContentSequence
            if "ContentSequence" in item
            for group in item.ContentSequence
            for one in group.get("ContentSequence", [])
            if one.ValueType == "UIDREF" and one.ConceptNameCodeSequence[0].CodeValue == "112040"
        }
        return segments, groups

    other = made_source(SeriesInstanceUID="1.2.826.0.99")
    assert other.data_sets[0].StudyInstanceUID == source.data_sets[0].StudyInstanceUID
    (segments, groups), (others, other_groups) = tracked(source), tracked(other)
    assert segments == groups
    assert others == other_groups
    assert len(segments) == len(others) == 2
    assert not segments & others


@pytest.mark.parametrize(
    ("modality", "code"),
    [
        ("OT", Code("OT", "DCM", "Other Modality")),
        ("RF", Code("RF", "DCM", "Radiofluoroscopy")),
        ("PT", Code("PT", "DCM", "Positron emission tomography")),
        ("OPT", Code("OPT", "DCM", "Ophthalmic Tomography")),
        ("XYZ", Code("XYZ", "99ANODE", "XYZ")),
    ],
)
def test_a_modality_is_called_as_the_standard_calls_it_or_privately(modality: str, code: Code) -> None:
    assert concepts.modality(SourceHeader.of(made_source(Modality=modality))) == code
