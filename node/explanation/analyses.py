"""Where each analysis of a study stands: what it waits for, and what came of each series."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from node.analysis_runs import COMPLETED, INCOMPLETE, NO_MATCH, QUEUED, SUPERSEDED, UNCHANGED
from node.completion import WAITS_SINCE
from node.config.settings import AnalysisConfig
from node.errors import MalformedDataSet, NotAnImage, NotAVolume, UnfitInput, UnsupportedPixelData
from node.explanation.advice import AGAIN, UNPARK
from node.explanation.facts import Facts, Record, Row, State, jobs_of
from node.explanation.job_rows import advised, of_job
from node.explanation.words import sentence
from node.found import listed_facts

WAITING_FOR_QUIET = "waiting-for-quiet"
WAITING_FOR_ANALYSIS = "waiting-for-analysis"
NOT_SELECTED = "not-selected"
NOT_CONFIGURED = "not-configured"
#: States of runs that say that the series is none for the analysis.
REFUSALS = frozenset(
    kind("").name for kind in (MalformedDataSet, NotAVolume, NotAnImage, UnfitInput, UnsupportedPixelData)
)

_TAKEN_OUT = "The analysis is not in the configuration any more"
#: States of runs that left results, or found those that stand as they are to be.
_WITH_RESULTS = frozenset({COMPLETED, INCOMPLETE, UNCHANGED})
#: Kinds of results that a person can look at, the likeliest first.
_PICTURES = ("sc", "image")
_SELECTED = "The series for it are being selected."


def of_analysis(facts: Facts, analysis: AnalysisConfig) -> Iterator[Row]:
    """Say what one analysis waits for, or what came of each series that it saw."""
    about = f"analysis {analysis.name}"
    for waiting in facts.waiting:
        if waiting["analysis"] == analysis.name:
            is_quiet = waiting["due_at"] <= facts.now
            wait = _turn if is_quiet and waiting["waits_for"] else _quiet
            yield wait(facts, about, waiting)
            return
    for job in jobs_of(facts, "select", analysis.name):
        if job["state"] != "done":
            waits = WAITS_SINCE in job["payload"]
            told = "It waits until an earlier study of the patient has arrived." if waits else _SELECTED
            yield of_job(facts, about, job, told)
            return
    shown = _latest_runs(facts, analysis.name)
    for run in shown:
        yield _run(facts, _about(run, of_several=len(shown) > 1), run)
    if not shown:
        yield Row(
            about,
            "idle",
            NOT_SELECTED,
            "No instance has come since this analysis was configured, but what was imported without "
            "analyses. If it is meant for this study, "
            + ("restart the node and select again." if facts.stale_configuration else "select again."),
            command=AGAIN.format(study=facts.study_instance_uid, options=facts.command_options),
        )


def of_taken_out(facts: Facts) -> Iterator[Row]:
    """Say what analyses left that are not in the configuration any more: results, and jobs set aside."""
    configured = {analysis.name for analysis in facts.analyses}
    left: dict[str, list[Record]] = {}
    for run in facts.runs:
        if run["state"] in _WITH_RESULTS:
            left.setdefault(run["analysis"], []).append(run)
    for analysis in sorted(left.keys() - configured):
        shown = _latest_runs(replace(facts, runs=left[analysis]), analysis)
        for run in shown:
            row = _completed(facts, _about(run, of_several=len(shown) > 1), run)
            yield replace(row, explanation=f"{row.explanation} {_TAKEN_OUT}.".lstrip())
    aside: dict[str, list[Record]] = {}
    for job in facts.jobs:
        if job["kind"] in ("select", "analyze") and job["state"] == "set_aside":
            aside.setdefault(str(job["payload"]["analysis"]), []).append(job)
    for analysis in sorted(aside.keys() - configured):
        yield _set_aside(facts, analysis, aside[analysis])


def _set_aside(facts: Facts, analysis: str, jobs: Sequence[Record]) -> Row:
    last = max(jobs, key=lambda job: job["failed_at"])
    many = "1 job of it is set aside" if len(jobs) == 1 else f"{len(jobs)} jobs of it are set aside, the last"
    return Row(
        f"analysis {analysis}",
        "stopped",
        NOT_CONFIGURED,
        f"{many}: {sentence(last['error'])} {_TAKEN_OUT}: a node that runs without it lets such jobs go "
        "once they are asked for.",
        since=last["failed_at"],
        command=UNPARK.format(analysis=shlex.quote(analysis), options=facts.command_options),
    )


def _about(run: Record, *, of_several: bool) -> str:
    about = f"analysis {run['analysis']}"
    return f"{about}, series {_short(run['series_instance_uid'])}" if of_several else about


def _latest_runs(facts: Facts, analysis: str) -> list[Record]:
    """Return the latest run of each series; that no series matched counts only while none did later."""
    latest: dict[str, Record] = {}
    for run in sorted(facts.runs, key=lambda run: int(run["revision"])):
        if run["analysis"] == analysis and run["state"] != SUPERSEDED:
            latest[run["series_instance_uid"]] = run
    newest = max((run["revision"] for run in latest.values()), default=0)
    return [run for series, run in latest.items() if series or run["revision"] == newest]


def _quiet(facts: Facts, about: str, waiting: Record) -> Row:
    left = waiting["due_at"] - facts.now
    quiet = f"{waiting['quiet_seconds']:g} s"
    explanation = (
        f"It starts when no new instance has come for {quiet}: {left:.0f} s are left."
        if left > 0
        else f"No new instance has come for {quiet}: it starts now."
    )
    return Row(
        about,
        "waiting",
        WAITING_FOR_QUIET,
        explanation,
        since=waiting["last_arrival"],
        next_try=waiting["due_at"],
        command=f"anode studies {facts.study_instance_uid}{facts.command_options}",
    )


def _turn(facts: Facts, about: str, waiting: Record) -> Row:
    """Explain an analysis that waits for others to be over."""
    names = [str(name) for name in waiting["waits_for"]]
    explanation = f"It starts when the analysis {' and the analysis '.join(names)} is over for this study."
    command = f"anode why {facts.study_instance_uid}{facts.command_options}"
    is_parked = next((name for name in names if name in facts.parked), None)
    if is_parked is not None:
        explanation += f" {is_parked} is parked: {sentence(facts.parked[is_parked].reason)}"
        command = UNPARK.format(analysis=shlex.quote(is_parked), options=facts.command_options)
    return Row(about, "waiting", WAITING_FOR_ANALYSIS, explanation, since=waiting["due_at"], command=command)


def _run(facts: Facts, about: str, run: Record) -> Row:
    job = next(
        (
            job
            for job in jobs_of(facts, "analyze", run["analysis"])
            if job["payload"].get("series_instance_uid") == run["series_instance_uid"]
            and job["payload"].get("revision") == run["revision"]
        ),
        None,
    )
    if job is not None and job["state"] != "done":
        return of_job(facts, about, job, "It waits for its turn.")
    if run["state"] in (COMPLETED, UNCHANGED):
        return _completed(facts, about, run)
    if run["state"] == QUEUED:
        return Row(about, "waiting", "queued", "It waits for its turn.", since=run["recorded_at"])
    if run["state"] == NO_MATCH:
        return Row(about, "idle", NO_MATCH, sentence(run["reason"]), since=run["recorded_at"])
    state: State = "refused" if run["state"] in REFUSALS else "stopped"
    row = advised(facts, about, state, run["state"], run["reason"], since=run["recorded_at"])
    earlier = _earlier_result(facts, run)
    return replace(row, explanation=f"{row.explanation} {earlier}") if earlier else row


def _completed(facts: Facts, about: str, run: Record) -> Row:
    found: Mapping[str, Sequence[str]] = run["facts"]
    told = [sentence(run["reason"])] if run["reason"] else []
    if run["state"] == COMPLETED:
        objects = len(run["result_sop_instance_uids"])
        told.insert(0, f"Completed: {objects} result object{'' if objects == 1 else 's'}.")
    if found:
        told.append(f"Found: {listed_facts(found)}.")
    results = _results(facts, run)
    return Row(
        about,
        "done",
        "done",
        " ".join(told),
        since=run["recorded_at"],
        found=found,
        model=run["model"],
        input_digest=run["input_digest"],
        results=results,
        picture=_picture(facts, results),
    )


def _results(facts: Facts, run: Record) -> Sequence[str]:
    """Return the result objects of a run, or where that found all unchanged, those that stand."""
    if run["state"] != UNCHANGED:
        return run["result_sop_instance_uids"]
    with_results = [one for one in facts.runs if one["state"] in (COMPLETED, INCOMPLETE) and _is_of(one, run)]
    latest = max(with_results, key=lambda one: int(one["revision"]), default=None)
    return () if latest is None else latest["result_sop_instance_uids"]


def _picture(facts: Facts, results: Sequence[str]) -> str:
    """Return the command that shows a picture among ``results``; empty where none is one."""
    for kind in _PICTURES:
        for uid in results:
            if facts.kinds_of_results.get(uid) == kind:
                return f"anode show {uid} -o picture.png{facts.command_options}"
    return ""


def _is_of(run: Record, other: Record) -> bool:
    """Whether both are runs of one analysis over one series."""
    return all(run[key] == other[key] for key in ("analysis", "series_instance_uid"))


def _earlier_result(facts: Facts, run: Record) -> str:
    """Say that what an earlier run of the series left still stands where it was sent; empty without one."""
    if not run["series_instance_uid"] or not any(
        one["state"] == COMPLETED and _is_of(one, run) for one in facts.runs
    ):
        return ""
    return "The result of an earlier run of this series still stands where it was sent."


def _short(uid: str) -> str:
    """Return the end of a UID, where UIDs differ."""
    return f"…{uid[-14:]}" if len(uid) > 15 else uid
