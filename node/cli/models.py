"""``anode models``: what ``model = …`` may say."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from node.cli import command, output

if TYPE_CHECKING:
    from node.cli.command import Commands

LOADING_FAILURES = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError,
                    SyntaxError, TypeError, ValueError)  # fmt: skip
"""What the constructor of a model from another package may raise."""


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
    from node.config.config_values import suggestion
    from node.errors import WrongUsage

    names = sorted(registry.names())
    if arguments.name is not None and arguments.name not in names:
        raise WrongUsage(
            f"there is no model '{arguments.name}'{suggestion(arguments.name, names)}",
            action="'anode models' lists all",
        )
    cards, unusable = [], []
    for name in [arguments.name] if arguments.name else names:
        try:
            cards.append(registry.load(name).card)
        except LOADING_FAILURES as error:
            unusable.append((name, str(error)))
    if arguments.json:
        output.as_json([*map(asdict, cards), *({"name": name, "problem": why} for name, why in unusable)])
    elif arguments.name and cards:
        card = asdict(cards[0])
        family = card.pop("family")
        card["family"] = f"{family['meaning']} ({family['value']}, {family['scheme']})"
        output.facts([(name.replace("_", " "), value) for name, value in card.items() if value])
    elif cards:
        rows = [[card.name, card.version, card.title, card.inputs, card.outputs] for card in cards]
        output.table(["NAME", "VERSION", "TITLE", "INPUTS", "OUTPUTS"], rows)
    for name, why in unusable:
        output.note(f"model {name} cannot be loaded: {why}")
    return 1 if unusable else 0
