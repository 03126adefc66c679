"""Looks after a model while it lives: what it takes of memory and disk, and when that is too much."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from node.errors import ModelCrashed, ModelOutOfMemory, OutOfSpace
from node.processes import confinement, process_tree, writings
from node.storage import disk

LOOK_SECONDS = 0.05
FLOOR_BYTES = 256 * 1024 * 1024
"""What the machine has to have left, so that the system need not choose a process to end."""

MOST_THREADS, LEAST_NAMES = 4096, 10_000
"""Of all processes of a model; of files that a disk still has to have space for, beside their content."""

MOST_WRITTEN_BYTES = 64 * 1024 * 1024
"""What a model may have written of a disk that is short, where the reserve is not more."""

_PROBE_BYTES = 1024 * 1024

# Of the models that live now, by the number of their process: when memory is short, the largest has to go.
_taken: dict[int, int] = {}
_lock = threading.Lock()


class _Shortage(NamedTuple):
    """What is short of a disk, and what a model may have written of it that has no part in that."""

    text: str
    most_bytes: int = sys.maxsize
    most_files: int = sys.maxsize


class Watch:
    """One model's processes, watched by whoever calls ``look`` often enough.

    Parameters
    ----------
    process_id
        the first of the model's processes; it and its first child only stand beside the model, and do
        not count
    folder
        where the model may write
    memory_mb
        that the model and what it started may hold, files that it only reads not counted; 0 is no limit
        but that of the machine
    reserve_bytes
        that have to stay free on the disk
    relieve
        ends what is not needed; whether there was anything
    """

    def __init__(
        self,
        process_id: int,
        folder: Path,
        *,
        model: str,
        memory_mb: int,
        reserve_bytes: int,
        relieve: Callable[[], bool],
    ) -> None:
        self._process_id = process_id
        self._folder = folder
        self._model = model
        self._memory_mb = memory_mb
        self._reserve_bytes = reserve_bytes
        self._relieve = relieve
        self._look_at = 0.0

        with _lock:
            _taken[process_id] = 0

    def end(self) -> None:
        """Watch no more: the processes have ended."""
        with _lock:
            _taken.pop(self._process_id, None)

    def look(self) -> None:
        """Look, when it is time to.

        Raises
        ------
        ModelOutOfMemory
            the model holds more memory than it may, or the most of all when the machine has no more
        ModelCrashed
            it has more processes and threads than any needs, or has itself filled the disk
        OutOfSpace
            less of the disk is free than the reserve, or few files more have space in it
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look_at_memory()
            # As often: in one call all that is free can be taken, from others as well.
            self._look_at_disk()

    def resident_bytes(self) -> int:
        """Memory that the model and what it started hold now."""
        return process_tree.held(self._models()).bytes

    def is_alone(self) -> bool:
        """Whether the model has no other process running."""
        return sum(process_tree.resident_bytes(one) > 0 for one in self._models()) <= 1

    def _models(self) -> list[int]:
        return process_tree.descendants(self._process_id)[1:]

    def found_no_space(self, told: str) -> ModelCrashed | OutOfSpace:
        """What it means that the model says of a write, in the words of ``told``, that there is no space.

        Raises
        ------
        StorageFailure
            the disk cannot be looked at
        """
        if shortage := self._shortage() or self._probe():
            return self._of(shortage)
        free_mb, shared_mb = disk.free_bytes(self._folder) >> 20, confinement.SHARED_MEMORY_MB
        return ModelCrashed(
            f"model {self._model} found no space where it wrote, though the disk has {free_mb} MB: {told}",
            action=f"let it write to its working folder; it has {shared_mb} MB of /dev/shm if it is shut in",
        )

    def _look_at_disk(self) -> None:
        if shortage := self._shortage():
            raise self._of(shortage)

    def _shortage(self) -> _Shortage | None:
        free = disk.free_bytes(self._folder)
        if free < self._reserve_bytes:
            return self._of_bytes(f"{free} bytes are free, {self._reserve_bytes} are held in reserve")
        names, most_names = disk.free_names(self._folder)
        least_names = min(LEAST_NAMES, most_names // 20)
        if names < least_names:
            return _Shortage(f"there is space for {names} more files", most_files=least_names)
        return None

    def _probe(self) -> _Shortage | None:
        """Try to write a little: there may be a quota, or no reserve."""
        try:
            # Beside the folder of the model, where it can do nothing.
            with tempfile.TemporaryFile(dir=self._folder.parent) as file:
                disk.allocate(file.fileno(), _PROBE_BYTES)
        except (OSError, OutOfSpace):
            return self._of_bytes("nothing more can be written")
        return None

    def _of_bytes(self, text: str) -> _Shortage:
        return _Shortage(text, most_bytes=max(self._reserve_bytes, MOST_WRITTEN_BYTES))

    def _of(self, shortage: _Shortage) -> ModelCrashed | OutOfSpace:
        """Whether a shortage is the model's own work, and would be so again; it does not go on."""
        models = self._models()
        for one in models:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        its = writings.written(self._folder, models)
        if its.is_all and its.bytes <= shortage.most_bytes and its.files <= shortage.most_files:
            return OutOfSpace(f"{shortage.text}; model {self._model} was ended")
        return ModelCrashed(
            f"model {self._model} had written {its.bytes >> 20} MB in {its.files} files and folders, and was "
            f"ended: {shortage.text}",
            action="have it write less, or give the disk more space; then run 'anode retry'",
        )

    def _look_at_memory(self) -> None:
        held = process_tree.held(self._models())
        taken = held.bytes
        if held.threads > MOST_THREADS:
            raise ModelCrashed(
                f"model {self._model} had more than {MOST_THREADS} processes and threads, and was ended"
            )
        if self._memory_mb and taken > self._memory_mb * 1024 * 1024:
            raise ModelOutOfMemory(
                f"model {self._model} needed more than the {self._memory_mb} MB it may use"
            )
        with _lock:
            _taken[self._process_id] = taken
            is_largest = taken == max(_taken.values())
        available = process_tree.available_bytes()
        if available is None or available >= FLOOR_BYTES or not is_largest or self._relieve():
            return
        raise ModelOutOfMemory(
            f"model {self._model} held {taken >> 20} MB when the machine had less than "
            f"{FLOOR_BYTES >> 20} MB left, and was ended"
        )
