"""Analyses that follow others, and those that are given several series and an earlier study, in a node."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node import analysis_runs
from node.clock import Clock
from node.config.settings import AnalysisConfig
from node.rebuild.rebuilding import rebuild
from node.storage.guard import DataDirectory
from tests.integration.test_analyze_flow import SERIES, STUDY, Scene, slice_of
from tests.integration.test_rebuild import Quiet
from tests.support.made_models import install
from tests.support.manual_clock import ManualClock
from tests.support.small_node import config, small_node

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FIRST = AnalysisConfig("test", "brightness", results=("sr",))
TOML = """\
[analysis]
name = "sums"
version = "1"
title = "What it was given"
manufacturer = "nobody"
intended_use = "tests"
limits = "all"
licence = "none"
evidence = "none"
family = {{ value = "123105", scheme = "DCM", meaning = "Histogram Analysis" }}

[runner]
kind = "python"
entry = "model.py:Sums"
files = [{{ path = "model.py", sha256 = "{digest}" }}]

[[input]]
name = "ct"
as = "volume"

[[input]]
name = "other"
as = "volume"
from = "study"

[[input]]
name = "before"
as = "volume"
from = "prior"
optional = true

[[parameter]]
name = "factor"
default = 1.0
meaning = "by which each is multiplied"
"""
CODE = """\
from models.types import Code, Findings, Measurement

UNIT = Code("1", "UCUM", "no units")


class Sums:
    def predict(self, inputs):
        factor = inputs.parameters["factor"]
        return Findings(measurements=tuple(
            Measurement(Code(name, "99TEST", name), float(one.voxels[0, 0, 0]) * factor, UNIT, name=name)
            for name, one in inputs.given.items()
        ))
