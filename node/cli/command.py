"""How a command is registered: its help with an example, and the options that many share."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from node import logs
from node.config.settings import LogConfig

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_WIDTH = 88

Run = Callable[[argparse.Namespace], int]


def add(
    commands: Commands,
    name: str,
    run: Run,
    *,
    summary: str,
    description: str = "",
    examples: str,
    config: bool = True,
    json: bool = True,
    logs_itself: bool = False,
) -> argparse.ArgumentParser:
    """Add the command ``name``; ``run`` gets the parsed arguments and returns the exit status.

    Only errors are logged while it runs, as what it prints says the rest; ``logs_itself`` is for
    the node.
    """
    heading = "examples" if "\n" in examples else "example"
    indented = "\n".join(f"  {example}" for example in examples.splitlines())
    command = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(f"{summary[:1].upper()}{summary[1:]}. {description}".strip(), _WIDTH),
        epilog=f"{heading}:\n{indented}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if config:
        command.add_argument("--config", metavar="FILE", help="the configuration (default: ./config.toml)")
    if json:
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=run if logs_itself else _quietly(run))
    return command


def positive_seconds(text: str) -> float:
    """Read the value of an option that is a time in seconds (an ``argparse`` type)."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, not '{text}'")
    return seconds


def _quietly(run: Run) -> Run:
    def run_quietly(arguments: argparse.Namespace) -> int:
        with logs.configured(LogConfig(level="ERROR")):
            return run(arguments)

    return run_quietly
