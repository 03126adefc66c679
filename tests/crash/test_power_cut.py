"""The power is cut: what was acknowledged is there, whatever the disk kept of what was not flushed."""

from __future__ import annotations

import filecmp
import hashlib
import os
import random
import re
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node import app, running, verification
from node.config import config_file
from node.errors import AnodeError
from node.jobs.worker import Engine
from node.repairs import Repairs
from node.status import STORE_CONFLICTING_INSTANCE, SUCCESS
from tests.crash.test_kill_points import other_content
from tests.support.crash_scene import PACS_CONTEXTS, Instance, Scene, killed_node, study
from tests.support.ports import free_port
from tests.support.power_cut import Cut, Recording, Sent, is_recordable, recorded
from tests.support.scripted_pacs import scripted_pacs
from tests.support.waiting import ANALYSES_SECONDS, wait_until

IS_LONG = bool(os.environ.get("ANODE_CRASH"))
#: Directories to start on: so many moments, and so many draws of what is left for each.
MOMENTS, DRAWS = (200, 3) if IS_LONG else (10, 1)
#: and so many on which a node goes on to the end of its work.
RESTS = 20 if IS_LONG else 1
SEED = os.environ.get("ANODE_CRASH_SEED")
_STORE_REQUEST, _STORE_RESPONSE = 0x0001, 0x8001

pytestmark = [
    pytest.mark.xdist_group("power cut"),  # all of them tell of one recording
    pytest.mark.timeout(6 * ANALYSES_SECONDS),
    pytest.mark.skipif(not is_recordable(), reason="strace is not installed, or may not trace here"),
]


@dataclass(frozen=True)
class Story:
    """A life of a node that was recorded from its first start to the end, and what was sent to it."""

    folder: Path
    recording: Recording
    configuration: str
    sent: dict[str, Instance]
    conflicting: Instance
    unflushed: Instance

    def promised(self, position: int) -> tuple[set[str], set[str], bool]:
        """What others rely on when the power goes at ``position``.

        SOP Instance UIDs of instances that were acknowledged, those of results that began to go to the
        PACS, and whether the copy in conflict was answered: it is in quarantine then.
        """
        messages = [found for sent in self.recording.sent_before(position) for found in store_messages(sent)]
        answers = [(uid, status) for field, uid, status in messages if field == _STORE_RESPONSE]
        return (
            {uid for uid, status in answers if status == SUCCESS},
            {uid for field, uid, _ in messages if field == _STORE_REQUEST},
            (self.conflicting.sop_instance_uid, STORE_CONFLICTING_INSTANCE) in answers,
        )

    def answer_after_a_kill(self) -> int:
        """Right behind the answer to an instance that a killed node had written, and had not flushed."""
        uid = self.unflushed.sop_instance_uid
        return next(
            sent.begin + 1
            for sent in self.recording.sent
            if (_STORE_RESPONSE, uid, SUCCESS) in store_messages(sent)
        )


