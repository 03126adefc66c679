"""Only the node that started last writes, and only to the folders that were there when it started."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from node import alarms
from node.app import App
from node.clock import Clock
from node.config.settings import Config, NodeConfig, StorageConfig
from node.errors import ArchiveUnavailable, StorageFailure
from node.index import schema
from node.index.database import Database
from node.index.index import Index, Provenance
from node.jobs.task import Job, Retry
from node.settling.order import Order
from node.settling.pool import Settlers
from node.storage import disk, tenure
from node.storage.storage import Storage
from node.storage.tenure import Tenure
from node.tasks.settle import SettleTask
from node.tasks.sweep import SweepTask
from tests.support import made

STORAGE = StorageConfig(segment_bytes=1 << 20, spare_segments=1, free_space_reserve_bytes=0)
PROVENANCE = Provenance("CT1", "ANODE", "192.0.2.1", 7, 1.0)
IMAGE = made.ct_image()
UID = str(IMAGE.SOPInstanceUID)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for folder in ("archive", "log"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    return tmp_path / "data"


def received(storage: Storage) -> Order:
    with storage.begin() as reception:
        reception.write([made.encoded(IMAGE)])
        location = reception.commit("1.2.840.10008.1.2.1", PROVENANCE.to_json())
        digest = reception.sha256
    return Order(
        location=str(location),
        sop_class_uid=str(IMAGE.SOPClassUID),
        sop_instance_uid=UID,
        series_instance_uid=str(IMAGE.SeriesInstanceUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        data_set_sha256=digest,
        provenance=PROVENANCE.to_json(),
        choices=("rle",),
        at=2.0,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_settling_process_of_a_node_before_writes_nothing_once_another_has_begun(data_dir):
    before = Tenure.begin(data_dir)
    storage = Storage(data_dir, STORAGE, Clock(), tenure=before)
    order = received(storage)
    settlers = Settlers(data_dir, STORAGE, before)
    try:
        Tenure.begin(data_dir)
        ((_, answer),) = settlers.settle([order])
    finally:
        settlers.stop()
        storage.close()
    assert isinstance(answer, StorageFailure)
    assert "another node" in str(answer)
    assert files(data_dir / "archive") == []


def test_a_node_waits_for_a_write_that_an_older_process_is_in_the_middle_of(data_dir, monkeypatch):
    before = Tenure.begin(data_dir)
    began: list[Tenure] = []
    with before.writing("archive"):
        thread = threading.Thread(target=lambda: began.append(Tenure.begin(data_dir)))
        thread.start()
        thread.join(0.2)
        assert began == []
    thread.join(30)
    assert len(began) == 1
    monkeypatch.setattr(tenure, "_WAIT_SECONDS", 0.0)
    with began[0].writing("archive"), pytest.raises(ArchiveUnavailable, match="still writes"):
        Tenure.begin(data_dir)


def test_nothing_is_written_where_another_folder_has_taken_the_place_of_a_disk(data_dir, tmp_path):
    storage = Storage(data_dir, STORAGE, Clock(), tenure=Tenure.begin(data_dir))
    storage.settle("1.2.3", [b"first"])
    for folder in ("archive", "log"):
        (data_dir / folder).rename(tmp_path / folder)
        (data_dir / folder).mkdir()  # the mount point
    with pytest.raises(StorageFailure, match="another folder") as refused:
        storage.settle("1.2.4", [b"second"])
    assert "mount the disk" in refused.value.action
    with pytest.raises(StorageFailure, match="another folder"):
        storage.begin()
    assert files(data_dir / "archive") == files(data_dir / "log") == []
    for folder in ("archive", "log"):
        (data_dir / folder).rmdir()
        (tmp_path / folder).rename(data_dir / folder)
    storage.settle("1.2.4", [b"second"])
    storage.begin().__exit__(None, None, None)
    storage.close()


def test_numbers_of_segments_that_only_the_index_knows_do_not_come_back(data_dir):
    storage = Storage(data_dir, STORAGE, Clock(), known_segments={"00000041", "00000007"})
    assert int(received(storage).location.split(":")[1]) > 41
    storage.close()


@pytest.mark.parametrize("is_there", [True, False])
def test_the_name_of_a_folder_is_durable_also_where_who_made_it_was_stopped(tmp_path, monkeypatch, is_there):
    monkeypatch.setattr(disk, "_durable", set())
    folder = tmp_path / "ab" / "cd"
    if is_there:
        folder.mkdir(parents=True)  # and never flushed
    flushed: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    disk.make_directory(folder)
    assert {str(tmp_path), str(tmp_path / "ab")} <= set(flushed)
    flushed.clear()
    disk.make_directory(folder)
    assert flushed == []
    shutil.rmtree(folder)
    disk.make_directory(folder)
    assert flushed == [str(tmp_path / "ab")]


# --- a whole node --------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(node=NodeConfig(port=0, data_dir=tmp_path / "data"), storage=STORAGE)


def receive(app: App) -> None:
    app.services.ingest.receive(
        [[made.encoded(IMAGE)]],
        sop_class_uid=str(IMAGE.SOPClassUID),
        sop_instance_uid=UID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        provenance=PROVENANCE,
    )


@pytest.fixture
def held(config: Config) -> str:
    """A node has run and holds one instance, which is not settled; the name of its segment."""
    app = App(config)
    app.start()
    app.engine.stop()
    try:
        receive(app)
        with app.services.database.read() as connection:
            stored = app.services.index.get(connection, UID)
        assert stored is not None
    finally:
        app.stop()
    return stored.location.path


def problem(config: Config) -> str:
    database = Database(config.node.data_dir / "index.sqlite", clock=Clock(), schema=schema.STATEMENTS)
    try:
        with database.read() as connection:
            row = connection.execute(
                "SELECT problem FROM instance WHERE SOPInstanceUID = ?", (UID,)
            ).fetchone()
            assert Index(Clock()).counts(connection)["damaged"] == bool(row[0])
            return str(row[0])
    finally:
        database.close()


def test_a_start_tells_of_segments_that_are_gone_and_never_uses_their_numbers_again(config, held):
    log = config.node.data_dir / "log"
    for path in log.glob("*.seg"):
        path.unlink()
    app = App(config)
    app.start()
    try:
        (alarm,) = alarms.standing(config.node.data_dir)
        assert alarm.name == alarms.LOG_INCOMPLETE
        assert held in alarm.message
        assert min(int(path.stem) for path in log.glob("*.seg")) > int(held)
    finally:
        app.stop()
    assert problem(config) == f"segment {held} of the receive log is gone"


def test_a_start_without_the_disk_of_the_receive_log_is_refused(config, held, tmp_path):
    log = config.node.data_dir / "log"
    log.rename(tmp_path / "elsewhere")
    log.mkdir()
    with pytest.raises(ArchiveUnavailable, match="receive log") as refused:
        App(config).start()
    assert "mount the disk" in refused.value.action
    assert files(log) == []
    log.rmdir()
    (tmp_path / "elsewhere").rename(log)
    app = App(config)
    app.start()
    app.stop()
    assert problem(config) == ""


def test_an_archive_that_is_unmounted_while_the_node_runs_is_an_alarm_until_it_is_back(config, tmp_path):
    app = App(config)
    app.start()
    app.engine.stop()
    receive(app)
    archive, task = config.node.data_dir / "archive", SettleTask()
    sweep = Job(1, "sweep", "sweep", "", {}, "", 1, 0.0)
    settle = replace(sweep, kind="settle", payload={"sop_instance_uid": UID})
    try:
        archive.rename(tmp_path / "elsewhere")
        archive.mkdir()
        list(SweepTask().run(app.services, [sweep]))
        assert alarms.FOLDER_GONE in [one.name for one in alarms.standing(config.node.data_dir)]
        ((_, outcome),) = task.run(app.services, [settle])
        assert isinstance(outcome, Retry)
        assert files(archive) == []
        archive.rmdir()
        (tmp_path / "elsewhere").rename(archive)
        list(SweepTask().run(app.services, [sweep]))
        assert alarms.standing(config.node.data_dir) == []
    finally:
        task.cancel()
        app.stop()
