"""Who was refused what, and why: every refusal passes here, and is logged, counted and shown.

What repeats is told once at once and then once a minute, and only so many kinds are kept apart: a peer
that tries ten thousand times fills neither the log nor the memory. The running node writes
``data_dir/refusals.json``; ``anode status`` reads it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from node.clock import Clock

Kind = Literal["connection", "association", "context", "operation"]
#: Called with a refusal that is told, and how many of its kind there were since the last time.
Observer = Callable[["Refusal", int], None]

MOST_KINDS = 200
"""So many kinds are kept apart; of others the number alone is known."""
MOST_TITLES = 10
"""So many AE titles of one address are kept apart for one reason."""
OTHER_TITLES = "…"
"""Stands for the AE titles beyond: no AE title can have this character."""
SUMMARY_SECONDS = 60.0
"""What repeats is told so often."""
MOST_NEW_KINDS = 30
"""So many new kinds are told at once in that time; the others wait for the summary."""

_FILE = "refusals.json"
_WRITE_SECONDS = 1.0
_TITLE_CHARACTERS = 64
_EVENTS: dict[Kind, str] = {
    "connection": "connection refused",
    "association": "association rejected",
    "context": "presentation contexts refused",
    "operation": "request not allowed",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """One refusal.

    Attributes
    ----------
    kind
        What was refused: a connection before any association, an association, presentation contexts of
        one that was accepted, or an operation.
    reason
        What is wrong, in words of ours alone: refusals of the same reason are counted together.
    action
        What the operator would do to allow it.
    detail
        What exactly was asked for; of repeated ones the last is shown.
    calling_ae_title, called_ae_title
        As the peer gave them; empty where it had no time to.
    association
        The number of the association, where there is one.
    """

    kind: Kind
    reason: str
    action: str = ""
    detail: str = ""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_address: str = ""
    association: int | None = None


@dataclass(frozen=True)
class Refused:
    """Refusals of one kind, reason, calling AE title and address; times in seconds since the epoch, UTC."""

    kind: Kind
    reason: str
    action: str
    detail: str
    calling_ae_title: str
    peer_address: str
    times: int
    first_at: float
    last_at: float


@dataclass
class _Counted:
    latest: Refusal
    first_at: float
    last_at: float
    times: int = 0
    untold: int = 0
    told_at: float = 0.0  # monotonic


_Key = tuple[Kind, str, str, str]


class Refusals:
    """What the running node has refused since it was started. Any thread may call anything.

    Parameters
    ----------
    clock : Clock
        For the times, and for what is told when.
    data_dir : Path, optional
        Where to write what ``read`` reads; without it, nowhere.
    """

    def __init__(self, clock: Clock, data_dir: Path | None = None) -> None:
        self._clock = clock
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._kinds: OrderedDict[_Key, _Counted] = OrderedDict()  # the one refused last is the last
        self._rest: Counter[Kind] = Counter()  # of kinds that are kept apart no more
        self._untold_rest = 0
        self._rest_told_at = clock.monotonic()
        self._new_kinds = 0  # told at once since ...
        self._new_kinds_since = clock.monotonic()
        self._observers: list[Observer] = []
        self._writing = threading.Lock()
        self._written_at: float | None = None
        self._is_written = False

    def observe(self, observer: Observer) -> None:
        """Have ``observer`` called with whatever is told, in the thread of who refuses; it must not raise."""
        self._observers.append(observer)

    def refused(self, refusal: Refusal, times: int = 1) -> None:
        """Note ``times`` refusals that are alike: the one place that all of them pass. Never raises."""
        refusal = replace(
            refusal,
            calling_ae_title=_plain(refusal.calling_ae_title),
            called_ae_title=_plain(refusal.called_ae_title),
            detail=_plain(refusal.detail, 400),
        )
        now = self._clock.monotonic()
        with self._lock:
            counted = self._count(refusal, times, now)
            told = counted.untold if self._is_due(counted, now) else 0
            if told:
                counted.untold, counted.told_at = 0, now
            refusal = counted.latest
        if told:
            self._tell(refusal, told)
        if self._written_at is None or now - self._written_at >= _WRITE_SECONDS:
            self._write()

    def flush(self, *, is_last: bool = False) -> None:
        """Tell and write what is due, or all of it; called every few seconds. Never raises."""
        now = self._clock.monotonic()
        due: list[tuple[Refusal, int]] = []
        with self._lock:
            for counted in self._kinds.values():
                if counted.untold and (is_last or now - counted.told_at >= SUMMARY_SECONDS):
                    due.append((counted.latest, counted.untold))
                    counted.untold, counted.told_at = 0, now
            rest = self._untold_rest if is_last or now - self._rest_told_at >= SUMMARY_SECONDS else 0
            if rest:
                self._untold_rest, self._rest_told_at = 0, now
        for refusal, times in due:
            self._tell(refusal, times)
        if rest:
            _log.warning("refused, too many kinds to tell apart", extra={"times": rest})
        if not self._is_written:
            self._write()

    def refused_so_far(self) -> list[Refused]:
        """Return what is kept apart, the latest first."""
        with self._lock:
            return [_refused(key, counted) for key, counted in reversed(self._kinds.items())]

    def _count(self, refusal: Refusal, times: int, now: float) -> _Counted:
        key = self._key(refusal)
        counted = self._kinds.get(key)
        timestamp = self._clock.timestamp()
        if counted is None:
            counted = _Counted(refusal, timestamp, timestamp, told_at=now)
            self._kinds[key] = counted
            if len(self._kinds) > MOST_KINDS:
                (kind, *_), oldest = self._kinds.popitem(last=False)
                self._rest[kind] += oldest.times
                self._untold_rest += oldest.untold
        self._kinds.move_to_end(key)
        counted.latest = replace(refusal, calling_ae_title=key[2])
        counted.last_at = timestamp
        counted.times += times
        counted.untold += times
        self._is_written = False
        return counted

    def _key(self, refusal: Refusal) -> _Key:
        key = (refusal.kind, refusal.reason, refusal.calling_ae_title, refusal.peer_address)
        if key in self._kinds:
            return key
        titles = sum((one[0], one[1], one[3]) == (key[0], key[1], key[3]) for one in self._kinds)
        return key if titles < MOST_TITLES else (key[0], key[1], OTHER_TITLES, key[3])

    def _is_due(self, counted: _Counted, now: float) -> bool:
        if counted.times != counted.untold:  # told before
            return now - counted.told_at >= SUMMARY_SECONDS
        if now - self._new_kinds_since >= SUMMARY_SECONDS:
            self._new_kinds, self._new_kinds_since = 0, now
        self._new_kinds += 1
        return self._new_kinds <= MOST_NEW_KINDS

    def _tell(self, refusal: Refusal, times: int) -> None:
        values = {
            name: value
            for name, value in asdict(refusal).items()
            if name != "kind" and value not in ("", None)
        }
        _log.warning(_EVENTS[refusal.kind], extra=values if times == 1 else {**values, "times": times})
        for observer in self._observers:
            observer(refusal, times)

    def _write(self) -> None:
        """Write the file anew, whole or not at all: it is told from memory again at the next occasion."""
        if self._data_dir is None or not self._writing.acquire(blocking=False):
            return
        try:
            self._written_at = self._clock.monotonic()
            self._is_written = True
            content = {
                "refused": [asdict(one) for one in self.refused_so_far()],
                "others": dict(self._rest),
            }
            partial = self._data_dir / f".{_FILE}.part"
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(content, file)
            partial.replace(self._data_dir / _FILE)
        except OSError as error:
            _log.debug("refusals not written", extra={"reason": error.strerror})
        finally:
            self._writing.release()


def reset(data_dir: Path) -> None:
    """Forget what an earlier run has refused. Never raises."""
    with contextlib.suppress(OSError):
        (data_dir / _FILE).unlink()


def read(data_dir: Path) -> tuple[list[Refused], dict[Kind, int]]:
    """Return what the latest run has refused, the latest first, and the number of others by kind.

    Nothing when the file is absent or unreadable.
    """
    try:
        raw = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
        refused = [Refused(**one) for one in raw["refused"]]
        others = {kind: int(raw["others"][kind]) for kind in get_args(Kind) if kind in raw["others"]}
    except (OSError, ValueError, TypeError, KeyError):
        return [], {}
    return refused, others


def _refused(key: _Key, counted: _Counted) -> Refused:
    latest = counted.latest
    return Refused(
        kind=latest.kind,
        reason=latest.reason,
        action=latest.action,
        detail=latest.detail,
        calling_ae_title=key[2],
        peer_address=latest.peer_address,
        times=counted.times,
        first_at=counted.first_at,
        last_at=counted.last_at,
    )


def _plain(text: str, most: int = _TITLE_CHARACTERS) -> str:
    """Write what a peer gave so that it can steer neither a log nor a terminal."""
    if text.isprintable() and text.isascii():
        return text[:most]
    return text.encode("unicode_escape").decode("ascii")[:most]
