"""The audit trail (PS3.15 section A.5): who did what to whose images, written to a file and sent by syslog.

Whoever receives, sends, queries or refuses says so here and goes on at once: one thread makes the
messages, looks up the patients and writes. Nothing that happens to the trail holds up or fails what it
tells of; what cannot be written waits in memory, and raises an alarm.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from node import alarms
from node.audit import codes, events, syslog
from node.audit.files import FOLDER, AuditFiles
from node.audit.message import Action, AuditMessage, AuditObject, Participant, to_xml
from node.audit.sender import Sender
from node.audit.sending import OnTheWay
from node.audit.transfers import Gathered, Key, Receptions
from node.clock import Clock
from node.config.settings import AuditConfig, Config
from node.errors import AnodeError
from node.refusals import Refusal
from node.undecodable import UNDECODABLE

if TYPE_CHECKING:
    from node.index.index import StoredInstance
    from node.wire.association import Association, Request

logger = logging.getLogger(__name__)

Patient = tuple[str, str]
"""Patient ID and Patient's Name; empty where they are not known."""

NOT_WRITTEN, NOT_SENT = "audit-not-written", "audit-not-sent"
"""The alarms of the trail."""
#: So many messages wait in memory while the disk does not take them.
MOST_WAITING = 10_000
#: What is longer of an Identifier is cut off, so that what waits fits into memory.
MOST_IDENTIFIER_BYTES = 16 * 1024
_LOOK_SECONDS = 1.0
_SYNC_SECONDS = 5.0
_PRUNE_SECONDS = 3600.0
_Work = Callable[[], AuditMessage]


