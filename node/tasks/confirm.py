"""Storage Commitment as SCU: asks a peer whether it holds the results it was sent (PS3.4 annex J)."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence

from pydicom.uid import generate_uid

from node import confirmations
from node.commitment import (
    REQUEST_STORAGE_COMMITMENT,
    Reference,
    action_information,
    receive_report,
)
from node.config.settings import PeerConfig
from node.confirmations import Confirmation
from node.errors import AssociationRejected, ConfirmationMissing, PeerError, PeerRefused, UnknownPeer
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.services import Services
from node.status import (
    NO_SUCH_SOP_CLASS,
    NOT_AUTHORISED,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNISED_OPERATION,
    is_warning,
)
from node.wire.association import Answer, Request, Response
from node.wire.contexts import ProposedContext
from node.wire.scu import RequestedAssociation
from node.wire.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    UNCOMPRESSED,
)

logger = logging.getLogger(__name__)

#: How long the association of the request is kept open for the report.
REPORT_SECONDS = 5.0
#: A report that comes on an association of the peer's own is noticed within this time.
LOOK_SECONDS = 0.25
#: A peer that took a request and does not report is asked again after this time.
ASK_AGAIN_SECONDS = 900.0
#: A result that the peer says it does not hold is delivered once more; the second time a person looks.
MOST_FAILURES = 2

_NOT_OFFERED = (NO_SUCH_SOP_CLASS, SOP_CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION)


class ConfirmTask:
    """Has one peer confirm the results of one study."""

    kind = "confirm"
    batch = 1

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Ask for what was not asked yet, wait a moment for the report, and act on what it says."""
        for job in jobs:
            yield job, self._confirm(services, job)

    def _confirm(self, services: Services, job: Job) -> Outcome:
        ae_title, study_instance_uid = str(job.payload["peer"]), str(job.payload["study_instance_uid"])
        try:
            peer = services.peers.destination(ae_title)
        except UnknownPeer as error:
            return SetAside(error)
        now = services.clock.timestamp()
        items = _items(services, study_instance_uid, ae_title)
        to_ask = [item for item in items if _is_to_ask(item, job, now)]
        if to_ask:
            try:
                outcome = _Inquiry(services, peer, study_instance_uid, to_ask).run()
            except AssociationRejected as error:
                return Retry(error, is_for_lane=True) if error.transient else SetAside(error)
            except PeerError as error:
                return Retry(error, is_for_lane=True)
            if outcome is not None:
                return outcome
        return _conclude(services, job, _items(services, study_instance_uid, ae_title))


