"""Settling by hand: the task, and the transcoder on bytes."""

from __future__ import annotations

import hashlib
import io
from typing import Any

from node.jobs.task import Done, Job, Outcome
from node.services import Services
from node.tasks.settle import SettleTask
from node.transcode import lossless


def settle(services: Services, *sop_instance_uids: str) -> list[Outcome]:
    """Run the task as the engine does, and apply what it says."""
    jobs = [
        Job(number, "settle", one, "", {"sop_instance_uid": one}, "1.2", 1, 0.0)
        for number, one in enumerate(sop_instance_uids)
    ]
    outcomes = []
    for _, outcome in run(services, *jobs):
        if isinstance(outcome, Done) and outcome.apply is not None:
            services.database.write(outcome.apply)
        outcomes.append(outcome)
    return outcomes


def run(services: Services, *jobs: Job) -> list[tuple[Job, Outcome]]:
    """Run the task, and end its processes."""
    task = SettleTask()
    try:
        return list(task.run(services, jobs))
    finally:
        task.cancel()


def settled(
    encoded: bytes, transfer_syntax_uid: str, *choices: str, **options: Any
) -> tuple[lossless.Settlement, bytes]:
    """Settle a data set with ``lossless.settle``; what came of it, and what is to be stored."""
    digest = hashlib.sha256(encoded).hexdigest()
    with lossless.settle(
        io.BytesIO(encoded), transfer_syntax_uid, choices, data_set_sha256=digest, **options
    ) as settlement:
        return settlement, b"".join(settlement.chunks())
