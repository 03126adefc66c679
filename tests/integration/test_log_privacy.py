"""A node that nobody configured otherwise writes nothing of a data set to its log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from node.wire import scu
from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.waiting import ANALYSES_SECONDS, wait_until

CONFIGURATION = """
[study]
quiet_seconds = 1
[jobs]
tries = 1
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = 1
[[analyses]]
name = "quality"
model = "series-quality"
results = ["sr", "sc"]
send_to = ["PACS"]
[[analyses]]
name = "lungs"
model = "lungs"
results = ["sr", "seg", "sc"]
"""
ROOT_UID = "1.2.826.0.1.77001"
#: What is put in place of a valid value of the same length: nothing that its VR allows.
UGLY = {
    "FrameOfReferenceUID": ("1.2.3.4.5.6.7", "ZebraFrameUid"),
    "StudyDate": ("20240228", "ZebraDay"),
    "PatientBirthDate": ("19550712", "ZebraDob"),
    "StudyTime": ("101502", "ZebraT"),
    "PatientAge": ("077Y", "Zebr"),
    "SliceThickness": ("1.234567", "ZebraDec"),
    "PatientSex": ("OTHERSEX", "zebra+~x"),
    "InstanceNumber": ("7654321", "ZebraNo"),
}


def series(number: int, spoilt: str | None) -> list[tuple[str, bytes]]:
    """Four slices, (SOP Instance UID, data set), with one value that its VR does not allow."""
    found = []
    for position in range(1, 5):
        sop_instance_uid = f"{ROOT_UID}.{number}.1.{position}"
        data_set = made.ct_image(
            study_instance_uid=f"{ROOT_UID}.{number}",
            series_instance_uid=f"{ROOT_UID}.{number}.1",
            sop_instance_uid=sop_instance_uid,
            pixels=np.random.default_rng(position).integers(-900, 300, (16, 16)).astype("<i2"),
            ImagePositionPatient=[0, 0, 1.5 * position],
            PatientName="Zebrowski^Zoe",
            PatientID=f"ZEBRA-{number}",
            **{keyword: good for keyword, (good, _) in UGLY.items() if spoilt in (keyword, "all")},
        )
        content = made.encoded(data_set)
        for keyword, (good, bad) in UGLY.items():
            if spoilt in (keyword, "all"):
                assert good.encode() in content, keyword
                content = content.replace(good.encode(), bad.encode())
        found.append((sop_instance_uid, content))
    return found


def send(port: int, instances: list[tuple[str, bytes]]) -> list[int]:
    contexts = [scu.ProposedContext(made.CT_IMAGE_STORAGE, (uid.ExplicitVRLittleEndian,))]
    with scu.connect(
        "127.0.0.1",
        port,
        calling_ae_title="SCANNER",
        called_ae_title="ANODE",
        contexts=contexts,
        timeout_seconds=30.0,
        max_pdu_bytes=131072,
    ) as association:
        [context] = association.contexts.values()
        return [
            association.send_store(
                context,
                sop_class_uid=made.CT_IMAGE_STORAGE,
                sop_instance_uid=sop_instance_uid,
                data_set=content,
            ).status
            for sop_instance_uid, content in instances
        ]


@pytest.mark.timeout(2 * ANALYSES_SECONDS)
def test_the_log_of_a_whole_run_holds_no_value_and_no_uid(tmp_path: Path) -> None:
    node = AnodeProcess(tmp_path / "node", CONFIGURATION)
    with node:
        cases = [None, "all", *UGLY]
        for number, spoilt in enumerate(cases):
            assert send(node.port, series(number, spoilt)) == [0] * 4
        ((sop_instance_uid, content), *_) = series(0, None)
        other = content.replace(b"Zebrowski^Zoe", b"Zebrowski^Zac")
        assert send(node.port, [(sop_instance_uid, other)]) == [0xC001]
        assert send(node.port, [(f"{ROOT_UID}.9.9", content)]) == [0xA900]

        def is_done() -> bool:
            with sqlite3.connect(f"file:{node.folder}/data/index.sqlite?mode=ro", uri=True) as index:
                runs = index.execute("SELECT count(*) FROM analysis_run WHERE state <> 'queued'").fetchone()
                left = index.execute(
                    "SELECT count(*) FROM job WHERE kind <> 'deliver' AND state IN ('ready', 'leased')"
                ).fetchone()
            return bool(runs[0] >= 2 * len(cases) and not left[0])

        wait_until(is_done, ANALYSES_SECONDS, "the analyses")
    log = node.log.read_text()
    assert "association" in log
    lines = [
        line
        for line in log.splitlines()
        if "zebra" in line.lower() or "zebro" in line.lower() or ROOT_UID in line
    ]
    assert lines == []
    assert not any(bad in log for _, bad in UGLY.values())
    assert "Traceback" not in log
