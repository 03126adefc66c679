"""Settling processes with a fault: each is the target of a process in place of ``child.main``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node import subordinate
from node.settling import child
from node.settling.order import Order
from node.storage import disk

#: The process itself, whatever a test puts in its place in the process of the tests.
_serve = child.main


def inject(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], *facts: object) -> None:
    """Have every settling process that is started from now on show ``fault``."""
    monkeypatch.setattr(child, "main", partial(fault, *facts))


def dies_of(sop_instance_uids: Sequence[str], number: int, tries: Path, *arguments: Any) -> None:
    """End by the signal ``number`` in the codec, of these instances alone."""

    def before(order: Order) -> None:
        if order.sop_instance_uid in sop_instance_uids and not order.keep_reason:
            with tries.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), number)

    _with(before, *arguments)


def dies_once_of(sop_instance_uids: Sequence[str], folder: Path, *arguments: Any) -> None:
    """Be killed in the codec, once for each of these instances."""

    def before(order: Order) -> None:
        marker = folder / f"died-{order.sop_instance_uid}"
        if order.sop_instance_uid in sop_instance_uids and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _with(before, *arguments)


def hangs_in(sop_instance_uid: str, is_busy: bool, *arguments: Any) -> None:
    """Never come back from the codec, of one instance alone: busy, or asleep."""

    def before(order: Order) -> None:
        if order.sop_instance_uid == sop_instance_uid and not order.keep_reason:
            while True:
                if not is_busy:
                    time.sleep(1)

    subordinate.CPU_SECONDS = 0.0
    _with(before, *arguments)


def raises(message: str, *arguments: Any) -> None:
    """Raise what nobody foresaw."""

    def before(_order: Order) -> None:
        raise ZeroDivisionError(message)

    _with(before, *arguments)


def exits(*_arguments: Any) -> None:
    """End by itself, before anything is done."""
    sys.exit(3)


def stalls_once(folder: Path, *arguments: Any) -> None:
    """Stop in the middle of the first archive file that any process writes; ``folder`` says who."""
    sync_data = disk.sync_data

    def stalling(file: int) -> None:
        try:
            (folder / "stall").unlink()
        except FileNotFoundError:
            sync_data(file)
            return
        (folder / "stalled.part").write_text(str(os.getpid()))
        (folder / "stalled.part").rename(folder / "stalled")
        while True:
            signal.pause()

    disk.sync_data = stalling
    _serve(*arguments)


def _with(before: Callable[[Order], None], *arguments: Any) -> None:
    begin = child.begin

    def faulty(storage: Any, order: Order) -> Any:
        before(order)
        return begin(storage, order)

    child.begin = faulty
    _serve(*arguments)
