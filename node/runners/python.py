"""Runs a Python model in a process of its own, and tells a crash, a hang and a refusal apart."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import node
from models.types import Findings, Inputs
from node.errors import (
    ModelCrashed,
    ModelOutOfMemory,
    ModelTimedOut,
    ResultInvalid,
    StorageFailure,
    UnfitInput,
)
from node.runners.child import OUT_OF_MEMORY
from node.runners.job_folder import JobFolder

logger = logging.getLogger(__name__)

#: How much of standard error an error message quotes.
LAST_LINES, LAST_CHARACTERS = 4, 600
KILL_WAIT_SECONDS = 10.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class RunStopped(Exception):
    """The node stops; the run was ended without a result and is to be repeated."""


class PythonRunner:
    """Runs models that ``models.registry`` knows.

    Parameters
    ----------
    timeout_seconds
        a run that takes longer is killed, with every process that it started
    memory_mb
        address space that the model may use beyond the interpreter and its libraries; 0 is no limit
    threads
        that numerical libraries may use in one run
    """

    def __init__(self, *, timeout_seconds: float, memory_mb: int = 0, threads: int = 1) -> None:
        self._timeout_seconds = timeout_seconds
        self._memory_mb = memory_mb
        self._threads = threads
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def run(self, model: str, inputs: Inputs, folder: JobFolder) -> Findings:
        """Run a model; the result's masks are in memory, the inputs stay in ``folder``.

        Raises
        ------
        UnfitInput
            the model refused the input
        ModelTimedOut, ModelOutOfMemory, ModelCrashed
            no result; nothing of the run is left but the folder
        ResultInvalid
            a result that cannot be read
        RunStopped
            ``stop`` was called
        """
        try:
            folder.write_job(model, inputs)
            errors = (folder.path / "stderr.txt").open("wb")
        except OSError as error:
            raise StorageFailure(f"the folder of an analysis cannot be written: {error.strerror}") from error
        with errors:
            process = self._start(folder.path, errors.fileno())
        try:
            process.wait(self._timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ModelTimedOut(
                f"model {model} did not finish within {self._timeout_seconds:g} s and was ended"
            ) from None
        finally:
            # Also what the model left running behind it.
            _kill_group(process)
            with self._lock:
                self._running.discard(process)
        return self._result(model, process.returncode, folder)

    def stop(self) -> None:
        """End every run; ``run`` raises RunStopped, now and from now on."""
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for process in running:
            _signal_group(process)

    def _start(self, folder: Path, errors: int) -> subprocess.Popen[bytes]:
        root = str(Path(node.__file__).parents[1])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, str(self._threads)),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONHASHSEED": "0",
            "TMPDIR": str(folder),
        }
        command = [sys.executable, "-P", "-m", "node.runners.child", str(folder), str(os.getpid())]
        with self._lock:
            if self._is_stopped:
                raise RunStopped
            process = subprocess.Popen(
                [*command, str(self._memory_mb)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
        return process

    def _result(self, model: str, status: int, folder: JobFolder) -> Findings:
        with self._lock:
            if self._is_stopped and status:
                raise RunStopped
        if status == OUT_OF_MEMORY:
            raise ModelOutOfMemory(f"model {model} needed more than the {self._memory_mb} MB it may use")
        if status == -signal.SIGKILL:
            # The node did not do it: the system ends the largest process when memory is short.
            raise ModelOutOfMemory(f"the process of model {model} was killed, most likely for lack of memory")
        if status:
            how = f"signal {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
            raise ModelCrashed(f"model {model} ended by {how}: {_last_words(folder.path)}")
        try:
            result = folder.read_result()
        except FileNotFoundError:
            raise ModelCrashed(f"model {model} left no result: {_last_words(folder.path)}") from None
        except (ValueError, OSError) as error:
            raise ResultInvalid(f"the result of model {model} cannot be read: {error}") from error
        if isinstance(result, str):
            raise UnfitInput(f"model {model} refuses the series: {result}")
        return result


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process)
    try:
        process.wait(KILL_WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        logger.error("model process does not end", extra={"pid": process.pid})


def _signal_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _last_words(folder: Path) -> str:
    """The last lines of standard error, short enough for a list of jobs; paths shortened to names."""
    try:
        text = (folder / "stderr.txt").read_bytes()[-8192:].decode("utf-8", "replace")
    except OSError:
        return "its standard error cannot be read"
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not set(line.strip()) <= {"^", "~"}
    ]
    words = re.sub(r"[^\s\"']*/([^/\s\"']+)", r"\1", " | ".join(lines[-LAST_LINES:]))
    return words[-LAST_CHARACTERS:] or "it said nothing"
