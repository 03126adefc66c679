"""The process in which a model is loaded once and runs again and again.

It is started as ``python -m node.processes.child ORDER``, and is three processes, each the parent of the
next: the first stands outside and ends all when the node ends; the second is the first one in the namespaces
of the model, builds them, and takes with it what a model leaves behind; the third runs the model.
``node/processes/model_process.py`` is the other side and says what passes between.

The exit status of the third is 0 when it was told to end; anything else, with a traceback on standard error
before it, is a crash.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from node import subordinate
from node.processes import confinement, process_tree, unowned_memory
from node.processes.refusals import is_refusal
from node.processes.traces import Traces
from node.runners.failures import ModelReplaced, RunFailed

NICENESS = 10
#: What a run is called in the folders of the worker, and where its process says things.
ERRORS = "stderr.txt"
READY, DONE, FAILED = "ready", "done", "failed"
OUT_OF_MEMORY, OUT_OF_SPACE = "out of memory", "out of space"
#: Of a run: what failed has words of its own, and they say all.
EXPLAINED = "explained"
#: The model is another one by now than the node was told.
REPLACED = "replaced"
#: About ``DONE``: files of before the run are not what they were, so another process has to do the next.
SPENT = "spent"
#: Of what is said about a failure.
MOST_CHARACTERS = 600
#: So often somebody looks how much memory is taken that counts to no process.
_LOOK_SECONDS = 0.1
#: Of files, pipes and sockets that each process may have open: in them lies memory, too.
MOST_OPEN = 4096
#: ITK, torch and onnxruntime report a failed allocation as an error of their own, in these words.
_NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "memory allocation", "out of memory")


def main(arguments: list[str]) -> int:
    """Be the first of the three; returns when nothing of the others is left."""
    order = json.loads(arguments[0])
    subordinate.stand_back(NICENESS)
    for descriptor in (order["commands"], order["answers"]):
        os.set_inheritable(descriptor, False)
    confinement.adopt_orphans()
    confinement.leave_terminal()
    try:
        confinement.leave(order["extent"], allow_network=order["allow_network"])
    except OSError as error:
        _tell_status({"unconfined": str(error)})
        return 1
    # Each sees by an end of them whether the other still lives.
    alive_first, first_lives = os.pipe()
    alive_second, second_lives = os.pipe()
    second = os.fork()
    if not second:
        os.close(first_lives)
        os.close(alive_second)
        _be_second(order, alive_first, second_lives)
    for descriptor in (order["commands"], order["answers"], second_lives, alive_first):
        os.close(descriptor)
    most_bytes = confinement.SHARED_MEMORY_MB << 20
    # Nothing is ever written to these: one is ready when its other end is closed.
    while not select.select((0, alive_second), (), (), _LOOK_SECONDS)[0]:
        if order["extent"] != "whole":
            continue
        if unowned_memory.held_bytes(with_sockets=not order["allow_network"]) > most_bytes:
            what = "MB of shared memory segments, semaphores, messages and what lies in sockets"
            _tell_status({"memory": f"it held more than {most_bytes >> 20} {what}"})
            break
    _end_all()
    return 0


def _end_all() -> None:
    """End every process below this one, those that were orphaned, too."""
    while below := process_tree.descendants(os.getpid()):
        for process_id in below:
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


# --- the second --------------------------------------------------------------


def _be_second(order: dict[str, Any], alive_first: int, second_lives: int) -> NoReturn:
    """Build what the model lives in, have it run there, and say how it ended."""
    subordinate.end_with_parent(signal.SIGKILL)
    if select.select([alive_first], (), (), 0)[0]:
        # It ended before the line above.
        os._exit(1)
    confinement.adopt_orphans()
    _limit_open_files()
    try:
        if order["extent"] == "whole":
            confinement.shut_in(confinement.Cell(**{key: tuple(one) for key, one in order["cell"].items()}))
        confinement.give_up_privileges()
        # It says how the model ended, and nobody else may.
        confinement.keep_from_others(True)
    except OSError as error:
        _tell_status({"unconfined": str(error)})
        os._exit(1)
    third = os.fork()
    if not third:
        confinement.keep_from_others(False)
        os.close(alive_first)
        os.close(second_lives)
        _be_third(order)
    for descriptor in (order["commands"], order["answers"]):
        os.close(descriptor)
    while True:
        process_id, status = os.wait()
        if process_id == third:
            _tell_status({"status": os.waitstatus_to_exitcode(status)})
            # With the first process of its namespace all others end.
            os._exit(0)


def _limit_open_files() -> None:
    import resource

    soft, hard = (
        MOST_OPEN if one == resource.RLIM_INFINITY else min(one, MOST_OPEN)
        for one in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _tell_status(content: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(content).encode() + b"\n")
    except BrokenPipeError:
        # Nobody is left who would want to know.
        return


# --- the third ---------------------------------------------------------------


def _be_third(order: dict[str, Any]) -> NoReturn:
    # What a model prints is no message to the node.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    subordinate.end_with_parent(signal.SIGKILL)
    try:
        _serve(order)
    finally:
        # Not by the interpreter's way out, on which it waits for threads that the model began.
        os._exit(_exit_status(sys.exc_info()[1]))


def _exit_status(error: BaseException | None) -> int:
    """Say what ended the process, and return its exit status."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    elif isinstance(error, RunFailed):
        sys.stderr.write(f"{error}\n")
        status = 1
    elif error is not None:
        _say_traceback(error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status & 0xFF


def _serve(order: dict[str, Any]) -> None:
    """Load the model, say so, and run it on each job that is named."""
    given, made = Path(order["given"]), Path(order["made"])
    answers = os.fdopen(order["answers"], "w", encoding="utf-8")

    def say(what: str, about: str = "") -> None:
        answers.write(json.dumps([what, about]) + "\n")
        answers.flush()

    with _explained(say, FAILED):
        from node.runners import loading

        model = loading.load(
            order["reference"],
            device=order["device"],
            threads=order["threads"],
            identity=order["identity"],
        )
    # What was loaded lives until the end: the collector need not go through it after each job.
    gc.collect()
    gc.freeze()
    say(READY)
    # The other places lie elsewhere than a model may write, or are shared by all of the machine.
    lasting = [made, *([Path("/dev/shm")] if order["extent"] == "whole" else [])]
    traces: Traces | None = None
    folder = Path(order["folder"]) if order["folder"] else None
    with os.fdopen(order["commands"], encoding="utf-8") as commands:
        for line in commands:
            job = json.loads(line)
            traces = traces or Traces(lasting, but=made / job)
            with _explained(say), _place_of(made, job):
                _run(model, folder, given / job, made / job)
            gc.collect()
            say(DONE, "" if traces.remove(but=made / job) else SPENT)


def _run(model: Any, folder: Path | None, given: Path, made: Path) -> None:
    from node.processes.job_folder import JobFolder

    job = JobFolder(given, made)
    inputs = job.read_job()
    try:
        findings = model.predict(inputs)
    except ValueError as error:
        if not is_refusal(error, model, folder):
            raise
        _say_traceback(error)
        job.write_refusal(str(error))
        return
    job.write_findings(findings, inputs)


@contextmanager
def _place_of(made: Path, job: str) -> Iterator[None]:
    """Have all that a run prints and leaves lie in its folder; after a crash it stays so."""
    folder = made / job
    os.chdir(folder)
    temporary = folder / "tmp"
    temporary.mkdir()
    before = os.dup(2)
    _print_to(os.open(ERRORS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    _use_for_temporary_files(temporary)
    yield
    _use_for_temporary_files(made / "tmp")
    _print_to(before)
    os.chdir(made)


def _print_to(descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _use_for_temporary_files(folder: Path) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@contextmanager
def _explained(say: Callable[[str, str], None], otherwise: str = "") -> Iterator[None]:
    """Say why no result comes, where that is known, before the process ends of it."""
    from errno import EDQUOT, ENOSPC

    try:
        yield
    except Exception as error:
        told = str(error) if _has_words(error) else f"{type(error).__name__}: {error}"
        about = " ".join(told.split())[:MOST_CHARACTERS]
        if isinstance(error, ModelReplaced):
            say(REPLACED, about)
        elif isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            say(OUT_OF_SPACE, about)
        elif isinstance(error, MemoryError) or any(word in str(error).lower() for word in _NO_MEMORY):
            say(OUT_OF_MEMORY, about)
        elif otherwise or isinstance(error, RunFailed):
            say(otherwise or EXPLAINED, about)
        raise


def _has_words(error: Exception) -> bool:
    """Whether an error says all by itself, without the name of its class."""
    from models.registry import UnknownModel, UnusableModel

    return isinstance(error, RunFailed | UnknownModel | UnusableModel)


def _say_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
