"""What is wrong with the node now, kept where it can be written when the database cannot.

A full disk is the case in point: the file has one fixed size, is overwritten in place and so
needs no new block. The running node writes it; ``anode status``, ``check`` and ``why`` read it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

DISK_FULL = "disk-full"
"""The alarm for `node.errors.OutOfSpace`."""

TLS_FILES, TLS_EXPIRY = "tls-files", "tls-expiry"
"""The alarms for files of TLS: those that cannot be used, and those that are not valid for long."""

LOG_INCOMPLETE = "log-incomplete"
"""Segments of the receive log that the index names are gone."""

FOLDER_GONE = "folder-gone"
"""The archive or the receive log is not the folder that it was at the start."""

FLUSH_FAILED = "flush-failed"
"""The disk of the receive log lost a write; what it held was written once more."""

DAMAGE_FOUND = "damage-found"
"""The last verification of a sample found instances that are not what was received."""

ANALYSIS_PARKED = "analysis-parked"
"""An analysis failed again and again, and waits until an operator has looked."""

_FILE = "alarms.json"
_FILE_BYTES = 16384
_MESSAGE_CHARACTERS = 400

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_raised: set[tuple[Path, str, str]] = set()  # by this process, so that clearing what stands not costs nothing


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong: ``since`` and ``last_seen`` are seconds since the epoch, UTC.

    ``about`` tells alarms of one name apart; empty where there can be only one.
    """

    name: str
    message: str
    since: float
    last_seen: float
    times: int = 1
    about: str = ""


def raise_alarm(
    data_dir: Path, name: str, message: str, now: float, *, about: str = "", since: float | None = None
) -> None:
    """Note that ``name`` is wrong at ``now`` (seconds since the epoch); repeat it freely.

    ``since`` is given where it is known from elsewhere. Never raises: what cannot be written is logged.
    """
    with _lock:
        alarms = {(alarm.name, alarm.about): alarm for alarm in standing(data_dir)}
        before = alarms.get((name, about))
        began, times = (before.since, before.times + 1) if before else (now, 1)
        told = message[:_MESSAGE_CHARACTERS]
        began = began if since is None else since
        alarms[name, about] = Alarm(name, told, began, now, times, about)
        _write(data_dir, list(alarms.values()))
        _raised.add((data_dir, name, about))


def clear_alarm(data_dir: Path, name: str, *, of_anyone: bool = False, besides: Collection[str] = ()) -> None:
    """Note that ``name``, which this process raised, is right again, ``besides`` what those are about.

    Never raises. Costs next to nothing when it was not raised, so every success may call it. With
    ``of_anyone`` another process may have raised it, which must not run any more.
    """
    if not _raised and not of_anyone:
        return
    with _lock:
        over = {one for one in _raised if one[:2] == (data_dir, name) and one[2] not in besides}
        if not over and not of_anyone:
            return
        _raised.difference_update(over)
        _write(
            data_dir,
            [alarm for alarm in standing(data_dir) if alarm.name != name or alarm.about in besides],
        )


def reset(data_dir: Path) -> None:
    """Start without alarms, and take up the file's space while there is some. Never raises."""
    with _lock:
        _raised.difference_update([one for one in _raised if one[0] == data_dir])
        _write(data_dir, [])


def standing(data_dir: Path) -> list[Alarm]:
    """Return the alarms that stand, oldest first; none when the file is absent or unreadable."""
    try:
        raw = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
        alarms = [Alarm(**one) for one in raw]
    except (OSError, ValueError, TypeError):
        return []  # also a write that was cut off: the alarm is raised again at the next occasion
    return sorted(alarms, key=lambda alarm: alarm.since)


def _write(data_dir: Path, alarms: list[Alarm]) -> None:
    content = json.dumps([asdict(alarm) for alarm in alarms])
    while len(content) > _FILE_BYTES:
        alarms = alarms[1:]
        content = json.dumps([asdict(alarm) for alarm in alarms])
    try:
        descriptor = os.open(data_dir / _FILE, os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            os.pwrite(descriptor, content.ljust(_FILE_BYTES).encode("ascii"), 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.error("alarm not written", extra={"alarms": len(alarms), "reason": error.strerror})
