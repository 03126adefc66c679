"""What the commands print: aligned tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

_PROBLEMS_SHOWN = 20


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print ``rows`` under ``headings``, columns aligned; numbers stand to the right."""
    texts = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    to_the_right = [
        bool(rows) and all(_is_number(cell) or cell in ("", None) for cell in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(headings)
    for line in [list(headings), ["-" * width for width in widths], *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_the_right, strict=True)
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def first_problems(heading: str, problems: Sequence[tuple[object, object]]) -> None:
    """Print the first of ``problems``, each with where it is under ``heading``; nothing if there are none."""
    if not problems:
        return
    table([heading, "PROBLEM"], problems[:_PROBLEMS_SHOWN])
    if len(problems) > _PROBLEMS_SHOWN:
        line(f"… and {len(problems) - _PROBLEMS_SHOWN} more (--json lists all)")


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair to a line, the values aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        sys.stdout.write(f"{name.ljust(width)}  {plain(value)}".rstrip() + "\n")


def line(text: str = "") -> None:
    """Print one line to standard output."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print one line for people to standard error, where it does not mix with data."""
    sys.stderr.write(f"anode: {text}\n")


def note_ready(text: str) -> None:
    """Print the one line by which a supervisor knows that the node is ready."""
    sys.stderr.write(f"anode ready: {text}\n")
    sys.stderr.flush()


def as_json(value: Any) -> None:
    """Print ``value`` as one JSON document, in ASCII."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def as_json_line(value: Any) -> None:
    """Print ``value`` as JSON on one line, at once; in ASCII, as a file's name may be in no encoding."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def plain(value: object) -> str:
    """Return ``value`` as text that cannot steer a terminal, also when a peer sent it."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def size(count_bytes: float) -> str:
    """``1.4 GB``: bytes in powers of 1000, as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count_bytes < 1000 or unit == "TB":
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    raise AssertionError("the last unit has no upper bound")


def moment(timestamp: float | None) -> str:
    """Return a time of the database in the local time zone of who reads it."""
    if timestamp is None:
        return ""
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(timestamp: float | None) -> str | None:
    """Return a time of the database as ISO 8601, UTC, for ``--json``."""
    if timestamp is None:
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h``, ``2 days``."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 study``, ``2 studies``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def short(uid: str) -> str:
    """Return the end of a UID, where UIDs differ; the commands accept it in place of the whole."""
    return f"…{uid[-14:]}" if len(uid) > 15 else uid


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)
