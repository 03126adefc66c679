"""``anode backup`` and ``anode restore-backup``: all that was acknowledged is in it, and comes back equal."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from node.__main__ import main
from node.backup import manifest
from node.config.settings import PeerConfig
from node.sending import dicom_files
from node.sending.recoding import uncompressed
from node.sending.sending import Sender
from node.storage.record import BLOCK_BYTES
from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.dying import killed_at
from tests.support.stopped_node import StoppedNode
from tests.support.waiting import wait_until

Capture = pytest.CaptureFixture[str]

PACS = '[[peers]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 9\n'
ROUTES = f'{PACS}[[routes]]\nwhen = {{ Modality = "OT" }}\nsend_to = ["PACS"]\n'
ANALYSIS = f'{PACS}[[analyses]]\nname = "quality"\nmodel = "series-quality"\n'


def ct(number: int, study: str = "1.2.3") -> Dataset:
    pixels = np.random.default_rng(number).integers(-1000, 1000, (32, 32)).astype("<i2")
    return made.ct_image(
        pixels=pixels,
        study_instance_uid=study,
        series_instance_uid=f"{study}.0",
        sop_instance_uid=f"{study}.{number}",
        InstanceNumber=number,
    )


def long_object(sop_instance_uid: str) -> Dataset:
    """One that is longer than a segment of the receive log."""
    pixels = np.arange(1200 * 1200, dtype="<i2").reshape(1200, 1200)
    return made.ct_image(pixels=pixels, study_instance_uid="1.2.4", sop_instance_uid=sop_instance_uid)


@pytest.fixture
def node(tmp_path: Path) -> StoppedNode:
    """Eight settled instances, three in the receive log, of which one goes on over segments."""
    node = StoppedNode(tmp_path / "node")
    node.receive(*(ct(number) for number in range(1, 9)), is_settled=True)
    node.receive(ct(9), ct(10), long_object("1.2.4.1"))
    return node


@pytest.fixture
def restored(tmp_path: Path) -> StoppedNode:
    """An empty place to restore to."""
    return StoppedNode(tmp_path / "restored")


def assert_equal(restored: StoppedNode, node: StoppedNode, capture: Capture) -> None:
    assert restored.rows("instance") == node.rows("instance")
    assert restored.rows("quarantine") == node.rows("quarantine")
    assert restored.files() == node.files()
    assert "0 damaged" in restored.run(capture, "verify")


def test_a_restored_backup_holds_what_the_node_held(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    summary = node.json(capsys, "backup", str(tmp_path / "backup"))
    assert summary["damages"] == []
    assert [path for path in (tmp_path / "backup").rglob("*") if path.stat().st_mode & 0o077] == []
    assert summary["records"] == 11  # those of the settled ones have not been used again yet
    told = restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert "start the node with 'anode run" in told
    assert_equal(restored, node, capsys)
    assert len(restored.digests()) == 11
    # and it takes in more
    restored.receive(ct(11))
    assert len(restored.digests()) == 12


def test_a_second_backup_copies_what_is_new_alone(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    copies = {path: path.stat().st_ino for path in backup.rglob("archive/**/*.dcm")}
    assert len(copies) == 8
    node.receive(ct(11), is_settled=True)
    summary = node.json(capsys, "backup", str(backup))
    assert {path: path.stat().st_ino for path in copies} == copies
    now = set(backup.rglob("archive/**/*.dcm"))
    assert len(now - copies.keys()) == 1
    others = [entry for entry in entries(backup) if not entry.path.startswith("archive/")]
    assert summary["new_files"] == 1 + len(others)
    assert [path.name for path in (backup / "generations").iterdir()] == [summary["generation"]]
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)


def entries(backup: Path) -> list[manifest.Entry]:
    found = manifest.read(backup)
    assert found is not None
    return list(found.entries())


def test_a_record_whose_row_was_not_written_yet_is_in_the_backup(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    with sqlite3.connect(node.data_dir / "index.sqlite") as connection:
        # as a node is between Success and the next transaction of its writer
        assert connection.execute("DELETE FROM instance WHERE SOPInstanceUID = '1.2.3.10'").rowcount == 1
        assert connection.execute("DELETE FROM instance WHERE SOPInstanceUID = '1.2.4.1'").rowcount == 1
    connection.close()
    node.run(capsys, "backup", str(tmp_path / "backup"))
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert {"1.2.3.10", "1.2.4.1"} <= restored.digests().keys()
    assert "0 damaged" in restored.run(capsys, "verify")


@pytest.mark.parametrize("count", [1, 9])
def test_a_backup_that_was_killed_is_repeated_and_the_one_before_stays_good(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture, count: int
) -> None:
    backup = tmp_path / "backup"
    node.receive(ct(20), is_settled=True)
    before = node.digests()
    node.run(capsys, "backup", str(backup))
    node.receive(*(ct(number) for number in range(30, 40)), is_settled=True)
    killed_at("node.backup.copying:copy", count, "backup", str(backup), "--config", str(node.file))
    restored.run(capsys, "restore-backup", str(backup))
    assert restored.digests() == before
    assert "0 damaged" in restored.run(capsys, "verify")
    shutil.rmtree(restored.data_dir)
    node.run(capsys, "backup", str(backup))
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)
    assert not list(backup.rglob(".partial"))


def test_the_first_backup_goes_on_where_it_was_killed(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "backup"
    killed_at("node.backup.backup:_prune", 1, "backup", str(tmp_path / "whole"), "--config", str(node.file))
    all_copies = sum(1 for entry in entries(tmp_path / "whole"))
    killed_at("node.backup.copying:copy", all_copies - 2, "backup", str(backup), "--config", str(node.file))
    told = restored.run(capsys, "restore-backup", str(backup), status=1)
    assert "no finished backup" in told
    assert not restored.data_dir.exists()
    copies = {path: path.stat().st_ino for path in backup.rglob("archive/**/*.dcm")}
    assert copies
    node.run(capsys, "backup", str(backup))
    assert {path: path.stat().st_ino for path in copies} == copies
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)


@pytest.mark.parametrize(
    "function",
    [
        *(f"node.backup.copying:copy {count}" for count in (1, 12)),
        "node.backup.restoring:finish 1",
        "node.storage.restoration:end 1",
    ],
)
def test_no_node_starts_on_half_a_restore_and_it_can_be_repeated(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture, function: str
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    name, count = function.split()
    killed_at(name, int(count), "restore-backup", str(backup), "--config", str(restored.file))
    told = restored.run(capsys, "run", status=1)
    assert "is not finished" in told
    assert "repeat 'anode restore-backup'" in told
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.unlink()  # so that it is written anew, as what replaces a file is
    path.write_bytes(content)


def test_damage_in_the_archive_is_named_and_never_replaces_a_good_copy(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    good = node.files()
    damage(node.archive_file("1.2.3.4"))
    node.archive_file("1.2.3.5").unlink()
    summary = node.json(capsys, "backup", str(backup), status=1)
    assert {found["where"] for found in summary["damages"]} == {"1.2.3.4", "1.2.3.5"}
    assert all("good copy of an earlier backup is kept" in found["problem"] for found in summary["damages"])
    restored.run(capsys, "restore-backup", str(backup))
    assert restored.files() == good
    assert "0 damaged" in restored.run(capsys, "verify")


def test_what_is_damaged_before_its_first_backup_is_kept_and_named(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    damage(node.archive_file("1.2.3.4"))
    told = node.run(capsys, "backup", str(tmp_path / "backup"), status=1)
    assert "1.2.3.4" in told
    told = restored.run(capsys, "restore-backup", str(tmp_path / "backup"), status=1)
    assert "damaged" in told
    assert restored.files() == node.files()
    # sent again, it is repaired, and the next backup holds it well
    node.receive(ct(4), is_settled=True)
    node.run(capsys, "backup", str(tmp_path / "backup"))
    shutil.rmtree(restored.data_dir)
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert_equal(restored, node, capsys)
    # the damaged copy, which no manifest names any more, is gone
    named = {entry.file for entry in entries(tmp_path / "backup") if entry.path.startswith("archive/")}
    copies = (tmp_path / "backup").glob("archive/**/*.dcm")
    assert {str(path.relative_to(tmp_path / "backup")) for path in copies} == named


def test_a_damaged_or_missing_record_of_the_log_is_named(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    [(location,)] = node.query("SELECT location FROM instance WHERE SOPInstanceUID = '1.2.3.9'")
    _, segment, offset, _ = location.split(":")
    with (node.data_dir / "log" / f"{segment}.seg").open("r+b") as file:
        file.seek(int(offset) + 300)
        file.write(b"damage")
    [(location,)] = node.query("SELECT location FROM instance WHERE SOPInstanceUID = '1.2.4.1'")
    (node.data_dir / "log" / f"{location.split(':')[1]}.seg").unlink()
    summary = node.json(capsys, "backup", str(tmp_path / "backup"), status=1)
    assert {found["where"] for found in summary["damages"]} >= {"1.2.3.9", "1.2.4.1"}


def test_a_record_behind_a_damaged_head_is_in_the_backup_and_the_damage_is_named(
    restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    node = StoppedNode(tmp_path / "node")
    node.receive(ct(1), ct(2), ct(3))
    (segment,) = {row[0].split(":")[1] for row in node.query("SELECT location FROM instance")}
    with (node.data_dir / "log" / f"{segment}.seg").open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(bytes(BLOCK_BYTES))
    with sqlite3.connect(node.data_dir / "index.sqlite") as connection:
        connection.execute("DELETE FROM instance WHERE SOPInstanceUID = '1.2.3.3'")
    connection.close()
    summary = node.json(capsys, "backup", str(tmp_path / "backup"), status=1)
    assert summary["records"] == 2
    assert {found["where"] for found in summary["damages"]} == {
        "1.2.3.1",
        f"segment {segment} of the receive log",
    }
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert "1.2.3.3" in restored.digests()


def test_damage_in_the_backup_is_named_when_it_is_restored(
    restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    node = StoppedNode(tmp_path / "node")
    node.receive(ct(1), ct(2), is_settled=True)
    with node.services() as services:
        services.ingest.replay()
        assert services.storage.reclaim(lambda _: False)  # else the log would repair it
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    damage(next(backup.rglob("archive/**/*.dcm")))
    found = restored.json(capsys, "restore-backup", str(backup), status=1)
    assert len(found["damages"]) == 1
    assert "another digest" in found["damages"][0]["problem"]
    assert "1 damaged" in restored.run(capsys, "verify", status=1)


def test_a_damaged_database_or_manifest_of_a_backup_is_refused(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    damage(next(backup.rglob("index.sqlite")))
    assert "another digest" in restored.run(capsys, "restore-backup", str(backup), status=1)
    assert "is not finished" in restored.run(capsys, "run", status=1)
    damage(backup / "manifest.jsonl")
    assert "manifest" in restored.run(capsys, "restore-backup", str(backup), status=1)


def forge(backup: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Let the manifest of a backup say something else, its first line and its files, under a good digest."""
    *facts, closing = map(json.loads, (backup / "manifest.jsonl").read_bytes().splitlines())
    change(facts)
    body = b"".join(json.dumps(line).encode() + b"\n" for line in facts)
    closing |= {"files": len(facts) - 1, "sha256": hashlib.sha256(body).hexdigest()}
    (backup / "manifest.jsonl").write_bytes(body + json.dumps(closing).encode() + b"\n")


