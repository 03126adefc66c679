"""SIGKILL at every named step between a socket and a result: what was acknowledged is there, and once."""

from __future__ import annotations

import os
import threading
from pkgutil import resolve_name

import numpy as np
import pytest
from pydicom.uid import generate_uid

from node import status
from tests.support.crash_scene import Instance, Scene, slice_of, study
from tests.support.kill_points import POINTS, Point
from tests.support.waiting import ANALYSES_SECONDS, wait_until

pytestmark = pytest.mark.timeout(4 * ANALYSES_SECONDS)

IS_LONG = bool(os.environ.get("ANODE_CRASH"))
NAMES = [name for name, point in POINTS.items() if IS_LONG or point.is_short]
#: A node lives through so many kills in one test, so that the tests can be shared out.
IN_A_ROW = 4
ROWS = [NAMES[start : start + IN_A_ROW] for start in range(0, len(NAMES), IN_A_ROW)]
#: Where a result may be at the PACS, or on its way, and its answer is lost with the node: it comes again.
ANSWER_LOST = {
    "result-enqueued",
    "result-sent-not-noted",
    "commitment-not-asked",
    "commitment-asked",
    "commitment-reported",
    "confirmed",
}


def other_content(one: Instance) -> Instance:
    """Other pixels under the UIDs of ``one``."""
    return slice_of(
        one.study_instance_uid,
        generate_uid(entropy_srcs=[one.sop_instance_uid]),
        one.sop_instance_uid,
        0,
        np.full((16, 16), 7),
    )


def provoke(scene: Scene, point: Point, number: int) -> tuple[list[Instance], threading.Thread]:
    """Begin what leads to a point; returns what is sent, and the thread that sends it."""
    instances = study(3, seed=number, is_analysed=point.is_analysed)
    by = point.provoked_by
    if by != "study":
        assert scene.send(instances) == [status.SUCCESS] * 3
        scene.comes_to_rest({instances[0].study_instance_uid})
    sent = instances
    if by == "conflict":
        sent = [other_content(instances[0])]
    elif by == "repair":
        path = scene.archive_file(instances[0].sop_instance_uid)
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        sent = instances[:1]
    thread = threading.Thread(target=scene.send, args=(sent,))
    return instances, thread


def is_killed_at(scene: Scene, names: list[str]) -> None:
    """Kill it at the last of ``names``; it has been at the others before."""
    name = names[-1]
    point = POINTS[name]
    instances, sending = provoke(scene, point, len(names))
    study_uid = instances[0].study_instance_uid
    scene.arm(name)
    sending.start()
    wait_until(lambda: scene.was_at(name), ANALYSES_SECONDS, f"the node to come to {name}")
    if point.only_settling:
        sending.join()
        wait_until(lambda: not scene.jobs("ready", "leased"), ANALYSES_SECONDS, "another process to do it")
        assert scene.node.stop() == 0
    else:
        assert scene.node.process is not None
        scene.node.process.wait(ANALYSES_SECONDS)
        scene.nobody_is_left()
        sending.join()
    scene.disarm()
    scene.start()
    repaired = scene.repaired()
    assert set(point.repairs) <= repaired.keys(), repaired
    scene.nothing_is_lost([study_uid])
    assert scene.send(instances) == [status.SUCCESS] * 3
    scene.nothing_is_lost([study_uid])
    scene.comes_to_rest({study_uid}, may_repeat=len(ANSWER_LOST.intersection(names)))
    if point.provoked_by == "conflict":
        assert scene.send([other_content(instances[0])]) == [status.STORE_CONFLICTING_INSTANCE]
        with scene.records() as opened, opened.database.read() as connection:
            [kept] = [
                row
                for row in opened.index.quarantined(connection)
                if row["sop_instance_uid"] == instances[0].sop_instance_uid
            ]
        assert kept["data_set_sha256"] == other_content(instances[0]).sha256
    scene.is_proven()


@pytest.mark.parametrize("names", ROWS, ids=lambda names: "+".join(names))
def test_killed_at_a_point_the_node_has_all_that_it_acknowledged_and_each_result_once(
    scene: Scene, names: list[str]
) -> None:
    scene.start()
    for number in range(len(names)):
        is_killed_at(scene, names[: number + 1])


def test_every_point_is_at_a_function_of_the_node() -> None:
    assert all(callable(resolve_name(point.target.replace(":", "."))) for point in POINTS.values())


def test_a_stopped_node_has_nothing_to_repair(scene: Scene) -> None:
    scene.start()
    scene.send(study(3))
    assert scene.node.stop() == 0
    scene.start()
    assert scene.repaired() == {}
