"""Instances that are being sent over one association, as the audit trail sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from node.audit import events
from node.audit.message import Action, AuditMessage, AuditObject, Outcome, Participant
from node.status import DUPLICATE_SOP_INSTANCE, SUCCESS, is_store_warning

if TYPE_CHECKING:
    from node.index.index import StoredInstance

Objects = Callable[[str, dict[str, int]], list[AuditObject]]
"""Given a Study Instance UID and how many instances of each SOP class: the study and its patient."""
Tell = Callable[[Callable[[Objects], AuditMessage]], None]

_HAD: Action = "R"
_HAD_NOT: Action = "C"


class OnTheWay:
    """Told what becomes of each instance; ``done`` tells it on, in one message for each study and outcome."""

    def __init__(
        self,
        participants: Sequence[Participant],
        instances: Sequence[StoredInstance],
        tell: Tell | None,
        now: Callable[[], float],
    ) -> None:
        self._participants = participants
        self._tell = tell
        self._now = now
        self._ended: dict[tuple[str, Action, Outcome, str], Counter[str]] = {}
        if tell is None:
            return
        studies: dict[str, Counter[str]] = {}
        for stored in instances:
            studies.setdefault(stored.study_instance_uid, Counter())[stored.sop_class_uid] += 1
        for study_instance_uid, sop_classes in studies.items():
            tell(partial(self._begin, study_instance_uid, sop_classes, now()))

    def answered(self, stored: StoredInstance, status: int) -> None:
        """Note the peer's answer to one instance."""
        if status == SUCCESS or is_store_warning(status):
            self._count(stored, _HAD_NOT, "0", "")
        elif status == DUPLICATE_SOP_INSTANCE:
            self._count(stored, _HAD, "0", "")
        else:
            self._count(stored, _HAD_NOT, "4", f"status {status:04X}")

    def failed(self, stored: StoredInstance, failure: str) -> None:
        """Note that one instance was not sent, or that nobody knows; ``failure`` names the error."""
        self._count(stored, _HAD_NOT, "8", failure)

    def done(self) -> None:
        """Tell what was sent."""
        if self._tell is None:
            return
        for (study_instance_uid, action, outcome, failure), sop_classes in self._ended.items():
            self._tell(
                partial(self._end, study_instance_uid, sop_classes, self._now(), action, outcome, failure)
            )

    def _count(self, stored: StoredInstance, action: Action, outcome: Outcome, failure: str) -> None:
        if self._tell is not None:
            key = (stored.study_instance_uid, action, outcome, failure)
            self._ended.setdefault(key, Counter())[stored.sop_class_uid] += 1

    def _begin(
        self, study_instance_uid: str, sop_classes: dict[str, int], at: float, objects: Objects
    ) -> AuditMessage:
        return events.begin_transferring(self._participants, objects(study_instance_uid, sop_classes), at=at)

    def _end(
        self,
        study_instance_uid: str,
        sop_classes: dict[str, int],
        at: float,
        action: Action,
        outcome: Outcome,
        failure: str,
        objects: Objects,
    ) -> AuditMessage:
        return events.instances_transferred(
            self._participants,
            objects(study_instance_uid, sop_classes),
            at=at,
            action=action,
            outcome=outcome,
            failure=failure,
        )
