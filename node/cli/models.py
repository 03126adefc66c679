"""``anode models``: what ``model = …`` may say."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from node.cli import command, output

if TYPE_CHECKING:
    from node.cli.command import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    models = command.add(
        commands,
        "models",
        _run,
        summary="list the models that an analysis can name",
        examples="anode models\nanode models lungs",
    )
    models.add_argument("name", metavar="NAME", nargs="?", help="show the whole card of this model")


def _run(arguments: argparse.Namespace) -> int:
    from models import registry
    from node.config_values import suggestion
    from node.errors import WrongUsage

    names = sorted(registry.names())
    if arguments.name is not None and arguments.name not in names:
        raise WrongUsage(
            f"there is no model '{arguments.name}'{suggestion(arguments.name, names)}",
            action="'anode models' lists all",
        )
    cards = [registry.load(name).card for name in ([arguments.name] if arguments.name else names)]
    if arguments.json:
        output.as_json([asdict(card) for card in cards])
    elif arguments.name:
        card = asdict(cards[0])
        family = card.pop("family")
        card["family"] = f"{family['meaning']} ({family['value']}, {family['scheme']})"
        output.facts([(name.replace("_", " "), value) for name, value in card.items() if value])
    else:
        rows = [[card.name, card.version, card.title, card.inputs, card.outputs] for card in cards]
        output.table(["NAME", "VERSION", "TITLE", "INPUTS", "OUTPUTS"], rows)
    return 0
