"""One analysis of one series: instances to volume, model in its own process, findings to results."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models import registry
from models.base import Model
from models.types import Findings, Inputs
from node import work_folder
from node.completion import COMPLETED, FAILED, input_digest
from node.config.settings import AnalysisConfig
from node.errors import (
    AnodeError,
    JobError,
    ModelCrashed,
    NodeError,
    ObjectError,
    ResultInvalid,
    TwoPatients,
    UnfitInput,
)
from node.index import identity
from node.index.index import Run
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.results.build import PredecessorReference, ResultObject, RunFacts, Source, build
from node.runners.job_folder import JobFolder
from node.runners.python import PythonRunner, RunStopped
from node.series import model_inputs
from node.services import Services
from node.storage import disk

logger = logging.getLogger(__name__)

#: State of a run that would have repeated an earlier one.
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class _Run:
    """The facts of one job."""

    study_instance_uid: str
    series_instance_uid: str
    analysis: str
    revision: int
    started_at: float
    selected_digest: str

    @classmethod
    def of(cls, job: Job) -> _Run:
        payload = job.payload
        return cls(
            study_instance_uid=str(payload["study_instance_uid"]),
            series_instance_uid=str(payload["series_instance_uid"]),
            analysis=str(payload["analysis"]),
            revision=int(payload["revision"]),
            started_at=float(payload["started_at"]),
            selected_digest=str(payload["selected_digest"]),
        )


class AnalyzeTask:
    """Runs models. A refusal is recorded and done; a crash is tried again; a result is durable first.

    A job that is repeated after a crash of the node makes the same objects: their UIDs and times
    come from the input, the model and what the job froze when it was made.
    """

    kind = "analyze"
    batch = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: set[PythonRunner] = set()
        self._is_cancelled = False

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with what became of it; nothing when the node stops meanwhile."""
        with self._lock:
            # Whoever gives out jobs does not stop; it may have, and have started again.
            self._is_cancelled = False
        for job in jobs:
            try:
                yield job, self._analyze(services, job)
            except RunStopped:
                return

    def cancel(self) -> None:
        """End running models, because the node stops; their jobs are repeated at the next start."""
        with self._lock:
            self._is_cancelled = True
            runners = list(self._runners)
        for runner in runners:
            runner.stop()

    def _analyze(self, services: Services, job: Job) -> Outcome:
        run = _Run.of(job)
        analysis = services.completion.analysis(run.analysis)
        if analysis is None:
            # It was taken out of the configuration between its selection and now.
            return Done()
        try:
            return self._outcome(services, run, analysis)
        except ObjectError as error:
            # What is wrong with the series stays wrong: another try would only repeat it.
            logger.info("analysis refused", extra={"job": job.id, "error": error.name})
            return _recorded(services, run, error)
        except (JobError, NodeError) as error:
            return Retry(error, apply=_writer(services, run, state=FAILED, reason=str(error)))

    def _outcome(self, services: Services, run: _Run, analysis: AnalysisConfig) -> Outcome:
        model = _load(analysis.model)
        name = f"{model.card.name} {model.card.version}"
        with services.database.read() as connection:
            patients = identity.patients_of_study(connection, run.study_instance_uid)
            stored = [
                one
                for one in services.index.of_series(connection, run.series_instance_uid)
                if not one.is_own and one.study_instance_uid == run.study_instance_uid
            ]
            completed = services.completion.completed_runs(
                connection, run.study_instance_uid, run.series_instance_uid, run.analysis
            )
        if any(one["revision"] == run.revision for one in completed):
            # The node ended after the result was recorded, and before the job was.
            return Done()
        if len(patients) > 1:
            raise TwoPatients(f"the study holds instances of {len(patients)} patients, so it is not analysed")
        if not stored:
            raise UnfitInput("the series holds no instances that came from outside")
        digest = input_digest((one.sop_instance_uid, one.data_set_sha256) for one in stored)
        same = next((one for one in completed if (one["input_digest"], one["model"]) == (digest, name)), None)
        if same is not None:
            # Also when what arrived after the selection was analysed with it, at the earlier revision.
            reason = f"the series is as it was at revision {same['revision']}, which has a result"
            return Done(
                _writer(services, run, state=UNCHANGED, reason=reason, input_digest=digest, model=name)
            )
        with self._folder(services) as folder:
            material = model_inputs.read(services, stored, model, digest, folder)
            findings = self._predict(services, analysis.model, material.inputs, folder)
            facts = RunFacts(
                analysis=run.analysis,
                card=model.card,
                started_at=datetime.fromtimestamp(run.started_at, UTC),
                predecessor=_predecessor(completed),
            )
            objects = _build(findings, material.source, facts, analysis)
        _keep(services, run, analysis, objects, digest, name)
        logger.info(
            "analysis completed",
            extra={"analysis": run.analysis, "model": name, "objects": len(objects)},
        )
        return Done()

    def _predict(self, services: Services, model: str, inputs: Inputs, folder: JobFolder) -> Findings:
        jobs = services.config.jobs
        runner = PythonRunner(
            timeout_seconds=jobs.timeout_seconds,
            memory_mb=jobs.memory_mb,
            threads=max(1, (os.cpu_count() or 1) // max(1, jobs.analyses)),
        )
        with self._lock:
            if self._is_cancelled:
                raise RunStopped
            self._runners.add(runner)
        try:
            return runner.run(model, inputs, folder)
        finally:
            with self._lock:
                self._runners.discard(runner)

    @contextmanager
    def _folder(self, services: Services) -> Iterator[JobFolder]:
        """A folder for one run below ``data_dir``, removed afterwards."""
        work = work_folder.of(services.config.node.data_dir)
        try:
            work.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = Path(tempfile.mkdtemp(prefix=work_folder.ANALYSIS, dir=work))
        except OSError as error:
            raise _disk_failure(error) from error
        try:
            yield JobFolder(path)
        except OSError as error:
            raise _disk_failure(error) from error
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _disk_failure(error: OSError) -> NodeError:
    return disk.failure(error, "working on an analysis")


def _load(name: str) -> Model:
    try:
        return registry.load(name)
    except registry.UnknownModel as error:
        raise ModelCrashed(
            str(error), action="install the package that brings it, or change 'model'"
        ) from None
    except (ImportError, ValueError, TypeError) as error:
        raise ModelCrashed(f"model {name} cannot be loaded: {error}") from error


def _build(
    findings: Findings, source: Source, facts: RunFacts, analysis: AnalysisConfig
) -> list[ResultObject]:
    try:
        return build(findings, source, facts, analysis.results)
    except ValueError as error:
        raise ResultInvalid(f"the findings of {analysis.model} make no valid result: {error}") from error


def _predecessor(completed: Sequence[dict[str, Any]]) -> PredecessorReference | None:
    """The latest Structured Report; a run may have left none, where ``results`` asks for none."""
    previous = next((one for one in completed if one["sr_sop_instance_uid"]), None)
    if previous is None:
        return None
    return PredecessorReference(
        study_instance_uid=previous["study_instance_uid"],
        series_instance_uid=previous["sr_series_instance_uid"],
        sop_class_uid=previous["sr_sop_class_uid"],
        sop_instance_uid=previous["sr_sop_instance_uid"],
    )


def _keep(
    services: Services,
    run: _Run,
    analysis: AnalysisConfig,
    objects: Sequence[ResultObject],
    digest: str,
    model: str,
) -> None:
    """Make the results durable; their rows, their delivery and the run in one transaction."""
    report = next((one for one in objects if one.kind == "sr"), None)
    record = _writer(
        services,
        run,
        state=COMPLETED,
        input_digest=digest,
        model=model,
        sr_series_instance_uid=report.series_instance_uid if report else "",
        sr_sop_class_uid=report.sop_class_uid if report else "",
        sr_sop_instance_uid=report.sop_instance_uid if report else "",
        result_sop_instance_uids=[one.sop_instance_uid for one in objects],
    )

    def then(connection: sqlite3.Connection) -> None:
        record(connection)
        for peer in analysis.send_to:
            for one in objects:
                services.queue.enqueue(
                    connection,
                    "deliver",
                    key=f"{peer}/{one.sop_instance_uid}/result",
                    payload={"sop_instance_uid": one.sop_instance_uid, "peer": peer, "reason": "result"},
                    lane=peer,
                    study_instance_uid=run.study_instance_uid,
                )

    made_in = [
        Run(
            analysis=run.analysis,
            series_instance_uid=run.series_instance_uid,
            revision=run.revision,
            started_at=run.started_at,
            selected_digest=run.selected_digest,
            input_digest=digest,
            model=model,
            kind=one.kind,
            number=number,
            objects=len(objects),
        )
        for number, one in enumerate(objects)
    ]
    services.ingest.own([one.part10 for one in objects], then=then, runs=made_in)


def _recorded(services: Services, run: _Run, error: AnodeError) -> Outcome:
    """A refusal: done, with the reason on record, since another try would say the same."""
    apply = _writer(services, run, state=error.name, reason=str(error))
    if isinstance(error, TwoPatients):
        # As the selection does: somebody has to correct the study.
        return SetAside(error, apply)
    return Done(apply)


def _writer(
    services: Services, run: _Run, *, state: str, **facts: Any
) -> Callable[[sqlite3.Connection], None]:
    """Record, in the transaction that ends the job, what became of a run."""

    def write(connection: sqlite3.Connection) -> None:
        services.completion.record_run(
            connection,
            study_instance_uid=run.study_instance_uid,
            series_instance_uid=run.series_instance_uid,
            analysis=run.analysis,
            revision=run.revision,
            started_at=run.started_at,
            state=state,
            **facts,
        )

    return write
