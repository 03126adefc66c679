"""Decides which series of a complete study an analysis sees, and says why where it sees none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from models import registry
from models.base import Need
from node import analysis_runs
from node.analysis_runs import COMPLETED, FAILED, INCOMPLETE, NO_MATCH, QUEUED, SUPERSEDED, UNCHANGED
from node.catalogue import catalogue
from node.completion import WAITS_SINCE
from node.config.config_values import nearest
from node.config.settings import AnalysisConfig
from node.errors import TwoPatients, UnfitInput
from node.found import Facts, is_withheld, listed_facts
from node.index import identity, priors
from node.index.matching_rules import Asked, attributes_of, results_of, wanted
from node.jobs import analysis_jobs
from node.jobs.schedule import follow_up
from node.jobs.task import Done, Job, Outcome, SetAside
from node.series import digests, selection
from node.series.matching import why_not
from node.services import Services

TWO_PATIENTS = "two-patients"
# One that grows for longer is taken as it is.
_LONGEST_WAIT_SECONDS = 600.0

# Runs that are not repeated by themselves as long as the series is the same. What a model fails over would be
# failed again, and park an analysis for the fault of one series.
_STANDING_STATES = (QUEUED, COMPLETED, INCOMPLETE, UNCHANGED, FAILED)


@dataclass(frozen=True)
class _Choice:
    """A series that an analysis sees, and the digest of all that decides what comes of it.

    Or the refusal of it, because a further input is missing.
    """

    series_instance_uid: str
    digest: str = ""
    refusal: UnfitInput | None = None


class SelectTask:
    """Matches the series of a study with the ``when`` of one analysis, and finds its further inputs."""

    kind = "select"
    batch = 1

    def __init__(self) -> None:
        self._needs: dict[str, tuple[Need, ...]] = {}

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job: done with an analysis enqueued for each series, or with the reason why not."""
        for job in jobs:
            yield job, self._select(services, job)

    def _select(self, services: Services, job: Job) -> Outcome:
        study_instance_uid = str(job.payload["study_instance_uid"])
        name, revision = str(job.payload["analysis"]), int(job.payload["revision"])
        analysis = services.config.analysis(name)
        if analysis is None:
            # It was taken out of the configuration between its quiet period and now.
            return Done()
        needs = self._needs_of(analysis.model)
        with services.database.read() as connection:
            if services.completion.has_fired_since(connection, study_instance_uid, name, revision):
                # It had to wait, and more instances came meanwhile.
                return Done(lambda connection: follow_up(services, connection, job))
            until = _awaited(services, connection, job, analysis, needs)
            if until is not None:
                return Done(lambda connection: _select_later(services, connection, job, until))
            patients = identity.patients_of_study(connection, study_instance_uid)
            headers = services.index.series_headers(connection, study_instance_uid)
            matching, reason = _match(connection, analysis, study_instance_uid, headers)
            choices = [
                _choice(services, connection, analysis, needs, study_instance_uid, uid, facts)
                for uid, facts in matching.items()
            ]
        if len(patients) > 1:
            return _refuse(services, job, len(patients))
        started_at = services.clock.timestamp()

        def apply(connection: sqlite3.Connection) -> None:
            if choices:
                analysis_runs.forget_no_match(connection, study_instance_uid, name, revision)
            else:
                analysis_runs.record(
                    connection,
                    study_instance_uid=study_instance_uid,
                    analysis=name,
                    revision=revision,
                    state=NO_MATCH,
                    reason=reason,
                    model=analysis.model,
                    at=services.clock.timestamp(),
                )
            chosen = {choice.series_instance_uid for choice in choices if choice.refusal is None}
            # What was chosen before and waits is not what the analysis wants now.
            _supersede(services, connection, job, lambda series: series not in chosen)
            _drop_unseen(services, connection, job, matching)
            for choice in choices:
                if choice.refusal is None:
                    _enqueue(services, connection, job, analysis, choice, started_at)
                else:
                    _record_refusal(services, connection, job, choice.series_instance_uid, choice.refusal)
            follow_up(services, connection, job)

        return Done(apply)

    def _needs_of(self, model: str) -> tuple[Need, ...]:
        """What a model needs; of one that is unusable nothing, as its run will say what is wrong with it."""
        if model not in self._needs:
            try:
                self._needs[model] = catalogue.describe(model).needs
            except (registry.UnknownModel, registry.UnusableModel):
                return ()
        return self._needs[model]


