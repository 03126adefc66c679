"""Which further series and which earlier study an analysis is given, and why not, by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.base import Need
from node import analysis_runs
from node.analysis_runs import COMPLETED, FAILED, QUEUED, UNCHANGED, WANTED
from node.config.settings import AnalysisConfig
from node.errors import UnfitInput
from node.index import priors
from node.index.entry import Entry
from node.index.index import Provenance, Run
from node.series import selection
from node.series.matching import why_no_input
from tests.support import made
from tests.support.indexed import Indexed, header_of, indexed, stored_of

NEEDS = (
    Need("ct"),
    Need("pet", comes_from="study", is_optional=True),
    Need("before", comes_from="prior", is_optional=True),
)
NEEDED = tuple(replace(need, is_optional=False) for need in NEEDS)
PET = {"Modality": "PT"}
ANALYSIS = AnalysisConfig("a", "m", when={"Modality": "CT", "q.x": "1"}, inputs={"pet": PET})

_numbers = itertools.count(1)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Indexed]:
    with indexed(tmp_path) as opened:
        yield opened


def add(index: Indexed, study: str, series: str, *, count: int = 1, **attributes: Any) -> list[str]:
    """Add instances of a series; return their SOP Instance UIDs."""
    data_sets = [
        made.ct_image(
            study_instance_uid=study,
            series_instance_uid=f"{study}.{series}",
            sop_instance_uid=f"{study}.{series}.{next(_numbers)}",
            **attributes,
        )
        for _ in range(count)
    ]
    index.add(*data_sets)
    return [str(one.SOPInstanceUID) for one in data_sets]


def add_own(
    index: Indexed, study: str, series: str, revision: int, *, of: str = "1", **attributes: Any
) -> None:
    """Add a result of the analysis ``seg`` of series ``of``, which was completed at a revision."""
    record(index, study, revision, COMPLETED, of=of)
    data_set = made.ct_image(study_instance_uid=study, series_instance_uid=f"{study}.{series}", **attributes)
    header = header_of(data_set)
    run = Run("seg", f"{study}.{of}", revision, float(revision), "", "", "m 1", "seg", 0, 1)
    provenance = Provenance("A", "A", "", 0, 1.0, own=True, run=run)
    stored = replace(stored_of(header, is_own=True), provenance=provenance)
    index.database.write(lambda connection: index.index.add(connection, Entry.of(header), stored))


def record(index: Indexed, study: str, revision: int, state: str, *, of: str = "1") -> None:
    """Record a run of the analysis ``seg``."""
    index.database.write(
        lambda connection: analysis_runs.record(
            connection,
            study_instance_uid=study,
            series_instance_uid=f"{study}.{of}",
            analysis="seg",
            revision=revision,
            state=state,
            at=1.0,
        )
    )


def chosen(
    index: Indexed, needs: tuple[Need, ...] = NEEDS, analysis: AnalysisConfig = ANALYSIS, study: str = "1.2"
) -> dict[str, list[str]]:
    """The series that are chosen, by input."""
    with index.database.read() as connection:
        found = selection.choose(index.index, connection, analysis, needs, study, f"{study}.1")
    return {
        name: sorted({one.series_instance_uid for one in instances})
        for name, instances in found.inputs.items()
    }


def compared(index: Indexed, analysis: AnalysisConfig = ANALYSIS) -> str:
    with index.database.read() as connection:
        return selection.choose(index.index, connection, analysis, NEEDS, "1.2", "1.2.1").compared


def refusal(index: Indexed, needs: tuple[Need, ...] = NEEDED, analysis: AnalysisConfig = ANALYSIS) -> str:
    with pytest.raises(UnfitInput) as caught:
        chosen(index, needs, analysis)
    return str(caught.value)


# --- other series of the study ------------------------------------------------


def test_the_series_that_matches_is_the_further_input(index: Indexed) -> None:
    add(index, "1.2", "1", count=3)
    add(index, "1.2", "2", count=2, Modality="PT")
    add(index, "1.2", "3", Modality="MR")
    assert chosen(index) == {"ct": ["1.2.1"], "pet": ["1.2.2"]}


def test_of_several_the_one_in_the_frame_of_reference_of_the_primary_is_taken(index: Indexed) -> None:
    add(index, "1.2", "1", FrameOfReferenceUID="1.9.1")
    add(index, "1.2", "2", Modality="PT", FrameOfReferenceUID="1.9.2")
    add(index, "1.2", "3", Modality="PT", FrameOfReferenceUID="1.9.1")
    assert chosen(index)["pet"] == ["1.2.3"]


@pytest.mark.parametrize("frames", [("", ""), ("1.9.1", "1.9.1"), ("1.9.7", "1.9.8")])
def test_several_that_cannot_be_told_apart_are_refused_by_name(
    index: Indexed, frames: tuple[str, str]
) -> None:
    add(index, "1.2", "1", FrameOfReferenceUID="1.9.1")
    for series, frame in zip(("2", "3"), frames, strict=True):
        add(index, "1.2", series, Modality="PT", FrameOfReferenceUID=frame)
    assert refusal(index, NEEDS) == "2 series match the input 'pet': number 1 (PT), number 1 (PT)"


def test_a_missing_optional_input_is_left_out_and_a_needed_one_is_refused_with_what_is_there(
    index: Indexed,
) -> None:
    add(index, "1.2", "1")
    assert chosen(index) == {"ct": ["1.2.1"]}
    assert refusal(index) == "no series of the study matches the input 'pet': there is no other series"
    add(index, "1.2", "2", Modality="MR")
    assert refusal(index) == (
        "no series of the study matches the input 'pet': Modality is 'MR', the analysis wants 'PT'"
    )


def test_the_primary_series_is_no_further_input_of_itself(index: Indexed) -> None:
    add(index, "1.2", "1")
    analysis = replace(ANALYSIS, inputs={"pet": {"Modality": "CT"}})
    assert chosen(index, analysis=analysis) == {"ct": ["1.2.1"]}
    add(index, "1.2", "2")
    assert chosen(index, analysis=analysis)["pet"] == ["1.2.2"]


def test_an_input_that_the_configuration_does_not_name_is_absent_or_refused(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.2", "2", Modality="PT")
    silent = replace(ANALYSIS, inputs={})
    assert chosen(index, analysis=silent) == {"ct": ["1.2.1"]}
    assert refusal(index, analysis=silent) == (
        "the configuration does not say which series the input 'pet' is"
    )


def test_a_series_of_the_same_uid_in_another_study_is_not_taken(index: Indexed) -> None:
    add(index, "1.2", "1")
    index.add(made.ct_image(study_instance_uid="1.7", series_instance_uid="1.2.1"))
    with index.database.read() as connection:
        found = selection.choose(index.index, connection, ANALYSIS, NEEDS, "1.2", "1.2.1")
    assert [one.study_instance_uid for one in found.inputs["ct"]] == ["1.2"]


def test_a_series_that_holds_nothing_from_outside_is_refused(index: Indexed) -> None:
    add_own(index, "1.2", "1", 1)
    assert "no instances that came from outside" in refusal(index)


def test_localizers_and_derived_images_are_inputs_only_where_they_are_named(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.2", "2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(index, "1.2", "3", ImageType=["DERIVED", "PRIMARY"])
    by_modality = replace(ANALYSIS, inputs={"pet": {"Modality": "CT"}})
    assert chosen(index, analysis=by_modality) == {"ct": ["1.2.1"]}
    by_type = replace(ANALYSIS, inputs={"pet": {"ImageType": "DERIVED*"}})
    assert chosen(index, analysis=by_type)["pet"] == ["1.2.3"]


def test_own_results_are_inputs_only_where_they_are_named_and_then_the_latest(index: Indexed) -> None:
    add(index, "1.2", "1")
    for revision in (1, 3, 2):
        add_own(index, "1.2", f"9{revision}", revision, Modality="SEG", SeriesDescription="lungs")
    assert chosen(index, analysis=replace(ANALYSIS, inputs={"pet": {"SeriesDescription": "lungs"}})) == {
        "ct": ["1.2.1"]
    }
    named = replace(ANALYSIS, inputs={"pet": {"Modality": "SEG"}})
    assert chosen(index, analysis=named)["pet"] == ["1.2.93"]


SEG = {"Modality": "SEG", "SeriesDescription": "lungs"}
WITH_SEG = replace(ANALYSIS, inputs={"pet": {"Modality": "SEG"}})


def test_a_result_of_another_series_is_no_input(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.2", "2")
    add_own(index, "1.2", "9", 1, of="2", **SEG)
    assert chosen(index, analysis=WITH_SEG) == {"ct": ["1.2.1"]}
    assert refusal(index, analysis=WITH_SEG).endswith("the result of seg is of another series")
    add_own(index, "1.2", "8", 1, of="1", **SEG)
    assert chosen(index, analysis=WITH_SEG)["pet"] == ["1.2.8"]


@pytest.mark.parametrize("state", [FAILED, QUEUED, WANTED, "not-a-volume"])
def test_a_result_from_before_its_series_changed_is_no_input(index: Indexed, state: str) -> None:
    add(index, "1.2", "1")
    add_own(index, "1.2", "9", 1, **SEG)
    record(index, "1.2", 2, UNCHANGED)
    assert chosen(index, analysis=WITH_SEG)["pet"] == ["1.2.9"]
    record(index, "1.2", 3, state)
    assert chosen(index, analysis=WITH_SEG) == {"ct": ["1.2.1"]}
    assert refusal(index, analysis=WITH_SEG).endswith("seg has no result for the series as it is now")


def test_results_of_an_earlier_study_are_priors_where_they_still_hold(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.3", "1", StudyDate="20200101")
    for revision in (1, 2):
        add_own(index, "1.3", f"9{revision}", revision, StudyDate="20200101", **SEG)
    analysis = replace(ANALYSIS, priors={"before": {"Modality": "SEG"}})
    assert chosen(index, analysis=analysis)["before"] == ["1.3.92"]
    record(index, "1.3", 3, FAILED)
    assert "before" not in chosen(index, analysis=analysis)


@pytest.mark.parametrize(
    ("patterns", "header", "is_input"),
    [
        ({"Modality": "CT"}, {"Modality": "CT", "ImageType": ""}, False),
        ({"Modality": "CT", "ImageType": "*"}, {"Modality": "CT", "ImageType": ""}, True),
        ({"Modality": "CT"}, {"Modality": "CT", "ImageType": "DERIVED\\PRIMARY"}, False),
        ({"ImageType": "DERIVED*"}, {"Modality": "CT", "ImageType": "DERIVED\\PRIMARY"}, True),
        ({"Modality": "SEG"}, {"Modality": "SEG"}, True),
        ({}, {"Modality": "SEG"}, False),
    ],
)
def test_what_the_node_made_is_told_apart_by_what_is_named(
    patterns: Mapping[str, str], header: Mapping[str, str], is_input: bool
) -> None:
    assert (why_no_input(patterns, {**header, "is_own": "1"}) == "") is is_input


# --- priors --------------------------------------------------------------------


def earlier(index: Indexed, study: str = "1.2") -> list[str]:
    with index.database.read() as connection:
        return priors.earlier_studies(connection, study)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_earlier_studies_of_the_patient_come_latest_first(index: Indexed) -> None:
    add(index, "1.2", "1", StudyDate="20240229", StudyTime="101500")
    add(index, "1.3", "1", StudyDate="20200101")
    add(index, "1.4", "1", StudyDate="2023.05.01", StudyTime="10:00")
    add(index, "1.5", "1", StudyDate="20240229", StudyTime="0900")
    add(index, "1.6", "1", StudyDate="20240301")
    assert earlier(index) == ["1.5", "1.4", "1.3"]
    assert earlier(index, "1.3") == []
    assert earlier(index, "9.9") == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "OTHER"},
        {"PatientID": ""},
        {"IssuerOfPatientID": "HOSPITAL-B"},
        {"PatientBirthDate": "19810101"},
        {"StudyDate": ""},
        {"StudyDate": "20240301"},
        {"StudyDate": "20240229", "StudyTime": ""},
        {"StudyDate": "20240229", "StudyTime": "10"},
        {"StudyDate": "20240229", "StudyTime": "1016"},
        {"StudyDate": "2020"},
        {"PatientSex": "M"},
        {"PatientName": "Roe^Mary"},
    ],
)
def test_a_study_that_may_be_anybody_elses_or_is_not_known_to_be_earlier_is_no_prior(
    index: Indexed, attributes: dict[str, str]
) -> None:
    one = {"PatientBirthDate": "19700101", "PatientSex": "F", "PatientName": "Doe^Jane"}
    add(index, "1.2", "1", **one, StudyTime="101500")
    add(index, "1.3", "1", **{"StudyDate": "20200101", **one, **attributes})
    assert earlier(index) == []


@pytest.mark.parametrize(
    ("both", "name"),
    [
        ({}, "DOE^J."),
        ({"PatientBirthDate": "19700101"}, ""),
        ({"PatientBirthDate": "19700101", "IssuerOfPatientID": "HOSPITAL"}, "Roe^Jane"),
    ],
)
def test_who_is_known_by_issuer_and_birth_date_may_have_married(
    index: Indexed, both: dict[str, str], name: str
) -> None:
    add(index, "1.2", "1", PatientName="Doe^Jane", PatientSex="F", **both)
    add(index, "1.3", "1", StudyDate="20200101", PatientName=name, PatientSex="", **both)
    assert earlier(index) == ["1.3"]


def test_a_name_in_another_script_alone_is_another_name_where_little_else_is_said(index: Indexed) -> None:
    add(index, "1.2", "1", PatientName="Yamada^Tarou", SpecificCharacterSet="ISO_IR 192")
    add(index, "1.3", "1", PatientName="=山田^太郎", SpecificCharacterSet="ISO_IR 192", StudyDate="20200101")
    both = "Yamada^T=山田^太郎"
    add(index, "1.4", "1", PatientName=both, SpecificCharacterSet="ISO_IR 192", StudyDate="20200101")
    assert earlier(index) == ["1.4"]


def test_without_a_patient_id_nobody_has_priors(index: Indexed) -> None:
    for study, date in (("1.2", "20240229"), ("1.3", "20200101")):
        add(index, study, "1", PatientID="", PatientName="Same^Name", StudyDate=date)
    assert earlier(index) == []


def test_a_study_that_names_two_people_is_no_prior(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.3", "1", StudyDate="20200101")
    add(index, "1.3", "2", StudyDate="20200101", PatientID="OTHER")
    assert earlier(index) == []


def test_a_prior_is_of_the_latest_earlier_study_that_has_a_series_which_matches(index: Indexed) -> None:
    add(index, "1.2", "1")
    add(index, "1.3", "1", StudyDate="20200101")
    add(index, "1.4", "1", StudyDate="20220101")
    add(index, "1.5", "1", StudyDate="20230101", Modality="MR")
    assert chosen(index) == {"ct": ["1.2.1"], "before": ["1.4.1"]}
    with_patterns = replace(ANALYSIS, priors={"before": {"Modality": "MR"}})
    assert chosen(index, analysis=with_patterns)["before"] == ["1.5.1"]


def test_of_several_priors_in_one_study_the_one_with_the_same_description_is_taken(index: Indexed) -> None:
    add(index, "1.2", "1", SeriesDescription="thin")
    for series, description in (("1", "thick"), ("2", "thin")):
        add(index, "1.3", series, StudyDate="20200101", SeriesDescription=description)
    assert chosen(index)["before"] == ["1.3.2"]
    add(index, "1.3", "3", StudyDate="20200101", SeriesDescription="thin")
    assert refusal(index, NEEDS) == (
        "2 series of one earlier study match the input 'before': number 1 (CT), number 1 (CT)"
    )


def test_it_is_told_with_which_study_a_series_is_compared_or_why_with_none(index: Indexed) -> None:
    add(index, "1.2", "1")
    assert compared(index) == ("no prior: no earlier study that is known to be of the same patient is here")
    add(index, "1.3", "1", StudyDate="19591209", SeriesDescription="")
    assert compared(index) == "compared with the study of 1959-12-09"
    adc = replace(ANALYSIS, priors={"before": {"SeriesDescription": "ADC"}})
    assert compared(index, adc) == (
        "no prior: the earlier study of the patient has no series that matches: "
        "SeriesDescription is absent or empty, the analysis wants 'ADC'"
    )
    add(index, "1.4", "1", StudyDate="19601209", SeriesDescription="T2")
    assert compared(index, adc).startswith(
        "no prior: none of 2 earlier studies of the patient has a series that matches: "
        "SeriesDescription is 'T2', the analysis wants 'ADC'; SeriesDescription is absent"
    )


@pytest.mark.parametrize("later", [True, False])
def test_where_a_patient_id_has_two_birth_dates_who_says_none_is_nobody_s_prior(
    index: Indexed, later: bool
) -> None:
    one = {"PatientName": "Doe^Jane"}
    add(index, "1.2", "1", PatientBirthDate="19700101", **one)
    add(index, "1.3", "1", StudyDate="20200101", **one)
    add(index, "1.4", "1", StudyDate="20190101", PatientBirthDate="19700101", **one)
    assert earlier(index) == ["1.3", "1.4"]
    other = {"StudyDate": "20250101" if later else "20180101", "PatientBirthDate": "19770101"}
    add(index, "1.5", "1", **one, **other)
    assert earlier(index) == ["1.4"]
    add(index, "1.6", "1", StudyDate="20260101", **one)
    assert earlier(index, "1.6") == []


def test_a_needed_prior_that_is_missing_is_refused_by_name(index: Indexed) -> None:
    needs = (Need("ct"), Need("before", comes_from="prior"))
    add(index, "1.2", "1")
    assert refusal(index, needs) == (
        "the input 'before' is missing: no earlier study that is known to be of the same patient is here"
    )
    add(index, "1.3", "1", StudyDate="20200101", Modality="MR")
    assert refusal(index, needs).endswith(
        "the earlier study of the patient has no series that matches: "
        "Modality is 'MR', the analysis wants 'CT'"
    )
