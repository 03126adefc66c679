"""Person names as they are compared: by component group, without regard to case or width.

PS3.5 section 6.2.1: up to three groups (alphabetic, ideographic, phonetic) joined by ``=``, each of
up to five components joined by ``^``, where trailing delimiters say nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WILD_CARDS = re.compile(r"([*?]+)")


def fold(text: str) -> str:
    """Fold case and compatibility forms, so that a half-width katakana equals the full-width one."""
    if text.isascii():
        return text.casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=4096)
def folded_groups(name: str) -> tuple[str, str, str]:
    """Return the alphabetic, ideographic and phonetic group as they are compared; empty where absent."""
    groups = [_group(group) for group in name.split("=", 2)]
    groups += [""] * (3 - len(groups))
    return groups[0], groups[1], groups[2]


def _group(group: str) -> str:
    return "^".join(fold(component.strip()) for component in group.split("^")).rstrip("^")


def folded_pattern(group: str) -> str:
    """Fold a group of a key, in which ``*`` and ``?`` are wild cards and stay what they are."""
    components = []
    for component in group.split("^"):
        pieces = _WILD_CARDS.split(component.strip())
        components.append(
            "".join(piece if number % 2 else fold(piece) for number, piece in enumerate(pieces))
        )
    return "^".join(components).rstrip("^")
