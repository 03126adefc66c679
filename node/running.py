"""What the running node was started with, for the commands that run beside it.

``data_dir/running.json`` is written once at each start. It says nothing on whether the node still
runs; the lock of the data directory says that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from node.repairs import Repairs

_FILE = "running.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """One start of a node.

    ``port`` is the port that was bound, ``config_sha256`` is what ``digest_of`` gave for the
    configuration then, ``started_at`` is in seconds since the epoch, UTC, ``repairs`` is what that
    start put right.
    """

    port: int
    config_sha256: str
    started_at: float
    repairs: Repairs = field(default_factory=Repairs)


def digest_of(source: Path | None) -> str:
    """Return the SHA-256 of a configuration file in hex; empty when there is none."""
    if source is None:
        return ""
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError:
        return ""


def record(
    data_dir: Path, *, port: int, config_sha256: str, started_at: float, repairs: Repairs | None = None
) -> None:
    """Note a start, whole or not at all. Never raises: a node also starts on a disk that is full.

    What an earlier start noted is gone in any case.
    """
    path = data_dir / _FILE
    partial = data_dir / f".{_FILE}.part"
    content = json.dumps(asdict(Running(port, config_sha256, started_at, repairs or Repairs())))
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w") as file:
            file.write(content + "\n")
        partial.replace(path)
    except OSError as error:
        for stale in (partial, path):
            with contextlib.suppress(OSError):
                stale.unlink()
        _log.warning("start not noted", extra={"reason": error.strerror})


def read(data_dir: Path) -> Running | None:
    """Return what the latest start noted; None when there is nothing that can be read."""
    try:
        raw = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
        return Running(
            int(raw["port"]),
            str(raw["config_sha256"]),
            float(raw["started_at"]),
            Repairs.of(raw.get("repairs", {})),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
