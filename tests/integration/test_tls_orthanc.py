"""Orthanc over TLS, as the one that calls and as the one that is called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import confirmations
from node.__main__ import main
from node.config.settings import PeerConfig
from node.wire import scu
from node.wire.tls import ClientTls
from tests.support import made
from tests.support.certificates import Authority, Pair
from tests.support.orthanc import Orthanc
from tests.support.ports import free_port
from tests.support.retrieving import STUDY_ROOT_MOVE
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until


@pytest.fixture
def both(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[SmallNode, Orthanc, Pair]]:
    """A node and an Orthanc that know each other, each by its certificate."""
    monkeypatch.setattr("node.tasks.deliver.CONFIRM_AFTER_SECONDS", 0.1)
    monkeypatch.setattr("node.tasks.confirm.REPORT_SECONDS", 0.2)
    port, mine = free_port(), authority.issue("anode")
    orthanc = Orthanc(
        tmp_path / "orthanc",
        {"ANODE": ("localhost", port)},
        tls=(authority.issue("orthanc"), authority.certificate),
    )
    orthanc.start()
    try:
        peer = PeerConfig("ORTHANC", "localhost", orthanc.port, tls=True)
        settings = config(tmp_path / "node", peers=[peer], delivery_retry_first_seconds=0.2)
        tls = authority.config(mine, port=port)
        settings = replace(settings, node=replace(settings.node, tls=tls))
        with small_node(settings) as node:
            yield node, orthanc, mine
    finally:
        orthanc.stop()


def test_orthanc_and_the_node_do_all_their_work_over_tls(
    both: tuple[SmallNode, Orthanc, Pair],
    authority: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Orthanc echoes and stores to us; we deliver, are confirmed, and move to Orthanc: all of it over TLS."""
    node, orthanc, mine = both

    # Orthanc calls us
    orthanc.post("/modalities/ANODE/echo", {})
    theirs = made.ct_image()
    sent = orthanc.post_bytes("/instances", made.part10(theirs))
    orthanc.post("/modalities/ANODE/store", sent["ID"])
    assert node.stored(str(theirs.SOPInstanceUID)).sop_instance_uid == theirs.SOPInstanceUID

    # we call Orthanc: results, the request for storage commitment, and its report on an association to us
    study = uid.generate_uid()
    (result,) = node.receive(made.instance(study_instance_uid=study, Modality="SR"))
    node.enqueue_delivery("ORTHANC", result, reason="result")
    node.engine.start()

    def states() -> set[str]:
        with node.services.database.read() as connection:
            return {item.state for item in confirmations.of_study(connection, study)}

    wait_until(lambda: states() == {"held"}, 30, "the report of Orthanc")
    assert result in orthanc.instances()

    # sub-operations of a C-MOVE
    image = made.ct_image()
    node.receive(image)
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", image.StudyInstanceUID
    with scu.connect(
        "localhost",
        node.server.tls_port or 0,
        calling_ae_title="WORKSTATION",
        called_ae_title="ANODE",
        contexts=[scu.ProposedContext(STUDY_ROOT_MOVE, ("1.2.840.10008.1.2.1",))],
        timeout_seconds=20,
        max_pdu_bytes=131072,
        tls=ClientTls(authority.config(mine)),
    ) as association:
        answers = list(association.move(STUDY_ROOT_MOVE, asked, "ORTHANC"))
    assert answers[-1][0] == 0
    assert image.SOPInstanceUID in orthanc.instances()

    # and anode check says so
    file = tmp_path / "check.toml"
    file.write_text(
        f'[node.tls]\ncertificate = "{mine.certificate}"\nkey = "{mine.key}"\n'
        f'ca = "{authority.certificate}"\n'
        f'[[peers]]\nae_title = "ORTHANC"\nhost = "localhost"\nport = {orthanc.port}\ntls = true\n'
    )
    capsys.readouterr()
    assert main(["check", "--tls", "ORTHANC", "--json", "--config", str(file)]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["certificate"]["subject"] == "CN=orthanc"
    assert told["client_certificate"] == "the peer requires one, and accepts ours"
    file.write_text(file.read_text().replace("tls = true", "tls = false"))
    assert main(["echo", "ORTHANC", "--config", str(file)]) == 1
    assert "this port speaks TLS; set tls = true" in capsys.readouterr().err