def _supersede(
    services: Services, connection: sqlite3.Connection, job: Job, is_of: Callable[[str], bool]
) -> None:
    """End the runs that wait for this analysis of this study, of the series that ``is_of`` names."""
    of = str(job.payload["study_instance_uid"]), str(job.payload["analysis"])
    now = services.clock.timestamp()
    ended = analysis_jobs.supersede(connection, *of, is_of, at=now)
    analysis_runs.supersede(connection, *of, ended, at=now)


def _drop_unseen(services: Services, connection: sqlite3.Connection, job: Job, seen: Collection[str]) -> None:
    """End what was refused or failed of series that the analysis does not see any more."""
    of = str(job.payload["study_instance_uid"]), str(job.payload["analysis"])
    now = services.clock.timestamp()
    ended = analysis_jobs.supersede(
        connection, *of, lambda series: series not in seen, at=now, with_failed=True
    )
    analysis_runs.supersede(connection, *of, ended, at=now)
    analysis_runs.drop_unseen(connection, *of, seen, at=now)


def _awaited(
    services: Services,
    connection: sqlite3.Connection,
    job: Job,
    analysis: AnalysisConfig,
    needs: Sequence[Need],
) -> float | None:
    """When it may be known what the earlier studies hold, of which one still arrives; None when it is."""
    now = services.clock.timestamp()
    since = float(job.payload.get(WAITS_SINCE, now))
    if not any(need.comes_from == "prior" for need in needs) or not 0 <= now - since < _LONGEST_WAIT_SECONDS:
        return None
    earlier = priors.earlier_studies(connection, str(job.payload["study_instance_uid"]))
    quiet_at = max((services.completion.quiet_at(connection, one, analysis) for one in earlier), default=now)
    return min(quiet_at, since + _LONGEST_WAIT_SECONDS) if quiet_at > now else None


def _select_later(services: Services, connection: sqlite3.Connection, job: Job, until: float) -> None:
    """Enqueue the selection once more, under a key of its own, as the present job is about to be done."""
    study_instance_uid, revision = str(job.payload["study_instance_uid"]), job.payload["revision"]
    services.queue.enqueue(
        connection,
        "select",
        key=f"{study_instance_uid}/{job.payload['analysis']}/{revision}/after {job.id}",
        payload={WAITS_SINCE: services.clock.timestamp(), **job.payload},
        study_instance_uid=study_instance_uid,
        not_before=until,
        again=True,
    )


def _refuse(services: Services, job: Job, patients: int) -> SetAside:
    error = TwoPatients(
        f"the study holds instances of {patients} patients, so it is not analysed",
        action="correct the patient at the source and send the study again",
    )

    def apply(connection: sqlite3.Connection) -> None:
        analysis_runs.record(
            connection,
            study_instance_uid=str(job.payload["study_instance_uid"]),
            analysis=str(job.payload["analysis"]),
            revision=int(job.payload["revision"]),
            state=TWO_PATIENTS,
            reason=str(error),
            at=services.clock.timestamp(),
        )
        follow_up(services, connection, job)

    return SetAside(error, apply)


def _record_refusal(
    services: Services, connection: sqlite3.Connection, job: Job, series_instance_uid: str, error: UnfitInput
) -> None:
    analysis_runs.record(
        connection,
        study_instance_uid=str(job.payload["study_instance_uid"]),
        series_instance_uid=series_instance_uid,
        analysis=str(job.payload["analysis"]),
        revision=int(job.payload["revision"]),
        state=error.name,
        reason=str(error),
        at=services.clock.timestamp(),
    )


def _choice(
    services: Services,
    connection: sqlite3.Connection,
    analysis: AnalysisConfig,
    needs: Sequence[Need],
    study_instance_uid: str,
    series_instance_uid: str,
    facts: Facts,
) -> _Choice:
    try:
        chosen = selection.choose(
            services.index, connection, analysis, needs, study_instance_uid, series_instance_uid
        )
    except UnfitInput as error:
        return _Choice(series_instance_uid, refusal=error)
    return _Choice(series_instance_uid, digests.of_selection(chosen.inputs, analysis.parameters, facts))


