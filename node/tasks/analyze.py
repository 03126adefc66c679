"""One analysis of one series: instances to volume, model in its own process, findings to results."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from models import registry
from node import analysis_runs, parking
from node.analysis.analysts import Analysts, Chosen, Reported
from node.analysis.order import Order, threads_of_each
from node.analysis.performing import perform
from node.analysis_runs import COMPLETED, FAILED
from node.catalogue import catalogue
from node.catalogue.catalogue import Description
from node.catalogue.parameters import ParameterFaults
from node.config.settings import AnalysisConfig
from node.errors import (
    AnalysisParked,
    AnodeError,
    JobError,
    ModelUnusable,
    NodeError,
    ObjectError,
    RefusedByModel,
    TwoPatients,
    UnexpectedFailure,
)
from node.index import identity
from node.index.index import Run
from node.index.matching_rules import results_of
from node.jobs.schedule import follow_up
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.processes.workers import RunStopped, Workers
from node.results.facts import PredecessorReference
from node.series import digests, selection
from node.services import Services
from node.verification import look_again

logger = logging.getLogger(__name__)

#: So much of what was found is kept with a result, in one block with where that came from.
_MOST_KEPT_BYTES = 1000
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
    """Runs models. A refusal is recorded and done, what a model fails is set aside, a result made durable.

    A job that is repeated after a crash of the node makes the same objects: their UIDs and times
    come from the input, the model and what the job froze when it was made. Three jobs in a row that their
    model failed park the analysis (``node/parking.py``).
    """

    kind = "analyze"
    batch = 1

    def __init__(self, workers: Workers, analysts: Analysts) -> None:
        self._workers = workers
        self._analysts = analysts

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with what became of it; nothing when the node stops meanwhile."""
        # Whoever gives out jobs does not stop; it may have, and have started again.
        self._workers.resume()
        self._analysts.resume()
        for job in jobs:
            try:
                yield job, self._analyze(services, job)
            except RunStopped:
                return

    def cancel(self) -> None:
        """End running models, because the node stops; their jobs are repeated at the next start."""
        self._workers.stop()
        self._analysts.stop()

    def _analyze(self, services: Services, job: Job) -> Outcome:
        run = _Run.of(job)
        analysis = services.config.analysis(run.analysis)
        if analysis is None:
            # It was taken out of the configuration between its selection and now.
            return Done()
        ending = _Ending(services, job, run)
        try:
            self._refuse_parked(services, run)
            return self._outcome(services, ending, analysis)
        except ObjectError as error:
            # What is wrong with the series stays wrong: another try would only repeat it.
            logger.info("analysis refused", extra={"job": job.id, "error": error.name})
            return ending.refused(error)
        except UnexpectedFailure as error:
            # A fault of anode, which says nothing of the model.
            return Retry(error, apply=ending.writer(state=FAILED, reason=str(error), is_over=False))
        except AnalysisParked as error:
            return SetAside(error, ending.writer(state=FAILED, reason=str(error)))
        except JobError as error:
            logger.warning(
                "analysis failed", extra={"job": job.id, "analysis": run.analysis, "error": error.name}
            )
            return SetAside(error, ending.failed(error))
        except NodeError as error:
            return Retry(error, apply=ending.writer(state=FAILED, reason=str(error), is_over=False))

    def _refuse_parked(self, services: Services, run: _Run) -> None:
        with services.database.read() as connection:
            parked = parking.parked(connection).get(run.analysis)
        if parked is not None:
            times = parking.FAILURES_TO_PARK
            raise AnalysisParked(
                f"analysis {run.analysis} is parked, since its model failed {times} times in a row; "
                f"the last time: {parked.reason}"
            )

    def _outcome(self, services: Services, ending: _Ending, analysis: AnalysisConfig) -> Outcome:
        run = ending.run
        description = _described(analysis.model)
        order = _order(services, run, analysis, description)
        with services.database.read() as connection:
            patients = identity.patients_of_study(connection, run.study_instance_uid)
            selected = selection.choose(
                services.index,
                connection,
                analysis,
                description.needs,
                run.study_instance_uid,
                run.series_instance_uid,
            )
            completed = analysis_runs.completed(
                connection, run.study_instance_uid, run.series_instance_uid, run.analysis
            )
        if any(one["revision"] == run.revision for one in completed):
            # The node ended after the result was recorded, and before the job was.
            return Done(ending.follow)
        if len(patients) > 1:
            raise TwoPatients(f"the study holds instances of {len(patients)} patients, so it is not analysed")
        digest = digests.of_inputs(selected.inputs)
        # An earlier one may have said the same, but what was said since is what stands.
        same = next(iter(completed), None)
        if same is not None and (same["input_digest"], same["model"]) == (digest, order.model):
            # Also when what arrived after the selection was analysed with it, at the earlier revision.
            reason = f"the series is as it was at revision {same['revision']}, which has a result"
            facts = {"input_digest": digest, "model": order.model, "facts": same["facts"]}
            return Done(ending.writer(state=UNCHANGED, reason=reason, **facts))
        chosen = Chosen(selected.inputs, digest, partial(look_again, services), _predecessor(completed))
        with self._analysts.making(order, chosen) as making:
            reported = perform(self._workers, order, making)
        _keep(services, ending, analysis, reported, digest, order.model, selected.compared)
        logger.info(
            "analysis completed",
            extra={"analysis": run.analysis, "model": order.model, "objects": len(reported.objects)},
        )
        return Done(ending.follow)


