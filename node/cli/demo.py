"""``anode demo``: the product in under two minutes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from node.cli import command

if TYPE_CHECKING:
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    demo = command.add(
        commands,
        "demo",
        _run,
        summary="show the whole way of a study, from a scanner to the results in a PACS",
        description="It starts a node and a small PACS of its own on free ports and needs no configuration.",
        examples="anode demo\nanode demo ~/dicom/chest-ct --output demo-output",
        config=False,
        json=False,
    )
    demo.add_argument(
        "path", metavar="PATH", nargs="?", help="a folder of your own DICOM files to use instead"
    )
    demo.add_argument("--output", metavar="DIR", help="where to leave the results (default: demo-output)")


def _run(arguments: argparse.Namespace) -> int:
    from node.demo import demo

    return demo.main(arguments)
