"""``anode rebuild``: the index made again from the archive and the receive log."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from node.cli import command, output
from node.cli.access import refuse_root
from node.cli.opening import config_argument, configuration

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.rebuild.rebuilding import Rebuilt

T = TypeVar("T")


def register(commands: Commands) -> None:
    """Add the command."""
    rebuild = command.add(
        commands,
        "rebuild",
        _run,
        summary="make the index again from the archive and the receive log",
        description="For an index that is damaged or lost, while the node is stopped. The old index is set "
        "aside, and nothing is sent, forwarded or analysed a second time. It may be stopped and begun again "
        "at any point. What could not be read is listed; exit status 1 then. 'anode verify' proves what "
        "was found.",
        examples="anode rebuild\nanode rebuild --config /etc/anode/config.toml --json",
    )
    rebuild.add_argument(
        "--without-log",
        action="store_true",
        help="the receive log is lost for good: begin it anew, and do without what was not settled yet",
    )


class _Bars:
    """Progress on standard error."""

    def over(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        from tqdm import tqdm

        yield from tqdm(items, desc=what, total=total, file=sys.stderr, mininterval=1.0)


def _run(arguments: argparse.Namespace) -> int:
    from node.clock import Clock
    from node.rebuild.rebuilding import rebuild

    config = configuration(arguments)
    refuse_root(config.node.data_dir)
    rebuilt = rebuild(config, Clock(), _Bars(), is_log_lost=arguments.without_log)
    if arguments.json:
        output.as_json(_for_programs(rebuilt))
    else:
        _print(rebuilt, config_argument(config))
    return 1 if rebuilt.left_out else 0


def _for_programs(rebuilt: Rebuilt) -> dict[str, Any]:
    return {
        "studies": rebuilt.studies,
        "instances": rebuilt.instances,
        "instances_not_settled": rebuilt.unsettled,
        "instances_of_this_node": rebuilt.own,
        "quarantined": rebuilt.quarantined,
        "analysis_runs": rebuilt.runs,
        "studies_looked_at_again": rebuilt.rearmed,
        "set_aside": None if rebuilt.set_aside is None else str(rebuilt.set_aside),
        "left_out": [{"file": one.file, "reason": one.reason} for one in rebuilt.left_out],
    }


def _print(rebuilt: Rebuilt, config_argument: str) -> None:
    if rebuilt.left_out:
        output.table(["LEFT OUT", "REASON"], rebuilt.left_out)
    output.facts(
        [
            ("studies", rebuilt.studies),
            ("instances", rebuilt.instances),
            ("not yet settled", rebuilt.unsettled),
            ("made by this node", rebuilt.own),
            ("quarantine", rebuilt.quarantined),
            ("analysis runs", rebuilt.runs),
            ("looked at again", output.count(rebuilt.rearmed, "study", "studies")),
            ("left out", len(rebuilt.left_out)),
            ("old index", rebuilt.set_aside or "there was none"),
        ]
    )
    output.note(f"'anode verify{config_argument}' proves what was found; nothing was sent or forwarded again")
    output.note(
        "what was still to be sent or forwarded is known no more: 'anode export' writes a study, "
        "'anode send' sends it"
    )
