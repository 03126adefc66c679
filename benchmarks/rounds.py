"""Contestants take turns: A B, B A, A B ..., each after everybody has come to rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from benchmarks.peers import Receiver

Result = TypeVar("Result")


def come_to_rest(receivers: Iterable[Receiver]) -> None:
    """Wait until nobody works in the background and nothing waits to be written to the disk."""
    for receiver in receivers:
        receiver.rest()
    os.sync()


def alternate(
    contestants: Mapping[str, Callable[[], Result]], rounds: int, *, before: Callable[[], None], what: str
) -> dict[str, list[Result]]:
    """Run every contestant ``rounds`` times, a different one first in each round.

    ``before`` is called before each turn. Results are in the order of the rounds.
    """
    names = list(contestants)
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            tell(f"{what}: round {number + 1} of {rounds}, {name}, once all others are at rest")
            before()
            results[name].append(contestants[name]())
    return results


def tell(what: str) -> None:
    """Say on standard error what is going on."""
    print(f"  .. {what}", file=sys.stderr, flush=True)
