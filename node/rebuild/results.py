"""The runs of analyses, told again by the results that they left."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from node import analysis_runs
from node.analysis_runs import COMPLETED, INCOMPLETE
from node.index.index import Run, StoredInstance
from node.storage.location import Location


def _without_place(run: Run) -> Run:
    """What all results of a run say of it; what it found, one of them alone does."""
    return replace(run, kind="", number=0, facts={})


@dataclass(frozen=True)
class _Result:
    run: Run
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    location: Location


@dataclass
class Results:
    """Results as they are found, by their runs."""

    _of_runs: dict[Run, list[_Result]] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return len(self._of_runs)

    def add(self, stored: StoredInstance) -> None:
        """Take note of an instance, which counts where an analysis of this node made it."""
        run = stored.provenance.run
        if run is not None:
            self._of_runs[_without_place(run)].append(
                _Result(
                    run,
                    stored.study_instance_uid,
                    stored.series_instance_uid,
                    stored.sop_class_uid,
                    stored.sop_instance_uid,
                    stored.location,
                )
            )

    def incomplete(self) -> Iterator[tuple[Location, str]]:
        """Yield a result of each run of which others are not there, and what that means."""
        for run, found in self._of_runs.items():
            if len(found) < run.objects:
                yield (
                    found[0].location,
                    f"it is kept, but {_missing(run, found)}, and may have been sent: look whether the peers "
                    f"that get results have it; 'anode retry --study {found[0].study_instance_uid} --again' "
                    "makes new ones",
                )

    def record(self, connection: sqlite3.Connection, at: float) -> None:
        """Record each run as completed, so that it is not done again while its series stays as it is.

        One of which a result is missing is not done again either, before a person asks for it: whether that
        was delivered, or never written as the node was stopped, looks the same.
        """
        for run, found in sorted(self._of_runs.items(), key=lambda item: item[0].started_at):
            results = sorted(found, key=lambda one: one.run.number)
            is_whole = len(found) == run.objects
            report = next((one for one in results if one.run.kind == "sr"), None)
            analysis_runs.record_selection(
                connection,
                study_instance_uid=results[0].study_instance_uid,
                series_instance_uid=run.series_instance_uid,
                analysis=run.analysis,
                revision=run.revision,
                selected_digest=run.selected_digest,
                started_at=run.started_at,
                at=at,
            )
            analysis_runs.record(
                connection,
                study_instance_uid=results[0].study_instance_uid,
                series_instance_uid=run.series_instance_uid,
                analysis=run.analysis,
                revision=run.revision,
                state=COMPLETED if is_whole else INCOMPLETE,
                reason="" if is_whole else f"{_missing(run, found)} since the index was made again",
                at=at,
                input_digest=run.input_digest,
                model=run.model,
                started_at=run.started_at,
                sr_series_instance_uid=report.series_instance_uid if report else "",
                sr_sop_class_uid=report.sop_class_uid if report else "",
                sr_sop_instance_uid=report.sop_instance_uid if report else "",
                result_sop_instance_uids=[one.sop_instance_uid for one in results],
                facts=next((one.run.facts for one in results if one.run.facts), {}),
            )


def _missing(run: Run, found: list[_Result]) -> str:
    missing = run.objects - len(found)
    return f"{missing} of the {run.objects} results of its run {'is' if missing == 1 else 'are'} missing"
