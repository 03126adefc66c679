"""Row of the models: what it costs to run one in a process of its own, warm or made for each run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Case, Target
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.rounds import alternate
from models.types import Inputs, Volume
from node.catalogue import catalogue
from node.processes import outcomes
from node.processes.job_folder import JobFolder
from node.processes.workers import Workers, WorkerSpec
from node.runners import loading

WARM = "anode, a process that has run before"
FRESH = "anode, a process for each run"
_MOST_MILLISECONDS = 200.0
_ROWS = _COLUMNS = 512
_TIMEOUT_SECONDS = 300.0
_ANALYSIS = """
[analysis]
name = "bright-part"
version = "1"
title = "What is brighter than the mean"
intended_use = "to measure what a run costs"
limits = "for nothing else"
evidence = "none"
manufacturer = "anode"
licence = "Apache-2.0"
[runner]
kind = "python"
entry = "model.py:BrightPart"
files = [{ path = "model.py", sha256 = "%s" }]
[[input]]
name = "volume"
as = "volume"
"""
_MODEL = """
import numpy as np
from models.types import Code, Findings, Measurement, Segment

REGION = Code("123037004", "SCT", "Anatomical Structure")
MEAN, UNIT = Code("373098007", "SCT", "Mean"), Code("1", "UCUM", "no units")


class BrightPart:
    def predict(self, inputs):
        voxels = inputs.volume.voxels
        mean = float(voxels.mean())
        bright = Segment("bright", "Bright", voxels > mean, REGION, REGION)
        return Findings((bright,), (Measurement(MEAN, mean, UNIT),))
"""


def models(options: Options, _images: Images) -> Generator[Case, None, None]:
    """Milliseconds that a run takes beyond what the model itself needs for the same voxels."""
    here = Path(tempfile.mkdtemp(prefix="anode-benchmarks-", dir=options.folder))
    try:
        reference = _model_folder(here / "model")
        spec = WorkerSpec(catalogue.describe(reference), "cpu", os.cpu_count() or 1)
        workers = Workers(here / "data")
        voxels = _voxels(options.instances)
        try:
            _run(workers, spec, voxels)
            contestants: dict[str, Callable[[], float]] = {
                WARM: partial(_beyond, reference, partial(_run, workers, spec, voxels), voxels),
                FRESH: partial(_beyond, reference, partial(_fresh, here / "fresh", spec, voxels), voxels),
            }
            figures = alternate(contestants, options.rounds, before=os.sync, what="models")
        finally:
            workers.stop()
    finally:
        shutil.rmtree(here)
    targets = (Target(WARM, "", _MOST_MILLISECONDS, is_most=True), Target(WARM, FRESH))
    size = f"{options.instances} x {_ROWS} x {_COLUMNS} voxels of 16 bits, a mask of them back"
    yield Case("models", "a run, beyond the model's own time", "ms", figures, targets, (size,))


def _model_folder(folder: Path) -> str:
    folder.mkdir()
    (folder / "model.py").write_text(_MODEL)
    (folder / "analysis.toml").write_text(_ANALYSIS % hashlib.sha256(_MODEL.encode()).hexdigest())
    return str(folder.resolve())


def _voxels(slices: int) -> np.ndarray:
    values = np.random.default_rng(1).integers(-1000, 1000, (_ROWS, _COLUMNS), dtype=np.int16)
    return np.stack([values + number % 7 for number in range(slices)])


def _inputs(voxels: np.ndarray) -> Inputs:
    return Inputs({"volume": Volume(voxels, np.eye(4), (1.0, 1.0, 1.0), "1")})


def _beyond(reference: str, run: Callable[[], float], voxels: np.ndarray) -> float:
    model = loading.load(reference, device="cpu", threads=os.cpu_count() or 1)
    inputs = _inputs(voxels)
    begun = time.perf_counter()
    model.predict(inputs)
    alone = time.perf_counter() - begun
    return 1000 * max(0.0, run() - alone)


def _run(workers: Workers, spec: WorkerSpec, voxels: np.ndarray) -> float:
    """Run once; return the seconds between the inputs in their files and the findings."""
    with workers.lease(spec) as worker, worker.job_folder() as folder:
        inputs = _inputs(_placed(voxels, folder))
        begun = time.perf_counter()
        folder.write_job(inputs)
        worker.run(folder, _TIMEOUT_SECONDS)
        outcomes.result(spec.description.card.name, folder, inputs)
        return time.perf_counter() - begun


def _placed(voxels: np.ndarray, folder: JobFolder) -> np.ndarray:
    placed = folder.allocate(voxels.shape, voxels.dtype)
    placed[:] = voxels
    return placed


def _fresh(folder: Path, spec: WorkerSpec, voxels: np.ndarray) -> float:
    """Run in a process that is started for it; its start counts, though it overlaps with the reading."""
    workers = Workers(folder)
    try:
        begun = time.perf_counter()
        _run(workers, spec, voxels)
        return time.perf_counter() - begun
    finally:
        workers.stop()