def _enqueue(
    services: Services,
    connection: sqlite3.Connection,
    job: Job,
    analysis: AnalysisConfig,
    choice: _Choice,
    started_at: float,
) -> None:
    study_instance_uid, revision = str(job.payload["study_instance_uid"]), int(job.payload["revision"])
    last = analysis_runs.latest(connection, study_instance_uid, choice.series_instance_uid, analysis.name)
    is_again = last is not None and last["revision"] == revision
    is_same = last is not None and last["selected_digest"] == choice.digest
    is_standing = last is not None and (
        last["state"] != SUPERSEDED if is_again else last["state"] in _STANDING_STATES
    )
    if is_same and is_standing:
        # What arrived late belongs to another series.
        return
    if last is not None and is_again and last["state"] in (COMPLETED, INCOMPLETE, UNCHANGED):
        # An earlier analysis was done once more, and has found something else. A result is superseded by one
        # of a later revision alone.
        services.completion.arrived(connection, study_instance_uid, started_at)
        return
    # What nobody has begun yet gives way to newer contents.
    _supersede(services, connection, job, lambda series: series == choice.series_instance_uid)
    # One analysis of a series at a time; a Series Instance UID may be there in two studies.
    lane = f"{analysis.name}/{study_instance_uid}/{choice.series_instance_uid}"
    analysis_runs.record_selection(
        connection,
        study_instance_uid=study_instance_uid,
        series_instance_uid=choice.series_instance_uid,
        analysis=analysis.name,
        revision=revision,
        selected_digest=choice.digest,
        started_at=started_at,
        at=services.clock.timestamp(),
    )
    services.queue.enqueue(
        connection,
        "analyze",
        key=f"{lane}/{revision}",
        payload={
            "study_instance_uid": study_instance_uid,
            "series_instance_uid": choice.series_instance_uid,
            "analysis": analysis.name,
            "model": analysis.model,
            "revision": revision,
            # Frozen here, so that a repeated job makes the same objects.
            "started_at": started_at,
            "selected_digest": choice.digest,
        },
        lane=lane,
        study_instance_uid=study_instance_uid,
        again=is_again,
    )


# --- matching ----------------------------------------------------------------


def _match(
    connection: sqlite3.Connection,
    analysis: AnalysisConfig,
    study_instance_uid: str,
    headers: Sequence[Mapping[str, str]],
) -> tuple[dict[str, Facts], str]:
    """Series that the analysis sees, and what was found in them; where there are none, the reason."""
    matching: dict[str, Facts] = {}
    reasons: list[str] = []
    outside = [header for header in headers if not header.get("is_own")]
    patterns = attributes_of(analysis.when)
    for header in outside:
        uid = str(header["SeriesInstanceUID"])
        reason = why_not(patterns, header)
        if not reason:
            facts, reason = _found(connection, analysis, study_instance_uid, uid)
        if reason:
            reasons.append(reason)
        else:
            matching[uid] = facts
    if matching:
        return matching, ""
    if not outside:
        return {}, "the study holds no series but what this node made"
    counted = "the series does not match" if len(outside) == 1 else f"none of {len(outside)} series matches"
    return {}, f"{counted}: {'; '.join(dict.fromkeys(reasons))}"


def _found(
    connection: sqlite3.Connection,
    analysis: AnalysisConfig,
    study_instance_uid: str,
    series_instance_uid: str,
) -> tuple[dict[str, Sequence[str]], str]:
    """What ``when`` asks of earlier analyses and they found in a series, or why it does not match."""
    facts: dict[str, Sequence[str]] = {}
    for asked in results_of(analysis.when, analysis.after):
        found = analysis_runs.found(connection, study_instance_uid, series_instance_uid, asked.analysis)
        if isinstance(found, str):
            return {}, f"the analysis {asked.analysis} {found}"
        words = found.get(asked.name)
        if not words:
            return {}, _not_found(asked, found)
        if not asked.is_met_by(words):
            return {}, f"{asked.key} is '{words[0]}', the analysis wants {wanted(asked.pattern)}"
        facts[asked.key] = words
    return facts, ""


def _not_found(asked: Asked, found: Facts) -> str:
    """Why there is nothing to match, and what there is."""
    if is_withheld(found, asked.name):
        return f"the analysis {asked.analysis} withholds '{asked.name}', as a check of it failed"
    meant = nearest(asked.name, found)
    hint = "" if meant is None else f"; did you mean '{asked.analysis}.{meant}'?"
    told = f"it has found {listed_facts(found)}" if found else "nothing is on record that it has found"
    return f"the analysis {asked.analysis} has not found any '{asked.name}' in the series{hint} ({told})"
