"""The index comes back from the archive and the receive log alone, and nothing is done a second time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import analysis_runs
from node.__main__ import main
from node.analysis_runs import COMPLETED
from node.app import App
from node.clock import Clock
from node.config.settings import AnalysisConfig, Config, PeerConfig, RouteConfig, TranscodeConfig
from node.errors import ArchiveUnavailable, ConflictingInstance, ObjectError, StorageFailure
from node.index.index import Provenance, Run
from node.jobs.task import Done, Job
from node.rebuild.held import Reader
from node.rebuild.rebuilding import Rebuilt, rebuild
from node.series import digests
from node.storage import archive
from node.storage.guard import DataDirectory
from node.tasks.settle import SettleTask
from node.verification import verify
from tests.integration.test_ingest_own import result
from tests.integration.test_ingest_real_files import split
from tests.support import made
from tests.support.anode_process import ROOT
from tests.support.data import require_data
from tests.support.index_rows import index_rows, order_of
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

T = TypeVar("T")
EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)
# What the new index cannot know, or need not: these are the only differences.
NOT_KEPT = {
    "instance": {"verified_at", "problem"},
    "study_arrival": {"last_arrival", "is_open"},
    "analysis_run": {"recorded_at"},
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Quiet:
    """Progress that nobody sees."""

    def over(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        yield from items


def settings(folder: Path) -> Config:
    return replace(
        config(
            folder / "data",
            peers=[PeerConfig("PACS", "127.0.0.1", 1)],
            analyses=[AnalysisConfig("quality", "series-quality", send_to=("PACS",))],
        ),
        routes=(RouteConfig(send_to=("PACS",)),),
        transcode=TranscodeConfig(deflate_bytes=1000),
    )


def begin(folder: Path) -> Config:
    """Make a data directory as a start of the node does."""
    wanted = settings(folder)
    directory = DataDirectory(wanted.node.data_dir, None)
    directory.open()
    directory.check_archive(holds_settled=False)
    directory.check_log([], holds_instances=False)
    directory.close()
    return wanted


def again(wanted: Config) -> Rebuilt:
    return rebuild(wanted, Clock(), Quiet())


def index_of(wanted: Config) -> Path:
    return wanted.node.data_dir / "index.sqlite"


def lose_index(wanted: Config) -> dict[str, Any]:
    rows = index_rows(index_of(wanted))
    index_of(wanted).unlink()
    return rows


def receive(
    node: SmallNode,
    encoded: bytes,
    syntax: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    sender: str = "CT1",
) -> str:
    provenance = Provenance(sender, "ANODE", "192.0.2.1", 7, node.services.clock.timestamp())
    return node.services.ingest.receive(
        [[encoded]],
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=syntax,
        provenance=provenance,
    ).outcome


def receive_made(node: SmallNode, data_set: Dataset, syntax: str = EXPLICIT, sender: str = "CT1") -> str:
    encoded = made.encoded(data_set, syntax)
    return receive(node, encoded, syntax, str(data_set.SOPClassUID), str(data_set.SOPInstanceUID), sender)


def settle(node: SmallNode, is_wanted: Callable[[str], bool] = lambda _uid: True) -> None:
    """Settle what waits, as the node does, by a process of its own."""
    waiting = [job for job in node.jobs(kind="settle") if is_wanted(job["payload"]["sop_instance_uid"])]
    task = SettleTask()
    jobs = [
        Job(one["id"], "settle", one["key"], "", one["payload"], one["study_instance_uid"], 1, 0.0)
        for one in reversed(waiting)
    ]
    if jobs:
        for _, outcome in task.run(node.services, jobs):
            assert isinstance(outcome, Done)
            if outcome.apply is not None:
                node.services.database.write(outcome.apply)
    task.cancel()


def run_of(number: int, objects: int, **changed: Any) -> Run:
    facts = {
        "series_instance_uid": "1.2.77.1",
        "revision": 1,
        "started_at": 9.5,
        "selected_digest": "d",
        "input_digest": "d",
        **changed,
    }
    return Run("quality", model="m 1", kind=("sr", "seg")[number], number=number, objects=objects, **facts)


def make_results(node: SmallNode, study: str, *, fail: bool = False, **changed: Any) -> list[str]:
    """Take two results in, as an analysis does, and record its run."""
    objects = [result(StudyInstanceUID=study, StudyDate="20200101") for _ in range(2)]
    runs = [run_of(number, 2, **changed) for number in range(2)]

    def then(connection: Any) -> None:
        if fail:
            raise ArchiveUnavailable("stopped here")
        run = runs[0]
        named: dict[str, Any] = {
            "study_instance_uid": study,
            "series_instance_uid": run.series_instance_uid,
            "analysis": run.analysis,
            "revision": run.revision,
            "at": node.services.clock.timestamp(),
        }
        analysis_runs.record_selection(
            connection, **named, selected_digest=run.selected_digest, started_at=run.started_at
        )
        analysis_runs.record(
            connection,
            **named,
            state=COMPLETED,
            input_digest=run.input_digest,
            model=run.model,
            started_at=run.started_at,
            sr_series_instance_uid=str(objects[0].SeriesInstanceUID),
            sr_sop_class_uid=str(objects[0].SOPClassUID),
            sr_sop_instance_uid=str(objects[0].SOPInstanceUID),
            result_sop_instance_uids=[str(one.SOPInstanceUID) for one in objects],
        )

    node.services.ingest.own([made.part10(one) for one in objects], then=then, runs=runs)
    return [str(one.SOPInstanceUID) for one in objects]


class Later(Clock):
    """Two minutes later: what was to be quiet has been."""

    def timestamp(self) -> float:
        return super().timestamp() + 120


def digest_of(node: SmallNode, series_instance_uid: str) -> str:
    with node.services.database.read() as connection:
        found = node.services.index.of_series(connection, series_instance_uid)
    return digests.of_series((one.sop_instance_uid, one.data_set_sha256) for one in found)


def without(rows: dict[str, dict[str, Any]], table: str) -> dict[str, Any]:
    left_out = NOT_KEPT.get(table, set())
    return {
        key: {name: value for name, value in row.items() if name not in left_out}
        for key, row in rows[table].items()
    }


def real_files() -> list[tuple[str, bytes, str, str]]:
    """Transfer syntax, data set, SOP class and instance of real files of every kind, 300 kB each at most."""
    found = []
    paths = sorted(require_data("singles").rglob("*")) + sorted(require_data("made").rglob("*"))
    paths += sorted(require_data("series/MR_T1_brain_HFS").rglob("*.dcm"))[:12]
    for path in paths:
        if path.is_file() and path.stat().st_size < 300_000 and (parts := split(path)) is not None:
            meta_class, meta_instance = _media_uids(path)
            found.append((*parts, meta_class, meta_instance))
    return found


def _media_uids(path: Path) -> tuple[str, str]:
    elements, _ = archive._file_meta(path.open("rb"))
    values = [elements.get(number, b"").rstrip(b"\0 ").decode("ascii", "replace") for number in (2, 3)]
    return values[0], values[1]


def test_every_row_of_real_files_comes_back(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    held: list[str] = []
    with small_node(wanted) as node:
        for syntax, data_set, sop_class_uid, sop_instance_uid in real_files():
            try:
                if receive(node, data_set, syntax, sop_class_uid, sop_instance_uid) == "stored":
                    held.append(sop_instance_uid)
            except (ObjectError, ConflictingInstance):
                continue
        assert len(held) > 80
        study = node.stored(held[0]).study_instance_uid
        results = make_results(node, study)
        changed = made.ct_image(study_instance_uid=study)
        receive_made(node, changed)
        # every third is settled at once, all but some later: the order is not that of receipt
        settle(node, lambda one: one in held[::3])
        later = {held[5], held[7], held[11], results[1]}
        settle(node, lambda one: one not in later)
        changed.InstanceNumber = 4711
        with pytest.raises(ConflictingInstance):
            receive_made(node, changed, sender="CT2")
    order = order_of(index_of(wanted))
    before = lose_index(wanted)
    rebuilt = again(wanted)
    after = index_rows(index_of(wanted))
    for table in before.keys() - {"job"}:
        assert without(after, table) == without(before, table), table
    kept = [row for row in before["instance"].values() if row["kept_reason"]]
    proven = [row for row in before["instance"].values() if row["proof"] and not row["kept_reason"]]
    assert len(kept) > 20
    assert len(proven) > 20
    codecs = {row["proof"]["stored"]["codec"] for row in proven}
    assert codecs == {"jpeg-ls", "deflated-frame", "deflate"}
    assert {row["location"][:3] for row in after["instance"].values()} == {"log", "arc"}
    assert order_of(index_of(wanted)) == order
    assert (rebuilt.left_out, rebuilt.own, rebuilt.runs) == ([], 2, 1)
    assert rebuilt.quarantined == len(before["quarantine"]) > 0
    assert (rebuilt.instances, rebuilt.unsettled) == (len(held) + 3, 4)
    assert {row["kind"] for row in before["job"].values()} >= {"settle", "deliver"}
    unsettled = {f"settle{one}" for one in later}
    assert {key: row["state"] for key, row in after["job"].items()} == dict.fromkeys(unsettled, "ready")
    with small_node(wanted) as node:
        assert {job["kind"] for job in node.jobs()} == {"settle"}
        settle(node)
        for row in after["instance"].values():
            assert verify(node.services, node.stored(row["SOPInstanceUID"])) == ""


def test_nothing_is_sent_again_and_a_recent_study_without_a_result_is_looked_at_once_more(
    tmp_path: Path,
) -> None:
    wanted = begin(tmp_path)
    old, done, open_one = (made.ct_image() for _ in range(3))
    with small_node(wanted) as node:
        receive_made(node, done)
        receive_made(node, open_one)
        sent_back = result()  # of which nobody knows the run
        receive_made(node, made.ct_image(study_instance_uid=str(sent_back.StudyInstanceUID)))
        receive_made(node, sent_back, sender="PACS")
        encoded = made.encoded(old)
        node.services.ingest.receive(
            [[encoded]],
            sop_class_uid=str(old.SOPClassUID),
            sop_instance_uid=str(old.SOPInstanceUID),
            transfer_syntax_uid=EXPLICIT,
            provenance=Provenance("CT1", "ANODE", "192.0.2.1", 7, node.services.clock.timestamp() - 90_000),
        )
        digest = digest_of(node, str(done.SeriesInstanceUID))
        make_results(
            node,
            str(done.StudyInstanceUID),
            series_instance_uid=str(done.SeriesInstanceUID),
            selected_digest=digest,
            input_digest=digest,
        )
        settle(node)
    lose_index(wanted)
    assert again(wanted).rearmed == 2
    with small_node(wanted, Later()) as node:
        assert node.schedule.complete() == 2
        node.engine.start()
        wait_until(lambda: {job["state"] for job in node.jobs(kind="select")} == {"done"}, 30)
        analyses = [job["payload"]["series_instance_uid"] for job in node.jobs(kind="analyze")]
        assert analyses == [str(open_one.SeriesInstanceUID)]
        assert node.jobs(kind="deliver") == []


def analysed(node: SmallNode, count: int) -> list[str]:
    """The series that are to be analysed, once ``count`` studies were looked at again."""
    assert node.schedule.complete() == count
    node.engine.start()
    wait_until(lambda: {job["state"] for job in node.jobs(kind="select")} == {"done"}, 30)
    return [job["payload"]["series_instance_uid"] for job in node.jobs(kind="analyze")]


def test_a_result_whose_run_has_lost_another_one_stays_and_none_is_made_before_somebody_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record whose head reads as never written leaves no trace, and may have been delivered."""
    wanted = begin(tmp_path)
    image = made.ct_image()
    study, series = str(image.StudyInstanceUID), str(image.SeriesInstanceUID)
    with small_node(wanted) as node:
        receive_made(node, image)
        settle(node)
        digest = digest_of(node, series)
        facts = {"series_instance_uid": series, "selected_digest": digest, "input_digest": digest}
        kept, lost = make_results(node, study, **facts)
        place = node.stored(lost).location
        segment = node.services.storage.path(place)
    damage(segment, place.offset - 4096, bytes(4096))
    lose_index(wanted)
    rebuilt = again(wanted)
    assert (rebuilt.own, rebuilt.runs, rebuilt.rearmed) == (1, 1, 0)
    [left_out] = rebuilt.left_out
    assert left_out.file == str(segment)
    assert "1 of the 2 results of its run is missing" in left_out.reason
    assert f"anode retry --study {study} --again" in left_out.reason
    rows = index_rows(index_of(wanted))["instance"]
    assert kept in rows
    assert lost not in rows
    other = made.ct_image(study_instance_uid=study)
    with small_node(wanted) as node:
        receive_made(node, other)  # the study is looked at again, but the series is as it was
    with small_node(wanted, Later()) as node:
        assert analysed(node, 1) == [str(other.SeriesInstanceUID)]
        sent = [job["payload"]["sop_instance_uid"] for job in node.jobs(kind="deliver")]
        assert sent == [str(other.SOPInstanceUID)]
    file = tmp_path / "config.toml"
    file.write_text(
        '[node]\nport = 0\ndata_dir = "data"\n[[analyses]]\nname = "quality"\nmodel = "series-quality"\n'
    )
    assert main(["why", study, "--config", str(file)]) == 0
    assert "1 of the 2 results of its run is missing" in capsys.readouterr().out
    assert main(["retry", "--study", study, "--again", "--config", str(file)]) == 0
    with small_node(wanted, Later()) as node:
        assert series in analysed(node, 1)


