"""Archive files are whole or absent, and carry their own proof."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import IntegrityFailure, OutOfSpace, StorageFailure
from node.storage import archive
from node.storage.location import Location
from node.storage.storage import Storage
from tests.support import made

SYNTAX = "1.2.840.10008.1.2.1"
SENDER = SimpleNamespace(calling_ae_title="CT1", called_ae_title="ANODE")
PRIVATE = {"format": 1, "received": {"sha256": "ab" * 32}, "kept_reason": "ünicode"}


@pytest.fixture
def storage(tmp_path: Path):
    one = Storage(tmp_path, StorageConfig(free_space_reserve_bytes=0), Clock())
    yield one
    one.close()


def whole_file(private=PRIVATE) -> tuple[str, bytes, bytes]:
    data_set = made.ct_image()
    encoded = made.encoded(data_set, SYNTAX)
    meta = archive.part10(data_set.SOPClassUID, data_set.SOPInstanceUID, SYNTAX, private, SENDER)
    return data_set.SOPInstanceUID, meta, encoded


def test_an_archive_file_is_a_part_10_file_that_others_can_read(storage):
    sop_instance_uid, meta, encoded = whole_file()
    path = storage.path(storage.settle(sop_instance_uid, [meta, encoded]))
    data_set = pydicom.dcmread(path)
    assert data_set.SOPInstanceUID == data_set.file_meta.MediaStorageSOPInstanceUID == sop_instance_uid
    assert data_set.file_meta.TransferSyntaxUID == SYNTAX
    assert data_set.file_meta.SourceApplicationEntityTitle == "CT1"
    assert data_set.file_meta.SendingApplicationEntityTitle == "CT1"
    assert data_set.file_meta.ReceivingApplicationEntityTitle == "ANODE"
    assert data_set.pixel_array.shape == (16, 16)


def test_what_is_private_comes_back(storage):
    sop_instance_uid, meta, encoded = whole_file()
    location = storage.settle(sop_instance_uid, [meta, encoded])
    assert archive.read_private(storage.path(location)) == PRIVATE


def test_opening_gives_the_data_set_alone(storage):
    sop_instance_uid, meta, encoded = whole_file()
    location = storage.settle(sop_instance_uid, iter([meta, encoded]))
    with storage.open(location) as file:
        assert file.read() == encoded
        assert file.seek(-4, os.SEEK_END) == len(encoded) - 4
        assert file.read(100) == encoded[-4:]
    assert storage.size(location) == len(encoded)
    assert archive.data_set_offset(io.BytesIO(meta + encoded)) == len(meta)
    assert archive.transfer_syntax_uid(io.BytesIO(meta)) == SYNTAX


def test_the_same_arguments_give_the_same_bytes():
    arguments = ("1.2", "1.2.3", SYNTAX, {"b": 1, "a": [2]}, SENDER)
    assert archive.part10(*arguments) == archive.part10(*arguments)


@pytest.mark.parametrize("sop_instance_uid", ["../../../etc/passwd", "/etc/passwd", "1.2\0", "." * 64])
def test_no_uid_ever_becomes_a_path(storage, tmp_path, sop_instance_uid):
    path = storage.path(storage.settle(sop_instance_uid, [b"content"]))
    assert path.resolve().is_relative_to(tmp_path / "archive")
    assert path.read_bytes() == b"content"
    assert sop_instance_uid not in str(path.relative_to(tmp_path))


def test_a_location_that_points_out_of_the_archive_is_refused(storage):
    with pytest.raises(StorageFailure):
        storage.open(Location("archive", "../lock"))
    with pytest.raises(StorageFailure):
        storage.open(Location("log", "../../secret", 0, 10))


def test_a_file_that_cannot_be_finished_is_not_there_and_the_old_one_is(storage, tmp_path, monkeypatch):
    location = storage.settle("1.2.3", [b"old"])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OutOfSpace):
        storage.settle("1.2.3", [b"new"])
    assert storage.path(location).read_bytes() == b"old"
    with pytest.raises(OutOfSpace):
        storage.settle("1.2.4", [b"new"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [storage.path(location)]


def test_content_that_fails_half_way_leaves_nothing(storage, tmp_path):
    def content():
        yield b"half"
        raise IntegrityFailure("the other half does not prove")

    with pytest.raises(IntegrityFailure):
        storage.settle("1.2.3", content())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def events(monkeypatch) -> list[tuple[str, str]]:
    """Flushes of files and folders, and names given, in their order; each with the last part of its path."""
    seen: list[tuple[str, str]] = []
    real_data, real_all, real_replace = os.fdatasync, os.fsync, Path.replace

    def noted(kind, real):
        def call(file: int) -> None:
            seen.append((kind, Path(os.readlink(f"/proc/self/fd/{file}")).name))
            real(file)

        return call

    def replace(one: Path, other: Path) -> Path:
        seen.append(("name", other.name))
        return real_replace(one, other)

    monkeypatch.setattr(os, "fdatasync", noted("data", real_data))
    monkeypatch.setattr(os, "fsync", noted("folder", real_all))
    monkeypatch.setattr(Path, "replace", replace)
    return seen


def test_a_file_and_its_name_are_flushed_before_it_counts(storage, events):
    path = storage.path(storage.settle("1.2.3", [b"content"]))
    place = events.index(("name", path.name))
    assert [kind for kind, _ in events[:place]].count("data") == 1
    folders = [name for kind, name in events[place:] if kind == "folder"]
    assert sorted(folders) == sorted(["archive", path.parent.name])
    events.clear()
    storage.settle("1.2.3", [b"content again"])
    assert [kind for kind, _ in events] == ["data", "name", "folder"]


def test_files_that_are_finished_together_are_flushed_before_any_has_its_name(storage, events):
    files = [storage.begin_settling(f"1.2.{number}", [b"content"]) for number in range(8)]
    events.clear()
    places = storage.finish_settling(files)
    kinds = [kind for kind, _ in events]
    assert kinds[:16] == ["data"] * 8 + ["name"] * 8
    assert set(kinds[16:]) == {"folder"}
    paths = [storage.path(place) for place in places]
    assert [path.read_bytes() for path in paths] == [b"content"] * 8
    flushed = {name for kind, name in events if kind == "folder"}
    assert flushed >= {"archive"} | {path.parent.name for path in paths}


def test_of_files_that_are_finished_together_one_that_fails_is_not_there_and_the_others_are(
    storage, tmp_path, monkeypatch
):
    files = [storage.begin_settling(f"1.2.{number}", [b"content"]) for number in range(3)]
    real = os.fdatasync
    left = [0, errno.EIO, 0]

    def fails_once(file: int) -> None:
        code = left.pop(0)
        if code:
            raise OSError(code, "broken")
        real(file)

    monkeypatch.setattr(os, "fdatasync", fails_once)
    one, failed, other = storage.finish_settling(files)
    assert isinstance(failed, StorageFailure)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        storage.path(place) for place in (one, other)
    )


def test_a_name_that_cannot_be_made_durable_fails_those_that_it_concerns(storage, monkeypatch):
    storage.settle("1.2.0", [b"content"])
    files = [storage.begin_settling(f"1.2.{number}", [b"content"]) for number in range(1, 4)]
    concerned = files[1].target.parent
    real = os.fsync

    def fails_for_one(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}") == str(concerned):
            raise OSError(errno.EIO, "broken")
        real(file)

    monkeypatch.setattr(os, "fsync", fails_for_one)
    assert [isinstance(one, StorageFailure) for one in storage.finish_settling(files)] == [False, True, False]


def test_settling_stops_at_the_reserve(tmp_path):
    storage = Storage(tmp_path, StorageConfig(free_space_reserve_bytes=1 << 62), Clock())
    with pytest.raises(OutOfSpace):
        storage.settle("1.2.3", [b"content"])


def test_what_a_stopped_process_left_unfinished_is_removed_at_start(storage, tmp_path):
    storage.settle("1.2.3", [b"content"])
    left = tmp_path / "archive" / "partial" / "0123.part"
    left.write_bytes(b"half")
    assert list(storage.replay()) == []
    assert not left.exists()


def test_conflicting_content_is_kept_apart(storage):
    held = storage.settle("1.2.3", [b"held"])
    apart = storage.settle_quarantine("1.2.3", "ab" * 32, [b"other"])
    assert apart.path.startswith("quarantine/")
    assert storage.path(held).read_bytes() == b"held"
    assert storage.path(apart).read_bytes() == b"other"


def test_a_file_of_another_maker_has_no_proof(tmp_path):
    path = tmp_path / "other.dcm"
    path.write_bytes(made.part10(made.ct_image()))
    with pytest.raises(IntegrityFailure):
        archive.read_private(path)


@pytest.mark.parametrize("length", [0, 100, 140, 200, 400])
def test_a_damaged_file_is_named_as_such(storage, length):
    sop_instance_uid, meta, encoded = whole_file()
    location = storage.settle(sop_instance_uid, [(meta + encoded)[:length]])
    with pytest.raises(IntegrityFailure):
        storage.open(location)
    with pytest.raises(IntegrityFailure):
        archive.read_private(storage.path(location))


def test_a_file_that_is_gone_is_a_failure_of_the_storage(storage):
    with pytest.raises(StorageFailure):
        storage.open(Location("archive", "abc/gone.dcm"))


def test_files_where_no_node_puts_any_are_found_as_well(storage):
    place = storage.settle("1.2.3", [b"content"]).path
    folder = storage.path(Location("archive", place)).parents[1]
    others = ["ab/cd/one.dcm", "abc/deep/er/two.dcm", "zz/three.dcm"]
    for other in (*others, "replaced/four.dcm", "quarantine/five.dcm", "partial/six.part", "ab/readme.txt"):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).touch()
    (folder / "zz" / "loop").symlink_to(folder)
    found = list(archive.files(folder))
    assert sorted(found[:-1]) == sorted([place, *others])
    assert found[-1] == "quarantine/five.dcm"
