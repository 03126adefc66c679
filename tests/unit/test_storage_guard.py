"""The data directory is taken by one node, in a known format, with the archive that belongs there."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from node.errors import ArchiveUnavailable, OutOfSpace
from node.storage.guard import FORMAT, DataDirectory, inspect, state_file_of


def start(path: Path, config_file: Path | None) -> str:
    directory = DataDirectory.beside(path, config_file)
    directory.open()
    directory.check_archive(holds_settled=False)
    directory.close()
    return directory.archive_id


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "disk" / "data"


def test_the_first_start_begins_an_archive_and_the_next_finds_it(data_dir, config_file):
    archive_id = start(data_dir, config_file)
    assert json.loads((data_dir / "format.json").read_text()) == {"format": FORMAT, "archive": archive_id}
    assert json.loads(state_file_of(config_file).read_text())["archive"] == archive_id
    assert start(data_dir, config_file) == archive_id


def test_a_second_node_is_refused_and_told_who_holds_the_directory(data_dir, config_file):
    first = DataDirectory.beside(data_dir, config_file)
    first.open()
    with pytest.raises(ArchiveUnavailable, match=str(os.getpid())) as refusal:
        DataDirectory.beside(data_dir, config_file).open()
    assert str(os.getpid()) in refusal.value.action
    first.close()
    start(data_dir, config_file)


def test_an_unmounted_disk_is_noticed_before_an_empty_archive_takes_its_place(data_dir, config_file):
    start(data_dir, config_file)
    shutil.rmtree(data_dir)
    with pytest.raises(ArchiveUnavailable) as refusal:
        start(data_dir, config_file)
    assert "mount the disk" in refusal.value.action
    assert str(state_file_of(config_file)) in refusal.value.action
    assert not data_dir.exists(), "nothing was changed"
    data_dir.mkdir()
    with pytest.raises(ArchiveUnavailable):
        start(data_dir, config_file)


def test_another_archive_in_the_same_place_is_refused(data_dir, config_file, tmp_path):
    start(data_dir, config_file)
    shutil.rmtree(data_dir)
    start(data_dir, tmp_path / "other.toml")
    with pytest.raises(ArchiveUnavailable, match="not there"):
        start(data_dir, config_file)


def test_a_new_archive_begins_when_the_operator_removes_the_state_file(data_dir, config_file):
    first = start(data_dir, config_file)
    shutil.rmtree(data_dir)
    state_file_of(config_file).unlink()
    assert start(data_dir, config_file) != first


def test_another_configured_directory_is_a_decision_and_no_accident(data_dir, config_file, tmp_path):
    first = start(data_dir, config_file)
    assert start(tmp_path / "elsewhere", config_file) != first
    assert json.loads(state_file_of(config_file).read_text())["data_dir"] == str(tmp_path / "elsewhere")


def test_an_archive_that_was_moved_by_the_operator_is_found_at_its_new_place(data_dir, config_file, tmp_path):
    first = start(data_dir, config_file)
    data_dir.rename(tmp_path / "moved")
    assert start(tmp_path / "moved", config_file) == first


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_another_format_is_refused_and_left_alone(data_dir, config_file, version):
    archive_id = start(data_dir, config_file)
    other = json.dumps({"format": version, "archive": archive_id})
    (data_dir / "format.json").write_text(other)
    with pytest.raises(ArchiveUnavailable, match=f"format {version}"):
        start(data_dir, config_file)
    assert (data_dir / "format.json").read_text() == other


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "1", "archive": "x"}'])
def test_a_damaged_marker_is_refused(data_dir, config_file, content):
    start(data_dir, config_file)
    (data_dir / "format.json").write_text(content)
    with pytest.raises(ArchiveUnavailable, match="damaged"):
        start(data_dir, config_file)


def test_an_archive_without_its_marker_is_no_empty_directory(data_dir, config_file):
    start(data_dir, config_file)
    (data_dir / "format.json").unlink()
    state_file_of(config_file).unlink()
    with pytest.raises(ArchiveUnavailable, match=r"format\.json"):
        start(data_dir, config_file)


def test_an_archive_folder_that_is_gone_is_refused_when_instances_lie_in_it(data_dir, config_file):
    start(data_dir, config_file)
    shutil.rmtree(data_dir / "archive")
    (data_dir / "archive").mkdir()  # the empty mount point
    directory = DataDirectory.beside(data_dir, config_file)
    directory.open()
    with pytest.raises(ArchiveUnavailable, match="settled instances"):
        directory.check_archive(holds_settled=True)
    directory.check_archive(holds_settled=False)
    directory.check_archive(holds_settled=True)
    directory.close()


@pytest.mark.parametrize("held", ["archive/abc/abcd.dcm", "log/00000001.seg"])
def test_an_archive_whose_index_is_gone_is_refused_before_an_empty_one_takes_its_place(
    data_dir, config_file, held
):
    start(data_dir, config_file)
    directory = DataDirectory.beside(data_dir, config_file)
    directory.check_index(data_dir / "index.sqlite")
    file = data_dir / held
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(ArchiveUnavailable, match=r"their index index\.sqlite is gone") as refused:
        directory.check_index(data_dir / "index.sqlite")
    assert "'anode rebuild'" in refused.value.action
    (data_dir / "index.sqlite").touch()
    with pytest.raises(ArchiveUnavailable, match=r"their index index\.sqlite is empty"):
        directory.check_index(data_dir / "index.sqlite")
    (data_dir / "index.sqlite").write_bytes(b"SQLite format 3")
    directory.check_index(data_dir / "index.sqlite")


def test_an_index_that_knows_nothing_of_an_archive_with_files_is_refused(data_dir, config_file):
    start(data_dir, config_file)
    directory = DataDirectory.beside(data_dir, config_file)
    directory.check_index_knows(holds_instances=False)
    file = data_dir / "archive/abc/abcd.dcm"
    file.parent.mkdir(parents=True)
    file.touch()
    directory.check_index_knows(holds_instances=True)
    with pytest.raises(ArchiveUnavailable, match="has files, but the index knows of no instance") as refused:
        directory.check_index_knows(holds_instances=False)
    assert "'anode rebuild'" in refused.value.action


def test_a_receive_log_is_known_by_its_mark_or_by_any_of_its_segments(data_dir, config_file):
    start(data_dir, config_file)
    log = data_dir / "log"
    log.mkdir()
    directory = DataDirectory.beside(data_dir, config_file)
    directory.open()
    named = ["00000001", "00000002"]
    with pytest.raises(ArchiveUnavailable, match="empty or another one"):
        directory.check_log(named, holds_instances=True)
    (log / "00000002.seg").touch()
    assert directory.check_log(named, holds_instances=True) == ["00000001"]
    (log / "00000002.seg").unlink()
    assert directory.check_log(named, holds_instances=True) == named
    directory.close()


def test_a_receive_log_that_is_not_mounted_is_refused_also_where_all_is_settled(data_dir, config_file):
    """It may hold what the index does not know yet, and other segments had the numbers of new ones."""
    start(data_dir, config_file)
    (data_dir / "log").mkdir()
    directory = DataDirectory.beside(data_dir, config_file)
    directory.open()
    with pytest.raises(ArchiveUnavailable, match="empty or another one") as refused:
        directory.check_log([], holds_instances=True)
    assert "'anode rebuild --without-log'" in refused.value.action
    with pytest.raises(ArchiveUnavailable, match="empty or another one"):
        directory.check_log_to_rebuild(is_lost=False)
    directory.check_log_to_rebuild(is_lost=True)
    assert directory.check_log([], holds_instances=True) == []
    directory.check_log_to_rebuild(is_lost=False)
    directory.close()


def test_a_state_file_that_cannot_be_written_only_warns(data_dir, tmp_path, caplog):
    config_file = tmp_path / "absent" / "config.toml"
    with caplog.at_level(logging.WARNING):
        start(data_dir, config_file)
    assert "state file not written" in caplog.text
    start(data_dir, config_file)


def test_without_a_configuration_file_nothing_is_remembered(data_dir):
    first = start(data_dir, None)
    shutil.rmtree(data_dir)
    assert start(data_dir, None) != first


def test_a_data_directory_that_is_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(Exception, match="data"):
        start(tmp_path / "data", None)


def test_inspecting_changes_nothing(data_dir, config_file):
    assert inspect(data_dir, state_file_of(config_file)) == ""
    assert not data_dir.exists()
    archive_id = start(data_dir, config_file)
    assert inspect(data_dir, state_file_of(config_file)) == archive_id


@pytest.mark.parametrize("call", ["pwrite", "statvfs"])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_start_on_a_full_disk_says_what_to_do_and_leaves_the_directory_free(
    data_dir, config_file, monkeypatch, call, is_new
):
    if not is_new:
        start(data_dir, config_file)

    def full(*arguments):
        if call == "statvfs":
            return os.statvfs_result((4096, 4096, 100000, 0, 0, 1000, 1000, 1000, 0, 255))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as failing:
        failing.setattr(os, call, full)
        with pytest.raises(OutOfSpace, match="is full") as refusal:
            start(data_dir, config_file)
    assert refusal.value.action == f"free disk space where {data_dir} lies, then start again"
    assert start(data_dir, config_file)