class _Inquiry:
    """One request for storage commitment."""

    def __init__(
        self, services: Services, peer: PeerConfig, study_instance_uid: str, items: Sequence[Confirmation]
    ) -> None:
        self._services = services
        self._peer = peer
        self._study_instance_uid = study_instance_uid
        self._items = items
        self._is_reported = False

    def run(self) -> Outcome | None:
        """Ask, and wait for a report on the same association; None when the peer took the request.

        Raises PeerError when the peer could not be asked; the results then count as not asked.
        """
        proposed = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, UNCOMPRESSED)
        handlers = {"N-EVENT-REPORT": self._receive}
        with self._services.peers.connect(self._peer, [proposed], handlers=handlers) as association:
            if association.context_for(STORAGE_COMMITMENT_PUSH_MODEL) is None:
                return Done(self._marking(confirmations.NOT_OFFERED))
            answer = self._ask(association)
            if answer.status == SUCCESS or is_warning(answer.status):
                self._wait(association)
                return None
        return self._refused(answer)

    def _ask(self, association: RequestedAssociation) -> Answer:
        # PS3.5 section B.2: a UID made from a random UUID
        transaction_uid = str(generate_uid(prefix=None))
        self._services.database.write(
            lambda connection: confirmations.ask(
                connection,
                peer=self._peer.ae_title,
                study_instance_uid=self._study_instance_uid,
                transaction_uid=transaction_uid,
                sop_instance_uids=[item.sop_instance_uid for item in self._items],
                at=self._services.clock.timestamp(),
            )
        )
        references = [Reference(item.sop_class_uid, item.sop_instance_uid) for item in self._items]
        try:
            return association.action(
                sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
                sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
                action_type_id=REQUEST_STORAGE_COMMITMENT,
                information=action_information(transaction_uid, references),
            )
        except PeerError:
            self._services.database.write(self._marking(confirmations.WANTED))
            raise

    def _wait(self, association: RequestedAssociation) -> None:
        try:
            deadline = time.monotonic() + REPORT_SECONDS
            while not self._is_answered() and time.monotonic() < deadline:
                association.serve(LOOK_SECONDS, until=lambda: self._is_reported)
        except PeerError as error:
            # The report may as well come on an association of the peer's own.
            logger.info("no report here", extra={"peer": self._peer.ae_title, "error": error.name})

    def _is_answered(self) -> bool:
        """Whether the report is in, here or on an association of the peer's own."""
        if self._is_reported:
            return True
        with self._services.database.read() as connection:
            said = confirmations.of_study(connection, self._study_instance_uid, self._peer.ae_title)
        return all(one.state != confirmations.ASKED for one in said)

    def _receive(self, request: Request) -> Iterator[Response]:
        yield receive_report(self._services, request)
        self._is_reported = True

    def _refused(self, answer: Answer) -> Outcome:
        if answer.status in _NOT_OFFERED:
            return Done(self._marking(confirmations.NOT_OFFERED))
        shown = f"{self._peer.ae_title} refused the storage commitment with status {answer.status:04X}"
        error = PeerRefused(
            f"{shown}: {answer.comment}" if answer.comment else shown,
            status=answer.status,
            comment=answer.comment,
        )
        marking = self._marking(confirmations.WANTED)
        return SetAside(error, marking) if answer.status == NOT_AUTHORISED else Retry(error, apply=marking)

    def _marking(self, state: str) -> Callable[[sqlite3.Connection], None]:
        def apply(connection: sqlite3.Connection) -> None:
            confirmations.mark(
                connection,
                peer=self._peer.ae_title,
                sop_instance_uids=[item.sop_instance_uid for item in self._items],
                state=state,
                at=self._services.clock.timestamp(),
            )

        return apply


def _items(services: Services, study_instance_uid: str, peer: str) -> list[Confirmation]:
    with services.database.read() as connection:
        return confirmations.of_study(connection, study_instance_uid, peer)


def _is_to_ask(item: Confirmation, job: Job, now: float) -> bool:
    match item.state:
        case confirmations.WANTED:
            return True
        case confirmations.ASKED:
            return item.changed_at <= now - ASK_AGAIN_SECONDS
        case confirmations.REFUSED:
            # A person has asked for another try since.
            return item.failures >= MOST_FAILURES and item.changed_at < job.since
        case _:
            return False


def _conclude(services: Services, job: Job, items: Sequence[Confirmation]) -> Outcome:
    """Act on what the peer has said so far."""
    refused = [item for item in items if item.state == confirmations.REFUSED]
    lost = [item for item in refused if item.failures >= MOST_FAILURES]
    again = [item for item in refused if item.failures < MOST_FAILURES]

    def redeliver(connection: sqlite3.Connection) -> None:
        confirmations.mark(
            connection,
            peer=str(job.payload["peer"]),
            sop_instance_uids=[item.sop_instance_uid for item in again],
            state=confirmations.SENT_AGAIN,
            at=services.clock.timestamp(),
        )
        for item in again:
            services.queue.enqueue(
                connection,
                "deliver",
                key=f"{item.peer}/{item.sop_instance_uid}/result",
                payload={
                    "sop_instance_uid": item.sop_instance_uid,
                    "peer": item.peer,
                    "reason": "result",
                },
                lane=item.peer,
                study_instance_uid=item.study_instance_uid,
                again=True,
            )

    waiting = [item for item in items if item.state in (confirmations.WANTED, confirmations.ASKED)]
    peer = str(job.payload["peer"])
    if waiting:
        return Retry(
            ConfirmationMissing(f"{peer} has not reported yet whether it holds {_counted(waiting)}"),
            apply=redeliver,
        )
    if lost:
        reason = lost[0].failure_reason or 0
        error = ConfirmationMissing(
            f"{peer} says that it does not hold {_counted(lost)}, also after a second delivery:"
            f" Failure Reason {reason:04X}",
            action="find out at the peer what became of them, then run 'anode retry'",
        )
        return SetAside(error, redeliver)
    return Done(redeliver)


def _counted(items: Sequence[Confirmation]) -> str:
    return "1 result" if len(items) == 1 else f"{len(items)} results"
