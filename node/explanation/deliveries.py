"""What was sent to whom, and which routes send nothing of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from node import confirmations
from node.analysis_runs import NO_MATCH
from node.config.settings import RouteConfig
from node.explanation.facts import Facts, Record, Row
from node.explanation.job_rows import of_job
from node.explanation.words import instances
from node.index.matching_rules import differs, wanted

IS_THE_SENDER = "is-the-sender"

_CONFIRMED = {
    confirmations.HELD: "confirmed by storage commitment",
    confirmations.NOT_OFFERED: "the peer offers no storage commitment",
    confirmations.REFUSED: "the peer says that it does not hold them",
}


def of_deliveries(facts: Facts) -> Iterator[Row]:
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
        many = instances(len(jobs))
        row = of_job(facts, f"{purpose} to {peer}", latest, f"{many} to be sent.", peer)
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


def of_idle_route(facts: Facts, number: int, route: RouteConfig) -> Iterator[Row]:
    """Say of a route that took no series which keyword differed, or that it leads back to the sender."""
    differences = [differs(route.when, header) for header in facts.series_headers if not header.get("is_own")]
    if differences and all(difference is not None for difference in differences):
        first = next(difference for difference in differences if difference is not None)
        keyword, pattern, actual = first
        about = f"route {number} to {', '.join(route.send_to)}"
        found = f"is '{actual}'" if actual else "is absent or empty"
        reason = f"No series matches: {keyword} {found}, the route wants {wanted(pattern)}."
        made_here = [header for header in facts.series_headers if header.get("is_own")]
        if any(differs(route.when, header) is None for header in made_here):
            reason += (
                " Routes never send what the node made itself: results go by the 'send_to' of their analysis "
                "alone."
            )
        yield Row(about, "idle", NO_MATCH, reason)
    elif differences:
        for peer in route.send_to:
            if peer in facts.senders:
                told = f"The route to {peer} does not return it to its sender."
                if len(facts.senders) > 1:
                    told = f"The route to {peer} does not return to it what it sent itself."
                yield Row(f"route {number} to {peer}", "idle", IS_THE_SENDER, told)
