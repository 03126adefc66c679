"""What a node notes when it starts is there whole, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from node import running
from node.repairs import Repairs
from node.running import Running


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    assert running.read(tmp_path) is None
    for port in (1, 2):
        running.record(tmp_path, port=port, config_sha256="ab", started_at=12.5)
        assert running.read(tmp_path) == Running(port, "ab", 12.5)
    repairs = Repairs(instances_indexed=3, jobs_given_back=2)
    running.record(tmp_path, port=3, config_sha256="ab", started_at=12.5, repairs=repairs)
    assert running.read(tmp_path) == Running(3, "ab", 12.5, repairs)
    (file,) = tmp_path.iterdir()
    assert file.name == "running.json"
    assert file.stat().st_mode & 0o777 & ~0o640 == 0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"port": "x", "config_sha256": "", "started_at": 1}',
        '{"port": 1, "config_sha256": "", "started_at": 1, "repairs": [3]}',
        '{"port": 1, "config_sha256": "", "started_at": 1, "repairs": {"jobs_given_back": "?"}}',
    ],
)
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "running.json").write_text(content)
    assert running.read(tmp_path) is None


def test_a_start_that_cannot_be_noted_leaves_no_earlier_one(tmp_path: Path) -> None:
    running.record(tmp_path, port=1, config_sha256="", started_at=1.0)
    (tmp_path / ".running.json.part").mkdir()  # no file can be written in its place
    running.record(tmp_path, port=2, config_sha256="", started_at=2.0)
    assert running.read(tmp_path) is None
    running.record(tmp_path / "absent", port=2, config_sha256="", started_at=2.0)


def test_a_digest_is_of_the_bytes_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert running.digest_of(None) == ""
    assert running.digest_of(file) == ""
    file.write_bytes(b"[node]\n")
    assert running.digest_of(file) == hashlib.sha256(b"[node]\n").hexdigest()
