"""What the node writes is for its user and group alone, and lies in its data directory alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from node.app import App
from node.errors import ArchiveUnavailable
from tests.support import made, small_node
from tests.support.anode_process import AnodeProcess
from tests.support.scripted_pacs import scripted_pacs
from tests.support.waiting import ANALYSES_SECONDS, wait_until
from tests.support.watched_process import Watch

ROOT = Path(__file__).parents[2]
CONFIGURATION = """
[study]
quiet_seconds = 1
[[peers]]
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
[[routes]]
send_to = ["PACS"]
[[analyses]]
name = "quality"
model = "series-quality"
when = {{ Modality = "CT" }}
results = ["sr", "sc"]
"""


def images(folder: Path) -> None:
    """A small series that is analysed, and an image that no memory is taken for at once."""
    folder.mkdir()
    study = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.1"}
    for number in range(4):
        image = made.ct_image(**study, InstanceNumber=number, ImagePositionPatient=[0, 0, 1.5 * number])
        (folder / f"{number}").write_bytes(made.part10(image))
    noise = np.random.default_rng(1).integers(0, 4096, (5000, 5000)).astype("<i2")
    (folder / "large").write_bytes(made.part10(made.ct_image(pixels=noise, Modality="MR")))


def open_to_others(folder: Path) -> list[str]:
    """Files and folders with a permission for users outside of the group."""
    found = [folder, *folder.rglob("*")]
    return [f"{path} {path.lstat().st_mode:o}" for path in found if path.lstat().st_mode & stat.S_IRWXO]


@pytest.mark.timeout(2 * ANALYSES_SECONDS)
def test_a_whole_run_writes_in_its_data_directory_alone_and_for_nobody_else(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "watch")
    elsewhere = {name: tmp_path / name.lower() for name in ("TMPDIR", "HOME")}
    for path in elsewhere.values():
        path.mkdir()
    images(tmp_path / "images")
    # longer than the address of a socket may be
    folder = tmp_path / ("node-" + "x" * 100)
    with scripted_pacs() as pacs:
        node = AnodeProcess(folder, CONFIGURATION.format(port=pacs.port))
        before = os.umask(0)
        try:
            node.start(**watch.environment, **{name: str(path) for name, path in elsewhere.items()})
            try:
                node.run("send", str(tmp_path / "images"), "--to", f"127.0.0.1:{node.port}/ANODE")
                data_dir = folder / "data"

                def is_done() -> bool:
                    with sqlite3.connect(f"file:{data_dir}/index.sqlite?mode=ro", uri=True) as index:
                        settled = index.execute("SELECT count(*) FROM instance WHERE is_settled").fetchone()
                        left = index.execute(
                            "SELECT count(*) FROM job WHERE state <> 'done' AND kind <> 'sweep'"
                        ).fetchone()
                    return settled[0] >= 7 and not left[0]

                wait_until(is_done, ANALYSES_SECONDS, "everything to be settled, analysed and delivered")
                assert open_to_others(data_dir) == []
            finally:
                node.stop()
        finally:
            os.umask(before)
        assert len(pacs.stored) == 5
    assert open_to_others(data_dir) == []
    state = folder / "config.toml.state"
    assert open_to_others(state) == []
    written = watch.written()
    assert data_dir / "work" / "temporary" in written, "nothing large was made in a temporary file"
    assert {path for path in written if data_dir not in path.parents} - {data_dir, state} == {
        folder / ".config.toml.state.part"
    }
    assert [list(path.iterdir()) for path in elsewhere.values()] == [[], []]
    assert list((data_dir / "work").rglob("*")) in ([], [data_dir / "work" / "temporary"])


SPILLING = """
import os, sqlite3, sys
from pathlib import Path
from node import work_folder
sqlite3.connect(":memory:").execute("CREATE TEMP TABLE before (number)")
Path(sys.argv[1]).mkdir()
work_folder.use_for_all_temporary_files(Path(sys.argv[1]))
connection = sqlite3.connect(sys.argv[1] + "/index.sqlite")
connection.execute("PRAGMA cache_size = 10")
connection.execute("CREATE TEMP TABLE many (content)")
connection.execute("WITH RECURSIVE one(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM one WHERE n < 50000)"
                   " INSERT INTO many SELECT randomblob(50) FROM one")
for name in os.listdir("/proc/self/fd"):
    path = f"/proc/self/fd/{name}"
    if os.path.lexists(path) and "etilqs" in os.readlink(path):
        print(os.readlink(path))
"""


def test_sqlite_makes_its_temporary_files_in_the_data_directory_too(tmp_path: Path) -> None:
    data_dir = tmp_path / "it's data"
    done = subprocess.run(
        [sys.executable, "-c", SPILLING, str(data_dir)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"{data_dir}/work/temporary/etilqs_"), done.stdout


def test_what_a_killed_node_left_unfinished_is_cleared_away_at_the_next_start(tmp_path: Path) -> None:
    config = small_node.config(tmp_path)
    left = tmp_path / "work" / "analysis-left" / "array-00001.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"voxels")
    other = App(config)
    other.start()
    try:
        assert not left.exists()
        left.parent.mkdir(parents=True)
        with pytest.raises(ArchiveUnavailable):  # it is locked, so what is there is in use
            App(config).start()
        assert left.parent.exists()
    finally:
        other.stop()
