"""The ``when`` of routes and analyses: keyword = pattern, or any of several, and every line must match.

That of an analysis may also ask what an earlier analysis has found: ``ANALYSIS.NAME`` = pattern.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from node.config.settings import Pattern, Patterns
from node.index.wild_cards import wild_card_expression


def differs(when: Patterns, header: Mapping[str, str]) -> tuple[str, Pattern, str] | None:
    """Return (keyword, pattern, actual value) of the first line that does not match; None when all do.

    In a pattern ``*`` stands for any characters, ``?`` for one; case makes no difference. Of an
    attribute with several values, which are joined by a backslash, one has to match, or all of them
    as they stand. What the header does not have is an empty value, so ``*`` matches it as well. Of several
    patterns one has to match.
    """
    for keyword, pattern in when.items():
        actual = str(header.get(keyword, ""))
        expressions = [_expression(one) for one in alternatives(pattern)]
        values = [actual, *(value.strip() for value in actual.split("\\"))]
        if not any(expression.fullmatch(value) for expression in expressions for value in values):
            return keyword, pattern, actual
    return None


def alternatives(pattern: Pattern) -> tuple[str, ...]:
    """The patterns any of which may match."""
    return (pattern,) if isinstance(pattern, str) else pattern


def wanted(pattern: Pattern) -> str:
    """``'CT'``, or ``'CT' or 'MR'``: what a person reads of a pattern that did not match."""
    return " or ".join(f"'{one}'" for one in alternatives(pattern))


@dataclass(frozen=True)
class Asked:
    """A line of ``when`` that asks for a result: what ``analysis`` calls ``name`` has to match."""

    analysis: str
    name: str
    pattern: Pattern

    @property
    def key(self) -> str:
        """What stands left of the equals sign."""
        return f"{self.analysis}.{self.name}"

    def is_met_by(self, words: Sequence[str]) -> bool:
        """Whether one of ``words`` matches; none at all is no match.

        A pattern is one for texts, as of attributes, or a comparison of numbers: ``<5``, ``>= 0.9``.
        """
        return any(_is_met(one, words) for one in alternatives(self.pattern))


def _is_met(pattern: str, words: Sequence[str]) -> bool:
    compared = comparison(pattern)
    if compared is None:
        return any(_expression(pattern).fullmatch(word.strip()) for word in words)
    is_so, limit = compared
    return any(is_so(number, limit) for number in map(_number, words) if not math.isnan(number))


def attributes_of(when: Patterns) -> dict[str, Pattern]:
    """The lines of ``when`` that ask for attributes, whose keywords have no dot."""
    return {key: pattern for key, pattern in when.items() if "." not in key}


def results_of(when: Patterns, analyses: Iterable[str]) -> list[Asked]:
    """The lines of ``when`` that ask for results; those that begin with none of ``analyses`` are left out."""
    found = []
    for key, pattern in when.items():
        if "." in key and (name := analysis_of(key, analyses)) is not None:
            found.append(Asked(name, key[len(name) + 1 :], pattern))
    return found


def analysis_of(key: str, analyses: Iterable[str]) -> str | None:
    """The analysis that ``ANALYSIS.NAME`` begins with: the longest, as names may hold dots themselves."""
    fitting = [name for name in analyses if key.startswith(f"{name}.") and len(key) > len(name) + 1]
    return max(fitting, key=len, default=None)


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def comparison(pattern: str) -> tuple[Callable[[float, float], bool], float] | None:
    """Read ``<5`` or ``>= 0.9``; None where ``pattern`` begins otherwise.

    Raises ValueError where no number follows.
    """
    for sign, is_so in _COMPARISONS.items():
        if pattern.strip().startswith(sign):
            written = pattern.strip()[len(sign) :]
            limit = _number(written)
            if math.isnan(limit):
                raise ValueError(f"expected a number after {sign}, not '{written.strip()}'")
            return is_so, limit
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    return wild_card_expression(pattern.strip(), re.IGNORECASE)
