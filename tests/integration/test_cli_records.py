"""The commands that read the records of a data directory, in tables and as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node import alarms
from node.__main__ import main
from node.clock import Clock
from node.completion import Completion
from node.config import config_file
from node.config.settings import Config
from node.errors import ConflictingInstance, PeerRefused
from node.index import schema
from node.index.database import FILE_NAME, Database
from node.index.index import Index, Provenance
from node.ingest.ingest import Ingest
from node.jobs.queue import Queue
from node.storage.storage import Storage
from tests.support import made

CONFIGURATION = """
[node]
port = 0
[storage]
segment_bytes = 1048576
free_space_reserve_bytes = 1000
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = 9
[[analyses]]
name = "quality"
model = "series-quality"
"""


@dataclass
class Records:
    """The rooms behind a data directory, and the command line over them."""

    config: Config
    clock: Clock
    database: Database
    index: Index
    queue: Queue
    completion: Completion
    storage: Storage
    ingest: Ingest
    capture: pytest.CaptureFixture[str]

    def receive(self, *data_sets: Dataset) -> None:
        for data_set in data_sets:
            self.ingest.receive(
                [made.encoded(data_set)],
                sop_class_uid=data_set.SOPClassUID,
                sop_instance_uid=data_set.SOPInstanceUID,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                provenance=Provenance("SCANNER", "ANODE", "10.0.0.9", 1, self.clock.timestamp()),
            )

    def set_aside_delivery(self, sop_instance_uid: str, study: str) -> None:
        def enqueue(connection: sqlite3.Connection) -> None:
            self.queue.enqueue(
                connection,
                "deliver",
                key=f"PACS/{sop_instance_uid}/route",
                payload={"sop_instance_uid": sop_instance_uid, "peer": "PACS", "reason": "route"},
                lane="PACS",
                study_instance_uid=study,
            )

        self.database.write(enqueue)
        (job,) = self.queue.lease({"deliver": 1}, seconds=60, owner="test")
        error = PeerRefused("PACS answered with status A900: wrong class", status=0xA900)
        self.database.write(lambda connection: self.queue.set_aside(connection, job, error))

    def run(self, *arguments: str, status: int = 0) -> str:
        self.capture.readouterr()
        assert main([*arguments, "--config", str(self.config.source)]) == status
        return self.capture.readouterr().out

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status))

    def jobs(self, **wanted: str) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            return self.queue.jobs(connection, **wanted)


@pytest.fixture
def records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Records]:
    (tmp_path / "config.toml").write_text(CONFIGURATION)
    config = config_file.load(tmp_path / "config.toml")
    config.node.data_dir.mkdir()
    clock = Clock()
    database = Database(config.node.data_dir / FILE_NAME, clock=clock, schema=schema.STATEMENTS)
    storage = Storage(config.node.data_dir, config.storage, clock)
    index, queue, completion = Index(clock), Queue(clock, database), Completion(config, clock)
    ingest = Ingest(
        config=config, clock=clock, database=database, index=index, storage=storage, queue=queue,
        completion=completion,
    )  # fmt: skip
    yield Records(config, clock, database, index, queue, completion, storage, ingest, capsys)
    storage.close()
    database.close()


@pytest.fixture
def running(records: Records) -> Iterator[None]:
    """Hold the lock of the data directory, as a running node does."""
    lock = os.open(records.config.node.data_dir / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, f"{os.getpid()}\n".encode())
    yield
    os.close(lock)


def test_status_of_a_node_that_does_not_run_fails(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    status = records.json("status", status=1)
    assert status["running"] is False
    assert (status["patients"], status["studies"], status["series"], status["instances"]) == (1, 1, 1, 1)
    assert status["received_bytes"] > 512
    assert status["last_received"].endswith("Z")
    assert "not running; start it with 'anode run'" in records.run("status", status=1)


@pytest.mark.usefixtures("running")
def test_status_shows_what_waits_for_a_person(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    records.set_aside_delivery(image.SOPInstanceUID, "1.2.3")
    alarms.raise_alarm(records.config.node.data_dir, "odd", "something is odd", 0.0)
    # this one is over: there is space
    alarms.raise_alarm(records.config.node.data_dir, alarms.DISK_FULL, "nothing is free", 0.0)
    status = records.json("status")
    assert status["running"] is True
    assert status["jobs"]["set_aside"] == 1
    assert [alarm["name"] for alarm in status["alarms"]] == ["odd"]
    text = records.run("status")
    assert "1 job (1 deliver); 'anode jobs --state set-aside' lists them" in text
    assert "odd since 1970-01-01" in text or "odd since 1969-12-31" in text
    assert main(["why", "9.9", "--config", str(records.config.source)]) == 1
    assert "the disk was full" in records.capture.readouterr().err


def test_studies_show_no_patient_unless_asked(records: Records) -> None:
    records.receive(
        made.ct_image(study_instance_uid="1.2.3", AccessionNumber="A77"),
        made.ct_image(study_instance_uid="1.2.3", PatientID="PHANTOM-2"),
        made.instance(study_instance_uid="1.2.4", Modality="SR"),
    )
    for text in (records.run("studies"), records.run("studies", "--json")):
        assert "1.2.3" in text
        assert not any(secret in text for secret in ("PHANTOM", "Phantom", "A77"))
    study = records.json("studies", "1.2.3", "--names")[0]
    assert study["patient_ids"] == ["PHANTOM-1", "PHANTOM-2"]
    assert (study["instances"], study["series"], study["modalities"]) == (2, 2, ["CT"])
    assert study["state"] == "receiving"
    assert "PHANTOM-1 and PHANTOM-2" in records.run("studies", "--names")
    assert len(records.json("studies", "--limit", "1")) == 1


def test_a_study_is_named_by_its_uid_a_part_of_it_or_its_accession_number(records: Records) -> None:
    records.receive(
        made.ct_image(study_instance_uid="1.2.3", AccessionNumber="A77"),
        made.ct_image(study_instance_uid="1.2.3.4567"),
    )
    for name, meant in (("1.2.3", "1.2.3"), ("A77", "1.2.3"), ("567", "1.2.3.4567"), ("…4567", "1.2.3.4567")):
        assert records.json("why", name)["study_instance_uid"] == meant
    assert main(["why", "1.2", "--config", str(records.config.source)]) == 1
    assert "names more than one study: 1.2.3.4567, 1.2.3" in records.capture.readouterr().err


def test_other_content_under_a_held_uid_is_listed(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3", sop_instance_uid="1.2.3.9")
    records.receive(image)
    image.StudyID = "2"
    with pytest.raises(ConflictingInstance):
        records.receive(image)
    (held,) = records.json("studies", "--quarantine")
    assert (held["sop_instance_uid"], held["calling_ae_title"]) == ("1.2.3.9", "SCANNER")
    assert "SCANNER at 10.0.0.9" in records.run("studies", "--quarantine")
    assert records.json("studies", "1.2.3", "--quarantine") == [held]
    rows = {row["about"]: row for row in records.json("why", "1.2.3")["rows"]}
    assert rows["quarantine"]["command"].startswith("anode studies 1.2.3 --quarantine")
    assert records.json("status", status=1)["quarantined"] == 1


def test_jobs_are_listed_and_filtered(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    records.set_aside_delivery(image.SOPInstanceUID, "1.2.3")
    assert {job["kind"] for job in records.json("jobs")} == {"settle", "deliver"}
    (job,) = records.json("jobs", "--state", "set-aside")
    assert (job["kind"], job["state"], job["error_name"]) == ("deliver", "set-aside", "peer-refused")
    assert records.json("jobs", "--kind", "settle", "--study", "1.2.3")[0]["state"] == "ready"
    assert records.json("jobs", "--state", "done") == []
    assert "peer-refused: PACS answered with status A900: wrong class" in records.run("jobs")


def test_retry_makes_set_aside_jobs_due(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    records.set_aside_delivery(image.SOPInstanceUID, "1.2.3")
    (aside,) = records.jobs(state="set_aside")
    number = str(aside["id"])
    for arguments in (["--study", "1.2.3", "--kind", "deliver"], ["--all"], [number]):
        assert "1 job will be done now" in records.run("retry", *arguments)
        assert records.jobs(state="set_aside") == []
        records.set_aside_delivery(image.SOPInstanceUID, "1.2.3")
    assert records.json("retry", number) == {"jobs_to_be_done": 1, "left_as_they_are": []}
    left = records.json("retry", number, "4711", status=1)
    assert left == {"jobs_to_be_done": 0, "left_as_they_are": [int(number), 4711]}


def test_retry_again_arms_the_study_anew(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))

    def fire(connection: sqlite3.Connection) -> None:
        records.completion.fired(connection, "1.2.3", "quality", 1)

    records.database.write(fire)
    assert records.json("studies")[0]["state"] != "receiving"
    assert "1 analysis will be selected for again within 60 s" in records.run(
        "retry", "--study", "1.2.3", "--again"
    )
    with records.database.read() as connection:
        (waiting,) = records.completion.waiting(connection, "1.2.3")
    assert waiting["revision"] == 2


def test_check_names_every_problem_of_the_machine(records: Records) -> None:
    (records.config.node.data_dir / FILE_NAME).rename(records.config.node.data_dir.parent / "elsewhere")
    results = {one["what"]: one for one in records.json("check", "--timeout", "2")}
    assert results["configuration"]["state"] == "ok"
    assert results["disk"]["state"] == "ok"
    assert results["port"]["state"] == "ok"
    assert results["peer PACS"]["state"] == "warning"
    assert results["analysis quality"]["state"] == "warning"
    assert "no send_to" in results["analysis quality"]["detail"]
    assert "WHAT" in records.run("check", "--strict", "--no-peers", status=1)


def test_check_fails_where_nothing_could_be_received(records: Records) -> None:
    source = records.config.source
    assert source is not None
    text = CONFIGURATION.replace("free_space_reserve_bytes = 1000", f"free_space_reserve_bytes = {10**15}")
    (source.parent / "file").write_text("")
    source.write_text(text.replace("port = 0", 'port = 0\ndata_dir = "file"', 1))
    results = {one["what"]: one for one in records.json("check", "--no-peers", status=1)}
    assert results["disk"]["state"] == "problem"
    assert results["data_dir"]["detail"].endswith("is not a folder")


def test_check_finds_a_port_that_is_taken(records: Records) -> None:
    import socket

    source = records.config.source
    assert source is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source.write_text(CONFIGURATION.replace("port = 0", f"port = {port}", 1))
        results = {one["what"]: one for one in records.json("check", "--no-peers", status=1)}
    assert results["port"]["detail"] == f"127.0.0.1:{port} cannot be listened on: Address already in use"


def test_verify_proves_every_instance_and_names_a_damaged_one(records: Records) -> None:
    good, bad = made.ct_image(study_instance_uid="1.2.3"), made.ct_image(study_instance_uid="1.2.4")
    records.receive(good, bad)
    assert "2 instances proven, 0 damaged" in records.run("verify")
    with records.database.read() as connection:
        stored = records.index.get(connection, bad.SOPInstanceUID)
    assert stored is not None
    with records.storage.path(stored.location).open("r+b") as segment:
        segment.seek(stored.location.offset + stored.location.length - 10)
        segment.write(b"damaged")
    lines = [json.loads(line) for line in records.run("verify", "--json", status=1).splitlines()]
    assert lines[-1] == {"verified": 2, "good": 1, "damaged": 1}
    assert [line["sop_instance_uid"] for line in lines[:-1] if line["problem"]] == [bad.SOPInstanceUID]
    assert "1 instance proven, 0 damaged" in records.run("verify", "--study", "1.2.3")
    assert bad.SOPInstanceUID in records.run("verify", status=1)
    assert records.json("status", status=1)["instances_damaged"] == 1


def test_the_commands_that_are_named_find_the_same_configuration(records: Records, tmp_path: Path) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    (node, *_) = records.json("why", "1.2.3")["rows"]
    assert (node["cause"], node["command"]) == ("node-stopped", f"anode run --config {tmp_path}/config.toml")
