"""Refusals are told at a bounded rate, counted in bounded memory, and read by others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from node import refusals
from node.refusals import MOST_KINDS, MOST_NEW_KINDS, MOST_TITLES, OTHER_TITLES, Refusal, Refusals
from tests.support.manual_clock import ManualClock


def stranger(title: str = "X", address: str = "192.0.2.1", **changes: Any) -> Refusal:
    values = {"reason": "not configured", "action": "add it", "calling_ae_title": title, **changes}
    return Refusal("association", peer_address=address, **values)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """What was told: AE title and number, in order."""
    lines = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    return [(line.get("calling_ae_title", ""), line.get("times", 1)) for line in lines]


def test_the_first_is_told_at_once_and_what_repeats_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    noted = Refusals(clock)
    observed: list[tuple[str, int]] = []
    noted.observe(lambda refusal, times: observed.append((refusal.calling_ae_title, times)))
    for _ in range(100):
        noted.refused(stranger())
    noted.flush()
    assert told(caplog) == [("X", 1)]
    [first] = caplog.records
    assert (first.message, vars(first)["action"]) == ("association rejected", "add it")
    clock.advance(refusals.SUMMARY_SECONDS)
    noted.flush()
    noted.flush()
    assert told(caplog) == [("X", 1), ("X", 99)]
    clock.advance(refusals.SUMMARY_SECONDS)
    noted.flush()
    noted.refused(stranger())
    assert told(caplog)[2:] == [("X", 1)]
    noted.refused(stranger())
    noted.flush(is_last=True)
    assert told(caplog)[3:] == [("X", 1)]
    assert observed == told(caplog)


def test_other_reasons_titles_and_addresses_are_told_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    noted = Refusals(ManualClock())
    noted.refused(stranger())
    noted.refused(stranger(address="192.0.2.2"))
    noted.refused(stranger("Y"))
    noted.refused(stranger(reason="elsewhere"))
    assert len(told(caplog)) == 4
    assert len(noted.refused_so_far()) == 4


def test_ten_thousand_tries_under_as_many_titles_fill_neither_log_nor_memory(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    clock = ManualClock()
    noted = Refusals(clock, tmp_path)
    for number in range(10_000):
        noted.refused(stranger(f"T{number}"))
    clock.advance(refusals.SUMMARY_SECONDS)
    noted.flush()
    assert told(caplog) == [*((f"T{number}", 1) for number in range(MOST_TITLES)), (OTHER_TITLES, 1),
                            (OTHER_TITLES, 10_000 - MOST_TITLES - 1)]  # fmt: skip
    kept, others = refusals.read(tmp_path)
    assert len(kept) == MOST_TITLES + 1
    assert sum(one.times for one in kept) == 10_000
    assert not others


def test_as_many_addresses_are_told_as_a_number_and_none_is_lost(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    clock = ManualClock()
    noted = Refusals(clock, tmp_path)
    for number in range(1000):
        noted.refused(stranger(address=f"2001:db8::{number:x}"))
    assert len(told(caplog)) == MOST_NEW_KINDS
    clock.advance(refusals.SUMMARY_SECONDS)
    noted.flush()
    assert sum(times for _, times in told(caplog)) == 1000
    assert len(told(caplog)) <= MOST_NEW_KINDS + MOST_KINDS + 1
    kept, others = refusals.read(tmp_path)
    assert len(kept) == MOST_KINDS
    assert kept[0].peer_address == f"2001:db8::{999:x}"
    assert sum(one.times for one in kept) + others["association"] == 1000


def test_what_a_peer_gives_can_steer_no_terminal(tmp_path: Path) -> None:
    noted = Refusals(ManualClock(), tmp_path)
    noted.refused(stranger("\x1b[2J\nX", detail="it\x07"))
    [kept], _ = refusals.read(tmp_path)
    assert (kept.calling_ae_title, kept.detail) == ("\\x1b[2J\\nX", "it\\x07")


def test_the_file_is_written_at_once_and_then_once_a_second_at_most(tmp_path: Path) -> None:
    clock = ManualClock()
    noted = Refusals(clock, tmp_path)
    noted.refused(stranger())
    noted.refused(stranger(), 5)
    assert refusals.read(tmp_path)[0][0].times == 1
    noted.flush()
    assert refusals.read(tmp_path)[0][0].times == 6
    clock.advance(1.0)
    noted.refused(stranger())
    [kept], _ = refusals.read(tmp_path)
    assert (kept.times, kept.last_at - kept.first_at) == (7, 1.0)
    assert (tmp_path / "refusals.json").stat().st_mode & 0o077 == 0
    refusals.reset(tmp_path)
    refusals.reset(tmp_path)
    assert refusals.read(tmp_path) == ([], {})


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '{"refused": [{"kind": 3}], "others": {}}'])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "refusals.json").write_text(content)
    assert refusals.read(tmp_path) == ([], {})


def test_a_file_that_cannot_be_written_hinders_nobody(tmp_path: Path) -> None:
    noted = Refusals(ManualClock(), tmp_path / "absent")
    noted.refused(stranger())
    noted.flush()
    assert [one.times for one in noted.refused_so_far()] == [1]
