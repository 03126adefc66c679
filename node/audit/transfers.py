"""What was received is gathered, so that one message tells of all that an association brought of a study."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node.audit.message import Action, Outcome

if TYPE_CHECKING:
    from node.wire.association import Association

#: What waits for its association to end is told after such a pause, too.
QUIET_SECONDS = 60.0
#: So many are gathered at a time; the one that has waited longest is told before.
MOST = 1000
#: Of instances that failed, so many are named.
MOST_NAMED = 100
#: So many SOP classes are counted apart; the others together.
MOST_SOP_CLASSES = 100
OTHER_SOP_CLASSES = "others"
_UID_CHARACTERS = 64


@dataclass(frozen=True)
class Key:
    """What is told in one message. Without a study it is of instances whose study is not known."""

    association: int
    study_instance_uid: str
    action: Action
    outcome: Outcome = "0"
    failure: str = ""


@dataclass
class Gathered:
    """Instances that were received over one association; ``last_at`` in seconds since the epoch."""

    key: Key
    association: Association
    last_at: float
    sop_classes: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sop_class_uid: str, sop_instance_uid: str, at: float) -> None:
        """Count one; one that failed is named."""
        # of what was refused both are as the peer wrote them
        sop_class_uid = sop_class_uid[:_UID_CHARACTERS]
        if sop_class_uid not in self.sop_classes and len(self.sop_classes) >= MOST_SOP_CLASSES:
            sop_class_uid = OTHER_SOP_CLASSES
        self.sop_classes[sop_class_uid] += 1
        self.last_at = at
        if self.key.failure:
            named = self.failed.setdefault(sop_class_uid, [])
            if len(named) < MOST_NAMED:
                named.append(sop_instance_uid[:_UID_CHARACTERS])


class Receptions:
    """What was received and is not told yet. Any thread may call anything."""

    def __init__(self, tell: Callable[[Gathered], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Key, Gathered] = OrderedDict()

    def add(
        self, key: Key, association: Association, sop_class_uid: str, sop_instance_uid: str, at: float
    ) -> None:
        """Count one instance."""
        oldest = None
        with self._lock:
            gathered = self._waiting.get(key)
            if gathered is None:
                gathered = self._waiting[key] = Gathered(key, association, at)
                if len(self._waiting) > MOST:
                    _, oldest = self._waiting.popitem(last=False)
            gathered.add(sop_class_uid, sop_instance_uid, at)
        if oldest is not None:
            self._tell(oldest)

    def tell(self, now: float, *, all_of_them: bool = False) -> None:
        """Tell what is complete: its association is over, or pauses."""
        with self._lock:
            due = [
                gathered
                for gathered in self._waiting.values()
                if all_of_them
                or not gathered.association.is_established
                or now - gathered.last_at >= QUIET_SECONDS
            ]
            for gathered in due:
                del self._waiting[gathered.key]
        for gathered in due:
            self._tell(gathered)
