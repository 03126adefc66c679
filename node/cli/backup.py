"""``anode backup``: all that is needed to begin again, while the node runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.opening import configuration, keep_others_out, records

if TYPE_CHECKING:
    from node.backup.backup import Summary
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    backup = command.add(
        commands,
        "backup",
        _run,
        summary="back up the whole data directory, while the node runs",
        description="All that was acknowledged before the command began is in it. What an earlier backup to "
        "the same folder holds already is not copied again. Each copy is proven by its digest; what is "
        "damaged in the data directory is named, and exit status is 1 then. A backup that was killed is "
        "simply repeated; the finished one before it stays usable meanwhile.",
        examples="anode backup /mnt/backup/anode\nanode backup /mnt/backup/anode --json",
    )
    backup.add_argument(
        "--verify", action="store_true", help="read the copies that are there as well; mend those damaged"
    )
    backup.add_argument("folder", metavar="DIR", type=Path, help="on another disk; made where it is absent")


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from node.backup import backup
    from node.storage import guard

    config = configuration(arguments)
    keep_others_out()
    with records(config) as opened:
        with opened.database.read() as connection:
            total = opened.index.counts(connection)["instances"]
        source = backup.Source(
            data_dir=config.node.data_dir,
            state_file=guard.state_file_of(config.source),
            configuration=config.source,
            database=opened.database,
            clock=opened.clock,
        )
        is_quiet = arguments.json or not sys.stderr.isatty()
        with tqdm(total=total, desc="backup", unit="file", file=sys.stderr, disable=is_quiet) as progress:
            summary = backup.make(
                source, arguments.folder, is_verifying=arguments.verify, progress=progress.update
            )
    if arguments.json:
        output.as_json(asdict(summary))
    else:
        _print(summary, arguments.folder)
    return 1 if summary.damages else 0


def _print(summary: Summary, folder: Path) -> None:
    if summary.damages:
        output.first_problems("SOP INSTANCE", [(one.where, one.problem) for one in summary.damages])
        output.line()
    output.line(
        f"{output.count(summary.files, 'file')}, {output.size(summary.total_bytes)} in {folder}; "
        f"{summary.new_files} new, {output.size(summary.new_bytes)}"
    )
    if summary.damages:
        output.note(
            f"{output.count(len(summary.damages), 'instance')} of the data directory cannot be given back; "
            "'anode verify' marks them, and the sender or this backup may still have them"
        )
