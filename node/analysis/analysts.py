"""The processes that make the ends of runs: started when there is work, replaced when they die.

A model runs in a process of its own (``node/processes``). What stands before and behind it, a series read
and decoded, findings made into objects, is done by an *analyst*, so that the node's process has nothing to
do with an analysis but to wait.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from node import forked
from node.analysis import child
from node.analysis.messages import Conclude, Forget, Message, Prepare, as_error
from node.analysis.order import Order
from node.config.settings import Config
from node.errors import ProcessDied, ResultInvalid, UnexpectedFailure
from node.index.index import StoredInstance
from node.processes.job_folder import JobFolder
from node.processes.workers import RunStopped
from node.results.facts import PredecessorReference, ResultObject

logger = logging.getLogger(__name__)

#: After so many runs another process begins: libraries leave a little behind.
_MOST_RUNS = 200
#: One that nobody has used for so long ends; so do the processes of models.
_MOST_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Chosen:
    """What an analysis is to see: the instances of each input, and the digest of all of them.

    ``look_again`` is asked with an instance that cannot be read, and the problem: it gives the instance as
    it is now, or None when that is no other.
    """

    instances: Mapping[str, Sequence[StoredInstance]]
    digest: str
    look_again: Callable[[StoredInstance, str], StoredInstance | None]
    predecessor: PredecessorReference | None = None


@dataclass(frozen=True)
class Reported:
    """What came of a run: the result objects, and what ``when`` of later analyses can ask for."""

    facts: dict[str, tuple[str, ...]]
    objects: list[ResultObject]


class Analysts:
    """Lends analysts, each to one run at a time; of the running node's data directory."""

    def __init__(self, config: Config, *, most_idle_seconds: float = _MOST_IDLE_SECONDS) -> None:
        self._config = config
        self._most_idle_seconds = most_idle_seconds
        self._lock = threading.Lock()
        self._all: set[_Analyst] = set()
        # With the time since when, the longest first.
        self._idle: list[tuple[float, _Analyst]] = []
        self._is_stopped = False

    @contextmanager
    def making(self, order: Order, chosen: Chosen) -> Iterator[RemoteMaking]:
        """Lend an analyst as the maker of one run.

        Raises
        ------
        StorageFailure
            no process can be started
        RunStopped
            ``stop`` was called
        """
        analyst = self._take()
        making = RemoteMaking(self, analyst, order, chosen)
        try:
            yield making
        finally:
            with suppress(ProcessDied, RunStopped):
                making.forget()
            if not self._give_back(analyst):
                self._end(analyst)

    def stop(self) -> None:
        """End all of them, in the middle of their work too; who waits for one is told by RunStopped."""
        with self._lock:
            self._is_stopped = True
            analysts, idle = list(self._all), self._idle
            self._idle = []
        for analyst in analysts:
            analyst.process.tell_to_end()
        for _, analyst in idle:
            self._end(analyst)

    def end_idle(self) -> None:
        """End those that nobody has used for long."""
        limit = time.monotonic() - self._most_idle_seconds
        with self._lock:
            ended = [one for one in self._idle if one[0] <= limit]
            self._idle = [one for one in self._idle if one[0] > limit]
        for _, analyst in ended:
            self._end(analyst)

    def resume(self) -> None:
        """Lend analysts again after a ``stop``."""
        with self._lock:
            self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._is_stopped

    def _take(self) -> _Analyst:
        with self._lock:
            if self._is_stopped:
                raise RunStopped
            if self._idle:
                return self._idle.pop()[1]
        analyst = _Analyst(self._config)
        with self._lock:
            self._all.add(analyst)
            is_stopped = self._is_stopped
        if is_stopped:
            self._end(analyst)
            raise RunStopped
        return analyst

    def _give_back(self, analyst: _Analyst) -> bool:
        """Keep an analyst for the next run; False when it is to end."""
        with self._lock:
            is_kept = not self._is_stopped and analyst.is_at_rest and analyst.runs < _MOST_RUNS
            if is_kept:
                self._idle.append((time.monotonic(), analyst))
            return is_kept

    def _end(self, analyst: _Analyst) -> None:
        with self._lock:
            self._all.discard(analyst)
        analyst.process.end()
        analyst.process.connection.close()


