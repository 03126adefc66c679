"""The ``when`` of routes and analyses: keyword = pattern, and every line must match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from node.index.wild_cards import wild_card_expression


def differs(when: Mapping[str, str], header: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return (keyword, pattern, actual value) of the first line that does not match; None when all do.

    In a pattern ``*`` stands for any characters, ``?`` for one; case makes no difference. Of an
    attribute with several values, which are joined by a backslash, one has to match, or all of them
    as they stand. What the header does not have is an empty value, so ``*`` matches it as well.
    """
    for keyword, pattern in when.items():
        actual = str(header.get(keyword, ""))
        expression = _expression(pattern)
        values = [actual, *(value.strip() for value in actual.split("\\"))]
        if not any(expression.fullmatch(value) for value in values):
            return keyword, pattern, actual
    return None


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    return wild_card_expression(pattern.strip(), re.IGNORECASE)
