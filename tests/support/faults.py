"""The faults that ``anode why`` must name, and what an operator is to read for each.

``tests/integration/test_why.py`` brings about every one on a real node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One row of ``anode why``.

    ``about`` and ``command`` are patterns of the whole text, ``says`` lists what the explanation
    must hold; an empty ``command`` is none. ``is_tried_again`` is whether a next try is told; ``since`` is
    always told.
    """

    about: str
    state: str
    cause: str
    says: tuple[str, ...]
    is_tried_again: bool
    command: str


FAULTS: Mapping[str, Fault] = {
    "the PACS is down": Fault(
        "instances to PACS", "retrying", "peer-unreachable", ("No connection", "by itself"), True,
        "anode echo PACS",
    ),
    "the PACS refuses": Fault(
        "instances to PACS", "stopped", "peer-refused", ("C123", "no such patient here"), False,
        "anode retry --study [0-9.]+",
    ),
    "no rule matches": Fault(
        "analysis quality", "idle", "no-match", ("Modality is 'CT'", "wants 'MR'"), False,
        "",
    ),
    "the geometry is refused": Fault(
        "analysis lungs", "refused", "not-a-volume", ("spacing",), False, "anode models",
    ),
    "the model crashed": Fault(
        "analysis faulty", "stopped", "model-crashed", ("for the test", "1 try so far", "is mended"), False,
        "anode retry --study [0-9.]+",
    ),
    "the model timed out": Fault(
        "analysis faulty", "stopped", "model-timed-out", ("1 try so far", "timeout_seconds"), False,
        "anode retry --study [0-9.]+",
    ),
    "the analysis is parked": Fault(
        "analysis faulty, series .+", "stopped", "analysis-parked", ("is parked", "for the test"), False,
        "anode retry --analysis faulty",
    ),
    "an input is missing": Fault(
        "analysis faulty", "refused", "unfit-input", ("No series", "'other'", "Modality is 'MR'"), False,
        "anode retry --study [0-9.]+ --again",
    ),
    "another analysis is not over": Fault(
        "analysis quality", "waiting", "waiting-for-analysis", ("faulty is over",), False,
        "anode why [0-9.]+",
    ),
    "a result does not match": Fault(
        "analysis second", "idle", "no-match", ("quality.Imaging Series Quality is 'Series quality",), False,
        "",
    ),
    "waiting for quiet": Fault(
        "analysis quality", "waiting", "waiting-for-quiet", ("1000 s", "are left"), True,
        "anode studies [0-9.]+",
    ),
    "the disk is full": Fault(
        "node", "stopped", "disk-full", ("A700", "by itself"), False, "anode status",
    ),
    "two patients": Fault(
        "analysis quality", "stopped", "two-patients", ("2 patients", "not analysed"), False,
        "anode studies [0-9.]+ --names",
    ),
}  # fmt: skip


def differences(fault: Fault, rows: Sequence[Mapping[str, Any]], config: str) -> list[str]:
    """Return how the rows of ``anode why --json`` fail ``fault``; nothing when one row satisfies it.

    ``config`` is the option that every command carries.
    """
    about = [row for row in rows if re.fullmatch(fault.about, row["about"])]
    if not about:
        return [f"no row is about {fault.about}"]
    found = []
    for row in about:
        wrong = [
            f"{name} is {row[name]!r}"
            for name, right in (("state", fault.state), ("cause", fault.cause))
            if row[name] != right
        ]
        wrong += [
            f"{text!r} is not in {row['explanation']!r}"
            for text in fault.says
            if text not in row["explanation"]
        ]
        if not row["since"]:
            wrong.append("since is not told")
        if bool(row["next_try"]) != fault.is_tried_again:
            wrong.append(f"next_try is {row['next_try']!r}")
        command = fault.command + re.escape(config) if fault.command else ""
        if not re.fullmatch(command, row["command"]):
            wrong.append(f"command is {row['command']!r}")
        if not wrong:
            return []
        found += wrong
    return found