def backup_of_one(tmp_path: Path, capsys: Capture) -> Path:
    """A backup of a node that holds one instance."""
    node = StoppedNode(tmp_path / "node")
    node.receive(ct(1))
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    return backup


def a_file(path: str, file: str) -> dict[str, Any]:
    return {"path": path, "bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest(), "file": file}


@pytest.mark.parametrize("by", [-1, 1])
def test_a_backup_of_another_format_is_refused_with_what_to_do(
    restored: StoppedNode, tmp_path: Path, capsys: Capture, by: int
) -> None:
    backup = backup_of_one(tmp_path, capsys)
    forge(backup, lambda facts: facts[0].update(format=manifest.FORMAT + by))
    told = restored.run(capsys, "restore-backup", str(backup), status=1)
    assert f"has format {manifest.FORMAT + by}" in told
    assert ("anode import" in told) == (by < 0)
    assert not (restored.data_dir / "archive").exists()


@pytest.mark.parametrize(
    "path", ["archive/{}/victim", "archive/../../victim", "archive/./x", "archive/x\0", "."]
)
def test_a_manifest_that_names_a_place_outside_of_the_data_directory_is_refused(
    restored: StoppedNode, tmp_path: Path, capsys: Capture, path: str
) -> None:
    backup = backup_of_one(tmp_path, capsys)
    (backup / "archive").mkdir(exist_ok=True)
    (backup / "archive" / "x").write_bytes(b"evil")
    (tmp_path / "victim").write_bytes(b"mine")
    forge(backup, lambda facts: facts.append(a_file(path.format(tmp_path), "archive/x")))
    told = restored.run(capsys, "restore-backup", str(backup), status=1)
    assert "not as a backup writes it" in told
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("file", ["{}/secret", "../secret", "archive/link", "archive/folder/secret"])
def test_a_restore_reads_nothing_outside_of_the_backup(
    restored: StoppedNode, tmp_path: Path, capsys: Capture, file: str
) -> None:
    backup = backup_of_one(tmp_path, capsys)
    (tmp_path / "secret").write_bytes(b"evil")
    (backup / "archive").mkdir(exist_ok=True)
    (backup / "archive" / "link").symlink_to(tmp_path / "secret")
    (backup / "archive" / "folder").symlink_to(tmp_path)
    forge(backup, lambda facts: facts.append(a_file("archive/zz/leak.dcm", file.format(tmp_path))))
    restored.run(capsys, "restore-backup", str(backup), status=1)
    assert not list(restored.data_dir.rglob("leak.dcm"))


@pytest.mark.parametrize("what", ["generation", "absolute file", "linked file", "own manifest"])
def test_the_next_backup_removes_nothing_outside_of_what_backups_wrote(
    tmp_path: Path, capsys: Capture, what: str
) -> None:
    node = StoppedNode(tmp_path / "node")
    node.receive(ct(1), is_settled=True)
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"mine")
    (backup / "archive" / "link").symlink_to(victim)

    def change(facts: list[dict[str, Any]]) -> None:
        if what == "generation":
            facts[0]["generation"] = str(victim)
        else:
            files = {"absolute file": f"{victim}/precious", "linked file": "archive/link/precious"}
            facts[-1]["file"] = files.get(what, "manifest.jsonl")

    forge(backup, change)
    main(["backup", str(backup), "--config", str(node.file)])
    assert (victim / "precious").read_bytes() == b"mine"
    assert (backup / "manifest.jsonl").exists()


