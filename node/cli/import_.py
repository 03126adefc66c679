"""``anode import``: files, folders and other archives into this one."""

from __future__ import annotations

import argparse
import sys
from collections import Counter as Count
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.opening import configuration, is_running, keep_others_out
from node.config.settings import Config
from node.errors import IntegrityFailure, NodeError, ObjectError, WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.importing.finding import PassedOver
    from node.importing.intake import Door
    from node.importing.sources import Source

_TAKEN = ("stored", "held", "same", "repaired")


def register(commands: Commands) -> None:
    """Add the command."""
    command_ = command.add(
        commands,
        "import",
        _run,
        summary="take in DICOM files, folders, a DICOMDIR, Orthanc's storage, or another anode's archive",
        description="Whether the node runs or not; with the checks of C-STORE, and byte for byte. What is "
        "held already is passed over, so an import that was killed is simply repeated. No route and no "
        "analysis follows, unless --analyze says so: 'anode retry --study STUDY --again' analyses one "
        "study later. Exit status 1 where a DICOM file was not taken in. --json prints one object a "
        "line: one for each DICOM file, the last with the counts.",
        examples="anode import /media/cdrom/DICOMDIR\nanode import /var/lib/orthanc/db\n"
        "anode import /mnt/old/data --analyze",
    )
    command_.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="files and folders")
    command_.add_argument(
        "--analyze", action="store_true", help="routes and analyses follow, as if a peer had sent it"
    )


class _Result:
    """What came of an import so far."""

    def __init__(self) -> None:
        self.counts: Count[str] = Count()
        self.passed_over: Count[str] = Count()
        self.problems: list[tuple[str, str]] = []
        self.failure: NodeError | None = None


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from node.importing import finding

    config = configuration(arguments)
    keep_others_out()
    for path in arguments.paths:
        if not path.exists():
            raise WrongUsage(f"{path}: there is no such file or folder")
        if path.resolve().is_relative_to(config.node.data_dir.resolve()):
            raise WrongUsage(f"{path} is part of the data directory itself")
    result = _Result()
    is_quiet = arguments.json or not sys.stderr.isatty()
    with _door(config) as door:
        found = finding.find(arguments.paths)
        for one in tqdm(found, desc="import", unit="file", file=sys.stderr, disable=is_quiet):
            try:
                _take(door, one, result, arguments)
            except NodeError as error:
                result.failure = error
                break
    if arguments.json:
        output.as_json_line(_counts(result))
    else:
        _print(result)
    if result.failure is not None:
        raise result.failure
    return 1 if result.problems else 0


@contextmanager
def _door(config: Config) -> Iterator[Door]:
    """The running node, or its place."""
    from node.cli.exclusive import stopped_node
    from node.importing.client import Counter
    from node.importing.intake import Inside

    if is_running(config):
        with Counter(config.node.data_dir) as counter:
            yield counter
    else:
        output.note("the node is not running: what is imported is compressed when it runs again")
        with stopped_node(config) as services:
            yield Inside(services)


def _take(door: Door, one: Source | PassedOver, result: _Result, arguments: argparse.Namespace) -> None:
    from node.importing.finding import PassedOver
    from node.importing.intake import Outcome

    if isinstance(one, PassedOver):
        if not one.is_dicom:
            result.passed_over[one.reason] += 1
            return
        outcome = Outcome("refused", one.reason)
    else:
        try:
            outcome = door.take(one, is_analyzed=arguments.analyze)
        except (ObjectError, IntegrityFailure) as error:
            outcome = Outcome("refused", str(error))
    result.counts[outcome.kind] += 1
    if outcome.kind not in _TAKEN:
        result.problems.append((one.where, outcome.reason))
    if arguments.json:
        output.as_json_line({"file": one.where, "outcome": outcome.kind, "reason": outcome.reason})


def _counts(result: _Result) -> dict[str, object]:
    return {
        "stored": result.counts["stored"],
        "held_already": result.counts["held"] + result.counts["same"],
        "repaired": result.counts["repaired"],
        "conflicts": result.counts["conflict"],
        "refused": result.counts["refused"],
        "passed_over": sum(result.passed_over.values()),
        "is_complete": result.failure is None,
    }


def _print(result: _Result) -> None:
    if result.problems:
        output.first_problems("FILE", result.problems)
        output.line()
    counts = result.counts
    parts = [f"{counts['stored']} stored", f"{counts['held'] + counts['same']} held already"]
    parts += [f"{counts[kind]} {kind}" for kind in ("repaired", "refused") if counts[kind]]
    if counts["conflict"]:
        parts.append(f"{output.count(counts['conflict'], 'conflict')} ('anode studies --quarantine')")
    output.line(", ".join(parts))
    for reason, number in sorted(result.passed_over.items()):
        output.line(f"{output.count(number, 'other file')} passed over: {reason}")
