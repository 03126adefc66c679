"""A soak: senders, queries and retrieves for long, while peers and workers are killed at random.

``python -m tests.soak SECONDS [SEED]`` prints what it saw, and ends with 1 when a promise was broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.soak.peers import ANALYSED, lines
from tests.support.anode_process import ROOT, AnodeProcess
from tests.support.ports import free_port
from tests.support.processes import descendants
from tests.support.waiting import ANALYSES_SECONDS, wait_until

SENDERS = 4
#: A peer or worker is killed so often.
KILL_SECONDS = (0.5, 4.0)
#: Memory after the first third may grow by so much until the end.
GROWTH_BYTES = 24 << 20
#: and by what the index keeps of its file, up to so much: the first minutes fill that.
INDEX_CACHE_BYTES = 64 << 20
SAMPLE_SECONDS = 1.0
#: A settling process that the warm-up did not need: the node's end of the connection with it, what tells of
#: its end, and what tells it of the node's.
DESCRIPTORS_OF_SETTLING = 3

_INDEX_BYTES = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"

CONFIGURATION = """
[log]
format = "json"
[transcode]
decoded_cache_bytes = 8388608
[study]
quiet_seconds = 2
[jobs]
tries = 50
window_seconds = 600
delivery_retry_first_seconds = 0.5
delivery_retry_max_seconds = 2
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
[[analyses]]
name = "quality"
model = "series-quality"
when = {{ BodyPartExamined = "{analysed}" }}
results = ["sr"]
send_to = ["PACS"]
"""

#: What the log may say at WARNING or above, because a peer or a worker was killed.
EXPECTED = {
    "association lost",  # a sender, an asker
    "association aborted by the peer",
    "connection lost",
    "association request invalid",
    "sub-operations failed",  # an asker, in the midst of its C-GET
    "lane waits",  # the PACS
    "job failed",  # an analysis, a delivery
    "task failed",  # a settling process that was killed twice for the same instance
    "settling process ended",
    "process of an analysis ended",
}


@dataclass
class Report:
    """What a soak saw; ``broken`` names every promise that was not kept."""

    seconds: float = 0.0
    acknowledged: int = 0
    results: int = 0
    retrieved_studies: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    memory_bytes: list[int] = field(default_factory=list)
    index_bytes: list[int] = field(default_factory=list)
    at_rest: list[tuple[int, int]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def growth_bytes(self) -> int:
        """How much memory grew."""
        return _growth(self.memory_bytes)

    @property
    def cache_growth_bytes(self) -> int:
        """How much of that may be pages of the index."""
        return _growth([min(size, INDEX_CACHE_BYTES) for size in self.index_bytes])

    def text(self) -> str:
        """Return it for people."""
        early = self.memory_bytes[len(self.memory_bytes) // 3] if self.memory_bytes else 0
        said = [
            f"{self.seconds:.0f} s: {self.acknowledged} instances acknowledged, {self.results} results at the"
            f" PACS, {self.retrieved_studies} studies retrieved and compared",
            f"killed: {', '.join(f'{count} {name}' for name, count in sorted(self.kills.items()))}",
            f"memory: {early / 2**20:.1f} MiB after a third, then {self.growth_bytes / 2**20:+.1f} MiB,"
            f" of which {self.cache_growth_bytes / 2**20:.1f} MiB may be pages of the index",
            f"threads and descriptors at rest, before and after: {self.at_rest}",
            "log at WARNING and above: "
            + (", ".join(f"{count} {name!r}" for name, count in self.events.most_common()) or "nothing"),
        ]
        return "\n".join([*said, *(f"BROKEN: {one}" for one in self.broken)])


class Soak:
    """One soak in ``folder``, for ``seconds``; ``seed`` decides what is killed when."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._random = random.Random(seed)
        self._seeds = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))
        self._pacs_port = free_port()
        self._peers: dict[str, subprocess.Popen[bytes]] = {}
        self._node = AnodeProcess(
            folder / "node", CONFIGURATION.format(port=self._pacs_port, analysed=ANALYSED)
        )
        self.report = Report(seconds=seconds)

    def run(self) -> Report:
        """Soak, wait until all work is done, and look whether every promise was kept."""
        self._node.start()
        try:
            self._warm_up()
            self.report.at_rest.append(self._threads_and_descriptors())
            self._load()
            self._come_to_rest()
            self.report.at_rest.append(self._settled_threads_and_descriptors())
            self._compare()
        finally:
            for peer in self._peers.values():
                peer.kill()
                peer.wait()
            if self._node.process is not None and self._node.process.poll() is None:
                self._node.stop()
        self._read_log()
        return self.report

    # --- under load ---------------------------------------------------------------

    def _warm_up(self) -> None:
        """Let the node start what it keeps: its processes that settle, its readers of the index."""
        for name in ("PACS", "sender 1", "asker"):
            self._start(name)
        wait_until(
            lambda: self._results() and lines(self._folder, "right"), ANALYSES_SECONDS, "a first result"
        )
        self._end("sender 1", "asker")
        self._come_to_rest()

    def _load(self) -> None:
        senders = [f"sender {number}" for number in range(1, SENDERS + 1)]
        names = [*senders, "asker", "PACS"]
        known = len(list(self._folder.glob("acknowledged-*")))
        for name in (*senders, "asker"):
            self._start(name)
        wait_until(
            lambda: len(list(self._folder.glob("acknowledged-*"))) >= known + SENDERS,
            ANALYSES_SECONDS,
            "all senders at work",
        )
        end = time.monotonic() + self._seconds
        next_kill = time.monotonic() + self._random.uniform(*KILL_SECONDS)
        while time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
            self.report.memory_bytes.append(self._node.resident_bytes())
            self.report.index_bytes += self._index(_INDEX_BYTES)
            for name in names:
                self._keep_up(name)
            if time.monotonic() >= next_kill:
                self._kill(self._random.choice([*names, "settling process", "analysis"]))
                next_kill = time.monotonic() + self._random.uniform(*KILL_SECONDS)
        self._end(*senders, "asker")
        self._keep_up("PACS")  # which the last kill may have been

    def _end(self, *names: str) -> None:
        for name in names:
            peer = self._peers.pop(name)
            peer.kill()
            peer.wait()

    def _start(self, name: str) -> None:
        role = name.split()[0].lower()
        port = self._pacs_port if role == "pacs" else self._node.port
        arguments = [role, str(port), str(self._folder)]
        if role != "pacs":
            arguments.append(str(next(self._seeds)))
        with (self._folder / f"{role}.log").open("ab") as log:
            self._peers[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.peers", *arguments], cwd=ROOT, stdout=log, stderr=log
            )

    def _keep_up(self, name: str) -> None:
        status = self._peers[name].poll()
        if status is not None:
            if status != -signal.SIGKILL:
                self.report.broken.append(f"{name} ended with {status}; its log says why")
            self._start(name)

    def _kill(self, what: str) -> None:
        """Kill a peer, or a process of the node that settles or analyses; a sender where there is none."""
        found = self._workers(what)
        if what not in self._peers and not found:
            what = f"sender {self._random.randint(1, SENDERS)}"
        if what in self._peers:
            self._peers[what].kill()
            self._peers[what].wait()
        else:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self._random.choice(found), signal.SIGKILL)
        self.report.kills[what.rstrip("1234 ")] += 1

    def _workers(self, what: str) -> list[int]:
        if what == "analysis":
            return [one for one in descendants(self._pid) if "node.processes" in _command_line(one)]
        # The first is the fork server itself, which starts the others: analysts, too.
        return [one for one in descendants(self._pid) if "forkserver" in _command_line(one)][1:]

    # --- at rest ----------------------------------------------------------------------

    def _come_to_rest(self) -> None:
        def is_done() -> bool:
            counts = Counter(job["state"] for job in self._node.json("jobs", "--limit", "1000000"))
            return not counts["ready"] and not counts["running"]

        try:
            wait_until(
                lambda: self._results() >= self._studies(), ANALYSES_SECONDS, "a result for each study"
            )
        except AssertionError as error:
            self.report.broken.append(f"{error}\n{self._why()}")
        wait_until(is_done, ANALYSES_SECONDS, "the end of all jobs")

    def _why(self) -> str:
        """What the node says of a study that has no result."""
        wanted = {line[0] for line in lines(self._folder, "acknowledged") if line[3] == ANALYSED}
        wanted -= {line[0] for line in lines(self._folder, "pacs")}
        return self._node.run("why", min(wanted), check=False).stdout[-3000:] if wanted else ""

    def _compare(self) -> None:
        broken = self.report.broken
        acknowledged = {line[1]: line[2] for line in lines(self._folder, "acknowledged")}
        self.report.acknowledged = len(acknowledged)
        self.report.retrieved_studies = len(lines(self._folder, "right"))
        wrong = lines(self._folder, "wrong")
        if wrong:
            broken.append(f"{len(wrong)} times an acknowledged instance was not found or not as it was sent")
        verified = self._node.run("verify", check=False)
        if verified.returncode != 0:
            broken.append(f"anode verify: {verified.stdout[-1000:]}")
        missing = set(acknowledged) - set(self._index("SELECT SOPInstanceUID FROM instance"))
        if missing:
            broken.append(f"{len(missing)} acknowledged instances are not held")
        of_study = Counter(study for study, _ in {tuple(line) for line in lines(self._folder, "pacs")})
        self.report.results = sum(of_study.values())
        several = [study for study, count in of_study.items() if count > 1]
        if several:
            broken.append(f"{len(several)} studies have more than one result")
        if self.report.growth_bytes > GROWTH_BYTES + self.report.cache_growth_bytes:
            broken.append(f"memory grew by {self.report.growth_bytes} bytes")
        before, after = self.report.at_rest
        if after[0] > before[0] or after[1] > before[1] + DESCRIPTORS_OF_SETTLING:
            broken.append(f"threads and descriptors were {before} before and {after} after")

    def _index(self, question: str) -> list[Any]:
        """First column of what the index answers."""
        with closing(sqlite3.connect(self._node.folder / "data" / "index.sqlite")) as database:
            return [row[0] for row in database.execute(question)]

    def _results(self) -> int:
        return len({tuple(line) for line in lines(self._folder, "pacs")})

    def _studies(self) -> int:
        """How many studies are to be analysed; those whose sender was killed in their midst are, too."""
        return len({line[0] for line in lines(self._folder, "acknowledged") if line[3] == ANALYSED})

    def _read_log(self) -> None:
        for line in self._node.log.read_text().splitlines():
            if not line.startswith("{"):
                if "Traceback" in line:
                    self.report.broken.append(f"the node printed: {line}")
                continue
            said = json.loads(line)
            if said["level"] in ("WARNING", "ERROR", "CRITICAL"):
                self.report.events[said["event"]] += 1
                if said["event"] not in EXPECTED and not _is_death_of_a_peer(said):
                    self.report.broken.append(f"the log says: {line}")

    # --- the node's process ------------------------------------------------------------

    @property
    def _pid(self) -> int:
        assert self._node.process is not None
        assert self._node.process.poll() is None, "the node has ended"
        return self._node.process.pid

    def _threads_and_descriptors(self) -> tuple[int, int]:
        """Without its own files: of segments and readers the most that were ever needed at once are kept."""
        descriptors, threads = self._node.open_now()
        return threads, descriptors

    def _settled_threads_and_descriptors(self) -> tuple[int, int]:
        """Those of a node that has nothing to do, once associations and lanes have ended."""
        before = self.report.at_rest[0]
        for _ in range(60):
            threads, descriptors = self._threads_and_descriptors()
            if threads <= before[0] and descriptors <= before[1]:
                break
            time.sleep(0.5)
        return self._threads_and_descriptors()


def _growth(sizes: Sequence[int]) -> int:
    """Median of the last tenth less that of a tenth after the first third."""
    tenth, third = max(len(sizes) // 10, 1), len(sizes) // 3
    early, late = sizes[third : third + tenth], sizes[-tenth:]
    return int(median(late) - median(early)) if early and late else 0


def _is_death_of_a_peer(said: dict[str, Any]) -> bool:
    """An association of ours with the PACS that broke off, or a peer that ended before it asked for one."""
    what = {
        "association aborted": said.get("reason", "") if said.get("called_ae_title") == "PACS" else "",
        "connection refused": said.get("detail", ""),
    }.get(said["event"], "")
    return what.startswith(("the connection broke", "the peer closed the connection"))


def _command_line(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
