"""The audit trail on disk, and what becomes of messages that cannot be written."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node import alarms
from node.audit import trail as trail_module
from node.audit import transfers
from node.audit.files import AuditFiles, Position
from node.audit.trail import AuditTrail
from node.config.settings import AuditConfig, Config, NodeConfig
from node.refusals import Refusal
from tests.support.audit_messages import lines, trail
from tests.support.manual_clock import ManualClock
from tests.support.waiting import wait_until

DAY = 86400.0


def files(folder: Path, *, keep_bytes: int = 10**9, file_bytes: int = 100) -> AuditFiles:
    return AuditFiles(folder, keep_bytes=keep_bytes, keep_days=400, file_bytes=file_bytes)


def read_all(trail_files: AuditFiles, number: int = 1, offset: int = 0) -> list[bytes]:
    position = Position(number, offset)
    found: list[bytes] = []
    while True:
        lines, position = trail_files.read(position, 64)
        if not lines:
            return found
        found += lines


def test_lines_are_read_back_in_order_across_files_and_runs(tmp_path: Path) -> None:
    written = [b"line %d" % number + b"." * 30 for number in range(20)]
    for part in (written[:12], written[12:]):
        run = files(tmp_path)
        for line in part:
            run.append([line])
        run.close()
    assert len(list(tmp_path.glob("*.log"))) > 2
    assert read_all(files(tmp_path)) == written
    assert read_all(files(tmp_path), 1, len(written[0]) + 1) == written[1:]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.log")} == {0o600}


def test_a_line_longer_than_a_piece_is_read_whole(tmp_path: Path) -> None:
    trail_files = files(tmp_path)
    trail_files.append([b"x" * 5000, b"y"])
    assert read_all(trail_files) == [b"x" * 5000, b"y"]


def test_a_line_that_a_loss_of_power_cut_off_is_left_out(tmp_path: Path) -> None:
    run = files(tmp_path)
    run.append([b"whole"])
    run.close()
    with (tmp_path / "audit-00000001.log").open("ab") as file:
        file.write(b"cut o")
    run = files(tmp_path)
    run.append([b"next"])
    assert read_all(run) == [b"whole", b"next"]


def test_the_oldest_files_go_when_there_are_too_many_bytes_or_days(tmp_path: Path) -> None:
    run = files(tmp_path, keep_bytes=400)
    for number in range(10):
        run.append([b"%090d" % number])
    now = (tmp_path / "audit-00000001.log").stat().st_mtime
    removed = run.prune(now)
    assert removed == list(range(1, removed[-1] + 1))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) <= 400
    assert len(run.prune(now + 401 * DAY)) > 0
    [left] = tmp_path.glob("*.log")  # that which is written
    assert left.read_bytes().rstrip().endswith(b"9")


def test_a_write_that_fails_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = files(tmp_path)
    run.append([b"first"])
    real = os.write

    def full(file: int, data: bytes | memoryview) -> int:
        monkeypatch.setattr(os, "write", no_more)
        return real(file, bytes(data[:3]))

    def no_more(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        run.append([b"second"])
    monkeypatch.undo()
    run.append([b"third"])
    assert read_all(run) == [b"first", b"third"]


def failing_flushes(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let as many flushes fail; the list that is returned has one for each that did."""
    failed: list[int] = []
    real = os.fdatasync

    def flush(file: int) -> None:
        if len(failed) < times:
            failed.append(file)
            raise OSError(errno.EIO, "Input/output error")
        real(file)

    monkeypatch.setattr(os, "fdatasync", flush)
    return failed


def test_after_a_flush_that_failed_no_other_one_of_that_file_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = files(tmp_path)
    failing_flushes(monkeypatch, 1)
    run.append([b"first"])
    with pytest.raises(OSError, match="Input/output"):
        run.sync()
    run.sync()  # of nothing
    assert run.has_lost
    assert run.append([b"second"])
    assert run.has_lost
    run.sync()
    assert not run.has_lost
    run.close()
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.log"))] == [b"first\n", b"second\n"]


def test_a_file_that_is_full_and_cannot_be_flushed_is_followed_by_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = files(tmp_path, file_bytes=3)
    failing_flushes(monkeypatch, 1)
    run.append([b"first"])
    with pytest.raises(OSError, match="Input/output"):
        run.append([b"second"])
    assert run.append([b"second"])
    run.close()
    assert read_all(run) == [b"first", b"second"]


