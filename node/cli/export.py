"""``anode export``: a study as files, for a CD, a colleague or another archive."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.named import study_named
from node.cli.opening import configuration, keep_others_out, records

if TYPE_CHECKING:
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    export = command.add(
        commands,
        "export",
        _run,
        summary="write a study as DICOM files with a DICOMDIR",
        description="Data sets are written byte for byte as they were received, each proven by its digest "
        "before, the node's own results among them. DIR must be absent or empty: nothing is overwritten. "
        "Exit status 1 where an instance could not be written.",
        examples="anode export 1.2.840.113619.2.55.3 /tmp/study\nanode export A123456 study --as stored",
    )
    export.add_argument("study", metavar="STUDY", help="a Study Instance UID, its beginning, or an accession")
    export.add_argument("folder", metavar="DIR", type=Path, help="made where it is absent")
    export.add_argument(
        "--as",
        dest="form",
        choices=("received", "stored"),
        default="received",
        help="in the transfer syntax as received (default), or losslessly compressed as stored",
    )


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from node import file_set

    keep_others_out()
    with records(configuration(arguments)) as opened:
        study = study_named(opened, arguments.study)

        with opened.database.read() as connection:
            instances = opened.index.of_study(connection, study)
        services = opened.services()
        is_quiet = arguments.json or not sys.stderr.isatty()
        try:
            with tqdm(
                total=len(instances), desc="export", unit="instance", file=sys.stderr, disable=is_quiet
            ) as progress:
                written = file_set.write(
                    services.storage,
                    instances,
                    arguments.folder,
                    as_stored=arguments.form == "stored",
                    look_up=opened.look_up,
                    progress=progress.update,
                )
        finally:
            services.storage.close()
    if arguments.json:
        output.as_json(
            {
                "study_instance_uid": study,
                "folder": str(arguments.folder),
                "instances": written.instances,
                "bytes": written.total_bytes,
                "problems": [
                    {"sop_instance_uid": uid, "problem": problem} for uid, problem in written.problems
                ],
            }
        )
    else:
        if written.problems:
            output.first_problems("SOP INSTANCE", written.problems)
            output.line()
        what = f"{output.count(written.instances, 'instance')}, {output.size(written.total_bytes)}"
        output.line(f"{what} and a DICOMDIR in {arguments.folder}" if written.instances else what)
    return 1 if written.problems else 0
