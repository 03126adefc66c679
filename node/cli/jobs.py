"""``anode jobs`` and ``anode retry``: the work that waits, and asking for it again."""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from node.cli import command, output
from node.cli.named import study_named
from node.cli.opening import Records, configuration, is_running, records, stale_configuration
from node.config.config_values import suggestion
from node.config.settings import Config
from node.errors import AnalysisParked, WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands

KINDS = ("settle", "select", "analyze", "deliver", "commit", "confirm", "sweep", "verify")
_OF_ANALYSES = ("select", "analyze")
_ALL = 1_000_000
STATES = {"ready": "ready", "running": "leased", "done": "done", "set-aside": "set_aside"}
"""What people say for the states of the queue."""

_TIMES = ("created_at", "next_try_at", "failed_at", "finished_at")


def register(commands: Commands) -> None:
    """Add both commands."""
    jobs = command.add(
        commands,
        "jobs",
        _list,
        summary="list jobs: what is done, runs, waits or was set aside",
        description="A job that was set aside is not tried again by itself: the last column says why.",
        examples="anode jobs --state set-aside\nanode jobs --kind deliver --json",
    )
    jobs.add_argument("--state", choices=tuple(STATES), help="only jobs in this state")
    jobs.add_argument("--kind", choices=KINDS, help="only jobs of this kind")
    jobs.add_argument("--study", metavar="STUDY", help="only jobs of this study")
    jobs.add_argument("--limit", metavar="N", type=int, default=100, help="the latest N (default: 100)")

    retry = command.add(
        commands,
        "retry",
        _retry,
        summary="do jobs now that were set aside, or wait for their next try",
        description="Each starts afresh, with all its tries. With --again the series of a study are "
        "selected anew for every analysis, as if another instance had come, and analysed again where the "
        "model or what it is set to is not as it was: for when the configuration was changed. An analysis "
        "that is parked, because its model failed again and again, runs again once any of its jobs is asked "
        "for; --analysis asks for all of them.",
        examples="anode retry 17 18\nanode retry --study 1.2.840.113619.2.55.3\nanode retry --all\n"
        "anode retry --study 1.2.840.113619.2.55.3 --again\nanode retry --analysis lungs",
    )
    retry.add_argument("jobs", metavar="JOB", type=int, nargs="*", help="numbers, as 'anode jobs' shows them")
    retry.add_argument("--study", metavar="STUDY", help="all jobs of this study")
    retry.add_argument(
        "--kind", choices=KINDS, help="with --study, --analysis or --all: only jobs of this kind"
    )
    retry.add_argument("--analysis", metavar="NAME", help="all jobs of this analysis, which is unparked")
    retry.add_argument("--all", action="store_true", help="all jobs of all studies")
    retry.add_argument("--again", action="store_true", help="with --study: select and analyse again")


def state_shown(state: str) -> str:
    """Return what people say for a state of the queue."""
    return next((said for said, meant in STATES.items() if meant == state), state)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise WrongUsage("--limit expects a number of at least 1")
    from node.jobs import listing

    with records(configuration(arguments)) as opened:
        study = None if arguments.study is None else study_named(opened, arguments.study)
        with opened.database.read() as connection:
            found = listing.jobs(
                connection,
                study_instance_uid=study,
                state=STATES.get(arguments.state),
                kind=arguments.kind,
                limit=arguments.limit,
            )
            refused = _refusals(connection, found)
    if arguments.json:
        output.as_json([_for_programs(job, refused.get(job["id"], [])) for job in found])
        return 0
    now = time.time()
    rows = [
        [
            job["id"],
            job["kind"],
            state_shown(job["state"]),
            job["payload"].get("analysis") or job["lane"],
            output.short(job["study_instance_uid"]),
            job["attempts"],
            _when(job, now),
            f"{job['error_name']}: {job['error']}"
            if job["error_name"]
            else _told(refused.get(job["id"], [])),
        ]
        for job in found
    ]
    output.table(["JOB", "KIND", "STATE", "FOR", "STUDY", "TRIES", "WHEN", "LAST ERROR"], rows)
    if len(found) == arguments.limit:
        output.note(f"only the latest {arguments.limit} are shown; --limit shows more")
    return 0