def test_a_flush_that_fails_is_an_alarm_until_one_of_another_file_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "_LOOK_SECONDS", 0.01)
    clock = ManualClock()
    failed = failing_flushes(monkeypatch, 1)
    audit = AuditTrail(Config(node=NodeConfig(data_dir=tmp_path)), clock, lambda _: ("", ""))
    audit.start()
    try:
        wait_until(lambda: len(lines(tmp_path)) == 1)
        clock.advance(10)
        wait_until(lambda: bool(alarms.standing(tmp_path)))
        assert len(failed) == 1
        assert "the last ones written may be lost" in alarms.standing(tmp_path)[0].message
        audit.refused(Refusal("association", "a reason", peer_address="192.0.2.1"), 1)
        wait_until(lambda: len(lines(tmp_path)) == 2)
        assert alarms.standing(tmp_path)
        clock.advance(10)
        wait_until(lambda: not alarms.standing(tmp_path))
    finally:
        audit.stop()
    assert len(list((tmp_path / "audit").glob("*.log"))) == 2


def test_as_many_bytes_are_kept_however_fast_messages_come(tmp_path: Path) -> None:
    """The clock stands still, so it is not time that removes a file."""
    config = Config(node=NodeConfig(data_dir=tmp_path), audit=AuditConfig(keep_bytes=10_000))
    audit = AuditTrail(config, ManualClock(), lambda _: ("", ""))

    def is_written(told: bytes) -> bool:
        newest = max((tmp_path / "audit").glob("*.log"), default=None)  # the only one that nobody removes
        return newest is not None and told in newest.read_bytes()

    audit.start()
    try:
        for number in range(40):
            audit.refused(Refusal("association", f"reason {number}.", peer_address="192.0.2.1"), 1)
            wait_until(partial(is_written, b"reason %d." % number))
    finally:
        audit.stop()
    kept = sum(path.stat().st_size for path in (tmp_path / "audit").glob("*.log"))
    assert 5_000 < kept < 15_000
    assert b"reason 39." in lines(tmp_path)[-2]


def test_messages_beyond_what_memory_holds_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "MOST_WAITING", 5)
    config = Config(node=NodeConfig(data_dir=tmp_path), audit=AuditConfig())
    (tmp_path / "audit").write_text("in the way")
    audit = AuditTrail(config, ManualClock(), lambda _: ("", ""))
    audit.start()
    try:
        wait_until(lambda: bool(alarms.standing(tmp_path)))
        for number in range(20):
            audit.refused(Refusal("association", f"reason {number}", peer_address="192.0.2.1"), 1)
        wait_until(lambda: "are lost" in alarms.standing(tmp_path)[0].message, 30)
        (tmp_path / "audit").unlink()
        wait_until(lambda: not alarms.standing(tmp_path))
    finally:
        audit.stop()
    messages = trail(tmp_path)
    lost = [one for one in messages if one.event_type == "Audit Recording Stopped"]
    told = sum(int(one.description.split()[0]) for one in lost)
    assert told + len([one for one in messages if one.event_type == "Node Authentication"]) == 20


def test_what_peers_call_themselves_cannot_break_a_message(tmp_path: Path) -> None:
    config = Config(node=NodeConfig(data_dir=tmp_path))
    audit = AuditTrail(config, ManualClock(), lambda _: ("", ""))
    audit.start()
    title = '"\x07<x>'
    refusal = Refusal("association", "<b>&\x00\n\x1b[31m\ud800", calling_ae_title=title, peer_address="::1")
    audit.refused(refusal, 1)
    audit.stop()
    [_, alert, _] = trail(tmp_path)
    assert alert.description.startswith("<b>&")
    assert alert.participants[1][1].startswith('"')


def test_what_a_peer_makes_up_is_counted_within_bounds(tmp_path: Path) -> None:
    config = Config(node=NodeConfig(data_dir=tmp_path))
    audit = AuditTrail(config, ManualClock(), lambda _: ("", ""))
    association: Any = SimpleNamespace(
        number=1, is_requestor=False, is_established=False, calling_ae_title="A", peer_address="192.0.2.1"
    )
    audit.start()
    for number in range(transfers.MOST_SOP_CLASSES + 50):
        command = {"AffectedSOPClassUID": f"1.2.{number}." + "9" * 1000, "AffectedSOPInstanceUID": "1" * 1000}
        request: Any = SimpleNamespace(association=association, command=command)
        audit.not_received(request, "command-mismatch", is_ours=False)
    audit.stop()
    told = [one for one in trail(tmp_path) if one.description == "command-mismatch"]
    assert sum(sum(one.sop_classes.values()) for one in told) == transfers.MOST_SOP_CLASSES + 50
    assert max(len(one.xml) for one in told) < 100_000
