"""What a job that waits, runs or failed means for its study, and what to do about a failure."""

from __future__ import annotations

import shlex

from node.explanation.advice import ADVICE, PARKED, RETRY
from node.explanation.facts import Facts, Record, Row, State
from node.explanation.words import sentence


def of_job(facts: Facts, about: str, job: Record, meant: str, peer: str = "") -> Row:
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
    what = f"{sentence(job['error'])} {tries.capitalize()} so far."
    return advised(
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


def advised(
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
    """Explain what went wrong by ``reason``, and say what to do about it by ``cause``."""
    advice, command = ADVICE.get(cause, (sentence(action), RETRY))
    if state == "stopped" and cause != PARKED and analysis in facts.parked:
        reason = f"{sentence(reason)} The analysis {analysis} is parked since: none of its jobs is done."
        advice, command = ADVICE[PARKED]
    if state == "stopped" and cause in ("peer-unreachable", "association-aborted"):
        advice, command = "It is not tried any more. Once the peer answers, ask for another try.", RETRY
    return Row(
        about,
        state,
        cause,
        f"{sentence(reason)} {advice}".strip(),
        since=since,
        next_try=next_try,
        command=command.format(
            study=facts.study_instance_uid,
            peer=peer,
            analysis=shlex.quote(analysis),
            options=facts.command_options,
        ),
    )
