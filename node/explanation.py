"""Why a study is where it is: from what the records hold to rows that a person can act on.

Nothing is read or changed here: ``explain`` is a function of `Facts`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from node import confirmations
from node.advice import ADVICE, AGAIN, PARKED, RETRY, UNPARK
from node.alarms import DISK_FULL, Alarm
from node.analysis_runs import COMPLETED, NO_MATCH, QUEUED, SUPERSEDED, UNCHANGED
from node.completion import WAITS_SINCE
from node.config.settings import AnalysisConfig, RouteConfig
from node.errors import (
    MalformedDataSet,
    NotAnImage,
    NotAVolume,
    UnfitInput,
    UnsupportedPixelData,
)
from node.found import listed_facts
from node.index.matching_rules import differs, wanted
from node.parking import Parked

State = Literal["done", "refused", "running", "waiting", "retrying", "stopped", "idle"]
"""``stopped`` needs a person; ``retrying`` failed and is tried again; ``waiting`` is as it should be.

``refused`` is a series that an analysis, or its model, cannot use: nothing is wrong with the node.

``idle`` is where nothing is to happen: an analysis or route that is not for this study, or came later.
"""

Record = Mapping[str, Any]

WAITING_FOR_QUIET = "waiting-for-quiet"
WAITING_FOR_ANALYSIS = "waiting-for-analysis"
NODE_STOPPED = "node-stopped"
CONFIG_CHANGED = "config-changed"
NOT_SELECTED = "not-selected"
IS_THE_SENDER = "is-the-sender"
DAMAGED = "damaged"
#: States of runs that say that the series is none for the analysis.
REFUSALS = frozenset(
    kind("").name for kind in (MalformedDataSet, NotAVolume, NotAnImage, UnfitInput, UnsupportedPixelData)
)


# rows that say nothing on how far the study has come
_NOT_ITS_WAY = ("node", "quarantine")
_NAMED_DAMAGED = 5
_SELECTED = "The series for it are being selected."


@dataclass(frozen=True)
class Row:
    """What became of one thing that should happen to a study.

    ``cause`` is a stable word: that of the error, or ``done``, ``waiting-for-quiet`` and their like.
    ``since`` and ``next_try`` are seconds since the epoch; ``next_try`` is None where none will come
    by itself. ``command`` is what to run, empty where there is nothing to do. ``found`` is what a run that
    came to a result has found: a name, and words.
    """

    about: str
    state: State
    cause: str
    explanation: str
    since: float | None = None
    next_try: float | None = None
    command: str = ""
    found: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What the records hold on one study; the dictionaries are those of their rooms.

    ``senders`` are the AE titles that sent instances of it, where there are routes;
    ``damaged`` has the SOP Instance UIDs of those found damaged, each with what was found;
    ``parked`` are the analyses that are parked, here or in other studies;
    ``stale_configuration`` says that the node runs with another configuration than this one.
    ``command_options`` is what commands need to find the same configuration (`` --config FILE``).
    """

    study_instance_uid: str
    now: float
    node_is_running: bool
    patients: int = 1
    analyses: Sequence[AnalysisConfig] = ()
    routes: Sequence[RouteConfig] = ()
    series_headers: Sequence[Mapping[str, Any]] = ()
    waiting: Sequence[Record] = ()
    runs: Sequence[Record] = ()
    jobs: Sequence[Record] = ()
    quarantined: Sequence[Record] = ()
    senders: frozenset[str] = frozenset()
    confirmations: Sequence[confirmations.Confirmation] = ()
    damaged: Sequence[tuple[str, str]] = ()
    parked: Mapping[str, Parked] = field(default_factory=dict)
    stale_configuration: str = ""
    alarms: Sequence[Alarm] = ()
    command_options: str = ""


def explain(facts: Facts) -> list[Row]:
    """Return the rows of a study: the node itself, its analyses, its deliveries, its storage."""
    rows = [*_node(facts)]
    for analysis in facts.analyses:
        rows += _analysis(facts, analysis)
    rows += _deliveries(facts)
    for number, route in enumerate(facts.routes, 1):
        rows += _idle_route(facts, number, route)
    rows += _storage(facts)
    return rows


