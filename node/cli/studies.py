"""``anode studies``: what is here and how far each study has come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from node import explanation
from node.cli import command, output
from node.cli.opening import Records, configuration, is_running, records
from node.cli.study_argument import study_named
from node.cli.study_facts import gather
from node.errors import WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    studies = command.add(
        commands,
        "studies",
        _run,
        summary="list studies and how far each has come, the latest first",
        description="Receiving, complete, analysed, returned; stored, where nothing more was asked for; "
        "stopped, where a person has to look ('anode why STUDY').",
        examples="anode studies\nanode studies --limit 10 --json",
    )
    studies.add_argument("study", metavar="STUDY", nargs="?", help="only this one")
    studies.add_argument(
        "--names", action="store_true", help="show Patient ID, Patient's Name, Accession Number"
    )
    studies.add_argument("--limit", metavar="N", type=int, default=50, help="the latest N (default: 50)")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise WrongUsage("--limit expects a number of at least 1")
    config = configuration(arguments)
    with records(config) as opened:
        named = None if arguments.study is None else study_named(opened, arguments.study)
        studies, more = _studies(opened, named, arguments.limit, arguments.names)
    if arguments.json:
        output.as_json(studies)
        return 0
    headings = ["STUDY", "DATE", "MODALITIES", "SERIES", "INSTANCES", "STATE", "LAST RECEIVED"]
    rows = [
        [
            study["study_instance_uid"],
            _date(study["study_date"]),
            ",".join(study["modalities"]),
            study["series"],
            study["instances"],
            study["state"],
            output.moment(study["last_received_at"]),
        ]
        for study in studies
    ]
    if arguments.names:
        headings[1:1] = ["PATIENT ID", "NAME", "ACCESSION"]
        for row, study in zip(rows, studies, strict=True):
            row[1:1] = [study["patient_id"], study["patient_name"], study["accession_number"]]
    output.table(headings, rows)
    if more:
        output.note(f"only the latest {arguments.limit} are shown; --limit shows more")
    return 0


def _studies(
    opened: Records, study: str | None, limit: int, names: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Return the studies to show, and whether there are more."""
    running = is_running(opened.config)
    with opened.database.read() as connection:
        found = opened.index.studies(connection, limit=limit + 1, study_instance_uid=study)
        shown = []
        for row in found[:limit]:
            uid = row["StudyInstanceUID"]
            facts = gather(opened, connection, uid, node_is_running=running)
            people = {
                "patient_id": row["PatientID"],
                "patient_name": row["PatientName"],
                "accession_number": row["AccessionNumber"],
            }
            shown.append(
                {
                    "study_instance_uid": uid,
                    **(people if names else {}),
                    "study_date": row["StudyDate"],
                    "modalities": sorted(str(row["ModalitiesInStudy"]).split("\\")),
                    "series": row["series"],
                    "instances": row["instances"],
                    "state": explanation.state_of(facts),
                    "patients": facts.patients,
                    "last_received": output.iso(row["last_received_at"]),
                    "last_received_at": row["last_received_at"],
                }
            )
    return shown, len(found) > limit


def _date(value: str) -> str:
    """Return a DICOM date (PS3.5 section 6.2) as ISO 8601, and anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value
