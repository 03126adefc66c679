"""From a complete study to results that are durable, recorded and on their way."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import alarms, analysis_runs, parking
from node.analysis.analysts import Analysts
from node.config.settings import AnalysisConfig
from node.errors import StorageFailure
from node.index.index import StoredInstance
from node.jobs.policy import RetryPolicy
from node.jobs.task import Done, Job
from node.jobs.worker import Engine, Group
from node.processes.workers import Workers
from node.series import source_series
from node.tasks.analyze import AnalyzeTask
from node.tasks.select import SelectTask
from node.tasks.settle import SettleTask
from tests.support import made
from tests.support.made_models import install
from tests.support.manual_clock import ManualClock
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

STUDY, SERIES, FRAME = "1.2.826.0.1.1", "1.2.826.0.1.1.2", "1.2.826.0.1.1.3"


def analysis(model: str = "brightness", **facts: Any) -> AnalysisConfig:
    return AnalysisConfig("test", model, **{"send_to": ("PACS", "OTHER"), **facts})


def slice_of(number: int, **attributes: Any) -> Dataset:
    pixels = np.random.default_rng(number).integers(-900, 300, (16, 16)).astype("<i2")
    facts: dict[str, Any] = {
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "sop_instance_uid": f"{SERIES}.{number}",
        "InstanceNumber": number,
        "ImagePositionPatient": [0, 0, 1.5 * number],
        "FrameOfReferenceUID": FRAME,
        "SeriesDate": "20240229",
        "SeriesTime": "101500",
        "PositionReferenceIndicator": "",
        "KVP": "120",
        "AcquisitionNumber": 1,
    }
    return made.ct_image(pixels=pixels, **{**facts, **attributes})


class Scene:
    def __init__(self, node: SmallNode, clock: ManualClock, reserve_bytes: int | None = None) -> None:
        self.node = node
        self.clock = clock
        self.workers = Workers(node.services.config.node.data_dir)
        settings = node.services.config
        if reserve_bytes is not None:
            storage = replace(settings.storage, free_space_reserve_bytes=reserve_bytes)
            settings = replace(settings, storage=storage)
        self.task = AnalyzeTask(self.workers, Analysts(settings))
        work = RetryPolicy.for_work(node.services.config.jobs)
        self.engine = Engine(
            node.services,
            [
                Group("work", {task.kind: task for task in (SelectTask(), SettleTask())}, 1, work),
                Group("analyses", {"analyze": self.task}, 1, work),
            ],
        )

    def scan(self, *data_sets: Dataset) -> None:
        self.node.receive(*data_sets)

    def quiet(self) -> None:
        self.clock.advance(61)
        self.node.schedule.complete()
        self.engine.run_until_idle(60)

    def runs(self) -> list[dict[str, Any]]:
        with self.node.services.database.read() as connection:
            return analysis_runs.of_study(connection, STUDY)

    def results(self) -> list[StoredInstance]:
        with self.node.services.database.read() as connection:
            return [one for one in self.node.services.index.of_study(connection, STUDY) if one.is_own]

    def report(self, sop_instance_uid: str) -> Dataset:
        stored = self.node.stored(sop_instance_uid)
        with self.node.services.storage.open(stored.location) as file:
            content = file.read()
        return pydicom.filereader.read_dataset(io.BytesIO(content), False, True)

    def jobs(self, kind: str) -> list[dict[str, Any]]:
        return self.node.jobs(kind=kind)

    def parked(self) -> dict[str, parking.Parked]:
        with self.node.services.database.read() as connection:
            return parking.parked(connection)

    def work_folder(self) -> Path:
        return self.node.services.config.node.data_dir / "work"


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(tmp_path: Path, exits: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Any:
    install(tmp_path / "package", monkeypatch)

    def make(
        *analyses: AnalysisConfig, folder: str = "data", reserve_bytes: int | None = None, **jobs: Any
    ) -> Scene:
        clock = ManualClock()
        settings = config(tmp_path / folder, analyses=analyses or [analysis()], **jobs)
        scene = Scene(exits.enter_context(small_node(settings, clock)), clock, reserve_bytes)
        exits.callback(scene.task.cancel)
        exits.callback(scene.engine.stop)
        return scene

    return make


def test_results_are_kept_recorded_and_enqueued_for_every_peer(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 6)))
    scene.quiet()
    (run,) = scene.runs()
    assert (run["state"], run["reason"], run["model"]) == ("completed", "", "brightness 1")
    results = scene.results()
    assert sorted(one.sop_instance_uid for one in results) == sorted(run["result_sop_instance_uids"])
    assert len(results) == 3
    deliveries = {(job["lane"], job["payload"]["sop_instance_uid"]) for job in scene.jobs("deliver")}
    assert deliveries == {(peer, one.sop_instance_uid) for peer in ("PACS", "OTHER") for one in results}
    assert {job["payload"]["reason"] for job in scene.jobs("deliver")} == {"result"}


def left_in_the_work_folder(scene: Any) -> list[Path]:
    """What lies there beside the folder of temporary files, and what lies in that."""
    return [path for path in scene.work_folder().rglob("*") if path.name != "temporary"]


def test_nothing_is_left_in_the_work_folder(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    assert [path for path in left_in_the_work_folder(scene) if path.suffix in (".npy", ".json")] == []
    scene.workers.stop()
    assert left_in_the_work_folder(scene) == []


@pytest.mark.checklist("A6")
def test_the_same_study_gives_the_same_objects_byte_for_byte(make: Any) -> None:
    kept = []
    for folder in ("one", "two"):
        scene = make(folder=folder)
        scene.scan(*(slice_of(number) for number in range(1, 5)))
        scene.quiet()
        kept.append({one.sop_instance_uid: one.data_set_sha256 for one in scene.results()})
    assert kept[0] == kept[1]


@pytest.mark.checklist("S5")
def test_a_late_slice_gives_a_new_report_that_names_the_old_one(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 5)))
    scene.quiet()
    scene.scan(slice_of(5))
    scene.quiet()
    first, second = scene.runs()
    assert (first["state"], second["state"]) == ("completed", "completed")
    assert first["sr_sop_instance_uid"] != second["sr_sop_instance_uid"]
    report = scene.report(second["sr_sop_instance_uid"])
    referenced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == first["sr_sop_instance_uid"]


def test_a_repeated_job_changes_nothing(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    before = (scene.runs(), len(scene.results()), len(scene.jobs("deliver")))
    job = scene.jobs("analyze")[0]
    repeated = Job(1, "analyze", job["key"], job["lane"], job["payload"], STUDY, 1, 0.0)
    ((_, outcome),) = scene.task.run(scene.node.services, [repeated])
    assert isinstance(outcome, Done)
    assert before == (scene.runs(), len(scene.results()), len(scene.jobs("deliver")))


def test_a_series_that_is_as_it_was_is_not_analysed_again(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    job = scene.jobs("analyze")[0]
    later = Job(1, "analyze", "k", "", {**job["payload"], "revision": 9}, STUDY, 1, 0.0)
    ((_, outcome),) = scene.task.run(scene.node.services, [later])
    assert isinstance(outcome, Done)
    assert outcome.apply is not None
    scene.node.services.database.write(outcome.apply)
    assert [run["state"] for run in scene.runs()] == ["completed", "unchanged"]
    assert len(scene.results()) == 3


@pytest.mark.parametrize("results", [("sr", "seg", "sc"), ("sc",), ("seg",)])
def test_what_arrives_between_selection_and_analysis_is_analysed_once(
    make: Any, results: tuple[str, ...]
) -> None:
    scene = make(analysis(results=results))
    scene.scan(*(slice_of(number) for number in range(1, 5)))
    scene.clock.advance(61)
    scene.node.schedule.complete()
    work = RetryPolicy.for_work(scene.node.services.config.jobs)
    select = SelectTask()
    Engine(scene.node.services, [Group("work", {select.kind: select}, 1, work)]).run_until_idle(20)
    scene.scan(slice_of(5))
    scene.engine.run_until_idle(60)
    scene.quiet()
    first, *later = scene.runs()
    assert first["state"] == "completed"
    assert {run["state"] for run in later} <= {"unchanged"}
    assert len(scene.results()) == len(results)
    assert all(job["state"] == "done" for job in scene.jobs("analyze"))


def test_a_run_that_starts_later_over_what_a_crashed_one_saw_makes_other_objects(make: Any) -> None:
    """Its content holds another time, so it may not have the same UIDs."""
    kept: list[set[str]] = []
    for folder, pause in (("one", 0), ("two", 100)):
        scene = make(analysis(results=("sr", "sc")), folder=folder)
        scene.clock.advance(pause)
        scene.scan(*(slice_of(number) for number in range(1, 5)))
        scene.quiet()
        kept.append({one.sop_instance_uid for one in scene.results()})
    assert len(kept[0] | kept[1]) == 4


def test_a_node_that_got_old_results_back_analyses_the_study_anew(make: Any) -> None:
    old = make(analysis(results=("sr", "sc")), folder="old")
    old.scan(*(slice_of(number) for number in range(1, 5)))
    old.quiet()
    returned = [old.report(one.sop_instance_uid) for one in old.results()]
    fresh = make(analysis(results=("sr", "sc")), folder="fresh")
    fresh.clock.advance(1000)
    fresh.scan(*returned)
    fresh.scan(*(slice_of(number) for number in range(1, 5)))
    fresh.quiet()
    assert [(run["state"], run["reason"]) for run in fresh.runs()] == [("completed", "")]
    (run,) = fresh.runs()
    assert not set(run["result_sop_instance_uids"]) & {str(one.SOPInstanceUID) for one in returned}
    delivered = {job["payload"]["sop_instance_uid"] for job in fresh.jobs("deliver")}
    assert delivered == set(run["result_sop_instance_uids"])


def test_geometry_that_is_no_volume_is_refused_once_with_its_reason(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in (1, 2, 3, 6, 7)))
    scene.quiet()
    (run,) = scene.runs()
    assert run["state"] == "not-a-volume"
    assert run["reason"].startswith("missing slices: 2 of 7")
    assert scene.results() == []
    (job,) = scene.jobs("analyze")
    assert (job["state"], job["attempts"]) == ("done", 1)


def test_the_missing_slice_that_comes_late_makes_it_whole(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in (1, 2, 4, 5)))
    scene.quiet()
    scene.scan(slice_of(3))
    scene.quiet()
    assert [run["state"] for run in scene.runs()] == ["not-a-volume", "completed"]


def test_a_refusal_of_the_model_is_recorded_and_not_tried_again(make: Any) -> None:
    scene = make(analysis("refuser"))
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    (run,) = scene.runs()
    assert run["state"] == "unfit-input"
    assert run["reason"] == "model refuser refuses the series: too dark to see"
    assert scene.jobs("analyze")[0]["state"] == "done"


def test_a_crash_fails_one_job_which_is_set_aside(make: Any) -> None:
    scene = make(analysis("crasher"))
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    (run,) = scene.runs()
    assert run["state"] == "failed"
    assert "no such organ" in run["reason"]
    (job,) = scene.jobs("analyze")
    assert (job["state"], job["error_name"], job["attempts"]) == ("set_aside", "model-crashed", 1)
    assert scene.parked() == {}


def test_three_crashes_in_a_row_park_the_analysis_until_somebody_looks(make: Any) -> None:
    scene = make(analysis("crasher"))
    for number in range(1, 6):
        series = f"{SERIES}.{number}"
        scene.scan(*(slice_of(10 * number + one, series_instance_uid=series) for one in (1, 2, 3)))
    scene.quiet()
    assert [job["state"] for job in scene.jobs("analyze")] == ["set_aside"] * 5
    errors = sorted(job["error_name"] for job in scene.jobs("analyze"))
    assert errors == ["analysis-parked"] * 2 + ["model-crashed"] * 3
    assert list(scene.parked()) == ["test"]
    scene.node.schedule.tell_of_parked()
    data_dir = scene.node.services.config.node.data_dir
    assert [alarm.name for alarm in alarms.standing(data_dir)] == ["analysis-parked"]
    assert "no such organ" in alarms.standing(data_dir)[0].message


@pytest.mark.parametrize(
    "code",
    ["open('/dev/shm/x', 'wb').write(b'0' * (300 << 20))", "raise OSError(28, 'No space left on device')"],
)
def test_a_model_without_space_where_the_disk_has_some_is_parked_as_well(make: Any, code: str) -> None:
    scene = make(analysis("told", parameters={"code": code}))
    for number in range(1, 4):
        series = f"{SERIES}.{number}"
        scene.scan(*(slice_of(10 * number + one, series_instance_uid=series) for one in (1, 2, 3)))
    scene.quiet()
    assert [(job["state"], job["error_name"]) for job in scene.jobs("analyze")] == [
        ("set_aside", "model-crashed")
    ] * 3
    assert "no space where it wrote" in scene.parked()["test"].reason


def test_a_model_may_find_hundreds_of_numbers(make: Any) -> None:
    """What a later analysis asks of them stands with the result, where there is little room."""
    asking = {"Modality": "CT", "test.number-299": ">= 299", "test.speech": "word*"}
    scene = make(analysis("talkative"), AnalysisConfig("next", "brightness", when=asking, after=("test",)))
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    scene.quiet()
    assert [(run["analysis"], run["state"]) for run in scene.runs()] == [
        ("test", "completed"),
        ("next", "completed"),
    ]


def test_a_refusal_of_the_model_between_crashes_shows_that_it_works(make: Any) -> None:
    scene = make(analysis("moody"))
    for number, value in enumerate((-1, -1, 0, -1, -1), 1):
        series = f"{SERIES}.{number}"
        scene.scan(
            *(
                slice_of(10 * number + one, series_instance_uid=series, SeriesNumber=value)
                for one in (1, 2, 3)
            )
        )
        scene.quiet()
    states = [run["state"] for run in scene.runs()]
    assert (states.count("failed"), set(states)) == (4, {"failed", "unfit-input"})
    assert scene.parked() == {}


def test_a_run_that_ends_well_forgets_the_crashes_before_it(make: Any) -> None:
    scene = make(analysis("moody"))
    for number, value in enumerate((-1, -1, 5, -1, -1), 1):
        slices = [
            slice_of(10 * number + one, series_instance_uid=f"{SERIES}.{number}", SeriesNumber=value)
            for one in (1, 2, 3)
        ]
        scene.scan(*slices)
        scene.quiet()
    assert sorted(job["state"] for job in scene.jobs("analyze")) == ["done"] + ["set_aside"] * 4
    assert scene.parked() == {}


def test_a_hang_is_ended_at_the_configured_time(make: Any) -> None:
    scene = make(analysis("sleeper"), timeout_seconds=3.0)
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    assert scene.jobs("analyze")[0]["error_name"] == "model-timed-out"


def test_a_crash_harms_no_other_analysis(make: Any) -> None:
    scene = make(
        AnalysisConfig("bad", "segfaulter"), AnalysisConfig("good", "series-quality"), analysis("brightness")
    )
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    assert {run["analysis"]: run["state"] for run in scene.runs()} == {
        "bad": "failed",
        "good": "completed",
        "test": "completed",
    }


def test_a_study_of_two_patients_that_were_told_apart_late_is_not_analysed(make: Any) -> None:
    scene = make()
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    job = scene.jobs("analyze")[0]
    scene.scan(slice_of(4, PatientID="SOMEBODY-ELSE"))
    late = Job(1, "analyze", "k", "", {**job["payload"], "revision": 9}, STUDY, 1, 0.0)
    ((_, outcome),) = scene.task.run(scene.node.services, [late])
    assert outcome.apply is not None
    scene.node.services.database.write(outcome.apply)
    assert scene.runs()[-1]["state"] == "two-patients"


def test_instances_without_pixels_are_no_volume(make: Any) -> None:
    scene = make(analysis(when={"Modality": "SR"}))
    scene.scan(
        made.instance(
            study_instance_uid=STUDY,
            series_instance_uid=SERIES,
            sop_instance_uid=f"{SERIES}.1",
            Modality="SR",
        )
    )
    scene.quiet()
    assert [run["state"] for run in scene.runs()] == ["not-a-volume"]


def test_a_stop_leaves_the_job_for_the_next_start(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make(analysis("sleeper"))
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.clock.advance(61)
    scene.node.schedule.complete()
    scene.engine.start()
    wait_until(lambda: list(scene.work_folder().rglob("pids")), seconds=30, what="the model's start")
    scene.engine.stop(20.0)
    (job,) = scene.jobs("analyze")
    assert (job["state"], job["attempts"]) == ("ready", 0)
    assert left_in_the_work_folder(scene) == []


def test_a_relative_data_directory_works(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clock = ManualClock()
    with small_node(config(Path("here"), analyses=[analysis()]), clock) as node:
        scene = Scene(node, clock)
        scene.scan(*(slice_of(number) for number in range(1, 4)))
        scene.quiet()
        scene.workers.stop()
        assert [run["state"] for run in scene.runs()] == ["completed"]


@pytest.mark.parametrize(
    "transfer_syntax_uid",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGLSLossless,
    ],
)
def test_the_transfer_syntax_does_not_change_the_numbers(make: Any, transfer_syntax_uid: str) -> None:
    scene = make(analysis(results=("sr",)))
    slices = [slice_of(number) for number in range(1, 4)]
    scene.node.receive(*slices, transfer_syntax_uid=transfer_syntax_uid)
    scene.quiet()
    (run,) = scene.runs()
    assert run["state"] == "completed", run["reason"]
    report = scene.report(run["sr_sop_instance_uid"])
    stored = np.stack([np.frombuffer(one.PixelData, "<i2") for one in slices])
    assert f"{float(stored.mean()):.4f}"[:7] in str(report)


def test_an_analysis_that_was_taken_out_of_the_configuration_is_done(make: Any) -> None:
    scene = make()
    payload = {
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "analysis": "gone",
        "model": "x",
        "revision": 1,
        "started_at": 0.0,
        "selected_digest": "d",
    }
    ((_, outcome),) = scene.task.run(
        scene.node.services, [Job(1, "analyze", "k", "", payload, STUDY, 1, 0.0)]
    )
    assert outcome == Done()


def test_a_model_that_cannot_be_loaded_is_set_aside_with_the_reason(make: Any) -> None:
    scene = make(analysis("uninstalled"))
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    (job,) = scene.jobs("analyze")
    assert (job["error_name"], job["state"]) == ("model-unusable", "set_aside")
    assert "there is no model 'uninstalled'" in job["error"]


def test_a_disk_without_room_is_said_before_anything_is_written(make: Any, tmp_path: Path) -> None:
    scene = make(reserve_bytes=shutil.disk_usage(tmp_path).total)
    scene.scan(*(slice_of(number) for number in range(1, 4)))
    scene.quiet()
    (job,) = scene.jobs("analyze")
    assert (job["error_name"], job["state"]) == ("out-of-space", "ready")
    assert scene.runs()[0]["state"] == "failed"


def test_an_instance_that_was_settled_meanwhile_is_still_read(make: Any) -> None:
    scene = make()
    scene.scan(slice_of(1))
    stored = scene.node.stored(f"{SERIES}.1")
    (instance,) = source_series.read(scene.node.holdings, [stored])
    scene.engine.run_until_idle(30)
    settled = scene.node.stored(f"{SERIES}.1")
    assert settled.location != stored.location
    scene.node.services.storage.path(stored.location).unlink()
    (frame,) = instance.frames()
    assert np.array_equal(frame.ravel(), np.frombuffer(slice_of(1).PixelData, "<i2"))
    stored_nowhere = replace(stored, sop_instance_uid="1.2.3")
    with pytest.raises(StorageFailure):
        source_series.read(scene.node.holdings, [stored_nowhere])
