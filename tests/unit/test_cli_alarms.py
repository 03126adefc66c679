"""Alarms are kept where they can be written when nothing else can."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from node import alarms


def test_an_alarm_stands_until_it_is_cleared(tmp_path: Path) -> None:
    alarms.raise_alarm(tmp_path, alarms.DISK_FULL, "2 MB are free", 100.0)
    alarms.raise_alarm(tmp_path, "other", "something else", 105.0)
    alarms.raise_alarm(tmp_path, alarms.DISK_FULL, "1 MB is free", 110.0)
    full, other = alarms.standing(tmp_path)
    assert (full.name, full.message, full.since, full.last_seen, full.times) == (
        alarms.DISK_FULL,
        "1 MB is free",
        100.0,
        110.0,
        2,
    )
    assert other.name == "other"
    alarms.clear_alarm(tmp_path, alarms.DISK_FULL)
    alarms.clear_alarm(tmp_path, "never raised")
    assert [alarm.name for alarm in alarms.standing(tmp_path)] == ["other"]
    alarms.reset(tmp_path)
    assert alarms.standing(tmp_path) == []


def test_raising_an_alarm_needs_no_new_space(tmp_path: Path) -> None:
    alarms.reset(tmp_path)
    (file,) = tmp_path.iterdir()
    before = (file.stat().st_size, file.stat().st_ino, file.stat().st_blocks)
    for number in range(50):
        alarms.raise_alarm(tmp_path, f"alarm {number}", "x" * 2000, float(number))
    assert (file.stat().st_size, file.stat().st_ino, file.stat().st_blocks) == before
    assert alarms.standing(tmp_path)


def test_an_alarm_that_cannot_be_written_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alarms.raise_alarm(tmp_path / "absent", alarms.DISK_FULL, "full", 1.0)

    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fails)
    alarms.raise_alarm(tmp_path, alarms.DISK_FULL, "full", 1.0)
    assert caplog.text.count("alarm not written") == 2


@pytest.mark.parametrize("content", ["", "[", "{}", '[{"name": 3}]', "[1]"])
def test_a_damaged_file_means_no_alarm(tmp_path: Path, content: str) -> None:
    (tmp_path / "alarms.json").write_text(content)
    assert alarms.standing(tmp_path) == []
    alarms.raise_alarm(tmp_path, alarms.DISK_FULL, "full", 1.0)
    assert len(alarms.standing(tmp_path)) == 1
