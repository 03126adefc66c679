"""What an analysis found, as a person reads it: names and values, few enough for a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Facts = Mapping[str, Sequence[str]]
"""A name, and the words any of which may match; none where a failed check withholds them."""

#: As a name of ``Facts``: every number is withheld.
EVERYTHING = "*"
#: What the name of a region ends with there when all its numbers are withheld.
OF_REGION = ".*"

_MOST_NAMED = 8
_MOST_CHARACTERS = 60
_DIGITS = 6
_FRACTION = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")


def is_withheld(facts: Facts, name: str) -> bool:
    """Whether a failed check withholds what goes by ``name``, alone, with its region or with all numbers."""
    return any(
        key in (name, EVERYTHING)
        or name.endswith(f".{key}")
        or (key.endswith(OF_REGION) and name.startswith(key.removesuffix("*")))
        for key, words in facts.items()
        if not words
    )


def listed_facts(facts: Facts, *, most: int = _MOST_NAMED) -> str:
    """``fat volume 2341.7, bone found``: the first ``most`` of them, and how many more there are."""
    told = [_told(name, words) for name, words in list(facts.items())[:most]]
    more = len(facts) - len(told)
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def shown_word(word: str) -> str:
    """A word as it is; of a number with a fraction no more than six digits."""
    if not _FRACTION.fullmatch(word) or word.isdecimal() or word[1:].isdecimal():
        return word
    if sum(map(str.isdigit, word.partition("e")[0])) <= _DIGITS:
        return word
    number = float(word)
    return f"{number:.0f}" if 10 ** (_DIGITS - 1) <= abs(number) < 1e15 else f"{number:.{_DIGITS}g}"


def _told(name: str, words: Sequence[str]) -> str:
    if not words:
        return "every number withheld" if name == EVERYTHING else f"{name} withheld"
    word = shown_word(words[0])
    return f"{name} {word if len(word) <= _MOST_CHARACTERS else word[: _MOST_CHARACTERS - 1] + '…'}"
