"""A node that is killed, the scanners and the PACS around it, and what has to hold after each start."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from node import analysis_runs, confirmations, status
from node.__main__ import main
from node.analysis_runs import COMPLETED
from node.cli import opening
from node.cli.opening import Records
from node.config import config_file
from node.errors import PeerError
from node.index.index import StoredInstance
from node.jobs import listing
from node.wire import scu
from tests.support import kill_points, made
from tests.support.anode_process import AnodeProcess
from tests.support.processes import processes_with
from tests.support.retrieving import find, get_digests
from tests.support.scripted_pacs import UNCOMPRESSED, ScriptedPacs
from tests.support.waiting import ANALYSES_SECONDS, wait_until

COMPREHENSIVE_3D_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.34"
#: What the PACS takes: the results of ``series-quality``.
PACS_CONTEXTS = {
    COMPREHENSIVE_3D_SR_STORAGE: UNCOMPRESSED,
    made.SECONDARY_CAPTURE_IMAGE_STORAGE: UNCOMPRESSED,
}
RESULTS_OF_A_STUDY = 2

CONFIGURATION = """
[transcode]
to = "jpeg-ls"
[study]
quiet_seconds = 0.2
[jobs]
delivery_retry_first_seconds = 0.2
[log]
format = "json"
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
[[analyses]]
name = "quality"
model = "series-quality"
when = {{ Modality = "CT", BodyPartExamined = "CHEST" }}
results = ["sr", "sc"]
send_to = ["PACS"]
"""


@dataclass(frozen=True)
class Instance:
    """One to send: its data set in Explicit VR Little Endian."""

    sop_instance_uid: str
    study_instance_uid: str
    data_set: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data_set).hexdigest()


def study(count: int, *, side: int = 16, seed: int = 0, is_analysed: bool = True) -> list[Instance]:
    """CT slices of one series, which differ in every pixel; the node analyses those of a chest."""
    part = "CHEST" if is_analysed else "HEAD"
    chance = np.random.default_rng(seed)
    study_uid, series_uid = generate_uid(), generate_uid()
    return [
        slice_of(study_uid, series_uid, generate_uid(), number, chance.integers(0, 999, (side, side)), part)
        for number in range(count)
    ]


def slice_of(
    study_uid: str, series_uid: str, sop_instance_uid: str, number: int, pixels: object, part: str = "CHEST"
) -> Instance:
    data_set = made.ct_image(
        pixels=np.asarray(pixels, "<i2"),
        study_instance_uid=study_uid,
        series_instance_uid=series_uid,
        sop_instance_uid=sop_instance_uid,
        InstanceNumber=number + 1,
        BodyPartExamined=part,
        ImagePositionPatient=[0, 0, 1.5 * number],
        FrameOfReferenceUID=series_uid,
    )
    return Instance(sop_instance_uid, study_uid, made.encoded(data_set))


def killed_node(folder: Path, pacs: ScriptedPacs, program: Sequence[str] = ()) -> AnodeProcess:
    """A node in a hurry that can be killed at any point of ``kill_points``; not started yet."""
    return AnodeProcess(
        folder,
        CONFIGURATION.format(port=pacs.port),
        segment_bytes=1 << 20,
        program=[*program, sys.executable, "-m", "tests.support.killed_node"],
    )


@dataclass
class Scene:
    """A node with a PACS, and what its peers know: what was sent, and what was acknowledged."""

    node: AnodeProcess
    pacs: ScriptedPacs
    sent: dict[str, Instance] = field(default_factory=dict)
    acknowledged: dict[str, Instance] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    # --- the node ------------------------------------------------------------

    def start(self) -> None:
        self.node.start(**{kill_points.FOLDER: str(self.node.folder)})

    def is_killed_while_it_starts(self, after_seconds: float) -> None:
        """SIGKILL so long after the start of the process, whether it is ready by then or not."""
        process = self.node.launch(**{kill_points.FOLDER: str(self.node.folder)})
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_seconds)
        assert process.returncode is None, "the node ended by itself"
        self.node.kill()

    def arm(self, point: str) -> None:
        (self.node.folder / "answered").unlink(missing_ok=True)
        (self.node.folder / "armed.part").write_text(point)
        (self.node.folder / "armed.part").rename(self.node.folder / "armed")

    def disarm(self) -> None:
        (self.node.folder / "armed").unlink(missing_ok=True)

    def was_at(self, point: str) -> bool:
        return (self.node.folder / f"was-at-{point}").exists()

    def nobody_is_left(self) -> None:
        """What the node started ends with it."""
        mark = f"{kill_points.FOLDER}={self.node.folder}\0".encode()
        wait_until(
            lambda: not processes_with(mark), ANALYSES_SECONDS, "the processes of the node to end with it"
        )

    def repaired(self) -> dict[str, int]:
        """What the latest start says that it put right: in the log, once, and in what it noted."""
        said = [json.loads(line) for line in self.node.log.read_text().splitlines() if line.startswith("{")]
        noted = json.loads((self.node.folder / "data" / "running.json").read_text())
        found = {name: count for name, count in noted["repairs"].items() if count}
        events = [line for line in said if line["event"] == "repaired at start"]
        if found:
            assert {name: events[-1][name] for name in found} == found
        return found

    # --- the scanner ---------------------------------------------------------

    def send(self, instances: Sequence[Instance]) -> list[int]:
        """Send on one association; return the status of each that was answered, until one is not."""
        answered: list[int] = []
        try:
            with self.connect() as association:
                for one in instances:
                    with self.lock:
                        self.sent.setdefault(one.sop_instance_uid, one)
                    answered.append(self._send(association, one))
        except PeerError:
            pass  # the node was killed
        return answered

    def connect(self) -> scu.RequestedAssociation:
        context = scu.ProposedContext(made.CT_IMAGE_STORAGE, (ExplicitVRLittleEndian,))
        return scu.connect(
            "127.0.0.1",
            self.node.port,
            calling_ae_title="SCANNER",
            called_ae_title="ANODE",
            contexts=[context],
            timeout_seconds=60,
            max_pdu_bytes=16384,
        )

    def _send(self, association: scu.RequestedAssociation, one: Instance) -> int:
        context = association.context_for(made.CT_IMAGE_STORAGE)
        assert context is not None
        answer = association.send_store(
            context,
            sop_class_uid=made.CT_IMAGE_STORAGE,
            sop_instance_uid=one.sop_instance_uid,
            data_set=io.BytesIO(one.data_set),
        )
        if answer.status == status.SUCCESS:
            with self.lock:
                self.acknowledged[one.sop_instance_uid] = one
            (self.node.folder / "answered").touch()
        return answer.status

    # --- the PACS ------------------------------------------------------------

    def another_result_arrives(self) -> None:
        arrived = len(self.pacs.stored)
        wait_until(lambda: len(self.pacs.stored) > arrived, ANALYSES_SECONDS, "a result at the PACS")

    # --- what has to hold ----------------------------------------------------

    def nothing_is_lost(self, studies: Sequence[str] | None = None) -> None:
        """All that was acknowledged is in the index with its digest, and nothing that was not sent.

        Of ``studies`` (all, when None) everything is found by C-FIND and given back by C-GET, as sent.
        """
        with self.lock:
            acknowledged, sent = dict(self.acknowledged), dict(self.sent)
        held = self.held()
        missing = acknowledged.keys() - held.keys()
        assert not missing, f"{len(missing)} acknowledged instances are gone"
        assert held.keys() <= sent.keys()
        assert {uid: digest for uid, digest in held.items() if digest != sent[uid].sha256} == {}
        by_study: dict[str, set[str]] = defaultdict(set)
        for uid in held:
            by_study[sent[uid].study_instance_uid].add(uid)
        for study_uid in by_study.keys() if studies is None else by_study.keys() & set(studies):
            kinds = {made.CT_IMAGE_STORAGE: {ExplicitVRLittleEndian}}
            got = get_digests(self.node.port, kinds, "SERIES", **self._series(study_uid))
            assert {uid: digest for uid, (_, digest) in got.items()} == {
                uid: sent[uid].sha256 for uid in by_study[study_uid]
            }

    def _series(self, study_uid: str) -> dict[str, str | list[str]]:
        [series] = find(
            self.node.port, "SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="", Modality="CT"
        )
        return {"StudyInstanceUID": study_uid, "SeriesInstanceUID": str(series.SeriesInstanceUID)}

    def records(self) -> AbstractContextManager[Records]:
        """What the commands beside the node read."""
        return opening.records(config_file.load(self.node.config))

    def instances(self) -> list[StoredInstance]:
        """All that the index knows, by the way of another process."""
        with self.records() as opened, opened.database.read() as connection:
            return list(opened.index.instances(connection))

    def held(self) -> dict[str, str]:
        """SHA-256 of what came from outside, by SOP Instance UID; asked for after a C-FIND, so all of it."""
        find(self.node.port, "STUDY", StudyInstanceUID="")
        return {one.sop_instance_uid: one.data_set_sha256 for one in self.instances() if not one.is_own}

    def results(self) -> dict[str, set[str]]:
        """SOP Instance UIDs of results in the index, by study."""
        found: dict[str, set[str]] = defaultdict(set)
        for one in self.instances():
            if one.is_own:
                found[one.study_instance_uid].add(one.sop_instance_uid)
        return found

    def jobs(self, *states: str) -> list[str]:
        """Kind and error of each job in one of the states; what is always there again is left out."""
        with self.records() as opened, opened.database.read() as connection:
            jobs = listing.jobs(connection, limit=100_000)
        return [
            f"{job['kind']} {job['error']}"
            for job in jobs
            if job["state"] in states and job["kind"] != "sweep"
        ]

    def comes_to_rest(self, studies: set[str] | None = None, *, may_repeat: int = 0) -> None:
        """All is done in the end: the results of ``studies`` (all, when None) at the PACS, each once.

        Everything is settled, and confirmed by the PACS. ``may_repeat`` results may have arrived twice,
        because their answers were lost; the same then.
        """
        with self.lock:
            analysed = {one.study_instance_uid for one in self.sent.values() if b"CHEST" in one.data_set}
        studies = analysed if studies is None else studies & analysed

        def is_done() -> bool:
            results = self.results()
            return all(
                len(results[one]) >= RESULTS_OF_A_STUDY and results[one] <= set(self.pacs.stored)
                for one in studies
            )

        wait_until(is_done, ANALYSES_SECONDS, "the results of every study at the PACS")

        def is_settled() -> bool:
            # Rows are written a moment after Success, each with its job: no job may be none yet.
            held = {one.sop_instance_uid: one.is_settled for one in self.instances()}
            is_known = self.acknowledged.keys() <= held.keys()
            return is_known and all(held.values()) and not self.jobs("ready", "leased")

        wait_until(is_settled, ANALYSES_SECONDS, "the end of all jobs, with everything settled")
        assert self.jobs("set_aside") == []
        results = self.results()
        for one in studies:
            assert sorted(results[one]) == sorted(self._reported(one))
        arrived = Counter(self.pacs.stored)
        known = {uid for uids in results.values() for uid in uids}
        assert arrived.keys() <= known, "the PACS has a result that the node does not know"
        assert sum(arrived.values()) - len(arrived) <= may_repeat
        with self.records() as opened, opened.database.read() as connection:
            said = {one: confirmations.of_study(connection, one) for one in studies}
        assert {confirmation.state for items in said.values() for confirmation in items} <= {"held"}
        assert list((self.node.folder / "data" / "archive").glob("partial/*")) == []

    def _reported(self, study_uid: str) -> list[str]:
        """Results by the runs that made them: all of them by one run for each state of the series."""
        with self.records() as opened, opened.database.read() as connection:
            runs = analysis_runs.of_study(connection, study_uid)
        completed = [run for run in runs if run["state"] == COMPLETED]
        assert {len(run["result_sop_instance_uids"]) for run in completed} == {RESULTS_OF_A_STUDY}
        assert len({run["input_digest"] for run in completed}) == len(completed), "one input, two results"
        return [uid for run in completed for uid in run["result_sop_instance_uids"]]

    def archive_file(self, sop_instance_uid: str) -> Path:
        """Where an instance lies, once it is settled."""
        [stored] = [one for one in self.instances() if one.sop_instance_uid == sop_instance_uid]
        assert stored.is_settled
        return self.node.folder / "data" / "archive" / stored.location.path

    def is_proven(self) -> None:
        """``anode verify`` finds every stored instance to give back what was received."""
        assert main(["verify", "--config", str(self.node.config)]) == 0
