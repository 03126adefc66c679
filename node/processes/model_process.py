"""The process of a model as the node sees it: started, spoken with, ended.

``node/processes/child.py`` is the other side. Between them pass, a line of JSON each::

    order       how to begin, as the argument of the command
    commands    the name of a job; its folders are below ``given`` and ``made``
    answers     [what, about]: ready, done, failed, explained, replaced, out of memory, out of space
    ending      {status} of the model's process, {unconfined} or {memory}; then the end of the pipe

The node holds its end of a further pipe open for as long as the process is to live.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import node
from node.catalogue.catalogue import Description
from node.config.settings import Device
from node.processes import child
from node.processes.confinement import Extent
from node.processes.texts import MOST_REASON, clean

logger = logging.getLogger(__name__)

END_SECONDS = 10.0
_MOST_LINE_BYTES = 64 * 1024
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


class ProcessEnded(Exception):
    """``status`` is what it ended with; ``unconfined`` and ``memory`` say why somebody else ended it."""

    def __init__(self, status: int, unconfined: str = "", memory: str = "") -> None:
        super().__init__(status, unconfined, memory)
        self.status = status
        self.unconfined = unconfined
        self.memory = memory


class ModelProcess:
    """A process that loads a model and runs it on the jobs it is told.

    Parameters
    ----------
    description
        the model that it has to be; its folder may be read
    device, threads
        as of ``loading.load``
    extent, allow_network
        how far it is confined, and whether it keeps the network
    given, made
        folders: what it may read, and what it may write
    hidden
        what it must not see; what Python needs of that it may read all the same

    Raises
    ------
    OSError
        it cannot be started
    """

    def __init__(
        self,
        description: Description,
        *,
        device: Device,
        threads: int,
        extent: Extent,
        allow_network: bool,
        given: Path,
        made: Path,
        hidden: Sequence[Path],
    ) -> None:
        folder = description.folder
        order = {
            "reference": description.reference,
            "identity": description.identity,
            "device": device,
            "threads": threads,
            "extent": extent,
            "allow_network": allow_network,
            "folder": None if folder is None else str(folder),
            "given": str(given),
            "made": str(made),
            "cell": _cell(given, made, hidden, () if folder is None else (folder,)),
        }
        self._answered = b""
        self._is_ended = False
        self._lock = threading.Lock()
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Who waits for an answer is woken by it.
        self._wake, self._waker = os.pipe()
        try:
            with (made / child.ERRORS).open("wb") as errors:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", child.__name__),
                        json.dumps(order | {"commands": commands, "answers": answers}),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=made,
                    env=_environment(device, threads, made),
                    pass_fds=(commands, answers),
                    # Ctrl-C is for the node. A session of its own would keep it from that, too, but would not
                    # stand back: each session has its share of the processors (sched(7), autogroup).
                    process_group=0,
                )
        except OSError:
            self._close()
            raise
        finally:
            os.close(commands)
            os.close(answers)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._life, self._ending = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        for descriptor in (self._answers, self._ending.fileno(), self._wake):
            self._poll.register(descriptor, select.POLLIN)

    @property
    def process_id(self) -> int:
        """That of the first process, which stands beside the model's own."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return not self._is_ended and self._process.poll() is None

    @property
    def is_quiet(self) -> bool:
        """Whether it says nothing, nor that it has ended: so it is while it waits for a command."""
        with self._lock:
            if self._is_ended:
                return False
            return not self._poll.poll(0)

    def command(self, job: str) -> None:
        """Tell it to run a job; that it has ended meanwhile is found by ``answer``."""
        with suppress(BrokenPipeError):
            os.write(self._commands, json.dumps(job).encode() + b"\n")

    def answer(self, seconds: float) -> tuple[str, str] | None:
        """Wait for what it answers: what, and about that; None when it says nothing for so long.

        Raises
        ------
        ProcessEnded
            it has ended, with nothing left to say
        ValueError
            what it says is no answer
        """
        ready = {descriptor for descriptor, _ in self._poll.poll(seconds * 1000)}
        if self._answers in ready:
            read = os.read(self._answers, _MOST_LINE_BYTES)
            if not read:
                # It has ended, or will say nothing more: its end is all to wait for.
                self._poll.unregister(self._answers)
            self._answered += read
        line, is_whole, rest = self._answered.partition(b"\n")
        if is_whole:
            self._answered = rest
            return _read_answer(line)
        if len(line) > _MOST_LINE_BYTES:
            raise ValueError("it answers without an end")
        if self._ending.fileno() in ready and self._answers not in ready:
            told = self._ending.readline(_MOST_LINE_BYTES)
            self.end()
            raise _ending(told, self._process.returncode)
        return None

    def wake(self) -> None:
        """Have ``answer`` return, now and from now on; from any thread."""
        with self._lock:
            if not self._is_ended:
                os.write(self._waker, b"\n")

    def end(self) -> None:
        """End it with all that it started."""
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
        # It takes that for the end of the node, ends all others and then itself.
        self._life.close()
        ended = select.poll()
        # Of what it told nothing is read any more: only that nobody can tell more.
        ended.register(self._ending.fileno(), 0)
        if ended.poll(END_SECONDS * 1000):
            self._process.wait()
        else:
            self._process.kill()
            logger.error("model process does not end", extra={"pid": self._process.pid})
        self._ending.close()
        self._close()

    def _close(self) -> None:
        for descriptor in (self._commands, self._answers, self._wake, self._waker):
            os.close(descriptor)


def _cell(given: Path, made: Path, hidden: Sequence[Path], needed: Sequence[Path]) -> dict[str, list[str]]:
    """What the process sees of the disk, in the words of ``confinement.Cell``."""
    covered = [one.resolve() for one in hidden if one.exists()]
    libraries = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    wanted = [Path(one).resolve() for one in (*python_paths(), sys.prefix, sys.base_prefix, *libraries)]
    wanted += [one.resolve() for one in needed]
    readable = dict.fromkeys(
        one for one in wanted if one.exists() and any(hides in one.parents for hides in covered)
    )
    return {
        "hidden": [str(one) for one in covered],
        "readable": [str(one) for one in (*readable, given)],
        "writable": [str(made)],
    }


def _environment(device: Device, threads: int, made: Path) -> dict[str, str]:
    """Little more than what Python and the libraries need to be found, and to compute alike each time."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if device == "cpu":
        passed_on["CUDA_VISIBLE_DEVICES"] = ""
    return {
        **passed_on,
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        # Without it some sums of a GPU differ from run to run.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": os.pathsep.join(python_paths()),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(made / "home"),
        "TMPDIR": str(made / "tmp"),
    }


def python_paths() -> list[str]:
    """Where the process finds anode, and what the node's own PYTHONPATH adds."""
    root = str(Path(node.__file__).parents[1])
    added = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return [root, *map(os.path.abspath, added)]


def _read_answer(line: bytes) -> tuple[str, str]:
    try:
        what, about = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("it answers what is no answer") from None
    return str(what), clean(str(about), MOST_REASON)


def _ending(told: bytes, own_status: int) -> ProcessEnded:
    """What was said at the end; without a word of the others, the first of them was ended itself."""
    try:
        content = json.loads(told)
        return ProcessEnded(
            int(content.get("status", own_status)),
            clean(str(content.get("unconfined", "")), MOST_REASON),
            clean(str(content.get("memory", "")), MOST_REASON),
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ProcessEnded(own_status)
