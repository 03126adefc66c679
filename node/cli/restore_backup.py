"""``anode restore-backup``: a backup back into an empty data directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.cli import command, output
from node.cli.access import refuse_root
from node.cli.opening import config_argument, configuration, keep_others_out
from node.config.settings import Config

if TYPE_CHECKING:
    from node.backup.manifest import Manifest
    from node.backup.restoring import Restored
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    restore = command.add(
        commands,
        "restore-backup",
        _run,
        summary="put a backup back into the configured data_dir, which must be empty or absent",
        description="Each file is proven by the digest of the manifest. A node does not start before all is "
        "there; a restore that was killed is simply repeated. Deliveries and analyses that waited are "
        "held, as they may have been done after the backup: 'anode jobs --state set-aside' lists them, "
        "'anode retry' lets them go on. Exit status 1 where a file of the backup is damaged.",
        examples="anode restore-backup /mnt/backup/anode\nanode restore-backup /mnt/backup/anode --moved",
    )
    restore.add_argument("folder", metavar="DIR", type=Path, help="what 'anode backup' was given")
    restore.add_argument(
        "--moved",
        action="store_true",
        help="the node was stopped before the backup and has not run since: hold nothing",
    )


def _run(arguments: argparse.Namespace) -> int:
    from node.backup import restoring
    from node.storage import guard
    from node.storage.guard import DataDirectory

    config = configuration(arguments)
    keep_others_out()
    data_dir, state_file = config.node.data_dir, guard.state_file_of(config.source)
    refuse_root(data_dir)
    backup = restoring.whole(arguments.folder)
    reserve_bytes = config.storage.free_space_reserve_bytes
    # Before the lock, so that a refusal leaves nothing; and after it, as nobody else can change it then.
    restoring.check(data_dir, backup, state_file, reserve_bytes)
    directory = DataDirectory(data_dir, state_file)
    directory.lock()
    try:
        restoring.check(data_dir, backup, state_file, reserve_bytes)
        restored, held = _restore(config, backup, arguments)
    finally:
        directory.close()
    if arguments.json:
        output.as_json(_for_programs(backup, restored, held))
    else:
        _print(config, backup, restored, held)
    return 1 if restored.damages else 0


def _restore(config: Config, backup: Manifest, arguments: argparse.Namespace) -> tuple[Restored, int]:
    from tqdm import tqdm

    from node.backup import restoring
    from node.cli.exclusive import writable

    is_quiet = arguments.json or not sys.stderr.isatty()
    with tqdm(total=backup.files, desc="restore", unit="file", file=sys.stderr, disable=is_quiet) as progress:
        restored = restoring.put_back(config.node.data_dir, backup, progress.update)
    with writable(config) as services:
        held = restoring.finish(services, backup, is_moved=arguments.moved)
    restoring.close(config.node.data_dir, backup)
    return restored, held


def _for_programs(backup: Manifest, restored: Restored, held: int) -> dict[str, Any]:
    return {
        "archive": backup.origin.archive,
        "backed_up": output.iso(backup.origin.began_at),
        "files": restored.files,
        "bytes": restored.total_bytes,
        "jobs_held": held,
        "damages": [{"file": damage.where, "problem": damage.problem} for damage in restored.damages],
    }


def _print(config: Config, backup: Manifest, restored: Restored, held: int) -> None:
    if restored.damages:
        output.first_problems("FILE", [(one.where, one.problem) for one in restored.damages])
        output.line()
    output.line(
        f"{output.count(restored.files, 'file')}, {output.size(restored.total_bytes)}, as of "
        f"{output.moment(backup.origin.began_at)}, are in {config.node.data_dir}"
    )
    option = config_argument(config)
    if held:
        output.note(
            f"{output.count(held, 'job')} may have been done after the backup and are held: "
            f"'anode jobs --state set-aside{option}' lists them, 'anode retry --all{option}' does them"
        )
    output.note(f"start the node with 'anode run{option}'")
