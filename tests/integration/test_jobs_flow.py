"""From the last image of a study to its analyses and deliveries, with every tick by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid

from node.config.settings import AnalysisConfig
from tests.support import made
from tests.support.manual_clock import ManualClock
from tests.support.small_node import SmallNode, config, small_node

LUNGS = AnalysisConfig("lungs", "lungs", when={"Modality": "CT"}, send_to=("PACS",))


class Scene:
    def __init__(self, node: SmallNode, clock: ManualClock) -> None:
        self.node = node
        self.clock = clock
        self.study, self.series = uid.generate_uid(), uid.generate_uid()

    def scan(self, count: int = 1, **attributes: Any) -> list[str]:
        images = [
            made.ct_image(study_instance_uid=self.study, series_instance_uid=self.series, **attributes)
            for _ in range(count)
        ]
        return self.node.receive(*images)

    def quiet(self) -> None:
        """Let the quiet period pass, and everything happen that follows."""
        self.clock.advance(61)
        self.node.schedule.complete()
        self.node.engine.run_until_idle(30)

    def analyses(self) -> list[int]:
        """Revisions for which an analysis waits."""
        return [job["payload"]["revision"] for job in self.node.jobs(kind="analyze", state="ready")]


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def scene(tmp_path: Path, exits: ExitStack) -> Scene:
    clock = ManualClock()
    return Scene(exits.enter_context(small_node(config(tmp_path, analyses=[LUNGS]), clock)), clock)


def test_a_quiet_study_is_selected_once(scene: Scene) -> None:
    scene.scan(3)
    scene.node.schedule.complete()
    assert scene.node.jobs(kind="select") == []
    scene.quiet()
    scene.quiet()
    assert scene.analyses() == [3]
    assert len(scene.node.jobs(kind="select")) == 1


def test_a_late_image_selects_again_and_the_earlier_selection_gives_way(scene: Scene) -> None:
    scene.scan(3)
    scene.quiet()
    scene.scan()
    scene.quiet()
    assert scene.analyses() == [4]


def test_an_image_that_is_sent_twice_selects_nothing_again(scene: Scene) -> None:
    image = made.ct_image(study_instance_uid=scene.study, series_instance_uid=scene.series)
    scene.node.receive(image)
    scene.quiet()
    scene.node.receive(image)
    scene.quiet()
    assert len(scene.node.jobs(kind="select")) == 1


def test_what_the_node_made_selects_nothing(scene: Scene) -> None:
    result = made.instance(study_instance_uid=scene.study, Modality="SR")
    scene.node.services.ingest.own([made.part10(result)], then=lambda connection: None)
    scene.quiet()
    assert scene.node.jobs(kind="select") == []


def test_a_restart_between_the_last_image_and_the_quiet_keeps_the_study_waiting(
    tmp_path: Path, exits: ExitStack
) -> None:
    clock = ManualClock()
    settings = config(tmp_path, analyses=[LUNGS])
    with small_node(settings, clock) as before:
        scene = Scene(before, clock)
        scene.scan(2)
    with small_node(settings, clock) as after:
        scene.node = after
        scene.quiet()
        assert scene.analyses() == [2]
