"""Gathers what the records hold on one study."""

from __future__ import annotations

import sqlite3

from node import analysis_runs, confirmations, parking
from node.cli.opening import Records, config_argument, stale_configuration, standing_alarms
from node.explanation.facts import Facts
from node.jobs import listing

_ALL_JOBS = 1_000_000


def gather(
    opened: Records,
    connection: sqlite3.Connection,
    study_instance_uid: str,
    *,
    node_is_running: bool,
    with_instances: bool = True,
) -> Facts:
    """Read the facts of one study, all from the one snapshot of ``connection``.

    Who sent it and which results are pictures is found by a look at every instance, which a list of studies
    can do without.
    """
    from node.index import identity

    config = opened.config
    runs = analysis_runs.of_study(connection, study_instance_uid)
    has_results = any(run["result_sop_instance_uids"] for run in runs)
    instances = (
        opened.index.of_study(connection, study_instance_uid)
        if with_instances and (config.routes or has_results)
        else []
    )
    return Facts(
        study_instance_uid=study_instance_uid,
        now=opened.clock.timestamp(),
        node_is_running=node_is_running,
        patients=len(identity.patients_of_study(connection, study_instance_uid)),
        analyses=config.analyses,
        routes=config.routes,
        series_headers=opened.index.series_headers(connection, study_instance_uid),
        waiting=opened.completion.waiting(connection, study_instance_uid),
        runs=runs,
        jobs=listing.jobs(connection, study_instance_uid=study_instance_uid, limit=_ALL_JOBS),
        quarantined=[
            row
            for row in opened.index.quarantined(connection)
            if row["study_instance_uid"] == study_instance_uid
        ],
        senders=frozenset(one.provenance.calling_ae_title for one in instances if not one.is_own),
        kinds_of_results={
            one.sop_instance_uid: one.provenance.run.kind
            for one in instances
            if one.provenance.run is not None
        },
        confirmations=confirmations.of_study(connection, study_instance_uid),
        damaged=opened.index.damaged(connection, study_instance_uid),
        parked=parking.parked(connection),
        stale_configuration=stale_configuration(config),
        alarms=standing_alarms(config),
        command_options=config_argument(config),
    )
