"""Texts that a model's process wrote, before a log, a terminal or a result gets to see them."""

from __future__ import annotations

import re

#: Of a reason or a message that people are shown, and of any text among the findings.
MOST_REASON, MOST_TEXT = 1000, 10_000
#: What steers a terminal or turns the direction of writing, and halves of characters; lines may end.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean(text: str, most: int) -> str:
    """Return ``text`` as one line without what cannot be printed, cut off after ``most`` characters."""
    # Longer than that it is not worth going through.
    return " ".join(_UNPRINTABLE.sub(" ", text[: 4 * most]).split())[:most]


def refuse_unprintable(text: str, what: str) -> None:
    """Refuse a text that is longer than ``MOST_TEXT``, or has what cannot be printed.

    Raises
    ------
    ValueError
        naming ``what`` it is
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"{what} has {len(text)} characters, {MOST_TEXT} at most are taken")
    found = _UNPRINTABLE.search(text)
    if found:
        raise ValueError(f"{what} has a character that cannot be printed, {found[0]!r}")
