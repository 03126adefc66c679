"""``anode restore``: an instance as a file, exactly as it was received."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.named import instance_named
from node.cli.opening import configuration, keep_others_out, records

if TYPE_CHECKING:
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    restore = command.add(
        commands,
        "restore",
        _run,
        summary="write an instance exactly as it was received",
        description="The data set is restored byte for byte, in the transfer syntax in which it came, and "
        "proven by the SHA-256 that was taken then before anything is written. The node may be running. "
        "Nothing is overwritten. Exit status 1, and no file, where it cannot be given back.",
        examples="anode restore 1.2.840.113619.2.55.3.1.7 -o image.dcm\n"
        "anode restore 1.2.840.113619.2.55.3.1.7 --data-set -o image.raw",
    )
    restore.add_argument("instance", metavar="INSTANCE", help="a SOP Instance UID, or its beginning")
    restore.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="default: the UID with .dcm, in the present folder"
    )
    restore.add_argument(
        "--data-set",
        action="store_true",
        help="the bare data set as it came over the wire, without File Meta Information",
    )


def _run(arguments: argparse.Namespace) -> int:
    from node import instance_file

    keep_others_out()
    with records(configuration(arguments)) as opened:
        stored = instance_named(opened, arguments.instance)
        ending = ".raw" if arguments.data_set else ".dcm"
        path = arguments.output or Path(stored.sop_instance_uid + ending)
        services = opened.services()
        try:
            instance_file.write(
                services.storage, stored, path, look_up=opened.look_up, has_meta=not arguments.data_set
            )
        finally:
            services.storage.close()
    if arguments.json:
        output.as_json(
            {
                "sop_instance_uid": stored.sop_instance_uid,
                "file": str(path),
                "transfer_syntax_uid": stored.received_transfer_syntax_uid,
                "data_set_bytes": stored.data_set_bytes,
                "data_set_sha256": stored.data_set_sha256,
            }
        )
    else:
        output.line(f"{path}: {output.size(stored.data_set_bytes)} as received, proven")
    return 0
