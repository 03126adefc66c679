"""Runs of the models of ``made_models``, as the node has them run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.types import Findings, HeaderValue, Inputs, Volume
from node.catalogue import catalogue
from node.config.settings import Device
from node.errors import JobError
from node.processes import outcomes
from node.processes.job_folder import JobFolder
from node.processes.workers import Worker, Workers, WorkerSpec
from tests.support.made_models import install
from tests.support.processes import processes_with

#: Models stand back: where others keep the processors busy, one may take long to start.
PATIENCE_SECONDS = 120.0


def volume(parameters: Mapping[str, Any] | None = None) -> Inputs:
    """A small volume of which every voxel has another value."""
    voxels = np.arange(3 * 5 * 7, dtype=np.int16).reshape(3, 5, 7)
    header: dict[str, HeaderValue] = {"KVP": 120.0, "Type": ("A", "B")}
    return Inputs(
        {"volume": Volume(voxels, np.eye(4), (1.0, 2.0, 3.0), "[hnsf'U]", header)}, parameters or {}
    )


def run(worker: Worker, inputs: Inputs, folder: JobFolder, timeout_seconds: float) -> Findings:
    """Run the model of ``worker`` on ``inputs``."""
    folder.write_job(inputs)
    worker.run(folder, timeout_seconds)
    try:
        return outcomes.result(worker.spec.description.card.name, folder, inputs)
    except JobError:
        worker.discard()
        raise


class ModelRuns:
    """Workers in a data directory of their own, and one run after the other in them."""

    def __init__(self, data_dir: Path, *, reserve_bytes: int = 0, hidden: Sequence[Path] = ()) -> None:
        self.data_dir = data_dir
        self.workers = Workers(data_dir, most_idle_seconds=0.0, reserve_bytes=reserve_bytes, hidden=hidden)

    def run(
        self,
        model: str,
        inputs: Inputs | None = None,
        *,
        timeout_seconds: float = PATIENCE_SECONDS,
        folder: Path | None = None,
        device: Device = "auto",
        threads: int = 1,
        memory_mb: int = 0,
        allow_network: bool = False,
    ) -> Findings:
        description = replace(catalogue.describe(model), folder=folder)
        spec = WorkerSpec(description, device, threads, memory_mb, allow_network)
        with self.workers.lease(spec) as worker, worker.job_folder() as job:
            return run(worker, inputs or volume(), job, timeout_seconds)

    def told(self, code: str, **settings: Any) -> str:
        """Have a model run ``code``; what that leaves in ``said``."""
        return self.run("told", volume({"code": code}), **settings).summary

    def left(self) -> list[Path]:
        """What lies in the work folder: the folders of workers."""
        work = self.data_dir / "work"
        return sorted(work.iterdir()) if work.exists() else []

    def processes(self) -> list[int]:
        """All processes of all models."""
        return [process for folder in self.left() for process in processes_of(folder)]


@contextmanager
def model_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRuns]:
    """Runs in ``folder``; at the end nothing of any is left."""
    install(folder / "package", monkeypatch)
    runs = ModelRuns(folder / "data")
    yield runs
    runs.workers.stop()
    assert runs.left() == []


def processes_of(worker_folder: Path) -> list[int]:
    """The processes of a worker, those that its model started included."""
    return processes_with(b"HOME=" + bytes(worker_folder / "made" / "home") + b"\0")