class AuditTrail:
    """The trail of one node; ``AuditTrail.off()`` is one that notes nothing.

    Any thread may call anything, and nothing raises.

    Parameters
    ----------
    config : Config
        The whole configuration.
    clock : Clock
        For the times.
    patient_of : callable
        Given a Study Instance UID, whose study it is; AnodeError where that cannot be found out.
    """

    def __init__(
        self, config: Config, clock: Clock, patient_of: Callable[[str], Patient], *, is_on: bool = True
    ) -> None:
        audit = config.audit
        self._is_on = is_on and audit.enabled
        self._config: AuditConfig = audit
        self._data_dir = config.node.data_dir
        self._ae_title = config.node.ae_title
        self._source_id = audit.source_id or config.node.ae_title
        self._clock = clock
        self._patient_of = patient_of
        self._lock = threading.Lock()
        self._waiting: deque[_Work] = deque()
        self._lost = 0  # and not told of
        self._lost_in_all = 0
        self._more = threading.Event()
        self._is_stopping = False
        self._receptions = Receptions(self._tell_reception)
        self._files = AuditFiles(
            self._data_dir / FOLDER, keep_bytes=audit.keep_bytes, keep_days=audit.keep_days
        )
        self._sender: Sender | None = None
        if audit.syslog is not None:
            connect = partial(syslog.connect, audit.syslog, audit.ca, config.node.tls)
            self._sender = Sender(self._files, connect, self._report_sending)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @classmethod
    def off(cls) -> AuditTrail:
        """A trail that notes nothing, for commands beside the node."""
        return cls(Config(), Clock(), lambda _: ("", ""), is_on=False)

    def start(self) -> None:
        """Begin to write; the first message says that the node started."""
        if not self._is_on:
            return
        if self._sender is not None:
            self._sender.start()
        self._put(partial(events.application_activity, self._ae_title, self._now(), is_start=True))
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, say that the node stops, and end; the associations are over by then."""
        if not self._is_on:
            return
        self._receptions.tell(self._now(), all_of_them=True)
        self._put(partial(events.application_activity, self._ae_title, self._now(), is_start=False))
        self._is_stopping = True
        self._more.set()
        self._thread.join()
        if self._sender is not None:
            self._sender.stop()

    # --- what happens ------------------------------------------------------------

    def received(
        self,
        association: Association,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        study_instance_uid: str,
        action: Action,
    ) -> None:
        """Note an instance that a peer stored here; ``action`` as ``events.instances_transferred``."""
        if self._is_on:
            key = Key(association.number, study_instance_uid, action)
            self._receptions.add(key, association, sop_class_uid, sop_instance_uid, self._now())

    def not_received(self, request: Request, failure: str, *, is_ours: bool) -> None:
        """Note a C-STORE that was refused; ``failure`` is the name of the error, and names no patient."""
        if self._is_on:
            association, command = request.association, request.command
            key = Key(association.number, "", "C", "8" if is_ours else "4", failure)
            self._receptions.add(
                key,
                association,
                str(command.get("AffectedSOPClassUID", "")),
                str(command.get("AffectedSOPInstanceUID", "")),
                self._now(),
            )

    def queried(self, request: Request, failure: str) -> None:
        """Note a query; ``failure`` is the name of the error that ended it, or empty."""
        if not self._is_on:
            return
        association = request.association
        participants = self._with_peer(association, peer_is_source=True, requestor=association)
        self._put(
            partial(
                events.query,
                participants,
                at=self._now(),
                sop_class_uid=request.context.abstract_syntax_uid,
                identifier=request.encoded_identifier[:MOST_IDENTIFIER_BYTES],
                transfer_syntax_uid=request.context.transfer_syntax_uid,
                failure=failure,
            )
        )

    def sending(
        self,
        association: Association,
        instances: Sequence[StoredInstance],
        requestor: Association | None,
    ) -> OnTheWay:
        """Note that instances are about to be sent; what is returned is told what becomes of each.

        ``requestor`` is the association whose C-MOVE or C-GET asked for it; None where we do by ourselves.
        """
        participants: Sequence[Participant] = ()
        if self._is_on:
            participants = self._with_peer(association, peer_is_source=False, requestor=requestor)
        return OnTheWay(participants, instances, self._tell_sending if self._is_on else None, self._now)

    def refused(self, refusal: Refusal, times: int) -> None:
        """Note what was refused, as ``node.refusals`` tells it: repeated ones together."""
        if not self._is_on or (refusal.kind == "context" and not refusal.reason.startswith("not allowed")):
            return
        is_node = refusal.kind in ("connection", "association")
        description = refusal.reason if times == 1 else f"{refusal.reason} ({times} times)"
        participants = [
            events.this_node(self._ae_title, None, is_requestor=False),
            events.other_node(refusal.calling_ae_title, refusal.peer_address, None, is_requestor=True),
        ]
        self._put(
            partial(
                events.security_alert,
                codes.NODE_AUTHENTICATION if is_node else codes.USE_OF_RESTRICTED_FUNCTION,
                participants,
                refusal.peer_address or refusal.calling_ae_title,
                at=self._now(),
                description=description,
            )
        )

    # --- making messages of it -----------------------------------------------------

    def _with_peer(
        self, association: Association, *, peer_is_source: bool, requestor: Association | None
    ) -> list[Participant]:
        """Who sends, who receives, and who asked for it where that is a third one."""
        title = association.called_ae_title if association.is_requestor else association.calling_ae_title
        peer = events.other_node(
            title,
            association.peer_address,
            codes.SOURCE if peer_is_source else codes.DESTINATION,
            is_requestor=requestor is association,
        )
        here = events.this_node(
            self._ae_title,
            codes.DESTINATION if peer_is_source else codes.SOURCE,
            is_requestor=requestor is None,
        )
        participants = [peer, here] if peer_is_source else [here, peer]
        if requestor is not None and requestor is not association:
            asked_by = requestor.calling_ae_title
            participants.append(events.other_node(asked_by, requestor.peer_address, None, is_requestor=True))
        return participants

    def _tell_reception(self, gathered: Gathered) -> None:
        self._put(partial(self._reception, gathered))

    def _reception(self, gathered: Gathered) -> AuditMessage:
        key, association = gathered.key, gathered.association
        if key.study_instance_uid:
            objects = self._objects(key.study_instance_uid, gathered.sop_classes)
        else:
            objects = [
                events.instances(uid, count, gathered.failed.get(uid, ()))
                for uid, count in sorted(gathered.sop_classes.items())
            ]
        return events.instances_transferred(
            self._with_peer(association, peer_is_source=True, requestor=association),
            objects,
            at=gathered.last_at,
            action=key.action,
            outcome=key.outcome,
            failure=key.failure,
        )

    def _tell_sending(self, tell: Callable[[Callable[..., list[AuditObject]]], AuditMessage]) -> None:
        self._put(partial(tell, self._objects))

    def _objects(self, study_instance_uid: str, sop_classes: dict[str, int]) -> list[AuditObject]:
        try:
            patient_id, name = self._patient_of(study_instance_uid)
        except AnodeError:
            patient_id = name = ""
        return [events.study(study_instance_uid, sop_classes), events.patient(patient_id, name)]

    # --- writing ---------------------------------------------------------------------

    def _put(self, work: _Work) -> None:
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                self._lost_in_all += 1
                return
            self._waiting.append(work)
        self._more.set()

    def _run(self) -> None:
        now = self._clock.monotonic()
        synced_at, pruned_at = now, now - _PRUNE_SECONDS
        unwritten: list[bytes] = []
        is_dirty = False
        while True:
            is_last = self._is_stopping
            self._more.clear()
            self._receptions.tell(self._now())
            unwritten += self._lines(MOST_WAITING - len(unwritten))
            now = self._clock.monotonic()
            try:
                if unwritten:
                    if self._files.append(unwritten):
                        pruned_at = now - _PRUNE_SECONDS  # peers say how fast files follow one another
                    unwritten, is_dirty = [], True
                    self._written()
                if is_dirty and now - synced_at >= _SYNC_SECONDS:
                    synced_at, is_dirty = now, False
                    self._files.sync()
                    self._written()
                if now - pruned_at >= _PRUNE_SECONDS:
                    self._prune()
                    pruned_at = now
            except OSError as error:
                self._not_written(error, len(unwritten))
            if is_last:
                break
            self._more.wait(_LOOK_SECONDS)
        try:
            self._files.close()
        except OSError as error:
            self._not_written(error, 0)

    def _lines(self, most: int) -> list[bytes]:
        """Write what waits as lines; of what was lost, a line says how much."""
        with self._lock:
            count = min(most, len(self._waiting))
            work = [self._waiting.popleft() for _ in range(count)]
            lost = self._lost if count else 0
            self._lost -= lost
        if lost:
            work.append(partial(self._recording_stopped, lost))
        lines = []
        for one in work:
            try:
                message = one()
                xml = to_xml(message, source_id=self._source_id, site_id=self._config.site_id)
                lines.append(syslog.line(xml, message.outcome, message.at))
            except UNDECODABLE as error:  # a fault of ours, or a value that nobody foresaw: the others go on
                logger.error("an audit message could not be made", extra={"error": type(error).__name__})
                with self._lock:
                    self._lost += 1
                    self._lost_in_all += 1
        return lines

    def _recording_stopped(self, lost: int) -> AuditMessage:
        return events.security_alert(
            codes.AUDIT_RECORDING_STOPPED,
            [events.this_node(self._ae_title, None, is_requestor=True)],
            self._ae_title,
            at=self._now(),
            description=f"{lost} audit messages could not be kept and are lost",
        )

    def _written(self) -> None:
        if not self._files.has_lost:
            alarms.clear_alarm(self._data_dir, NOT_WRITTEN)
        if self._sender is not None:
            self._sender.wake()

    def _not_written(self, error: OSError, waiting: int) -> None:
        told = f"the audit trail cannot be written: {error.strerror}; {waiting} messages wait in memory"
        if self._files.has_lost:
            told += ", the last ones written may be lost"
        lost = f", {self._lost_in_all} are lost" if self._lost_in_all else ""
        logger.error("audit trail not written", extra={"reason": error.strerror, "waiting": waiting})
        alarms.raise_alarm(self._data_dir, NOT_WRITTEN, told + lost, self._now())

    def _prune(self) -> None:
        removed = self._files.prune(self._now())
        if removed and self._sender is not None and self._sender.position.number <= removed[-1]:
            logger.error(
                "audit messages were removed before they could be sent", extra={"files": len(removed)}
            )
            told = "audit files were removed before they could be sent; see [audit] keep_bytes and keep_days"
            alarms.raise_alarm(self._data_dir, NOT_SENT, told, self._now())

    def _report_sending(self, problem: str) -> None:
        if not problem:
            alarms.clear_alarm(self._data_dir, NOT_SENT)
            return
        logger.warning("audit messages not sent", extra={"reason": problem})
        told = f"audit messages wait, for the syslog receiver takes none: {problem}"
        alarms.raise_alarm(self._data_dir, NOT_SENT, told, self._now())

    def _now(self) -> float:
        return self._clock.timestamp()