def test_results_of_a_run_that_was_stopped_before_it_was_recorded_are_kept(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    with small_node(wanted) as node:
        image = made.ct_image()
        receive_made(node, image)
        whole = make_results(node, str(image.StudyInstanceUID))
        with pytest.raises(ArchiveUnavailable):
            make_results(node, str(image.StudyInstanceUID), revision=2, fail=True)
    lose_index(wanted)
    again(wanted)
    assert set(whole) < set(index_rows(index_of(wanted))["instance"])


def damage(path: Path, offset: int, content: bytes = b"\xff\xfe\xfd") -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_a_damaged_archive_file_is_replaced_from_the_log_where_that_still_has_it(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    images = [made.ct_image() for _ in range(3)]
    with small_node(wanted) as node:
        for image in images:
            receive_made(node, image)
        settle(node)
        paths = [node.services.storage.path(node.stored(str(one.SOPInstanceUID)).location) for one in images]
    damage(paths[0], paths[0].stat().st_size - 20)
    damage(paths[1], 150)
    before = lose_index(wanted)
    rebuilt = again(wanted)
    assert (rebuilt.left_out, rebuilt.instances, rebuilt.unsettled) == ([], 3, 2)
    after = index_rows(index_of(wanted))["instance"]
    for one, row in before["instance"].items():
        for column in ("provenance", "data_set_sha256", "received_at", "header"):
            assert row[column] == after[one][column]
    with small_node(wanted) as node:
        settle(node)
        assert [verify(node.services, node.stored(str(one.SOPInstanceUID))) for one in images] == [""] * 3


def test_a_record_that_could_not_be_read_then_starts_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been forwarded and analysed before the index was lost."""
    wanted = begin(tmp_path)
    image = made.ct_image()
    with small_node(wanted) as node:
        receive_made(node, image)
    lose_index(wanted)

    def fails(*_: object) -> None:
        raise StorageFailure("Input/output error while reading an instance")

    with monkeypatch.context() as failing:
        failing.setattr(Reader, "recorded", fails)
        assert len(again(wanted).left_out) == 1
    with small_node(wanted) as node:
        assert node.stored(str(image.SOPInstanceUID)).provenance.starts_nothing
        receive_made(node, made.ct_image())
        with node.services.database.read() as connection:
            studies = connection.execute("SELECT study_instance_uid FROM study_arrival").fetchall()
        assert str(image.StudyInstanceUID) not in [row[0] for row in studies]
        assert len(studies) == 1


def test_what_cannot_be_read_is_named_and_stays_where_it_is(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    images = [made.ct_image() for _ in range(4)]
    with small_node(wanted) as node:
        for image in images[:2]:
            receive_made(node, image)
        settle(node)
        path = node.services.storage.path(node.stored(str(images[0].SOPInstanceUID)).location)
        node.services.storage.reclaim(lambda _segment: False)
        for image in images[2:]:
            receive_made(node, image)
        place = node.stored(str(images[2].SOPInstanceUID)).location
        segment = node.services.storage.path(place)
    damage(path, 150)
    damage(segment, place.offset - 4096 + 20)  # the head of the first of its records
    stranger = wanted.node.data_dir / "archive" / "abc" / "stranger.dcm"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(path.with_name(path.name).read_bytes()[:100])
    lose_index(wanted)
    for _ in range(2):
        rebuilt = again(wanted)
        assert {one.file for one in rebuilt.left_out} == {str(path), str(segment), str(stranger)}
        assert all(one.reason for one in rebuilt.left_out)
        assert set(index_rows(index_of(wanted))["instance"]) == {
            str(images[1].SOPInstanceUID),
            str(images[3].SOPInstanceUID),
        }
        assert rebuilt.rearmed == 0
    content = path.read_bytes()
    with small_node(wanted) as node:
        receive_made(node, images[0])
        settle(node)
        assert verify(node.services, node.stored(str(images[0].SOPInstanceUID))) == ""
    (aside,) = (wanted.node.data_dir / "archive" / "replaced").iterdir()
    assert aside.read_bytes() == content


def test_other_content_in_the_log_under_a_uid_of_the_archive_goes_to_quarantine(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    image = made.ct_image()
    with small_node(wanted) as node:
        receive_made(node, image)
        settle(node)
        node.services.storage.reclaim(lambda _segment: False)
        image.InstanceNumber = 99
        with node.services.storage.begin() as reception:
            reception.write([made.encoded(image)])
            reception.commit(EXPLICIT, Provenance("CT2", "ANODE", "192.0.2.2", 8, 5.0).to_json())
    before = lose_index(wanted)
    rebuilt = again(wanted)
    assert (rebuilt.quarantined, rebuilt.instances, rebuilt.left_out) == (1, 1, [])
    after = index_rows(index_of(wanted))
    assert without(after, "instance") == without(before, "instance")
    (row,) = after["quarantine"].values()
    assert row["provenance"]["calling_ae_title"] == "CT2"
    assert row["reason"] == "(0020,0013) differs"


KILLED = """
import os, signal, sys
from pathlib import Path
from node.__main__ import main
from node.rebuild import rebuilding

point, config = sys.argv[1:]

def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if point == "filling":
    rebuilding._Rebuilding._finish = dies
else:
    real, left = Path.rename, int(point)
    def rename(self, target):
        global left
        left -= 1
        if left < 0:
            dies()
        return real(self, target)
    Path.rename = rename
main(["rebuild", "--config", config])
"""


def test_a_rebuild_that_is_killed_anywhere_is_done_again(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    with small_node(wanted) as node:
        for _ in range(3):
            receive_made(node, made.ct_image())
        settle(node)
        receive_made(node, made.ct_image())
    before = index_rows(index_of(wanted))
    for beside in ("-wal", "-shm"):
        index_of(wanted).with_name(f"index.sqlite{beside}").unlink(missing_ok=True)
    damage(index_of(wanted), 0, b"not a database ")
    old = index_of(wanted).read_bytes()
    file = tmp_path / "config.toml"
    file.write_text('[node]\nport = 0\ndata_dir = "data"\n')
    # while it is filled, before the old one is set aside, and between that and the new name
    for point, is_there in (("filling", True), ("0", True), ("1", False)):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, point, str(file)],
            cwd=ROOT,
            check=False,
            timeout=60,
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert index_of(wanted).exists() is is_there
    with pytest.raises(ArchiveUnavailable) as refused:
        App(wanted).start()
    assert "anode rebuild" in refused.value.action
    again(wanted)
    assert without(index_rows(index_of(wanted)), "instance") == without(before, "instance")
    (aside,) = wanted.node.data_dir.glob("index.sqlite.damaged-*Z")
    assert aside.read_bytes() == old


def test_a_rebuild_beside_a_running_node_or_without_its_archive_is_refused(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    running = DataDirectory(wanted.node.data_dir, None)
    running.open()
    with pytest.raises(ArchiveUnavailable, match="in use by another anode"):
        again(wanted)
    running.close()
    mark = wanted.node.data_dir / "log" / "format.json"
    aside = mark.rename(tmp_path / "aside")
    with pytest.raises(ArchiveUnavailable, match="receive log"):
        again(wanted)
    aside.rename(mark)
    (wanted.node.data_dir / "archive" / "format.json").unlink()
    with pytest.raises(ArchiveUnavailable, match="archive folder"):
        again(wanted)
    with pytest.raises(ArchiveUnavailable, match="no node has run"):
        again(settings(tmp_path / "elsewhere"))


def test_what_was_in_a_lost_log_alone_is_named(tmp_path: Path) -> None:
    wanted = begin(tmp_path)
    image, settled = made.ct_image(), made.ct_image()
    with small_node(wanted) as node:
        receive_made(node, settled)
        settle(node)
        receive_made(node, image)
    log = wanted.node.data_dir / "log"
    with pytest.raises(ArchiveUnavailable, match="is there"):
        rebuild(wanted, Clock(), Quiet(), is_log_lost=True)
    log.rename(tmp_path / "aside")
    log.mkdir()
    rebuilt = rebuild(wanted, Clock(), Quiet(), is_log_lost=True)
    assert rebuilt.instances == 1
    [one] = rebuilt.left_out
    assert one.file == str(image.SOPInstanceUID)
    assert one.reason == "it was in the receive log alone: ask CT1 at 192.0.2.1 to send it again"


def test_the_command_tells_what_it_found_and_fails_where_something_is_left_out(tmp_path, capsys) -> None:
    begin(tmp_path)
    file = tmp_path / "config.toml"
    file.write_text('[node]\nport = 0\ndata_dir = "data"\n')
    assert main(["rebuild", "--config", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == []
    stranger = tmp_path / "data" / "archive" / "abc" / "stranger.dcm"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"nothing")
    assert main(["rebuild", "--config", str(file)]) == 1
    said = capsys.readouterr()
    assert str(stranger) in said.out
    assert "index.sqlite.damaged-" in said.out
    assert f"anode verify --config {file}" in said.err
    (tmp_path / "data" / "index.sqlite").unlink()
    assert main(["status", "--config", str(file)]) == 1
    assert "'anode rebuild'" in capsys.readouterr().err
