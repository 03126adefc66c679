"""Small files of our own, each there whole and durable or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from node.storage import disk


def write(path: Path, text: str) -> None:
    """Write ``text``, for its owner alone; what was there before is replaced in one step.

    Raises
    ------
    OutOfSpace, StorageFailure
        What was there is still there.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            disk.write_at(file, text.encode(), 0)
            disk.sync_data(file)
        finally:
            os.close(file)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise disk.failure(error, f"writing {path.name}") from error
    disk.sync_directory(path.parent)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none that can be read."""
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
