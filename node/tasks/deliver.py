"""Sends instances to a peer, many on one association, and acts on each answer (PS3.4 annex B)."""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from typing import assert_never

from node import confirmations
from node.commitment import confirm_key
from node.config.settings import PeerConfig
from node.errors import (
    AnodeError,
    AssociationRejected,
    IntegrityFailure,
    NoAcceptedContext,
    PeerError,
    PeerRefused,
    StorageFailure,
    UnknownPeer,
    UnsupportedPixelData,
)
from node.index.index import StoredInstance
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.sending import shipping
from node.sending.contexts import Part
from node.sending.shipping import MOST_FAILURES_IN_A_ROW, Shipping
from node.services import Services
from node.status import (
    DUPLICATE_SOP_INSTANCE,
    SUCCESS,
    is_store_refused_for_good,
    is_store_warning,
)
from node.wire.association import Answer, Association

logger = logging.getLogger(__name__)

#: A confirmation is asked for so long after a delivery, so that one request covers all of a study.
CONFIRM_AFTER_SECONDS = 3.0


class DeliverTask:
    """Delivers the jobs of one lane: the instances that wait for one peer."""

    kind = "deliver"
    batch = 100

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job as soon as the peer has answered, so that a crash repeats one at most."""
        try:
            peer = services.peers.destination(jobs[0].lane)
        except UnknownPeer as error:
            yield from ((job, SetAside(error)) for job in jobs)
            return
        waiting: dict[str, list[Job]] = {}
        for job in jobs:
            waiting.setdefault(str(job.payload["sop_instance_uid"]), []).append(job)
        with services.database.read() as connection:
            found = {uid: services.index.get(connection, uid) for uid in waiting}
        for uid, stored in found.items():
            if stored is None:
                gone = StorageFailure("the instance is not held any more")
                yield from ((job, SetAside(gone)) for job in waiting[uid])
        instances = [stored for stored in found.values() if stored is not None]
        for shipment in shipping.shipments(services, instances, peer):
            yield from _Voyage(services, peer, shipment, waiting).run()


class _Voyage:
    """One shipment on its way to one peer, over a second association where the first breaks."""

    def __init__(
        self, services: Services, peer: PeerConfig, shipment: Part[StoredInstance], jobs: dict[str, list[Job]]
    ) -> None:
        self._services = services
        self._peer = peer
        self._contexts = shipment.contexts
        self._left = deque(shipment.instances)
        self._jobs = jobs
        self._failures = 0

    def run(self) -> Iterator[tuple[Job, Outcome]]:
        while self._left:
            try:
                with self._services.peers.connect(self._peer, self._contexts) as association:
                    yield from self._send_all(association)
            except AssociationRejected as error:
                yield from self._give_up(error, is_final=not error.transient)
            except PeerError as error:
                # No connection, or the release failed after everything was sent.
                yield from self._give_up(error, is_final=False)

    def _send_all(self, association: Association) -> Iterator[tuple[Job, Outcome]]:
        with Shipping(self._services, association, tuple(self._left)) as shipment:
            while self._left:
                stored = self._left.popleft()
                try:
                    answer = shipment.send_next()
                except (NoAcceptedContext, UnsupportedPixelData, IntegrityFailure) as error:
                    yield from self._all(stored, SetAside(error))
                except StorageFailure as error:
                    yield from self._all(stored, Retry(error))
                except PeerError as error:
                    # This instance may be what broke the association: it waits alone, others go on.
                    self._failures += 1
                    yield from self._all(stored, Retry(error))
                    if self._failures >= MOST_FAILURES_IN_A_ROW:
                        yield from self._give_up(error, is_final=False)
                    return
                else:
                    outcome = self._judge(answer)
                    is_full = isinstance(outcome, Retry)
                    self._failures = self._failures + 1 if is_full else 0
                    yield from self._all(stored, outcome)
                    if isinstance(outcome, Retry) and self._failures >= MOST_FAILURES_IN_A_ROW:
                        yield from self._give_up(outcome.error, is_final=False)

    def _give_up(self, error: AnodeError, *, is_final: bool) -> Iterator[tuple[Job, Outcome]]:
        left, self._left = self._left, deque()
        for stored in left:
            yield from self._all(stored, SetAside(error) if is_final else Retry(error, is_for_lane=True))

    def _all(self, stored: StoredInstance, outcome: Outcome) -> Iterator[tuple[Job, Outcome]]:
        """One instance may be in the lane twice: as forwarded, and asked for by a person."""
        for job in self._jobs[stored.sop_instance_uid]:
            match outcome:
                case Done():
                    yield job, self._delivered(job, stored)
                case Retry() | SetAside():
                    yield job, outcome
                case _:
                    assert_never(outcome)

    def _judge(self, answer: Answer) -> Outcome:
        """Status to outcome, as PS3.4 table B.2-1 and PS3.7 annex C mean them."""
        status = answer.status
        if status in (SUCCESS, DUPLICATE_SOP_INSTANCE):
            # 0111 after an answer that was lost: the peer holds it.
            return Done()
        if is_store_warning(status):
            logger.warning(
                "delivered with a warning", extra={"peer": self._peer.ae_title, "status": f"{status:04X}"}
            )
            return Done()
        shown = f"{self._peer.ae_title} answered with status {status:04X}"
        error = PeerRefused(
            f"{shown}: {answer.comment}" if answer.comment else shown, status=status, comment=answer.comment
        )
        return SetAside(error) if is_store_refused_for_good(status) else Retry(error)

    def _delivered(self, job: Job, stored: StoredInstance) -> Done:
        if job.payload.get("reason") != "result" or not self._peer.confirm_results:
            return Done()
        services, peer = self._services, self._peer

        def apply(connection: sqlite3.Connection) -> None:
            now = services.clock.timestamp()
            confirmations.want(
                connection,
                peer=peer.ae_title,
                sop_instance_uid=stored.sop_instance_uid,
                sop_class_uid=stored.sop_class_uid,
                study_instance_uid=stored.study_instance_uid,
                at=now,
            )
            services.queue.enqueue(
                connection,
                "confirm",
                key=confirm_key(peer.ae_title, stored.study_instance_uid),
                payload={"peer": peer.ae_title, "study_instance_uid": stored.study_instance_uid},
                lane=peer.ae_title,
                study_instance_uid=stored.study_instance_uid,
                not_before=now + CONFIRM_AFTER_SECONDS,
                again=True,
            )

        return Done(apply)
