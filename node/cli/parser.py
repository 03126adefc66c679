"""All commands of ``anode`` and what they have in common."""

from __future__ import annotations

import argparse
from importlib import metadata

from node.cli import (
    analyze,
    backup,
    check,
    demo,
    echo,
    export,
    import_,
    jobs,
    models,
    rebuild,
    restore,
    restore_backup,
    run,
    send,
    show,
    status,
    studies,
    verify,
    why,
)

_COMMANDS = (
    *(run, demo, check, status, studies, jobs, why, verify, show, restore, echo, send, models, analyze),
    *(rebuild, backup, restore_backup, import_, export),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it parses has ``run``, the function of the chosen command."""
    top = argparse.ArgumentParser(
        prog="anode",
        description="A DICOM network node: it keeps every byte, proves its lossless compression, "
        "analyses complete studies and returns the results.",
        epilog="Exit status: 0 done, 1 it failed, 2 wrong usage or configuration, 130 interrupted.\n"
        "'anode COMMAND --help' says more, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"anode {_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.register(commands)
    return top


def _version() -> str:
    try:
        return metadata.version("anode")
    except metadata.PackageNotFoundError:
        return "(not installed)"
