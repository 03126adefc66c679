"""Orthanc confirms our results, and we confirm what Orthanc asks about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import uid

from node import confirmations
from node.config.settings import PeerConfig
from tests.support import made
from tests.support.orthanc import Orthanc
from tests.support.ports import free_port
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SmallNode, Orthanc]]:
    monkeypatch.setattr("node.tasks.deliver.CONFIRM_AFTER_SECONDS", 0.1)
    monkeypatch.setattr("node.tasks.confirm.REPORT_SECONDS", 0.2)
    port = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", {"ANODE": ("127.0.0.1", port)})
    orthanc.start()
    try:
        peer = PeerConfig("ORTHANC", "127.0.0.1", orthanc.port)
        settings = config(tmp_path / "node", peers=[peer], port=port, delivery_retry_first_seconds=0.2)
        with small_node(settings) as node:
            yield node, orthanc
    finally:
        orthanc.stop()


def test_orthanc_reports_that_it_holds_our_results(pair: tuple[SmallNode, Orthanc]) -> None:
    node, orthanc = pair
    study = uid.generate_uid()
    results = node.receive(*(made.instance(study_instance_uid=study, Modality="SR") for _ in range(2)))
    node.enqueue_delivery("ORTHANC", *results, reason="result")
    node.engine.start()

    def states() -> set[str]:
        with node.services.database.read() as connection:
            return {item.state for item in confirmations.of_study(connection, study)}

    wait_until(lambda: states() == {"held"}, 30, "the report of Orthanc")
    wait_until(lambda: node.jobs(kind="confirm")[0]["state"] == "done", what="the job")
    assert sorted(orthanc.instances()) == sorted(results)


def test_orthanc_is_told_what_we_hold(pair: tuple[SmallNode, Orthanc]) -> None:
    node, orthanc = pair
    image = made.ct_image()
    node.receive(image)
    node.engine.start()
    unknown = uid.generate_uid()
    asked = [[str(image.SOPClassUID), str(image.SOPInstanceUID)], [str(image.SOPClassUID), unknown]]
    reply = orthanc.post("/modalities/ANODE/storage-commitment", {"DicomInstances": asked})
    path = f"/storage-commitment/{reply['ID']}"
    wait_until(lambda: orthanc.get(path)["Status"] != "Pending", 30, "our report")
    report = orthanc.get(path)
    assert report["Status"] == "Failure"
    assert [item["SOPInstanceUID"] for item in report["Success"]] == [image.SOPInstanceUID]
    (failure,) = report["Failures"]
    assert failure["SOPInstanceUID"] == unknown
    assert "was not available" in failure["Description"]
