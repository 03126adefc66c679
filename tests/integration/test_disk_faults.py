"""A disk that is full, loses writes, or is read-only: nothing is acknowledged that it does not hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from node import alarms
from node.app import App
from node.config.settings import Config, NodeConfig, StorageConfig
from node.errors import (
    ArchiveUnavailable,
    ConflictingInstance,
    IntegrityFailure,
    NodeError,
    StorageFailure,
    TransientFailure,
)
from node.jobs.task import Job
from node.series import source_series
from node.status import STORE_OUT_OF_RESOURCES, SUCCESS
from node.storage import unfinished
from node.tasks.sweep import SweepTask
from node.verification import verify
from tests.integration.test_ingest_damage import (
    IMAGE,
    IMPLICIT,
    UID,
    damaged,
    quarantined,
    receive,
    settle,
)
from tests.support import made
from tests.support.file_systems import small_file_system
from tests.support.small_node import SmallNode, config, small_node
from tests.support.storing import store
from tests.support.waiting import wait_until

PIXELS = np.random.default_rng(1).integers(-1000, 1000, (256, 256)).astype(np.int16)
SWEEP = Job(1, "sweep", "sweep", "", {}, "", 1, 0.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    with small_node(config(tmp_path / "data")) as running:
        yield running


def segment_of(node: SmallNode, data_set: Dataset) -> str:
    location = node.stored(str(data_set.SOPInstanceUID)).location
    return location.path if location.kind == "log" else ""


def fail_with(code: int, real, is_meant=lambda *_: True):
    def call(*arguments, **named):
        if is_meant(*arguments):
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    return call


def lose_a_flush(node: SmallNode, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", fail_with(errno.EIO, os.fdatasync))
        with pytest.raises(StorageFailure, match="making an instance durable"):
            receive(node, made.ct_image())


def test_what_a_segment_held_is_written_once_more_when_a_flush_of_it_fails(node, monkeypatch):
    first, second = made.ct_image(), made.ct_image()
    node.receive(first, second)
    failed = segment_of(node, first)
    before = [verify(node.services, node.stored(str(one.SOPInstanceUID))) for one in (first, second)]
    lose_a_flush(node, monkeypatch)
    assert node.services.storage.suspects() == [failed] == [segment_of(node, second)]
    list(SweepTask().run(node.services, [SWEEP]))
    for one, found in zip((first, second), before, strict=True):
        stored = node.stored(str(one.SOPInstanceUID))
        assert stored.location.path != failed
        assert verify(node.services, stored) == found == ""
        assert stored.provenance.calling_ae_title == "SCANNER"
    assert node.services.storage.suspects() == []
    (alarm,) = alarms.standing(node.services.config.node.data_dir)
    assert alarm.name == alarms.FLUSH_FAILED
    assert failed not in {segment_of(node, one) for one in (first, second)}
    receive(node, made.ct_image())


def test_what_cannot_be_read_back_after_a_failed_flush_is_shown_and_the_rest_is_rescued(node, monkeypatch):
    lost, kept = made.ct_image(), made.ct_image()
    node.receive(lost, kept)
    place = node.stored(str(lost.SOPInstanceUID)).location
    lose_a_flush(node, monkeypatch)
    with node.services.storage.path(place).open("r+b") as file:
        file.seek(place.offset + 100)
        file.write(b"\xff\xff")
    list(SweepTask().run(node.services, [SWEEP]))
    assert damaged(node) == 1
    assert node.stored(str(lost.SOPInstanceUID)).location == place
    assert verify(node.services, node.stored(str(kept.SOPInstanceUID))) == ""
    assert segment_of(node, kept) != place.path


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "pwrite", "fdatasync", "fsync"])
def test_an_archive_file_that_cannot_be_written_leaves_nothing_and_says_why(
    tmp_path, monkeypatch, call, code
):
    unfinished.write(tmp_path, "ab/cd/one.dcm", [b"first"])
    with monkeypatch.context() as failing:
        is_meant = (lambda path, flags, *_: flags & os.O_CREAT) if call == "open" else (lambda *_: True)
        failing.setattr(os, call, fail_with(code, getattr(os, call), is_meant))
        if code == errno.EROFS:
            failing.setattr(Path, "unlink", fail_with(code, Path.unlink))
        with pytest.raises(NodeError):
            unfinished.write(tmp_path, "ab/cd/two.dcm", [b"second"])
    assert (tmp_path / "ab" / "cd" / "one.dcm").read_bytes() == b"first"
    unfinished.write(tmp_path, "ab/cd/two.dcm", [b"second"])
    assert (tmp_path / "ab" / "cd" / "two.dcm").read_bytes() == b"second"


# --- real file systems -----------------------------------------------------------


def settings(folder: Path, **storage: int) -> Config:
    wanted = {"segment_bytes": 1 << 20, "spare_segments": 1, "free_space_reserve_bytes": 0, **storage}
    return Config(node=NodeConfig(port=0, data_dir=folder / "data"), storage=StorageConfig(**wanted))


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_refuses_and_loses_nothing_and_receiving_resumes_when_there_is_space(tmp_path):
    with small_file_system(tmp_path / "disk", megabytes=16) as disk:
        app = App(settings(disk.path))
        app.start()
        try:
            images = [made.ct_image() for _ in range(3)]
            assert store(app.server.port, *images) == [SUCCESS] * 3
            filler = disk.path / "filler"
            fill(filler)
            assert disk.free_bytes() == 0
            # what fits into what was allocated before is held; then no more is acknowledged
            more = [made.ct_image(pixels=PIXELS) for _ in range(24)]
            found = dict(zip(map(id, more), store(app.server.port, *more), strict=True))
            held = [image for image in more if found[id(image)] == SUCCESS]
            refused = [image for image in more if found[id(image)] != SUCCESS]
            assert {found[id(image)] for image in refused} == {STORE_OUT_OF_RESOURCES}
            names = [one.name for one in alarms.standing(app.services.config.node.data_dir)]
            assert alarms.DISK_FULL in names
            filler.unlink()
            # the database is tried again each second
            wait_until(lambda: store(app.server.port, refused[0]) == [SUCCESS], 30)
            assert store(app.server.port, *refused[1:]) == [SUCCESS] * len(refused[1:])
            for image in [*images, *held, *refused]:
                with app.services.database.read() as connection:
                    stored = app.services.index.get(connection, str(image.SOPInstanceUID))
                assert stored is not None
                assert verify(app.services, stored) == ""
        finally:
            app.stop()


def test_a_start_on_a_read_only_disk_is_refused_with_what_to_do(tmp_path):
    with small_file_system(tmp_path / "disk", megabytes=16) as disk:
        app = App(settings(disk.path))
        app.start()
        app.stop()
        disk.remount("ro")
        with pytest.raises(ArchiveUnavailable, match="Read-only file system") as refused:
            App(settings(disk.path)).start()
        assert refused.value.action
        disk.remount("rw")
        app = App(settings(disk.path))
        app.start()
        app.stop()


# --- reading ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("is_same_encoding", [True, False])
def test_a_copy_that_cannot_be_reached_for_now_is_not_taken_for_damaged(
    tmp_path, monkeypatch, code, is_same_encoding
):
    with small_node(config(tmp_path / "data")) as node:
        node.receive(IMAGE)
        settle(node)
        before = node.stored(UID)
        path = str(node.services.storage.path(before.location))
        syntax = () if is_same_encoding else (IMPLICIT,)
        with monkeypatch.context() as failing:
            unreachable = fail_with(code, os.open, lambda opened, *_: str(opened) == path)
            failing.setattr(os, "open", unreachable)
            failing.setattr("io.open", fail_with(code, open, lambda opened, *_: str(opened) == path))
            with pytest.raises(TransientFailure):
                receive(node, IMAGE, *syntax)
        assert (node.stored(UID), quarantined(node), damaged(node)) == (before, [], 0)
        assert receive(node, IMAGE, *syntax) == "same"


def test_a_copy_that_is_gone_is_still_damage(tmp_path):
    with small_node(config(tmp_path / "data")) as node:
        node.receive(IMAGE)
        settle(node)
        node.services.storage.path(node.stored(UID).location).unlink()
        with pytest.raises(ConflictingInstance):
            receive(node, IMAGE, IMPLICIT)
        assert damaged(node) == 1


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_analysis_is_never_given_what_is_damaged_or_gone_and_that_is_shown(node, is_gone):
    node.receive(IMAGE)
    settle(node)
    stored = node.stored(UID)
    (instance,) = source_series.read(node.holdings, [stored])
    assert [frame.shape for frame in instance.frames()] == [(64, 50)]
    path = node.services.storage.path(stored.location)
    if is_gone:
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
    with pytest.raises(StorageFailure if is_gone else IntegrityFailure):
        list(instance.frames())
    with pytest.raises(StorageFailure if is_gone else IntegrityFailure):
        source_series.read(node.holdings, [stored])
    assert damaged(node) == 1
