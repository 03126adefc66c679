"""A model that finds no space: whether the disk is short or the model's own work is told apart."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import ModelCrashed, OutOfSpace
from node.processes import foreign_files, watching, writings
from node.storage.disk import free_bytes
from tests.support.file_systems import small_file_system
from tests.support.made_models import install
from tests.support.model_runs import ModelRuns

RESERVE_BYTES = 16 << 20
#: As much as is free, at once, in a file that has a name or none.
TAKING = (
    "import os, time\n"
    "file = os.open({name}, os.O_RDWR | os.O_CREAT)\n"
    "{after}\n"
    "facts = os.fstatvfs(file)\n"
    "os.posix_fallocate(file, 0, {part} * facts.f_bavail * facts.f_frsize // 100)\n"
    "time.sleep(600)"
)
FAILING = f"raise OSError({errno.ENOSPC}, 'No space left on device')"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path / "package", monkeypatch)
    with small_file_system(tmp_path / "disk", megabytes=200) as made:
        yield made.path


@pytest.fixture
def runs(disk: Path) -> Iterator[ModelRuns]:
    runs = ModelRuns(disk, reserve_bytes=RESERVE_BYTES)
    yield runs
    runs.workers.stop()
    assert runs.left() == []


@pytest.mark.parametrize(
    "code",
    [
        "open('/dev/shm/x', 'wb').write(b'0' * (300 << 20))",
        "import os; os.posix_fallocate(os.open('/dev/shm/y', os.O_RDWR | os.O_CREAT), 0, 300 << 20)",
        FAILING,
        f"raise OSError({errno.EDQUOT}, 'Disk quota exceeded')",
    ],
    ids=["shared-memory", "shared-memory-at-once", "says-so", "says-quota"],
)
def test_a_model_without_space_on_a_disk_that_has_some_failed_itself(runs: ModelRuns, code: str) -> None:
    with pytest.raises(ModelCrashed, match=r"no space where it wrote, though the disk has \d+ MB") as caught:
        runs.told(code)
    assert "it has 256 MB of /dev/shm" in caught.value.action


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("'big'", ""),
        ("'big'", "os.unlink('big')"),
        ("os.environ['HOME'] + '/big'", ""),
        ("'big'", "os.mkdir('closed'); os.rename('big', 'closed/big'); os.chmod('closed', 0)"),
    ],
    ids=["by-name", "removed", "elsewhere", "closed"],
)
@pytest.mark.parametrize("part", [95, 100])
def test_a_model_that_fills_the_disk_failed_itself(runs: ModelRuns, name: str, after: str, part: int) -> None:
    for _ in range(2):
        with pytest.raises(ModelCrashed, match=r"model told had written 1\d\d MB in \d+ files") as caught:
            runs.told(TAKING.format(name=name, after=after, part=part))
        assert "held in reserve" in str(caught.value)
        assert "have it write less" in caught.value.action


def test_a_model_that_writes_until_there_is_no_more_failed_itself(disk: Path) -> None:
    runs = ModelRuns(disk)
    with pytest.raises(ModelCrashed, match=r"had written 1\d\d MB"):
        runs.told("file = open('big', 'wb')\nwhile True: file.write(b'1' * 65536); file.flush()")
    runs.workers.stop()


def test_a_disk_that_was_emptied_at_once_is_noticed_at_the_next_look(disk: Path) -> None:
    process = subprocess.Popen(["sleep", "600"])
    watch = watching.Watch(
        process.pid, disk, model="told", memory_mb=0, reserve_bytes=RESERVE_BYTES, relieve=lambda: False
    )
    try:
        watch.look()
        with (disk / "big").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes(disk))
        time.sleep(watching.LOOK_SECONDS)
        with pytest.raises(ModelCrashed, match="held in reserve"):
            watch.look()
    finally:
        watch.end()
        process.kill()
        process.wait()


@pytest.mark.parametrize("code", [FAILING, "open('own', 'wb').write(b'1' * (2 << 20))"])
@pytest.mark.parametrize(("reserve_bytes", "left"), [(0, 512 << 10), (8 << 20, 7 << 20)])
def test_a_disk_that_others_fill_is_no_fault_of_the_model(
    disk: Path, code: str, reserve_bytes: int, left: int
) -> None:
    runs = ModelRuns(disk, reserve_bytes=reserve_bytes)
    with (disk / "other").open("wb") as other:
        os.posix_fallocate(other.fileno(), 0, free_bytes(disk) - left)
        with pytest.raises(OutOfSpace, match="model told"):
            runs.told(f"import time\n{code}\ntime.sleep(600)")
    (disk / "other").unlink()
    assert runs.told("said = 'well'") == "well"
    runs.workers.stop()


def test_what_cannot_be_looked_at_is_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_bytes(b"1" * 4096)
    assert writings.written(tmp_path, []) == writings.Written(4096, 1, True)
    deep = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=deep)
        within = os.open("deep", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = within
    os.close(deep)
    assert not writings.written(tmp_path, []).is_all
    assert foreign_files.remove(tmp_path / "deep")
    monkeypatch.setattr(writings, "_MOST_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    its = writings.written(tmp_path, [])
    assert (its.files, its.is_all) == (4, False)
