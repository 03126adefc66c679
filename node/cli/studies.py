"""``anode studies``: what is here and how far each study has come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from node.cli import command, output
from node.cli.named import study_named
from node.cli.opening import Records, configuration, is_running, records
from node.errors import WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.index.index import StoredInstance


def register(commands: Commands) -> None:
    """Add the command."""
    studies = command.add(
        commands,
        "studies",
        _run,
        summary="list studies and how far each has come, the latest first",
        description="Receiving, complete, analysed, returned; stored, where nothing more was asked for; "
        "refused, where no analysis that looked can use its series; stopped, where something was set aside "
        "or damaged, and a person has to look ('anode why STUDY'). An analysis or a route that no series "
        "matches changes nothing here.",
        examples="anode studies\nanode studies --limit 10 --json\n"
        "anode studies 1.2.840.113619.2.55.3 --instances",
    )
    studies.add_argument("study", metavar="STUDY", nargs="?", help="only this one")
    studies.add_argument(
        "--names", action="store_true", help="show Patient ID, Patient's Name, Accession Number"
    )
    studies.add_argument(
        "--quarantine", action="store_true", help="list instead what came under a UID that is held already"
    )
    studies.add_argument(
        "--instances",
        action="store_true",
        help="list instead the instances of STUDY: with which codec each is stored, or why as it was "
        "received; with --json all that was proven",
    )
    studies.add_argument("--limit", metavar="N", type=int, default=50, help="the latest N (default: 50)")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise WrongUsage("--limit expects a number of at least 1")
    config = configuration(arguments)
    with records(config) as opened:
        named = None if arguments.study is None else study_named(opened, arguments.study)
        if arguments.quarantine:
            return _quarantine(opened, named, as_json=arguments.json)
        if arguments.instances:
            return _instances(opened, named, as_json=arguments.json)
        with opened.database.read() as connection:
            damaged = len(opened.index.damaged(connection))
        studies, more = _studies(opened, named, arguments.limit, arguments.names)
    if damaged:
        output.note(
            f"{output.count(damaged, 'instance')} of those held here cannot be given back as received, "
            "as 'anode verify' found; 'anode verify --damaged' names them"
        )
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
            row[1:1] = [" and ".join(study["patient_ids"]), study["patient_name"], study["accession_number"]]
    output.table(headings, rows)
    if more:
        output.note(f"only the latest {arguments.limit} are shown; --limit shows more")
    return 0


def _studies(
    opened: Records, study: str | None, limit: int, names: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Return the studies to show, and whether there are more."""
    from node.cli.study_facts import gather
    from node.explanation import explanation
    from node.index import identity

    running = is_running(opened.config)
    with opened.database.read() as connection:
        found = opened.index.studies(connection, limit=limit + 1, study_instance_uid=study)
        shown = []
        for row in found[:limit]:
            uid = row["StudyInstanceUID"]
            facts = gather(opened, connection, uid, node_is_running=running, with_instances=False)
            people = {
                "patient_ids": [
                    patient.partition("\x1f")[0]
                    for patient in identity.patients_of_study(connection, uid)
                    if not patient.startswith("study:")
                ],
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


def _instances(opened: Records, study: str | None, *, as_json: bool) -> int:
    """List the instances of a study, and how each is stored."""
    if study is None:
        raise WrongUsage("--instances needs a study", action="'anode studies' lists them")
    with opened.database.read() as connection:
        found = opened.index.of_study(connection, study)
        damaged = dict(opened.index.damaged(connection, study))
    if as_json:
        output.as_json(
            [
                {
                    "sop_instance_uid": one.sop_instance_uid,
                    "series_instance_uid": one.series_instance_uid,
                    "sop_class_uid": one.sop_class_uid,
                    "received_transfer_syntax_uid": one.received_transfer_syntax_uid,
                    "stored_transfer_syntax_uid": one.stored_transfer_syntax_uid,
                    "data_set_sha256": one.data_set_sha256,
                    "data_set_bytes": one.data_set_bytes,
                    "place": str(one.location),
                    "is_settled": one.is_settled,
                    "kept_reason": one.kept_reason,
                    "proof": one.proof,
                    "problem": damaged.get(one.sop_instance_uid, ""),
                }
                for one in found
            ]
        )
        return 0
    rows = [
        [
            one.sop_instance_uid,
            output.size(one.data_set_bytes),
            *_stored(one),
            damaged.get(one.sop_instance_uid, ""),
        ]
        for one in found
    ]
    output.table(
        ["SOP INSTANCE", "RECEIVED", "STORED AS", "RATIO", "WHY, OR PROBLEM"],
        [[uid, size, name, ratio, problem or reason] for uid, size, name, ratio, reason, problem in rows],
    )
    return 0


def _stored(one: StoredInstance) -> tuple[str, str, str]:
    """With which codec an instance is stored, how many times smaller, and why it is kept where it is."""
    if not one.is_settled:
        return "as received", "", "not settled yet"
    stored = (one.proof or {}).get("stored", {})
    if one.kept_reason:
        return "as received", "", one.kept_reason
    return str(stored.get("codec", "")), f"{stored['ratio']:.2f}" if "ratio" in stored else "", "proven"


def _quarantine(opened: Records, study: str | None, *, as_json: bool) -> int:
    """List the instances whose content differs from what is held under the same UID."""
    with opened.database.read() as connection:
        found = [
            row
            for row in opened.index.quarantined(connection)
            if study is None or row["study_instance_uid"] == study
        ]
    if as_json:
        names = ("id", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid")
        output.as_json(
            [
                {
                    **{name: row[name] for name in names},
                    "transfer_syntax_uid": row["transfer_syntax_uid"],
                    "data_set_sha256": row["data_set_sha256"],
                    "data_set_bytes": row["data_set_bytes"],
                    "received": output.iso(row["received_at"]),
                    "calling_ae_title": row["provenance"].calling_ae_title,
                    "peer_address": row["provenance"].peer_address,
                    "imported_from": row["provenance"].imported_from,
                    "reason": row["reason"],
                }
                for row in found
            ]
        )
        return 0
    rows = [
        [
            row["id"],
            output.moment(row["received_at"]),
            row["provenance"].sender,
            row["sop_instance_uid"],
            row["reason"],
        ]
        for row in found
    ]
    output.table(["NUMBER", "RECEIVED", "FROM", "SOP INSTANCE", "DIFFERS IN"], rows)
    return 0


def _date(value: str) -> str:
    """Return a DICOM date (PS3.5 section 6.2) as ISO 8601, and anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value
