"""What keeps instances of a study from being settled, confirmed, committed or given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from node.explanation.facts import Facts, Record, Row
from node.explanation.job_rows import of_job
from node.explanation.words import instances

DAMAGED = "damaged"

_NAMED_DAMAGED = 5


def of_storage(facts: Facts) -> Iterator[Row]:
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
            row = of_job(facts, about, jobs[0], "", jobs[0]["lane"])
            more = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
            yield replace(row, explanation=f"{row.explanation}{more}")
    if facts.damaged:
        some = "; ".join(f"{uid} ({problem})" for uid, problem in facts.damaged[:_NAMED_DAMAGED])
        more = " …" if len(facts.damaged) > _NAMED_DAMAGED else ""
        yield Row(
            "archive",
            "stopped",
            DAMAGED,
            f"{instances(len(facts.damaged))} of this study cannot be given back as received: {some}{more}. "
            "Send them again, as they were sent, in the same transfer syntax: that repairs them.",
            command=f"anode verify --study {facts.study_instance_uid}{facts.command_options}",
        )
    if facts.quarantined:
        many = instances(len(facts.quarantined))
        yield Row(
            "quarantine",
            "waiting",
            "conflicting-instance",
            f"{many} came under SOP Instance UIDs that are held with other content, and lie in quarantine.",
            since=min(row["received_at"] for row in facts.quarantined),
            command=f"anode studies {facts.study_instance_uid} --quarantine{facts.command_options}",
        )