def disk_full(alarms: Sequence[Alarm], command_options: str) -> Iterator[Row]:
    """Yield the row of a full disk, which also explains why a study is not here at all."""
    for alarm in alarms:
        if alarm.name == DISK_FULL:
            yield Row(
                "node",
                "stopped",
                DISK_FULL,
                f"{_sentence(alarm.message)} Instances are refused with status A700 until space is free; "
                "receiving then resumes by itself, and the sender has to send them again.",
                since=alarm.since,
                command=f"anode status{command_options}",
            )


def state_of(facts: Facts) -> str:
    """Say in one word how far a study has come.

    ``receiving``, ``complete`` (analyses are due or running), ``analysed`` (results are on their
    way), ``returned``, ``stored`` (nothing more was asked for), ``refused`` (by every analysis that saw a
    series), or ``stopped`` (a person has to look).
    """
    rows = [row for row in explain(facts) if row.about not in _NOT_ITS_WAY and row.state != "idle"]
    unfinished = [row for row in rows if row.state not in ("done", "refused")]
    if any(row.state == "stopped" for row in unfinished):
        return "stopped"
    if any(row.cause == WAITING_FOR_QUIET for row in unfinished):
        return "receiving"
    if any(row.about.startswith("analysis ") for row in unfinished):
        return "complete"
    has_results = any(run["state"] == COMPLETED for run in facts.runs)
    if any(" to " in row.about for row in unfinished):
        return "analysed" if has_results else "complete"
    if not has_results:
        return "refused" if any(row.state == "refused" for row in rows) else "stored"
    return "returned" if any(row.about.startswith("results to ") for row in rows) else "analysed"


def _node(facts: Facts) -> Iterator[Row]:
    yield from disk_full(facts.alarms, facts.command_options)
    unfinished = facts.waiting or any(job["state"] in ("ready", "leased") for job in facts.jobs)
    if not facts.node_is_running and unfinished:
        yield Row(
            "node",
            "stopped",
            NODE_STOPPED,
            "The node is not running; what waits is done when it runs.",
            command=f"anode run{facts.command_options}",
        )
    if facts.stale_configuration:
        yield Row("node", "stopped", CONFIG_CHANGED, f"{facts.stale_configuration}.")


def _analysis(facts: Facts, analysis: AnalysisConfig) -> Iterator[Row]:
    about = f"analysis {analysis.name}"
    for waiting in facts.waiting:
        if waiting["analysis"] == analysis.name:
            is_quiet = waiting["due_at"] <= facts.now
            wait = _turn if is_quiet and waiting["waits_for"] else _quiet
            yield wait(facts, about, waiting)
            return
    for job in _jobs(facts, "select", analysis.name):
        if job["state"] != "done":
            waits = WAITS_SINCE in job["payload"]
            told = "It waits until an earlier study of the patient has arrived." if waits else _SELECTED
            yield _job(facts, about, job, told)
            return
    shown = _latest_runs(facts, analysis.name)
    several = len(shown) > 1
    for run in shown:
        named = f"{about}, series {_short(run['series_instance_uid'])}" if several else about
        yield _run(facts, named, run)
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
        explanation += f" {is_parked} is parked: {_sentence(facts.parked[is_parked].reason)}"
        command = UNPARK.format(analysis=shlex.quote(is_parked), options=facts.command_options)
    return Row(about, "waiting", WAITING_FOR_ANALYSIS, explanation, since=waiting["due_at"], command=command)


def _run(facts: Facts, about: str, run: Record) -> Row:
    job = next(
        (
            job
            for job in _jobs(facts, "analyze", run["analysis"])
            if job["payload"].get("series_instance_uid") == run["series_instance_uid"]
            and job["payload"].get("revision") == run["revision"]
        ),
        None,
    )
    if job is not None and job["state"] != "done":
        return _job(facts, about, job, "It waits for its turn.")
    if run["state"] in (COMPLETED, UNCHANGED):
        return _completed(about, run)
    if run["state"] == QUEUED:
        return Row(about, "waiting", "queued", "It waits for its turn.", since=run["recorded_at"])
    state: State = "refused" if run["state"] in REFUSALS else "stopped"
    row = _advised(
        facts,
        about,
        "idle" if run["state"] == NO_MATCH else state,
        run["state"],
        run["reason"],
        since=run["recorded_at"],
    )
    earlier = _earlier_result(facts, run)
    return replace(row, explanation=f"{row.explanation} {earlier}") if earlier else row