def store_messages(sent: Sent) -> Iterator[tuple[int, str, int]]:
    """(Command Field, Affected SOP Instance UID, Status) of the C-STORE command in what was sent."""
    field = re.search(rb"\0\0\0\x01\x02\0\0\0(..)", sent.data, re.S)
    uid = re.search(rb"\0\0\0\x10(.)\0\0\0([0-9.]+)", sent.data, re.S)
    status = re.search(rb"\0\0\0\x09\x02\0\0\0(..)", sent.data, re.S)
    if field is None or uid is None:
        return
    number = int.from_bytes(field[1], "little")
    if number in (_STORE_REQUEST, _STORE_RESPONSE):
        yield number, uid[2].decode(), int.from_bytes(status[1], "little") if status else 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A node that is killed at first, and settles all and uses its segments again in its second life.

    An instance is written and not flushed when it is killed; its sender sends it again. Another is
    longer than a segment.
    """
    folder = tmp_path_factory.mktemp("power")
    with scripted_pacs(contexts=PACS_CONTEXTS) as pacs:
        # The same twice, one after the other, in one recording.
        twice = ["sh", "-c", 'for life in 1 2; do "$0" "$@"; done']
        node = killed_node(folder / "node", pacs, [*recorded(folder / "log"), *twice])
        node.port = free_port()
        scene = Scene(node, pacs)
        scene.start()
        unflushed = study(1, seed=8, is_analysed=False)
        scene.arm("received-not-flushed")
        assert scene.send(unflushed) == []
        scene.disarm()
        wait_until(lambda: node.log.read_text().count("anode ready") == 2, 300, "the second life")
        assert scene.repaired()["instances_indexed"] == 1
        assert scene.send(unflushed) == [SUCCESS]
        analysed = study(3, seed=1)
        together = (analysed, study(8, side=200, seed=2, is_analysed=False), study(1, side=760, seed=3))
        threads = [threading.Thread(target=scene.send, args=(instances,)) for instances in together]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scene.comes_to_rest()
        conflicting = other_content(analysed[0])
        assert scene.send([conflicting]) == [STORE_CONFLICTING_INSTANCE]
        for seed in range(4, 7):
            scene.send(study(5, side=200, seed=seed, is_analysed=False))
            scene.comes_to_rest()
        scene.send(study(4, seed=7))
        # The process that was started is strace.
        os.kill(int((node.folder / "data" / "lock").read_text()), signal.SIGKILL)
        assert node.process is not None
        node.process.wait(ANALYSES_SECONDS)
    recording = Recording.read(folder / "log", node.folder)
    (folder / "log").unlink()
    sent = {**scene.sent, conflicting.sop_instance_uid: analysed[0]}
    assert scene.acknowledged.keys() == sent.keys()
    return Story(node.folder, recording, node.config.read_text(), sent, conflicting, unflushed[0])


@pytest.fixture
def place(story: Story) -> Iterator[Path]:
    """The folder of the node, to be filled with what a disk shows; as it was, afterwards."""
    aside = story.folder.with_name("aside")
    story.folder.rename(aside)
    yield story.folder
    shutil.rmtree(story.folder, ignore_errors=True)
    aside.rename(story.folder)


def test_the_recording_holds_all_that_the_node_wrote(story: Story, tmp_path: Path) -> None:
    story.recording.cut(story.recording.length).make(tmp_path, "everything", random.Random(0))
    names = [
        path.relative_to(story.folder).as_posix()
        for path in story.folder.rglob("*")
        if (path.is_file() and not path.name.endswith("-shm") and path.parent == story.folder / "data")
        or (path.is_file() and {"log", "archive"} & set(path.relative_to(story.folder).parts))
    ]
    assert len(names) > 30
    _, different, absent = filecmp.cmpfiles(story.folder, tmp_path, names, shallow=False)
    assert (different, absent) == ([], [])


def test_the_recording_saw_segments_used_again_and_what_was_not_flushed(story: Story) -> None:
    recording = story.recording
    renamed = [names.names[0][0] for names in recording.names if len(names.names) == 2]
    assert sum(name.endswith(".seg") for name in renamed) > 4
    assert sum("/archive/" in name for name in renamed) > 20
    moments = range(0, recording.length, 50)
    assert sum(recording.cut(moment).undecided > 0 for moment in moments) > len(moments) // 2
    promised, results, is_kept = story.promised(recording.length)
    assert promised == story.sent.keys()
    assert len(results) >= 4
    assert is_kept


def keeps_its_promises(story: Story, position: int) -> Repairs:
    """Start a node on what lies in the folder of the story; return what it put right."""
    acknowledged, results, is_conflict_kept = story.promised(position)
    node = app.App(config_file.load(story.folder / "config.toml"))
    node.start()
    try:
        services = node.services
        with services.database.read() as connection:
            held = {one.sop_instance_uid: one for one in services.index.instances(connection)}
            quarantined = services.index.quarantined(connection)
        assert acknowledged <= held.keys(), "acknowledged instances are gone"
        assert results <= held.keys(), "results are gone that the PACS may have"
        for uid, one in held.items():
            assert one.is_own or one.data_set_sha256 == story.sent[uid].sha256
            assert verification.verify(services, one) == ""
        kept = [row for row in quarantined if row["data_set_sha256"] == story.conflicting.sha256]
        assert len(kept) == 1 or not is_conflict_kept
        for row in quarantined:
            with services.storage.open(row["location"]) as file:
                assert hashlib.sha256(file.read()).hexdigest() == row["data_set_sha256"]
    finally:
        node.stop()
    started = running.read(story.folder / "data")
    assert started is not None
    return started.repairs


def moments(recording: Recording, chance: random.Random, count: int) -> list[int]:
    """Half of them right behind the beginning of an answer, half anywhere."""
    answers = [
        sent.begin + 1
        for sent in recording.sent
        if any(field == _STORE_RESPONSE for field, _, _ in store_messages(sent))
    ]
    anywhere = [chance.randrange(1, recording.length) for _ in range(count // 2)]
    return sorted([*chance.sample(answers, min(len(answers), count // 2)), *anywhere])


def lay_out(story: Story, cut: Cut, keeps: str, draw: int, pacs_port: int = 1) -> None:
    """Fill the folder of the story with what a disk may show."""
    shutil.rmtree(story.folder, ignore_errors=True)
    cut.make(story.folder, keeps, random.Random(draw))
    text = story.configuration
    text = re.sub(r"^port = \d+", "port = 0", text, count=1, flags=re.M)
    text = re.sub(r"^port = [1-9]\d*", f"port = {pacs_port}", text, count=1, flags=re.M)
    (story.folder / "config.toml").write_text(text)


@pytest.fixture
def chance() -> random.Random:
    seed = int(SEED) if SEED else random.SystemRandom().randrange(1 << 32)
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def idle_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are given back at the start, and not begun."""
    monkeypatch.setattr(Engine, "start", lambda self: self._queue.release_leases_of(None))


