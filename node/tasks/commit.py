"""Storage Commitment as SCP: re-reads what a peer asked for, and reports to it (PS3.4 annex J)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from node.commitment import Reference, Report, event_information
from node.errors import (
    AssociationRejected,
    NoAcceptedContext,
    PeerError,
    PeerRefused,
    PeerUnreachable,
    UnknownPeer,
)
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.services import Services
from node.status import (
    COMMIT_CLASS_INSTANCE_CONFLICT,
    COMMIT_NO_SUCH_INSTANCE,
    COMMIT_PROCESSING_FAILURE,
    SUCCESS,
    is_warning,
)
from node.verification import verify
from node.wire.association import Answer, Association
from node.wire.contexts import ProposedContext
from node.wire.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    UNCOMPRESSED,
)

logger = logging.getLogger(__name__)

# Between two looks at whether an association ended before it did what was posted to it.
_LOOK_SECONDS = 0.1


class CommitTask:
    """Answers requests for storage commitment, each with one N-EVENT-REPORT."""

    kind = "commit"
    batch = 1

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Re-read, then report: on the association of the request while it is open, else on a new one."""
        for job in jobs:
            report = examine(services, job)
            logger.info(
                "storage commitment examined",
                extra={"peer": job.payload["peer"], "held": len(report.held), "failed": len(report.failed)},
            )
            yield job, self._report(services, job, report)

    def _report(self, services: Services, job: Job, report: Report) -> Outcome:
        ae_title = str(job.payload["peer"])
        try:
            answer = _report_on_same(services, int(job.payload["association"]), ae_title, report)
            if answer is None:
                answer = _report_on_new(services, ae_title, report)
        except (UnknownPeer, NoAcceptedContext) as error:
            return SetAside(error)
        except AssociationRejected as error:
            return Retry(error, is_for_lane=True) if error.transient else SetAside(error)
        except PeerError as error:
            return Retry(error, is_for_lane=True)
        if answer.status == SUCCESS or is_warning(answer.status):
            return Done()
        shown = f"{ae_title} answered the storage commitment report with status {answer.status:04X}"
        return Retry(
            PeerRefused(
                f"{shown}: {answer.comment}" if answer.comment else shown,
                status=answer.status,
                comment=answer.comment,
            )
        )


def examine(services: Services, job: Job) -> Report:
    """Re-read every instance that a commit job names; its digest has to be that of what was received."""
    held: list[Reference] = []
    failed: dict[Reference, int] = {}
    for sop_class_uid, sop_instance_uid in job.payload["items"]:
        reference = Reference(sop_class_uid, sop_instance_uid)
        with services.database.read() as connection:
            stored = services.index.get(connection, sop_instance_uid)
        if stored is None:
            failed[reference] = COMMIT_NO_SUCH_INSTANCE
        elif stored.sop_class_uid != sop_class_uid:
            failed[reference] = COMMIT_CLASS_INSTANCE_CONFLICT
        elif problem := verify(services, stored):
            logger.error("stored instance is damaged", extra={"job": job.id, "problem": problem})
            failed[reference] = COMMIT_PROCESSING_FAILURE
        else:
            held.append(reference)
    return Report(str(job.payload["transaction_uid"]), tuple(held), failed)


def _report_on_same(services: Services, number: int, ae_title: str, report: Report) -> Answer | None:
    """Report in the thread of the association of the request; None when it is closed meanwhile.

    Raises PeerUnreachable when it is open and the peer does not let us, or does not answer: another peer
    must not wait for that.
    """
    association = services.peers.open_association(number)
    # Numbers begin anew with each start of the node, so the number alone proves nothing.
    if association is None or association.calling_ae_title != ae_title:
        return None
    answers: list[Answer] = []
    has_ended = threading.Event()
    is_given_up = threading.Event()

    def work(posted_to: Association) -> None:
        try:
            if not is_given_up.is_set():
                answers.append(_send(posted_to, report))
        except PeerError as error:
            logger.info("same association not usable", extra={"peer": ae_title, "error": error.name})
        finally:
            has_ended.set()

    if not association.post(work):
        return None
    give_up_at = time.monotonic() + services.config.limits.network_timeout_seconds
    while association.is_established and not has_ended.wait(_LOOK_SECONDS):
        if time.monotonic() > give_up_at:
            is_given_up.set()
            raise PeerUnreachable(f"{ae_title} does not take the report, and keeps its association open")
    is_given_up.set()
    return answers[0] if answers else None


def _report_on_new(services: Services, ae_title: str, report: Report) -> Answer:
    """Report on an association of our own, in which we are the SCP (PS3.4 section J.3.3.1.2)."""
    try:
        peer = services.peers.destination(ae_title)
    except UnknownPeer as error:
        why = f"{ae_title} has ended its association, and {error}"
        raise UnknownPeer(why, action=error.action) from error
    proposed = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, UNCOMPRESSED, scp_role=True)
    with services.peers.connect(peer, [proposed]) as association:
        return _send(association, report)


def _send(association: Association, report: Report) -> Answer:
    return association.event_report(
        sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        event_type_id=report.event_type_id,
        information=event_information(report),
    )
