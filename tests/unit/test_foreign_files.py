"""What a model's process left is removed whatever it is, and nothing else is touched meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.processes import foreign_files

ROOT = Path(__file__).parents[2]
#: What is loaded first need not be in reach of that user.
NOBODY = """
import ctypes, os, signal
from pathlib import Path
from node.processes import foreign_files
if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder in which a user without privileges may write, as may be none below ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def without_privileges(script: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", NOBODY + script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert ran.stderr == ""
    return ran.stdout.strip()


def test_folders_that_nobody_may_enter_are_removed(open_to_all: Path) -> None:
    script = (
        f"os.chdir({str(open_to_all)!r})\n"
        "os.makedirs('made/closed/within/it'); open('made/closed/within/file', 'w').close()\n"
        "for one in ('made/closed/within/it', 'made/closed/within', 'made/closed', 'made'):\n"
        "    os.chmod(one, 0)\n"
        "print(foreign_files.remove(Path('made')), os.listdir())"
    )
    assert without_privileges(script) == "True []"


def test_no_mode_is_changed_through_a_link_that_comes_meanwhile(open_to_all: Path) -> None:
    script = f"""
os.chdir({str(open_to_all)!r})
os.mkdir('archive'); os.chmod('archive', 0o750)
open('archive/image', 'w').close(); os.chmod('archive/image', 0o640)
os.mkdir('made')
names = []
for n in range(200):
    os.mkdir(f'made/d{{n}}', 0); os.symlink('../archive/image' if n % 2 else '../archive', f'made/s{{n}}')
    names.append((f'made/d{{n}}'.encode(), f'made/s{{n}}'.encode()))
child = os.fork()
if not child:
    library = ctypes.CDLL(None)
    while True:
        for one, other in names:
            library.renameat2(-100, one, -100, other, 2)
foreign_files.remove(Path('made'))
os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
print(oct(os.stat('archive').st_mode & 0o777), oct(os.stat('archive/image').st_mode & 0o777))
"""
    assert without_privileges(script) == "0o750 0o640"


def test_no_depth_is_too_deep_and_few_files_are_open_for_it(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(made)
        for _ in range(3000):
            os.mkdir("deep")
            os.chdir("deep")
    finally:
        os.fchdir(before)
        os.close(before)
    assert foreign_files.remove(made)
    assert not made.exists()


def test_a_link_in_the_place_of_the_folder_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "made").symlink_to(tmp_path / "kept")
    assert foreign_files.remove(tmp_path / "made")
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


def test_a_link_within_the_folder_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o750)
    (tmp_path / "made" / "below").mkdir(parents=True)
    for place in (tmp_path / "made", tmp_path / "made" / "below"):
        (place / "link").symlink_to(tmp_path / "kept")
        os.mkfifo(place / "pipe")
    assert foreign_files.remove(tmp_path / "made")
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o750


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").touch()
    monkeypatch.setattr(foreign_files, "_REMOVAL_SECONDS", 0.0)
    monkeypatch.setattr("time.monotonic", iter(range(1000)).__next__)
    assert not foreign_files.remove(tmp_path / "made")