def test_a_restore_refuses_a_directory_that_is_not_empty(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    node.run(capsys, "backup", str(tmp_path / "backup"))
    before = node.digests()
    told = node.run(capsys, "restore-backup", str(tmp_path / "backup"), status=1)
    assert "is not empty: it holds archive" in told
    assert node.digests() == before
    assert not (node.data_dir / "restoring").exists()


def test_a_backup_of_another_archive_does_not_take_the_place_of_the_one_that_was_there(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    restored.receive(ct(1))
    shutil.rmtree(restored.data_dir)
    node.run(capsys, "backup", str(tmp_path / "backup"))
    told = restored.run(capsys, "restore-backup", str(tmp_path / "backup"), status=1)
    assert "the backup is of" in told
    assert not restored.data_dir.exists()
    # its own is what belongs there
    shutil.rmtree(node.data_dir)
    node.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert len(node.digests()) == 11


def test_a_folder_that_holds_something_else_is_no_place_for_a_backup(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    assert "no backup" in node.run(capsys, "backup", str(tmp_path / "photos"), status=2)
    inside = node.run(capsys, "backup", str(node.data_dir / "backup"), status=2)
    assert "lie in each other" in inside
    other = StoppedNode(tmp_path / "other")
    other.receive(ct(1))
    other.run(capsys, "backup", str(tmp_path / "backup"))
    assert "another archive" in node.run(capsys, "backup", str(tmp_path / "backup"), status=2)


def test_a_backup_whose_disk_is_not_mounted_is_not_begun_anew(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "mount" / "backup"
    node.run(capsys, "backup", str(backup))
    backup.rename(tmp_path / "unmounted")
    told = node.run(capsys, "backup", str(backup), status=1)
    assert "mount its disk" in told
    assert not backup.exists()
    (tmp_path / "unmounted").rename(backup)
    node.run(capsys, "backup", str(backup))


@pytest.mark.parametrize("folder", ["log", "archive"])
def test_what_is_not_mounted_does_not_take_the_place_of_the_backup_before(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture, folder: str
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    aside = (node.data_dir / folder).rename(tmp_path / "aside")
    for _ in range(2):  # not there at all, and as an empty mount point
        assert "empty or another one" in node.run(capsys, "backup", str(backup), status=1)
        assert "empty or another one" in node.run(capsys, "check", "--no-peers", status=1)
        (node.data_dir / folder).mkdir(exist_ok=True)
    (node.data_dir / folder).rmdir()
    aside.rename(node.data_dir / folder)
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)


def test_a_copy_that_its_disk_damaged_is_found_and_made_anew(
    node: StoppedNode, restored: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    backup = tmp_path / "backup"
    node.run(capsys, "backup", str(backup))
    copy = next(backup.rglob("archive/**/*.dcm"))
    content = bytearray(copy.read_bytes())
    content[-100] ^= 0xFF
    copy.write_bytes(content)
    node.run(capsys, "backup", str(backup), "--verify")
    restored.run(capsys, "restore-backup", str(backup))
    assert_equal(restored, node, capsys)


# --- what a restored node does -----------------------------------------------------


def states(node: StoppedNode, kind: str) -> list[str]:
    return [row[0] for row in node.query(f"SELECT state FROM job WHERE kind = '{kind}'")]


def test_what_may_have_been_sent_after_the_backup_is_held_until_a_person_says_so(
    tmp_path: Path, capsys: Capture
) -> None:
    node = StoppedNode(tmp_path / "node", ROUTES)
    node.receive(made.instance(sop_instance_uid="1.2.3.1"), made.instance(sop_instance_uid="1.2.3.2"))
    with sqlite3.connect(node.data_dir / "index.sqlite") as connection:
        # not indexed yet: its route is enqueued by the restore
        connection.execute("DELETE FROM instance WHERE SOPInstanceUID = '1.2.3.2'")
        connection.execute("DELETE FROM job WHERE key LIKE '%1.2.3.2%'")
    connection.close()
    assert states(node, "deliver") == ["ready"]
    node.run(capsys, "backup", str(tmp_path / "backup"))
    restored = StoppedNode(tmp_path / "restored", ROUTES)
    assert restored.json(capsys, "restore-backup", str(tmp_path / "backup"))["jobs_held"] == 2
    assert states(restored, "deliver") == ["set_aside", "set_aside"]
    assert states(restored, "settle") == ["ready", "ready"]
    jobs = restored.json(capsys, "jobs", "--state", "set-aside")
    assert {job["error_name"] for job in jobs} == {"restored-from-backup"}
    restored.run(capsys, "retry", "--all")
    assert states(restored, "deliver") == ["ready", "ready"]


def test_a_study_that_waited_for_its_analysis_is_held_as_well(tmp_path: Path, capsys: Capture) -> None:
    node = StoppedNode(tmp_path / "node", ANALYSIS)
    node.receive(ct(1))
    assert node.query("SELECT is_open FROM study_arrival") == [(1,)]
    node.run(capsys, "backup", str(tmp_path / "backup"))
    restored = StoppedNode(tmp_path / "restored", ANALYSIS)
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert restored.query("SELECT is_open FROM study_arrival") == [(0,)]
    assert states(restored, "select") == ["set_aside"]


def test_a_node_that_was_moved_goes_on_with_what_waited(tmp_path: Path, capsys: Capture) -> None:
    node = StoppedNode(tmp_path / "node", ROUTES)
    node.receive(made.instance(sop_instance_uid="1.2.3.1"))
    node.run(capsys, "backup", str(tmp_path / "backup"))
    restored = StoppedNode(tmp_path / "restored", ROUTES)
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"), "--moved")
    assert states(restored, "deliver") == ["ready"]


# --- beside a node that receives ---------------------------------------------------


def test_a_backup_beside_a_node_that_receives_has_all_that_was_acknowledged_before(
    tmp_path: Path, capsys: Capture
) -> None:
    files = []
    for number in range(1, 121):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(made.part10(ct(number, study=f"1.2.{number % 7 + 1}")))
        files.append(dicom_files.read(path))
    acknowledged: list[str] = []
    failed: list[Any] = []
    configuration = '[transcode]\nto = "rle"\n'
    with AnodeProcess(tmp_path / "node", configuration) as node:
        peer = PeerConfig(ae_title="ANODE", host="127.0.0.1", port=node.port)

        def send(part: int) -> None:
            sender = Sender(
                peer, calling_ae_title="S", timeout_seconds=30, max_pdu_bytes=65536, recode=uncompressed
            )
            for one in sender.send(files[part::2]):
                (acknowledged if one.is_stored else failed).append(one.file.sop_instance_uid)

        threads = [threading.Thread(target=send, args=(part,)) for part in (0, 1)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) >= 40, 60, "instances to be acknowledged")
        before = set(acknowledged)
        summary = json.loads(node.run("backup", str(tmp_path / "backup"), "--json").stdout)
        assert summary["damages"] == []
        restored = StoppedNode(tmp_path / "restored")
        restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
        assert before <= restored.digests().keys()
        assert "0 damaged" in restored.run(capsys, "verify")
        for thread in threads:
            thread.join()
        assert failed == []
        node.run("backup", str(tmp_path / "backup"))
        node.kill()
    restored = StoppedNode(tmp_path / "restored-last")
    restored.run(capsys, "restore-backup", str(tmp_path / "backup"))
    assert restored.digests().keys() == set(acknowledged)
    assert "120 instances proven, 0 damaged" in restored.run(capsys, "verify")