def _refusals(
    connection: sqlite3.Connection, jobs: Sequence[Mapping[str, Any]]
) -> dict[int, list[dict[str, str]]]:
    """What a job that is done has refused, by its number: the series that it or its analysis cannot use."""
    from node import analysis_runs
    from node.explanation.analyses import REFUSALS

    runs: dict[str, list[dict[str, Any]]] = {}
    refused: dict[int, list[dict[str, str]]] = {}
    for job in jobs:
        payload, study = job["payload"], job["study_instance_uid"]
        if job["kind"] not in ("select", "analyze") or job["state"] != "done":
            continue
        if study not in runs:
            runs[study] = [
                run for run in analysis_runs.of_study(connection, study) if run["state"] in REFUSALS
            ]
        # A selection refuses where an input is missing, and then there is no job of the run.
        has_job = job["kind"] == "analyze"
        refused[job["id"]] = [
            {name: run[name] for name in ("series_instance_uid", "state", "reason")}
            for run in runs[study]
            if (run["analysis"], run["revision"]) == (payload.get("analysis"), payload.get("revision"))
            and run["series_instance_uid"] == payload.get("series_instance_uid", run["series_instance_uid"])
            and (run["started_at"] is not None) == has_job
        ]
    return refused


def _told(refused: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(dict.fromkeys(f"refused, {one['state']}: {one['reason']}" for one in refused))


def _retry(arguments: argparse.Namespace) -> int:
    ways = [bool(arguments.jobs), arguments.study is not None, arguments.analysis is not None, arguments.all]
    if sum(ways) > 1:
        names = ("numbers of jobs", "--study", "--analysis", "--all")
        given = " and ".join(name for name, is_given in zip(names, ways, strict=True) if is_given)
        raise WrongUsage(f"{given} were given: say only one of them")
    if sum(ways) != 1:
        raise WrongUsage("say which: numbers of jobs, or --study STUDY, or --analysis NAME, or --all")
    if arguments.jobs and arguments.kind:
        raise WrongUsage("--kind goes with --study, --analysis or --all")
    if arguments.again and (arguments.study is None or arguments.kind):
        raise WrongUsage("--again goes with --study alone")
    config = configuration(arguments)
    if arguments.again:
        return _again(config, arguments)
    with records(config) as opened:
        study = None if arguments.study is None else study_named(opened, arguments.study)
        if arguments.analysis is not None:
            _refuse_unknown_analysis(opened, arguments.analysis)
        requeued, left, unparked = _requeue(opened, arguments, study)
        if unparked and not is_running(config):
            _tell_of_parked(opened)
    if arguments.json:
        named = {} if study is None else {"study_instance_uid": study}
        told = {"jobs_to_be_done": requeued, "left_as_they_are": left, "unparked": unparked}
        output.as_json({**named, **told})
    else:
        of_study = "" if study is None else f"study {study}: "
        output.line(f"{of_study}{output.count(requeued, 'job')} will be done now")
        for name in unparked:
            output.line(f"analysis {output.plain(name)} is parked no more")
    for job_id in left:
        output.note(f"job {job_id} is neither set aside nor waiting: left as it is")
    if requeued and not is_running(config):
        output.note("the node is not running; they will be done when it is")
    if requeued and (stale := stale_configuration(config)):
        output.note(stale)
    return 1 if left else 0


def _again(config: Config, arguments: argparse.Namespace) -> int:
    with records(config) as opened:
        study = study_named(opened, arguments.study)
        now = opened.clock.timestamp()
        opened.database.write(lambda connection: opened.completion.select_again(connection, study, now))
    seconds = max((config.quiet_seconds(analysis) for analysis in config.analyses), default=0.0)
    stale = stale_configuration(config)
    if arguments.json:
        analyses_named = [one.name for one in config.analyses]
        output.as_json(
            {"study_instance_uid": study, "analyses": analyses_named, "configuration_changed": bool(stale)}
        )
    elif config.analyses:
        analyses = output.count(len(config.analyses), "analysis", "analyses")
        output.line(f"study {study}: {analyses} will be selected for again within {output.duration(seconds)}")
    if not config.analyses:
        output.note("no analysis is configured")
    elif not is_running(config):
        output.note("the node is not running; it will be done when it is")
    if stale:
        output.note(stale)
    return 0 if config.analyses else 1


def _tell_of_parked(opened: Records) -> None:
    """Keep the alarm true while no node runs that would."""
    from node import parking

    with opened.database.read() as connection:
        names = [analysis.name for analysis in opened.config.analyses]
        found = parking.configured(parking.parked(connection), names)
    parking.tell(opened.config.node.data_dir, found, opened.clock.timestamp(), of_anyone=True)


def _refuse_unknown_analysis(opened: Records, name: str) -> None:
    from node import parking
    from node.jobs import listing

    with opened.database.read() as connection:
        known = [one.name for one in opened.config.analyses] + list(parking.parked(connection))
        if name not in known:
            # One that was taken out may have left jobs.
            aside = listing.jobs(connection, state="set_aside", limit=_ALL)
            known += {str(job["payload"]["analysis"]) for job in aside if job["kind"] in _OF_ANALYSES}
    if name not in known:
        raise WrongUsage(f"there is no analysis '{name}'{suggestion(name, known)}")


def _requeue(
    opened: Records, arguments: argparse.Namespace, study: str | None
) -> tuple[int, list[int], list[str]]:
    """Return how many jobs were made due, the numbers of those that could not be, and what was unparked."""
    database = opened.database
    if not arguments.jobs:
        wanted = {"study_instance_uid": study, "kind": arguments.kind, "analysis": arguments.analysis}
        requeued, unparked = database.write(lambda connection: _make_due(opened, connection, **wanted))
        return len(requeued), [], unparked
    made_due: set[int] = set()
    left: list[int] = []
    of_all: list[str] = []
    for job_id in dict.fromkeys(arguments.jobs):
        requeued, unparked = database.write(partial(_make_due, opened, job_id=job_id))
        # One that was parked as well has come with one before it.
        if not requeued and job_id not in made_due:
            left.append(job_id)
        made_due.update(requeued)
        of_all += unparked
    return len(made_due), left, of_all


def _make_due(opened: Records, connection: sqlite3.Connection, **wanted: Any) -> tuple[list[int], list[str]]:
    """Requeue jobs, and unpark their analyses in the same transaction; return jobs and analyses."""
    from node import parking

    requeued = opened.queue.requeue(connection, **wanted)
    named = {job.analysis for job in requeued if job.kind == "analyze"} | {wanted.get("analysis")}
    unparked = [name for name in parking.parked(connection) if name in named]
    for name in unparked:
        parking.unpark(connection, name)
        # Those that were set aside only because it was parked wait for nothing any more.
        requeued += opened.queue.requeue(connection, analysis=name, error_name=AnalysisParked("").name)
    return [job.id for job in requeued], unparked


def _when(job: Mapping[str, Any], now: float) -> str:
    if job["state"] == "ready":
        return (
            f"next try in {output.duration(job['next_try_at'] - now)}" if job["next_try_at"] > now else "due"
        )
    if job["state"] == "leased":
        return "now"
    at = job["failed_at"] if job["state"] == "set_aside" else job["finished_at"]
    return output.moment(at)


def _for_programs(job: Mapping[str, Any], refused: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    # a job that was done once and is wanted again keeps the time in the queue
    finished_at = job["finished_at"] if job["state"] == "done" else None
    shown = {**job, "state": state_shown(job["state"]), "finished_at": finished_at}
    told = {name: output.iso(value) if name in _TIMES else value for name, value in shown.items()}
    return {**told, "refused": list(refused)}
