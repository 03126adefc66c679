"""Prepares what will be sent next while something else is being sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from node.errors import AnodeError
from node.sending.memory import Budget
from node.transcode.codestreams import FAILURES
from node.transcode.side_by_side import CORES

#: So much, and so many, may wait for one socket.
_AHEAD_BYTES = 32 << 20
_MOST_AHEAD = 32

_Item = TypeVar("_Item")
_Ready = TypeVar("_Ready")


@dataclass
class _Entry(Generic[_Item, _Ready]):
    """An item whose turn comes soon; without ``future``, nothing has been done for it yet."""

    item: _Item
    future: Future[_Ready] | None = None
    taken_bytes: int = 0


class ReadAhead(Generic[_Item, _Ready]):
    """Gives what was made of each item, in order; others are made meanwhile.

    What is much work is done in threads of its own, as far as the budget allows; what is little, in the
    moments in which ``use_idle_time`` is called. The item that is asked for needs no budget. So a peer
    that reads slowly cannot make memory grow.

    Parameters
    ----------
    items
        What there will be to do.
    announce
        Called for each once its turn comes soon, so that the disk may begin; must not wait.
    prepare
        Makes it ready, in whichever thread. It should end soon once ``is_wanted`` is false.
    is_little_work
        Whether that is not worth another thread.
    bytes_of
        How much memory it takes, and holds.
    discard
        Called for each that was made and is not wanted any more.
    budget
        Shared with all others.
    """

    def __init__(
        self,
        items: Sequence[_Item],
        *,
        announce: Callable[[_Item], None],
        prepare: Callable[[_Item], _Ready],
        is_little_work: Callable[[_Item], bool],
        bytes_of: Callable[[_Item], int],
        discard: Callable[[_Ready], None],
        budget: Budget,
    ) -> None:
        self._items = iter(items)
        self._announce = announce
        self._prepare = prepare
        self._is_little_work = is_little_work
        self._bytes_of = bytes_of
        self._discard = discard
        self._budget = budget
        self._waiting: deque[_Entry[_Item, _Ready]] = deque()
        self._not_begun: deque[_Entry[_Item, _Ready]] = deque()  # those of them that are much work
        self._ahead_bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self.is_wanted = True

    def take(self) -> _Ready:
        """Return what was made of the next item, waiting for it; raises what ``prepare`` raised."""
        self._top_up()
        entry = self._waiting.popleft()
        if entry.future is None:
            return self._prepare(entry.item)
        try:
            return entry.future.result()
        finally:
            self._give_back(entry)

    def use_idle_time(self) -> None:
        """Make the next one ready, if that is little work."""
        if self._waiting and not (self._not_begun and self._not_begun[0] is self._waiting[0]):
            entry = self._waiting[0]
            if entry.future is None and self._take_budget(entry):
                entry.future = Future()
                try:
                    entry.future.set_result(self._prepare(entry.item))
                except (AnodeError, MemoryError, *FAILURES) as error:  # raised where the item is taken
                    entry.future.set_exception(error)

    def _top_up(self) -> None:
        """See what comes, and have it made meanwhile; a single one is made where it is taken."""
        while len(self._waiting) < _MOST_AHEAD:
            item = next(self._items, None)
            if item is None:
                break
            self._announce(item)
            entry: _Entry[_Item, _Ready] = _Entry(item)
            self._waiting.append(entry)
            if not self._is_little_work(item):
                self._not_begun.append(entry)
        if self._not_begun and len(self._waiting) == 1:
            self._not_begun.clear()
        while self._not_begun:
            entry = self._not_begun[0]
            if not self._take_budget(entry) and entry is not self._waiting[0]:
                return
            self._not_begun.popleft()
            try:
                entry.future = self._threads().submit(self._prepare, entry.item)
            except RuntimeError:  # no more threads: it is made where it is taken
                self._give_back(entry)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(CORES, "read-ahead")
        return self._pool

    def _take_budget(self, entry: _Entry[_Item, _Ready]) -> bool:
        needed = self._bytes_of(entry.item)
        if self._ahead_bytes + needed > _AHEAD_BYTES or not self._budget.take(needed):
            return False
        entry.taken_bytes = needed
        self._ahead_bytes += needed
        return True

    def _give_back(self, entry: _Entry[_Item, _Ready]) -> None:
        self._ahead_bytes -= entry.taken_bytes
        self._budget.give_back(entry.taken_bytes)
        entry.taken_bytes = 0

    def close(self) -> None:
        """Give up what is not wanted any more; a thread that is at work ends when that is done."""
        self.is_wanted = False
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        while self._waiting:
            entry = self._waiting.popleft()
            if entry.future is not None:
                entry.future.add_done_callback(partial(self._dispose, entry))

    def _dispose(self, entry: _Entry[_Item, _Ready], done: Future[_Ready]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._discard(done.result())
        self._give_back(entry)
