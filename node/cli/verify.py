"""``anode verify``: are the stored bytes still those that were acknowledged?"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.named import study_named
from node.cli.opening import Records, configuration, records
from node.errors import WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands

_MOST_JOBS = 256


def register(commands: Commands) -> None:
    """Add the command."""
    verify = command.add(
        commands,
        "verify",
        _run,
        summary="prove again that every stored instance gives back the bytes that were received",
        description="Each is read, restored to the received data set, and its SHA-256 compared with the one "
        "taken on receipt; the index is looked through first. What is damaged is marked and listed, with the "
        "frames that differ; exit status 1 then. The node may be running. --json prints one object a line: "
        "one for each instance, the last with the counts.",
        examples="anode verify\nanode verify --sample 5%\nanode verify --damaged\n"
        "anode verify --study 1.2.840.113619.2.55.3 --json",
    )
    verify.add_argument("--study", metavar="STUDY", help="only this study")
    verify.add_argument(
        "--damaged", action="store_true", help="only those that were found damaged before, wherever that was"
    )
    verify.add_argument(
        "--sample",
        metavar="COUNT",
        help="only so many instances, or so many percent (5%%): those never verified, or not for the longest "
        "time",
    )
    verify.add_argument(
        "--jobs", metavar="N", help="so many at the same time (default: the number of processor cores)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from node.verifying.verifying import Verifying

    processes = _jobs(arguments.jobs)
    with_progress = sys.stderr.isatty() and not arguments.json
    damaged: list[tuple[str, str]] = []
    good = 0
    config = configuration(arguments)
    with records(config) as opened:
        if arguments.study is None:
            opened.database.look_through()
        study = None if arguments.study is None else study_named(opened, arguments.study)
        instances = _instances(opened, study, arguments.sample, is_damaged=arguments.damaged)
        verifying = Verifying(config, opened.database, opened.index, opened.clock)
        with (
            closing(
                verifying.verify(instances, processes=min(processes, max(1, len(instances))))
            ) as verified,
            tqdm(
                total=len(instances),
                desc="verify",
                unit="instance",
                file=sys.stderr,
                disable=not with_progress,
            ) as progress,
        ):
            for sop_instance_uid, verdict in verified:
                progress.update()
                if verdict.problem:
                    damaged.append((sop_instance_uid, verdict.problem))
                else:
                    good += 1
                if arguments.json:
                    output.as_json_line({"sop_instance_uid": sop_instance_uid, "problem": verdict.problem})
    if arguments.json:
        output.as_json_line({"verified": good + len(damaged), "good": good, "damaged": len(damaged)})
    else:
        if damaged:
            output.table(["SOP INSTANCE", "PROBLEM"], damaged)
        output.line(f"{output.count(good, 'instance')} proven, {len(damaged)} damaged")
    return 1 if damaged else 0


def _jobs(text: str | None) -> int:
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_JOBS:
        raise WrongUsage(f"--jobs: expected a whole number from 1 to {_MOST_JOBS}, not '{text}'")
    return int(text)


def _instances(opened: Records, study: str | None, sample: str | None, *, is_damaged: bool) -> Sequence[str]:
    """Return the SOP Instance UIDs to verify; no snapshot is held while that goes on for hours."""
    with opened.database.read() as connection:
        if is_damaged:
            found = [uid for uid, _ in opened.index.damaged(connection, study)]
            return found if sample is None else found[: _count(sample, len(found))]
        if study is not None:
            found = [one.sop_instance_uid for one in opened.index.of_study(connection, study)]
            if sample is None:
                return found
            longest = opened.index.longest_unverified(connection, opened.index.count(connection))
            in_study = set(found)
            return [one for one in longest if one in in_study][: _count(sample, len(found))]
        count = opened.index.count(connection)
        wanted = count if sample is None else _count(sample, count)
        return opened.index.longest_unverified(connection, wanted)


def _count(sample: str, total: int) -> int:
    """How many instances ``sample`` means of ``total``."""
    text = sample.strip()
    is_percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%")) if is_percent else int(text)
    except ValueError:
        number = -1
    if not number > 0 or (is_percent and number > 100):
        raise WrongUsage(
            f"--sample: expected a number of instances, or of percent such as 5%, not '{sample}'"
        )
    return min(total, math.ceil(total * number / 100) if is_percent else int(number))
