"""The commands that read the records of a data directory, in tables and as JSON."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from node import alarms, analysis_runs, parking, running
from node.__main__ import main
from node.cli import opening
from node.clock import Clock
from node.completion import Completion
from node.config import config_file
from node.config.settings import Config
from node.errors import AnalysisParked, ConflictingInstance, ModelCrashed, PeerRefused
from node.index import schema
from node.index.database import FILE_NAME, Database
from node.index.index import Index, Provenance
from node.ingest.ingest import Ingest
from node.jobs import listing
from node.jobs.queue import Queue
from node.refusals import Refusal, Refusals
from node.repairs import Repairs
from node.storage.guard import DataDirectory
from node.storage.storage import Storage
from tests.support import made
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.settling import settle

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
                [[made.encoded(data_set)]],
                sop_class_uid=data_set.SOPClassUID,
                sop_instance_uid=data_set.SOPInstanceUID,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                provenance=Provenance("SCANNER", "ANODE", "10.0.0.9", 1, self.clock.timestamp()),
            )
        with self.database.read():
            pass  # the rows are committed, so that the commands see them

    def settle(self, *data_sets: Dataset) -> None:
        rooms = self.config, self.clock, self.database, self.index, self.queue, self.completion
        services = opening.Records(*rooms).services(self.storage)
        settle(services, *(data_set.SOPInstanceUID for data_set in data_sets))

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

    def told(self, *arguments: str, status: int = 0) -> str:
        """What was said on standard error."""
        self.capture.readouterr()
        assert main([*arguments, "--config", str(self.config.source)]) == status
        return self.capture.readouterr().err

    def configure(self, *changes: tuple[str, str]) -> None:
        """Write the configuration anew, as an operator edits it."""
        text = CONFIGURATION
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        assert self.config.source is not None
        self.config.source.write_text(text)

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status))

    def jobs(self, **wanted: str) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            return listing.jobs(connection, **wanted)


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
def held_lock(records: Records) -> Iterator[None]:
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


def test_status_of_a_node_that_does_not_run_says_which_certificates_end(
    records: Records, tmp_path: Path
) -> None:
    """It looks into the files itself, as no node does; one that runs raises an alarm."""
    authority = Authority(tmp_path / "ca", days=400)
    pair = authority.issue("anode", days=10)
    tls = f'[node.tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    records.configure(("[storage]", f'{tls}ca = "{authority.certificate}"\n[storage]'))
    (warning,) = records.json("status", status=1)["tls_warnings"]
    assert "[node.tls] certificate: " in warning
    assert "(CN=anode) expires on " in warning
    assert warning in records.run("status", status=1)


def test_status_shows_who_was_refused_and_what_would_allow_it(records: Records) -> None:
    noted = Refusals(records.clock, records.config.node.data_dir)
    for number in range(1, 13):
        address = f"192.0.2.{number}"
        refusal = Refusal("association", "it is unknown", "add it", "it called X", "CT", "ANODE", address)
        noted.refused(refusal, number)
    noted.refused(Refusal("context", "not offered", detail="Print", peer_address="192.0.2.1"), 2)
    noted.flush()
    text = records.run("status", status=1)
    assert "2 presentation contexts from 192.0.2.1, last 2" in text
    assert ": not offered (Print)\n" in text
    assert "12 associations from AE CT at 192.0.2.12, last 2" in text
    assert ": it is unknown (it called X); to allow it, add it\n" in text
    assert "6 associations more; --json and the log" in text  # those of the three addresses of long ago
    refused = records.json("status", status=1)["refused"]
    assert [one["times"] for one in refused] == [2, *range(12, 0, -1)]


def test_a_peer_that_only_calls_us_is_called_by_no_command(records: Records) -> None:
    records.configure(
        ("[[analyses]]", "[[peers]]\nae_title = 'CT'\naddresses = ['ct.example']\n[[analyses]]")
    )
    results = {one["what"]: one for one in records.json("check", "--timeout", "1")}
    assert results["peer CT"]["state"] == "ok"
    assert results["peer CT"]["detail"] == "only calls us: it has no host and port"
    assert "'CT' only calls us" in records.told("echo", "CT", status=2)
    assert "'CT' only calls us" in records.told("send", "--to", "CT", str(records.config.source), status=2)


@pytest.mark.usefixtures("held_lock")
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
    for name, meant in (
        ("1.2.3", "1.2.3"),
        ("A77", "1.2.3"),
        ("1.2.3.4", "1.2.3.4567"),
        ("…4567", "1.2.3.4567"),
    ):
        assert records.json("why", name)["study_instance_uid"] == meant
    # who knows the patient alone is told where the studies stand beside the Patient IDs
    assert "'anode studies --names'" in records.told("why", "PHANTOM-1", status=1)
    # the end of a UID alone may be there by chance
    assert main(["why", "567", "--config", str(records.config.source)]) == 1
    assert main(["why", "", "--config", str(records.config.source)]) == 2
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
    none = {"unparked": []}
    assert records.json("retry", number) == {"jobs_to_be_done": 1, "left_as_they_are": [], **none}
    left = records.json("retry", number, "4711", status=1)
    assert left == {"jobs_to_be_done": 0, "left_as_they_are": [int(number), 4711], **none}


def park(records: Records, analysis: str = "quality") -> list[str]:
    """Park an analysis, with two of its jobs set aside; return their numbers."""

    def work(connection: sqlite3.Connection) -> None:
        for over in map(str, range(parking.FAILURES_TO_PARK)):
            parking.crashed(connection, analysis, over, "segmentation fault", records.clock.timestamp())
        for number in range(2):
            records.queue.enqueue(
                connection,
                "analyze",
                key=f"{analysis}/{number}",
                payload={"analysis": analysis, "study_instance_uid": "1.2.3"},
                study_instance_uid="1.2.3",
            )

    records.database.write(work)
    jobs = [records.queue.lease({"analyze": 1}, seconds=60, owner="test")[0] for _ in range(2)]
    for job in jobs:
        records.database.write(
            lambda connection, job=job: records.queue.set_aside(connection, job, AnalysisParked("parked"))
        )
    with records.database.read() as connection:
        parking.tell(records.config.node.data_dir, parking.parked(connection), records.clock.timestamp())
    return [str(job.id) for job in jobs]


def parked(records: Records) -> list[str]:
    with records.database.read() as connection:
        return list(parking.parked(connection))


def test_a_parked_analysis_is_shown_and_runs_again_when_an_operator_says_so(records: Records) -> None:
    park(records)
    said = "is parked; 'anode retry --analysis quality"
    assert f"analysis quality {said}" in records.run("status", status=1)
    (row,) = [one for one in records.json("check", "--no-peers") if "parked since" in one["detail"]]
    assert (row["what"], row["state"]) == ("analysis quality", "warning")
    assert row["detail"].startswith("parked since ")
    assert f"{said} --config {records.config.source}'" in row["detail"]
    assert row["detail"].endswith("segmentation fault")
    assert records.json("retry", "--analysis", "quality") == {
        "jobs_to_be_done": 2,
        "left_as_they_are": [],
        "unparked": ["quality"],
    }
    assert parked(records) == records.jobs(state="set_aside") == []
    assert "analysis-parked" not in records.run("status", status=1)


@pytest.mark.parametrize("ways", [["--study", "1.2.3"], ["--all"], ["{number}"]])
def test_asking_for_any_job_of_a_parked_analysis_unparks_it(records: Records, ways: list[str]) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    number, _ = park(records)
    arguments = [way.format(number=number) for way in ways]
    told = records.run("retry", *arguments)
    assert "2 jobs will be done now" in told
    assert "analysis quality is parked no more" in told
    # None is left that waits for nothing, and that others would wait for.
    assert parked(records) == records.jobs(state="set_aside") == []


def test_several_jobs_of_a_parked_analysis_may_be_asked_for_at_once(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    told = records.json("retry", *park(records))
    assert told == {"jobs_to_be_done": 2, "left_as_they_are": [], "unparked": ["quality"]}


def test_asking_for_other_jobs_unparks_nothing(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    park(records)
    records.set_aside_delivery(image.SOPInstanceUID, "1.2.3")
    assert records.json("retry", "--all", "--kind", "deliver")["unparked"] == []
    assert parked(records) == ["quality"]


def test_an_analysis_that_is_not_there_is_not_retried(records: Records) -> None:
    told = records.told("retry", "--analysis", "qualty", status=2)
    assert "there is no analysis 'qualty'; did you mean 'quality'?" in told
    assert "--study and --analysis were given" in records.told(
        "retry", "--study", "1", "--analysis", "quality", status=2
    )


def test_an_analysis_that_was_taken_out_can_still_be_unparked(records: Records) -> None:
    park(records, "old")
    assert records.json("retry", "--analysis", "old")["unparked"] == ["old"]


def test_jobs_that_are_left_of_an_analysis_that_was_taken_out_can_be_asked_for(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    payload = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.1", "analysis": "old"}

    def enqueue(connection: sqlite3.Connection) -> None:
        records.queue.enqueue(
            connection, "analyze", key="old", payload=payload | {"revision": 1}, study_instance_uid="1.2.3"
        )

    records.database.write(enqueue)
    (job,) = records.queue.lease({"analyze": 1}, seconds=60, owner="test")
    error = ModelCrashed("model old failed: no such organ")
    records.database.write(lambda connection: records.queue.set_aside(connection, job, error))
    (row,) = [row for row in records.json("why", "1.2.3")["rows"] if row["cause"] == "not-configured"]
    assert "Model old failed: no such organ." in row["explanation"]
    program, *arguments = shlex.split(row["command"])
    assert (program, arguments[:3]) == ("anode", ["retry", "--analysis", "old"])
    assert records.json(*arguments[:3])["jobs_to_be_done"] == 1
    assert "there is no analysis 'older'" in records.told("retry", "--analysis", "older", status=2)
    assert not [row for row in records.json("why", "1.2.3")["rows"] if row["cause"] == "not-configured"]


def test_the_alarm_of_an_analysis_that_is_not_configured_goes_with_the_next_retry(records: Records) -> None:
    park(records)
    park(records, "old")
    assert [one["about"] for one in records.json("status", status=1)["alarms"]] == ["quality", "old"]
    records.json("retry", "--analysis", "quality")
    assert records.json("status", status=1)["alarms"] == []


def record(records: Records, analysis: str, state: str, **facts: Any) -> None:
    """Record a run, and a job of it that is done."""
    job: dict[str, Any] = {"study_instance_uid": "1.2.3", "analysis": analysis, "revision": 1}
    of_series = {} if facts.get("started_at") is None else {"series_instance_uid": "1.2.3.1"}

    def work(connection: sqlite3.Connection) -> None:
        kind = "analyze" if of_series else "select"
        analysis_runs.record(
            connection,
            series_instance_uid="1.2.3.1",
            state=state,
            at=records.clock.timestamp(),
            **job,
            **facts,
        )
        records.queue.enqueue(
            connection, kind, key=analysis, payload={**job, **of_series}, study_instance_uid="1.2.3"
        )

    records.database.write(work)
    for kind in ("analyze", "select"):
        for leased in records.queue.lease({kind: 9}, seconds=60, owner="test"):
            records.database.write(lambda connection, leased=leased: records.queue.finish(connection, leased))


def test_jobs_and_studies_show_what_was_refused_and_why_what_was_found(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    reason = "no series of the study matches the input 'pet'"
    record(records, "quality", "not-a-volume", started_at=1.0, reason="missing slices: 2 of 7")
    record(records, "fusion", "unfit-input", reason=reason)
    refused = {job["key"]: job["refused"] for job in records.json("jobs", "--state", "done")}
    assert refused == {
        "quality": [
            {"series_instance_uid": "1.2.3.1", "state": "not-a-volume", "reason": "missing slices: 2 of 7"}
        ],
        "fusion": [{"series_instance_uid": "1.2.3.1", "state": "unfit-input", "reason": reason}],
    }
    table = " ".join(records.run("jobs").split())
    assert "refused, not-a-volume: missing slices: 2 of 7" in table
    assert f"refused, unfit-input: {reason}" in table
    records.database.write(lambda connection: records.completion.fired(connection, "1.2.3", "quality", 1))
    assert records.json("studies")[0]["state"] == "refused"
    facts = {"fat volume": ("2341.71234567",), "bone": ("found",)}
    record(records, "quality", "completed", started_at=1.0, facts=facts)
    assert "Found: fat volume 2341.71, bone found." in records.run("why", "1.2.3")
    (row,) = [row for row in records.json("why", "1.2.3")["rows"] if row["cause"] == "done"]
    assert row["found"] == {"fat volume": ["2341.71234567"], "bone": ["found"]}


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
    assert "1 instance of those held here cannot be given back" in records.told("studies")
    rows = {row["about"]: row for row in records.json("why", "1.2.4")["rows"]}
    assert (rows["archive"]["state"], rows["archive"]["cause"]) == ("stopped", "damaged")
    assert rows["archive"]["command"].startswith("anode verify --study 1.2.4 ")
    assert bad.SOPInstanceUID in rows["archive"]["explanation"]
    states = {study["study_instance_uid"]: study["state"] for study in records.json("studies")}
    assert states["1.2.4"] == "stopped" != states["1.2.3"]
    assert "archive" not in {row["about"] for row in records.json("why", "1.2.3")["rows"]}
    (line, counts) = [
        json.loads(one) for one in records.run("verify", "--damaged", "--json", status=1).splitlines()
    ]
    assert line["sop_instance_uid"] == bad.SOPInstanceUID
    assert counts == {"verified": 1, "good": 0, "damaged": 1}


def test_the_instances_of_a_study_are_listed_with_how_they_are_stored_and_why(records: Records) -> None:
    image, report = made.ct_image(study_instance_uid="1.2.3"), made.instance(study_instance_uid="1.2.3")
    records.receive(image, report)
    assert "not settled yet" in records.run("studies", "1.2.3", "--instances")
    records.settle(image, report)
    table = records.run("studies", "1.2.3", "--instances").splitlines()
    (of_image,) = [line for line in table if line.startswith(image.SOPInstanceUID)]
    (of_report,) = [line for line in table if line.startswith(report.SOPInstanceUID)]
    assert "jpeg-ls" in of_image
    assert of_image.rstrip().endswith("proven")
    assert "as received" in of_report
    assert of_report.rstrip().endswith("no pixels")
    listed = {one["sop_instance_uid"]: one for one in records.json("studies", "1.2.3", "--instances")}
    proof = listed[image.SOPInstanceUID]["proof"]
    assert proof["stored"]["codec"] == "jpeg-ls"
    assert proof["stored"]["parameters"] is not None
    assert listed[report.SOPInstanceUID]["kept_reason"] == "no pixels"
    assert "needs a study" in records.told("studies", "--instances", status=2)


def test_verify_takes_a_sample_of_what_was_not_looked_at_for_the_longest_time(records: Records) -> None:
    records.receive(*(made.ct_image(study_instance_uid="1.2.3") for _ in range(10)))
    records.receive(made.ct_image(study_instance_uid="1.2.4"))

    def verified(*arguments: str) -> list[str]:
        lines = records.run("verify", "--json", *arguments).splitlines()
        return [json.loads(line)["sop_instance_uid"] for line in lines[:-1]]

    first = verified("--sample", "4", "--jobs", "1")
    second = verified("--sample", "60%", "--jobs", "3")
    assert (len(first), len(second), len(verified())) == (4, 7, 11)
    assert not set(first) & set(second)
    assert len(verified("--sample", "25%", "--study", "1.2.3")) == 3
    assert len(verified("--sample", "100")) == 11


@pytest.mark.parametrize(
    "wrong", [("--sample", "0"), ("--sample", "101%"), ("--sample", "x"), ("--jobs", "0")]
)
def test_verify_says_what_a_sample_and_jobs_may_be(records: Records, wrong: tuple[str, str]) -> None:
    records.receive(made.ct_image())
    assert f"{wrong[0]}: expected" in records.told("verify", *wrong, status=2)


def test_restore_writes_an_instance_exactly_as_it_was_received(records: Records, tmp_path: Path) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image, made.ct_image())
    path = tmp_path / "image.dcm"
    assert f"{path}: " in records.run("restore", image.SOPInstanceUID, "-o", str(path))
    assert path.read_bytes().endswith(made.encoded(image))
    assert pydicom.dcmread(path).SOPInstanceUID == image.SOPInstanceUID
    assert "is there already" in records.told("restore", image.SOPInstanceUID, "-o", str(path), status=2)
    bare = tmp_path / "image.raw"
    said = records.json("restore", image.SOPInstanceUID, "--data-set", "-o", str(bare))
    assert bare.read_bytes() == made.encoded(image)
    assert said["data_set_sha256"] == hashlib.sha256(bare.read_bytes()).hexdigest()
    assert bare.stat().st_mode & 0o077 == 0


def test_what_cannot_be_restored_leaves_no_file(records: Records, tmp_path: Path) -> None:
    image = made.ct_image()
    records.receive(image)
    with records.database.read() as connection:
        stored = records.index.get(connection, image.SOPInstanceUID)
    assert stored is not None
    with records.storage.path(stored.location).open("r+b") as segment:
        segment.seek(stored.location.offset + stored.location.length - 10)
        segment.write(b"damaged")
    path = tmp_path / "image.dcm"
    assert "SHA-256" in records.told("restore", image.SOPInstanceUID, "-o", str(path), status=1)
    assert not path.exists()


def test_a_file_that_cannot_be_finished_is_not_there(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made.ct_image()
    records.receive(image)
    path = tmp_path / "out" / "image.dcm"
    path.parent.mkdir()
    for error, status in ((OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)):

        def fails(descriptor: int, error: BaseException = error) -> None:
            # Segments may be made beside, which is not what fails here.
            if threading.current_thread() is threading.main_thread():
                raise error
            os.fdatasync(descriptor)

        monkeypatch.setattr("node.storage.disk.sync_data", fails)
        records.told("restore", image.SOPInstanceUID, "-o", str(path), status=status)
        assert list(path.parent.iterdir()) == []


def test_an_instance_is_named_by_the_beginning_of_its_uid(records: Records, tmp_path: Path) -> None:
    images = [made.ct_image() for _ in range(3)]
    for number, image in enumerate(images):
        image.SOPInstanceUID = f"1.2.3.4.{number}.5"
    images[2].SOPInstanceUID = "1.2.3.4.1"
    records.receive(*images)
    path = str(tmp_path / "x.raw")

    def restored(name: str) -> str:
        Path(path).unlink(missing_ok=True)
        return str(records.json("restore", name, "--data-set", "-o", path)["sop_instance_uid"])

    assert restored("1.2.3.4.0") == "1.2.3.4.0.5"
    assert restored("1.2.3.4.1") == "1.2.3.4.1"
    assert restored("1.2.3.4.1.") == "1.2.3.4.1.5"
    assert restored("…1.5") == "1.2.3.4.1.5"
    assert "names more than one instance" in records.told("restore", "1.2.3", status=1)
    assert "there is no instance '1.3'" in records.told("restore", "1.3", status=1)


def test_show_writes_a_picture_of_the_wanted_size(records: Records, tmp_path: Path) -> None:
    image = made.ct_image(pixels=(np.arange(60 * 80).reshape(60, 80) % 251).astype(np.uint8))
    records.receive(image)
    path = tmp_path / "x.png"
    assert f"{path}: 80 x 60" in records.run("show", image.SOPInstanceUID, "-o", str(path))
    with Image.open(path) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (80, 60))
    said = records.json("show", image.SOPInstanceUID, "-o", str(path), "--size", "20", "--window", "100,50")
    assert (said["columns"], said["rows"], said["image_columns"], said["frames"]) == (20, 15, 80, 1)
    with Image.open(path) as picture:
        assert picture.size == (20, 15)
    assert "there is no frame 2" in records.told(
        "show", image.SOPInstanceUID, "-o", str(path), "--frame", "2", status=1
    )
    for wrong in (("--frame", "0"), ("--size", "x"), ("--window", "40"), ("--window", "40,0")):
        said_of = records.told("show", image.SOPInstanceUID, "-o", str(path), *wrong, status=2)
        assert f"{wrong[0]}: expected" in said_of
    said_of = records.told("show", image.SOPInstanceUID, "-o", str(tmp_path / "x.jpg"), status=2)
    assert "the picture is a PNG" in said_of


def test_the_commands_that_are_named_find_the_same_configuration(records: Records, tmp_path: Path) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    (node, *_) = records.json("why", "1.2.3")["rows"]
    assert (node["cause"], node["command"]) == ("node-stopped", f"anode run --config {tmp_path}/config.toml")


@pytest.mark.usefixtures("held_lock")
def test_a_configuration_that_the_node_has_not_read_is_told_everywhere(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    source, data_dir = records.config.source, records.config.node.data_dir
    changed = "config.toml was changed after the node started; restart it so that it counts"

    def said() -> list[bool]:
        park(records)
        return [
            changed in records.run("status", status=1),
            changed in records.run("check", "--no-peers"),
            changed in records.run("why", "1.2.3").replace("\n  ", " "),
            changed in records.told("retry", "--study", "1.2.3", "--again"),
            changed in records.told("retry", "--analysis", "quality"),
        ]

    running.record(data_dir, port=1, config_sha256=running.digest_of(source), started_at=5.0)
    assert said() == [False] * 5
    records.configure(("quality", "other"))
    assert said() == [True] * 5
    assert records.json("status", status=1)["configuration_changed"] == changed
    assert records.json("retry", "--study", "1.2.3", "--again")["configuration_changed"] is True
    assert "config-changed" in [row["cause"] for row in records.json("why", "1.2.3")["rows"]]


def test_what_a_node_noted_does_not_count_once_it_has_stopped(records: Records) -> None:
    running.record(records.config.node.data_dir, port=1, config_sha256="other", started_at=5.0)
    status = records.json("status", status=1)
    assert (status["configuration_changed"], status["port"]) == ("", 0)


@pytest.mark.usefixtures("held_lock")
def test_status_tells_what_the_start_has_repaired(records: Records) -> None:
    def note(**repairs: int) -> None:
        running.record(
            records.config.node.data_dir,
            port=1,
            config_sha256=running.digest_of(records.config.source),
            started_at=5.0,
            repairs=Repairs(**repairs),
        )

    note()
    assert "repaired" not in records.run("status", status=1)
    assert records.json("status", status=1)["repaired_at_start"] == {}
    note(instances_indexed=12, jobs_given_back=3)
    assert "instances indexed 12, jobs given back 3" in " ".join(records.run("status", status=1).split())
    assert records.json("status", status=1)["repaired_at_start"] == {
        "instances_indexed": 12,
        "jobs_given_back": 3,
    }


@pytest.mark.usefixtures("held_lock")
def test_the_port_that_the_node_chose_is_asked(records: Records) -> None:
    port = free_port()
    digest = running.digest_of(records.config.source)
    running.record(records.config.node.data_dir, port=port, config_sha256=digest, started_at=5.0)
    status = records.json("status", status=1)
    assert status["port"] == port
    assert "no connection" in status["problem"]


@pytest.mark.usefixtures("held_lock")
def test_check_tells_of_a_node_on_another_port(records: Records) -> None:
    running.record(records.config.node.data_dir, port=4711, config_sha256="", started_at=5.0)
    records.configure(("port = 0", "port = 4712"))
    results = {one["what"]: one for one in records.json("check", "--no-peers")}
    assert "on port 4711 and not on 4712" in results["port"]["detail"]
    assert str(records.config.node.data_dir) in results["port"]["detail"]


def test_a_data_directory_that_is_gone_is_no_new_one(records: Records) -> None:
    source, data_dir = records.config.source, records.config.node.data_dir
    assert source is not None
    guard = DataDirectory.beside(data_dir, source)
    guard.open()
    guard.close()
    data_dir.rename(data_dir.with_name("moved"))
    for command in ("status", "studies", "jobs"):
        told = records.told(command, status=1)
        assert "is not there" in told
        assert f"mount the disk that belongs at {data_dir}" in told
    data_dir.with_name("moved").rename(data_dir)


@pytest.mark.parametrize("data_dir", ["file/data", "data-" + "x" * 300])
def test_check_finds_a_data_directory_that_cannot_be_made(records: Records, data_dir: str) -> None:
    (records.config.node.data_dir.parent / "file").write_text("")
    records.configure(("port = 0", f'port = 0\ndata_dir = "{data_dir}"'))
    results = {one["what"]: one for one in records.json("check", "--no-peers", status=1)}
    assert results["data_dir"]["state"] == "problem"


def test_check_leaves_no_data_directory_behind(records: Records) -> None:
    records.configure(("port = 0", 'port = 0\ndata_dir = "new/data"'))
    results = {one["what"]: one for one in records.json("check", "--no-peers")}
    assert results["data_dir"]["detail"].endswith("will be made at the first start")
    assert not (records.config.node.data_dir.parent / "new").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_check_finds_a_peer_that_is_the_node_itself(records: Records, host: str) -> None:
    port = free_port()
    records.configure(
        ("port = 0", f'host = "{host}"\nport = {port}\naccept_unknown_peers = false'),
        ("port = 9", f"port = {port}"),
    )
    results = {one["what"]: one for one in records.json("check", "--no-peers", status=1)}
    assert results["peer PACS"]["state"] == "problem"
    assert "this node itself" in results["peer PACS"]["detail"]


def test_retry_names_the_study_it_acted_on(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3.4567", AccessionNumber="A77")
    records.receive(image)
    records.set_aside_delivery(image.SOPInstanceUID, "1.2.3.4567")
    assert "study 1.2.3.4567: 1 job will be done now" in records.run("retry", "--study", "A77")
    assert records.json("retry", "--study", "1.2")["study_instance_uid"] == "1.2.3.4567"
    assert "study 1.2.3.4567: 1 analysis" in records.run("retry", "--study", "A77", "--again")
    assert "numbers of jobs and --all were given" in records.told("retry", "7", "--all", status=2)


def test_nothing_runs_in_a_node_that_does_not(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    assert records.queue.lease({"settle": 1}, seconds=60, owner="test")
    jobs = records.json("status", status=1)["jobs"]
    assert (jobs["running"], jobs["waiting"]) == (0, 1)


def test_a_job_that_is_ready_has_not_finished(records: Records) -> None:
    image = made.ct_image(study_instance_uid="1.2.3")
    records.receive(image)
    (job,) = records.queue.lease({"settle": 1}, seconds=60, owner="test")
    records.database.write(lambda connection: records.queue.finish(connection, job))
    assert records.json("jobs")[0]["finished_at"]

    def enqueue(connection: sqlite3.Connection) -> None:
        key = records.jobs()[0]["key"]
        records.queue.enqueue(connection, "settle", key=key, payload={}, again=True)

    records.database.write(enqueue)
    (again,) = records.json("jobs")
    assert (again["state"], again["finished_at"]) == ("ready", None)


def test_a_folder_without_dicom_files_gets_no_empty_table(records: Records, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    assert records.run("send", str(tmp_path / "empty"), "--to", "PACS", status=1) == ""
    assert "1 other file passed over" in records.told(
        "send", str(tmp_path / "empty"), "--to", "PACS", status=1
    )
    assert records.json("send", str(tmp_path / "empty"), "--to", "PACS", status=1) == []


def test_a_study_that_no_rule_is_for_does_not_stand_out(records: Records) -> None:
    records.configure(('model = "series-quality"', 'model = "series-quality"\nwhen = { Modality = "MR" }'))
    records.receive(made.ct_image(study_instance_uid="1.2.3"))

    def no_match(connection: sqlite3.Connection) -> None:
        records.completion.fired(connection, "1.2.3", "quality", 1)
        analysis_runs.record(
            connection, study_instance_uid="1.2.3", analysis="quality", revision=1, state="no-match",
            reason="Modality is 'CT', the analysis wants 'MR'", at=records.clock.timestamp(),
        )  # fmt: skip

    records.database.write(no_match)
    assert records.json("studies")[0]["state"] == "stored"
    (row,) = [row for row in records.json("why", "1.2.3")["rows"] if row["about"] == "analysis quality"]
    assert (row["state"], row["cause"]) == ("idle", "no-match")
    assert "wants 'MR'" in row["explanation"]
    assert row["command"] == ""


def test_why_begins_with_what_is_stopped_and_ends_with_a_line_for_each_that_is_idle(
    records: Records,
) -> None:
    """At night nobody reads of eleven analyses that are for other studies before the one that failed."""
    others = [f"other {number}" for number in range(10)]
    tables = "".join(f'[[analyses]]\nname = "{name}"\nmodel = "series-quality"\n' for name in others)
    records.configure(("[[analyses]]", f'{tables}[[analyses]]\nname = "late"\nmodel = "lungs"\n[[analyses]]'))
    records.receive(made.ct_image(study_instance_uid="1.2.3"))

    def work(connection: sqlite3.Connection) -> None:
        for name in ("quality", "late", *others):
            records.completion.fired(connection, "1.2.3", name, 1)
        for name in others:
            analysis_runs.record(
                connection, study_instance_uid="1.2.3", analysis=name, revision=1, state="no-match",
                reason="the series does not match: Modality is 'CT', the analysis wants 'MR'",
                at=records.clock.timestamp(),
            )  # fmt: skip

    records.database.write(work)
    record(records, "quality", "two-patients", reason="the study holds instances of 2 patients")
    told = records.run("why", "1.2.3")
    assert told.index("analysis quality: stopped, two-patients") < told.index("idle")
    option = f" --config {records.config.source}"
    assert told.split("\n\n")[-1].splitlines() == [
        *(
            f"analysis {name}: idle, no-match: The series does not match: Modality is 'CT', the analysis "
            "wants 'MR'."
            for name in others
        ),
        "analysis late: idle, not-selected: No instance has come since this analysis was configured, but "
        "what was imported without analyses. If it is meant for this study, select again: anode retry "
        f"--study 1.2.3 --again{option}",
    ]


def test_a_route_that_leads_back_to_the_sender_says_so(records: Records) -> None:
    records.receive(made.ct_image(study_instance_uid="1.2.3"))
    records.configure(
        ('ae_title = "PACS"', 'ae_title = "SCANNER"'),
        ("[[analyses]]", '[[routes]]\nsend_to = ["SCANNER"]\n[[analyses]]'),
    )
    (row,) = [row for row in records.json("why", "1.2.3")["rows"] if row["about"].startswith("route")]
    assert (row["state"], row["cause"]) == ("idle", "is-the-sender")
    assert row["explanation"] == "The route to SCANNER does not return it to its sender."
