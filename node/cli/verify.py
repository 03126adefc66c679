"""``anode verify``: are the stored bytes still those that were acknowledged?"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from node import work_folder
from node.cli import command, output
from node.cli.opening import Records, configuration, records
from node.cli.study_argument import study_named
from node.errors import TransientFailure

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.index.index import StoredInstance

_MARKS_OF_A_COMMIT = 200


def register(commands: Commands) -> None:
    """Add the command."""
    verify = command.add(
        commands,
        "verify",
        _run,
        summary="prove again that every stored instance gives back the bytes that were received",
        description="Each is read, restored to the received data set, and its SHA-256 compared with the one "
        "taken on receipt; the index is looked through first. What is damaged is marked and listed; exit "
        "status 1 then. The node may be running. --json prints one object a line: one for each instance, "
        "the last with the counts.",
        examples="anode verify\nanode verify --study 1.2.840.113619.2.55.3 --json",
    )
    verify.add_argument("--study", metavar="STUDY", help="only this study")


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    with_progress = sys.stderr.isatty() and not arguments.json
    damaged: list[tuple[str, str]] = []
    good = 0
    config = configuration(arguments)
    with records(config) as opened, work_folder.temporary_files(config.node.data_dir):
        if arguments.study is None:
            opened.database.look_through()
        study = None if arguments.study is None else study_named(opened, arguments.study)
        instances = _instances(opened, study)
        progress = tqdm(instances, desc="verify", unit="instance", file=sys.stderr, disable=not with_progress)
        for sop_instance_uid, problem in _verified(opened, progress):
            if problem:
                damaged.append((sop_instance_uid, problem))
            else:
                good += 1
            if arguments.json:
                output.as_json_line({"sop_instance_uid": sop_instance_uid, "problem": problem})
    if arguments.json:
        output.as_json_line({"verified": good + len(damaged), "good": good, "damaged": len(damaged)})
    else:
        if damaged:
            output.table(["SOP INSTANCE", "PROBLEM"], damaged)
        output.line(f"{output.count(good, 'instance')} proven, {len(damaged)} damaged")
    return 1 if damaged else 0


def _instances(opened: Records, study: str | None) -> list[str]:
    """Return the SOP Instance UIDs to verify; no snapshot is held while that goes on for hours."""
    with opened.database.read() as connection:
        if study is not None:
            return [one.sop_instance_uid for one in opened.index.of_study(connection, study)]
        return [one.sop_instance_uid for one in opened.index.instances(connection)]


def _verified(opened: Records, instances: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each instance with its problem, empty when there is none, and mark it in the database."""
    from node import verification

    services = opened.services()
    marks: list[tuple[str, float, str]] = []
    try:
        for sop_instance_uid in instances:
            stored = _held(opened, sop_instance_uid)
            if stored is None:
                continue
            try:
                problem = verification.problem_of(services.storage, stored)
                moved = _held(opened, sop_instance_uid) if problem else None
                if moved is not None and moved.location != stored.location:
                    # It was settled while it was read, and its place in the log may be used again.
                    problem = verification.problem_of(services.storage, moved)
            except TransientFailure as error:
                # Nothing is known of it, so what was known before stays.
                yield sop_instance_uid, f"cannot be read for now: {error}"
                continue
            marks.append((sop_instance_uid, opened.clock.timestamp(), problem))
            if len(marks) >= _MARKS_OF_A_COMMIT:
                _mark(opened, marks)
            yield sop_instance_uid, problem
    finally:
        _mark(opened, marks)
        services.storage.close()


def _held(opened: Records, sop_instance_uid: str) -> StoredInstance | None:
    with opened.database.read() as connection:
        return opened.index.get(connection, sop_instance_uid)


def _mark(opened: Records, marks: list[tuple[str, float, str]]) -> None:
    """Write ``marks`` in one transaction and empty the list."""

    def write(connection: sqlite3.Connection) -> None:
        for sop_instance_uid, verified_at, problem in marks:
            opened.index.mark_verified(connection, sop_instance_uid, verified_at, problem)

    if marks:
        opened.database.write(write)
        marks.clear()
