"""``anode why``: what became of a study, why, since when, and what to do."""

from __future__ import annotations

import argparse
import textwrap
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.named import study_named
from node.cli.opening import configuration, is_running, records

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.explanation.facts import Row

_WIDTH = 96


def register(commands: Commands) -> None:
    """Add the command."""
    why = command.add(
        commands,
        "why",
        _run,
        summary="say what became of a study: the cause, since when, the next try, the command to run",
        description="Each row has a state. First stands what is stopped, where a person has to look, then "
        "what is refused, as a series is none for the analysis; then what is running, waiting, retrying, or "
        "done, with what was found; last, in a line each, what is idle, where nothing is to happen: no "
        "series matches, no instance came since the analysis was configured, or a route leads back to the "
        "sender.",
        examples="anode why 1.2.840.113619.2.55.3\nanode why A1234567 --json",
    )
    why.add_argument(
        "study",
        metavar="STUDY",
        help="Study Instance UID, the unambiguous beginning of it, or Accession Number",
    )


def _run(arguments: argparse.Namespace) -> int:
    from node.cli.study_facts import gather
    from node.explanation import explanation

    config = configuration(arguments)
    with records(config) as opened:
        study_instance_uid = study_named(opened, arguments.study)
        running = is_running(config)
        with opened.database.read() as connection:
            facts = gather(opened, connection, study_instance_uid, node_is_running=running)
    rows, state = explanation.explain(facts), explanation.state_of(facts)
    if arguments.json:
        output.as_json(
            {
                "study_instance_uid": study_instance_uid,
                "state": state,
                "rows": [_for_programs(row) for row in rows],
            }
        )
    else:
        _print(study_instance_uid, state, rows, something_is_configured=bool(facts.analyses or facts.routes))
    return 0


def _print(study_instance_uid: str, state: str, rows: list[Row], *, something_is_configured: bool) -> None:
    output.line(f"study {study_instance_uid}: {state}")
    if not rows:
        none = (
            "nothing is left to do" if something_is_configured else "no analysis and no route is configured"
        )
        output.line(f"  Everything is stored; {none}.")
    idle = [row for row in rows if row.state == "idle"]
    for row in rows:
        if row.state == "idle":
            continue
        output.line()
        output.line(f"{output.plain(row.about)}: {row.state if row.cause == row.state else _headline(row)}")
        for text in textwrap.wrap(output.plain(row.explanation), _WIDTH):
            output.line(f"  {text}")
        now = time.time()
        if row.since is not None:
            ago = output.duration(now - row.since)
            output.line(f"  since     {output.moment(row.since)} ({ago} ago)")
        if row.next_try is not None:
            soon = f"in {output.duration(row.next_try - now)}" if row.next_try > now else "now"
            output.line(f"  next try  {output.moment(row.next_try)} ({soon})")
        if row.model:
            output.line(f"  model     {output.plain(row.model)}")
        if row.picture:
            output.line(f"  picture   {row.picture}")
        if row.command:
            output.line(f"  run       {row.command}")
    if idle:
        output.line()
    for row in idle:
        told = f"{row.explanation.removesuffix('.')}: {row.command}" if row.command else row.explanation
        output.line(output.plain(f"{row.about}: {_headline(row)}: {told}"))


def _headline(row: Row) -> str:
    return f"{row.state}, {row.cause}"


def _for_programs(row: Row) -> dict[str, object]:
    return {**asdict(row), "since": output.iso(row.since), "next_try": output.iso(row.next_try)}