class RemoteMaking:
    """Both ends of one run, made by an analyst; as ``making.Making``."""

    def __init__(self, analysts: Analysts, analyst: _Analyst, order: Order, chosen: Chosen) -> None:
        self._analysts = analysts
        self._analyst = analyst
        self._order = order
        self._chosen = chosen
        self._is_held = False

    def prepare(self, folder: JobFolder) -> None:
        """Have the job written; as ``Making.prepare``, and raises ProcessDied and RunStopped too."""
        chosen = self._chosen
        self._is_held = True
        self._ask(
            Prepare(
                self._order,
                chosen.instances,
                chosen.digest,
                chosen.predecessor,
                folder.path,
                folder.results,
            )
        )

    def conclude(self, folder: JobFolder) -> Reported:
        """Have the result objects made; as ``Making.conclude``, and raises ProcessDied and RunStopped too."""
        del folder  # it was told when the job was prepared
        self._is_held = False
        try:
            answer, parts = self._ask(Conclude())
        except ProcessDied:
            if self._analyst.ended_by == signal.SIGXCPU:
                name = self._order.description.card.name
                raise ResultInvalid(f"the findings of {name} take too long to be made into objects") from None
            raise
        facts = {name: tuple(words) for name, words in answer["facts"].items()}
        objects = [
            ResultObject(part10=part, **one) for one, part in zip(answer["objects"], parts, strict=True)
        ]
        return Reported(facts, objects)

    def forget(self) -> None:
        """Have the analyst let go of what was prepared and not concluded."""
        if self._is_held and self._analyst.is_at_rest:
            self._is_held = False
            self._ask(Forget())

    def _ask(self, message: Message) -> tuple[dict[str, Any], list[bytes]]:
        try:
            return self._analyst.ask(message, self._look_again)
        except ProcessDied:
            if self._analysts.is_stopped:
                raise RunStopped from None
            raise

    def _look_again(self, sop_instance_uid: str, problem: str) -> StoredInstance | None:
        stored = next(
            one
            for instances in self._chosen.instances.values()
            for one in instances
            if one.sop_instance_uid == sop_instance_uid
        )
        return self._chosen.look_again(stored, problem)


class _Analyst:
    """One process, as the node sees it."""

    def __init__(self, config: Config) -> None:
        self.runs = 0
        self.is_at_rest = True
        # The number of the signal, 0 for none.
        self.ended_by = 0
        self.process = forked.Forked(
            "analyses", child.main, str(config.node.data_dir.absolute()), config.storage, config.limits
        )

    def ask(
        self, message: Message, look_again: Callable[[str, str], StoredInstance | None]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send ``message``; return the answer and the objects that follow it.

        Raises the error that it answers, or ProcessDied.
        """
        connection = self.process.connection
        # Who is interrupted in between leaves it in the middle of its answer.
        self.is_at_rest = False
        try:
            connection.send(message)
            answer: dict[str, Any] = json.loads(connection.recv_bytes())
            while "unread" in answer:
                connection.send(look_again(answer["unread"], answer["problem"]))
                answer = json.loads(connection.recv_bytes())
            parts = [connection.recv_bytes() for _ in answer.get("objects", ())]
        except (EOFError, OSError):
            ending = self.process.ending()
            self.ended_by = ending.signal
            logger.error("process of an analysis ended", extra={"reason": ending.reason})
            raise ProcessDied(
                f"the process that reads series and makes results ended: {ending.reason}"
            ) from None
        self.is_at_rest = True
        self.runs += isinstance(message, Prepare)
        if "error" in answer:
            error = as_error(answer)
            if isinstance(error, UnexpectedFailure):
                logger.error("task failed", extra={"kind": "analyze", "frames": answer["frames"]})
            raise error
        return answer, parts
