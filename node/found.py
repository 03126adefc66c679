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
#: What the name of a failed check ends with where its reason stands.
OF_REASON = ".reason"
PASSED = "passed"
FAILED = "failed"

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


def is_reason(facts: Facts, name: str) -> bool:
    """Whether ``name`` is that of the reason of a failed check."""
    return name.endswith(OF_REASON) and FAILED in facts.get(name.removesuffix(OF_REASON), ())


def listed_facts(facts: Facts, *, most: int = _MOST_NAMED) -> str:
    """``fat volume 2341.7, bone found``: the first ``most`` of them, and how many more there are.

    Before all others come failed checks, each with its reason, and what they withhold.
    """
    names = sorted(
        (name for name in facts if not is_reason(facts, name)), key=lambda name: _place(facts[name])
    )
    told = [_told(facts, name) for name in names[:most]]
    more = len(names) - len(told)
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def shown_word(word: str) -> str:
    """A word as it is; of a number with a fraction no more than six digits."""
    if not _FRACTION.fullmatch(word) or word.isdecimal() or word[1:].isdecimal():
        return word
    if sum(map(str.isdigit, word.partition("e")[0])) <= _DIGITS:
        return word
    number = float(word)
    return f"{number:.0f}" if 10 ** (_DIGITS - 1) <= abs(number) < 1e15 else f"{number:.{_DIGITS}g}"


def _place(words: Sequence[str]) -> int:
    if FAILED in words:
        return 0
    return 2 if words else 1


def _told(facts: Facts, name: str) -> str:
    words = facts[name]
    if FAILED in words:
        reasons = "; ".join(facts.get(name + OF_REASON, ()))
        return f"{name} {FAILED} ({reasons})" if reasons else f"{name} {FAILED}"
    if not words:
        return "every number withheld" if name == EVERYTHING else f"{name} withheld"
    word = shown_word(words[0])
    return f"{name} {word if len(word) <= _MOST_CHARACTERS else word[: _MOST_CHARACTERS - 1] + '…'}"
