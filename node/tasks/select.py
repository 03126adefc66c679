"""Decides which series of a complete study an analysis sees, and says why where it sees none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from node.completion import COMPLETED, INCOMPLETE, NO_MATCH, QUEUED, UNCHANGED, input_digest
from node.config.settings import AnalysisConfig
from node.errors import TwoPatients
from node.index import identity
from node.index.matching_rules import differs
from node.jobs.task import Done, Job, Outcome, SetAside
from node.services import Services

TWO_PATIENTS = "two-patients"

# Runs that need no repetition as long as the series is the same.
_GOOD_STATES = (QUEUED, COMPLETED, INCOMPLETE, UNCHANGED)

#: Modalities whose objects describe images, not show them (PS3.3 section C.7.3.1.1.1).
MODALITIES_WITHOUT_IMAGES = frozenset(
    {
        *("SR", "SEG", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTINTENT", "RTSEGANN", "REG", "FID"),
        *("DOC", "PLAN", "AU", "ECG", "EEG", "EMG", "EOG", "EPS", "HD", "RESP", "RWV", "SMR", "ANN", "ASMT"),
        *("KER", "LEN", "AR", "SRF", "VA", "M3D", "TEXTUREMAP", "BDUS", "POS", "OSS", "STAIN"),
    }
)


@dataclass(frozen=True)
class _Choice:
    """A series that an analysis sees, and the digest of what is in it."""

    series_instance_uid: str
    digest: str


class SelectTask:
    """Matches the series of a study with the ``when`` of one analysis."""

    kind = "select"
    batch = 1

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job: done with an analysis enqueued for each series, or with the reason why not."""
        for job in jobs:
            yield job, self._select(services, job)

    def _select(self, services: Services, job: Job) -> Outcome:
        study_instance_uid = str(job.payload["study_instance_uid"])
        name, revision = str(job.payload["analysis"]), int(job.payload["revision"])
        analysis = services.completion.analysis(name)
        if analysis is None:
            # It was taken out of the configuration between its quiet period and now.
            return Done()
        with services.database.read() as connection:
            patients = identity.patients_of_study(connection, study_instance_uid)
            headers = services.index.series_headers(connection, study_instance_uid)
            matching, reason = _match(analysis, headers)
            choices = [
                _Choice(uid, _digest(services, connection, uid))
                for uid in (str(header["SeriesInstanceUID"]) for header in matching)
            ]
        if len(patients) > 1:
            return _refuse(services, job, len(patients))
        started_at = services.clock.timestamp()

        def apply(connection: sqlite3.Connection) -> None:
            if not choices:
                services.completion.record_run(
                    connection,
                    study_instance_uid=study_instance_uid,
                    analysis=name,
                    revision=revision,
                    state=NO_MATCH,
                    reason=reason,
                    model=analysis.model,
                )
            for choice in choices:
                _enqueue(services, connection, job, analysis, choice, started_at)

        return Done(apply)


def _refuse(services: Services, job: Job, patients: int) -> SetAside:
    error = TwoPatients(
        f"the study holds instances of {patients} patients, so it is not analysed",
        action="correct the patient at the source and send the study again",
    )

    def apply(connection: sqlite3.Connection) -> None:
        services.completion.record_run(
            connection,
            study_instance_uid=str(job.payload["study_instance_uid"]),
            analysis=str(job.payload["analysis"]),
            revision=int(job.payload["revision"]),
            state=TWO_PATIENTS,
            reason=str(error),
        )

    return SetAside(error, apply)


def _digest(services: Services, connection: sqlite3.Connection, series_instance_uid: str) -> str:
    return input_digest(
        (stored.sop_instance_uid, stored.data_set_sha256)
        for stored in services.index.of_series(connection, series_instance_uid)
        if not stored.is_own
    )


def _enqueue(
    services: Services,
    connection: sqlite3.Connection,
    job: Job,
    analysis: AnalysisConfig,
    choice: _Choice,
    started_at: float,
) -> None:
    study_instance_uid, revision = str(job.payload["study_instance_uid"]), int(job.payload["revision"])
    last = services.completion.last_selection(
        connection, study_instance_uid, choice.series_instance_uid, analysis.name
    )
    if last is not None and last["selected_digest"] == choice.digest and last["state"] in _GOOD_STATES:
        # What arrived late belongs to another series.
        return
    # One analysis of a series at a time, and what nobody has begun yet gives way to newer contents.
    lane = f"{analysis.name}/{choice.series_instance_uid}"
    if services.queue.supersede(connection, "analyze", lane) and last is not None:
        services.completion.supersede(
            connection,
            study_instance_uid,
            choice.series_instance_uid,
            analysis.name,
            before_revision=revision,
        )
    services.completion.record_selection(
        connection,
        study_instance_uid=study_instance_uid,
        series_instance_uid=choice.series_instance_uid,
        analysis=analysis.name,
        revision=revision,
        selected_digest=choice.digest,
        started_at=started_at,
    )
    services.queue.enqueue(
        connection,
        "analyze",
        key=f"{analysis.name}/{choice.series_instance_uid}/{revision}",
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
    )


# --- matching ----------------------------------------------------------------


def _match(
    analysis: AnalysisConfig, headers: Sequence[Mapping[str, str]]
) -> tuple[list[Mapping[str, str]], str]:
    """Series that the analysis sees, and, where there are none, the reason in one sentence."""
    matching: list[Mapping[str, str]] = []
    reasons: list[str] = []
    outside = [header for header in headers if not header.get("is_own")]
    for header in outside:
        reason = why_not(analysis.when, header)
        if reason:
            reasons.append(reason)
        else:
            matching.append(header)
    if matching:
        return matching, ""
    if not outside:
        return [], "the study holds no series but what this node made"
    counted = "the series does not match" if len(outside) == 1 else f"none of {len(outside)} series matches"
    return [], f"{counted}: {'; '.join(dict.fromkeys(reasons))}"


def why_not(when: Mapping[str, str], header: Mapping[str, str]) -> str:
    """Why an analysis with this ``when`` does not see a series; empty when it does.

    Localizers and derived images are seen only where ``when`` names ImageType; objects without
    images only where it names Modality or SOPClassUID and these match.
    """
    difference = differs(when, header)
    if difference is not None:
        keyword, pattern, actual = difference
        shown = f"is '{actual}'" if actual else "is absent or empty"
        return f"{keyword} {shown}, the analysis wants '{pattern}'"
    image_type = [value.strip().upper() for value in str(header.get("ImageType", "")).split("\\")]
    if "ImageType" not in when:
        named = "name ImageType in 'when' if such series are meant"
        if "LOCALIZER" in image_type:
            return f"the series is a localizer ({named})"
        if image_type[0] == "DERIVED":
            return f"the series is derived (ImageType begins with DERIVED; {named})"
    modality = str(header.get("Modality", "")).strip().upper()
    if modality in MODALITIES_WITHOUT_IMAGES and not {"Modality", "SOPClassUID"} & when.keys():
        return f"{modality} series hold no images (name Modality in 'when' if such series are meant)"
    return ""
