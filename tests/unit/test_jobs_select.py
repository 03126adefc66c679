"""An analysis sees the series that it names, and a person is told why it sees none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import uid

from models.base import Need
from node import analysis_runs
from node.analysis_runs import COMPLETED, FAILED, QUEUED, SUPERSEDED, UNCHANGED
from node.config.settings import AnalysisConfig, Config, StudyConfig
from node.errors import AnalysisParked, ModelCrashed
from node.index.entry import Entry
from node.index.index import Index, Provenance, StoredInstance
from node.jobs.task import Done, Job, SetAside
from node.series import digests
from node.series.matching import why_not
from node.storage.location import Location
from node.tasks.select import SelectTask
from tests.support import made
from tests.support.indexed import header_of
from tests.support.job_bench import Bench, job_bench
from tests.support.manual_clock import ManualClock

CT = {"Modality": "CT", "ImageType": "ORIGINAL\\PRIMARY\\AXIAL", "SOPClassUID": made.CT_IMAGE_STORAGE}


@pytest.mark.parametrize(
    ("when", "changes", "expected"),
    [
        ({"Modality": "CT"}, {}, ""),
        ({}, {}, ""),
        ({"Modality": "MR"}, {}, "Modality is 'CT', the analysis wants 'MR'"),
        ({"BodyPartExamined": "CHEST"}, {}, "BodyPartExamined is absent or empty"),
        ({"Modality": "CT"}, {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "is a localizer"),
        ({"Modality": "CT"}, {"ImageType": "DERIVED\\SECONDARY"}, "name ImageType in 'when'"),
        ({"Modality": "CT", "ImageType": "DERIVED"}, {"ImageType": "DERIVED\\SECONDARY"}, ""),
        ({"ImageType": "*LOCALIZER*"}, {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, ""),
        ({"ImageType": "AXIAL"}, {"ImageType": "DERIVED\\SECONDARY"}, "ImageType is 'DERIVED\\SECONDARY'"),
        ({}, {"Modality": "SR", "ImageType": ""}, "SR series hold no images"),
        ({"BodyPartExamined": "*"}, {"Modality": "RTSTRUCT", "ImageType": ""}, "hold no images"),
        ({"Modality": "SR"}, {"Modality": "SR", "ImageType": ""}, ""),
        ({"SOPClassUID": "1.2.*"}, {"Modality": "SR", "ImageType": ""}, ""),
        ({"Modality": "CT"}, {"ImageType": ""}, ""),
    ],
)
def test_why_a_series_is_not_seen(when: Mapping[str, str], changes: Mapping[str, str], expected: str) -> None:
    reason = why_not(when, {**CT, **changes})
    assert (expected in reason) if expected else reason == ""


class Study:
    """A bench with an index, and a study that grows."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.index = bench.services.index = Index(bench.clock)
        self.uid = uid.generate_uid()
        self.revision = 0

    def add(self, series: str, digest: str = "", *, own: bool = False, **attributes: Any) -> str:
        data_set = made.ct_image(study_instance_uid=self.uid, series_instance_uid=series, **attributes)
        sop_instance_uid = str(data_set.SOPInstanceUID)
        header = header_of(data_set)
        stored = StoredInstance(
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=str(data_set.SOPClassUID),
            series_instance_uid=series,
            study_instance_uid=self.uid,
            received_transfer_syntax_uid=uid.ExplicitVRLittleEndian,
            stored_transfer_syntax_uid=uid.ExplicitVRLittleEndian,
            data_set_sha256=digest or sop_instance_uid,
            data_set_bytes=10,
            location=Location("log", "1", 0, 10),
            is_settled=False,
            kept_reason="",
            proof=None,
            is_own=own,
            provenance=Provenance("SCANNER", "ANODE", "127.0.0.1", 1, self.bench.clock.timestamp(), own),
        )
        self.bench.database.write(lambda connection: self.index.add(connection, Entry.of(header), stored))
        return sop_instance_uid

    def select(self, analysis: str = "lungs", *, is_new: bool = True) -> Done | SetAside:
        self.revision += is_new
        job = Job(
            # None that is in the queue.
            0,
            "select",
            "key",
            "",
            {"study_instance_uid": self.uid, "analysis": analysis, "revision": self.revision},
            self.uid,
            1,
            0.0,
        )
        ((_, outcome),) = SelectTask().run(self.bench.services, [job])
        assert isinstance(outcome, Done | SetAside)
        if outcome.apply is not None:
            self.bench.database.write(outcome.apply)
        return outcome

    def analyses(self) -> list[dict[str, Any]]:
        """Payloads of the analyses that wait, the oldest first."""
        return [job["payload"] for job in reversed(self.bench.jobs(kind="analyze", state="ready"))]

    def runs(self) -> list[dict[str, Any]]:
        with self.bench.database.read() as connection:
            return analysis_runs.of_study(connection, self.uid)

    def complete(self, series: str, state: str = COMPLETED, **facts: tuple[str, ...]) -> None:
        """Do the analysis of a series that waits."""
        (job,) = self.bench.lease("analyze")
        self.bench.database.write(lambda connection: self.bench.queue.finish(connection, job))
        self.bench.database.write(
            lambda connection: analysis_runs.record(
                connection,
                study_instance_uid=self.uid,
                series_instance_uid=series,
                analysis=job.payload["analysis"],
                revision=job.payload["revision"],
                state=state,
                at=self.bench.clock.timestamp(),
                facts=facts,
            )
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def study(tmp_path: Path, clock: ManualClock) -> Iterator[Study]:
    config = Config(analyses=(AnalysisConfig("lungs", "lungs-model", when={"Modality": "CT"}),))
    with job_bench(tmp_path, clock, config) as bench:
        yield Study(bench)


def test_each_matching_series_gets_an_analysis_with_its_start_frozen(
    study: Study, clock: ManualClock
) -> None:
    started_at = clock.timestamp()
    first = [study.add("1.2.1"), study.add("1.2.1")]
    study.add("1.2.2")
    study.add("1.2.3", Modality="MR")
    assert isinstance(study.select(), Done)
    clock.advance(100)
    assert study.analyses() == [
        {
            "study_instance_uid": study.uid,
            "series_instance_uid": series,
            "analysis": "lungs",
            "model": "lungs-model",
            "revision": 1,
            "started_at": started_at,
            "selected_digest": digest,
        }
        for series, digest in (
            ("1.2.1", digests.of_series((one, one) for one in first)),
            ("1.2.2", study.analyses()[1]["selected_digest"]),
        )
    ]
    assert [(run["series_instance_uid"], run["state"]) for run in study.runs()] == [
        ("1.2.1", QUEUED),
        ("1.2.2", QUEUED),
    ]


def test_what_anode_made_is_never_seen(study: Study) -> None:
    study.add("1.2.1", own=True)
    assert isinstance(study.select(), Done)
    assert study.analyses() == []
    (run,) = study.runs()
    assert (run["state"], "this node made" in run["reason"]) == ("no-match", True)


def test_no_match_names_the_key_that_differed_and_how_many_series_there_are(study: Study) -> None:
    study.add("1.2.1", Modality="MR")
    study.add("1.2.2", Modality="US")
    study.add("1.2.3", Modality="US")
    study.select()
    (run,) = study.runs()
    assert run["state"] == "no-match"
    assert run["reason"] == (
        "none of 3 series matches: Modality is 'MR', the analysis wants 'CT';"
        " Modality is 'US', the analysis wants 'CT'"
    )


def test_a_study_of_two_patients_is_set_aside_and_recorded(study: Study) -> None:
    study.add("1.2.1", PatientID="A")
    study.add("1.2.1", PatientID="B")
    outcome = study.select()
    assert isinstance(outcome, SetAside)
    assert outcome.error.name == "two-patients"
    assert study.analyses() == []
    assert [run["state"] for run in study.runs()] == ["two-patients"]


@pytest.mark.parametrize(
    "people",
    [
        [{"PatientID": "", "PatientName": "Adam^A"}, {"PatientID": "", "PatientName": "Berta^B"}],
        [{"PatientBirthDate": "19700101"}, {"PatientBirthDate": "19770101"}],
        [{}, {"IssuerOfPatientID": "HOSP-A"}, {"IssuerOfPatientID": "HOSP-B"}],
    ],
)
def test_several_people_under_one_id_or_none_are_two_patients(
    study: Study, people: list[dict[str, str]]
) -> None:
    for person in people:
        study.add("1.2.1", **person)
    assert isinstance(study.select(), SetAside)
    assert [run["state"] for run in study.runs()] == ["two-patients"]


def test_a_corrected_name_is_no_other_patient(study: Study) -> None:
    study.add("1.2.1", PatientName="Doe^John")
    study.add("1.2.1", PatientName="DOE^JOHN^^")
    assert isinstance(study.select(), Done)
    assert len(study.analyses()) == 1


def test_a_late_image_runs_its_own_series_again_and_no_other(study: Study) -> None:
    study.add("1.2.1")
    study.add("1.2.2")
    study.select()
    study.complete("1.2.1")
    study.complete("1.2.2")
    study.add("1.2.2")
    study.select()
    assert [(one["series_instance_uid"], one["revision"]) for one in study.analyses()] == [("1.2.2", 2)]


def test_an_analysis_that_failed_runs_again_when_its_series_changes_or_a_person_asks(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.complete("1.2.1", FAILED)
    study.add("1.2.9", Modality="MR")
    study.select()
    assert study.analyses() == []
    study.bench.database.write(
        lambda connection: study.bench.completion.select_again(connection, study.uid, 0.0)
    )
    study.select()
    assert [one["revision"] for one in study.analyses()] == [3]
    study.complete("1.2.1", FAILED)
    study.add("1.2.1")
    study.select()
    assert [one["revision"] for one in study.analyses()] == [4]


def test_an_analysis_that_nobody_has_begun_gives_way_to_newer_contents(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.add("1.2.1")
    study.select()
    assert [one["revision"] for one in study.analyses()] == [2]
    assert [run["state"] for run in study.runs()] == ["superseded", QUEUED]


def test_the_same_selection_twice_enqueues_nothing_more(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.revision = 0
    study.select()
    assert len(study.analyses()) == len(study.runs()) == 1


def test_an_analysis_that_left_the_configuration_ends_quietly(study: Study) -> None:
    study.add("1.2.1")
    study.bench.services.config = Config()
    assert study.select() == Done()
    assert study.runs() == []


def test_a_localizer_among_the_series_does_not_hide_the_others(study: Study) -> None:
    study.add("1.2.1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    study.add("1.2.2")
    study.select()
    assert [one["series_instance_uid"] for one in study.analyses()] == ["1.2.2"]


# --- after others ----------------------------------------------------------------

AFTER_TYPE = AnalysisConfig(
    "brain",
    "lungs-model",
    when={"Modality": "CT", "mr.type.kind": "t1*", "mr.type.Score": ">= 0.9"},
    after=("mr", "mr.type"),
)


@pytest.fixture
def chained(tmp_path: Path, clock: ManualClock) -> Iterator[Study]:
    first = AnalysisConfig("mr.type", "lungs-model", when={"Modality": "CT"})
    with job_bench(tmp_path, clock, Config(analyses=(first, AFTER_TYPE))) as bench:
        yield Study(bench)


def of(study: Study, analysis: str) -> list[tuple[str, str, str]]:
    return [
        (run["series_instance_uid"], run["state"], run["reason"])
        for run in study.runs()
        if run["analysis"] == analysis
    ]


def test_an_analysis_sees_the_series_in_which_another_found_what_it_wants(chained: Study) -> None:
    for series in ("1.2.1", "1.2.2"):
        chained.add(series)
    chained.select("mr.type")
    chained.complete("1.2.1", kind=("T2", "t2w"), Score=("0.95",))
    chained.complete("1.2.2", kind=("T1", "t1w"), Score=("0.9",))
    chained.select("brain", is_new=False)
    assert of(chained, "brain") == [("1.2.2", QUEUED, "")]


@pytest.mark.parametrize(
    ("state", "facts", "reason"),
    [
        (
            COMPLETED,
            {"kind": ("T2", "t2w"), "Score": ("1",)},
            "mr.type.kind is 'T2', the analysis",
        ),
        (
            COMPLETED,
            {"kind": ("t1w",), "Score": ("0.8",)},
            "is '0.8', the analysis wants '>= 0.9'",
        ),
        (
            COMPLETED,
            {"kind": ("t1w",), "score 2": ("2341.71234567",)},
            "the analysis mr.type has not found any 'Score' in the series; did you mean 'mr.type.score 2'? "
            "(it has found kind t1w, score 2 2341.71)",
        ),
        (COMPLETED, {}, "has not found any 'kind' in the series (nothing is on record that it has found)"),
        (
            COMPLETED,
            {"kind": ("t1w",), "Score": ()},
            "the analysis mr.type withholds 'Score', as a check of it failed",
        ),
        (COMPLETED, {"kind": ("t1w",), "Score": ("high",)}, "mr.type.Score is 'high'"),
        (FAILED, {}, "the analysis mr.type has no result for this series (failed)"),
    ],
)
def test_what_another_found_is_told_where_it_does_not_match(
    chained: Study, state: str, facts: dict[str, tuple[str, ...]], reason: str
) -> None:
    chained.add("1.2.1")
    chained.select("mr.type")
    chained.complete("1.2.1", state, **facts)
    chained.select("brain", is_new=False)
    ((series, found, told),) = of(chained, "brain")
    assert (series, found) == ("", "no-match")
    assert reason in told


def test_a_series_that_the_other_never_saw_does_not_match(chained: Study) -> None:
    chained.add("1.2.1")
    chained.select("brain")
    assert "the analysis mr.type does not see this series" in of(chained, "brain")[0][2]


def test_what_the_other_finds_later_is_selected_and_the_old_reason_forgotten(chained: Study) -> None:
    chained.add("1.2.1")
    chained.select("mr.type")
    chained.complete("1.2.1", FAILED)
    chained.select("brain", is_new=False)
    chained.bench.database.write(
        lambda connection: analysis_runs.record(
            connection,
            study_instance_uid=chained.uid,
            series_instance_uid="1.2.1",
            analysis="mr.type",
            revision=1,
            state=COMPLETED,
            at=1.0,
            facts={"kind": ("t1w",), "Score": ("1",)},
        )
    )
    chained.select("brain", is_new=False)
    assert of(chained, "brain") == [("1.2.1", QUEUED, "")]


def test_the_end_of_a_selection_without_runs_begins_those_behind_it(chained: Study) -> None:
    chained.add("1.2.1", Modality="MR")
    chained.bench.arrive(chained.uid, chained.bench.clock.timestamp() - 1000)
    chained.bench.fire(*((chained.uid, name, 1) for name in ("mr.type", "mr")))
    chained.select("mr.type")
    assert [job["payload"]["analysis"] for job in chained.bench.jobs(kind="select")] == ["brain"]


def states(study: Study, analysis: str = "lungs") -> dict[str, str]:
    """The state of the latest run of each series that is not superseded."""
    return {series: state for series, state, _ in of(study, analysis) if state != SUPERSEDED}


@pytest.mark.parametrize("is_job", [True, False])
def test_what_was_refused_or_failed_goes_with_a_series_that_is_seen_no_more(
    study: Study, is_job: bool
) -> None:
    for series, modality in (("1.2.1", "CT"), ("1.2.2", "PT"), ("1.2.3", "PT")):
        study.add(series, Modality=modality)
    reconfigure(study, when={"Modality": ("CT", "PT")})
    study.select()
    study.complete("1.2.1")
    if is_job:
        (job,) = study.bench.lease("analyze")
        crashed = ModelCrashed("out of luck")
        study.bench.database.write(lambda connection: study.bench.queue.set_aside(connection, job, crashed))
    else:
        study.complete("1.2.2", "unfit-input")
    study.complete("1.2.3", "unfit-input")
    reconfigure(study, when={"Modality": "CT"})
    study.select()
    assert states(study) == {"1.2.1": COMPLETED}
    assert study.bench.jobs(state="set_aside") == []
    # When it is meant after all, it is looked at again.
    reconfigure(study, when={"Modality": ("CT", "PT")})
    study.select()
    assert states(study) == {"1.2.1": COMPLETED, "1.2.2": QUEUED, "1.2.3": QUEUED}


def test_a_result_stays_on_record_when_its_series_is_seen_no_more(study: Study) -> None:
    study.add("1.2.1")
    study.add("1.2.2")
    study.select()
    study.complete("1.2.1")
    study.complete("1.2.2")
    reconfigure(study, when={"SeriesInstanceUID": "1.2.1"})
    study.select()
    assert states(study) == {"1.2.1": COMPLETED, "1.2.2": COMPLETED}


def test_a_refusal_stays_while_its_series_is_seen(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.complete("1.2.1", "not-a-volume")
    study.add("1.2.9", Modality="MR")
    study.select()
    assert ("1.2.1", "not-a-volume", "") in of(study, "lungs")


# --- parameters and further inputs -----------------------------------------------


@pytest.fixture
def with_needs(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    needs = (Need("ct"), Need("pet", comes_from="study"))
    described = SimpleNamespace(needs=needs)
    monkeypatch.setattr("node.tasks.select.catalogue.describe", lambda model: described)
    analysis = AnalysisConfig("lungs", "m", when={"Modality": "CT"}, inputs={"pet": {"Modality": "PT"}})
    with job_bench(tmp_path, clock, Config(analyses=(analysis,))) as bench:
        yield Study(bench)


def second_study(study: Study) -> Study:
    """Another study in the same node."""
    other = Study.__new__(Study)
    other.bench, other.index, other.uid, other.revision = study.bench, study.index, uid.generate_uid(), 0
    return other


@pytest.mark.parametrize("is_done", [False, True])
def test_a_series_uid_that_two_studies_have_is_analysed_in_both(study: Study, is_done: bool) -> None:
    other = second_study(study)
    for one in (study, other):
        one.add("1.2.1")
    study.select()
    if is_done:
        study.complete("1.2.1")
    other.select()
    waiting = [job["study_instance_uid"] for job in study.analyses()]
    assert waiting == ([other.uid] if is_done else [study.uid, other.uid])
    assert [run["state"] for run in study.runs()] == [COMPLETED if is_done else QUEUED]
    assert [run["state"] for run in other.runs()] == [QUEUED]


# --- what was chosen before and waits ----------------------------------------------


def find(study: Study, kind: str) -> None:
    """Let ``mr.type`` find something else in the series, at the present revision."""
    study.bench.database.write(
        lambda connection: analysis_runs.record(
            connection,
            study_instance_uid=study.uid,
            series_instance_uid="1.2.1",
            analysis="mr.type",
            revision=study.revision,
            state=COMPLETED,
            at=1.0,
            facts={"kind": (kind,), "Score": ("1",)},
        )
    )


def test_a_series_that_matches_no_more_is_not_analysed_though_it_waited(chained: Study) -> None:
    chained.add("1.2.1")
    chained.add("1.2.2")
    chained.select("mr.type")
    for series in ("1.2.1", "1.2.2"):
        chained.complete(series, kind=("t1w",), Score=("1",))
    chained.select("brain", is_new=False)
    assert [one["series_instance_uid"] for one in chained.analyses()] == ["1.2.1", "1.2.2"]
    chained.add("1.2.1")
    chained.revision += 1
    find(chained, "t2w")
    chained.select("brain", is_new=False)
    # Of the other series nothing has changed, so its turn stays.
    assert [(one["series_instance_uid"], one["revision"]) for one in chained.analyses()] == [("1.2.2", 1)]
    assert [one[:2] for one in of(chained, "brain")] == [("1.2.1", SUPERSEDED), ("1.2.2", QUEUED)]


def test_what_was_found_first_and_is_found_again_is_analysed_after_all(chained: Study) -> None:
    chained.add("1.2.1")
    chained.select("mr.type")
    chained.complete("1.2.1", kind=("t1w",), Score=("1",))
    for kind, waiting in (("t1w", 1), ("t2w", 0), ("t1w", 1)):
        find(chained, kind)
        chained.select("brain", is_new=False)
        assert len(chained.analyses()) == waiting
    assert [one[:2] for one in of(chained, "brain")] == [("1.2.1", QUEUED)]


def test_a_series_whose_input_cannot_be_told_any_more_is_not_analysed_though_it_waited(
    with_needs: Study,
) -> None:
    with_needs.add("1.2.1")
    with_needs.add("1.2.2", Modality="PT")
    with_needs.select()
    assert len(with_needs.analyses()) == 1
    with_needs.add("1.2.3", Modality="PT")
    with_needs.select()
    assert with_needs.analyses() == []
    assert [run["state"] for run in with_needs.runs()] == [SUPERSEDED, "unfit-input"]


def test_what_is_parked_gives_way_to_newer_contents_and_nobody_waits_for_it(chained: Study) -> None:
    bench, write = chained.bench, chained.bench.database.write
    for revision in (1, 2):
        bench.arrive(chained.uid, 0.0)
        chained.add("1.2.1")
        chained.select("mr.type")
        bench.fire(*((chained.uid, name, revision) for name in ("mr.type", "mr")))
        if revision == 1:
            (job,) = bench.lease("analyze")
            write(lambda connection, job=job: bench.queue.set_aside(connection, job, AnalysisParked("it is")))
    assert bench.due() == []
    chained.complete("1.2.1", kind=("t1w",), Score=("1",))
    assert bench.due() == [(chained.uid, "brain", 2)]


def test_a_job_that_its_model_failed_stays_where_a_person_sees_it(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    (job,) = study.bench.lease("analyze")
    study.bench.database.write(
        lambda connection: study.bench.queue.set_aside(connection, job, ModelCrashed("out of luck"))
    )
    study.add("1.2.1")
    study.select()
    assert sorted(one["state"] for one in study.bench.jobs(kind="analyze")) == ["ready", "set_aside"]


# --- earlier studies that still arrive ---------------------------------------------


@pytest.fixture
def with_prior(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    described = SimpleNamespace(needs=(Need("ct"), Need("before", comes_from="prior", is_optional=True)))
    monkeypatch.setattr("node.tasks.select.catalogue.describe", lambda model: described)
    config = Config(study=StudyConfig(quiet_seconds=60), analyses=(AnalysisConfig("lungs", "m"),))
    with job_bench(tmp_path, clock, config) as bench:
        study = Study(bench)
        study.add("1.2.1", StudyDate="20240601")
        yield study


def grow(study: Study) -> Study:
    """Let an instance of an earlier study arrive."""
    study.add("1.1.1", StudyDate="20230601")
    study.bench.arrive(study.uid)
    return study


def select_what_waits(study: Study) -> None:
    for job in study.bench.lease("select"):
        ((_, outcome),) = SelectTask().run(study.bench.services, [job])
        assert isinstance(outcome, Done)
        assert outcome.apply is not None
        study.bench.database.write(outcome.apply)
        study.bench.database.write(lambda connection, job=job: study.bench.queue.finish(connection, job))


def test_a_selection_waits_until_an_earlier_study_has_arrived(with_prior: Study, clock: ManualClock) -> None:
    prior = grow(second_study(with_prior))
    clock.advance(10)
    with_prior.select()
    assert with_prior.analyses() == with_prior.runs() == []
    clock.advance(40)
    grow(prior)
    clock.advance(10)
    # It is time to look again, and one more has come meanwhile.
    select_what_waits(with_prior)
    assert with_prior.analyses() == []
    clock.advance(49)
    assert with_prior.bench.lease("select") == []
    clock.advance(1)
    select_what_waits(with_prior)
    assert [one["series_instance_uid"] for one in with_prior.analyses()] == ["1.2.1"]


def test_a_selection_that_is_hastened_while_an_earlier_study_arrives_is_not_lost(
    with_prior: Study, clock: ManualClock
) -> None:
    grow(second_study(with_prior))
    with_prior.select()
    for _ in range(2):
        with_prior.bench.database.write(lambda connection: with_prior.bench.queue.requeue(connection))
        select_what_waits(with_prior)
    assert with_prior.analyses() == []
    clock.advance(60)
    select_what_waits(with_prior)
    assert len(with_prior.analyses()) == 1


def test_an_earlier_study_that_grows_and_grows_is_not_waited_for_for_ever(
    with_prior: Study, clock: ManualClock
) -> None:
    prior = grow(second_study(with_prior))
    with_prior.select()
    waited = 0
    while not with_prior.analyses():
        clock.advance(30)
        waited += 30
        grow(prior)
        select_what_waits(with_prior)
        assert waited <= 600
    assert waited == 600


def test_a_selection_that_waited_gives_way_to_that_of_a_later_revision(
    with_prior: Study, clock: ManualClock
) -> None:
    grow(second_study(with_prior))
    with_prior.select()
    clock.advance(60)
    with_prior.add("1.2.1", StudyDate="20240601")
    with_prior.select()
    with_prior.bench.fire((with_prior.uid, "lungs", 2))
    with_prior.complete("1.2.1")
    with_prior.add("1.2.1", StudyDate="20240601")
    select_what_waits(with_prior)
    assert with_prior.analyses() == []
    assert [run["revision"] for run in with_prior.runs()] == [2]


# --- other parameters, another model ------------------------------------------------


def test_the_run_of_another_model_is_made_when_a_person_asks_and_not_before(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.complete("1.2.1")
    reconfigure(study, model="another-model")
    study.select()
    assert study.analyses() == []
    study.bench.database.write(
        lambda connection: study.bench.completion.select_again(connection, study.uid, 0.0)
    )
    study.select()
    assert [(one["revision"], one["model"]) for one in study.analyses()] == [(3, "another-model")]
    # The run finds that all is as it was; nobody has asked once more.
    study.complete("1.2.1", UNCHANGED)
    study.select()
    assert study.analyses() == []


def reconfigure(study: Study, **changes: Any) -> None:
    services = study.bench.services
    (analysis,) = services.config.analyses
    services.config = Config(analyses=(replace(analysis, **changes),))


def test_a_missing_input_refuses_the_series_by_name_and_the_late_one_repairs_it(with_needs: Study) -> None:
    with_needs.add("1.2.1")
    with_needs.select()
    assert with_needs.analyses() == []
    ((series, state, reason),) = of(with_needs, "lungs")
    assert (series, state) == ("1.2.1", "unfit-input")
    assert reason == "no series of the study matches the input 'pet': there is no other series"
    with_needs.add("1.2.2", Modality="PT")
    with_needs.select()
    assert [one["series_instance_uid"] for one in with_needs.analyses()] == ["1.2.1"]


def test_a_late_image_of_a_further_input_runs_the_analysis_again(with_needs: Study) -> None:
    with_needs.add("1.2.1")
    with_needs.add("1.2.2", Modality="PT")
    with_needs.select()
    with_needs.complete("1.2.1")
    with_needs.add("1.2.3", Modality="MR")
    with_needs.select()
    assert with_needs.analyses() == []
    with_needs.add("1.2.2", Modality="PT")
    with_needs.select()
    assert [one["revision"] for one in with_needs.analyses()] == [3]


def test_other_parameters_run_the_analysis_again_when_it_is_selected_again(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.complete("1.2.1")
    study.select()
    assert study.analyses() == []
    reconfigure(study, parameters={"threshold": 3})
    study.select()
    assert [one["revision"] for one in study.analyses()] == [3]


def test_a_result_is_superseded_by_one_of_a_later_revision_alone(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    study.complete("1.2.1")
    reconfigure(study, parameters={"threshold": 3})
    study.bench.arrive(study.uid, 0.0)
    study.select(is_new=False)
    assert study.analyses() == []
    (waiting,) = study.bench.waiting(study.uid)
    assert waiting["revision"] == 2


def test_an_analysis_that_was_set_aside_is_not_revived_by_the_same_selection(study: Study) -> None:
    study.add("1.2.1")
    study.select()
    (job,) = study.bench.lease("analyze")
    study.bench.database.write(
        lambda connection: study.bench.queue.set_aside(connection, job, ModelCrashed("out of luck"))
    )
    study.select(is_new=False)
    assert study.analyses() == []
    assert [one["state"] for one in study.bench.jobs(kind="analyze")] == ["set_aside"]