@pytest.mark.usefixtures("place", "idle_engine")
def test_when_the_power_is_cut_nothing_that_was_acknowledged_is_lost(
    story: Story, chance: random.Random
) -> None:
    """Of what was not flushed a disk keeps nothing, everything, or whatever it likes."""
    repaired: Counter[str] = Counter()
    for position in (story.answer_after_a_kill(), *moments(story.recording, chance, MOMENTS)):
        cut = story.recording.cut(position)
        for keeps in ("nothing", "everything", *["some"] * DRAWS):
            draw = chance.randrange(1 << 32)
            lay_out(story, cut, keeps, draw)
            try:
                repaired.update(keeps_its_promises(story, position).counts())
            except Exception as error:
                where = f"position {position} of {story.recording.length}, keeps {keeps}, draw {draw}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    print(dict(repaired))
    assert repaired["instances_indexed"]


@pytest.mark.usefixtures("place")
def test_after_a_power_cut_the_node_does_the_rest_of_its_work(story: Story, chance: random.Random) -> None:
    for position in moments(story.recording, chance, max(2, RESTS))[-RESTS:]:
        acknowledged, results, _ = story.promised(position)
        with scripted_pacs(contexts=PACS_CONTEXTS, stored=sorted(results)) as pacs:
            lay_out(story, story.recording.cut(position), "some", chance.randrange(1 << 32), pacs.port)
            node = killed_node(story.folder, pacs)
            scene = Scene(node, pacs, dict(story.sent), {uid: story.sent[uid] for uid in acknowledged})
            with node:
                scene.nothing_is_lost()
                held = scene.held()
                scene.sent = {uid: one for uid, one in scene.sent.items() if uid in held}
                scene.comes_to_rest(may_repeat=len(results))
                scene.is_proven()


@pytest.mark.usefixtures("place", "idle_engine")
@pytest.mark.parametrize("not_flushed", ["data/log/", "data/index.sqlite"])
def test_a_flush_that_is_left_out_is_noticed(story: Story, not_flushed: str) -> None:
    """The test of the power cut can fail: once for the receive log, once for the database."""
    recording = story.recording
    names = {file: name for step in recording.names for name, file in step.names if file is not None}
    flushes = [one for one in recording.flushes if not str(names.get(one.of, one.of)).startswith(not_flushed)]
    assert len(flushes) < len(recording.flushes)
    position = recording.length
    lay_out(story, replace(recording, flushes=flushes).cut(position), "nothing", 0)
    with pytest.raises((AssertionError, AnodeError)):
        keeps_its_promises(story, position)