def _described(model: str) -> Description:
    try:
        return catalogue.describe(model)
    except registry.UnknownModel as error:
        raise ModelUnusable(
            str(error), action="install the package that brings it, or change 'model'"
        ) from None
    except registry.UnusableModel as error:
        raise ModelUnusable(f"model {model} cannot be used: {error}") from error


def _order(services: Services, run: _Run, analysis: AnalysisConfig, description: Description) -> Order:
    jobs = services.config.jobs
    try:
        parameters = catalogue.read_parameters(description, analysis.parameters)
    except ParameterFaults as error:
        # The model is another one than when the configuration was read.
        raise ModelUnusable(f"the parameters of {run.analysis} do not fit its model: {error}") from error
    return Order(
        analysis=run.analysis,
        description=description,
        parameters=parameters,
        results=analysis.results,
        started_at=datetime.fromtimestamp(run.started_at, UTC),
        timeout_seconds=jobs.timeout_seconds
        if analysis.timeout_seconds is None
        else analysis.timeout_seconds,
        memory_mb=jobs.memory_mb if analysis.memory_mb is None else analysis.memory_mb,
        device=analysis.device,
        threads=threads_of_each(jobs.analyses),
        allow_network=analysis.allow_network,
    )


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
    ending: _Ending,
    analysis: AnalysisConfig,
    reported: Reported,
    digest: str,
    model: str,
    compared: str,
) -> None:
    """Make the results durable; their rows, their delivery and the run in one transaction."""
    run, objects = ending.run, reported.objects
    report = next((one for one in objects if one.kind == "sr"), None)
    facts = reported.facts
    record = ending.writer(
        state=COMPLETED,
        is_over=False,
        reason=compared,
        input_digest=digest,
        model=model,
        sr_series_instance_uid=report.series_instance_uid if report else "",
        sr_sop_class_uid=report.sop_class_uid if report else "",
        sr_sop_instance_uid=report.sop_instance_uid if report else "",
        result_sop_instance_uids=[one.sop_instance_uid for one in objects],
        facts=facts,
    )

    def then(connection: sqlite3.Connection) -> None:
        record(connection)
        parking.succeeded(connection, run.analysis)
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
            # With one of them, and what is asked for: a run may have made hundreds, and there is little room.
            facts=_asked(services, run.analysis, facts) if number == 0 else {},
        )
        for number, one in enumerate(objects)
    ]
    services.ingest.own([one.part10 for one in objects], then=then, runs=made_in)


def _asked(
    services: Services, analysis: str, facts: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Those of ``facts`` that ``when`` of another analysis asks for."""
    names = {
        asked.name
        for other in services.config.analyses
        for asked in results_of(other.when, other.after)
        if asked.analysis == analysis
    }
    kept: dict[str, tuple[str, ...]] = {}
    for name in sorted(names & facts.keys()):
        if len(json.dumps(kept | {name: facts[name]})) <= _MOST_KEPT_BYTES:
            kept[name] = facts[name]
    return kept


@dataclass(frozen=True)
class _Ending:
    """How a job ends: what is written in the transaction that ends it."""

    services: Services
    job: Job
    run: _Run

    def follow(self, connection: sqlite3.Connection) -> None:
        """Let those begin that waited for this analysis."""
        follow_up(self.services, connection, self.job)

    def refused(self, error: AnodeError) -> Outcome:
        """A refusal: done, with the reason on record, since another try would say the same."""
        record = self.writer(state=error.name, reason=str(error))

        def apply(connection: sqlite3.Connection) -> None:
            if isinstance(error, RefusedByModel):
                # Its process works: it has looked, and answered.
                parking.succeeded(connection, self.run.analysis)
            record(connection)

        if isinstance(error, TwoPatients):
            # As the selection does: somebody has to correct the study.
            return SetAside(error, apply)
        return Done(apply)

    def failed(self, error: AnodeError) -> Callable[[sqlite3.Connection], None]:
        """Return what counts a failure of the model, which may be one too many; a tick raises the alarm."""
        services, name = self.services, self.run.analysis
        record = self.writer(state=FAILED, reason=str(error))

        def write(connection: sqlite3.Connection) -> None:
            over = f"{self.run.study_instance_uid}/{self.run.series_instance_uid}"
            if parking.crashed(connection, name, over, str(error), services.clock.timestamp()):
                logger.error("analysis parked", extra={"analysis": name, "error": error.name})
            record(connection)

        return write

    def writer(
        self, *, state: str, is_over: bool = True, **facts: Any
    ) -> Callable[[sqlite3.Connection], None]:
        """Return what records the end of the run, and lets those begin that waited for it."""
        run = self.run

        def write(connection: sqlite3.Connection) -> None:
            analysis_runs.record(
                connection,
                study_instance_uid=run.study_instance_uid,
                series_instance_uid=run.series_instance_uid,
                analysis=run.analysis,
                revision=run.revision,
                started_at=run.started_at,
                state=state,
                at=self.services.clock.timestamp(),
                **facts,
            )
            if is_over:
                self.follow(connection)

        return write
