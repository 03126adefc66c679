"""Patterns with wild cards as regular expressions whose time does not explode."""

from __future__ import annotations

import re


def wild_card_expression(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """Make the expression whose ``fullmatch`` tells whether a text matches ``pattern``.

    ``*`` stands for any characters, also none, and ``?`` for one (PS3.4 section C.2.2.2.4); nothing else
    has a meaning.

    Notes
    -----
    What lies between two ``*`` is taken where it is found first, and not looked for again: if all that
    follows matches anywhere, it matches after that. A plain ``.*`` for each would try every combination,
    so that a pattern with ten of them holds up the whole process for years.
    """
    first, *others = [_written(piece) for piece in re.sub(r"\*+", "*", pattern).split("*")]
    if not others:
        return re.compile(first, flags | re.DOTALL)
    *middle, last = others
    found = "".join(f"(?>.*?{piece})" for piece in middle)
    return re.compile(f"{first}{found}.*{last}", flags | re.DOTALL)


def _written(piece: str) -> str:
    return ".".join(re.escape(part) for part in piece.split("?"))
