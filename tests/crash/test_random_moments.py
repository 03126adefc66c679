"""SIGKILL at random moments while senders, settling, analyses, delivery and queries go on."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress

import pytest

from node.errors import PeerError
from tests.support.crash_scene import Scene, study
from tests.support.retrieving import find
from tests.support.waiting import ANALYSES_SECONDS

#: ``make crash`` sets these; the seed is printed, so that a run that failed can be had again.
MOMENTS = int(os.environ.get("ANODE_CRASH_COUNT") or 3)
SEED = os.environ.get("ANODE_CRASH_SEED")
ASSOCIATIONS = 4
#: The latest moment, from the node's line on; one in so many kills comes before that line.
LATEST_SECONDS = 2.5
ONE_IN_EARLY = 6
#: At every so many, a study is analysed, and the kill comes when a first result is at the PACS.
PATIENT_EVERY = max(3, MOMENTS // 8)

pytestmark = pytest.mark.timeout(2 * ANALYSES_SECONDS + 120 * MOMENTS)


class Load:
    """Four scanners and a workstation, until the node is gone."""

    def __init__(self, scene: Scene, seed: int, *, has_analysed: bool) -> None:
        self._scene = scene
        self.studies: set[str] = set()
        self._threads = [
            threading.Thread(
                target=self._scan, args=(seed + number, has_analysed and number == 0), daemon=True
            )
            for number in range(ASSOCIATIONS)
        ]
        self._threads.append(threading.Thread(target=self._ask, daemon=True))
        for thread in self._threads:
            thread.start()

    def _scan(self, seed: int, is_first_analysed: bool) -> None:
        chance = random.Random(seed)
        for number in range(100):
            # A model's process takes longer than all the rest.
            instances = study(
                chance.randrange(1, 9),
                side=chance.choice((16, 64, 300)),
                seed=seed * 100 + number,
                is_analysed=is_first_analysed and number == 0,
            )
            self.studies.add(instances[0].study_instance_uid)
            if len(self._scene.send(instances)) < len(instances):
                return

    def _ask(self) -> None:
        with suppress(PeerError, AssertionError):
            for _ in range(1000):
                for one in find(self._scene.node.port, "STUDY", StudyInstanceUID=""):
                    find(self._scene.node.port, "SERIES", StudyInstanceUID=one.StudyInstanceUID)

    def ends(self) -> None:
        for thread in self._threads:
            thread.join(ANALYSES_SECONDS)
            assert not thread.is_alive(), "a peer hangs after the node is gone"


def test_killed_at_random_moments_the_node_has_all_that_it_acknowledged_and_each_result_once(
    scene: Scene,
) -> None:
    seed = int(SEED) if SEED else random.SystemRandom().randrange(1 << 32)
    print(f"SEED={seed}")
    chance = random.Random(seed)
    scene.start()
    repaired = 0
    for moment in range(MOMENTS):
        is_patient = moment % PATIENT_EVERY == PATIENT_EVERY - 1
        load = Load(scene, chance.randrange(1 << 32), has_analysed=is_patient)
        if is_patient:
            scene.another_result_arrives()
        time.sleep(chance.uniform(0.0, LATEST_SECONDS))  # the moment itself
        scene.node.kill()
        load.ends()
        scene.nobody_is_left()
        while chance.randrange(ONE_IN_EARLY) == 0:
            scene.is_killed_while_it_starts(chance.uniform(0.0, 1.5))
        scene.start()
        scene.nothing_is_lost(load.studies)
        repaired += bool(scene.repaired())
        print(
            f"moment {moment + 1}: {len(scene.acknowledged)} acknowledged, {len(scene.pacs.stored)} results"
        )
    assert repaired > MOMENTS // 4, "the kills came when nothing was going on"
    # Only what was on its way at a kill may be at the PACS twice, and is the same then.
    scene.comes_to_rest(may_repeat=MOMENTS)
    scene.nothing_is_lost([])
    scene.is_proven()
