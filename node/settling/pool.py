"""The settling processes: started when there is work, replaced when they die, ended with the node.

Encoding and proving take the processor for long, and hold what a process shares: the interpreter's
lock, memory, the fate of a faulty codec. So they are done in processes of their own, at low priority,
while the node receives.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from node import forked, subordinate
from node.config.settings import StorageConfig
from node.errors import AnodeError, NodeError, StorageFailure, UnexpectedFailure
from node.settling import child
from node.settling.order import WORKED, Order, Settled, decode_answers, encode_orders
from node.storage import unfinished
from node.storage.tenure import Tenure

logger = logging.getLogger(__name__)

#: How far settling stands back; the node's own priority is 0.
NICENESS = 19
#: An instance that ends so many processes is kept as it was received.
MOST_CRASHES = 2
#: So often in a row a process may end for reasons outside before the instance waits for its next try.
_MOST_ENDS = 3
#: Of the time that an instance may take by the clock, the part that it may take of a processor.
_LEAST_SHARE_OF_PROCESSOR = 0.05

forked.preload(child.__name__)


class SettlingStopped(Exception):
    """The node stops; what was not answered is to be settled after the next start."""


class Settlers:
    """The settling processes of one data directory.

    Parameters
    ----------
    data_dir : Path
        The data directory.
    config : StorageConfig
        Of the running node.
    tenure : Tenure or None
        Its right to write, where it has one.
    """

    def __init__(self, data_dir: Path, config: StorageConfig, tenure: Tenure | None = None) -> None:
        self._tenure = tenure
        self._data_dir = str(data_dir.absolute())
        self._config = config
        self._lock = threading.Lock()
        self._all: set[_Settler] = set()
        self._idle: list[_Settler] = []
        self._is_stopped = False

    def settle(
        self, orders: Sequence[Order], *, niceness: int = NICENESS
    ) -> Iterator[tuple[Order, Settled | AnodeError]]:
        """Settle instances in one process; yield what became of each.

        A process that dies is replaced, and what it had not answered is settled again. An instance that kills
        ``MOST_CRASHES`` processes is kept as received, with the reason.

        Raises
        ------
        SettlingStopped
            ``stop`` was called.
        """
        left = list(orders)
        crashes: Counter[str] = Counter()
        ends = 0
        while left:
            settler = self._take(niceness)
            is_given_back = False
            try:
                for answer in settler.answers(left):
                    ends = 0
                    yield left.pop(0), answer
                if not left:
                    is_given_back = self._give_back(settler)
                    return
            finally:
                # One that was given back may be at work for another thread by now.
                if not is_given_back:
                    self._end(settler)
            if self._is_stopped:
                raise SettlingStopped
            logger.error("settling process ended", extra={"reason": settler.end_reason})
            failed = None
            if settler.is_crashed and settler.in_work is not None:
                order = settler.in_work
                crashes[order.sop_instance_uid] += 1
                count = crashes[order.sop_instance_uid]
                if count == MOST_CRASHES and not order.keep_reason:
                    reason = f"settling it ended {count} processes: {settler.end_reason}"
                    left[left.index(order)] = replace(order, keep_reason=reason)
                elif count > MOST_CRASHES:
                    failed = order
            else:
                ends += 1
                if ends >= _MOST_ENDS:
                    failed = left[0]
            if failed is not None:
                ends = 0
                left.remove(failed)
                yield failed, StorageFailure(f"the settling process ended: {settler.end_reason}")

    def stop(self) -> None:
        """End all processes, in the middle of their work too; ``settle`` raises SettlingStopped then."""
        with self._lock:
            self._is_stopped = True
            settlers = list(self._all)
            idle, self._idle = self._idle, []
        for settler in settlers:
            settler.process.tell_to_end()
        for settler in settlers:
            settler.process.end()
        for settler in idle:
            self._end(settler)

    def _take(self, niceness: int) -> _Settler:
        with self._lock:
            if self._is_stopped:
                raise SettlingStopped
            unfit = [settler for settler in self._idle if settler.niceness != niceness]
            self._idle = [settler for settler in self._idle if settler.niceness == niceness]
            settler = self._idle.pop() if self._idle else None
        for other in unfit:
            self._end(other)
        if settler is None:
            settler = _Settler(self._data_dir, self._config, niceness, self._tenure)
            with self._lock:
                self._all.add(settler)
                is_stopped = self._is_stopped
            if is_stopped:
                self._end(settler)
                raise SettlingStopped
        return settler

    def _give_back(self, settler: _Settler) -> bool:
        """Keep a process for later; False when nothing is kept any more."""
        with self._lock:
            if not self._is_stopped:
                self._idle.append(settler)
            return not self._is_stopped

    def _end(self, settler: _Settler) -> None:
        with self._lock:
            self._all.discard(settler)
        settler.process.end()
        settler.process.connection.close()  # only by the thread that uses it, once it has ended
        self._tidy_up(settler.process.process_id)

    def _tidy_up(self, process_id: int) -> None:
        """Remove the files that a process which has ended could not."""
        turn = contextlib.nullcontext() if self._tenure is None else self._tenure.writing("archive")
        # Where another node has the folder by now, it did that when it started.
        with contextlib.suppress(NodeError, OSError), turn:
            unfinished.remove(Path(self._data_dir) / "archive", process_id)


class _Settler:
    """One settling process, as the node sees it."""

    def __init__(self, data_dir: str, config: StorageConfig, niceness: int, tenure: Tenure | None) -> None:
        self.niceness = niceness
        self.end_reason = ""
        self.is_crashed = False
        self.in_work: Order | None = None
        self.process = forked.Forked("settles", child.main, data_dir, config, niceness, tenure)
        self._message = select.poll()
        self._message.register(self.process.connection, select.POLLIN)

    def answers(self, orders: Sequence[Order]) -> Iterator[Settled | AnodeError]:
        """Yield the answer to each order; fewer when the process dies or hangs.

        ``in_work`` is the order in the codec then, None where it was none of them.
        """
        work = deque(orders)
        missing = len(work)
        try:
            self.in_work = work[0]
            self.process.connection.send_bytes(encode_orders(orders))
            while missing:
                data_set_bytes = 0 if self.in_work is None else self.in_work.data_set_bytes
                seconds = subordinate.cpu_seconds(data_set_bytes) / _LEAST_SHARE_OF_PROCESSOR
                if not self._message.poll(1000 * seconds):
                    raise TimeoutError
                message = self.process.connection.recv_bytes()
                if message == WORKED:
                    work.popleft()
                    self.in_work = work[0] if work else None
                    continue
                for answer in decode_answers(message):
                    if isinstance(answer.outcome, UnexpectedFailure):
                        logger.error("task failed", extra={"kind": "settle", "frames": answer.frames})
                    missing -= 1
                    yield answer.outcome
        except (EOFError, OSError) as error:
            self._explain(error)

    def _explain(self, error: Exception) -> None:
        """Find out why there was no answer."""
        if isinstance(error, TimeoutError):
            self.process.kill()
            self.end_reason, self.is_crashed = "it took too long", True
            return
        ending = self.process.ending()
        self.end_reason = ending.reason
        # Who tells it to end has nothing against its instance.
        self.is_crashed = ending.signal not in (0, signal.SIGTERM)
