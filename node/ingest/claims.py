"""SOP Instance UIDs that somebody is taking in: one at a time each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

_LOOK_SECONDS = 1.0


class Claims:
    """The UIDs that are claimed now, by any thread."""

    def __init__(self) -> None:
        self._claimed: set[str] = set()
        self._condition = threading.Condition()

    def take(self, sop_instance_uid: str, *, check: Callable[[], None]) -> None:
        """Claim a UID once nobody else does; ``check`` may raise while that takes long."""
        with self._condition:
            while sop_instance_uid in self._claimed:
                if not self._condition.wait(_LOOK_SECONDS):
                    check()
            self._claimed.add(sop_instance_uid)

    def release(self, sop_instance_uids: Iterable[str]) -> None:
        """Give up claims."""
        with self._condition:
            self._claimed.difference_update(sop_instance_uids)
            self._condition.notify_all()
