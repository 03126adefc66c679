"""The mark of a data directory to which a backup is being restored: no node starts there meanwhile."""

from __future__ import annotations

from pathlib import Path

from node.storage import disk, small_file

#: Name of the mark.
MARK = "restoring"


def of(data_dir: Path) -> str:
    """Which backup is being restored to ``data_dir``; empty where none is."""
    try:
        return (data_dir / MARK).read_text("utf-8").strip() or "unknown"
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise disk.failure(error, f"reading {data_dir / MARK}") from error


def begin(data_dir: Path, backup: str) -> None:
    """Set the mark, durably."""
    small_file.write(data_dir / MARK, f"{backup}\n")


def end(data_dir: Path) -> None:
    """Take the mark away, durably."""
    try:
        (data_dir / MARK).unlink(missing_ok=True)
    except OSError as error:
        raise disk.failure(error, "ending to restore") from error
    disk.sync_directory(data_dir)
