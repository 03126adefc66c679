"""A worker: one model's process, in which it is loaded once and runs again and again.

Its folder lies in the work folder of the node::

    given/JOB   inputs: to the model they are read only
    made/JOB    results, standard error, temporary files
    made/home   HOME of the process
    made/tmp    temporary files that it makes while it loads the model
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node import work_folder
from node.catalogue.catalogue import Description
from node.config.settings import Device
from node.errors import (
    ModelCrashed,
    ModelOutOfMemory,
    ModelTimedOut,
    OutOfSpace,
    ResultInvalid,
    StorageFailure,
)
from node.processes import child, confinement, foreign_files, outcomes
from node.processes.job_folder import JobFolder
from node.processes.model_process import ModelProcess, ProcessEnded
from node.processes.watching import LOOK_SECONDS, Watch
from node.runners.hidden_folders import HIDDEN_FOLDERS
from node.storage import disk

logger = logging.getLogger(__name__)

#: After so many jobs, or when a job leaves so much more memory taken than the first did, another begins.
MOST_JOBS, MOST_GROWTH_BYTES = 200, 512 * 1024 * 1024


class RunStopped(Exception):
    """The node stops; the run was ended without a result and is to be repeated."""


@dataclass(frozen=True)
class WorkerSpec:
    """What makes two runs share a process.

    Attributes
    ----------
    description
        the model
    device
        where it computes
    threads
        that numerical libraries may use
    memory_mb
        that the model may hold beside its inputs; 0 is no limit but that of the machine
    allow_network
        whether it may use the network
    """

    description: Description
    device: Device = "auto"
    threads: int = 1
    memory_mb: int = 0
    allow_network: bool = False


class Worker:
    """One process, for one run at a time; it starts at once, and ``run`` and ``load`` wait until it is ready.

    Parameters
    ----------
    hidden
        folders and files of the node that no model may see, ``data_dir`` among them anyway
    reserve_bytes
        that have to stay free on the disk while a model runs
    relieve
        ends other processes that are not needed when memory is short; whether there were any

    Raises
    ------
    OutOfSpace, StorageFailure
        it cannot be started
    """

    def __init__(
        self,
        spec: WorkerSpec,
        data_dir: Path,
        *,
        hidden: tuple[Path, ...] = (),
        reserve_bytes: int = 0,
        relieve: Callable[[], bool] = lambda: False,
    ) -> None:
        self.spec = spec
        self._model = spec.description.card.name
        self._reserve_bytes = reserve_bytes
        self._relieve = relieve
        self._jobs = self._first_resident = 0
        self._is_ready = self._is_stopped = self._is_gone = False
        # Who looks after it at the time: the run, or else the thread that looks at all of them.
        self._turn = threading.RLock()
        self._excess: ModelCrashed | ModelOutOfMemory | OutOfSpace | None = None
        self._hidden = {one: _identity(one) for one in hidden}
        try:
            work = work_folder.of(data_dir.resolve())
            work.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder = Path(tempfile.mkdtemp(prefix=work_folder.MODEL, dir=work))
        except OSError as error:
            raise _not_started(error) from error
        self._given, self._made = self._folder / "given", self._folder / "made"
        try:
            self._process = self._start((data_dir, *hidden))
        except OSError as error:
            foreign_files.remove(self._folder)
            raise _not_started(error) from error
        self._watch = None if self._process is None else self._watch_over(self._process)

    def _start(self, hidden: tuple[Path, ...]) -> ModelProcess | None:
        """Start the process; there is none where the system permits not to confine it as it must be."""
        spec = self.spec
        for one in (self._given, self._made, self._made / "home", self._made / "tmp"):
            one.mkdir(0o700)
        extent = confinement.extent(allow_network=spec.allow_network)
        if extent is None:
            return None
        if extent == "none":
            logger.warning("model runs without being shut in", extra={"model": self._model})
        return ModelProcess(
            spec.description,
            device=spec.device,
            threads=spec.threads,
            extent=extent,
            allow_network=spec.allow_network,
            given=self._given,
            made=self._made,
            hidden=hidden if spec.allow_network else (*hidden, *HIDDEN_FOLDERS),
        )

    def _watch_over(self, process: ModelProcess) -> Watch:
        return Watch(
            process.process_id,
            self._made,
            model=self._model,
            memory_mb=self.spec.memory_mb,
            reserve_bytes=self._reserve_bytes,
            relieve=self._relieve,
        )

    # --- its life ------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether it can take another run."""
        if self._process is None or self._is_stopped or self._jobs >= MOST_JOBS:
            return False
        # A file that was put in the place of a hidden one, such as a renewed key, is not hidden from it.
        is_blind = all(_identity(one) == before for one, before in self._hidden.items())
        # One that has just ended says so before its first process has.
        is_waiting = not self._is_ready or self._process.is_quiet
        return is_blind and is_waiting and self._process.lives

    def interrupt(self) -> None:
        """Have ``run`` raise RunStopped, now and from now on; from any thread."""
        self._is_stopped = True
        if self._process is not None:
            self._process.wake()

    def look(self) -> None:
        """End the process when it takes too much while no run looks after it.

        A run that was about to begin is told so; ``is_usable`` is no more.
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._watch is None or self._is_gone or not self.is_usable:
                return
            try:
                self._watch.look()
            except (ModelCrashed, ModelOutOfMemory, OutOfSpace) as error:
                logger.warning("model process ended between runs", extra={"why": str(error)})
                self._excess = error
                self._end()
            except StorageFailure:
                # Nobody waits for it; whoever runs next will be told.
                return
        finally:
            self._turn.release()

    def remove(self) -> None:
        """End the process with all that it started, and remove its folder."""
        with self._turn:
            self._is_gone = True
            self._end()
        if not foreign_files.remove(self._folder):
            logger.warning("files of a model are left until the next start", extra={"model": self._model})

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
        if self._watch is not None:
            self._watch.end()

    # --- one run -------------------------------------------------------------

    @contextmanager
    def job_folder(self) -> Iterator[JobFolder]:
        """Make the folder of a run, and remove it afterwards.

        Raises
        ------
        OutOfSpace, StorageFailure
            it cannot be made, or what is done with it fails for the disk
        """
        name = f"{work_folder.ANALYSIS}{self._jobs + 1}"
        given, made = self._given / name, self._made / name
        try:
            given.mkdir(0o700)
            made.mkdir(0o700)
            yield JobFolder(given, made)
        except OSError as error:
            raise disk.failure(error, "working on an analysis") from error
        finally:
            foreign_files.remove(given)
            if not foreign_files.remove(made):
                # It is still at work in there.
                with self._turn:
                    self._end()
                foreign_files.remove(made)

    def run(self, folder: JobFolder, timeout_seconds: float) -> None:
        """Run the model on the job in a folder that ``job_folder`` made; its answer is left there.

        What has to be waited for before it runs counts. ``outcomes.result`` reads the answer, and whoever
        finds none there that is valid calls ``discard``. After an error the process has ended, with all
        that it started.

        Raises
        ------
        ModelUnusable, ModelTimedOut, ModelOutOfMemory, ModelCrashed
            no answer
        ModelNotConfined
            it could not be kept from the network or from the node; it did not run
        ModelReplaced
            the model is another one by now than that of ``spec``
        ResultInvalid
            the process says what it should not
        OutOfSpace, StorageFailure
            the disk is full or cannot be used
        RunStopped
            ``interrupt`` was called
        """
        self._while_watched(self._have_run, folder, timeout_seconds)

    def load(self, folder: JobFolder, timeout_seconds: float) -> None:
        """Wait until the model is loaded, in a folder that ``job_folder`` made; raises as ``run`` does."""
        self._while_watched(self._have_loaded, folder, timeout_seconds)

    def discard(self) -> None:
        """End the process; ``is_usable`` is no more."""
        with self._turn:
            self._end()

    def _while_watched(
        self,
        do: Callable[[ModelProcess, Watch, JobFolder, float], None],
        folder: JobFolder,
        timeout_seconds: float,
    ) -> None:
        """Have the process do something; after an error it has ended."""
        deadline = time.monotonic() + timeout_seconds
        if self._process is None or self._watch is None:
            raise outcomes.not_permitted(self._model)
        with self._turn:
            try:
                if self._is_stopped:
                    raise RunStopped
                if self._excess is not None:
                    raise self._excess
                do(self._process, self._watch, folder, deadline)
            except TimeoutError:
                self._end()
                what = "did not finish" if self._is_ready else "was not loaded"
                raise ModelTimedOut(
                    f"model {self._model} {what} within {timeout_seconds:g} s and was ended"
                ) from None
            except ProcessEnded as ended:
                self._end()
                raise outcomes.of_end(self._model, ended, outcomes.last_words(folder)) from None
            except BaseException:
                self._end()
                raise

    def _have_loaded(self, process: ModelProcess, watch: Watch, folder: JobFolder, deadline: float) -> None:
        """Return when the model can take a job."""
        del folder
        if not self._is_ready:
            self._await(child.READY, process, watch, deadline)
            self._is_ready = True

    def _have_run(self, process: ModelProcess, watch: Watch, folder: JobFolder, deadline: float) -> None:
        """Return when the model is through with a job."""
        self._have_loaded(process, watch, folder, deadline)
        process.command(folder.path.name)
        about = self._await(child.DONE, process, watch, deadline)
        self._jobs += 1
        resident = watch.resident_bytes()
        self._first_resident = self._first_resident or resident
        has_grown = resident - self._first_resident > max(MOST_GROWTH_BYTES, self._first_resident)
        if has_grown or about == child.SPENT or not watch.is_alone():
            logger.info("model process replaced", extra={"model": self._model, "resident_mb": resident >> 20})
            self._end()

    def _await(self, step: str, process: ModelProcess, watch: Watch, deadline: float) -> str:
        """Return what the process says about ``step`` when it is reached, and look after it meanwhile."""
        answer = None
        while answer is None:
            if self._is_stopped:
                raise RunStopped
            if time.monotonic() > deadline:
                raise TimeoutError
            watch.look()
            try:
                answer = process.answer(LOOK_SECONDS)
            except ValueError as error:
                raise ResultInvalid(f"the process of model {self._model} is out of step: {error}") from None
        what, about = answer
        if what == child.OUT_OF_SPACE:
            raise watch.found_no_space(about)
        if what != step:
            raise outcomes.of_answer(self._model, what, about)
        return about


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _not_started(error: OSError) -> Exception:
    return disk.failure(error, "starting the process of a model")