def _completed(about: str, run: Record) -> Row:
    found: Mapping[str, Sequence[str]] = run["facts"]
    told = [_sentence(run["reason"])] if run["reason"] else []
    if run["state"] == COMPLETED:
        objects = len(run["result_sop_instance_uids"])
        told.insert(0, f"Completed: {objects} result object{'' if objects == 1 else 's'}.")
    if found:
        told.append(f"Found: {listed_facts(found)}.")
    return Row(about, "done", "done", " ".join(told), since=run["recorded_at"], found=found)


def _earlier_result(facts: Facts, run: Record) -> str:
    """Say that what an earlier run of the series left still stands where it was sent; empty without one."""
    same = ("analysis", "series_instance_uid")
    if not run["series_instance_uid"] or not any(
        one["state"] == COMPLETED and all(one[key] == run[key] for key in same) for one in facts.runs
    ):
        return ""
    return "The result of an earlier run of this series still stands where it was sent."


def _deliveries(facts: Facts) -> Iterator[Row]:
    """Gather deliveries that share peer, purpose and fate into one row each."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for job in facts.jobs:
        if job["kind"] == "deliver":
            purpose = {"result": "results", "move": "retrieved instances"}.get(
                str(job["payload"].get("reason")), "instances"
            )
            fate = "running" if job["state"] == "leased" and not job["error_name"] else job["state"]
            groups.setdefault((purpose, job["lane"], fate, job["error_name"]), []).append(job)
    for (purpose, peer, _, _), jobs in sorted(groups.items()):
        latest = max(jobs, key=lambda job: job["failed_at"] or job["finished_at"] or job["created_at"])
        many = _instances(len(jobs))
        row = _job(facts, f"{purpose} to {peer}", latest, f"{many} to be sent.", peer)
        if row.state == "done":
            confirmed = _confirmed(facts, peer, jobs) if purpose == "results" else ""
            told = f"Delivered: {many}{confirmed}."
            yield Row(row.about, "done", "done", told, since=latest["finished_at"])
        elif row.cause == latest["error_name"]:
            yield replace(
                row,
                explanation=f"{many}: {row.explanation}",
                # of a group that waits for one peer, what counts is since when it has been waiting
                since=min(
                    job["failed_at"] if job["state"] == "set_aside" else job["created_at"] for job in jobs
                ),
                next_try=min((job["next_try_at"] for job in jobs if job["next_try_at"]), default=None),
            )
        else:
            yield row


_CONFIRMED = {
    confirmations.HELD: "confirmed by storage commitment",
    confirmations.NOT_OFFERED: "the peer offers no storage commitment",
    confirmations.REFUSED: "the peer says that it does not hold them",
}


def _confirmed(facts: Facts, peer: str, jobs: Sequence[Record]) -> str:
    """Say what ``peer`` confirmed of the results that ``jobs`` delivered; empty when nothing was asked."""
    delivered = {job["payload"]["sop_instance_uid"] for job in jobs}
    counts: dict[str, int] = {}
    for one in facts.confirmations:
        if one.peer == peer and one.sop_instance_uid in delivered:
            told = _CONFIRMED.get(one.state, "confirmation pending")
            counts[told] = counts.get(told, 0) + 1
    if list(counts.values()) == [len(jobs)]:
        return f"; {next(iter(counts))}"
    return "".join(f"; of {count}: {told}" for told, count in sorted(counts.items()))


def _idle_route(facts: Facts, number: int, route: RouteConfig) -> Iterator[Row]:
    """Say of a route that took no series which keyword differed, or that it leads back to the sender."""
    differences = [differs(route.when, header) for header in facts.series_headers if not header.get("is_own")]
    if differences and all(difference is not None for difference in differences):
        first = next(difference for difference in differences if difference is not None)
        keyword, pattern, actual = first
        about = f"route {number} to {', '.join(route.send_to)}"
        found = f"is '{actual}'" if actual else "is absent or empty"
        reason = f"No series matches: {keyword} {found}, the route wants {wanted(pattern)}."
        yield Row(about, "idle", NO_MATCH, reason)
    elif differences:
        for peer in route.send_to:
            if peer in facts.senders:
                told = f"The route to {peer} does not return it to its sender."
                if len(facts.senders) > 1:
                    told = f"The route to {peer} does not return to it what it sent itself."
                yield Row(f"route {number} to {peer}", "idle", IS_THE_SENDER, told)


def _storage(facts: Facts) -> Iterator[Row]:
    """Say what keeps instances from being settled, confirmed or committed; nothing when all is well."""
    for kind, about in (
        ("settle", "storage"),
        ("confirm", "confirmation of results"),
        ("commit", "storage commitment"),
    ):
        troubled: dict[tuple[str, str], list[Record]] = {}
        for job in facts.jobs:
            if job["kind"] == kind and job["error_name"] and job["state"] != "done":
                troubled.setdefault((job["state"], job["error_name"]), []).append(job)
        for jobs in troubled.values():
            row = _job(facts, about, jobs[0], "", jobs[0]["lane"])
            more = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
            yield replace(row, explanation=f"{row.explanation}{more}")
    if facts.damaged:
        some = "; ".join(f"{uid} ({problem})" for uid, problem in facts.damaged[:_NAMED_DAMAGED])
        more = " …" if len(facts.damaged) > _NAMED_DAMAGED else ""
        yield Row(
            "archive",
            "stopped",
            DAMAGED,
            f"{_instances(len(facts.damaged))} of this study cannot be given back as received: {some}{more}. "
            "Send them again, as they were sent, in the same transfer syntax: that repairs them.",
            command=f"anode verify --study {facts.study_instance_uid}{facts.command_options}",
        )
    if facts.quarantined:
        many = _instances(len(facts.quarantined))
        yield Row(
            "quarantine",
            "waiting",
            "conflicting-instance",
            f"{many} came under SOP Instance UIDs that are held with other content, and lie in quarantine.",
            since=min(row["received_at"] for row in facts.quarantined),
            command=f"anode studies {facts.study_instance_uid} --quarantine{facts.command_options}",
        )


def _job(facts: Facts, about: str, job: Record, meant: str, peer: str = "") -> Row:
    """Explain one job; ``meant`` says what it will do when nothing has gone wrong so far."""
    state = job["state"]
    if state == "leased" and not facts.node_is_running:
        state = "ready"  # it was being done when the node was killed
    if state == "done":
        return Row(about, "done", "done", "Done.", since=job["finished_at"])
    if state == "leased" and not job["error_name"]:
        return Row(about, "running", "running", "It is being done now.", since=job["created_at"])
    if state == "ready" and not job["error_name"]:
        return Row(about, "waiting", "queued", meant, since=job["created_at"], next_try=job["next_try_at"])
    tries = f"{job['attempts']} tries" if job["attempts"] > 1 else "1 try"
    what = f"{_sentence(job['error'])} {tries.capitalize()} so far."
    return _advised(
        facts,
        about,
        "stopped" if state == "set_aside" else "retrying",
        job["error_name"],
        what,
        since=job["created_at"] if state != "set_aside" else job["failed_at"],
        next_try=facts.now if state == "leased" else job["next_try_at"],
        peer=peer,
        action=job["action"],
        analysis=str(job["payload"].get("analysis", "")),
    )


def _advised(
    facts: Facts,
    about: str,
    state: State,
    cause: str,
    reason: str,
    *,
    since: float | None,
    next_try: float | None = None,
    peer: str = "",
    action: str = "",
    analysis: str = "",
) -> Row:
    advice, command = ADVICE.get(cause, (_sentence(action), RETRY))
    if state == "stopped" and cause != PARKED and analysis in facts.parked:
        reason = f"{_sentence(reason)} The analysis {analysis} is parked since: none of its jobs is done."
        advice, command = ADVICE[PARKED]
    if state == "stopped" and cause in ("peer-unreachable", "association-aborted"):
        advice, command = "It is not tried any more. Once the peer answers, ask for another try.", RETRY
    return Row(
        about,
        state,
        cause,
        f"{_sentence(reason)} {advice}".strip(),
        since=since,
        next_try=next_try,
        command=command.format(
            study=facts.study_instance_uid,
            peer=peer,
            analysis=shlex.quote(analysis),
            options=facts.command_options,
        ),
    )


def _jobs(facts: Facts, kind: str, analysis: str) -> list[Record]:
    """Jobs of one kind for one analysis, the latest first."""
    jobs = [job for job in facts.jobs if job["kind"] == kind and job["payload"].get("analysis") == analysis]
    return sorted(jobs, key=lambda job: job["id"], reverse=True)


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def _short(uid: str) -> str:
    """Return the end of a UID, where UIDs differ."""
    return f"…{uid[-14:]}" if len(uid) > 15 else uid


def _sentence(text: str) -> str:
    """Return ``text`` as a sentence."""
    text = text.strip()
    if not text:
        return ""
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