"""


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(tmp_path: Path, exits: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Any:
    install(tmp_path / "package", monkeypatch)

    def make(*analyses: AnalysisConfig) -> Scene:
        clock = ManualClock()
        settings = config(tmp_path / "data", analyses=analyses)
        scene = Scene(exits.enter_context(small_node(settings, clock)), clock)
        exits.callback(scene.task.cancel)
        exits.callback(scene.engine.stop)
        return scene

    return make


@pytest.fixture
def sums(tmp_path: Path) -> str:
    """A model folder: what it finds is the first voxel of each input, by its name."""
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "model.py").write_text(CODE)
    digest = hashlib.sha256(CODE.encode()).hexdigest()
    (folder / "analysis.toml").write_text(TOML.format(digest=digest))
    return str(folder)


def after(name: str, **facts: Any) -> AnalysisConfig:
    return AnalysisConfig(name, "brightness", results=("sr",), after=("test",), **facts)


def of(scene: Scene, analysis: str) -> list[tuple[int, str, str]]:
    return [
        (run["revision"], run["state"], run["reason"]) for run in scene.runs() if run["analysis"] == analysis
    ]


def constant(series: str, value: int, number: int, **attributes: Any) -> Dataset:
    data_set = slice_of(
        number,
        series_instance_uid=series,
        sop_instance_uid=f"{series}.{number}",
        **attributes,
    )
    data_set.PixelData = bytes(len(data_set.PixelData))
    data_set.RescaleSlope, data_set.RescaleIntercept = 1, value
    return data_set


def volume(series: str, value: int, **attributes: Any) -> list[Dataset]:
    """Three slices whose voxels are all ``value``."""
    return [constant(series, value, number, **attributes) for number in range(3)]


def test_an_analysis_follows_another_where_that_found_what_it_asks_for(make: Any) -> None:
    scene = make(
        after("matches", when={"test.one": "passed", "test.two": "failed", "test.bright": "found"}),
        after("does-not", when={"test.Test": "something else"}),
        FIRST,
    )
    scene.scan(*(slice_of(number) for number in range(4)))
    scene.quiet()
    assert of(scene, "test") == [(4, "completed", "")]
    assert of(scene, "matches") == [(4, "completed", "")]
    ((_, state, reason),) = of(scene, "does-not")
    assert state == "no-match"
    assert "test.Test is '" in reason
    assert "the analysis wants 'something else'" in reason


def test_a_late_slice_runs_the_whole_chain_again_in_its_order(make: Any) -> None:
    scene = make(after("second", when={"test.one": "passed"}), FIRST)
    scene.scan(*(slice_of(number) for number in range(4)))
    scene.quiet()
    scene.scan(slice_of(4))
    scene.quiet()
    for name in ("test", "second"):
        assert of(scene, name) == [(4, "completed", ""), (5, "completed", "")]
    order = [job["payload"]["analysis"] for job in reversed(scene.jobs("analyze"))]
    assert order == ["test", "second"] * 2
    reports = [run for run in scene.runs() if run["analysis"] == "second"]
    predecessor = scene.report(reports[1]["sr_sop_instance_uid"]).PredecessorDocumentsSequence[0]
    referenced = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == reports[0]["sr_sop_instance_uid"]


def test_an_analysis_that_follows_a_refused_one_says_so(make: Any) -> None:
    refuser = AnalysisConfig("test", "refuser", results=("sr",))
    scene = make(refuser, after("second", when={"test.one": "passed"}), after("anyhow"))
    scene.scan(*(slice_of(number) for number in range(4)))
    scene.quiet()
    ((_, state, reason),) = of(scene, "second")
    assert (state, "has no result for this series (unfit-input)" in reason) == ("no-match", True)
    assert of(scene, "anyhow") == [(4, "completed", "")]


def test_what_was_found_comes_back_with_an_index_that_is_made_again(make: Any, tmp_path: Path) -> None:
    scene = make(FIRST, AnalysisConfig("next", "brightness", when={"test.one": "failed"}, after=("test",)))
    directory = DataDirectory(tmp_path / "data", None)
    directory.open()
    directory.check_archive(holds_settled=False)
    directory.check_log([], holds_instances=False)
    directory.close()
    scene.scan(*(slice_of(number) for number in range(4)))
    scene.quiet()
    before = next(run for run in scene.runs() if run["analysis"] == "test")
    assert before["facts"]["one"] == ["passed"]
    services = scene.node.services
    services.database.close()
    services.storage.close()
    (tmp_path / "data" / "index.sqlite").unlink()
    rebuild(services.config, Clock(), Quiet())
    with small_node(services.config, scene.clock) as again, again.services.database.read() as connection:
        (run,) = analysis_runs.of_study(connection, STUDY)
        found = analysis_runs.found(connection, STUDY, SERIES, "test")
    assert run["state"] == "completed"
    # What nobody asks for is not kept with a result.
    assert found == {"one": ("passed",)}


def test_a_model_is_given_another_series_of_the_study_and_an_earlier_study(make: Any, sums: str) -> None:
    scene = make(
        AnalysisConfig(
            "sums",
            sums,
            when={"Modality": "CT"},
            inputs={"other": {"Modality": "MR"}},
            parameters={"factor": 2.0},
            results=("sr",),
        )
    )
    scene.scan(*volume(SERIES, 10))
    scene.quiet()
    ((_, state, reason),) = of(scene, "sums")
    assert state == "unfit-input"
    assert "no series of the study matches the input 'other'" in reason
    # The earlier study comes first this time, and the missing series runs the analysis again by itself.
    scene.scan(*volume("1.2.77", 30, study_instance_uid="1.2.7", StudyDate="20200101"))
    scene.scan(*volume(f"{SERIES}0", 20, Modality="MR"))
    scene.quiet()
    assert [state for _, state, _ in of(scene, "sums")] == ["unfit-input", "completed"]
    run = scene.runs()[-1]
    assert run["facts"] == {"ct": ["20"], "other": ["40"], "before": ["60"]}
    assert run["reason"] == "compared with the study of 2020-01-01"


def test_a_prior_that_comes_later_changes_nothing_by_itself(make: Any, sums: str) -> None:
    scene = make(
        AnalysisConfig(
            "sums", sums, when={"Modality": "CT"}, inputs={"other": {"Modality": "MR"}}, results=("sr",)
        )
    )
    scene.scan(*volume(SERIES, 10), *volume(f"{SERIES}0", 20, Modality="MR"))
    scene.quiet()
    scene.scan(*volume("1.2.77", 30, study_instance_uid="1.2.7", StudyDate="20200101"))
    scene.quiet()
    assert [state for _, state, _ in of(scene, "sums")] == ["completed"]
    services = scene.node.services
    now = scene.clock.timestamp()
    services.database.write(lambda connection: services.completion.select_again(connection, STUDY, now))
    scene.quiet()
    runs = [run for run in scene.runs() if run["analysis"] == "sums"]
    assert [run["facts"].get("before") for run in runs] == [None, ["30"]]
    assert [run["reason"] for run in runs] == [
        "no prior: no earlier study that is known to be of the same patient is here",
        "compared with the study of 2020-01-01",
    ]


def test_an_earlier_study_that_is_still_being_sent_is_waited_for(make: Any, sums: str) -> None:
    scene = make(
        AnalysisConfig(
            "sums", sums, when={"Modality": "CT"}, inputs={"other": {"Modality": "MR"}}, results=("sr",)
        )
    )
    scene.scan(*volume(SERIES, 10), *volume(f"{SERIES}0", 20, Modality="MR"))
    scene.clock.advance(60)
    first, *rest = volume("1.2.77", 30, study_instance_uid="1.2.7", StudyDate="20200101")
    scene.scan(first)
    scene.clock.advance(1)
    scene.node.schedule.complete()
    scene.engine.run_until_idle(60)
    assert scene.runs() == []
    scene.scan(*rest)
    scene.quiet()
    (run,) = [one for one in scene.runs() if one["analysis"] == "sums"]
    assert run["facts"] == {"ct": ["10"], "other": ["20"], "before": ["30"]}


def test_another_version_of_a_model_runs_when_a_person_asks_and_the_same_one_does_not(
    make: Any, sums: str
) -> None:
    folder = Path(sums) / "analysis.toml"
    other = 'name = "other"\nas = "volume"\nfrom = "study"\n'
    folder.write_text(folder.read_text().replace(other, f"{other}optional = true\n"))
    scene = make(AnalysisConfig("sums", sums, when={"Modality": "CT"}, results=("sr",)))
    services = scene.node.services

    def ask_again() -> list[str]:
        now = scene.clock.timestamp()
        services.database.write(lambda connection: services.completion.select_again(connection, STUDY, now))
        scene.quiet()
        return [state for _, state, _ in of(scene, "sums")]

    scene.scan(*volume(SERIES, 10))
    scene.quiet()
    assert ask_again() == ["completed", "unchanged"]
    folder.write_text(folder.read_text().replace('version = "1"', 'version = "2"'))
    assert ask_again() == ["completed", "unchanged", "completed"]
    assert [run["model"].split()[:2] for run in scene.runs()[::2]] == [["sums", "1"], ["sums", "2"]]
