"""The runs of analyses, told again by the results that they left."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field, replace

from node.completion import COMPLETED, Completion
from node.index.index import Run, StoredInstance


def without_place(run: Run) -> Run:
    """What all results of a run say of it."""
    return replace(run, kind="", number=0)


@dataclass(frozen=True)
class _Result:
    run: Run
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


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
            self._of_runs[without_place(run)].append(
                _Result(
                    run,
                    stored.study_instance_uid,
                    stored.series_instance_uid,
                    stored.sop_class_uid,
                    stored.sop_instance_uid,
                )
            )

    def record(self, connection: sqlite3.Connection, completion: Completion) -> None:
        """Record each run as completed, so that it is not done again while its series stays as it is."""
        for run, found in sorted(self._of_runs.items(), key=lambda item: item[0].started_at):
            results = sorted(found, key=lambda one: one.run.number)
            report = next((one for one in results if one.run.kind == "sr"), None)
            completion.record_selection(
                connection,
                study_instance_uid=results[0].study_instance_uid,
                series_instance_uid=run.series_instance_uid,
                analysis=run.analysis,
                revision=run.revision,
                selected_digest=run.selected_digest,
                started_at=run.started_at,
            )
            completion.record_run(
                connection,
                study_instance_uid=results[0].study_instance_uid,
                series_instance_uid=run.series_instance_uid,
                analysis=run.analysis,
                revision=run.revision,
                state=COMPLETED,
                input_digest=run.input_digest,
                model=run.model,
                started_at=run.started_at,
                sr_series_instance_uid=report.series_instance_uid if report else "",
                sr_sop_class_uid=report.sop_class_uid if report else "",
                sr_sop_instance_uid=report.sop_instance_uid if report else "",
                result_sop_instance_uids=[one.sop_instance_uid for one in results],
            )
