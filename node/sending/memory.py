"""What sending may hold in memory, over all associations: made ahead of the sockets, and made before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from node.config.settings import Config

#: So much may wait for all sockets together. What a peer is being sent just now comes on top.
AHEAD_BYTES = 128 << 20
#: Larger data sets are not worth their room among those that were made.
LARGEST_MADE_BYTES = 32 << 20

_Maybe = TypeVar("_Maybe")


class Budget:
    """A number of bytes that many threads share; nobody ever waits for it."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._lock = threading.Lock()

    @property
    def left_bytes(self) -> int:
        """What can still be taken."""
        return self._left

    def take(self, count: int) -> bool:
        """Take ``count`` bytes, if so many are left; whoever takes gives them back."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._left += count


@dataclass(frozen=True)
class Made:
    """What a data set was made of, and as what: the digest and transfer syntax as received, and the other.

    The digest names every byte, and making is a function of them alone: so the key is exact.
    """

    data_set_sha256: str
    from_transfer_syntax_uid: str
    to_transfer_syntax_uid: str


class MadeDataSets:
    """Data sets that had to be decoded, kept for the next who asks; the one unused longest goes first.

    Parameters
    ----------
    limit_bytes : int
        All of them together are never longer.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[Made, bytes] = OrderedDict()
        self._being_made: dict[Made, threading.Event] = {}
        self._lock = threading.Lock()
        self.held_bytes = 0

    def get(self, key: Made, make: Callable[[], _Maybe]) -> bytes | _Maybe:
        """Return what ``key`` stands for; ``make`` it where it is not held.

        While one thread makes it, others that want the same wait for it. What ``make`` raises is raised
        here, and then the next one tries. Only what is bytes is kept.
        """
        while True:
            with self._lock:
                held = self._held.get(key)
                if held is not None:
                    self._held.move_to_end(key)
                    return held
                being_made = self._being_made.get(key)
                if being_made is None:
                    self._being_made[key] = threading.Event()
                    break
            being_made.wait()
        made: bytes | _Maybe | None = None
        try:
            made = make()
            return made
        finally:
            with self._lock:
                if isinstance(made, bytes):
                    self._keep(key, made)
                self._being_made.pop(key).set()

    def _keep(self, key: Made, made: bytes) -> None:
        if len(made) > min(LARGEST_MADE_BYTES, self._limit_bytes):
            return
        self._held[key] = made
        self.held_bytes += len(made)
        while self.held_bytes > self._limit_bytes:
            _, oldest = self._held.popitem(last=False)
            self.held_bytes -= len(oldest)


@dataclass(frozen=True)
class SendingMemory:
    """What all associations of a node share when they send."""

    ahead: Budget
    made: MadeDataSets

    @classmethod
    def of(cls, config: Config) -> Self:
        """As much as ``config`` allows."""
        return cls(Budget(AHEAD_BYTES), MadeDataSets(config.transcode.decoded_cache_bytes))
